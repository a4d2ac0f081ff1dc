"""One journal driven into the database: outages, restored databases, vanished files, retention."""

from __future__ import annotations

import asyncio
import shutil
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from signalkeep import limits
from signalkeep.clock import SystemClock
from signalkeep.config import Settings, load
from signalkeep.ingest.driver import JournalDriver
from signalkeep.ingest.retention import Retention
from signalkeep.ingest.service import IngestService
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.reader import JournalReader, segments
from signalkeep.journal.record import FrameEntry
from signalkeep.journal.writer import JournalWriter
from signalkeep.roles import prepare_directories
from signalkeep.store import journals
from signalkeep.store.postgres import Connection
from tests.builders import ask
from tests.servers import connected, wait_until_async

pytestmark = pytest.mark.servers

FS = LocalFileSystem()
CUTS = 5
RECEIVED_US = int(datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp() * 1_000_000)


def event(number: int, device: str = "1") -> FrameEntry:
    raw = b'{"device_number": "%s", "message_date": "2026-05-01T10:%02d:%02dZ"}' % (
        device.encode(),
        *divmod(number, 60),
    )
    return FrameEntry(RECEIVED_US, "json", device, "127.0.0.1:1", {}, raw)


async def write_journal(
    root: Path, numbers: range, *, segment_bytes: int = 1 << 20, close: bool = True
) -> JournalWriter:
    writer = JournalWriter.create(FS, root, clock=SystemClock(), segment_bytes=segment_bytes)
    for number in numbers:
        writer.append(event(number))
    if close:
        await writer.close()
    return writer


@pytest.fixture
def settings(tmp_path: Path, dsn: str) -> Settings:
    made = load(
        tmp_path / "data",
        environ={"SIGNALKEEP_DATABASE__DSN": dsn, "SIGNALKEEP_UNKNOWN_DEVICES": "register"},
    )
    prepare_directories(made)
    return made


class Service:
    """An ingest service running in the background."""

    def __init__(self, settings: Settings) -> None:
        self._stop = asyncio.Event()
        self.ready = asyncio.Event()
        service = IngestService(settings, fs=FS, clock=SystemClock(), stop=self._stop)
        self._task = asyncio.create_task(service.run(self.ready.set))

    async def end(self) -> None:
        self._stop.set()
        await self._task


