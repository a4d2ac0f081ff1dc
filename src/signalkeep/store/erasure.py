"""Erasure: what a device has sent up to a moment goes, and nothing brings it back.

    1  file     the erasure is noted outside of the database (`erasure_log`), on stable storage
    2  floor    `device.erased_to` is raised under the device's lock, with a new revision: ingest that is under way
                decodes again, and from now on only counts what lies at or below the floor
    3  rows     signals, quarantine rows and kept frames go in transactions of bounded size, each with its ledger entry
    4  state    the latest position becomes that of what is left, what rules said of those days goes, and what was
                said of troubles then; `erased_at` says that it is done

Whatever interrupts it, it can be taken up again: `restore_floors` raises floors that the file has and the database
does not (it was restored from a backup), `finish_erasures` deletes what lies below floors where that is not done.
The journal's files are not touched: they go by themselves after the replay window.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from signalkeep import limits
from signalkeep.errors import CallerError, EnvironmentFault
from signalkeep.store import device_health, erasure_log, sql
from signalkeep.store.erasure_log import NotedErasure
from signalkeep.store.journals import add_finding
from signalkeep.store.postgres import Connection
from signalkeep.store.registry import ADD_MISSING, CHANNEL, LOCK_BY_NUMBER, log_action

LOCK_CLASS: Final = 0x65726173  # first key of the advisory locks of erasures ("eras")
BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)
FUTURE_MAX: Final = timedelta(seconds=limits.FUTURE_S_MAX)  # a wire time is never later than received_at by more
BY_ITSELF: Final = "signalkeep"  # the actor of what nobody asked for now

# Raises the floor.
RAISE_FLOOR: Final = """
UPDATE device SET erased_to = greatest(erased_to, $2), erased_at = NULL, revision = revision + 1
WHERE device_number = $1 RETURNING id, erased_to
"""

# Forgets a latest position that lies at or below the floor.
FORGET_POSITION: Final = """
UPDATE device_state SET device_time = NULL, latitude = NULL, longitude = NULL, altitude_m = NULL, speed_kmh = NULL,
    course_deg = NULL
WHERE device_id = $1 AND device_time <= $2
"""

# Where a page of a device's signals ends; no row: all that is left is less than a page.
PAGE_END: Final = """
SELECT wire_time FROM signal WHERE device_id = $1 AND wire_time > $2 AND wire_time <= $3
ORDER BY wire_time OFFSET $4 LIMIT 1
"""

# Deletes a page of signals, and says what the ledger must know.
DELETE_SIGNALS: Final = """
WITH gone AS (
    DELETE FROM signal
    WHERE device_id = $1 AND wire_time > $2 AND wire_time <= $3 AND (wire_time <= $4 OR received_at <= $4)
    RETURNING journal_id, digest
)
SELECT journal_id, count(*) AS erased, bit_xor(digest) AS key_xor FROM gone GROUP BY journal_id
"""

# Books erased signals on the ledger lines of their provenance.
BOOK_SIGNALS: Final = """
UPDATE ledger l SET erased = l.erased + b.erased, key_xor = l.key_xor # b.key_xor
FROM unnest($2::int[], $3::bigint[], $4::bigint[]) AS b (journal_id, erased, key_xor)
WHERE l.device_id = $1 AND l.journal_id = b.journal_id
"""

# Deletes a page of quarantine rows.
DELETE_QUARANTINE: Final = """
DELETE FROM quarantine WHERE id IN (
    SELECT id FROM quarantine WHERE device_id = $1 AND (wire_time <= $2 OR received_at <= $2) ORDER BY id LIMIT $3)
RETURNING journal_id, frame_id, state
"""

# Deletes those of these kept frames of which no record is left in quarantine.
DELETE_FRAMES: Final = """
DELETE FROM quarantine_frame f
WHERE f.id = ANY($1::bigint[]) AND NOT EXISTS (SELECT FROM quarantine q WHERE q.frame_id = f.id)
"""

# Books erased quarantine rows on the ledger lines of their provenance.
BOOK_QUARANTINE: Final = """
UPDATE ledger l SET
    erased_quarantine = l.erased_quarantine + b.rows, erased_released = l.erased_released + b.released,
    erased_discarded = l.erased_discarded + b.discarded, erased_replaced = l.erased_replaced + b.replaced
