"""Rules at ingest: what each record says by itself, and beside what is remembered of its device.

One for all pipelines of a process. A device's memory is made from its last stored signals when it is first heard of,
and moves with every record that is judged after that, in the order in which they are prepared to be written. If what
was prepared is not written, all memories are forgotten: they are made again from what is stored. So a memory may lag
behind where a device's frames come through several processes at once; a sweep judges every signal again, in its place.

Rules only mark. Whatever happens here, no record is held back, changed or lost.
"""

from __future__ import annotations

from collections.abc import Collection
from weakref import WeakSet

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.rulebook import Rulebook
from signalkeep.rules.judge import Judge
from signalkeep.rules.reading import Reading, Recent
from signalkeep.store import rules as stored_rules
from signalkeep.store.postgres import Connection
from signalkeep.store.rows import Device, FrameRows
from signalkeep.telemetry import get_logger

log = get_logger()


class Judging:
    """Judges frames before they are written."""

    def __init__(self, book: Rulebook, clock: Clock) -> None:
        self._book = book
        self._clock = clock
        self._judge = Judge(quick=True)
        self._recent: dict[int, Recent] = {}
        self._customers: dict[int, str] = {}
        self._codes: frozenset[tuple[str, str]] = frozenset()
        self._with_codes: frozenset[str] = frozenset()
        self._read_codes_s = float("-inf")
        self._said_broken: set[str] = set()
        self._knowing: WeakSet[Connection] = WeakSet()  # connections to databases that know our rules

    def broken(self) -> dict[str, int]:
        """Checks that raised, by rule."""
        return dict(self._judge.broken)

    def forget(self) -> None:
        """Something that was judged was not written."""
        self._recent.clear()
        self._customers.clear()

    def knows(self, devices: Collection[Device]) -> bool:
        """Whether nothing has to be looked up before frames of these devices are judged."""
        return (
            all(device.id in self._recent for device in devices)
            and self._clock.monotonic() - self._read_codes_s < limits.EVENT_CODES_REREAD_S
        )

    async def look_up(self, connection: Connection, devices: Collection[Device]) -> None:
        """Make the memories that are missing. First of all the database must know our rules, and we their bits."""
        if connection not in self._knowing:
            await stored_rules.ensure_rules(connection, self._book)
            self._knowing.add(connection)
        if self._clock.monotonic() - self._read_codes_s >= limits.EVENT_CODES_REREAD_S:
            self._codes = await stored_rules.event_codes(connection)
            self._with_codes = frozenset(protocol for protocol, _ in self._codes)
            self._read_codes_s = self._clock.monotonic()
        if len(self._recent) > limits.DEVICE_CACHE_MAX:
            self.forget()
        missing = {device.id: device for device in devices if device.id not in self._recent}
        if not missing:
            return
        for device_id, (customer, readings) in (await stored_rules.last_signals(connection, list(missing))).items():
            model = missing[device_id].settings.model
            profile = self._book.profile(model, customer)
            recent = self._recent[device_id] = Recent(model, profile)
            self._customers[device_id] = customer
            for reading in readings:
                self._judge.judge(reading, recent, profile)

    def judge(self, rows: FrameRows) -> None:
        """Mark the signals of a frame. Its device was looked up; if it has just been forgotten, a sweep judges them."""
        device = rows.device
        recent = self._recent.get(device.id)
        if recent is None:
            return
        if recent.model != device.settings.model:
            recent.model = device.settings.model
            recent.profile = self._book.profile(recent.model, self._customers[device.id])
            recent.runs = None  # they belong to the rules of the other profile
        protocol, received_s = rows.frame.protocol, rows.received_at.timestamp()
        for row in rows.signals:
            reading = Reading.of(row.signal, row.device_time, received_s, protocol)
            code = reading.event_code
            if code is not None and protocol in self._with_codes:
                reading.event_known = (protocol, code) in self._codes
            flags, hits, _ = self._judge.judge(reading, recent, recent.profile)
            if flags or hits:
                row.flags |= flags
                row.hits = hits
        if len(self._judge.broken) > len(self._said_broken):
            self._say_broken()

    def _say_broken(self) -> None:
        for rule_id in self._judge.broken.keys() - self._said_broken:
            self._said_broken.add(rule_id)
            log.error(
                "a rule cannot be asked: the check itself broke; no signal is lost by it",
                rule=rule_id,
                error=self._judge.first_errors[rule_id],
            )
