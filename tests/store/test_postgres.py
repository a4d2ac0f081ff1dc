"""Connecting, and reading errors: every case is provoked on a real server, not imagined."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalkeep import limits
from signalkeep.config import PASSWORD_MASK, Settings
from signalkeep.errors import CallerError, DatabaseUnavailable, EnvironmentFault, UnsafeDatabase
from signalkeep.sections import DatabaseSettings
from signalkeep.store import postgres
from signalkeep.store.postgres import Connection, Fault, classify, connect, embedded_dsn, redact, sqlstate
from tests.servers import (
    SETTINGS,
    PostgresServer,
    connected,
    find_system_postgres,
    free_port,
    run_sync,
    wait_until_async,
)

pytestmark = pytest.mark.servers

UNSAFE = DatabaseSettings.model_validate({"allow_unsafe": True})


# The connection


async def test_a_connection_works_in_utc_under_its_name_and_speaks_json(
    postgres_server: PostgresServer, dsn: str
) -> None:
    name = dsn.partition("@/")[2].partition("?")[0]
    await postgres_server.execute(f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")
    connection = await connect(dsn, application="signalkeep test", settings=SETTINGS)
    try:
        assert await connection.fetchval("SHOW timezone") == "UTC"
        assert await connection.fetchval("SHOW application_name") == "signalkeep test"
        value = {"io1": 3, "text": 'é"\\', "none": None, "list": [1, 2.5, True]}
        assert await connection.fetchval("SELECT $1::jsonb", value) == value
        assert await connection.fetchval("SELECT $1::jsonb[]", [value, {}, None]) == [value, {}, None]
        await connection.execute("CREATE TEMP TABLE kept (value jsonb)")
        await connection.copy_records_to_table("kept", records=[(value,)])
        assert await connection.fetchval("SELECT value FROM kept") == value
    finally:
        await connection.close()


@pytest.mark.parametrize("name", ["fsync", "synchronous_commit", "full_page_writes"])
async def test_a_server_that_can_lose_confirmed_rows_is_refused(postgres_server: PostgresServer, name: str) -> None:
    dsn = postgres_server.dsn
    try:
        async with connected(dsn, UNSAFE) as connection:
            await connection.execute(f"ALTER SYSTEM SET {name} = off")
            await connection.execute("SELECT pg_reload_conf()")
            await wait_until_async(lambda: connection.fetchval(f"SELECT current_setting('{name}') = 'off'"))
        with pytest.raises(UnsafeDatabase, match=name) as caught:
            await connect(dsn, application="tests", settings=SETTINGS)
        assert "allow_unsafe" in caught.value.hint
        async with connected(dsn, UNSAFE) as connection:
            assert await connection.fetchval("SELECT 1") == 1
    finally:
        async with connected(dsn, UNSAFE) as connection:
            await connection.execute(f"ALTER SYSTEM RESET {name}")
            await connection.execute("SELECT pg_reload_conf()")
            await wait_until_async(lambda: connection.fetchval(f"SELECT current_setting('{name}') = 'on'"))


async def test_an_old_server_is_refused(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "SERVER_VERSION_MIN", 990_000)
    with pytest.raises(CallerError, match="needs 14 or newer"):
        await connect(dsn, application="tests", settings=SETTINGS)


async def test_nothing_listens() -> None:
    dsn = f"postgresql://me:hunter2@127.0.0.1:{free_port()}/x"
    with pytest.raises(DatabaseUnavailable) as caught:
        await connect(dsn, application="tests", settings=SETTINGS)
    assert "hunter2" not in caught.value.message + caught.value.hint
    assert f"me:{PASSWORD_MASK}@127.0.0.1" in caught.value.message


async def test_an_unknown_host_and_a_missing_socket(short_directory: Path) -> None:
    with pytest.raises(DatabaseUnavailable):
        await connect("postgresql://me@no-such-host.invalid/x", application="tests", settings=SETTINGS)
    with pytest.raises(DatabaseUnavailable) as caught:
        await connect(embedded_dsn(short_directory), application="tests", settings=SETTINGS)
    assert "signalkeep run" in caught.value.hint


@pytest.fixture
def guarded_dsn(postgres_server: PostgresServer) -> Iterator[str]:
    """Of a role that needs the password 'right', which is to be put in. Everybody else is trusted at this socket."""
    rules = next((postgres_server.directory / "data" / "postgres").glob("[0-9]*/pg_hba.conf"))
    before = rules.read_text()
    rules.write_text("local all guarded scram-sha-256\n" + before)
    run_sync(postgres_server.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'"))
    run_sync(postgres_server.execute("SELECT pg_reload_conf()"))
    yield postgres_server.dsn.replace("signalkeep@", "guarded:{}@")
    rules.write_text(before)
    run_sync(postgres_server.execute("DROP ROLE guarded"))
    run_sync(postgres_server.execute("SELECT pg_reload_conf()"))


async def test_a_wrong_password(guarded_dsn: str) -> None:
    refusals: list[DatabaseUnavailable] = []

    async def refused() -> bool:
        try:
            await (await connect(guarded_dsn.format("wr0ng"), application="tests", settings=SETTINGS)).close()
        except DatabaseUnavailable as error:
            refusals.append(error)
        return bool(refusals)

    await wait_until_async(refused, what="the server has read its rules again")
    assert "password" in refusals[0].message
    assert "password" in refusals[0].hint
    assert "wr0ng" not in refusals[0].message
    await (await connect(guarded_dsn.format("right"), application="tests", settings=SETTINGS)).close()


async def test_a_database_that_is_not_there(postgres_server: PostgresServer) -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        await connect(postgres_server.dsn_of("nowhere"), application="tests", settings=SETTINGS)
    assert "Create the database" in caught.value.hint


class Silent(asyncio.Protocol):
    """A server that accepts and never answers."""


class Rude(asyncio.Protocol):
    """A server that accepts and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class Other(asyncio.Protocol):
    """Something else than PostgreSQL."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize("behaviour", [Silent, Rude, Other])
async def test_whatever_answers_instead(behaviour: type[asyncio.Protocol], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DATABASE_CONNECT_S_MAX", 0.3)
    server = await asyncio.get_running_loop().create_server(behaviour, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(DatabaseUnavailable):
            await connect(f"postgresql://me@127.0.0.1:{port}/x", application="tests", settings=SETTINGS)


@pytest.mark.parametrize(
    "dsn",
    [
        "hunter2",
        "http://me:hunter2@h/x",
        "postgresql://me:hunter2/x@h/x",
        "postgresql://me@h/x?hunter2",
        "postgresql://me:x@h/x?sslmode=hunter2",
    ],
)
async def test_a_dsn_that_makes_no_sense_is_never_quoted(dsn: str) -> None:
    with pytest.raises(CallerError) as caught:
        await connect(dsn, application="tests", settings=SETTINGS)
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint} {caught.value.__cause__}"
    assert caught.value.__suppress_context__


async def test_a_postgresql_of_the_system_does_as_well() -> None:
    folder = find_system_postgres()
    if folder is None:
        pytest.skip("NO OTHER POSTGRESQL IN /usr/lib/postgresql, A SECOND VERSION IS NOT TESTED")
    server = PostgresServer(DatabaseSettings.model_validate({"bin_dir": folder}))
    try:
        await server.start()
        dsn = await server.create_database()
        async with connected(dsn) as connection:
            major = await connection.fetchval("SELECT current_setting('server_version_num')::int / 10000")
            assert major == int(folder.parent.name)
            with pytest.raises(asyncpg.CheckViolationError) as caught:
                await connection.execute("CREATE TABLE p (a int) PARTITION BY RANGE (a); INSERT INTO p VALUES (1)")
            assert classify(caught.value) is Fault.MISSING_PARTITION
    finally:
        await server.stop()
        server.close()


# The address


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://me:secret@h:5432/x", "postgresql://me:********@h:5432/x"),
        ("postgres://me:s%40cret@h1:1,h2/x?sslmode=require", "postgres://me:********@h1:1,h2/x?sslmode=require"),
        ("postgresql://me:secret@[::1]:2/x", "postgresql://me:********@[::1]:2/x"),
        ("postgresql://me@/x?host=/run/pg&password=secret", "postgresql://me@/x?host=/run/pg&password=********"),
        ("postgresql://me@h/x", "postgresql://me@h/x"),
    ],
)
def test_a_dsn_is_shown_without_its_password(dsn: str, shown: str) -> None:
    assert redact(dsn) == shown


@given(
    password=st.text(max_size=12) | st.text("@/:?#&=%.,ab12[] \\", max_size=12),
    form=st.sampled_from(
        [
            "postgresql://u:{}@h/d",
            "postgresql://u:{}@h:1,i:2/d?host=/e",
            "postgresql://u:{}",
            "postgresql://u@h/d?password={}",
            "host=h password={}",
            "{}",
        ]
    ),
)
def test_no_password_is_ever_shown(password: str, form: str) -> None:
    """However it was mistyped: with @, /, #, ? or anything else that cuts a URL short."""
    marked = f"\N{SNOWMAN}{password}\N{SNOWMAN}"
    assert "\N{SNOWMAN}" not in redact(form.format(marked))
    assert "%E2%98%83" not in redact(form.format(marked))


