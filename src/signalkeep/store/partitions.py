"""The monthly partitions of `signal`.

A partition is made apart and then attached, in one transaction: `CREATE TABLE ... PARTITION OF` would wait
for every open reader of `signal`, and hold up all that come after it. Months are those of UTC, whatever the
session's time zone. Any number of callers may ask for the same months at once.

Partitions are never detached or dropped here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from signalkeep import limits
from signalkeep.store.postgres import Connection

_LOCK: Final = 0x73_6B_70_61  # advisory lock: one maker at a time, so nobody finds a name half made

_ATTACHED = """
SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = 'signal'::regclass AND NOT inhdetachpending
"""


async def ensure_partitions(connection: Connection, months: Iterable[tuple[int, int]]) -> None:
    """Make the partitions of these (year, month) that are missing. To be called outside of a transaction.

    Waits at most PARTITION_LOCK_S_MAX for locks; then SQLSTATE 55P03, which says: try again.
    """
    assert not connection.is_in_transaction(), "its locks must not last as long as a transaction of the caller"
    wanted = {partition_name(year, month): (year, month) for year, month in months}
    if not wanted:
        return
    missing = wanted.keys() - await _attached(connection)
    for name in sorted(missing):
        await _make(connection, name, *wanted[name])


def partition_name(year: int, month: int) -> str:
    """The table that holds a month of wire_time."""
    assert 1 <= year <= 9999, year
    assert 1 <= month <= 12, month
    return f"signal_{year:04}_{month:02}"


async def _attached(connection: Connection) -> set[str]:
    return {row["relname"] for row in await connection.fetch(_ATTACHED)}


async def _make(connection: Connection, name: str, year: int, month: int) -> None:
    """One month. A table of that name that is not attached, left over from anything, is attached as it is."""
    next_year, next_month = (year, month + 1) if month < 12 else (year + 1, 1)
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = '{limits.PARTITION_LOCK_S_MAX * 1000:.0f}ms'")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        if name in await _attached(connection):
            return
        await connection.execute(f"CREATE TABLE IF NOT EXISTS {name} (LIKE signal INCLUDING ALL)")
        await connection.execute(
            f"ALTER TABLE signal ATTACH PARTITION {name} FOR VALUES"
            f" FROM ('{year:04}-{month:02}-01 00:00:00+00')"
            f" TO ('{next_year:04}-{next_month:02}-01 00:00:00+00')"
        )
        await connection.execute(f"COMMENT ON TABLE {name} IS 'Signals with wire_time in {year:04}-{month:02} (UTC).'")
