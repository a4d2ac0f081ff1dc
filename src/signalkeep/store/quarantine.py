"""What waits in quarantine, and taking rows out of it without storing them.

`Selection` says which open rows are meant; `pages` reads them, each once, in the order of their ids.
Rows are closed, never deleted, and only under the lock of their device, so that a re-send that is ingested at the
same moment finds them either open or closed, never in between. Releasing needs a decoder and is `ingest.release`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from signalkeep import limits
from signalkeep.store import sql
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.registry import device_of, log_action
from signalkeep.store.release import discard_rows
from signalkeep.store.rows import Device

# Rows for people, newest first.
LIST: Final = """
SELECT q.id, q.received_at, d.device_number, q.reason, q.detail, q.state, q.attempts, q.tried_at, q.tried_under,
       q.tried_revision, q.trying_since, d.status AS device_status, d.revision AS device_revision, q.closed_at,
       q.closed_by
FROM quarantine q JOIN device d ON d.id = q.device_id
WHERE ($1::text IS NULL OR d.device_number = $1) AND ($2::text IS NULL OR q.reason = $2)
  AND ($3::text IS NULL OR q.state = $3) AND ($4::timestamptz IS NULL OR q.received_at >= $4)
  AND ($5::timestamptz IS NULL OR q.received_at < $5)
ORDER BY q.id DESC LIMIT $6
"""

# One row with its envelope and its frame.
SHOW: Final = """
SELECT q.id, q.state, q.reason, q.detail, q.attempts, q.tried_at, q.tried_under, q.tried_revision, q.trying_since,
       q.closed_at, q.closed_by, d.device_number, d.status AS device_status,
       d.revision AS device_revision, q.wire_time, q.received_at, f.protocol, f.peer, f.context, q.raw,
       f.raw AS frame_raw, j.uuid AS journal, q.seq, q.record_no
FROM quarantine q
JOIN quarantine_frame f ON f.id = q.frame_id
JOIN device d ON d.id = q.device_id
JOIN journal j ON j.id = q.journal_id
WHERE q.id = $1
"""

# How many open rows of a device there are for each reason.
OPEN_BY_REASON: Final = """
SELECT q.reason, count(*) AS rows FROM quarantine q JOIN device d ON d.id = q.device_id
WHERE q.state = 'open' AND d.device_number = $1 GROUP BY q.reason ORDER BY count(*) DESC, q.reason
"""

# The states of these rows.
STATES: Final = "SELECT id, state FROM quarantine WHERE id = ANY($1::bigint[])"

# Where a pass over quarantine ends: rows that come later are left to the next one.
HIGHEST_ID: Final = "SELECT coalesce(max(id), 0) FROM quarantine"

# Kept frames, with everything that decoding them needs.
FRAMES: Final = """
SELECT id, seq, device_id, received_at, protocol, peer, context, raw FROM quarantine_frame WHERE id = ANY($1::bigint[])
"""

# Registry entries by our number.
DEVICES: Final = """
SELECT id, device_number, status, model, time_zone, revision, erased_to FROM device WHERE id = ANY($1::int[])
"""

# Which of these rows are still open; asked under the devices' locks.
STILL_OPEN: Final = "SELECT id FROM quarantine WHERE id = ANY($1::bigint[]) AND state = 'open'"


# What judging rows again needs of them.
ROW_COLUMNS: Final = (
    "q.id, q.frame_id, q.record_no, q.device_id, q.wire_time, q.digest, q.journal_id, q.seq, q.received_at, q.reason"
)


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which open rows: those that fit everything that is given; nothing given means all."""

    ids: tuple[int, ...] = ()
    device_number: str | None = None
    reason: str | None = None
    since: datetime | None = None  # received at or after it
    until: datetime | None = None  # received before it
    limit: int | None = None  # the oldest of these, so many at most

    def words(self) -> str:
        """For the audit log."""
        parts = [f"ids {', '.join(map(str, self.ids))}"] if self.ids else []
        parts += [f"device {self.device_number}"] if self.device_number is not None else []
        parts += [f"reason {self.reason}"] if self.reason else []
        parts += [f"since {self.since.isoformat()}"] if self.since else []
        parts += [f"until {self.until.isoformat()}"] if self.until else []
        parts += [f"limit {self.limit}"] if self.limit is not None else []
        return "; ".join(parts) or "all"


class ChangedMeanwhile(Exception):
    """A device's registry entry is not the one that its records were judged under."""


async def highest_id(connection: Connection) -> int:
    """The newest row's id, 0 if there is none."""
    found: int = await connection.fetchval(HIGHEST_ID)
    return found


async def pages(
    connection: Connection, selection: Selection, rows_max: int = limits.QUARANTINE_RELEASE_BATCH
) -> AsyncIterator[list[Row]]:
    """The open rows that are meant, by id, each once, at most `rows_max` at a time; later ones are not seen."""
    last_id, after_id = await highest_id(connection), 0
    left = limits.BIGINT_MAX if selection.limit is None else selection.limit
    while left > 0 and (rows := await _page(connection, selection, after_id, last_id, min(left, rows_max))):
        after_id = rows[-1]["id"]
        left -= len(rows)
        yield rows


