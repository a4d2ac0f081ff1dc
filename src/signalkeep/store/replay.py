"""Deliberate replays: their own rows, how far each has come, and what of a journal's records is really there.

A replay moves in its journals by compare-and-set, in the transaction of what it writes: two processes cannot do the
same replay, and one that was cut off goes on where it was. The cursors of ingest are never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from signalkeep.store.postgres import Connection, Row
from signalkeep.store.registry import log_action

# Journals with how far the database has them.
JOURNALS: Final = """
SELECT j.id, j.uuid, j.kept_from_seq, max(c.seq) AS seq
FROM journal j JOIN cursor c ON c.journal_id = j.id WHERE j.uuid = ANY($1::uuid[]) GROUP BY j.id ORDER BY j.id
"""

BEGIN: Final = """
INSERT INTO replay (since, until, device_number, journal, version, begun_by) VALUES ($1, $2, $3, $4, $5, $6)
RETURNING id
"""
ADD_PARTS: Final = """
INSERT INTO replay_part (replay_id, journal_id, seq, last_seq)
SELECT $1, p.* FROM unnest($2::int[], $3::bigint[], $4::bigint[]) AS p (journal_id, seq, last_seq)
"""
FIND: Final = "SELECT * FROM replay WHERE id = $1"
PARTS: Final = """
SELECT p.journal_id, j.uuid, p.seq, p.last_seq FROM replay_part p JOIN journal j ON j.id = p.journal_id
WHERE p.replay_id = $1 ORDER BY p.journal_id
"""

# Moves a replay on in a journal, if it stands where the range begins.
MOVE: Final = """
UPDATE replay_part SET seq = $4, lost = lost + $5 WHERE replay_id = $1 AND journal_id = $2 AND seq = $3 RETURNING seq
"""
COUNT: Final = """
UPDATE replay SET moved_at = now(), frames = frames + $2, records = records + $3, same = same + $4,
    changed = changed + $5, duplicate = duplicate + $6, restored = restored + $7, added = added + $8,
    quarantined = quarantined + $9, suppressed = suppressed + $10, refused = refused + $11, released = released + $12,
    replaced = replaced + $13
WHERE id = $1
"""
END: Final = "UPDATE replay SET state = 'done', ended_at = now() WHERE id = $1 AND state = 'running' RETURNING *"
LIST: Final = """
SELECT r.*, p.lost, p.entries, p.entries_left
FROM replay r CROSS JOIN LATERAL (
    SELECT coalesce(sum(lost), 0)::bigint AS lost, count(*) AS journals, coalesce(sum(last_seq), 0)::bigint AS entries,
           coalesce(sum(last_seq - seq), 0)::bigint AS entries_left
    FROM replay_part WHERE replay_id = r.id) p
ORDER BY r.id DESC LIMIT $1
"""

# Open rows of quarantine that these frames, or these keys, concern.
OPEN_OF: Final = """
SELECT q.id FROM quarantine q JOIN quarantine_frame f ON f.id = q.frame_id
WHERE q.state = 'open' AND f.journal_id = $1 AND f.seq = ANY($2::bigint[])
UNION
SELECT q.id FROM quarantine q
JOIN unnest($3::int[], $4::timestamptz[], $5::bigint[]) AS k (device_id, wire_time, digest)
    USING (device_id, wire_time, digest)
WHERE q.state = 'open'
"""

# Where the signals with these keys come from.
STORED: Final = """
SELECT s.device_id, s.wire_time, s.digest, s.journal_id, s.seq
FROM unnest($1::int[], $2::timestamptz[], $3::bigint[]) AS k (device_id, wire_time, digest)
JOIN signal s ON (s.device_id, s.wire_time, s.digest) = (k.device_id, k.wire_time, k.digest)
"""

# Everything that stands under the provenance of these frames. Reads all signals of the devices: there is no index by
# provenance, and only frames of which something is missing are asked for.
OF_FRAMES: Final = """
SELECT 'signal' AS place, s.device_id, s.seq, s.wire_time, s.digest, '' AS reason
FROM signal s WHERE s.device_id = ANY($2::int[]) AND s.journal_id = $1 AND s.seq = ANY($3::bigint[])
UNION ALL
SELECT q.state, q.device_id, q.seq, q.wire_time, q.digest, q.reason
FROM quarantine_frame f JOIN quarantine q ON q.frame_id = f.id
WHERE f.journal_id = $1 AND f.seq = ANY($3::bigint[])
"""

# What is missing of ledger lines: signals, and open rows of quarantine. Of a journal, or of all others.
LINES: Final = """
SELECT l.journal_id, l.device_id, l.stored, l.duplicate,
       l.stored + l.released - l.erased - l.expired - (
           SELECT count(*) FROM signal s WHERE s.device_id = l.device_id AND s.journal_id = l.journal_id) AS missing,
       l.quarantined - l.released - l.released_duplicate - l.discarded - l.replaced
           - (l.erased_quarantine - l.erased_released - l.erased_discarded - l.erased_replaced) - (
           SELECT count(*) FROM quarantine q
           WHERE q.device_id = l.device_id AND q.journal_id = l.journal_id AND q.state = 'open') AS missing_open,
       l.key_xor # coalesce((
           SELECT bit_xor(s.digest) FROM signal s
           WHERE s.device_id = l.device_id AND s.journal_id = l.journal_id), 0) AS key_xor
