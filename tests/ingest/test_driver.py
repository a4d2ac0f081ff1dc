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
        service = IngestService(settings, fs=FS, clock=SystemClock(), stop=self._stop)
        self._task = asyncio.create_task(service.run())

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


async def rows(connection: Connection) -> int:
    count: int = await connection.fetchval("SELECT count(*) FROM signal")
    return count


async def test_live_and_dead_journals_are_found_and_driven(
    settings: Settings, connection: Connection, start_service: Callable[[], Service]
) -> None:
    await write_journal(settings.journal_root, range(10))
    live = await write_journal(settings.journal_root, range(10, 15), close=False)
    running = asyncio.create_task(live.run())
    start_service()
    await wait_until_async(lambda: _is(rows(connection), 15))
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