async def _page(connection: Connection, selection: Selection, after_id: int, last_id: int, rows_max: int) -> list[Row]:
    where, values = _conditions(selection)
    statement = (
        f"SELECT {ROW_COLUMNS} "  # noqa: S608 - constant columns and conditions
        f"FROM quarantine q WHERE q.state = 'open' AND q.id > $1 AND q.id <= $2{where} ORDER BY q.id LIMIT {rows_max}"
    )
    return list(await connection.fetch(statement, after_id, last_id, *values))


async def count_open(connection: Connection, selection: Selection) -> int:
    """How many open rows are meant."""
    where, values = _conditions(selection)
    statement = f"SELECT count(*) FROM quarantine q WHERE q.state = 'open' AND q.id > $1 AND q.id <= $2{where}"  # noqa: S608 - constant conditions
    found: int = await connection.fetchval(statement, 0, await highest_id(connection), *values)
    return found if selection.limit is None else min(found, selection.limit)


def _conditions(selection: Selection) -> tuple[str, list[Any]]:
    """Only what is asked for, from $3 on: a plan made for any selection would read the whole table for a small one."""
    conditions, values = "", []
    for condition, value in (
        ("q.id = ANY({}::bigint[])", list(selection.ids) or None),
        ("q.device_id = (SELECT id FROM device WHERE device_number = {})", selection.device_number),
        ("q.reason = {}", selection.reason),
        ("q.received_at >= {}", selection.since),
        ("q.received_at < {}", selection.until),
    ):
        if value is not None:
            values.append(value)
            conditions += f" AND {condition.format(f'${len(values) + 2}')}"
    return conditions, values


async def frames_of(connection: Connection, rows: Iterable[Row]) -> dict[int, Row]:
    """The kept frames of quarantine rows, by frame id."""
    wanted = {row["frame_id"] for row in rows}
    return {row["id"]: row for row in await connection.fetch(FRAMES, list(wanted))}


async def devices_of(connection: Connection, rows: Iterable[Row]) -> dict[int, Device]:
    """The registry entries of quarantine rows, by device id."""
    wanted = {row["device_id"] for row in rows}
    return {row["id"]: device_of(row) for row in await connection.fetch(DEVICES, list(wanted))}


async def lock(connection: Connection, devices: Mapping[int, Device], ids: list[int]) -> set[int]:
    """Lock the devices for the caller's transaction; returns which of the rows are still open.

    Raises ChangedMeanwhile if a registry entry is no longer as in `devices`.
    """
    await connection.execute(sql.LOCK_DEVICES, list(devices))
    # Statements of their own, so that they see what the lock waited for.
    now = {row["id"]: row["revision"] for row in await connection.fetch(sql.DEVICE_REVISIONS, list(devices))}
    if any(now[device.id] != device.revision for device in devices.values()):
        raise ChangedMeanwhile
    return {row["id"] for row in await connection.fetch(STILL_OPEN, ids)}


async def discard(connection: Connection, selection: Selection, *, closed_by: str) -> int:
    """Close every row that is meant as discarded, in transactions of bounded size; returns how many."""
    discarded = 0
    async for rows in pages(connection, selection):
        async with connection.transaction():
            await connection.execute(sql.LOCK_DEVICES, list({row["device_id"] for row in rows}))
            closed = await discard_rows(connection, [row["id"] for row in rows], closed_by=closed_by)
            if closed:
                detail = {"records": closed, "first_id": rows[0]["id"], "last_id": rows[-1]["id"]}
                await log_action(connection, closed_by, "quarantine.discard", selection.words(), detail)
        discarded += closed
    return discarded


async def states(connection: Connection, ids: Iterable[int]) -> dict[int, str]:
    """The state of each of these rows; those that do not exist are left out."""
    return {row["id"]: row["state"] for row in await connection.fetch(STATES, list(ids))}


async def list_rows(connection: Connection, selection: Selection, *, state: str | None) -> list[Row]:
    """Rows for people, newest first; None: in whatever state."""
    assert not selection.ids
    assert selection.limit is not None
    values = (selection.device_number, selection.reason, state, selection.since, selection.until, selection.limit)
    return list(await connection.fetch(LIST, *values))


async def show_row(connection: Connection, quarantine_id: int) -> Row | None:
    """One row with its envelope and its frame; None if there is none."""
    return await connection.fetchrow(SHOW, quarantine_id)


async def open_by_reason(connection: Connection, device_number: str) -> dict[str, int]:
    """Open rows of a device by reason, most first."""
    return {row["reason"]: row["rows"] for row in await connection.fetch(OPEN_BY_REASON, device_number)}
