"""The rows against what devices were told: missing, spurious, doubled, changed.

The oracle is what a fleet wrote down itself: the records it was told are safe, and all that it ever sent. A record that
was sent but not acknowledged may be in the database or not; one that was acknowledged must be, once, unless it was
erased or went with its month. Rows that were received before the oracle's first record was made are not its fleet's: an
earlier one had the same numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeAlias

import msgspec

from signalkeep.store import audit as queries
from signalkeep.store.partitions import month_of
from signalkeep.store.postgres import Connection

Moment: TypeAlias = tuple[str, datetime]  # device_number and its time: unique for the units of an oracle

EXAMPLES_MAX = 10
DEGREES_TOLERANCE = 1e-6
SPEED_TOLERANCE_KMH = 0.01
CLOCKS_APART_MAX = timedelta(minutes=1)  # of the fleet's machine and the gateway's
EVER = datetime(2000, 1, 1, tzinfo=UTC)


class Told(Protocol):
    """One line of an oracle's file."""

    @property
    def device_number(self) -> str: ...
    @property
    def device_time(self) -> datetime: ...
    @property
    def latitude(self) -> float | None: ...
    @property
    def longitude(self) -> float | None: ...
    @property
    def speed_kmh(self) -> float | None: ...
    @property
    def event_code(self) -> str | None: ...


class OracleVerdict(msgspec.Struct):
    """Counts, with a few examples of each fault."""

    safe: int  # records that a device was told are safe
    sent: int  # records that were sent at all
    stored: int  # rows of these devices
    quarantined: int  # open quarantine rows of these devices
    missing: int
    spurious: int
    doubled: int
    corrupted: int
    erased: int  # told safe, not there, and at or below the floor of an erasure
    expired: int  # told safe, not there, and of a month that went because the retention was over
    examples: list[str]

    @property
    def ok(self) -> bool:
        return not (self.missing or self.spurious or self.doubled or self.corrupted)


async def compare(connection: Connection, safe: Iterable[Told], sent: Iterable[Told]) -> OracleVerdict:
    """Hold the oracle against signal and quarantine, in one snapshot."""
    told = {_moment(record): record for record in safe}
    possible = {_moment(record): record for record in sent} | told
    numbers = sorted({number for number, _ in possible})
    began = min((time for _, time in possible), default=EVER) - CLOCKS_APART_MAX
    async with queries.snapshot(connection):
        stored = await queries.ask(connection, queries.STORED, numbers, began)
        waiting = await queries.ask(connection, queries.WAITING, numbers, began)
        erased = await queries.ask(connection, queries.FLOORS, numbers)
        months = await queries.expired_months(connection)
    rows = Counter((row["device_number"], row["device_time"] or row["wire_time"]) for row in stored)
    held = Counter((row["device_number"], row["wire_time"]) for row in waiting)
    found = rows + held
    floors = {row["device_number"]: row["erased_to"] for row in erased}
    gone = [moment for moment in told if moment not in found]
    lost = [(number, time) for number, time in gone if number not in floors or time > floors[number]]
    missing = [(number, time) for number, time in lost if month_of(time) not in months]
    spurious = [moment for moment in found if moment not in possible]
    doubled = [moment for moment, count in found.items() if count > 1]
    corrupted = [
        moment
        for row in stored
        if (record := possible.get(moment := (row["device_number"], row["device_time"] or row["wire_time"])))
        and _differs(record, row)
    ]
    named = [("missing", missing), ("spurious", spurious), ("doubled", doubled), ("corrupted", corrupted)]
    examples = [
        f"{fault}: device {number}, {time.isoformat(timespec='milliseconds')}"
        for fault, moments in named
        for number, time in moments[:EXAMPLES_MAX]
    ]
    return OracleVerdict(
        safe=len(told),
        sent=len(possible),
        stored=len(stored),
        quarantined=len(waiting),
        missing=len(missing),
        spurious=len(spurious),
        doubled=sum(found[moment] - 1 for moment in doubled),
        corrupted=len(corrupted),
        erased=len(gone) - len(lost),
        expired=len(lost) - len(missing),
        examples=examples,
    )


def _moment(record: Told) -> Moment:
    time = record.device_time
    return record.device_number, time - timedelta(microseconds=time.microsecond % 1000)


def _differs(record: Told, row: Any) -> bool:
    return (
        _apart(record.latitude, row["latitude"], DEGREES_TOLERANCE)
        or _apart(record.longitude, row["longitude"], DEGREES_TOLERANCE)
        or _apart(record.speed_kmh, row["speed_kmh"], SPEED_TOLERANCE_KMH)
        or record.event_code != row["event_code"]
    )


def _apart(one: float | None, other: float | None, tolerance: float) -> bool:
    if one is None or other is None:
        return one is not other
    return abs(one - other) > tolerance
