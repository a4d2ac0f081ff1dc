"""Retention: months of signals that are over go as a whole, each in one transaction with its entries in the ledger.

    1  count      how many rows of each journal and device, and the exclusive or of their digests: in a snapshot, while
                  everybody goes on working
    2  lock       `signal` as a whole, for a moment: nobody writes or reads it now. The devices of which something has
                  come or was erased since the count are counted again
    3  book       ledger.expired and key_xor, the audit log, `expired_month`; what waits to be judged of these days, and
                  what rules found on them
    4  drop       the partition

All of 2 to 4 is there or nothing is. Who meets the lock waits for it, which is bounded; who waits so long that it would
be the other way round gives up, and the month goes another time. Scores and marks stay, and quarantine does, whatever
state its rows are in: only an erasure takes those. What is sent again of such a month is `expired` (`kept_from`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

import msgspec

from signalkeep import limits
from signalkeep.clock import SYSTEM_CLOCK, Clock
from signalkeep.errors import EnvironmentFault
from signalkeep.sections import IngestSettings
from signalkeep.store.partitions import (
    Month,
    beginning,
    month_after,
    month_of,
    month_words,
    months_there,
    partition_name,
)
from signalkeep.store.postgres import Connection, sqlstate
from signalkeep.store.registry import log_action

Lines: TypeAlias = dict[tuple[int, int], tuple[int, int]]
"""By (journal_id, device_id): rows, and the exclusive or of their digests."""

IN_THE_WAY: Final = {"55P03", "40P01"}  # somebody holds a lock for too long; two waited for each other

# What a month holds of each provenance; of these devices, if any are named.
COUNT: Final = """
SELECT journal_id, device_id, count(*) AS rows, bit_xor(digest) AS key_xor FROM signal
WHERE wire_time >= $1 AND wire_time < $2 AND ($3::int[] IS NULL OR device_id = ANY($3))
GROUP BY journal_id, device_id
"""

# What was erased of each device so far: where that has grown, rows may have gone.
ERASED: Final = "SELECT device_id, sum(erased)::bigint AS erased FROM ledger WHERE erased > 0 GROUP BY device_id"

# Devices of which a month has rows that a snapshot did not show.
COME_SINCE: Final = """
SELECT DISTINCT device_id FROM signal
WHERE wire_time >= $1 AND wire_time < $2 AND xid >= pg_snapshot_xmin($3::text::pg_snapshot)
  AND NOT pg_visible_in_snapshot(xid, $3::text::pg_snapshot)
