"""Who organizes, and what became of each job's last run."""

from __future__ import annotations

from typing import Final

from signalkeep.store.postgres import Connection, Row

_LEAD: Final = 0x73_6B_6F_72  # advisory lock of the organizer that leads

BEGIN: Final = """
INSERT INTO organizer_job (name, every_s, began_at) VALUES ($1, $2, now())
ON CONFLICT (name) DO UPDATE SET every_s = EXCLUDED.every_s, began_at = EXCLUDED.began_at, ended_at = NULL
"""
END: Final = """
UPDATE organizer_job SET
    ended_at = now(), seconds = $2, result = $3, runs = runs + 1, failures = failures + $4,
    failed_in_a_row = CASE WHEN $4 = 0 THEN 0 ELSE failed_in_a_row + 1 END
WHERE name = $1
"""
LIST: Final = """
SELECT name, every_s, began_at, ended_at, seconds, result, runs, failures, failed_in_a_row
FROM organizer_job ORDER BY name
"""


async def try_lead(connection: Connection) -> bool:
    """Become the organizer that works, as long as this connection lives; False: another one is."""
    got: bool = await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LEAD)
    return got


async def note_begin(connection: Connection, name: str, every_s: float) -> None:
    await connection.execute(BEGIN, name, every_s)


async def note_end(connection: Connection, name: str, *, seconds: float, result: str, failed: bool) -> None:
    await connection.execute(END, name, seconds, result, int(failed))


async def jobs(connection: Connection) -> list[Row]:
    """Each job's last run."""
    return list(await connection.fetch(LIST))