@pytest.fixture
async def start_service(settings: Settings) -> AsyncIterator[Callable[[], Service]]:
    started: list[Service] = []

    def start() -> Service:
        started.append(Service(settings))
        return started[-1]

    yield start
    for service in started:
        await service.end()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ingest does every second or every minute, it does at once."""
    monkeypatch.setattr(limits, "CURSOR_REREAD_S", 0.02)
    monkeypatch.setattr(limits, "JOURNAL_SCAN_S", 0.02)


async def rows(connection: Connection) -> int:
    count: int = await connection.fetchval("SELECT count(*) FROM signal")
    return count


async def test_live_and_dead_journals_are_found_and_driven(
    settings: Settings, connection: Connection, start_service: Callable[[], Service]
) -> None:
    await write_journal(settings.journal_root, range(10))
    live = await write_journal(settings.journal_root, range(10, 15), close=False)
    running = asyncio.create_task(live.run())
    service = start_service()
    await wait_until_async(lambda: _is(rows(connection), 15))
    assert service.ready.is_set()
    live.append(event(15))
    await wait_until_async(lambda: _is(rows(connection), 16))
    await wait_until_async(
        lambda: _is(connection.fetchval("SELECT max(durable_seq) FROM journal WHERE ended_at IS NULL"), 6)
    )
    await live.close()
    await running
    await wait_until_async(
        lambda: _is(connection.fetchval("SELECT count(*) FROM journal WHERE ended_at IS NOT NULL"), 2)
    )


async def _is(found: object, expected: int) -> bool:
    return bool(await found == expected)  # type: ignore[misc]  # a coroutine


async def test_without_a_database_it_waits_and_stops_when_it_is_told(tmp_path: Path) -> None:
    settings = load(tmp_path / "data", environ={"SIGNALKEEP_DATABASE__DSN": "postgresql://nobody@127.0.0.1:1/nowhere"})
    prepare_directories(settings)
    writer = await write_journal(settings.journal_root, range(3))
    service = Service(settings)
    await asyncio.sleep(0.1)
    assert not service.ready.is_set()
    await service.end()
    assert segments(FS, writer.directory)


async def test_a_cursor_that_moved_back_is_driven_again_without_doubling(
    settings: Settings, connection: Connection, start_service: Callable[[], Service]
) -> None:
    """P8: the database was restored from an older backup while nothing ran."""
    await write_journal(settings.journal_root, range(10))
    service = start_service()
    await wait_until_async(lambda: _is(rows(connection), 10))
    await service.end()
    await connection.execute("DELETE FROM signal WHERE seq > 4; UPDATE cursor SET seq = 4, frames = 4")
    await connection.execute("UPDATE ledger SET records = 4, stored = 4")
    start_service()
    await wait_until_async(lambda: _is(rows(connection), 10))
    assert await connection.fetchval("SELECT frames FROM cursor") == 10


@pytest.mark.parametrize("lives", [True, False])
@pytest.mark.usefixtures("often")
async def test_a_database_restored_while_nothing_is_sent_is_noticed_all_the_same(
    settings: Settings, connection: Connection, start_service: Callable[[], Service], lives: bool
) -> None:
    """P8: of a journal that is still written, and of one that was done with."""
    writer = await write_journal(settings.journal_root, range(6), close=False)
    running = asyncio.create_task(writer.run())
    if not lives:
        await writer.close()
    start_service()
    ended = "SELECT count(*) FROM journal WHERE durable_seq = 6 AND (ended_at IS NULL) = $1"
    await wait_until_async(lambda: _is(connection.fetchval(ended, lives), 1))
    async with connection.transaction():
        await connection.execute("DELETE FROM signal WHERE seq > 2; UPDATE cursor SET seq = 2, frames = 2")
    await wait_until_async(lambda: _is(rows(connection), 6))
    await writer.close()
    await running


async def test_a_database_restored_under_a_running_driver_is_noticed(
    settings: Settings, connection: Connection, dsn: str
) -> None:
    writer = await write_journal(settings.journal_root, range(6), close=False)
    running = asyncio.create_task(writer.run())
    stop = asyncio.Event()
    reader = JournalReader(FS, writer.directory, evidence_root=settings.evidence_root)
    service = IngestService(settings, fs=FS, clock=SystemClock(), stop=stop)
    driver = JournalDriver(
        reader,
        connect=service._connect,
        make_pipeline=service._pipeline,
        host="here",
        clock=SystemClock(),
        stop=stop,
    )
    driving = asyncio.create_task(driver.run())
    await wait_until_async(lambda: _is(rows(connection), 6))
    await connection.execute("DELETE FROM signal WHERE seq > 2; UPDATE cursor SET seq = 2, frames = 2")
    writer.append(event(6))  # its write finds the cursor elsewhere
    await wait_until_async(lambda: _is(rows(connection), 7))
    assert await connection.fetchval("SELECT kind FROM finding") == "cursor_moved_back"
    stop.set()
    await driving
    await writer.close()
    await running


async def test_two_ingest_processes_share_the_journals_and_double_nothing(
    settings: Settings, connection: Connection, start_service: Callable[[], Service]
) -> None:
    for _ in range(3):
        await write_journal(settings.journal_root, range(20))
    start_service()
    start_service()
    await wait_until_async(lambda: _is(connection.fetchval("SELECT coalesce(sum(records), 0) FROM ledger"), 60))
    assert await rows(connection) == 20
    assert await connection.fetchval("SELECT sum(duplicate) FROM ledger") == 40


@pytest.mark.usefixtures("often")
async def test_a_journal_is_taken_over_when_the_process_that_drives_it_ends(
    settings: Settings, connection: Connection, start_service: Callable[[], Service]
) -> None:
    writer = await write_journal(settings.journal_root, range(3), close=False)
    running = asyncio.create_task(writer.run())
    first = start_service()
    await wait_until_async(lambda: _is(rows(connection), 3))
    start_service()
    await write_journal(settings.journal_root, range(3, 5))
    await wait_until_async(lambda: _is(rows(connection), 5))
    await first.end()
    writer.append(event(5))
    await wait_until_async(lambda: _is(rows(connection), 6))
    await writer.close()
    await running


async def test_a_journal_that_another_process_drives_is_not_asked_for_without_pause(
    settings: Settings,
    connection: Connection,
    start_service: Callable[[], Service],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claims: list[bool] = []
    claim = journals.claim

    async def counted(connection: Connection, journal_id: int) -> bool:
        claims.append(await claim(connection, journal_id))
        return claims[-1]

    monkeypatch.setattr(journals, "claim", counted)
    monkeypatch.setattr(limits, "JOURNAL_SCAN_S", 3600.0)
    writer = await write_journal(settings.journal_root, range(3), close=False)
    running = asyncio.create_task(writer.run())
    start_service()
    await wait_until_async(lambda: _is(rows(connection), 3))
    start_service()
    await wait_until_async(lambda: len(claims) > 1)
    await asyncio.sleep(0.2)  # many connections, if it did not wait
    assert claims == [True, False]
    await writer.close()
    await running


async def test_more_journals_than_are_driven_at_a_time_are_all_driven(
    settings: Settings, connection: Connection, start_service: Callable[[], Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DRIVERS_MAX", 2)
    run = JournalDriver.run
    driven: list[int] = [0]  # how many at each start and end

    async def counted(driver: JournalDriver) -> None:
        driven.append(driven[-1] + 1)
        await run(driver)
        driven.append(driven[-1] - 1)

    monkeypatch.setattr(JournalDriver, "run", counted)
    for number in range(7):
        await write_journal(settings.journal_root, range(number, number + 1))
    start_service()
    await wait_until_async(lambda: _is(rows(connection), 7))
    assert max(driven) == 2


async def test_files_that_end_before_the_cursor_are_named(
    settings: Settings, connection: Connection, start_service: Callable[[], Service]
) -> None:
    """A journal's disk was restored from an older backup: nothing is missing in the database."""
    writer = await write_journal(settings.journal_root, range(4))
    await journals.register(connection, writer.journal_id, "here", writer.directory, 1)
    await connection.execute("UPDATE cursor SET seq = 9, frames = 9")
    start_service()
    kind = "SELECT count(*) FROM finding WHERE kind = 'journal_shorter_than_cursor'"
    await wait_until_async(lambda: _is(connection.fetchval(kind), 1))
    assert "up to 9, the files end at 4" in await connection.fetchval("SELECT detail FROM finding")


