"""The schema comes whole or not at all, once, and its partitions hold exactly their month."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalkeep import limits
from signalkeep.errors import CallerError, DatabaseUnavailable
from signalkeep.store import schema
from signalkeep.store.partitions import ensure_partitions, partition_name
from signalkeep.store.postgres import Connection, Fault, classify
from signalkeep.store.schema import HEAD, REVISIONS, ensure_schema, schema_version
from tests.servers import SETTINGS, PostgresServer, connected, run_sync, wait_until_async

pytestmark = pytest.mark.servers

INSERT = """
INSERT INTO signal
    (device_id, wire_time, digest, received_at, fix_valid, attributes, protocol, journal_id, seq, record_no)
VALUES (1, $1, $2, $1, true, '{}', 'json', 1, 1, 0)
"""


@pytest.fixture
def empty_dsn(postgres_server: PostgresServer) -> str:
    return run_sync(postgres_server.create_database(migrated=False))


async def with_parents(connection: Connection) -> None:
    await connection.execute("INSERT INTO device (device_number) VALUES ('1')")
    await connection.execute(
        "INSERT INTO journal (uuid, host, directory, lanes) VALUES (gen_random_uuid(), 'h', '/', 1)"
    )


async def tables(connection: Connection) -> list[str]:
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
    )
    return [row["relname"] for row in rows]


async def test_a_fresh_database_gets_the_schema_once(empty_dsn: str) -> None:
    async with connected(empty_dsn) as connection:
        assert await schema_version(connection) is None
        assert await ensure_schema(empty_dsn, SETTINGS) is True
        assert await schema_version(connection) == HEAD
        assert {"device", "signal", "ledger", "cursor", "quarantine"} <= set(await tables(connection))
    assert await ensure_schema(empty_dsn, SETTINGS) is False


async def test_many_starters_at_once_make_it_once(empty_dsn: str) -> None:
    changed = await asyncio.gather(*(ensure_schema(empty_dsn, SETTINGS) for _ in range(5)))
    assert sorted(changed) == [False] * 4 + [True]


async def test_every_table_and_column_is_commented(connection: Connection) -> None:
    silent = await connection.fetch(
        """
        SELECT relname, attname FROM pg_class
        JOIN pg_attribute ON attrelid = pg_class.oid AND attnum >= 0 AND NOT attisdropped
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')
        AND (col_description(attrelid, attnum) IS NULL OR obj_description(pg_class.oid, 'pg_class') IS NULL)
        """
    )
    assert not silent


async def test_a_failing_statement_leaves_nothing(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last statement of the file fails: no table and no version may stay, and a mended file works."""
    read_text = Path.read_text

    def broken(path: Path, encoding: str | None = None) -> str:
        text = read_text(path, encoding=encoding)
        return text + "\nSELECT 1/0;\n" if path.name == "0001_spine.sql" else text

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", broken)
        with pytest.raises(DatabaseUnavailable, match="division by zero"):
            await ensure_schema(empty_dsn, SETTINGS)
    async with connected(empty_dsn) as connection:
        assert await tables(connection) == []
        assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    assert await ensure_schema(empty_dsn, SETTINGS) is True


async def test_a_newer_schema_is_left_alone(connection: Connection, dsn: str) -> None:
    await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(CallerError, match="9999") as caught:
        await ensure_schema(dsn, SETTINGS)
    assert "newer" in caught.value.hint
    assert await schema_version(connection) == "9999"


async def test_a_database_of_somebody_else_is_left_alone(empty_dsn: str) -> None:
    async with connected(empty_dsn) as connection:
        await connection.execute("CREATE TABLE journal (theirs text)")
        with pytest.raises(CallerError) as caught:
            await ensure_schema(empty_dsn, SETTINGS)
        assert "of its own" in caught.value.hint
        assert await tables(connection) == ["journal"]


def test_the_revisions_are_those_of_alembic() -> None:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(schema.__file__).parent / "migrations"))
    assert tuple(reversed([script.revision for script in scripts.walk_revisions()])) == REVISIONS
    assert scripts.get_current_head() == HEAD


