"""Journals in backups: copies of what is being written, what an archive brings back, and what is said to be missing."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from signalkeep.backup import journals as copies
from signalkeep.backup import manifest
from signalkeep.backup import restore as restoring
from signalkeep.backup.restore import Before, _findings, restore
from signalkeep.clock import SystemClock
from signalkeep.drivers.retention import Retention
from signalkeep.errors import EnvironmentFault
from signalkeep.journal.reader import Chunk, JournalReader, segments
from signalkeep.journal.record import FrameEntry
from signalkeep.journal.writer import JournalWriter
from signalkeep.store import journals
from signalkeep.store.postgres import Connection
from tests.backup.support import FS, ingest, make, run_ingest, settings_of
from tests.servers import connected, wait_until, wait_until_async


def numbered(number: int) -> FrameEntry:
    return FrameEntry(number, "json", str(number), "", {}, b"x" * 200)


def entries(directory: Path, evidence: Path) -> list[int]:
    """The numbers of the frames that a copy holds; nothing in it may be damaged."""
    reader = JournalReader(FS, directory, evidence_root=evidence)
    found = []
    while items := reader.read(1000, 1 << 20):
        for item in items:
            assert isinstance(item, Chunk), item
            found += [entry.received_at_us for entry in item.entries if isinstance(entry, FrameEntry)]
    return found


async def test_a_journal_that_is_being_written_is_copied_again_and_again_without_a_scratch(tmp_path: Path) -> None:
    writer = JournalWriter.create(FS, _made(tmp_path / "journal"), clock=SystemClock(), segment_bytes=64 * 1024)
    running = asyncio.create_task(writer.run())
    number = 0
    durable: list[int] = []
    for round_no in range(40):
        for _ in range(25):
            number += 1
            writer.append(numbered(number), lambda done, n=number: durable.append(n) if done else None)  # type: ignore[misc]  # a default binds it
        before = len(durable)
        await wait_until_async(lambda before=before: len(durable) > before)  # type: ignore[misc]  # a default binds it
        told = len(durable)
        target = _made(tmp_path / str(round_no))
        copied = await asyncio.to_thread(
            copies.back_up,
            writer.directory,
            target,
            evidence_root=tmp_path / "evidence",
            cursors=(0, told),
            progress=lambda _: None,
        )
        found = entries(target / writer.directory.name, tmp_path / "evidence")
        assert found == list(range(1, len(found) + 1))
        assert len(found) >= told
        assert copied.part.durable_seq == len(found)
        assert copied.part.alive
        for file in copied.files:
            assert (tmp_path / str(round_no) / file.path.removeprefix("journal/")).stat().st_size == file.bytes
    assert len(segments(FS, writer.directory)) > 3
    first = segments(FS, writer.directory)[0][1]
    assert first.samefile(tmp_path / "39" / writer.directory.name / first.name), "finished segments are linked"
    await writer.close()
    await running


async def test_what_is_written_during_the_copy_does_not_get_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst copier: after each block it waits until the gateway has written more behind it."""
    writer = JournalWriter.create(FS, _made(tmp_path / "journal"), clock=SystemClock())
    running = asyncio.create_task(writer.run())
    durable: list[int] = []

    async def keep_writing() -> None:
        for number in itertools.count(1):
            writer.append(numbered(number), lambda done: durable.append(1) if done else None)
            await asyncio.sleep(0)

    writing = asyncio.create_task(keep_writing())

    def slow_copy(source: Path, target: Path, length: int | None = None) -> str:
        rest = source.stat().st_size if length is None else length
        waits = 0
        with source.open("rb", buffering=0) as read, target.open("wb") as written:
            while rest > 0 and (block := read.read(min(4096, rest))):
                rest -= written.write(block)
                if waits < 30 and written.tell() > 3 * 4096:
                    waits, before = waits + 1, len(durable)
                    wait_until(lambda before=before: len(durable) > before)  # type: ignore[misc]  # a default binds it
        return "not looked at"

    monkeypatch.setattr(copies, "copy_durably", slow_copy)
    await wait_until_async(lambda: len(durable) > 50)
    target = _made(tmp_path / "target")
    copied = await asyncio.to_thread(
        copies.back_up, writer.directory, target, evidence_root=tmp_path, cursors=(0, 50), progress=lambda _: None
    )
    writing.cancel()
    await writer.close()
    await running
    found = entries(target / writer.directory.name, tmp_path)
    assert found == list(range(1, copied.part.durable_seq + 1))
    assert len(durable) > len(found)


async def test_a_copy_that_lacks_what_the_database_has_is_no_backup(tmp_path: Path) -> None:
    writer = JournalWriter.create(FS, _made(tmp_path / "journal"), clock=SystemClock())
    writer.append(numbered(1))
    await writer.close()
    with pytest.raises(EnvironmentFault, match="ends at entry 1, durable are 7"):
        copies.back_up(
            writer.directory,
            _made(tmp_path / "target"),
            evidence_root=tmp_path,
            cursors=(0, 7),
            progress=lambda _: None,
        )


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


