"""Months of signals go as a whole, and the sums hold: whatever is in them, whoever writes, whenever it is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

import asyncpg
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalkeep import limits
from signalkeep.errors import EnvironmentFault
from signalkeep.ingest.release import release
from signalkeep.ingest.triage import EPOCH
from signalkeep.journal.record import FrameEntry
from signalkeep.store import audit, erasure, registry, sweep
from signalkeep.store.partitions import beginning, ensure_partitions, month_after, months_there
from signalkeep.store.postgres import Connection
from signalkeep.store.quarantine import Selection, discard
from signalkeep.store.retention import Expired, Retention, drop_month, drop_months, kept_from, months_over, overview
from tests.builders import NUMBER, PROTOCOLS, RECEIVED, Feed, assert_sums, event
from tests.servers import connected, wait_until_async

pytestmark = pytest.mark.servers

T = TypeVar("T")

APRIL, MAY = (2026, 4), (2026, 5)
DAY = 24 * 60  # minutes before RECEIVED, the first of May
OTHER, UNKNOWN = "77", "999"
NOW = datetime(2026, 7, 1, tzinfo=UTC)
WAITING_FOR_LOCK = """
SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE NOT granted AND datname = current_database()
"""


def received(entry: FrameEntry, days_before: int) -> FrameEntry:
    at = RECEIVED - timedelta(days=days_before)
    return msgspec.structs.replace(entry, received_at_us=(at - EPOCH) // timedelta(microseconds=1))


async def fill(connection: Connection) -> Feed:
    """April and May of two devices, by way of two journals: stored, re-sent, without a clock, released, discarded, open
    in quarantine, erased."""
    for number in (NUMBER, OTHER):
        await registry.register(connection, number, actor="tests")
    feed, second = await Feed.open(connection), await Feed.open(connection)
    april = [event(number, minute=DAY + minute) for number in (NUMBER, OTHER) for minute in range(5)]
    weak = received(event(minute=0, message_date="1980-01-06T00:00:00Z", latitude=1.0), 3)
    unknown = [received(event(UNKNOWN, minute=3 * DAY + minute), 3) for minute in range(4)]
    await feed.write(connection, *april, april[0], weak, *unknown, event(minute=1), event(OTHER, minute=1))
    await second.write(connection, april[1], event(minute=2 * DAY), event(minute=2))
    await erase_to(connection, OTHER, RECEIVED - timedelta(minutes=DAY + 4))
    waits = [row["id"] for row in await connection.fetch("SELECT id FROM quarantine ORDER BY id")]
    await discard(connection, Selection(ids=(waits[0],)), closed_by="tests")
    forced = Selection(ids=(waits[1],))
    await release(connection, forced, forced=True, closed_by="tests", protocols=PROTOCOLS, retention=Retention())
    return feed


async def erase_to(connection: Connection, number: str, floor: datetime) -> None:
    """As `erase` does it, but for the file that remembers it."""
    floor = await erasure._raise_floor(connection, number, floor, actor="tests")
    await erasure.finish_erasures(connection)


async def april(connection: Connection) -> dict[str, Any]:
    """What there is of April, and what was said of it."""
    rows = await connection.fetchval("SELECT count(*) FROM signal WHERE wire_time < '2026-05-01Z'")
    expired = await connection.fetchval("SELECT sum(expired)::int FROM ledger")
    noted = await connection.fetchval("SELECT sum(signals)::int FROM expired_month")
    logged = await connection.fetchval("SELECT detail FROM audit_log WHERE action = 'month.expire'")
    there = APRIL in await months_there(connection)
    return {"rows": rows, "expired": expired, "noted": noted, "logged": logged, "there": there}


async def blocked(connection: Connection, work: Awaitable[T]) -> asyncio.Task[T]:
    """Begin something, and see it wait for a lock."""
    task = asyncio.ensure_future(work)
    await wait_until_async(lambda: connection.fetchval(WAITING_FOR_LOCK), what="somebody waits for a lock")
    assert isinstance(task, asyncio.Task)
    return task


# What goes ----------------------------------------------------------------------------------------------------------


@given(
    now=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    days=st.integers(1, 2_000_000),
    months=st.integers(-3, 3),
)
def test_a_month_goes_when_all_of_it_is_over(now: datetime, days: int, months: int) -> None:
    floor = kept_from(now, days)
    assert (floor.day, floor.hour, floor.minute, floor.second, floor.microsecond) == (1, 0, 0, 0, 0)
    if days < 300_000:
        month = month_after((floor.year, floor.month), months)
        assert (beginning(month) < floor) == (beginning(month_after(month)) <= now - timedelta(days=days))


async def test_a_month_goes_whole_and_the_sums_hold(connection: Connection) -> None:
    await fill(connection)
    await assert_sums(connection)
    rows = (await april(connection))["rows"]
    assert rows == 5 + 4 + 1 + 1 + 1, (
        "of the first device, of the other, without a clock, of the second journal, released"
    )
    gone, waiting = await drop_months(connection, await months_over(connection, NOW, 60), actor="organizer")
    assert (gone, waiting) == ([Expired("2026-04", rows, 3)], [])
    await assert_sums(connection)
    logged = {"signals": rows, "devices": 3, "findings": 0}
    assert await april(connection) == {"rows": 0, "expired": rows, "noted": rows, "logged": logged, "there": False}
    assert await connection.fetchval("SELECT count(*) FROM signal") == 3, "May is untouched"
    assert await connection.fetchval("SELECT count(*) FROM quarantine") == 4, "quarantine stays, open and closed"
    assert await months_over(connection, NOW, 60) == []
    assert await drop_month(connection, APRIL, actor="organizer") is None, "a second time there is nothing to do"
    await assert_sums(connection)


async def test_an_empty_month_goes_too(connection: Connection) -> None:
    await ensure_partitions(connection, [APRIL])
    assert await drop_month(connection, APRIL, actor="organizer") == Expired("2026-04", 0, 0)
    assert not (await april(connection))["there"]


async def test_what_waits_to_be_judged_goes_and_so_do_findings_while_scores_and_marks_stay(
    connection: Connection,
) -> None:
    await fill(connection)
    device_id = await connection.fetchval("SELECT id FROM device WHERE device_number = $1", NUMBER)
    days = [date(2026, 4, 30), date(2026, 5, 1)]
    for day in days:
        await connection.execute(
            "INSERT INTO finding (kind, subject, detail, device_id, day, state)"
            " VALUES ('X', '', '', $1, $2, 'confirmed')",
            device_id, day,
        )  # fmt: skip
        columns = [row["column_name"] for row in await connection.fetch(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'quality_score'"
            " AND is_nullable = 'NO' AND column_default IS NULL AND column_name NOT IN ('device_id', 'day')"
        )]  # fmt: skip
        await connection.execute(
            f"INSERT INTO quality_score (device_id, day, {', '.join(columns)}) VALUES ($1, $2{', 1' * len(columns)})",
            device_id, day,
        )  # fmt: skip
    await sweep.add_days(connection, [(device_id, day) for day in days])
    await connection.execute(
        "INSERT INTO quality_mark (device_id, begins_at, ends_at, verdict, marked_by)"
        " VALUES ($1, '2026-04-30Z', '2026-04-30Z', 'bad', 'anna')",
        device_id,
    )
    await connection.execute("INSERT INTO finding (kind, subject, detail) VALUES ('journal_vanished', 'x', 'y')")
    await drop_month(connection, APRIL, actor="organizer")

    async def of(table: str) -> list[date]:
        return [row["day"] for row in await connection.fetch(f"SELECT day FROM {table} ORDER BY day")]

    assert await of("finding WHERE day IS NOT NULL") == await of("quality_todo") == days[1:]
    assert await of("quality_score") == days
    assert await connection.fetchval("SELECT count(*) FROM quality_mark") == 1
    assert await connection.fetchval("SELECT count(*) FROM finding WHERE day IS NULL") == 1
    # Nobody judges such a day again: there is nothing left to judge, and its score would be lost.
    await connection.execute("DELETE FROM quality_todo")
    await sweep.add_days(connection, [(device_id, day) for day in days])
    await connection.execute(sweep.SAMPLE, 200)
    await sweep.add_judged_otherwise(connection, 7, 10)
    assert await of("quality_todo") == days[1:]


async def test_signals_that_the_ledger_does_not_know_keep_their_month(connection: Connection) -> None:
    await fill(connection)
    await connection.execute("UPDATE signal SET journal_id = 55 WHERE ctid = (SELECT ctid FROM signal_2026_04 LIMIT 1)")
    before = await april(connection)
    with pytest.raises(EnvironmentFault, match="the ledger does not know"):
        await drop_month(connection, APRIL, actor="organizer")
    assert await april(connection) == before


async def test_a_month_that_is_needed_again_is_made_again(connection: Connection) -> None:
    """The retention was raised: then old records may come back, and go again."""
    feed = await fill(connection)
    await drop_month(connection, APRIL, actor="organizer")
    await feed.write(connection, event(minute=DAY + 3), event(minute=DAY + 9))
    assert await connection.fetchval("SELECT count(*) FROM expired_month") == 0
    await assert_sums(connection)
    assert await drop_month(connection, APRIL, actor="organizer") == Expired("2026-04", 2, 1)
    await assert_sums(connection)


async def test_the_overview_says_what_is_there_and_when_it_goes(connection: Connection) -> None:
    await fill(connection)
    counted = await overview(connection, 0)
    assert [(one.month, one.signals, one.goes_at) for one in counted] == [("2026-04", 12, None), ("2026-05", 3, None)]
    await connection.execute("ANALYZE signal")
    analyzed = await overview(connection, 30)
    assert [(one.month, one.signals) for one in analyzed] == [("2026-04", 12), ("2026-05", 3)]
    assert [one.goes_at for one in analyzed] == [datetime(2026, 5, 31, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)]
    assert all(one.bytes > 0 for one in analyzed)


# Cut off at any moment -----------------------------------------------------------------------------------------------


async def test_cut_off_after_any_statement_it_is_done_wholly_or_not_at_all(dsn: str, connection: Connection) -> None:
    await fill(connection)
    before = await april(connection)
    seen = 0
    for statement in range(1, 100):
        if await cut_off(dsn, statement):
            break
        await wait_until_async(lambda: connection.fetchval(NOBODY_ELSE), what="the server has noticed")
        await assert_sums(connection)
        now = await april(connection)
        assert now == before or (now["rows"], now["there"], now["expired"]) == (0, False, before["rows"]), statement
        seen += now == before
    assert seen > 10, "the drop really was cut off before its end"
    assert not (await april(connection))["there"]


NOBODY_ELSE = """
SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


