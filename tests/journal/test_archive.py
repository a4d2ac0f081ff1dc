"""A segment is in the archive before it leaves the journal, whatever interrupts it; and it can be read there."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest

from signalkeep.errors import EnvironmentFault
from signalkeep.journal.archive import keep
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.reader import segments
from signalkeep.journal.retention import remove_journal, unlink_before
from tests.journal.simdisk import Crash, SimDisk
from tests.journal.support import DATA, Run, entries_of, new_disk, new_reader, read_all

ARCHIVE = DATA / "archive"
BLOCK = 4096


def disk_with_archive(*, links: bool = True) -> SimDisk:
    disk = new_disk()
    disk.mkdir(ARCHIVE)
    disk.sync_directory(DATA)
    if not links:
        disk.before = refuse_links
    return disk


def refuse_links(name: str) -> None:
    if name == "link":
        raise OSError(errno.EXDEV, "another file system")


async def written(disk: SimDisk) -> Run:
    run = Run(disk, seed=6)
    run.start()
    await run.go(60)
    await run.close()
    return run


@pytest.mark.parametrize("links", [True, False])
async def test_an_archived_journal_can_be_read_there(links: bool) -> None:
    disk = disk_with_archive(links=links)
    run = await written(disk)
    directory = run.writer.directory
    found = segments(disk, directory)
    assert len(found) > 3
    for _, path, _ in found:
        keep(disk, ARCHIVE, path)
        keep(disk, ARCHIVE, path)
    remove_journal(disk, directory)
    reader = new_reader(disk, ARCHIVE / directory.name)
    assert entries_of(read_all(reader)) == run.stored
    assert reader.finished


@pytest.mark.parametrize("links", [True, False])
async def test_a_crash_anywhere_leaves_every_segment_in_the_journal_or_in_the_archive(links: bool) -> None:
    disk = disk_with_archive(links=links)
    run = await written(disk)
    directory = run.writer.directory
    (_, first, _), (second_seq, _, _), *_ = segments(disk, directory)
    interrupted: list[SimDisk] = []
    rng = random.Random(0)

    def crash(_: str) -> None:
        interrupted.extend(disk.power_loss(rng, kind) for kind in Crash for _ in range(6))
        interrupted.append(disk.process_death())

    content = disk.content(first)
    disk.after = crash
    keep(disk, ARCHIVE, first)
    unlink_before(disk, directory, second_seq - 1)
    disk.after = lambda _: None
    assert len(interrupted) > 50
    gone = 0
    for found in interrupted:
        if first.name in found.listdir(directory):
            assert entries_of(read_all(new_reader(found, directory))) == run.stored
            keep(found, ARCHIVE, first)
        else:
            gone += 1
        archived = found.content(ARCHIVE / directory.name / first.name)
        assert archived[:-BLOCK] == content[:-BLOCK], "the last seal is the one thing that is never synced"
        if first.name not in found.listdir(directory):
            assert archived == content
    assert gone > 0, "sometimes the original had gone"


async def test_an_archive_that_is_missing_or_full_changes_nothing() -> None:
    disk = new_disk()
    run = await written(disk)
    (_, first, _), *_ = before = segments(disk, run.writer.directory)
    with pytest.raises(EnvironmentFault, match="archive"):
        keep(disk, ARCHIVE, first)
    assert "archive" not in disk.listdir(DATA), "it is never made by us"
    disk.mkdir(ARCHIVE)

    def full(name: str) -> None:
        refuse_links(name)
        if name == "pwrite":
            raise OSError(errno.ENOSPC, "no space left")

    disk.before = full
    with pytest.raises(EnvironmentFault, match="no space left") as caught:
        keep(disk, ARCHIVE, first)
    assert "stays in the journal" in caught.value.hint
    disk.before = lambda _: None
    assert segments(disk, run.writer.directory) == before
    assert disk.listdir(ARCHIVE / run.writer.directory.name) == [], "nothing half done takes its place"
    keep(disk, ARCHIVE, first)
    assert disk.content(ARCHIVE / run.writer.directory.name / first.name) == disk.content(first)


def test_on_the_file_systems_of_this_machine(tmp_path: Path) -> None:
    journal, archive = tmp_path / ("0" * 32), tmp_path / "archive"
    journal.mkdir()
    archive.mkdir()
    segment = journal / "0000000000000001.seg"
    segment.write_bytes(b"content")
    keep(LocalFileSystem(), archive, segment)
    assert (archive / journal.name / segment.name).samefile(segment), "on the same file system no byte is copied"