def settings_in(data: Path, **database: Any) -> Settings:
    return Settings.model_validate({"data": data, "database": database})


def test_the_embedded_address_follows_from_the_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = Path("/var/lib/signalkeep"), tmp_path / ("x" * 120)
    monkeypatch.setenv("PGPORT", "1")
    assert postgres.dsn_of(settings_in(short)).endswith("?host=/var/lib/signalkeep/postgres/socket&port=5432")
    assert len(str(postgres.socket_directory(long) / postgres.SOCKET_FILE)) <= postgres.SOCKET_PATH_BYTES_MAX
    assert postgres.socket_directory(long) == postgres.socket_directory(long)
    assert postgres.socket_directory(long) != postgres.socket_directory(tmp_path / ("y" * 120))
    assert postgres.socket_directory(Path("/a,b")).parent == Path("/tmp")
    assert postgres.dsn_of(settings_in(short, dsn="postgresql://h/x")) == "postgresql://h/x"


@pytest.mark.parametrize("plant", ["open directory", "link", "file"])
def test_a_planted_socket_directory_is_refused(tmp_path: Path, plant: str) -> None:
    data = tmp_path / ("z" * 120)
    place = postgres.socket_directory(data)
    if plant == "open directory":
        place.mkdir(mode=0o700)
        place.chmod(0o777)
    elif plant == "link":
        place.symlink_to(tmp_path)
    else:
        place.write_text("")
    try:
        with pytest.raises(EnvironmentFault, match=str(place)):
            embedded_dsn(data)
    finally:
        place.rmdir() if plant == "open directory" else place.unlink()


