"""Out of quarantine: release, discard and replacement, each with its ledger entry in the transaction of its effect.

A released record becomes a signal under the provenance it always had. If the record is stored already, the release
only closes the quarantine row. The callers hold the device's lock (`device_state`), so a re-send that is ingested at
the same moment waits and then finds the record where it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec

from signalkeep.store import signals, sql
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.rows import FrameRows, SignalRow
from signalkeep.store.state import move_positions

# Closes quarantine rows.
CLOSE: Final = """
UPDATE quarantine SET
    state = $2, closed_at = now(), closed_by = $3, attempts = attempts + $4, trying_since = NULL
WHERE id = ANY($1::bigint[]) AND state = 'open'
RETURNING journal_id, device_id
"""

# Books what left quarantine, and into what, on the ledger line of its provenance.
BOOK: Final = """
UPDATE ledger l SET
    released = l.released + b.released, released_duplicate = l.released_duplicate + b.released_duplicate,
    discarded = l.discarded + b.discarded, replaced = l.replaced + b.replaced, key_xor = l.key_xor # b.key_xor
FROM unnest($1::int[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
    AS b (journal_id, device_id, released, released_duplicate, discarded, replaced, key_xor)
WHERE (l.journal_id, l.device_id) = (b.journal_id, b.device_id)
"""

# Which of these rows have their record in `signal`.
STORED_ALREADY: Final = """
SELECT k.id FROM unnest($1::bigint[], $2::int[], $3::timestamptz[], $4::bigint[])
    AS k (id, device_id, wire_time, digest)
WHERE EXISTS (SELECT FROM signal s WHERE (s.device_id, s.wire_time, s.digest) = (k.device_id, k.wire_time, k.digest))
"""

# Lets device_state follow what left quarantine.
LESS_OPEN: Final = """
UPDATE device_state s SET quarantine_open = s.quarantine_open - b.closed
FROM unnest($1::int[], $2::bigint[]) AS b (device_id, closed)
WHERE s.device_id = b.device_id
"""

# Counts a release that did not succeed and says why, and under what it was judged.
NOTE_FAILED: Final = """
UPDATE quarantine q SET
    attempts = q.attempts + $1, reason = f.reason, detail = f.detail, tried_at = coalesce($2, now()), tried_under = $3,
    tried_revision = d.revision, trying_since = NULL
FROM unnest($4::bigint[], $5::text[], $6::text[]) AS f (id, reason, detail), device d
WHERE q.id = f.id AND q.state = 'open' AND d.id = q.device_id
"""


class Trying(msgspec.Struct, frozen=True):
    """What is noted of a try. `counted`: it was counted when it was begun."""

    version: str
    at: datetime | None = None  # None: now, by the database's clock
    counted: bool = False

    @property
    def counts(self) -> int:
        return 0 if self.counted else 1


class ReleaseItem(msgspec.Struct):
    """An open quarantine row and the signal that it may now become."""

    id: int
    journal_id: int
    seq: int
    record_no: int
    rows: FrameRows  # device and received_at of the *quarantined* frame
    row: SignalRow

    @classmethod
    def of(cls, quarantined: Row, rows: FrameRows, row: SignalRow) -> ReleaseItem:
        """From a quarantine row (id, journal_id, seq, record_no, received_at) and what triage made of the record."""
        rows = msgspec.structs.replace(rows, received_at=quarantined["received_at"])
        return cls(
            quarantined["id"],
            quarantined["journal_id"],
            quarantined["seq"],
            quarantined["record_no"],
            rows,
            row,
        )


class _Booking(msgspec.Struct):
    closed: int = 0
    stored: int = 0
    key_xor: int = 0


async def release_rows(connection: Connection, items: list[ReleaseItem], *, closed_by: str, counts: int = 1) -> int:
    """Store the records and close their rows; returns how many became new signals. In the caller's transaction.

    `counts`: 0 if the try was counted when it was begun.
    """
    if not items:
        return 0
    values = [signals.values_of(item.rows, item.row, item.journal_id, item.seq, item.record_no) for item in items]
    bookings: dict[tuple[int, int], _Booking] = defaultdict(_Booking)
    for (device_id, journal_id), stored in (await signals.store(connection, values, {})).items():
        booking = bookings[journal_id, device_id]
        booking.stored, booking.key_xor = stored.rows, stored.key_xor
    latest = signals.latest(values)
    await connection.execute(sql.MOVE_MARK, list(latest), list(latest.values()))
    for closed in await connection.fetch(CLOSE, [item.id for item in items], "released", closed_by, counts):
        bookings[closed["journal_id"], closed["device_id"]].closed += 1
    assert sum(booking.closed for booking in bookings.values()) == len(items), "released under the device's lock"
    await _book(connection, bookings, "released")
    await move_positions(connection, ((item.rows, item.row) for item in items))
    return sum(booking.stored for booking in bookings.values())


async def already_stored(connection: Connection, items: list[ReleaseItem]) -> set[int]:
    """Ids of those whose record stands in `signal` already. In the caller's transaction, under the devices' locks."""
    keys = [(item.id, item.rows.device.id, item.row.wire_time, item.row.digest) for item in items]
    if not keys:
        return set()
    return {row["id"] for row in await connection.fetch(STORED_ALREADY, *zip(*keys, strict=True))}


async def discard_rows(connection: Connection, ids: list[int], *, closed_by: str) -> int:
    """Close open rows as discarded; their raw bytes stay. Returns how many. In the caller's transaction."""
    return await _close(connection, ids, "discarded", closed_by)


async def close_replaced(connection: Connection, ids: list[int], *, closed_by: str) -> int:
    """Close open rows whose frame has just been written again as other records. In the caller's transaction."""
    return await _close(connection, ids, "replaced", closed_by)


async def _close(connection: Connection, ids: list[int], state: str, closed_by: str) -> int:
    bookings: dict[tuple[int, int], _Booking] = defaultdict(_Booking)
    for closed in await connection.fetch(CLOSE, ids, state, closed_by, 0):
        bookings[closed["journal_id"], closed["device_id"]].closed += 1
    await _book(connection, bookings, state)
    return sum(booking.closed for booking in bookings.values())


async def note_failed(connection: Connection, failed: Iterable[tuple[int, str, str]], trying: Trying) -> None:
    """Count a release that did not succeed: (quarantine id, reason, detail) each. Under the devices' locks."""
    values = list(failed)
    if values:
        await connection.execute(NOTE_FAILED, trying.counts, trying.at, trying.version, *zip(*values, strict=True))


async def _book(connection: Connection, bookings: dict[tuple[int, int], _Booking], state: str) -> None:
    values = [
        (
            journal_id,
            device_id,
            booking.stored,
            booking.closed - booking.stored if state == "released" else 0,
            booking.closed if state == "discarded" else 0,
            booking.closed if state == "replaced" else 0,
            booking.key_xor,
        )
        for (journal_id, device_id), booking in sorted(bookings.items())
    ]
    if not values:
        return
    await connection.execute(BOOK, *zip(*values, strict=True))
    open_less: dict[int, int] = defaultdict(int)
    for (_, device_id), booking in bookings.items():
        open_less[device_id] += booking.closed
    await connection.execute(LESS_OPEN, list(open_less), list(open_less.values()))