async def test_a_vanished_journal_is_named_with_its_missing_range(
    settings: Settings, connection: Connection, start_service: Callable[[], Service]
) -> None:
    writer = await write_journal(settings.journal_root, range(10))
    service = start_service()
    await wait_until_async(
        lambda: _is(connection.fetchval("SELECT count(*) FROM journal WHERE ended_at IS NOT NULL"), 1)
    )
    await service.end()
    await connection.execute("UPDATE cursor SET seq = 4")
    shutil.rmtree(writer.directory)
    start_service()
    await wait_until_async(lambda: _is(connection.fetchval("SELECT count(*) FROM finding"), 1))
    finding = await connection.fetchrow("SELECT * FROM finding")
    assert finding is not None
    assert finding["kind"] == "journal_vanished"
    assert "entries 5..10" in finding["detail"]


async def test_a_journal_of_a_newer_version_is_named_and_left_alone(
    settings: Settings, connection: Connection, start_service: Callable[[], Service]
) -> None:
    writer = await write_journal(settings.journal_root, range(10))
    ((_, path, size),) = segments(FS, writer.directory)
    newer_version(path)
    start_service()
    await wait_until_async(lambda: _is(connection.fetchval("SELECT count(*) FROM finding"), 1))
    assert await connection.fetchval("SELECT kind FROM finding") == "journal_unreadable"
    assert await connection.fetchval("SELECT seq FROM cursor") == 0, "nothing of it is passed over"
    assert segments(FS, writer.directory) == [(1, path, size)]


def newer_version(path: Path) -> None:
    """Give a segment's header, in both its copies, a version that nobody knows yet, with right checksums."""
    block = bytearray(path.read_bytes()[:4096])
    for copy in (0, 2048):
        (length,) = struct.unpack_from(">H", block, copy + 10)
        struct.pack_into(">H", block, copy + 8, 99)
        struct.pack_into(">I", block, copy + length - 4, zlib.crc32(bytes(block[copy : copy + length - 4])))
    with path.open("r+b") as file:
        file.write(block)


