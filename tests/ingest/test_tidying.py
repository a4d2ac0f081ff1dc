"""What goes from the disk once the database has it: when, in which order, and what stays."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from signalkeep.clock import SystemClock
from signalkeep.config import Settings
from signalkeep.drivers.retention import Retention
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.reader import JournalReader, segments
from signalkeep.store import journals
from signalkeep.store.postgres import Connection
from tests.builders import ask
from tests.ingest.support import FS, write_journal
from tests.servers import connected, wait_until_async

pytestmark = pytest.mark.servers


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


async def test_a_journal_that_a_driver_has_taken_up_is_not_removed_under_it(
    settings: Settings, connection: Connection, dsn: str
) -> None:
    """Else the driver would make it known again when it is gone, and the audit would call it vanished."""
    writer = await write_journal(settings.journal_root, range(0))
    journal_id = await journals.register(connection, writer.journal_id, "here", writer.directory, 1)
    retention = Retention(settings, fs=FS, clock=SystemClock())
    async with connected(dsn) as driver:
        assert await journals.claim(driver, journal_id)
        assert await retention.tidy(connection, await journals.expected(connection, "here")) == []
        assert writer.directory.exists()
    assert await retention.tidy(connection, await journals.expected(connection, "here")) == [writer.directory]
    await journals.register(connection, writer.journal_id, "here", writer.directory, 1)
    assert await connection.fetchval("SELECT removed_at IS NOT NULL FROM journal"), "whoever comes late changes nothing"
