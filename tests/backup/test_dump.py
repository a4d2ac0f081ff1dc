"""A database that is not ours to copy: dumped, loaded elsewhere, and its streams in order there."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from signalkeep.backup import create, dump
from signalkeep.backup.programs import connection_of
from signalkeep.backup.restore import restore
from signalkeep.errors import CallerError, DatabaseUnavailable, EnvironmentFault
from signalkeep.store import binaries
from signalkeep.store.embedded import EmbeddedPostgres
from signalkeep.store.notes import last_backup, restored
from signalkeep.store.postgres import Connection
from signalkeep.store.queries import SNAPSHOT, SignalTail, TailPosition
from signalkeep.store.schema import HEAD, schema_version
from tests.backup.support import ingest, make, run_ingest, settings_of
from tests.builders import ask
from tests.servers import SETTINGS, PostgresServer, connected, run_sync

pytestmark = pytest.mark.servers

PROGRAM = binaries.bin_directory(SETTINGS) / "pg_restore"


@pytest.fixture
async def empty(postgres_server: PostgresServer) -> AsyncIterator[str]:
    dsn = await postgres_server.create_database(migrated=False)
    yield dsn
    await postgres_server.drop_database(dsn)


@pytest.fixture
def fresh_server() -> Iterator[PostgresServer]:
    """A cluster whose numbers of transactions are far behind those of the one that dumps."""
    server = PostgresServer()
    run_sync(server.start())
    yield server
    server.close()


async def test_a_dump_and_the_journals_come_back_into_another_database(tmp_path: Path, dsn: str, empty: str) -> None:
    settings = settings_of(tmp_path / "data", dsn)
    await ingest(settings, range(40), wait_for=40)
    backup = await make(settings, tmp_path / "backups")
    noted = last_backup(settings)
    assert noted is not None
    assert noted.path == str(backup)
    assert (backup / "database" / "signalkeep.dump").is_file()
    await ingest(settings, range(40, 60), wait_for=60)

    with pytest.raises(CallerError, match="is not empty") as caught:
        await restore(settings, backup, archive=None, despite_damage=False, progress=lambda _: None)
    assert "RENAME TO" in caught.value.hint
    other = settings_of(settings.data, empty)
    await restore(other, backup, archive=None, despite_damage=False, progress=lambda _: None)
    assert restored(other.data) is not None
    async with connected(empty) as connection:
        assert await schema_version(connection) == HEAD
        assert await connection.fetchval("SELECT count(*) FROM signal") == 40
    await run_ingest(other, wait_for=60)
    async with connected(empty) as connection:
        assert await connection.fetchval("SELECT count(*), count(DISTINCT digest) FROM signal") == 60
        assert await connection.fetchval("SELECT count(*) FROM finding WHERE kind = 'database_restored'") == 1


async def test_when_the_database_or_the_disk_gives_up_there_is_no_backup(
    tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the connection goes the lock that keeps journal files where they are."""
    settings = settings_of(tmp_path / "data", dsn)
    sound = create._journals

    def cut(*arguments: Any) -> Any:
        ask(dsn, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE '%backup'")
        return sound(*arguments)

    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device", "/backups/x")

    monkeypatch.setattr(create, "_journals", cut)
    with pytest.raises(DatabaseUnavailable):
        await make(settings, tmp_path / "backups")
    monkeypatch.setattr(create, "_journals", full)
    with pytest.raises(EnvironmentFault, match="/backups/x: No space left"):
        await make(settings, tmp_path / "backups")
    assert not list((tmp_path / "backups").iterdir())
    assert last_backup(settings) is None


async def stored_order(connection: Connection) -> list[int]:
    return [row["seq"] for row in await connection.fetch("SELECT seq FROM signal ORDER BY xid, journal_id, seq")]


async def test_in_a_younger_cluster_no_row_lies_in_the_future_and_the_order_stays(
    tmp_path: Path, dsn: str, fresh_server: PostgresServer
) -> None:
    settings = settings_of(tmp_path / "data", dsn)
    async with connected(dsn) as connection:
        for _ in range(3000):
            await connection.execute("SELECT pg_current_xact_id()")
        await ingest(settings, range(60), wait_for=60)
        before = await stored_order(connection)
        oldest = await connection.fetchval("SELECT min(xid::text::bigint) FROM signal")
    backup = await make(settings, tmp_path / "backups")
    target = await fresh_server.create_database(migrated=False)
    async with connected(target) as connection:
        now = await connection.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
    assert oldest > now, "the cluster is younger than every row"
    other = settings_of(tmp_path / "other", target)
    await restore(other, backup, archive=None, despite_damage=False, progress=lambda _: None)
    async with connected(target) as connection:
        future = "SELECT count(*) FROM signal WHERE NOT pg_visible_in_snapshot(xid, pg_current_snapshot())"
        assert await connection.fetchval(future) == 0
        assert await stored_order(connection) == before
        tail = SignalTail()
        await tail.start(connection)
        assert await tail.next_page(connection) == []
        await ingest(other, range(60, 70), wait_for=70)
        page = await tail.next_page(connection)
        assert [row["seq"] for row in page] == list(range(1, 11)), "a stream gives what is new, and only that"
        assert (await stored_order(connection))[:60] == before


async def test_places_in_the_order_of_commits_are_not_carried_into_another_cluster(connection: Connection) -> None:
    """Their numbers may lie far in this one's future: whoever follows would see nothing new for long."""
    far = TailPosition("900000000:900000000:", None, (0, 0, 0, -1))
    text = msgspec.json.encode(far).decode()
    await connection.execute("INSERT INTO sweep (name, position) VALUES ('quality', $1::text::jsonb)", text)
    await connection.execute("INSERT INTO announced (stream, position) VALUES ('x', $1::text::jsonb)", text)
    await dump.begin_positions_anew(connection)
    assert await connection.fetchval("SELECT count(*) FROM sweep WHERE name = 'quality'") == 0
    position = msgspec.json.decode(await connection.fetchval("SELECT position::text FROM announced"), type=TailPosition)
    assert (position.until, position.place) == (None, far.place)
    reached, now = int(position.since.split(":")[1]), await connection.fetchval(SNAPSHOT)
    assert 3 < reached <= int(now.split(":")[1])
    tail = SignalTail()
    tail.go_to(position)
    assert await tail.next_page(connection) == []


async def test_more_transactions_than_numbers_share_them_in_order(connection: Connection) -> None:
    await connection.execute("CREATE TABLE numbered (place integer, xid xid8)")
    now = await connection.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
    await connection.execute(
        "INSERT INTO numbered SELECT n, ($1 + n)::text::xid8 FROM generate_series(1, $2::bigint) AS n", now, 3 * now
    )
    async with connection.transaction():
        assert await dump.mend_xids(connection) == 3 * now
    rows = await connection.fetch("SELECT xid::text::bigint AS xid FROM numbered ORDER BY place")
    mended = [row["xid"] for row in rows]
    assert mended == sorted(mended)
    assert mended[0] >= 3
    assert mended[-1] < await connection.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
    async with connection.transaction():
        assert await dump.mend_xids(connection) == 0, "what is right is left alone"


async def test_an_interrupted_load_begins_anew(tmp_path: Path, dsn: str, empty: str) -> None:
    settings = settings_of(tmp_path / "data", dsn)
    await ingest(settings, range(10), wait_for=10)
    backup = await make(settings, tmp_path / "backups")
    other = settings_of(settings.data, empty)
    with pytest.MonkeyPatch.context() as patch:

        async def killed(_: Connection) -> int:
            raise KeyboardInterrupt

        patch.setattr(dump, "mend_xids", killed)
        with pytest.raises(KeyboardInterrupt):
            await restore(other, backup, archive=None, despite_damage=False, progress=lambda _: None)
    async with connected(empty) as connection:
        assert await connection.fetchval("SELECT count(*) FROM signal") == 10
        assert await schema_version(connection) is None, "nobody takes it for whole"
    await restore(other, backup, archive=None, despite_damage=False, progress=lambda _: None)
    async with connected(empty) as connection:
        assert await schema_version(connection) == HEAD
        assert await connection.fetchval("SELECT count(*) FROM signal") == 10


async def test_a_dump_can_move_into_the_embedded_server(tmp_path: Path, short_directory: Path, dsn: str) -> None:
    settings = settings_of(tmp_path / "data", dsn)
    await ingest(settings, range(10), wait_for=10)
    backup = await make(settings, tmp_path / "backups")
    embedded = settings_of(short_directory / "data", "")
    await restore(embedded, backup, archive=None, despite_damage=False, progress=lambda _: None)
    server = EmbeddedPostgres(embedded.data, settings=embedded.database)
    await server.start()
    try:
        await run_ingest(embedded, wait_for=10)
        async with connected(server.dsn) as connection:
            assert await connection.fetchval("SELECT count(*) FROM signal") == 10
    finally:
        await server.stop()
    assert not [path for path in (embedded.data / "postgres").iterdir() if path.name.startswith(".")]


def test_a_password_never_stands_on_a_command_line() -> None:
    for dsn in (
        "postgresql://me:se%2Fcret@db.example:5433/fleet?sslmode=require",
        "postgresql://me@db.example:5433/fleet?password=se%2Fcret&sslmode=require",
    ):
        shown, environment = connection_of(dsn)
        assert shown == "postgresql://me@db.example:5433/fleet?sslmode=require"
        assert environment["PGPASSWORD"] == "se/cret"