async def test_segments_go_only_when_the_database_has_them_and_they_are_old(
    settings: Settings, connection: Connection, tmp_path: Path
) -> None:
    writer = await write_journal(settings.journal_root, range(400), segment_bytes=16 * 1024)
    found = segments(FS, writer.directory)
    assert len(found) > 3
    journal_id = await journals.register(connection, writer.journal_id, "here", writer.directory, 1)
    await connection.execute("UPDATE cursor SET seq = $1", found[2][0])  # in the third segment

    class Later(SystemClock):
        def now(self) -> datetime:
            return super().now() + timedelta(hours=100)

    young = Retention(settings, fs=FS, clock=SystemClock())
    await young.tidy(connection, await journals.expected(connection, "here"))
    assert segments(FS, writer.directory) == found, "younger than the replay window"
    old = Retention(settings, fs=FS, clock=Later())
    await old.tidy(connection, await journals.expected(connection, "here"))
    assert segments(FS, writer.directory) == found[2:], "what the database does not have stays"
    assert await connection.fetchval("SELECT kept_from_seq FROM journal WHERE id = $1", journal_id) == found[2][0]
    await connection.execute("UPDATE cursor SET seq = $1", writer.durable_seq)
    assert await old.tidy(connection, await journals.expected(connection, "here")) == [writer.directory]
    assert not writer.directory.exists()
    assert await connection.fetchval("SELECT removed_at IS NOT NULL FROM journal")


