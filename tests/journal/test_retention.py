"""Segments and journals go from the oldest on, and a crash in the middle of it is finished later."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from signalkeep.journal.reader import Lost, find_journals, segments
from signalkeep.journal.retention import remove_journal, sweep, unlink_before
from tests.journal.simdisk import Crash, SimDisk
from tests.journal.support import ROOT, Run, entries_of, new_disk, new_reader, new_writer, read_all


async def written(disk: SimDisk, *, closed: bool = True) -> Run:
    run = Run(disk, seed=6)
    run.start()
    await run.go(60)
    if closed:
        await run.close()
    return run


async def test_only_segments_that_are_wholly_before_go() -> None:
    for seq in range(62):
        disk = new_disk()
        run = await written(disk)
        before = segments(disk, run.writer.directory)
        removed = unlink_before(disk, run.writer.directory, seq)
        after = segments(disk, run.writer.directory)
        assert [path for _, path, _ in before if path not in removed] == [path for _, path, _ in after]
        assert before[-1] in after, "the last one stays"
        assert after[0][0] <= seq + 1
        assert len(after) == 1 or after[1][0] > seq + 1, "everything that may go is gone"
        assert disk.power_loss(random.Random(0), Crash.NONE).listdir(run.writer.directory) == disk.listdir(
            run.writer.directory
        )
        reader = new_reader(disk, run.writer.directory)
        reader.seek(seq)
        assert entries_of(read_all(reader)) == run.stored[seq:]
        reader.seek(0)
        items = read_all(reader)
        if removed:
            assert items[0] == Lost(1, after[0][0] - 1, "missing", "")
        assert entries_of(items) == run.stored[after[0][0] - 1 :]


async def test_a_living_journal_loses_its_old_segments_and_goes_on() -> None:
    disk = new_disk()
    run = await written(disk, closed=False)
    reader = new_reader(disk, run.writer.directory)
    assert entries_of(read_all(reader)) == run.stored
    unlink_before(disk, run.writer.directory, 60)
    assert len(segments(disk, run.writer.directory)) == 1
    await run.go(30)
    assert entries_of(read_all(reader)) == run.stored[60:]
    await run.close()


async def test_a_segment_that_goes_while_it_is_read_is_named_as_missing() -> None:
    disk = new_disk()
    run = await written(disk)
    reader = new_reader(disk, run.writer.directory)
    assert len(entries_of(reader.read(1, 1))) == 1
    reader.seek(1)
    listed = segments(disk, run.writer.directory)
    gone = listed[0][1]
    disk.before = lambda name: unlink(disk, gone) if name == "open_read" else None
    items = read_all(reader)
    assert items[0] == Lost(2, listed[1][0] - 1, "missing", "")
    assert entries_of(items) == run.stored[listed[1][0] - 1 :]


def unlink(disk: SimDisk, path: Path) -> None:
    disk.before = lambda _: None
    disk.unlink(path)


async def test_a_journal_is_removed_whole_whatever_interrupts_it() -> None:
    disk = new_disk()
    run = await written(disk)
    bystander = new_writer(disk, seed=99)
    interrupted: list[SimDisk] = []
    rng = random.Random(0)

    def crash(_: str) -> None:
        interrupted.extend(disk.power_loss(rng, crash) for crash in Crash for _ in range(4))
        interrupted.append(disk.process_death())

    disk.after = crash
    remove_journal(disk, run.writer.directory)
    disk.after = lambda _: None
    assert disk.listdir(ROOT) == [bystander.directory.name]
    assert len(interrupted) > 100
    for found in interrupted:
        if run.writer.directory in find_journals(found, ROOT):  # it is whole, then
            assert entries_of(read_all(new_reader(found, run.writer.directory))) == run.stored
        remove_journal(found, run.writer.directory)
        assert found.listdir(ROOT) == [bystander.directory.name]
    remove_journal(disk, run.writer.directory)


async def test_leftovers_are_swept_when_the_next_journal_is_made() -> None:
    disk = new_disk()
    run = await written(disk)
    disk.rename(run.writer.directory, ROOT / f"{run.writer.directory.name}.old")
    writer = new_writer(disk, seed=1)
    assert disk.listdir(ROOT) == [writer.directory.name]


def test_a_journal_that_is_just_being_made_is_left_alone() -> None:
    disk = new_disk()
    interleaved = 0

    def sweep_now(_: str) -> None:
        nonlocal interleaved
        interleaved += 1
        disk.after = lambda _: None
        sweep(disk, ROOT)
        disk.after = sweep_now

    disk.after = sweep_now
    writer = new_writer(disk)
    assert interleaved > 5
    assert find_journals(disk, ROOT) == [writer.directory]
    assert new_reader(disk, writer.directory).alive


def test_a_journal_that_is_being_written_is_not_removed() -> None:
    disk = new_disk()
    writer = new_writer(disk)
    with pytest.raises(AssertionError, match="being written"):
        remove_journal(disk, writer.directory)


def test_strange_names_under_the_root_do_not_matter() -> None:
    disk = new_disk()
    for name in ("notes.txt", "x.old", "y.new", "0" * 32, "A" * 32):
        disk.close(disk.open_new(ROOT / name))
    disk.mkdir(ROOT / ("1" * 32))
    writer = new_writer(disk)
    found = find_journals(disk, ROOT)
    assert writer.directory in found
    for directory in found:
        reader = new_reader(disk, directory)
        assert reader.read(1, 1) == []
        assert reader.finished == (directory != writer.directory)
    assert find_journals(disk, ROOT / "nowhere") == []
    assert segments(disk, ROOT / "nowhere") == []