async def cut_off(dsn: str, statement: int) -> bool:
    """Drop April, and lose the connection after so many statements; True: there were not so many."""
    done = 0
    async with connected(dsn) as connection:

        def count(_: Any) -> None:
            nonlocal done
            done += 1
            if done == statement:
                connection.terminate()

        connection.add_query_logger(count)
        with suppress(asyncpg.ConnectionDoesNotExistError, asyncpg.InterfaceError):
            await drop_month(connection, APRIL, actor="organizer")
    return done < statement


# Beside others -------------------------------------------------------------------------------------------------------


async def test_a_row_that_is_being_written_is_waited_for_and_counted(dsn: str, connection: Connection) -> None:
    feed = await fill(connection)
    rows = (await april(connection))["rows"]
    async with connected(dsn) as writer, connected(dsn) as dropper:
        async with writer.transaction():
            await feed.write(writer, event(minute=DAY + 50), event(minute=50))
            task = await blocked(connection, drop_month(dropper, APRIL, actor="organizer"))
        expired = await task
    assert expired == Expired("2026-04", rows + 1, 3)
    await assert_sums(connection)


async def test_a_row_that_is_being_erased_is_waited_for_and_not_counted(dsn: str, connection: Connection) -> None:
    await fill(connection)
    rows = (await april(connection))["rows"]
    floor = RECEIVED - timedelta(minutes=DAY + 2)
    device_id = await connection.fetchval("SELECT id FROM device WHERE device_number = $1", OTHER)
    async with connected(dsn) as eraser, connected(dsn) as dropper:
        async with eraser.transaction():
            assert await erasure._delete_signals(eraser, device_id, erasure.BEGINNING, floor, floor) == 2
            task = await blocked(connection, drop_month(dropper, APRIL, actor="organizer"))
        expired = await task
    assert expired == Expired("2026-04", rows - 2, 3)
    await assert_sums(connection)


