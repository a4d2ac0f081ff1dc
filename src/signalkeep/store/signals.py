"""Stores signals, each record key at most once, and says what became of them. In the caller's transaction.

    beyond the mark    COPY, straight into the table: a record that is later than everything stored for its device
                       (`device_state.stored_to`) cannot have a twin there
    the rest           INSERT ... ON CONFLICT DO NOTHING: backlogs, re-sends, replays, releases

The mark is only ever a reason to take the faster way. Should it be wrong, because somebody has put rows into the table
by hand, COPY fails on the primary key, is undone up to its savepoint, and everything goes the other way. The caller
holds the devices' locks, under which the mark moves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from signalkeep.rules.contract import FIRST_BIT
from signalkeep.store import sql
from signalkeep.store.postgres import Connection, JsonText, is_duplicate_key
from signalkeep.store.rows import FrameRows, SignalRow

Provenance: TypeAlias = tuple[int, int]
"""(device_id, journal_id)"""

FIRST_RULE_FLAG: Final = 1 << FIRST_BIT

COLUMNS: Final = (
    "device_id", "wire_time", "digest", "device_time", "received_at", "fix_valid", "latitude", "longitude",
    "altitude_m", "speed_kmh", "course_deg", "satellites", "event_code", "attributes", "flags", "protocol",
    "journal_id", "seq", "record_no",
)  # fmt: skip


class SignalValues(NamedTuple):
    """A row of `signal`, in the order of COLUMNS."""

    device_id: int
    wire_time: datetime
    digest: int
    device_time: datetime | None
    received_at: datetime
    fix_valid: bool
    latitude: float | None
    longitude: float | None
    altitude_m: float | None
    speed_kmh: float | None
    course_deg: float | None
    satellites: int | None
    event_code: str | None
    attributes: JsonText
    flags: int
    protocol: str
    journal_id: int
    seq: int
    record_no: int


class Stored:
    """What one provenance has gained: rows, the exclusive or of their digests, and the digests that rules marked."""

    __slots__ = ("key_xor", "marked", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self.key_xor = 0
        self.marked: set[int] = set()


def values_of(rows: FrameRows, row: SignalRow, journal_id: int, seq: int, record_no: int) -> SignalValues:
    """The row of a record, under the provenance given."""
    signal = row.signal
    return SignalValues(
        rows.device.id,
        row.wire_time,
        row.digest,
        row.device_time,
        rows.received_at,
        signal.fix_valid,
        signal.latitude,
        signal.longitude,
        signal.altitude_m,
        signal.speed_kmh,
        signal.course_deg,
        signal.satellites,
        signal.event_code,
        JsonText(row.attributes),
        row.flags,
        rows.frame.protocol,
        journal_id,
        seq,
        record_no,
    )


async def store(
    connection: Connection, values: Sequence[SignalValues], marks: Mapping[int, datetime | None]
) -> dict[Provenance, Stored]:
    """Store what is new. `marks`: `stored_to` of devices; of one that is not named nothing is taken for granted."""
    later, others = _divide(values, marks)
    stored: dict[Provenance, Stored] = defaultdict(Stored)
    if later:
        try:
            async with connection.transaction():  # within the caller's: a savepoint
                await connection.copy_records_to_table("signal", records=later, columns=COLUMNS)
        except Exception as error:
            if not is_duplicate_key(error):
                raise
            others = values
        else:
            for row in later:
                gained = stored[row.device_id, row.journal_id]
                gained.rows += 1
                gained.key_xor ^= row.digest
                if row.flags >= FIRST_RULE_FLAG:
                    gained.marked.add(row.digest)
    if others:
        for found in await connection.fetch(sql.INSERT_SIGNALS, *zip(*others, strict=True)):
            gained = stored[found["device_id"], found["journal_id"]]
            gained.rows += found["stored"]
            gained.key_xor ^= found["key_xor"]
            gained.marked.update(found["marked"] or ())
    return stored


def latest(values: Iterable[SignalValues]) -> dict[int, datetime]:
    """The latest wire time of each device: how far its mark is to move."""
    found: dict[int, datetime] = {}
    for row in values:
        known = found.get(row.device_id)
        if known is None or row.wire_time > known:
            found[row.device_id] = row.wire_time
    return found


def _divide(
    values: Sequence[SignalValues], marks: Mapping[int, datetime | None]
) -> tuple[list[SignalValues], Sequence[SignalValues]]:
    """Those beyond their device's mark, each digest once, and the rest, which is to be stored after them."""
    later: list[SignalValues] = []
    others: list[SignalValues] = []
    seen: set[int] = set()
    for row in values:
        mark = marks.get(row.device_id, row.wire_time)
        if (mark is None or row.wire_time > mark) and row.digest not in seen:
            seen.add(row.digest)
            later.append(row)
        else:
            others.append(row)
    return later, others