FROM unnest($2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
    AS b (journal_id, rows, released, discarded, replaced)
WHERE l.device_id = $1 AND l.journal_id = b.journal_id
"""

# Deletes what rules said of the days that lie wholly or in part below the floor, with their samples of positions. What
# lies below it may speak of the two days after it, with a clock ahead of ours or in local time: of those days what has
# a sample that is gone. What people say holds for what is left.
DELETE_QUALITY: Final = (
    """
DELETE FROM finding f WHERE device_id = $1 AND (day <= $2::date OR day <= $2::date + 2 AND EXISTS (
    SELECT FROM unnest(ARRAY[f.first_sample, f.last_sample]) AS x (sample)
    WHERE sample ? 'seq' AND NOT EXISTS (
        SELECT FROM signal s WHERE s.device_id = $1 AND s.wire_time > $2 AND s.wire_time < $2::date + 5
          AND s.journal_id = (sample ->> 'journal_id')::integer AND s.seq = (sample ->> 'seq')::bigint
          AND s.record_no = (sample ->> 'record_no')::integer)))
""",
    "DELETE FROM quality_score WHERE device_id = $1 AND day <= $2::date",
    "DELETE FROM quality_todo WHERE device_id = $1 AND day < $2::date",
    "DELETE FROM quality_mark WHERE device_id = $1 AND ends_at <= $2",
    "UPDATE quality_mark SET begins_at = $2::timestamptz + interval '1 microsecond' WHERE device_id = $1"
    " AND begins_at <= $2",
)

# What ails the device is found again from what is left; texts of incidents may name places and times that are gone.
FORGET_TROUBLES: Final = (
    "DELETE FROM device_trouble WHERE device_id = $1 AND since <= $2",
    "UPDATE incident SET detail = '' WHERE device_id = $1 AND opened_at <= $2",
    "UPDATE incident_event e SET note = '' FROM incident i"
    " WHERE i.id = e.incident_id AND i.device_id = $1 AND e.at <= $2 AND e.note <> ''",
    "UPDATE notification n SET body = '', payload = '{}' FROM incident_event e JOIN incident i ON i.id = e.incident_id"
    " WHERE e.id = n.event_id AND i.device_id = $1 AND i.opened_at <= $2 AND n.state <> 'waiting'",
)
JUDGE_AGAIN: Final = """
INSERT INTO quality_todo AS t (device_id, day)
SELECT $1, day FROM (SELECT $2::date + n AS day, n FROM generate_series(0, 2) AS n) AS days
WHERE n = 0 OR EXISTS (SELECT FROM quality_score q WHERE q.device_id = $1 AND q.day = days.day)
ON CONFLICT (device_id, day) DO UPDATE SET marker = t.marker + 1
"""

# Makes the latest position that of the rows that are left.
FIND_POSITION: Final = """
UPDATE device_state s SET
    device_time = p.device_time, latitude = p.latitude, longitude = p.longitude, altitude_m = p.altitude_m,
    speed_kmh = p.speed_kmh, course_deg = p.course_deg
FROM (SELECT) AS always LEFT JOIN LATERAL (
    SELECT device_time, latitude, longitude, altitude_m, speed_kmh, course_deg FROM signal
    WHERE device_id = $1 AND device_time <= received_at + $2 AND fix_valid AND latitude IS NOT NULL
      AND longitude IS NOT NULL AND flags & 20 = 0
    ORDER BY wire_time DESC LIMIT 1) p ON true
WHERE s.device_id = $1
"""

# Says that nothing is left below the floor.
SAY_DONE: Final = "UPDATE device SET erased_at = now() WHERE id = $1 AND erased_to = $2"

# The floors of these devices.
FLOORS: Final = "SELECT id, device_number, erased_to FROM device WHERE device_number = ANY($1::text[])"

# The lock of a device's erasure, held by the session.
TRY_LOCK: Final = "SELECT pg_try_advisory_lock($1, $2)"
UNLOCK: Final = "SELECT pg_advisory_unlock($1, $2)"

# Devices with a floor below which something may be left.
UNFINISHED: Final = """
SELECT id, device_number, erased_to FROM device WHERE erased_to IS NOT NULL AND erased_at IS NULL ORDER BY id
"""


class Erased(msgspec.Struct):
    """What an erasure deleted. `erased_to`: the floor, which an earlier erasure may have set higher."""

    device_number: str
    erased_to: datetime
    signals: int = 0
    quarantined: int = 0
    frames: int = 0


async def erase(
    connection: Connection,
    device_number: str,
    up_to: datetime,
    *,
    log: Path,
    actor: str,
    progress: Callable[[int], None] = lambda _: None,
) -> Erased:
    """Erase what the device sent, or we received of it, at or before `up_to`. `progress` is told the rows so far.

    Raises CallerError for a device that nobody has heard of, EnvironmentFault if the erasure cannot be noted.
    """
    device_id = await connection.fetchval("SELECT id FROM device WHERE device_number = $1", device_number)
    if device_id is None:
        raise CallerError(
            f"nobody has registered or heard of device {device_number}: there is nothing to erase",
            hint="`signalkeep devices list` shows all devices.",
        )
    # Before it is noted: housekeeping must not take what is about to begin for what a restored database has forgotten.
    await connection.execute("SELECT pg_advisory_lock($1, $2)", LOCK_CLASS, device_id, timeout=limits.MIGRATION_S_MAX)
    try:
        _note(log, NotedErasure(at=datetime.now(UTC), device_number=device_number, erased_to=up_to, actor=actor))
        floor = await _raise_floor(connection, device_number, up_to, actor=actor)
        return await _delete(connection, device_id, Erased(device_number, floor), actor=actor, progress=progress)
    finally:
        await connection.execute(UNLOCK, LOCK_CLASS, device_id)


async def restore_floors(connection: Connection, log: Path) -> int:
    """Raise every floor that the file has and the database does not; returns how many devices wait for deletion."""
    floors, problem = _read(log)
    if problem:
        detail = f"{problem}: if this database is restored, these erasures must be made again by hand"
        await add_finding(connection, "erasures_unreadable", str(log), detail)
    rows = await connection.fetch(FLOORS, list(floors))
    known = {row["device_number"]: row for row in rows}
    for device_number, floor in sorted(floors.items()):
        row = known.get(device_number)
        if row is None:
            await _repeat(connection, device_number, floor)
        elif row["erased_to"] is None or row["erased_to"] < floor:
            if not await connection.fetchval(TRY_LOCK, LOCK_CLASS, row["id"]):
                continue  # somebody is at it
            try:
                (now,) = await connection.fetch(FLOORS, [device_number])
                if now["erased_to"] is None or now["erased_to"] < floor:
                    await _repeat(connection, device_number, floor)
            finally:
                await connection.execute(UNLOCK, LOCK_CLASS, row["id"])
    return len(await connection.fetch(UNFINISHED))


async def _repeat(connection: Connection, device_number: str, floor: datetime) -> None:
    await _raise_floor(connection, device_number, floor, actor=BY_ITSELF)
    await add_finding(
        connection,
        "erasure_repeated",
        f"device {device_number}",
        f"the database did not know that everything up to {floor} had been erased: it was restored from an older "
        "state, or the command was interrupted; it is erased again",
    )


def _note(log: Path, noted: NotedErasure) -> None:
    try:
        erasure_log.append(log, noted)
    except OSError as error:
        raise EnvironmentFault(
            f"the erasure cannot be noted in {log}: {error.strerror or error}; nothing was erased",
            hint="Run it as the user, on the machine and with the data directory of signalkeep.",
        ) from error


def _read(log: Path) -> tuple[dict[str, datetime], str]:
    """The floors, and what could not be read, '' if all could."""
    try:
        floors, unreadable = erasure_log.read(log)
    except OSError as error:
        return {}, f"the file cannot be read: {error.strerror or error}"
    return floors, f"lines {', '.join(map(str, unreadable))} cannot be read" if unreadable else ""


async def finish_erasures(connection: Connection) -> list[Erased]:
    """Delete what lies below floors where that is not done; those that somebody is at are left to them."""
    done = []
    for row in await connection.fetch(UNFINISHED):
        if not await connection.fetchval(TRY_LOCK, LOCK_CLASS, row["id"]):
            continue
        try:
            erased = Erased(row["device_number"], row["erased_to"])
            done.append(await _delete(connection, row["id"], erased, actor=BY_ITSELF, progress=lambda _: None))
        finally:
            await connection.execute(UNLOCK, LOCK_CLASS, row["id"])
    return done


async def reapply_erasures(connection: Connection, log: Path) -> list[Erased]:
    """Erase again what the file names and the database does not know, and finish what was interrupted."""
    return await finish_erasures(connection) if await restore_floors(connection, log) else []


async def _raise_floor(connection: Connection, device_number: str, up_to: datetime, *, actor: str) -> datetime:
    """The floor as it is now. A device that the database does not know gets its row: the journal may still name it."""
    async with connection.transaction():
        await connection.execute(ADD_MISSING, [device_number], "unknown")
        await connection.execute(LOCK_BY_NUMBER, [device_number])
        row = await connection.fetchrow(RAISE_FLOOR, device_number, up_to)
        assert row is not None
        floor: datetime = row["erased_to"]
        await connection.execute(FORGET_POSITION, row["id"], floor)
        await log_action(connection, actor, "device.erase", device_number, {"erased_to": floor})
        await connection.execute("SELECT pg_notify($1, '')", CHANNEL)
    return floor


async def _delete(
    connection: Connection, device_id: int, erased: Erased, *, actor: str, progress: Callable[[int], None]
) -> Erased:
    """Everything below a floor that has been raised."""
    floor, after, top = erased.erased_to, BEGINNING, erased.erased_to + FUTURE_MAX
    while after < top:
        end = await connection.fetchval(PAGE_END, device_id, after, top, limits.ERASE_BATCH_ROWS - 1)
        page_end = top if end is None else end
        erased.signals += await _delete_signals(connection, device_id, after, page_end, floor)
        progress(erased.signals)
        after = page_end
    while deleted := await _delete_quarantine(connection, device_id, floor):
        erased.quarantined += deleted[0]
        erased.frames += deleted[1]
        progress(erased.signals + erased.quarantined)
    async with connection.transaction():
        await device_health.lock(connection)  # a look that is under way has read what is about to go
        await connection.execute(sql.LOCK_DEVICES, [device_id])
        await connection.execute(FIND_POSITION, device_id, timedelta(seconds=limits.POSITION_FUTURE_S_MAX))
        for statement in (*DELETE_QUALITY, *FORGET_TROUBLES):
            await connection.execute(statement, device_id, floor)
        await connection.execute(JUDGE_AGAIN, device_id, floor)
        await connection.execute(SAY_DONE, device_id, floor)
        counts = {"signals": erased.signals, "quarantined": erased.quarantined, "frames": erased.frames}
        await log_action(connection, actor, "device.erased", erased.device_number, {"erased_to": floor, **counts})
    return erased


async def _delete_signals(
    connection: Connection, device_id: int, after: datetime, page_end: datetime, floor: datetime
) -> int:
    """One transaction: the rows of a page and their ledger entry."""
    async with connection.transaction():
        await connection.execute(sql.LOCK_DEVICES, [device_id])
        gone = await connection.fetch(DELETE_SIGNALS, device_id, after, page_end, floor)
        if gone:
            values = [(row["journal_id"], row["erased"], row["key_xor"]) for row in gone]
            await connection.execute(BOOK_SIGNALS, device_id, *zip(*values, strict=True))
    return sum(row["erased"] for row in gone)


async def _delete_quarantine(connection: Connection, device_id: int, floor: datetime) -> tuple[int, int] | None:
    """One transaction: a page of rows, their kept frames and their ledger entry; (rows, frames), None: none left."""
    async with connection.transaction():
        await connection.execute(sql.LOCK_DEVICES, [device_id])
        gone = await connection.fetch(DELETE_QUARANTINE, device_id, floor, limits.ERASE_BATCH_ROWS)
        if not gone:
            return None
        states: dict[int, Counter[str]] = defaultdict(Counter)
        for row in gone:
            states[row["journal_id"]][row["state"]] += 1
        values = [
            (journal_id, count.total(), count["released"], count["discarded"], count["replaced"])
            for journal_id, count in states.items()
        ]
        await connection.execute(BOOK_QUARANTINE, device_id, *zip(*values, strict=True))
        await connection.execute(
            "UPDATE device_state SET quarantine_open = quarantine_open - $2 WHERE device_id = $1",
            device_id,
            sum(count["open"] for count in states.values()),
        )
        frames = await connection.execute(DELETE_FRAMES, list({row["frame_id"] for row in gone}))
    return len(gone), int(frames.split()[-1])