def test_an_up_to_date_schema_needs_no_sqlalchemy(dsn: str) -> None:
    """A role's start pays for SQLAlchemy and Alembic only when there is something to migrate."""
    program = (
        "import asyncio, sys\n"
        "from signalkeep.sections import DatabaseSettings\n"
        "from signalkeep.store.schema import ensure_schema\n"
        "assert asyncio.run(ensure_schema(sys.argv[1], DatabaseSettings())) is False\n"
        "assert not {'sqlalchemy', 'alembic'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program, dsn], check=True, timeout=60)


# Partitions


async def test_a_missing_partition_is_told_from_bad_data_and_can_be_made(connection: Connection) -> None:
    await with_parents(connection)
    when = datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await connection.execute(INSERT, when, 1)
    assert classify(caught.value) is Fault.MISSING_PARTITION
    await ensure_partitions(connection, [(2024, 2)])
    await connection.execute(INSERT, when, 1)
    assert await connection.fetchval("SELECT tableoid::regclass::text FROM signal") == "signal_2024_02"


@given(month=st.integers(1, 12), year=st.integers(1, 9998))
def test_partition_names_sort_by_time(year: int, month: int) -> None:
    following = (year, month + 1) if month < 12 else (year + 1, 1)
    assert partition_name(year, month) < partition_name(*following)


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/Los_Angeles"])
async def test_months_are_those_of_utc(connection: Connection, zone: str) -> None:
    await with_parents(connection)
    await connection.execute(f"SET timezone = '{zone}'")
    await ensure_partitions(connection, [(2023, 12), (2024, 1), (2024, 1)])
    first = datetime(2024, 1, 1, tzinfo=UTC)
    await connection.execute(INSERT, first, 1)
    await connection.execute(INSERT, first - timedelta(microseconds=1), 2)
    rows = await connection.fetch("SELECT digest, tableoid::regclass::text AS name FROM signal ORDER BY digest")
    assert [(row["digest"], row["name"]) for row in rows] == [(1, "signal_2024_01"), (2, "signal_2023_12")]


async def test_the_last_month_and_the_first_can_be_made(connection: Connection) -> None:
    await ensure_partitions(connection, [(9999, 12), (1, 1)])
    await ensure_partitions(connection, [(9999, 12), (1, 1)])


async def test_a_partition_has_the_keys_of_its_parent(connection: Connection) -> None:
    await with_parents(connection)
    await ensure_partitions(connection, [(2024, 1)])
    when = datetime(2024, 1, 5, tzinfo=UTC)
    await connection.execute(INSERT, when, 1)
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute(INSERT, when, 1)
    assert await connection.execute(f"{INSERT} ON CONFLICT DO NOTHING", when, 1) == "INSERT 0 0"


async def test_many_callers_at_once(dsn: str) -> None:
    months = [(2024, month) for month in range(1, 7)]

    async def call(order: list[tuple[int, int]]) -> None:
        async with connected(dsn) as connection:
            await ensure_partitions(connection, order)

    await asyncio.gather(*(call(months if number % 2 else months[::-1]) for number in range(6)))
    async with connected(dsn) as connection:
        assert await connection.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'signal'::regclass") == 6


async def test_a_table_left_unattached_is_attached_with_its_rows(connection: Connection) -> None:
    await with_parents(connection)
    when = datetime(2024, 3, 5, tzinfo=UTC)
    await connection.execute("CREATE TABLE signal_2024_03 (LIKE signal INCLUDING ALL)")
    await connection.execute(INSERT.replace("signal\n", "signal_2024_03\n", 1), when, 5)
    await ensure_partitions(connection, [(2024, 3)])
    assert await connection.fetchval("SELECT digest FROM signal") == 5


async def test_an_open_reader_is_not_waited_for(dsn: str, connection: Connection) -> None:
    """The reader's transaction stays open all the while: PARTITION OF would wait for its end."""
    async with connected(dsn) as reader, reader.transaction():
        await reader.fetchval("SELECT count(*) FROM signal")
        await ensure_partitions(connection, [(2024, 4)])
        assert await reader.fetchval("SELECT count(*) FROM signal") == 0


async def test_waiting_for_a_lock_has_an_end(dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PARTITION_LOCK_S_MAX", 0.05)
    async with connected(dsn) as other, other.transaction():
        await other.execute("LOCK TABLE signal IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(asyncpg.LockNotAvailableError) as caught:
            await ensure_partitions(connection, [(2024, 5)])
        assert classify(caught.value) is Fault.TRANSIENT


async def test_a_waiting_starter_is_served_after_the_first(empty_dsn: str) -> None:
    """The second starter waits on the advisory lock, not on a table that is half made."""
    async with connected(empty_dsn) as first:
        await first.execute("SELECT pg_advisory_lock($1)", schema._LOCK)
        second = asyncio.create_task(ensure_schema(empty_dsn, SETTINGS))
        await wait_until_async(
            lambda: first.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        )
        assert await tables(first) == []
        await first.execute("SELECT pg_advisory_unlock($1)", schema._LOCK)
        assert await second is True