# What an error means


@pytest.fixture
async def scratch(dsn: str) -> AsyncIterator[Connection]:
    async with connected(dsn) as connection:
        await connection.execute(
            """
            CREATE TABLE scratch (
                id int, name text CHECK (length(name) < 5), kind text NOT NULL DEFAULT '', small smallint,
                big bigint, number real,
                at timestamptz, data jsonb
            ) PARTITION BY RANGE (id);
            CREATE TABLE scratch_1 PARTITION OF scratch FOR VALUES FROM (0) TO (100);
            CREATE UNIQUE INDEX ON scratch (id, name);
            CREATE TABLE indexed (name text PRIMARY KEY);
            """
        )
        yield connection


async def fault_of(work: Any) -> tuple[Fault, str]:
    with pytest.raises(Exception) as caught:
        await work
    return classify(caught.value), sqlstate(caught.value)


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("id", 2**40, "22000"),
        ("id", "x", "22000"),
        ("small", 2**15, "22000"),
        ("big", 2**63, "22000"),
        ("number", 1e300, "22000"),
        ("at", "yesterday", "22000"),
        ("name", "\ud800", "22000"),
        ("name", "\x00", "22021"),
        ("name", "too long", "23514"),
        ("kind", None, "23502"),
        ("data", {"a": "\x00"}, "22P05"),
        ("data", {"a": "\ud800"}, "22000"),
        ("data", {"a": object()}, "22000"),
    ],
)
async def test_a_value_that_cannot_be_stored(scratch: Connection, column: str, value: Any, code: str) -> None:
    """The same verdict and code whether it goes as an argument or by COPY, where the driver tells less."""
    inserted = (
        f"INSERT INTO scratch (id, {column}) VALUES (1, $1)" if column != "id" else "INSERT INTO scratch VALUES ($1)"
    )
    assert await fault_of(scratch.execute(inserted, value)) == (Fault.DATA, code)
    record = {"id": 1, column: value}
    copied = scratch.copy_records_to_table("scratch", columns=list(record), records=[tuple(record.values())])
    assert await fault_of(copied) == (Fault.DATA, code)


async def test_deep_json_a_long_key_and_a_duplicate(scratch: Connection) -> None:
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]
    text = "[" * 50_000 + "]" * 50_000
    assert await fault_of(scratch.execute(f"INSERT INTO scratch (id, data) VALUES (1, '{text}')")) == (
        Fault.DATA,
        "54001",
    )
    key = "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(9000))
    assert await fault_of(scratch.execute("INSERT INTO indexed VALUES ($1)", key)) == (Fault.DATA, "54000")
    await scratch.execute("INSERT INTO indexed VALUES ('a')")
    assert await fault_of(scratch.execute("INSERT INTO indexed VALUES ('a')")) == (Fault.DATA, "23505")