FROM ledger l WHERE (l.journal_id = $1) = $3 AND l.device_id = ANY($2::int[])
"""

# A record is stored as it came with journal $2, no longer as it came with journal $1: there it is a re-send now.
MOVE_BOOKING: Final = """
UPDATE ledger SET
    stored = stored + CASE journal_id WHEN $2 THEN 1 ELSE -1 END,
    duplicate = duplicate - CASE journal_id WHEN $2 THEN 1 ELSE -1 END, key_xor = key_xor # $4
WHERE device_id = $3 AND journal_id IN ($1, $2)
"""
EXPIRED: Final = "SELECT device_id FROM ledger WHERE journal_id = $1 AND device_id = ANY($2::int[]) AND expired > 0"
SET_XOR: Final = """
UPDATE ledger SET key_xor = key_xor # $3 WHERE journal_id = $1 AND device_id = $2
"""

# Writes rows anew whose content is no longer what their frame is read as; says which, and when they happened before
# and now. Rules' and people's bits stay until the day is judged again. The new xid shows them to whoever follows.
REPLACE: Final = """
UPDATE signal s SET
    device_time = r.device_time, fix_valid = r.fix_valid, latitude = r.latitude, longitude = r.longitude,
    altitude_m = r.altitude_m, speed_kmh = r.speed_kmh, course_deg = r.course_deg, satellites = r.satellites,
    event_code = r.event_code, attributes = r.attributes, record_no = r.record_no, xid = pg_current_xact_id()
