"""Which rows of quarantine are due to be tried again by themselves, and when the others will be.

    the device   was registered, or is read otherwise, since the row was last judged: at once
    the version  is another one than the row was last judged under, and the reason is one of reading: at once
    time         for reasons that come and go (the database rejected it, the decoder failed): after a back-off that
                 doubles with every try, so many times at most
    a try that never ended: as for time, whatever the reason; such a row is tried alone, since it may have ended the
                 process that tried it

Reasons that cannot pass by themselves (future, expired, no device number) are for people. What is due is found by
partial indexes: rows that wait for a person cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from signalkeep import limits
from signalkeep.model import DeviceStatus, Reason
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.quarantine import ROW_COLUMNS

OF_DEVICE: Final = frozenset({Reason.UNKNOWN_DEVICE, Reason.RETIRED_DEVICE})
COMES_AND_GOES: Final = frozenset({Reason.DECODER_ERROR, Reason.DATABASE_REJECTED})
OF_READING: Final = COMES_AND_GOES | {
    Reason.BAD_FORMAT,
    Reason.BAD_VALUE,
    Reason.COUNT_MISMATCH,
    Reason.UNSUPPORTED,
}

# Conditions. The lists of reasons stand in them word for word: so they fit the partial indexes.
_OPEN: Final = "q.state = 'open' AND q.trying_since IS NULL"
_BACK_OFF: Final = (
    f"least({limits.PUSH_BACK_S_MIN} * 2 ^ least(q.attempts, 30), {limits.PUSH_BACK_S_MAX}) * interval '1 s'"
)
_READING: Final = (
    "q.reason IN ('bad_format', 'bad_value', 'count_mismatch', 'unsupported', 'decoder_error', 'database_rejected')"
)

# What is due and has never stopped a process. $1: now, $2: our version, $3: tries at most, $4: rows at most.
DUE: Final = f"""
WITH by_device AS (
    SELECT q.id FROM device d JOIN device_state s ON s.device_id = d.id AND s.quarantine_open > 0
    JOIN quarantine q ON q.device_id = d.id AND q.tried_revision < d.revision AND {_OPEN}
    WHERE d.status = 'active' AND (q.reason IN ('unknown_device', 'retired_device') OR {_READING})
    ORDER BY q.id LIMIT $4
), by_version AS (
    SELECT q.id FROM quarantine q
    WHERE {_OPEN} AND {_READING} AND (q.tried_under < $2 OR q.tried_under > $2) ORDER BY q.id LIMIT $4
), by_time AS (
    SELECT q.id FROM quarantine q
    WHERE {_OPEN} AND q.reason IN ('decoder_error', 'database_rejected') AND q.attempts < $3
      AND coalesce(q.tried_at, q.received_at) + {_BACK_OFF} <= $1
    ORDER BY q.id LIMIT $4
)
SELECT {ROW_COLUMNS} FROM quarantine q
WHERE q.id IN (SELECT id FROM by_device UNION SELECT id FROM by_version UNION SELECT id FROM by_time)
ORDER BY q.id LIMIT $4
"""  # noqa: S608 - constant columns and conditions

# One of those whose try never ended, that which waits longest.
DUE_ALONE: Final = f"""
SELECT {ROW_COLUMNS} FROM quarantine q
WHERE q.state = 'open' AND q.trying_since IS NOT NULL AND (q.attempts < $3 OR q.tried_under <> $2)
  AND q.trying_since + {_BACK_OFF} <= $1
ORDER BY q.trying_since, q.id LIMIT 1
"""  # noqa: S608 - constant columns and conditions

# Notes a try before it is made; of rows that are tried alone also under which version.
BEGIN: Final = """
UPDATE quarantine SET
    attempts = attempts + 1, tried_under = CASE WHEN trying_since IS NULL THEN tried_under ELSE $3 END,
    trying_since = $2
WHERE id = ANY($1::bigint[]) AND state = 'open'
RETURNING id
"""

# Rows that were tried so often in vain that they wait for a person or another version.
GIVEN_UP: Final = """
SELECT count(*) FROM quarantine q
WHERE q.state = 'open' AND q.attempts >= $2 AND q.tried_under = $1
  AND q.reason IN ('decoder_error', 'database_rejected')
"""


async def due(connection: Connection, now: datetime, version: str, attempts_max: int, rows_max: int) -> list[Row]:
    """Rows to be tried together, by id; or a single one that has to be tried alone; [] if nothing is due."""
    together = await connection.fetch(DUE, now, version, attempts_max, rows_max)
    return list(together or await connection.fetch(DUE_ALONE, now, version, attempts_max))


async def begin(connection: Connection, rows: Sequence[Row], now: datetime, version: str) -> list[Row]:
    """Note that these are about to be tried; returns those that are still open."""
    begun = {row["id"] for row in await connection.fetch(BEGIN, [row["id"] for row in rows], now, version)}
    return [row for row in rows if row["id"] in begun]


async def given_up(connection: Connection, version: str, attempts_max: int) -> int:
    """How many rows are no longer tried by this version."""
    found: int = await connection.fetchval(GIVEN_UP, version, attempts_max)
    return found


def back_off(attempts: int) -> timedelta:
    """How long after its last try a row is tried again."""
    return timedelta(seconds=min(limits.PUSH_BACK_S_MIN * 2 ** min(attempts, 30), limits.PUSH_BACK_S_MAX))


def outlook(row: Mapping[str, Any], version: str, attempts_max: int) -> datetime | str:
    """When a row is tried again by itself: a time, or what has to happen first; "" if it is closed."""
    reason, attempts, begun_at = row["reason"], row["attempts"], row["trying_since"]
    if row["state"] != "open":
        return ""
    if begun_at is not None:
        given_up = attempts >= attempts_max and row["tried_under"] == version
        return "with another version" if given_up else begun_at + back_off(attempts)
    active = row["device_status"] == DeviceStatus.ACTIVE
    if reason in OF_DEVICE | OF_READING and active and row["tried_revision"] < row["device_revision"]:
        return "soon"
    if reason in OF_DEVICE:
        return "by a person" if active else "once registered"
    if reason not in OF_READING:
        return "by a person"
    if row["tried_under"] != version:
        return "soon"
    if reason in COMES_AND_GOES and attempts < attempts_max:
        at: datetime = (row["tried_at"] or row["received_at"]) + back_off(attempts)
        return at
    return "with another version"
