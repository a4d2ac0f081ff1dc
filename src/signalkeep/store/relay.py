"""What relays and workers tell each other through the database: how far was sent, what was missing, what was set aside.

Nothing of it decides what is stored: that is the cursors' business. A restored database may have all of it older than
it was; then more is sent than needed, and the cursors let none of it in twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec

from signalkeep import limits
from signalkeep.store import sql
from signalkeep.store.postgres import Connection

# A line for each lane, at the beginning.
ADD_LANES: Final = """
INSERT INTO relay (journal_id, lane) SELECT $1, lane FROM generate_series(0, $2 - 1) AS lane ON CONFLICT DO NOTHING
"""

# Cursor, what was sent and what was found missing, by lane.
LANES: Final = """
SELECT c.lane, c.seq AS cursor, r.seq AS sent, r.epoch, r.hole_epoch
FROM cursor c JOIN relay r ON (r.journal_id, r.lane) = (c.journal_id, c.lane) WHERE c.journal_id = $1 ORDER BY c.lane
"""

# Notes how far lanes were sent, and in which epoch.
NOTE_SENT: Final = "UPDATE relay SET seq = $3, epoch = $4 WHERE journal_id = $1 AND lane = ANY($2::int[])"

# Tells the relay that what comes before a message of this epoch is missing.
NOTE_HOLE: Final = """
UPDATE relay SET holes = holes + 1, hole_epoch = greatest(hole_epoch, $3)
WHERE journal_id = $1 AND lane = ANY($2::int[])
"""

# A journal by its uuid, with its cursors in the order of lanes.
JOURNAL: Final = """
SELECT j.id, array_agg(c.seq ORDER BY c.lane) AS cursors
FROM journal j JOIN cursor c ON c.journal_id = j.id WHERE j.uuid = $1 GROUP BY j.id
"""

# Notes that a frame is about to be decoded by itself; how often that was so before.
NOTE_ATTEMPT: Final = """
INSERT INTO decode_attempt AS a (journal_id, seq) VALUES ($1, $2)
ON CONFLICT (journal_id, seq) DO UPDATE SET attempts = a.attempts + 1, last_at = now()
RETURNING attempts - 1
"""

# What was decoded needs no note any more.
FORGET_ATTEMPTS: Final = "DELETE FROM decode_attempt WHERE journal_id = $1 AND seq <= $2"

# Keeps the beginning of a message that is of no use, up to a number of them.
SET_ASIDE: Final = """
INSERT INTO set_aside (queue, reason, detail, bytes, body)
SELECT $1, $2, $3, $4, $5 WHERE (SELECT count(*) FROM (SELECT FROM set_aside LIMIT $6) AS kept) < $6
"""


class LaneState(msgspec.Struct, frozen=True):
    """One lane of a journal, as the database has it."""

    lane: int
    cursor: int
    sent: int  # the broker had confirmed it when that was last noted
    epoch: int
    hole_epoch: int  # of the newest message that was dropped because something before it was missing


async def add_lanes(connection: Connection, journal_id: int, lanes: int) -> None:
    await connection.execute(ADD_LANES, journal_id, lanes)


async def lanes(connection: Connection, journal_id: int) -> list[LaneState]:
    """In the order of lanes."""
    return [LaneState(**dict(row)) for row in await connection.fetch(LANES, journal_id)]


async def note_sent(connection: Connection, journal_id: int, of_lanes: Sequence[int], seq: int, epoch: int) -> None:
    await connection.execute(NOTE_SENT, journal_id, list(of_lanes), seq, epoch)


async def note_hole(connection: Connection, journal_id: int, of_lanes: Sequence[int], epoch: int) -> None:
    await connection.execute(NOTE_HOLE, journal_id, list(of_lanes), epoch)


async def find_journal(connection: Connection, uuid: UUID) -> tuple[int, list[int]] | None:
    """Our number for a journal and its cursors; None if the database does not know it."""
    row = await connection.fetchrow(JOURNAL, uuid)
    return None if row is None else (row["id"], row["cursors"])


async def note_attempt(connection: Connection, journal_id: int, seq: int) -> int:
    """Remember that a frame is decoded by itself now. Returns how often it was begun before."""
    before: int = await connection.fetchval(NOTE_ATTEMPT, journal_id, seq)
    return before


async def forget_attempts(connection: Connection, journal_id: int, seq: int) -> None:
    await connection.execute(FORGET_ATTEMPTS, journal_id, seq)


async def set_aside(connection: Connection, queue: str, reason: str, detail: str, body: bytes, *, keep: bool) -> None:
    """Count a useless message as a finding and keep its beginning; nothing of one that the journal has (`keep`)."""
    text = detail.encode("ascii", "backslashreplace").decode().replace("\0", "\\0")[:500]
    kept = body[: limits.SET_ASIDE_BYTES_MAX] if keep else b""
    async with connection.transaction():
        await connection.execute(SET_ASIDE, queue, reason, text, len(body), kept, limits.SET_ASIDE_ROWS_MAX)
        await connection.execute(sql.ADD_FINDING, "broker_message_set_aside", f"queue {queue}, {reason}", text)
