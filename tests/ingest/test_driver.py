"""One journal driven into the database: outages, restored databases, vanished files, retention."""

from __future__ import annotations

import asyncio
import shutil
import socket
import struct
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from signalkeep import limits
from signalkeep.clock import SystemClock
from signalkeep.config import Settings, load
from signalkeep.drivers.database import Database
from signalkeep.ingest.driver import JournalDriver
from signalkeep.ingest.pipeline import Pipeline, Prepared, Rules
from signalkeep.ingest.service import IngestService
from signalkeep.journal.reader import JournalReader, segments
from signalkeep.journal.writer import JournalWriter
from signalkeep.protocols.registry import PROTOCOLS
from signalkeep.roles import prepare_directories
from signalkeep.store import erasure_log, journals
from signalkeep.store.erasure_log import NotedErasure
from signalkeep.store.postgres import Connection
from signalkeep.store.rows import Written
from tests.ingest.support import FS, Service, event, rows, write_journal
from tests.servers import connected, wait_until_async

pytestmark = pytest.mark.servers

CUTS = 5


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ingest does every second or every minute, it does at once."""
    monkeypatch.setattr(limits, "CURSOR_REREAD_S", 0.02)
    monkeypatch.setattr(limits, "JOURNAL_SCAN_S", 0.02)


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


async def test_who_hangs_in_the_middle_of_writing_holds_nobody_up_for_long(
    settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a frozen process has locked is free again, and nothing of what it had begun is there; it may be idle."""
    monkeypatch.setattr(limits, "TRANSACTION_SILENT_S", 0.3)
    database = Database(settings, application="signalkeep ingest")
    idle, frozen = await database.connect(), await database.connect()
    await frozen.execute("BEGIN; INSERT INTO customer (name) VALUES ('half')")
    await connection.execute("SET lock_timeout = '20s'; INSERT INTO customer (name) VALUES ('half')")
    assert await connection.fetchval("SELECT count(*) FROM customer") == 1
    assert frozen.is_closed()
    assert await idle.fetchval("SELECT 1") == 1
    await idle.close(timeout=limits.DATABASE_CONNECT_S_MAX)


async def test_a_journal_that_was_meant_for_a_broker_is_read_directly_too(
    settings: Settings, connection: Connection, start_service: Callable[[], Service]
) -> None:
    """As when a broker is given up: its journals have many lanes."""
    lanes = limits.LANES_WITH_BROKER
    writer = JournalWriter.create(FS, settings.journal_root, clock=SystemClock(), lanes=lanes, segment_bytes=1 << 20)
    for number in range(200):
        writer.append(event(number // 50, device=str(number % 50)))
    await writer.close()
    start_service()
    await wait_until_async(lambda: _is(rows(connection), 200))
    ended = "SELECT count(*) FROM journal WHERE ended_at IS NOT NULL"
    await wait_until_async(lambda: _is(connection.fetchval(ended), 1))
    assert await connection.fetchval("SELECT count(*) FROM cursor WHERE seq = 200") == lanes


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
        connect=service.database.connect,
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
    assert await connection.fetchval("SELECT kind FROM finding WHERE device_id IS NULL") == "cursor_moved_back"
    stop.set()
    await driving
    await writer.close()
    await running


class FailsOnce(Pipeline):
    """Its second write fails as a deadlock does: the connection stays. Meanwhile more comes in."""

    writes = 0
    more: Callable[[], None]

    async def write(self, prepared: Prepared) -> Written:
        FailsOnce.writes += 1
        if FailsOnce.writes != 2:
            return await super().write(prepared)
        FailsOnce.more()
        self.start_from(self.cursors)
        raise asyncpg.DeadlockDetectedError("made up")


async def test_a_write_that_fails_on_a_connection_that_stays_is_driven_again(
    settings: Settings, connection: Connection
) -> None:
    """No cursor moves, yet the reader is beyond what was given up: it has to go back."""
    writer = await write_journal(settings.journal_root, range(5), close=False)
    running = asyncio.create_task(writer.run())
    await wait_until_async(lambda: writer.durable_seq == 5)
    stop = asyncio.Event()
    service = IngestService(settings, fs=FS, clock=SystemClock(), stop=stop)
    rules = Rules(register_unknown=True)

    def more() -> None:
        for number in range(9, 13):
            writer.append(event(number))

    def pipeline(connection: Connection, journal_id: int, cursors: list[int]) -> Pipeline:
        return FailsOnce(connection, journal_id, cursors, protocols=PROTOCOLS, rules=rules)

    FailsOnce.writes, FailsOnce.more = 0, staticmethod(more)
    driver = JournalDriver(
        JournalReader(FS, writer.directory, evidence_root=settings.evidence_root),
        connect=service.database.connect,
        make_pipeline=pipeline,
        host="here",
        clock=SystemClock(),
        stop=stop,
    )
    driving = asyncio.create_task(driver.run())
    try:
        await wait_until_async(lambda: _is(rows(connection), 5))
        for number in range(5, 9):
            writer.append(event(number))
        await wait_until_async(lambda: _is(rows(connection), 13))
    finally:
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
    assert "up to 9, the files end at 4" in await connection.fetchval(
        "SELECT detail FROM finding WHERE device_id IS NULL"
    )


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
    await wait_until_async(lambda: _is(connection.fetchval("SELECT count(*) FROM finding WHERE device_id IS NULL"), 1))
    finding = await connection.fetchrow("SELECT * FROM finding WHERE device_id IS NULL")
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
    await wait_until_async(lambda: _is(connection.fetchval("SELECT count(*) FROM finding WHERE device_id IS NULL"), 1))
    assert await connection.fetchval("SELECT kind FROM finding WHERE device_id IS NULL") == "journal_unreadable"
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


async def test_what_was_erased_is_known_before_anything_is_driven(
    settings: Settings,
    connection: Connection,
    start_service: Callable[[], Service],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where no look after the database has succeeded yet: a restored one may have forgotten the erasure."""

    async def fails(_: IngestService) -> bool:
        return False

    monkeypatch.setattr(IngestService, "_look_after", fails)
    now = datetime.now(UTC)
    erasure_log.append(
        settings.erasures_file, NotedErasure(at=now, device_number="1", erased_to=now + timedelta(days=1), actor="me")
    )
    writer = await write_journal(settings.journal_root, range(10))
    start_service()
    await wait_until_async(lambda: _is(connection.fetchval("SELECT max(seq) FROM cursor"), writer.durable_seq))
    assert await rows(connection) == 0


async def test_a_journal_that_is_gone_is_not_remembered_as_finished(settings: Settings, connection: Connection) -> None:
    """Else it would not be driven if it came back, as on a disk that was mounted again."""
    writer = await write_journal(settings.journal_root, range(3))
    await journals.register(connection, writer.journal_id, socket.gethostname(), writer.directory, 1)
    service = IngestService(settings, fs=FS, clock=SystemClock(), stop=asyncio.Event())
    service._finished[writer.directory] = (writer.journal_id, 0)
    aside = writer.directory.rename(settings.data / "aside")
    assert await service._look_after()
    assert service._finished == {}
    aside.rename(writer.directory)