class Witness(LocalFileSystem):
    """Before anything goes, asks the database whether it was told."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.told: dict[str, tuple[int, bool]] = {}

    def unlink(self, path: Path) -> None:
        self._ask(path.name)
        super().unlink(path)

    def rename(self, old: Path, new: Path) -> None:
        self._ask(new.suffix)
        super().rename(old, new)

    def _ask(self, name: str) -> None:
        (row,) = ask(self.dsn, "SELECT kept_from_seq, removed_at IS NOT NULL FROM journal")
        self.told.setdefault(name, tuple(row))


async def test_the_database_is_told_before_a_file_goes(settings: Settings, connection: Connection, dsn: str) -> None:
    """Else a crash in between leaves a gap that nobody can tell from a loss."""
    writer = await write_journal(settings.journal_root, range(400), segment_bytes=16 * 1024)
    (_, first, _), (_, second, _), (third_seq, _, _), *_ = segments(FS, writer.directory)
    await journals.register(connection, writer.journal_id, "here", writer.directory, 1)
    await connection.execute("UPDATE cursor SET seq = $1", third_seq)
    witness = Witness(dsn)
    away = settings.model_copy(update={"journal": settings.journal.model_copy(update={"keep_bytes": 0})})
    retention = Retention(away, fs=witness, clock=SystemClock())
    await retention.tidy(connection, await journals.expected(connection, "here"))
    assert witness.told == {first.name: (third_seq, False), second.name: (third_seq, False)}
    await connection.execute("UPDATE cursor SET seq = $1", writer.durable_seq)
    await retention.tidy(connection, await journals.expected(connection, "here"))
    assert witness.told[".old"][1]
    assert not writer.directory.exists()


async def test_above_the_size_that_is_kept_the_oldest_go_early_and_no_more_than_needed(
    settings: Settings, connection: Connection
) -> None:
    old = await write_journal(settings.journal_root, range(400), segment_bytes=16 * 1024)
    new = await write_journal(settings.journal_root, range(400), segment_bytes=16 * 1024)
    for writer in (old, new):
        await journals.register(connection, writer.journal_id, "here", writer.directory, 1)
    await connection.execute("UPDATE cursor SET seq = 400")
    sizes = [size for writer in (old, new) for _, _, size in segments(FS, writer.directory)]
    small = settings.journal.model_copy(update={"keep_bytes": sum(sizes[2:])})
    retention = Retention(settings.model_copy(update={"journal": small}), fs=FS, clock=SystemClock())
    before = segments(FS, old.directory), segments(FS, new.directory)
    for _ in range(2):
        assert await retention.tidy(connection, await journals.expected(connection, "here")) == []
        assert (segments(FS, old.directory), segments(FS, new.directory)) == (before[0][2:], before[1])


async def test_a_journal_that_is_written_or_not_wholly_ingested_is_never_removed(
    settings: Settings, connection: Connection
) -> None:
    writer = await write_journal(settings.journal_root, range(4), close=False)
    running = asyncio.create_task(writer.run())
    await journals.register(connection, writer.journal_id, "here", writer.directory, 1)
    none = settings.journal.model_copy(update={"keep_bytes": 0, "replay_window_h": 0})
    retention = Retention(settings.model_copy(update={"journal": none}), fs=FS, clock=SystemClock())

    async def removed() -> list[Path]:
        return await retention.tidy(connection, await journals.expected(connection, "here"))

    await wait_until_async(lambda: writer.durable_seq == 4)
    await connection.execute("UPDATE cursor SET seq = 4")
    assert await removed() == [], "it is written"
    await writer.close()
    await running
    await connection.execute("UPDATE cursor SET seq = 3")
    assert await removed() == [], "its last entry is not in the database"
    await connection.execute("UPDATE cursor SET seq = 4")
    assert await removed() == [writer.directory]


async def test_with_an_archive_segments_and_journals_move_there_and_stay_while_it_is_away(
    settings: Settings, connection: Connection, tmp_path: Path
) -> None:
    writer = await write_journal(settings.journal_root, range(400), segment_bytes=16 * 1024)
    before = segments(FS, writer.directory)
    await journals.register(connection, writer.journal_id, "here", writer.directory, 1)
    await connection.execute("UPDATE cursor SET seq = $1", writer.durable_seq)
    archive = tmp_path / "archive"
    moving = settings.journal.model_copy(update={"keep_bytes": 0, "replay_window_h": 0, "archive_dir": archive})
    retention = Retention(settings.model_copy(update={"journal": moving}), fs=FS, clock=SystemClock())
    assert await retention.tidy(connection, await journals.expected(connection, "here")) == []
    assert segments(FS, writer.directory) == before, "nothing is lost because the archive is away"
    assert await connection.fetchval("SELECT kept_from_seq FROM journal") == 1
    assert "archive" in await connection.fetchval("SELECT detail FROM finding WHERE kind = 'archive_failed'")
    archive.mkdir()
    assert await retention.tidy(connection, await journals.expected(connection, "here")) == [writer.directory]
    assert not writer.directory.exists()
    reader = JournalReader(FS, archive / writer.directory.name, evidence_root=tmp_path)
    numbers = []
    while items := reader.read(1000, 1 << 20):
        numbers += [chunk.first_seq + n for chunk in items for n in range(len(chunk.entries))]  # type: ignore[union-attr]  # no Lost
    assert numbers == list(range(1, 401))


async def test_nothing_goes_while_somebody_holds_the_files(
    settings: Settings, connection: Connection, dsn: str
) -> None:
    """As a backup does: it copies what lies there, and the journals must not change under its hands."""
    writer = await write_journal(settings.journal_root, range(400), segment_bytes=16 * 1024)
    await journals.register(connection, writer.journal_id, "here", writer.directory, 1)
    await connection.execute("UPDATE cursor SET seq = $1", writer.durable_seq)
    none = settings.journal.model_copy(update={"keep_bytes": 0, "replay_window_h": 0})
    retention = Retention(settings.model_copy(update={"journal": none}), fs=FS, clock=SystemClock())
    before = segments(FS, writer.directory)
    async with connected(dsn) as backup, connected(dsn) as another:
        await journals.hold_files(backup)
        await journals.hold_files(another)
        assert await retention.tidy(connection, await journals.expected(connection, "here")) == []
        assert segments(FS, writer.directory) == before
    assert await retention.tidy(connection, await journals.expected(connection, "here")) == [writer.directory]


async def test_the_database_away_is_waited_for(settings: Settings, dsn: str, connection: Connection) -> None:
    """Connections are cut while the driver works, in mid-transaction as it happens: everything arrives, once."""
    await write_journal(settings.journal_root, range(3000))
    few = settings.ingest.model_copy(update={"batch_frames": 10})  # many transactions, so that some are cut
    service = Service(settings.model_copy(update={"ingest": few}))
    cuts = 0
    while cuts < CUTS and await rows(connection) < 3000:
        async with connected(dsn) as other:
            cuts += await other.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE application_name = 'signalkeep ingest' AND datname = current_database()"
            )
        await asyncio.sleep(0.02)
    await wait_until_async(lambda: _is(rows(connection), 3000), 60)
    await service.end()
    assert cuts > 0
    assert await connection.fetchval("SELECT sum(records) FROM ledger") == 3000