async def test_a_live_record_only_waits(dsn: str, connection: Connection) -> None:
    feed = await fill(connection)
    async with connected(dsn) as writer, connected(dsn) as dropper, connected(dsn) as reader:
        async with reader.transaction():
            await reader.fetch("SELECT FROM signal LIMIT 1")
            dropping = await blocked(connection, drop_month(dropper, APRIL, actor="organizer"))
            writing = asyncio.create_task(feed.write(writer, event(minute=3)))
            await wait_until_async(lambda: both_wait(connection), what="the writer waits behind the drop")
        expired, written = await dropping, await writing
    assert expired is not None
    assert written.stored == 1
    await assert_sums(connection)


async def both_wait(connection: Connection) -> bool:
    return bool(await connection.fetchval(WAITING_FOR_LOCK) == 2)


async def test_a_long_reader_is_not_waited_for_for_long(
    dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as an audit, which sees the same moment all the while."""
    feed = await fill(connection)
    before = await april(connection)
    monkeypatch.setattr(limits, "PARTITION_LOCK_S_MAX", 0.2)
    async with connected(dsn) as reader, connected(dsn) as writer, audit.snapshot(reader):
        gone, waiting = await drop_months(connection, [APRIL], actor="organizer")
        assert (gone, waiting) == ([], ["2026-04"])
        assert (await feed.write(writer, event(minute=3))).stored == 1
        for statement in (audit.SIGNALS_OFF, audit.COUNTERS_OFF):
            assert await audit.ask(reader, statement) == []
    assert await april(connection) == before
    assert (await drop_months(connection, [APRIL], actor="organizer"))[1] == []


async def test_of_two_that_drop_the_same_month_one_does(dsn: str, connection: Connection) -> None:
    await fill(connection)
    rows = (await april(connection))["rows"]
    async with connected(dsn) as one, connected(dsn) as other:
        dropped = await asyncio.gather(*(drop_month(each, APRIL, actor="organizer") for each in (one, other)))
    assert sorted(dropped, key=bool) == [None, Expired("2026-04", rows, 3)]
    await assert_sums(connection)
