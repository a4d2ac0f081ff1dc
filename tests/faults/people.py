"""What drills about people have in common: a core whose admins are a webhook of ours, and what they must hear.

An outage takes something away and gives it back. Of each cause people hear once that it is there and once that it is
over, in time, by one message each that is delivered once; and nothing of what merely follows from it. Messages are
judged by what arrived at the webhook, not by what the core says that it sent.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from signalkeep.config import Settings, load
from signalkeep.limits import DISK_NEARLY_FACTOR, GIB
from signalkeep.store.postgres import embedded_dsn
from tests.builders import ask
from tests.core import Core
from tests.door import Door
from tests.faults.broker_core import BrokerCore
from tests.notify.receivers import Webhook
from tests.servers import wait_until

Subject = tuple[str, str]  # kind and subject of an incident
SLOW_FACTOR: Final = 4.0  # a busy machine may take so many times as long as the product promises
QUICK: Final = {
    "monitor__hung_after_s": "4",
    "monitor__write_every_s": "0.5",
    "services__every_s": "0.5",
    "services__bad_s": "3",
    "services__good_s": "2",
    "services__canary__every_s": "1",
    "services__canary__deadline_s": "5",
    "notify__database_away_s": "2",
}
MARGIN_BYTES: Final = 2 * GIB  # of a disk that others use, too
WELL_S_MAX: Final = 120.0

# What is not as it should be, or not decided, or not told yet.
UNSETTLED: Final = """
SELECT 'incident ' || kind || ' ' || subject FROM incident WHERE state <> 'cleared'
UNION ALL SELECT 'service ' || name || ': ' || why FROM service WHERE state <> 'up'
UNION ALL SELECT 'event ' || id FROM incident_event WHERE routed_at IS NULL
UNION ALL SELECT 'message ' || id FROM notification WHERE state = 'waiting'
UNION ALL SELECT 'no canary since then'
    WHERE NOT EXISTS (SELECT FROM service WHERE name = 'canary' AND at > to_timestamp($1))