"""

# Books what goes on the ledger lines of its provenance.
BOOK: Final = """
UPDATE ledger l SET expired = l.expired + b.rows, key_xor = l.key_xor # b.key_xor
FROM unnest($1::int[], $2::int[], $3::bigint[], $4::bigint[]) AS b (journal_id, device_id, rows, key_xor)
WHERE (l.journal_id, l.device_id) = (b.journal_id, b.device_id)
"""

# Says that the month is no more.
NOTE_MONTH: Final = """
INSERT INTO expired_month (month, signals, devices) VALUES ($1, $2, $3)
ON CONFLICT (month) DO UPDATE SET signals = EXCLUDED.signals, devices = EXCLUDED.devices, expired_at = now()
"""

# Days of the month that wait to be judged, and what rules found on them: it names places and times.
FORGET_DAYS: Final = "DELETE FROM quality_todo WHERE day >= $1 AND day < $2"
FORGET_FINDINGS: Final = "DELETE FROM finding WHERE device_id IS NOT NULL AND day >= $1 AND day < $2"

# How large each month is: as its last ANALYZE counted it, which goes by itself; -1: there was none yet.
SIZES: Final = """
SELECT c.relname, c.reltuples::bigint AS rows, pg_total_relation_size(c.oid) AS bytes
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'signal'::regclass AND NOT i.inhdetachpending ORDER BY c.relname
"""


class Retention(msgspec.Struct, frozen=True):
    """How long records are kept."""

    days: int = 0  # older ones are `expired` when they come; 0: all are kept
    months_go: bool = False  # what is stored goes, too: months that lie wholly further back
    clock: Clock = SYSTEM_CLOCK

    @classmethod
    def by(cls, ingest: IngestSettings, clock: Clock = SYSTEM_CLOCK) -> Retention:
        """As the settings say."""
        return cls(ingest.retention_days, ingest.drop_months, clock)

    def floor(self) -> datetime | None:
        """Months before this go, so nothing may be stored there from now on; None: none goes."""
        return kept_from(self.clock.now(), self.days) if self.months_go else None


class Expired(msgspec.Struct, frozen=True):
    """A month that went."""

    month: str
    signals: int
    devices: int


class KeptMonth(msgspec.Struct, frozen=True):
    """A month that is there."""

    month: str
    signals: int  # about
    bytes: int
    goes_at: datetime | None  # not before; None: never


class _Counted(msgspec.Struct):
    """A count, and what was true when it was made."""

    lines: Lines
    erased: dict[int, int]
    snapshot: str


def kept_from(now: datetime, retention_days: int) -> datetime:
    """The first moment of the first month that does not lie wholly before now - retention_days."""
    assert retention_days > 0, retention_days
    oldest = now.astimezone(UTC) - min(timedelta(days=retention_days), now - datetime(1, 1, 2, tzinfo=UTC))
    return beginning(month_of(oldest))


async def months_over(connection: Connection, now: datetime, retention_days: int) -> list[Month]:
    """The months that are to go, oldest first."""
    floor = kept_from(now, retention_days)
    return [month for month in await months_there(connection) if beginning(month) < floor]


async def drop_months(
    connection: Connection, months: Iterable[Month], *, actor: str
) -> tuple[list[Expired], list[str]]:
    """Drop these months; which went, and which must wait because somebody is in the way."""
    gone, waiting = [], []
    for month in months:
        try:
            expired = await drop_month(connection, month, actor=actor)
        except Exception as error:
            if sqlstate(error) not in IN_THE_WAY:
                raise
            waiting.append(month_words(month))
        else:
            gone += [expired] if expired is not None else []
    return gone, waiting


async def drop_month(connection: Connection, month: Month, *, actor: str) -> Expired | None:
    """Drop a month; None: it is gone already. To be called outside of a transaction.

    Raises EnvironmentFault, and drops nothing, if it has rows that the ledger does not know. SQLSTATE 55P03 and 40P01:
    somebody is in the way, try again later.
    """
    assert not connection.is_in_transaction(), "it counts before it locks"
    begins, ends = beginning(month), beginning(month_after(month))
    counted = await _count(connection, begins, ends)
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = '{limits.PARTITION_LOCK_S_MAX * 1000:.0f}ms'")
        # The whole before its part, as writers do; dropping a part takes the whole in any case.
        await connection.execute("LOCK TABLE ONLY signal IN ACCESS EXCLUSIVE MODE")
        if month not in await months_there(connection):
            return None
        await _count_changed(connection, begins, ends, counted)
        await _book(connection, month, counted.lines)
        days = begins.date(), ends.date()
        devices = len({device_id for _, device_id in counted.lines})
        expired = Expired(month_words(month), sum(rows for rows, _ in counted.lines.values()), devices)
        await connection.execute(NOTE_MONTH, days[0], expired.signals, devices)
        await connection.execute(FORGET_DAYS, *days)
        findings = await connection.execute(FORGET_FINDINGS, *days)
        detail = {"signals": expired.signals, "devices": devices, "findings": int(findings.split()[-1])}
        await log_action(connection, actor, "month.expire", expired.month, detail)
        await connection.execute(f"DROP TABLE {partition_name(*month)}")
    return expired


async def overview(connection: Connection, retention_days: int) -> list[KeptMonth]:
    """Every month that is there, oldest first. `retention_days`: 0 if months are not dropped."""
    sizes = {row["relname"]: row for row in await connection.fetch(SIZES)}
    months = []
    for month in await months_there(connection):
        begins, ends = beginning(month), beginning(month_after(month))
        size = sizes[partition_name(*month)]
        signals = size["rows"]
        if signals < 0:  # it is new, so counting it is no great matter
            signals = sum(rows for rows, _ in (await _lines(connection, begins, ends, None)).values())
        goes_at = ends + timedelta(days=retention_days) if retention_days else None
        months.append(KeptMonth(month_words(month), signals, size["bytes"], goes_at))
    return months


async def _count(connection: Connection, begins: datetime, ends: datetime) -> _Counted:
    """Without being in anybody's way: it may take long."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        snapshot = await connection.fetchval("SELECT pg_current_snapshot()::text")
        lines = await _lines(connection, begins, ends, None)
        erased = {row["device_id"]: row["erased"] for row in await connection.fetch(ERASED)}
    return _Counted(lines, erased, snapshot)


async def _lines(connection: Connection, begins: datetime, ends: datetime, devices: list[int] | None) -> Lines:
    rows = await connection.fetch(COUNT, begins, ends, devices, timeout=limits.MONTH_COUNT_S_MAX)
    return {(row["journal_id"], row["device_id"]): (row["rows"], row["key_xor"]) for row in rows}


async def _count_changed(connection: Connection, begins: datetime, ends: datetime, counted: _Counted) -> None:
    """Under the lock: count again what is not as it was."""
    erased = {row["device_id"]: row["erased"] for row in await connection.fetch(ERASED)}
    changed = {device_id for device_id, count in erased.items() if counted.erased.get(device_id) != count}
    changed |= {row["device_id"] for row in await connection.fetch(COME_SINCE, begins, ends, counted.snapshot)}
    if changed:
        kept = {key: line for key, line in counted.lines.items() if key[1] not in changed}
        counted.lines = kept | await _lines(connection, begins, ends, sorted(changed))


async def _book(connection: Connection, month: Month, lines: Lines) -> None:
    """In the order of keys, as far as that can be had: whoever updates ledger lines of signals is done by now."""
    if not lines:
        return
    values = [(*key, *line) for key, line in sorted(lines.items())]
    done = await connection.execute(BOOK, *zip(*values, strict=True))
    if int(done.split()[-1]) != len(values):
        raise EnvironmentFault(
            f"{month_words(month)} has signals that the ledger does not know: nothing of it was dropped",
            hint="`signalkeep audit` names them; somebody has written past signalkeep.",
        )
