"""Power loss and process death after every operation of the writer, of recovery, and of a run with a full disk.

Every state is checked for the same: what was acknowledged is there, once, equal, in order; nothing else but unanswered
entries after it; nothing is called lost. `SIGNALKEEP_CRASH_SEEDS` makes the search longer.
"""

from __future__ import annotations

import errno
import os
import random

import pytest

from signalkeep.errors import DiskFull, SyncFailed
from signalkeep.journal.reader import Lost, find_journals
from tests.journal.simdisk import Crash, SimDisk
from tests.journal.support import (
    ROOT,
    Run,
    entries_of,
    frame,
    new_disk,
    new_reader,
    new_writer,
    numbered,
    read_all,
    recovered,
)

SEEDS = int(os.environ.get("SIGNALKEEP_CRASH_SEEDS", "24"))
TRIES = {Crash.NONE: 1, Crash.ALL: 1, Crash.PREFIX: 4, Crash.SECTORS: 6}


class Examiner:
    """Crashes a run after each of its operations and checks what recovery finds."""

    def __init__(self, run: Run, seed: int) -> None:
        self.run = run
        self.states = self.torn = self.extra = 0
        self._rng = random.Random(seed)
        run.disk.after = lambda _: self.examine()
        run.on_stored = self._sometimes

    def _sometimes(self) -> None:
        if self._rng.random() < 0.3:
            self.examine()

    def examine(self) -> None:
        disk = self.run.disk
        states = [disk.power_loss(self._rng, crash) for crash, tries in TRIES.items() for _ in range(tries)]
        for found in [*states, disk.process_death()] if disk.unsynced else states[:1]:
            given = self.check(found)
            self.states += 1
            self.extra += given > len(self.run.stored)
            self.torn += given < len(self.run.appended) - len(self.run.refused)

    def check(self, found: SimDisk) -> int:
        """Recovery of one crash state; returns how many entries it gave."""
        run = self.run
        items = recovered(found)
        assert not any(isinstance(item, Lost) for item in items), "nothing is damaged, nothing may be called lost"
        entries = entries_of(items)
        assert list(numbered(items)) == list(range(1, len(entries) + 1))
        assert entries[: len(run.stored)] == run.stored
        open_ends = [item for item in run.appended if item not in run.stored]
        after = [open_ends.index(item) for item in entries[len(run.stored) :]]
        assert after == sorted(set(after)), "unanswered entries, in order, once"
        if found.unsynced:
            survived = entries_of(recovered(found.power_loss(self._rng, Crash.NONE)))
            assert survived == entries, "what was read could still be lost"
        return len(entries)


async def test_everything_acknowledged_survives_a_crash_after_any_operation(capsys: pytest.CaptureFixture[str]) -> None:
    states = torn = extra = 0
    for seed in range(SEEDS):
        disk = new_disk()
        disk.short_writes = random.Random(seed) if seed % 2 else None
        run = Run(disk, seed)
        examiner = Examiner(run, seed)
        run.start()
        await run.go(45)
        await run.close()
        assert run.stored == run.appended
        assert sum(name == "rename" for name, _ in disk.log) >= 4, "several segments"
        states, torn, extra = states + examiner.states, torn + examiner.torn, extra + examiner.extra
    with capsys.disabled():
        print(f"\njournal: {states} crash states, {torn} with a tail cut, {extra} with unanswered entries")
    assert torn
    assert extra
    assert states >= 1_500 * SEEDS


async def test_a_crash_while_the_journal_is_made_leaves_nothing_that_hinders() -> None:
    rng = random.Random(1)
    disk = new_disk()
    found: list[SimDisk] = []
    disk.after = lambda _: found.extend(disk.power_loss(rng, crash) for crash in Crash for _ in range(5))
    new_writer(disk)
    assert len(found) > 100
    for left in found:
        for directory in find_journals(left, ROOT):
            reader = new_reader(left, directory)
            assert reader.read(10, 10_000) == []
            assert reader.finished
        writer = new_writer(left, seed=7)
        assert writer.directory in find_journals(left, ROOT)
        leftovers = [name for name in left.listdir(ROOT) if name.endswith(".new") and left.listdir(ROOT / name)]
        assert leftovers == []


async def test_no_room_fails_the_batch_and_nothing_else() -> None:
    refused = 0
    for seed in range(SEEDS):
        disk = new_disk()
        disk.short_writes = random.Random(seed)
        run = Run(disk, seed)
        examiner = Examiner(run, seed)
        rng = random.Random(seed)

        def fail(name: str, rng: random.Random = rng) -> None:
            if name in ("pwrite", "allocate", "open_new", "rename") and rng.random() < 0.15:
                raise OSError(rng.choice((errno.ENOSPC, errno.EDQUOT)), "no room")

        run.start()
        disk.before = fail
        await run.go(25)
        disk.before = lambda _: None
        run.disk.after = lambda _: None
        last = frame(999)
        run.append(last)
        await run.close()
        assert run.stored[-1] is last, "there is room again"
        assert entries_of(recovered(disk)) == run.stored
        assert len(run.stored) + len(run.refused) == len(run.appended)
        refused += len(run.refused)
        assert examiner.states
    assert refused > SEEDS


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
        examiner = Examiner(run, failing)
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


async def test_recovery_that_is_itself_interrupted_gives_the_same() -> None:
    disk = new_disk()
    run = Run(disk, seed=5)
    run.start()
    await run.go(20)
    dead = disk.process_death()
    found: list[SimDisk] = []
    dead.after = lambda _: found.append(dead.process_death())
    dead.before = lambda _: found.append(dead.process_death())
    entries = entries_of(recovered(dead))
    assert len(found) > 30
    for again in found:
        assert entries_of(recovered(again)) == entries == run.stored
    assert run.task is not None
    run.task.cancel()


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
    Examiner(run, 0).examine()
    disk.short_writes, disk.before = None, lambda _: None
    run.append(frame(3, 6_000))
    await run.settle()
    assert len([name for name in disk.listdir(run.writer.directory) if name.endswith(".seg")]) == 2
    found = disk if alive else disk.process_death()
    items = read_all(new_reader(found, run.writer.directory))
    assert entries_of(items) == [frame(1), frame(3, 6_000)]
    assert list(numbered(items)) == [1, 2]
    await run.close()