async def test_a_missing_partition_is_not_bad_data(scratch: Connection) -> None:
    assert await fault_of(scratch.execute("INSERT INTO scratch VALUES (1000)")) == (Fault.MISSING_PARTITION, "23514")
    copied = scratch.copy_records_to_table("scratch", columns=["id"], records=[(1000,)])
    assert await fault_of(copied) == (Fault.MISSING_PARTITION, "23514")
    assert await fault_of(scratch.execute("INSERT INTO scratch_1 VALUES (1000)")) == (Fault.DATA, "23514")


@pytest.mark.parametrize(
    "told",
    [
        {"message": "keine Partition von Relation »signal« für die Zeile gefunden"},
        {"server_source_function": "RenamedInALaterVersion"},
        {"server_source_function": None},
    ],
)
async def test_a_missing_partition_is_known_in_any_language_and_version(scratch: Connection, told: Any) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await scratch.execute("INSERT INTO scratch VALUES (1000)")
    for name, value in told.items():
        setattr(caught.value, name, value)
    assert classify(caught.value) is Fault.MISSING_PARTITION


async def test_what_says_nothing_against_the_rows(scratch: Connection) -> None:
    async def in_transaction(first: str, then: str) -> None:
        async with scratch.transaction():
            await scratch.execute(first)
            await scratch.execute(then)

    transient = {
        "42P01": scratch.execute("SELECT * FROM nowhere"),
        "42601": scratch.execute("SELEC"),
        "25006": in_transaction("SET TRANSACTION READ ONLY", "INSERT INTO scratch VALUES (1)"),
        "57014": in_transaction("SET LOCAL statement_timeout = '1ms'", "SELECT pg_sleep(10)"),
    }
    for code, work in transient.items():
        assert await fault_of(work) == (Fault.TRANSIENT, code)
    assert await fault_of(scratch.execute("SELECT $1::int", 1, 2)) == (Fault.TRANSIENT, "")
    assert await fault_of(scratch.execute("SELECT pg_sleep(10)", timeout=0.01)) == (Fault.TRANSIENT, "")


async def test_a_deadlock_and_a_lock_time_out(scratch: Connection, dsn: str) -> None:
    await scratch.execute("SET deadlock_timeout = '10ms'")
    async with connected(dsn) as other:
        await other.execute("SET deadlock_timeout = '10s'")
        mine, theirs = scratch.transaction(), other.transaction()
        await mine.start()
        await theirs.start()
        await scratch.execute("SELECT pg_advisory_xact_lock(1)")
        await other.execute("SELECT pg_advisory_xact_lock(2)")
        waiting = asyncio.create_task(other.execute("SELECT pg_advisory_xact_lock(1)"))
        await wait_until_async(lambda: other_waits(dsn))
        verdict = await fault_of(scratch.execute("SELECT pg_advisory_xact_lock(2)"))
        assert verdict == (Fault.TRANSIENT, "40P01")
        await mine.rollback()
        await waiting
        await theirs.rollback()


async def other_waits(dsn: str) -> bool:
    async with connected(dsn) as watcher:
        found: bool = await watcher.fetchval("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")
        return found


async def test_a_connection_lost_in_the_middle_and_afterwards(scratch: Connection, dsn: str) -> None:
    sleeping = asyncio.create_task(scratch.execute("SELECT pg_sleep(60)"))
    async with connected(dsn) as other:
        await wait_until_async(
            lambda: other.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND state = 'active'"
            )
        )
        await other.execute("SELECT pg_terminate_backend($1)", scratch.get_server_pid())
    fault, _ = await fault_of(sleeping)
    assert fault is Fault.TRANSIENT
    assert (await fault_of(scratch.execute("SELECT 1")))[0] is Fault.TRANSIENT


async def test_the_server_killed_under_a_connection(short_directory: Path) -> None:
    server = PostgresServer()
    try:
        await server.start()
        async with connected(server.dsn) as connection:
            server.kill()
            assert (await fault_of(connection.execute("SELECT pg_sleep(60)")))[0] is Fault.TRANSIENT
        with pytest.raises(DatabaseUnavailable):
            await connect(server.dsn, application="tests", settings=SETTINGS)
        await server.start()
        async with connected(server.dsn) as connection:
            assert await connection.fetchval("SELECT 1") == 1
    finally:
        await server.stop()
        server.close()


def test_a_bug_of_ours_is_not_held_against_the_rows() -> None:
    for bug in (ValueError("ours"), TypeError("ours"), KeyError("ours"), AssertionError(), OSError(), RuntimeError()):
        assert classify(bug) is Fault.TRANSIENT
        assert sqlstate(bug) == ""


def test_what_only_a_value_can_cause_is() -> None:
    assert classify(OverflowError("int too large")) is Fault.DATA
    assert classify(UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")) is Fault.DATA
