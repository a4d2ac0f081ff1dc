"""The monthly partitions of `signal`.

A partition is made apart and then attached, in one transaction: `CREATE TABLE ... PARTITION OF` would wait
for every open reader of `signal`, and hold up all that come after it. Months are those of UTC, whatever the
session's time zone. Any number of callers may ask for the same months at once.

Partitions are never detached or dropped here: `store.retention` does that.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Final, TypeAlias

from signalkeep import limits
from signalkeep.store.postgres import Connection
from signalkeep.store.registry import log_action

Month: TypeAlias = tuple[int, int]
"""Year and month, of UTC."""

_LOCK: Final = 0x73_6B_70_61  # advisory lock: one maker at a time, so nobody finds a name half made

_ATTACHED = """
SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = 'signal'::regclass AND NOT inhdetachpending
"""

# A month that had gone is there again, so its days can be judged.
IS_BACK: Final = "DELETE FROM expired_month WHERE month = $1"


async def ensure_partitions(
    connection: Connection, months: Iterable[Month], *, actor: str | None = None, trial: bool = False
) -> list[str]:
    """Make the partitions of these (year, month) that are missing, and return their names. To be called outside of a
    transaction. With an actor, each that is made has its line in the audit log.

    Waits at most PARTITION_LOCK_S_MAX for locks; then SQLSTATE 55P03, which says: try again. `trial`: within a
    transaction that the caller is about to roll back.
    """
    assert trial or not connection.is_in_transaction(), "its locks must not last as long as the caller's transaction"
    wanted = {partition_name(year, month): (year, month) for year, month in months}
    if not wanted:
        return []
    missing = wanted.keys() - await _attached(connection)
    return [name for name in sorted(missing) if await _make(connection, name, wanted[name], actor)]


async def missing_months(connection: Connection, months: Iterable[Month]) -> set[Month]:
    """Those of these (year, month) that have no partition."""
    attached = await _attached(connection)
    return {month for month in months if partition_name(*month) not in attached}


def partition_name(year: int, month: int) -> str:
    """The table that holds a month of wire_time."""
    assert 1 <= year <= 9999, year
    assert 1 <= month <= 12, month
    return f"signal_{year:04}_{month:02}"


def month_of(when: datetime | date) -> Month:
    """The month of a moment of UTC."""
    return when.year, when.month


def month_after(month: Month, months: int = 1) -> Month:
    """So many months later."""
    number = month[0] * 12 + month[1] - 1 + months
    return number // 12, number % 12 + 1


def beginning(month: Month) -> datetime:
    """Its first moment."""
    return datetime(*month, 1, tzinfo=UTC)


def month_words(month: Month) -> str:
    """As people write it: 2026-05."""
    return f"{month[0]:04}-{month[1]:02}"


async def months_there(connection: Connection) -> list[Month]:
    """The months that have a partition, oldest first."""
    names = await _attached(connection)
    return sorted((int(name[-7:-3]), int(name[-2:])) for name in names)


async def _attached(connection: Connection) -> set[str]:
    return {row["relname"] for row in await connection.fetch(_ATTACHED)}


async def _make(connection: Connection, name: str, month: Month, actor: str | None) -> bool:
    """One month; False: somebody else has made it meanwhile. A table of that name that is not attached, left over from
    anything, is attached as it is."""
    words, following = month_words(month), month_words(month_after(month))
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = '{limits.PARTITION_LOCK_S_MAX * 1000:.0f}ms'")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        if name in await _attached(connection):
            return False
        await connection.execute(f"CREATE TABLE IF NOT EXISTS {name} (LIKE signal INCLUDING ALL)")
        await connection.execute(
            f"ALTER TABLE signal ATTACH PARTITION {name} FOR VALUES"
            f" FROM ('{words}-01 00:00:00+00') TO ('{following}-01 00:00:00+00')"
        )
        await connection.execute(f"COMMENT ON TABLE {name} IS 'Signals with wire_time in {words} (UTC).'")
        await connection.execute(IS_BACK, date(*month, 1))
        if actor is not None:
            await log_action(connection, actor, "month.make", words, {})
    return True