@pytest.mark.servers
async def test_an_archive_brings_back_what_the_journals_no_longer_have(
    tmp_path: Path, dsn: str, connection: Connection
) -> None:
    settings = settings_of(tmp_path / "data", dsn)
    await ingest(settings, range(20), wait_for=20)
    backup = await make(settings, tmp_path / "backups")
    await ingest(settings, range(20, 50), wait_for=50)
    archive = _made(tmp_path / "archive")
    moving = settings.journal.model_copy(update={"keep_bytes": 0, "replay_window_h": 0, "archive_dir": archive})
    retention = Retention(settings.model_copy(update={"journal": moving}), fs=FS, clock=SystemClock())
    host = await connection.fetchval("SELECT host FROM journal LIMIT 1")
    assert len(await retention.tidy(connection, await journals.expected(connection, host))) == 2
    assert not list(settings.journal_root.iterdir())

    database = await connection.fetchval("SELECT current_database()")
    empty = f"{database}_empty"
    await connection.execute(f"CREATE DATABASE {empty} TEMPLATE template0")
    other = settings_of(settings.data, dsn.replace(f"/{database}?", f"/{empty}?"))
    try:
        done = await restore(other, backup, archive=archive, despite_damage=False, progress=lambda _: None)
        assert done.segments_from_archive == 1, "the first journal is whole in the backup, and in its database"
        assert [finding.kind for finding in done.findings] == ["database_restored"]
        await run_ingest(other, wait_for=50)
        async with connected(other.database.dsn) as restored:
            assert await restored.fetchval("SELECT count(*) FROM signal") == 50
    finally:
        await connection.execute(f"DROP DATABASE {empty} WITH (FORCE)")


@pytest.mark.servers
async def test_what_nobody_can_number_is_said_by_time(tmp_path: Path, dsn: str) -> None:
    """The backup is older than the replay window: journals of the time between may have gone whole."""
    settings = settings_of(tmp_path / "data", dsn)
    await ingest(settings, range(5), wait_for=5)
    backup = await make(settings, tmp_path / "backups")
    found = manifest.read(backup)

    def said(made_at: datetime, oldest: datetime | None, *, archived: bool = False) -> list[str]:
        aged = type(found)(**{**{name: getattr(found, name) for name in found.__struct_fields__}, "made_at": made_at})
        findings = _findings(settings, backup, aged, [], Before(now, [], oldest), now, archived=archived)
        return [finding.detail for finding in findings if finding.kind == "restore_gap"]

    now = datetime(2026, 5, 10, tzinfo=UTC)
    day = timedelta(days=1)
    assert said(now - day, now - 2 * day) == [], "the journals on the disk reach back to it"
    assert "2026-05-09 00:00:00 to 2026-05-10 00:00:00" in said(now - day, None)[0], "there are none"
    assert "2026-05-07 00:00:00 to 2026-05-08 00:00:00" in said(now - 3 * day, now - 2 * day)[0], "they begin later"
    assert "2026-05-01 00:00:00 to 2026-05-07 00:00:00" in said(now - 9 * day, now - 20 * day)[0], "72 hours are kept"
    assert said(now - 9 * day, now - 20 * day, archived=True) == [], "an archive keeps everything"


@pytest.mark.servers
async def test_a_second_try_still_knows_what_was_missing_before_the_first(
    tmp_path: Path, dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first try has placed does not pass for journals that were always there."""
    settings = settings_of(tmp_path / "data", dsn)
    writer = JournalWriter.create(FS, settings.journal_root, clock=SystemClock())
    running = asyncio.create_task(writer.run())
    writer.append(numbered(1))
    await wait_until_async(lambda: writer.durable_seq == 1)
    backup = await make(settings, tmp_path / "backups")
    await writer.close()
    await running
    database = await connection.fetchval("SELECT current_database()")
    empty = f"{database}_empty"
    await connection.execute(f"CREATE DATABASE {empty} TEMPLATE template0")
    elsewhere = settings_of(tmp_path / "elsewhere", dsn.replace(f"/{database}?", f"/{empty}?"))

    async def killed(*_: object) -> list[str]:
        raise KeyboardInterrupt

    try:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(restoring, "_place_database", killed)
            await restore(elsewhere, backup, archive=None, despite_damage=False, progress=lambda _: None)
        assert [path.name for path in elsewhere.journal_root.iterdir()] == [writer.directory.name]
        done = await restore(elsewhere, backup, archive=None, despite_damage=False, progress=lambda _: None)
    finally:
        await connection.execute(f"DROP DATABASE {empty} WITH (FORCE)")
    kinds = [finding.kind for finding in done.findings]
    assert kinds == ["database_restored", "journal_end_unknown", "restore_gap"]
