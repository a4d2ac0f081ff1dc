"""The same on the file system of this machine: real locks, real syncs, a writer that is killed, readers outside."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from signalkeep.clock import SystemClock
from signalkeep.errors import EnvironmentFault, SyncFailed
from signalkeep.journal.files import FileSystem, LocalFileSystem
from signalkeep.journal.reader import JournalReader, Lost, find_journals, segments
from signalkeep.journal.record import FrameEntry
from signalkeep.journal.retention import remove_journal, unlink_before
from signalkeep.journal.segments import NEXT_SEGMENT
from signalkeep.journal.writer import JournalWriter
from signalkeep.limits import JOURNAL_BLOCK_BYTES
from tests.journal.support import entries_of, frame, read_all

FS: FileSystem = LocalFileSystem()
REPOSITORY = Path(__file__).resolve().parents[2]


def reader_of(directory: Path) -> JournalReader:
    return JournalReader(FS, directory, evidence_root=directory.parent.parent / "evidence")


@pytest.mark.parametrize("acknowledged", [1, 40, 900])
def test_a_writer_that_is_killed_keeps_its_word(tmp_path: Path, acknowledged: int) -> None:
    root = tmp_path / "journal"
    root.mkdir()
    command = [sys.executable, "-m", "tests.journal.writer_process", str(root)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(acknowledged)]
        (directory,) = find_journals(FS, root)
        reader = reader_of(directory)
        assert reader.alive
        items = read_all(reader)
        assert not reader.finished
        process.kill()
        told += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    finally:
        process.kill()
        process.communicate()
    items += read_all(reader)
    assert reader.finished
    assert not reader.alive
    assert not any(isinstance(item, Lost) for item in items)
    entries = entries_of(items)
    assert told == list(range(1, len(told) + 1))
    assert len(entries) >= len(told) >= acknowledged
    assert entries == [frame(number, number % 3_000) for number in range(1, len(entries) + 1)]
    assert reader.durable_seq == len(entries)
    assert entries_of(read_all(reader_of(directory))) == entries


async def test_a_whole_life_on_real_files(tmp_path: Path) -> None:
    root = tmp_path / "journal"
    root.mkdir()
    writer = JournalWriter.create(FS, root, clock=SystemClock(), segment_bytes=1 << 18)
    task = asyncio.create_task(writer.run())
    reader = reader_of(writer.directory)
    stored: list[FrameEntry] = []
    got = []
    for number in range(1, 2_001):
        item = frame(number, 500)
        writer.append(item, lambda durable, item=item: stored.append(item) if durable else None)  # type: ignore[misc]  # B023: bound now
        if number % 20 == 0:
            await asyncio.sleep(0)
            got += read_all(reader)
    for _ in range(1_000):
        if len(stored) == 2_000:
            break
        await asyncio.sleep(0.01)
    got += read_all(reader)
    assert entries_of(got) == stored
    assert len(stored) == 2_000
    assert reader.alive
    found = segments(FS, writer.directory)
    assert len(found) >= 4
    assert unlink_before(FS, writer.directory, found[2][0] - 1) == [path for _, path, _ in found[:2]]
    await writer.close()
    await task
    assert reader.read(1, 1) == []
    assert reader.finished
    kept = segments(FS, writer.directory)
    assert kept[0] == found[2]
    assert not list(writer.directory.glob(NEXT_SEGMENT)), "nothing is kept ready after a clean end"
    assert writer.bytes_used >= sum(size for _, _, size in kept)
    remove_journal(FS, writer.directory)
    assert list(root.iterdir()) == []


async def test_a_clean_end_leaves_a_small_journal(tmp_path: Path) -> None:
    root = tmp_path / "journal"
    root.mkdir()
    writer = JournalWriter.create(FS, root, clock=SystemClock(), segment_bytes=1 << 18)
    task = asyncio.create_task(writer.run())
    writer.append(frame(1, 500))
    assert [size for _, _, size in segments(FS, writer.directory)] == [1 << 18]
    await writer.close()
    await task
    assert [size for _, _, size in segments(FS, writer.directory)] == [3 * JOURNAL_BLOCK_BYTES]
    assert writer.bytes_used == 3 * JOURNAL_BLOCK_BYTES


def test_the_lock_is_held_by_one_and_seen_by_all(tmp_path: Path) -> None:
    path = tmp_path / "writer.lock"
    assert not FS.locked(path)
    file = FS.lock(path)
    assert FS.locked(path)
    with pytest.raises(BlockingIOError):
        FS.lock(path)
    question = "import sys; from pathlib import Path; from signalkeep.journal.files import LocalFileSystem as L;"
    question += "sys.exit(L().locked(Path(sys.argv[1])))"
    assert subprocess.run([sys.executable, "-c", question, str(path)], check=False).returncode == 1
    FS.close(file)
    assert not FS.locked(path)
    shared = os.open(path, os.O_RDONLY)
    fcntl.flock(shared, fcntl.LOCK_SH)
    assert not FS.locked(path), "readers that ask do not look like a writer"
    os.close(shared)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_every_failing_sync_is_a_failed_sync(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    file = FS.open_new(tmp_path / "file")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, fail)
    for sync in (FS.datasync, FS.sync):
        with pytest.raises(SyncFailed):
            sync(file)
    with pytest.raises(SyncFailed):
        FS.sync_directory(tmp_path)
    FS.close(file)


def test_files_behave_as_promised(tmp_path: Path) -> None:
    path = tmp_path / "file"
    file = FS.open_new(path)
    with pytest.raises(FileExistsError):
        FS.open_new(path)
    FS.allocate(file, 10_000)
    assert FS.size(path) == 10_000
    assert path.stat().st_blocks * 512 >= 10_000, "the space is really there"
    assert FS.pread(file, 20_000, 5) == bytes(9_995)
    assert FS.pwrite(file, b"abc", 9_999) == 3
    assert FS.pread(file, 10, 9_999) == b"abc"
    FS.truncate(file, 3)
    FS.sync(file)
    FS.datasync(file)
    assert FS.size(path) == 3
    FS.close(file)
    assert path.stat().st_mode & 0o777 == 0o600
    FS.mkdir(tmp_path / "directory")
    assert sorted(FS.listdir(tmp_path)) == ["directory", "file"]
    FS.rmdir(tmp_path / "directory")
    assert FS.free_bytes(tmp_path) > 0


def test_a_place_that_cannot_hold_a_journal_is_an_error_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(EnvironmentFault):
            JournalWriter.create(FS, root, clock=SystemClock())