"""
INCIDENTS: Final = "SELECT kind, subject, reopened FROM incident WHERE id > $1"


@dataclass(frozen=True)
class Outage:
    """`heard`: the incidents that people must hear of. Times are promises of the product, by its settings."""

    name: str
    heard: tuple[Subject, ...]
    told_within_s: Callable[[Settings], float]
    over_within_s: Callable[[Settings], float]
    take_away: Callable[[Scene], AbstractContextManager[None]]
    needs: tuple[str, ...] = ()  # of the core: "broker", or "disk": that it minds how full that is


@dataclass
class Told:
    """What became of one outage: seconds from its begin and end until people knew."""

    told_s: float = 0.0
    told_within_s: float = 0.0
    over_s: float = 0.0
    over_within_s: float = 0.0
    messages: int = 0
    broken: list[str] = field(default_factory=list)


class Ear:
    """What admins hear: every delivery, with its time."""

    def __init__(self, hook: Webhook) -> None:
        self._lock = threading.Lock()
        self._heard: list[tuple[float, dict[str, Any]]] = []
        hook.on_message = self._hear

    def _hear(self, message: dict[str, Any]) -> None:
        with self._lock:
            self._heard.append((time.monotonic(), message))

    def since(self, at_s: float) -> list[tuple[float, dict[str, Any]]]:
        """Later than this."""
        with self._lock:
            return [one for one in self._heard if one[0] >= at_s]

    def first(self, what: str, subject: Subject, since_s: float) -> float | None:
        """When it was said first."""
        return next(
            (at_s for at_s, one in self.since(since_s) if (one["what"], *subject_of(one)) == (what, *subject)), None
        )


def subject_of(message: dict[str, Any]) -> Subject:
    return message["incident"]["kind"], message["incident"]["subject"]


class Scene:
    """A running core, the way of its canary, the disk it shares with others, and the ear of its admins."""

    def __init__(self, core: Core, ear: Ear, door: Door, nearly_full_below_bytes: int) -> None:
        self.core = core
        self.ear = ear
        self.door = door
        self.nearly_full_below_bytes = nearly_full_below_bytes
        self.settings = load(core.data, environ=core.environment)
        self.dsn = embedded_dsn(core.data)

    @property
    def node(self) -> Any:
        """RabbitMQ."""
        assert isinstance(self.core, BrokerCore)
        return self.core.node

    def wait_until_well(self) -> None:
        """A canary has arrived since now, nothing is open, and all that there is to tell is told."""
        since = time.time()
        unsettled: list[str] = []

        def settled() -> bool:
            unsettled[:] = [row[0] for row in ask(self.dsn, UNSETTLED, since)]
            return not unsettled

        try:
            wait_until(settled, WELL_S_MAX + 2 * self.settings.services.canary.every_s, what="all is well")
        except AssertionError as error:
            raise AssertionError(f"{error}: {unsettled}") from None

    def last_incident(self) -> int:
        """Its number."""
        last: int = ask(self.dsn, "SELECT coalesce(max(id), 0) FROM incident")[0][0]
        return last


@contextmanager
def scene(outages: Sequence[Outage], *, quick: bool) -> Iterator[Scene]:
    """A core that is well, for these. `quick`: it looks more often, and bears less, than with its usual settings."""
    needs = {need for outage in outages for need in outage.needs}
    free = shutil.disk_usage("/tmp").free  # where cores of tests are
    nearly_full_below = free - min(MARGIN_BYTES, free // 8) if "disk" in needs else 0
    with Webhook() as hook, Door() as door:
        settings = {
            **(QUICK if quick else {}),
            "services__canary__enabled": "true",
            "services__canary__port": str(door.port),
            "journal__disk_free_bytes": str(int(nearly_full_below / DISK_NEARLY_FACTOR)),
            "notify__channels": json.dumps({"admins": hook.settings}),
            "notify__admins": '["admins"]',
        }
        with (BrokerCore if "broker" in needs else Core)(**settings) as core:
            door.target = core.ports["json"]
            ready = Scene(core, Ear(hook), door, nearly_full_below)
            ready.wait_until_well()
            yield ready


def carry_out(scene: Scene, outages: Sequence[Outage], *, seconds: float = 0.0) -> list[Told]:
    """Take all away, give each back when people know of it and `seconds` have passed, wait for the end, and judge."""
    results = [Told(told_within_s=one.told_within_s(scene.settings), over_within_s=one.over_within_s(scene.settings))
               for one in outages]  # fmt: skip
    before, began_s = scene.last_incident(), time.monotonic()
    back_s: dict[str, float] = {}
    with ExitStack() as everything:
        away = [everything.enter_context(ExitStack()) for _ in outages]
        for outage, stack in zip(outages, away, strict=True):
            stack.enter_context(outage.take_away(scene))
        gone_s = time.monotonic()
        for outage, told, stack in sorted(
            zip(outages, results, away, strict=True), key=lambda one: one[1].told_within_s
        ):
            told.told_s = _heard(scene, outage, "opened", gone_s, told.told_within_s, began_s) - gone_s
            while time.monotonic() < gone_s + seconds:
                time.sleep(0.05)  # the outage lasts
            stack.close()
            back_s[outage.name] = time.monotonic()
    for outage, told in zip(outages, results, strict=True):
        over_s = _heard(scene, outage, "cleared", back_s[outage.name], told.over_within_s, began_s)
        told.over_s = over_s - back_s[outage.name]
    scene.wait_until_well()
    heard = [one for _, one in scene.ear.since(began_s)]
    wanted = {subject for outage in outages for subject in outage.heard}
    for outage, told in zip(outages, results, strict=True):
        told.messages = len({one["id"] for one in heard if subject_of(one) in outage.heard})
    results[0].broken += judge(heard, wanted)
    found = Counter((row["kind"], row["subject"]) for row in ask(scene.dsn, INCIDENTS, before))
    if found != Counter(wanted):
        results[0].broken.append(f"incidents are {dict(found)}, and should be {sorted(wanted)}")
    return results


def judge(heard: Sequence[dict[str, Any]], wanted: set[Subject]) -> list[str]:
    """What is wrong with what people heard: of each of these once that it is there, once that it is over."""
    deliveries = Counter(one["id"] for one in heard)
    broken = [f"message {one} came {times} times" for one, times in deliveries.items() if times > 1]
    said = Counter((one["what"], *subject_of(one)) for one in {one["id"]: one for one in heard}.values())
    should = Counter((what, *subject) for subject in wanted for what in ("opened", "cleared"))
    broken += [f"said {said[key]} times: {' '.join(key)}" for key in should if said[key] != 1]
    return broken + [f"said without need: {' '.join(key)}" for key in said if key not in should]


def _heard(scene: Scene, outage: Outage, what: str, since_s: float, within_s: float, began_s: float) -> float:
    """Wait until people know all of an outage; when they did."""
    times: list[float | None] = []

    def known() -> bool:
        times[:] = [scene.ear.first(what, subject, began_s) for subject in outage.heard]
        return None not in times

    left_s = since_s + SLOW_FACTOR * within_s - time.monotonic()
    try:
        wait_until(known, left_s, what=f"{outage.name}: {what} is told")
    except AssertionError as error:
        said = [(one["what"], *subject_of(one)) for _, one in scene.ear.since(began_s)]
        raise AssertionError(f"{error}; told so far: {said}") from None
    return max(at_s for at_s in times if at_s is not None)
