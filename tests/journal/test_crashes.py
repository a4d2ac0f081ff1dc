"""A disk that fails, call by call, and journals at their limits. tests/faults/crash_states.py has many more crashes."""

from __future__ import annotations

import errno
import random
from collections import Counter

import pytest

from signalkeep.errors import DiskFull, SyncFailed
from tests.faults.crash_states import Examiner
from tests.journal.simdisk import Crash, SimDisk
from tests.journal.support import (
    Run,
    entries_of,
    frame,
    new_disk,
    new_reader,
    new_writer,
    numbered,
    read_all,
)


def operations(disk: SimDisk, names: tuple[str, ...]) -> int:
    return sum(name in names for name, _ in disk.log)


@pytest.mark.parametrize("names", [("datasync", "sync", "sync_directory"), ("pwrite", "allocate", "rename")])
async def test_any_failed_sync_or_write_stops_everything(names: tuple[str, ...]) -> None:
    disk = new_disk()
    run = Run(disk, seed=3)
    made = operations(disk, names)
    run.start()
    await run.go(30)
    total = operations(disk, names) - made  # closing excluded: everything is stored by then
    assert total > 20
    for failing in range(total):
        disk = new_disk()
        run = Run(disk, seed=3)
        left = failing
        later: list[str] = []

        def fail(name: str, later: list[str] = later) -> None:
            nonlocal left
            if left < 0:
                later.append(name)
            elif name in names:
                left -= 1
                if left < 0:
                    raise OSError(errno.EIO, "broken")

        disk.before = fail
        run.start()
        await run.go(30)
        assert run.task is not None
        if run.task.done():
            with pytest.raises(SyncFailed):
                await run.task
            with pytest.raises(SyncFailed):
                await run.writer.close()
            stored = len(run.stored)
            run.append(frame(777))
            assert len(run.stored) == stored
            assert run.refused[-1] == frame(777)
            assert run.writer.pending_bytes == 0
            assert set(later) <= {"unlink", "pwrite"}, "nothing but a seal over what is in doubt"
            assert later.count("pwrite") <= 1
        else:  # what failed was a seal, which nobody waits for
            assert "pwrite" in names
            run.task.cancel()
        examiner = Examiner(run, random.Random(failing), Counter())
        examiner.examine()
        for crash in Crash:
            examiner.check(disk.power_loss(random.Random(failing), crash))
        examiner.check(disk.process_death())


async def test_no_room_at_the_start_is_an_error_of_the_environment() -> None:
    disk = new_disk()

    def fail(name: str) -> None:
        if name == "allocate":
            raise OSError(errno.ENOSPC, "no room")

    disk.before = fail
    with pytest.raises(DiskFull):
        new_writer(disk)
    disk.before = lambda _: None
    new_writer(disk.process_death(), seed=0)


async def test_the_smallest_segments_take_what_fits_and_nothing_larger() -> None:
    disk = new_disk()
    run = Run(disk, seed=1, segment_bytes=3 * 4096)
    run.start()
    for number in range(1, 20):
        run.append(frame(number, 3_900 if number % 3 else 10))
    with pytest.raises(AssertionError, match="larger than a batch"):
        run.writer.append(frame(20, 4096))
    await run.close()
    assert entries_of(read_all(new_reader(disk, run.writer.directory))) == run.appended == run.stored


@pytest.mark.parametrize("alive", [False, True])
async def test_a_batch_that_failed_when_nearly_written_is_not_read_before_what_took_its_place(alive: bool) -> None:
    """No room for its last padding, nor for a seal; the next entry is larger and goes to the next segment."""
    disk = new_disk()
    run = Run(disk, seed=1, segment_bytes=4 * 4096)
    run.start()
    run.append(frame(1))
    await run.settle()
    writes = 0

    class Halves(random.Random):
        """The first write leaves out the last 100 bytes."""

        def random(self) -> float:
            return 0.0

        def randint(self, a: int, b: int) -> int:
            return b - 100

    def fail(name: str) -> None:
        nonlocal writes
        writes += name == "pwrite"
        if name == "pwrite" and writes > 1:
            raise OSError(errno.ENOSPC, "no room")

    disk.short_writes, disk.before = Halves(), fail
    run.append(frame(2))
    await run.settle()
    assert run.refused == [frame(2)]
    Examiner(run, random.Random(0), Counter()).examine()
    disk.short_writes, disk.before = None, lambda _: None
    run.append(frame(3, 6_000))
    await run.settle()
    assert len([name for name in disk.listdir(run.writer.directory) if name.endswith(".seg")]) == 2
    found = disk if alive else disk.process_death()
    items = read_all(new_reader(found, run.writer.directory))
    assert entries_of(items) == [frame(1), frame(3, 6_000)]
    assert list(numbered(items)) == [1, 2]
    await run.close()
