"""Who organizes, and what became of each job's last run."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Final

import asyncpg

from signalkeep import limits
from signalkeep.store.postgres import Connection, Row

LEADER: Final = "signalkeep organizer on "
"""How the application of a connection begins that leads or waits for the lead; the host follows."""

_LEAD: Final = 0x73_6B_6F_72  # advisory lock of the organizer that leads
_JOB: Final = 0x73_6B_6A_62  # of a job that runs; its second part is made of the name

# The lock of a job; lost with the connection.
TRY_JOB: Final = "SELECT pg_try_advisory_lock($1::integer, hashtext($2))"
# Whoever runs a job and is killed is missed within seconds, even by a server that is busy with what he asked for.
NOTICE_LOSS: Final = f"SET client_connection_check_interval = '{limits.ABANDONED_S}s'"
BEGIN: Final = """
INSERT INTO organizer_job (name, every_s, began_at, ran_by) VALUES ($1, $2, clock_timestamp(), $3)
ON CONFLICT (name) DO UPDATE SET
    every_s = EXCLUDED.every_s, began_at = EXCLUDED.began_at, ended_at = NULL, ran_by = EXCLUDED.ran_by
RETURNING began_at
"""
# A failed run has given up its connection, and with it the lock: another may have begun meanwhile, and has not ended.
END: Final = """
UPDATE organizer_job SET
    ended_at = CASE WHEN began_at = $5 THEN clock_timestamp() ELSE ended_at END,
    seconds = $2, result = $3, runs = runs + 1, failures = failures + $4,
    failed_in_a_row = CASE WHEN $4 = 0 THEN 0 ELSE failed_in_a_row + 1 END
WHERE name = $1
"""
# `runs_now` asks for the lock: a run that began and holds none was cut off. The database's own clock counts.
LIST: Final = """
SELECT name, every_s, began_at, ended_at, seconds, result, runs, failures, failed_in_a_row, ran_by, runs_now,
    ended_at + every_s * interval '1 second' AS next_at,
    extract(epoch FROM clock_timestamp() - began_at)::float8 AS began_ago_s,
    NOT runs_now AND extract(epoch FROM clock_timestamp() - coalesce(ended_at, began_at))::float8 > $2 * every_s
        AS overdue
FROM organizer_job, LATERAL (
    SELECT count(*) > 0 AS runs_now FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
        AND l.classid::bigint = $1 AND l.objid::bigint = hashtext(name)::bigint & 4294967295
) held
ORDER BY name
"""
# Who holds the lead: the application names the host.
LEADS: Final = """
SELECT a.application_name
FROM pg_locks l JOIN pg_database d ON d.oid = l.database JOIN pg_stat_activity a ON a.pid = l.pid
WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.classid::bigint = 0 AND l.objid::bigint = $1
"""


async def try_lead(connection: Connection) -> bool:
    """Become the organizer that works, as long as this connection lives; False: another one is."""
    got: bool = await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LEAD)
    return got


async def leader(connection: Connection) -> str | None:
    """The host of the organizer that works; None: there is none."""
    application: str | None = await connection.fetchval(LEADS, _LEAD)
    return application and application.removeprefix(LEADER)


async def try_job(connection: Connection, name: str) -> bool:
    """Take a job, as long as this connection lives; False: it runs over another one."""
    with suppress(asyncpg.PostgresError):  # not every system can do it
        await connection.execute(NOTICE_LOSS)
    got: bool = await connection.fetchval(TRY_JOB, _JOB, name)
    return got


async def note_begin(connection: Connection, name: str, every_s: float, ran_by: str) -> datetime:
    """When it began, which `note_end` wants to know."""
    began_at: datetime = await connection.fetchval(BEGIN, name, every_s, ran_by)
    return began_at


async def note_end(
    connection: Connection, name: str, *, began_at: datetime, seconds: float, result: str, failed: bool
) -> None:
    await connection.execute(END, name, seconds, result, int(failed), began_at)


async def jobs(connection: Connection) -> list[Row]:
    """Each job's last run."""
    return list(await connection.fetch(LIST, _JOB, limits.JOBS_OVERDUE))
