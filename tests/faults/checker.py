"""Was anything lost? What devices were told against what PostgreSQL has; shares no code with the product.

Fault model: everything between the virtual device and the database may have been killed, cut off or
restarted at any instant. The only witnesses are the oracle FILE (records that an acknowledgement covered),
FILE.sent (records that ever left) and the rows themselves, read with plain SQL in one snapshot.

    missing       told safe and not erased, but there is neither a signal nor an open quarantine row
    spurious      a signal of one of the oracle's devices that was never sent
    corrupted     stored, but position, speed or event differ from what was sent
    doubled       more than one row for one record, over signal and open quarantine (times are unique)
    out_of_order  stored behind a record of the same device that was first sent later, in the same journal
    resurrected   there although it lies at or below the floor of an erasure that was finished

What was erased on purpose (device.erased_to) is not missing. out_of_order goes by when a record first left: a device
that sends on from its oldest, or from its newest, unacknowledged record had brought, or been told of, everything that
left before.

What it cannot see: records that were neither told safe nor stored (the device still has them), and whether
the disk would have kept what the page cache kept.

    python -m tests.faults.checker DSN FILE
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

TOLERANCE = 1e-6
EXAMPLES_MAX = 10

SIGNALS = """
    SELECT d.device_number, s.device_time, s.latitude, s.longitude, s.speed_kmh, s.event_code,
           s.journal_id, s.seq, s.record_no
      FROM signal s JOIN device d ON d.id = s.device_id
     WHERE d.device_number = ANY($1::text[])
     ORDER BY s.journal_id, s.seq, s.record_no
"""
OPEN_QUARANTINE = """
    SELECT d.device_number, q.wire_time
      FROM quarantine q JOIN device d ON d.id = q.device_id
     WHERE d.device_number = ANY($1::text[]) AND q.state = 'open'
"""


FLOORS = """
    SELECT device_number, erased_to, erased_at IS NOT NULL AS finished
      FROM device WHERE erased_to IS NOT NULL AND device_number = ANY($1::text[])