FROM unnest(
    $1::int[], $2::timestamptz[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::boolean[], $7::float8[],
    $8::float8[], $9::real[], $10::real[], $11::real[], $12::smallint[], $13::text[], $14::jsonb[], $15::bigint[],
    $16::text[], $17::int[], $18::bigint[], $19::smallint[])
    AS r (device_id, wire_time, digest, device_time, received_at, fix_valid, latitude, longitude, altitude_m,
          speed_kmh, course_deg, satellites, event_code, attributes, flags, protocol, journal_id, seq, record_no)
JOIN signal o ON (o.device_id, o.wire_time, o.digest) = (r.device_id, r.wire_time, r.digest)
WHERE (s.device_id, s.wire_time, s.digest) = (r.device_id, r.wire_time, r.digest)
  AND (s.journal_id, s.seq) = (r.journal_id, r.seq)
  AND (s.device_time, s.fix_valid, s.latitude, s.longitude, s.altitude_m, s.speed_kmh, s.course_deg, s.satellites,
       s.event_code, s.attributes, s.record_no)
      IS DISTINCT FROM (r.device_time, r.fix_valid, r.latitude, r.longitude, r.altitude_m, r.speed_kmh, r.course_deg,
                        r.satellites, r.event_code, r.attributes, r.record_no)
RETURNING s.device_id, coalesce(o.device_time, o.received_at) AS before, coalesce(s.device_time, s.received_at) AS now
"""

# Which of these devices have their latest position at or before a moment: it may be that of a row that has changed.
POSITION_CONCERNED: Final = """
SELECT s.device_id FROM device_state s JOIN unnest($1::int[], $2::timestamptz[]) AS c (device_id, latest)
    USING (device_id)
WHERE s.device_time IS NULL OR s.device_time <= c.latest
"""


class Counts(msgspec.Struct):
    """As the columns of `replay`."""

    frames: int = 0
    records: int = 0
    same: int = 0
    changed: int = 0
    duplicate: int = 0
    restored: int = 0
    added: int = 0
    quarantined: int = 0
    suppressed: int = 0
    refused: int = 0
    released: int = 0
    replaced: int = 0

    def add(self, other: Counts) -> None:
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which frames: received in [since, until), of one device or all."""

    since: datetime
    until: datetime
    device_number: str | None = None
    journal: UUID | None = None

    def words(self) -> dict[str, str | None]:
        """For the audit log."""
        return {
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "device": self.device_number,
            "journal": str(self.journal) if self.journal else None,
        }


class Part(msgspec.Struct):
    """A journal: everything in (seq, last_seq] is still to be dealt with."""

    journal_id: int
    directory: Path
    seq: int
    last_seq: int


class Replay(msgspec.Struct):
    """A replay that is under way. `id`: None for a trial, which has no row."""

    id: int | None
    wanted: Wanted
    parts: list[Part]

    @property
    def entries(self) -> int:
        """That are still to be read."""
        return sum(part.last_seq - part.seq for part in self.parts)


class Line(msgspec.Struct):
    """What is missing of a journal and device, and the exclusive or of the digests of it."""

    journal_id: int
    missing: int = 0
    missing_open: int = 0
    key_xor: int = 0
    stored: int = 0
    duplicate: int = 0


class MovedElsewhere(Exception):
    """Another process does the same replay."""


async def parts_of(connection: Connection, directories: Sequence[Path]) -> list[Part]:
    """Of those of these journals that the database has heard of: all that it has and the files may still hold."""
    by_uuid = {UUID(directory.name): directory for directory in directories}
    return [
        Part(row["id"], by_uuid[row["uuid"]], min(row["kept_from_seq"] - 1, row["seq"]), row["seq"])
        for row in await connection.fetch(JOURNALS, list(by_uuid))
    ]


async def begin(connection: Connection, wanted: Wanted, parts: list[Part], *, version: str, actor: str) -> Replay:
    """Note a replay before anything is done."""
    async with connection.transaction():
        replay_id = await connection.fetchval(
            BEGIN, wanted.since, wanted.until, wanted.device_number, wanted.journal, version, actor
        )
        values = [(part.journal_id, part.seq, part.last_seq) for part in parts]
        if values:
            await connection.execute(ADD_PARTS, replay_id, *zip(*values, strict=True))
        await log_action(connection, actor, "replay.begin", f"replay {replay_id}", dict(wanted.words()))
    return Replay(replay_id, wanted, parts)


async def find(connection: Connection, replay_id: int, directories: Sequence[Path]) -> tuple[Replay, bool] | None:
    """A replay as it stands, and whether it is done; None if there is none. Journals elsewhere have no directory."""
    row = await connection.fetchrow(FIND, replay_id)
    if row is None:
        return None
    by_uuid = {UUID(directory.name): directory for directory in directories}
    wanted = Wanted(since=row["since"], until=row["until"], device_number=row["device_number"], journal=row["journal"])
    parts = [
        Part(part["journal_id"], by_uuid.get(part["uuid"], Path()), part["seq"], part["last_seq"])
        for part in await connection.fetch(PARTS, replay_id)
    ]
    return Replay(replay_id, wanted, parts), row["state"] == "done"


async def note(connection: Connection, replay: Replay, counts: Counts) -> None:
    """Add to what came of it. In the caller's transaction."""
    if replay.id is not None:
        await connection.execute(COUNT, replay.id, *msgspec.structs.astuple(counts))


async def move(connection: Connection, replay: Replay, part: Part, last_seq: int, lost: int) -> None:
    """Go on in a journal. In the caller's transaction; raises MovedElsewhere."""
    if replay.id is None:
        return
    moved = await connection.fetchval(MOVE, replay.id, part.journal_id, part.seq, last_seq, lost)
    if moved is None:
        raise MovedElsewhere


async def end(connection: Connection, replay: Replay, *, actor: str) -> None:
    """Say that it is done, and what came of it."""
    async with connection.transaction():
        row = await connection.fetchrow(END, replay.id)
        if row is not None:
            detail = {name: row[name] for name in Counts.__struct_fields__ if row[name]}
            await log_action(connection, actor, "replay.end", f"replay {replay.id}", detail)


async def replays(connection: Connection, limit: int) -> list[Row]:
    """All that there were, newest first."""
    return list(await connection.fetch(LIST, limit))


async def lines(connection: Connection, journal_id: int, device_ids: Sequence[int]) -> dict[int, Line]:
    """What is missing of these devices' lines of a journal. Nothing but a loss changes it: ledger and rows move
    together in every transaction."""
    return {row["device_id"]: _line(row) for row in await connection.fetch(LINES, journal_id, list(device_ids), True)}


async def lines_elsewhere(connection: Connection, journal_id: int, device_id: int) -> list[Line]:
    """Other journals that miss signals of a device."""
    rows = await connection.fetch(LINES, journal_id, [device_id], False)
    return [line for line in map(_line, rows) if line.missing > 0 and line.stored > 0]


def _line(row: Row) -> Line:
    return Line(row["journal_id"], row["missing"], row["missing_open"], row["key_xor"], row["stored"], row["duplicate"])
