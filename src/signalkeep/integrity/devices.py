"""Are devices well? Looks at all of them, remembers what ails each, and opens and clears their incidents.

    read       what rules found lately, what is remembered, and of the devices those that may ail
    judge      each device by itself (`rules.health`), then what many have at once (`rules.shared`)
    write      what is remembered and the incidents, in the same transaction as all of the above

Who is cut off leaves nothing behind, and who looks again sees the same: nothing is lost, opened or told twice. Only
active devices are looked at. Of a retired one nothing is expected, and nobody who could mend it has registered an
unknown one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

import msgspec

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.rules.health import Ailing, DeviceView, LastSignal, TroubleLimits, asks_last_signal, judge
from signalkeep.rules.shared import Group, Member, groups, places_of
from signalkeep.rules.troubles import LIMITS, Trouble
from signalkeep.sections.devices import DevicesSettings
from signalkeep.store import device_health as store
from signalkeep.store.incidents import Condition, Observed, observe
from signalkeep.store.postgres import Connection

SOURCE: Final = "devices"
SHARED_FAULT: Final = "shared_fault"
NEVER_S: Final = 1e9  # for what is not looked for

Before: TypeAlias = Mapping[int, Mapping[Trouble, Ailing]]
"""What is remembered, by device and kind."""


class Device(msgspec.Struct, frozen=True):
    """What is kept of a device that ails."""

    device_number: str
    customer_id: int | None
    active: bool
    places: tuple[str, ...]


class Looked(msgspec.Struct):
    """What a look at all devices came to."""

    devices: dict[int, Device] = {}
    ailing: dict[tuple[int, Trouble], Ailing] = {}

    def add(self, view: DeviceView, ailing: Iterable[Ailing], now_s: float) -> None:
        active = view.heard_s is not None and now_s - view.heard_s <= limits.ACTIVE_S
        places = places_of(view.model, view.latitude, view.longitude)
        self.devices[view.device_id] = Device(view.device_number, view.customer_id, active, places)
        self.ailing |= {(view.device_id, one.kind): one for one in ailing}

    def members(self) -> list[Member]:
        """Whom a shared fault could be made of."""
        return [
            Member(
                device_id, device.device_number, device.customer_id, kind, one.since_s, device.active, device.places,
                one.part_of,
            )
            for (device_id, kind), one in self.ailing.items()
            if one.cleared_s is None
            for device in [self.devices[device_id]]
        ]  # fmt: skip


class DeviceCheck:
    """Looks again and again. What the latest signals said is kept between looks, because it seldom changes."""

    def __init__(self, settings: DevicesSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._of_models: dict[str, Mapping[Trouble, TroubleLimits]] = {}
        self._last: dict[int, tuple[int, LastSignal | None]] = {}  # by device: records stored then, and what it said

    async def run(self, connection: Connection) -> str:
        """One look; what came of it, in words."""
        now = self._clock.now()
        async with connection.transaction():
            await store.lock(connection)
            before = await store.troubles(connection)
            looked = await self._look(connection, before, now)
            found = await self._shared(connection, looked, now)
            _note_groups(looked, found)
            await store.put(connection, _changed(before, looked), _forgotten(before, looked))
            observed = await _observe(connection, looked, found, now)
        ill = {device_id for (device_id, _), one in looked.ailing.items() if one.cleared_s is None}
        words = "1 device ails" if len(ill) == 1 else f"{len(ill)} devices ail"
        shared = f", {len(found)} shared fault{'s' if len(found) > 1 else ''}" if found else ""
        return f"{words}{shared}: {observed.words()}"

    def _limits(self, model: str) -> Mapping[Trouble, TroubleLimits]:
        found = self._of_models.get(model)
        if found is None:
            if len(self._of_models) >= limits.DEVICE_PAGE_ROWS:  # models are texts that anybody may set
                self._of_models.clear()
            found = self._of_models[model] = self._settings.limits_of(model)
        return found

    def _every(self, kind: Trouble, name: str) -> list[float]:
        """A limit as it is set for any model; empty: the kind is off everywhere."""
        every = [self._limits(model) for model in ("", *self._settings.models)]
        return [one[kind][name] for one in every if kind in one]

    async def _look(self, connection: Connection, before: Before, now: datetime) -> Looked:
        """Judge every device that may ail."""
        windows = [h for kind in Trouble if "window_h" in LIMITS[kind] for h in self._every(kind, "window_h")]
        found = await store.findings(connection, now - timedelta(hours=max(windows, default=0.0)))
        looked, last = Looked(), self._last
        self._last = {}
        now_s = now.timestamp()
        pages = store.devices(
            connection, now, silent_after_s=min(self._every(Trouble.SILENT, "after_s"), default=NEVER_S),
            blind_after_s=min(self._every(Trouble.NO_FIX, "after_s"), default=NEVER_S), before=before, found=found,
        )  # fmt: skip
        async for page in pages:
            for view in await self._with_last_signals(connection, page, last, now_s):
                ailing = judge(view, self._limits(view.model), now_s)
                if ailing:
                    looked.add(view, ailing, now_s)
            await asyncio.sleep(0)
        return looked

    async def _with_last_signals(
        self, connection: Connection, page: Sequence[DeviceView], known: Mapping[int, tuple[int, LastSignal | None]],
        now_s: float,
    ) -> list[DeviceView]:  # fmt: skip
        """Look up the latest signals where they matter; those of devices that sent nothing since are known."""
        asked = {view.device_id: view for view in page if asks_last_signal(view, self._limits(view.model), now_s)}
        unknown = [one for one, view in asked.items() if known.get(one, (-1, None))[0] != view.stored]
        read = await store.last_signals(connection, unknown) if unknown else {}
        for one, view in asked.items():
            self._last[one] = (view.stored, read.get(one) if one in read or one not in known else known[one][1])
        return [
            msgspec.structs.replace(view, last=self._last[view.device_id][1]) if view.device_id in asked else view
            for view in page
        ]

    async def _shared(self, connection: Connection, looked: Looked, now: datetime) -> list[Group]:
        """What many devices have at once."""
        members = looked.members()
        values = self._settings.group_limits
        most = Counter(one.kind for one in members).most_common(1)
        if not most or most[0][1] < values["devices"]:
            return []
        since = now - timedelta(seconds=limits.ACTIVE_S)
        active = await store.active_devices(connection, since, int(values["devices"]))
        return await asyncio.to_thread(groups, members, active, values)  # so that others have their turn


def _note_groups(looked: Looked, found: Iterable[Group]) -> None:
    """Remember of each trouble which shared fault it is part of."""
    part_of = {(one.device_id, group.kind): group.subject for group in found for one in group.members}
    for key, one in looked.ailing.items():
        if one.part_of != part_of.get(key):
            looked.ailing[key] = msgspec.structs.replace(one, part_of=part_of.get(key))


def _changed(before: Before, looked: Looked) -> list[tuple[int, Ailing]]:
    return [
        (device_id, one)
        for (device_id, kind), one in looked.ailing.items()
        if before.get(device_id, {}).get(kind) != one
    ]


def _forgotten(before: Before, looked: Looked) -> list[tuple[int, Trouble]]:
    return [
        (device_id, kind)
        for device_id, kinds in before.items()
        for kind in kinds
        if (device_id, kind) not in looked.ailing
    ]


async def _observe(connection: Connection, looked: Looked, found: Sequence[Group], now: datetime) -> Observed:
    """Incidents of devices by themselves, and one of each shared fault."""
    conditions, part_of = [], {}
    for (device_id, kind), one in looked.ailing.items():
        device = looked.devices[device_id]
        if one.part_of is not None:
            part_of[str(kind), device.device_number] = (SHARED_FAULT, one.part_of)
        elif one.cleared_s is None:
            conditions.append(
                Condition(
                    kind=str(kind), subject=device.device_number, detail=one.detail, since=_at(one.since_s),
                    stage=one.stage, device_id=device_id, customer_id=device.customer_id, hits=one.hits,
                )
            )  # fmt: skip
    conditions += [
        Condition(
            kind=SHARED_FAULT, subject=group.subject, detail=group.detail, since=_at(group.since_s),
            customer_id=group.customer_id, hits=len(group.members), devices=len(group.members),
        )
        for group in found
    ]  # fmt: skip
    return await observe(connection, SOURCE, conditions, now, part_of=part_of)


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