"""


class Key(NamedTuple):
    """A record of a virtual device; its times are unique."""

    device_number: str
    device_time: datetime | None


class Floor(NamedTuple):
    """Up to where a device was erased."""

    erased_to: datetime
    finished: bool


class Stored(NamedTuple):
    """A row of `signal`, as far as it matters here; rows come in the order of their provenance."""

    device_number: str
    device_time: datetime | None
    latitude: float | None
    longitude: float | None
    speed_kmh: float | None
    event_code: str | None
    journal_id: int
    seq: int
    record_no: int


@dataclass
class Verdict:
    """Counts. All but `safe`, `sent`, `stored`, `quarantined` and `erased` must be 0."""

    missing: int = 0
    spurious: int = 0
    corrupted: int = 0
    doubled: int = 0
    out_of_order: int = 0
    resurrected: int = 0
    safe: int = 0
    sent: int = 0
    stored: int = 0
    quarantined: int = 0
    erased: int = 0  # told safe, and erased on purpose
    examples: dict[str, list[str]] = field(default_factory=dict)  # of each fault, some records

    @property
    def clean(self) -> bool:
        faults = self.missing, self.spurious, self.corrupted, self.doubled, self.out_of_order, self.resurrected
        return not any(faults)

    def add(self, fault: str, key: Key, detail: str = "") -> None:
        setattr(self, fault, getattr(self, fault) + 1)
        examples = self.examples.setdefault(fault, [])
        if len(examples) < EXAMPLES_MAX:
            examples.append(f"{key.device_number} {key.device_time} {detail}".rstrip())


async def check(dsn: str, oracle: Path) -> Verdict:
    """Read both files and the database, and compare."""
    # In this order nothing looks missing or spurious that arrives while we read.
    numbers = sorted({str(line["device_number"]) for line in _lines(sent_path(oracle))})
    safe = {_key(line) for line in _lines(oracle)}
    connection = await asyncpg.connect(dsn, timeout=30, command_timeout=600)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            signals = [Stored(*row) async for row in connection.cursor(SIGNALS, numbers, prefetch=10_000)]
            floors = {row[0]: Floor(*row[1:]) for row in await connection.fetch(FLOORS, numbers)}
            quarantined = [Key(*row) async for row in connection.cursor(OPEN_QUARANTINE, numbers, prefetch=10_000)]
    finally:
        await connection.close(timeout=30)
    sent = {_key(line): line for line in _lines(sent_path(oracle))}
    return judge(safe, sent, signals, quarantined, floors)


def judge(
    safe: set[Key],
    sent: dict[Key, dict[str, Any]],
    signals: Iterable[Stored],
    quarantined: Iterable[Key],
    floors: dict[str, Floor] | None = None,
) -> Verdict:
    """The comparison itself. Raises ValueError for files that contradict each other."""
    unsent = safe - sent.keys()
    if unsent:
        raise ValueError(f"{len(unsent)} records were told safe but never sent, such as {min(unsent)}")
    verdict = Verdict(safe=len(safe), sent=len(sent))
    rows: Counter[Key] = Counter()
    rank = {key: number for number, key in enumerate(sent)}  # clocks jump back: what counts is when it first left
    latest: dict[tuple[str, int], int] = {}
    for row in signals:
        key = Key(row.device_number, row.device_time)
        verdict.stored += 1
        rows[key] += 1
        if key not in sent or row.device_time is None:
            verdict.add("spurious", key)
            continue
        difference = _difference(sent[key], row)
        if difference:
            verdict.add("corrupted", key, difference)
        lane = (row.device_number, row.journal_id)
        if rank[key] < latest.get(lane, 0):
            verdict.add("out_of_order", key, f"at {row.journal_id}/{row.seq}/{row.record_no}")
        latest[lane] = max(rank[key], latest.get(lane, 0))
    for key in quarantined:
        verdict.quarantined += 1
        rows[key] += 1
    floors = floors or {}
    for key in sorted(safe - rows.keys()):
        if _below(key, floors):
            verdict.erased += 1
        else:
            verdict.add("missing", key)
    for key in rows:
        if _below(key, floors) and floors[key.device_number].finished:
            verdict.add("resurrected", key)
    for key, count in rows.items():
        if count > 1:
            verdict.add("doubled", key, f"{count} rows")
    return verdict


def _below(key: Key, floors: dict[str, Floor]) -> bool:
    floor = floors.get(key.device_number)
    return floor is not None and key.device_time is not None and key.device_time <= floor.erased_to


def sent_path(oracle: Path) -> Path:
    """Where the simulator notes what ever left."""
    return oracle.with_name(oracle.name + ".sent")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The file's records; a last line without its end was being written when the simulator died."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


def _key(line: dict[str, Any]) -> Key:
    return Key(line["device_number"], datetime.fromisoformat(line["device_time"]))


def _difference(sent: dict[str, Any], row: Stored) -> str:
    for name in ("latitude", "longitude", "speed_kmh"):
        was, now = sent[name], getattr(row, name)
        if (was is None) is not (now is None) or (was is not None and abs(was - now) > TOLERANCE):
            return f"{name}: sent {was}, stored {now}"
    if sent["event_code"] != row.event_code:
        return f"event_code: sent {sent['event_code']}, stored {row.event_code}"
    return ""


def main() -> int:
    """Print the verdict as JSON; 1 if anything is wrong."""
    if len(sys.argv) != 3:
        sys.stderr.write("usage: python -m tests.faults.checker DSN FILE\n")
        return 2
    verdict = asyncio.run(check(sys.argv[1], Path(sys.argv[2])))
    sys.stdout.write(json.dumps({"clean": verdict.clean, **asdict(verdict)}, indent=2) + "\n")
    return 0 if verdict.clean else 1


if __name__ == "__main__":
    raise SystemExit(main())
