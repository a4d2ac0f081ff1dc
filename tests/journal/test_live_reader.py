"""A reader beside a living writer: it returns what is durable and nothing else, and in the end everything.

A recorded run is done again operation by operation, with the reader's own steps in between, in many interleavings.
Checks at each return: no entry that a power loss at this instant could take away, none twice, none out of order, and
never a claim that something is lost.
"""

from __future__ import annotations

import asyncio
import errno
import random
from pathlib import Path

import pytest

from signalkeep import limits
from signalkeep.journal import reader as reader_module
from signalkeep.journal.reader import Chunk, JournalReader, Lost
from signalkeep.journal.record import Entry
from tests.journal.simdisk import Crash, Operation, SimDisk
from tests.journal.support import ROOT, Run, entries_of, frame, new_disk, new_reader, read_all, recovered
from tests.servers import wait_until_async

SCHEDULES = 40


class Replay:
    """A recorded run, one operation at a time, on a disk of its own."""

    def __init__(self, log: list[Operation]) -> None:
        self.disk = new_disk()
        self._log = log
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._log)

    def step(self) -> None:
        if not self.done:
            before, self.disk.before = self.disk.before, lambda _: None
            self.disk.replay(self._log[self._at])
            self._at += 1
            self.disk.before = before

    def start(self) -> JournalReader:
        """Up to where the journal can be seen."""
        while self._log[self._at - 1][0] != "rename" or ".seg" in str(self._log[self._at - 1][1]):
            self.step()
        (name,) = [name for name in self.disk.listdir(ROOT) if len(name) == 32]
        return new_reader(self.disk, ROOT / name)

    def durable(self) -> list[Entry]:
        return entries_of(recovered(self.disk.power_loss(random.Random(0), Crash.NONE)))


async def recorded(seed: int, *, closed: bool, full: bool = False) -> tuple[list[Operation], list[Entry]]:
    """The operations of a run and what it acknowledged; `full`: now and then there is no room."""
    disk = new_disk()
    disk.short_writes = random.Random(seed)
    run = Run(disk, seed)
    rng = random.Random(seed)

    def fail(name: str) -> None:
        if name in ("pwrite", "open_new") and rng.random() < 0.1:
            raise OSError(errno.ENOSPC, "no room")

    if full:
        disk.before = fail
    run.start()
    await run.go(40)
    disk.before = lambda _: None
    if full:
        run.append(frame(500))
        await run.settle()
    if closed:
        await run.close()
    else:
        assert run.task is not None
        run.task.cancel()
    return disk.log, run.stored


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("closed", [False, True])
async def test_at_every_operation_only_what_is_durable(closed: bool, full: bool) -> None:
    for seed in range(SCHEDULES // 2):
        log, stored = await recorded(seed, closed=closed, full=full)
        replay = Replay(log)
        reader = replay.start()
        got: list[Entry] = []
        while not replay.done:
            replay.step()
            items = read_all(reader)
            if items:
                got += entries_of(items)
                assert not any(isinstance(item, Lost) for item in items)
                assert got == replay.durable()[: len(got)]
                assert reader.durable_seq >= len(got)
        assert got == stored[: len(got)]
        assert len(got) == len(stored), "the seal shows the last batch too"
        assert reader.finished == closed
        if not closed:
            finish(replay, reader)


def finish(replay: Replay, reader: JournalReader) -> None:
    """The writer dies: the reader notices and ends."""
    for file, open_file in list(replay.disk._open.items()):
        if open_file.locked:
            replay.disk.close(file)
    assert not any(isinstance(item, Lost) for item in read_all(reader))
    assert reader.finished
    assert not reader.alive


@pytest.mark.parametrize("looks_before_search", [1, 64])
@pytest.mark.parametrize("full", [False, True])
async def test_any_interleaving_of_reader_and_writer(
    looks_before_search: int, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "LOOKS_BEFORE_SEARCH", looks_before_search)
    for seed in range(SCHEDULES):
        log, stored = await recorded(seed, closed=seed % 2 == 0, full=full)
        replay = Replay(log)
        reader = replay.start()
        rng = random.Random(seed)
        pace = rng.choice((0.2, 0.5, 1.0))

        def step(_: str, replay: Replay = replay, rng: random.Random = rng, pace: float = pace) -> None:
            while rng.random() < pace / 2:
                replay.step()
            if rng.random() < 0.02:  # the reader sleeps while the writer does much, perhaps all
                for _turn in range(rng.choice((10, 50, 1_000))):
                    replay.step()

        got: list[Entry] = []
        while not replay.done:
            replay.disk.before = step
            items = reader.read(rng.choice((1, 3, 100)), rng.choice((1, 5_000, 1 << 20)))
            replay.disk.before = lambda _: None
            assert not any(isinstance(item, Lost) for item in items)
            got += entries_of(items)
            if items:
                assert got == replay.durable()[: len(got)]
            if not items and rng.random() < 0.3:
                replay.step()
        if seed % 2:
            got += entries_of(read_all(reader))
            finish(replay, reader)
        else:
            got += entries_of(read_all(reader))
        assert got == stored


async def test_limits_of_a_read_are_kept_and_always_let_one_entry_through() -> None:
    disk = new_disk()
    run = Run(disk, seed=2)
    run.start()
    for number in range(1, 10):
        run.append(frame(number, 1_000))
    await run.close()
    reader = new_reader(disk, run.writer.directory)
    first = reader.read(2, 1 << 20)
    assert [(item.first_seq, len(entries_of([item]))) for item in first] == [(1, 2)]
    assert [len(entries_of([item])) for item in reader.read(100, 1)] == [1]
    rest = read_all(reader)
    assert rest[0].first_seq == 4
    assert entries_of(rest) == run.stored[3:]


@pytest.mark.parametrize("closed", [False, True])
async def test_seek_goes_anywhere(closed: bool) -> None:
    disk = new_disk()
    run = Run(disk, seed=4)
    run.start()
    await run.go(40)
    if closed:
        await run.close()
    reader = new_reader(disk, run.writer.directory)
    for after_seq in [*range(41), 3, 39, 0]:
        reader.seek(after_seq)
        assert not reader.finished
        items = read_all(reader)
        assert entries_of(items) == run.stored[after_seq:]
        assert not items or items[0].first_seq == after_seq + 1
        assert reader.finished == closed
        assert reader.durable_seq == 40
    reader.seek(1_000)
    assert reader.read(10, 10_000) == []
    assert reader.finished == closed
    assert reader.durable_seq == 40
    if not closed:  # only what was asked for, when it comes
        reader.seek(41)
        run.append(frame(1))
        run.append(frame(2))
        await run.settle()
        assert reader.read(10, 10_000) == [Chunk(42, [frame(2)])]


async def test_seek_reads_no_earlier_segment_and_no_body() -> None:
    disk = new_disk()
    run = Run(disk, seed=4)
    run.start()
    await run.go(200)
    await run.close()
    reader = new_reader(disk, run.writer.directory)
    asked: list[str] = []
    disk.before = asked.append
    reader.seek(199)
    assert entries_of(reader.read(10, 10_000)) == run.stored[199:]
    assert asked.count("open_read") == 1
    assert asked.count("pread") < 25


async def test_the_reader_keeps_no_file_open_and_changes_nothing() -> None:
    disk = new_disk()
    run = Run(disk, seed=4)
    run.start()
    await run.go(30)
    dead = disk.process_death()
    names = {path: dead.content(path) for path in files(dead, run)}
    open_before = set(dead._open)
    reader = new_reader(dead, run.writer.directory)
    read_all(reader)
    assert set(dead._open) == open_before
    assert {path: dead.content(path) for path in files(dead, run)} == names
    assert {name for name, _ in dead.log} <= {"close", "datasync"}
    await run.close()


def files(disk: SimDisk, run: Run) -> list[Path]:
    return [run.writer.directory / name for name in sorted(disk.listdir(run.writer.directory))]


async def test_a_seal_that_could_not_be_written_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the last message before a pause would be acknowledged, and no row until somebody sends again."""
    monkeypatch.setattr(limits, "SEAL_AGAIN_S", 0.01)
    disk = new_disk()
    run = Run(disk, seed=1)
    run.start()
    writes = 0

    def fail(name: str) -> None:
        nonlocal writes
        writes += name == "pwrite"
        if name == "pwrite" and writes in (2, 3):
            raise OSError(errno.ENOSPC, "no room")

    disk.before = fail
    run.append(frame(1))
    await run.settle()
    assert run.stored == [frame(1)]
    reader = new_reader(disk, run.writer.directory)
    assert reader.read(10, 1 << 20) == [], "nothing proves yet that it is durable"
    await wait_until_async(lambda: asyncio.sleep(0, writes >= 4))
    assert entries_of(reader.read(10, 1 << 20)) == [frame(1)]
    await run.close()


async def test_an_error_of_the_disk_that_passes_is_no_damage() -> None:
    disk = new_disk()
    run = Run(disk, seed=2)
    run.start()
    await run.go(20)
    reads = 0
    for failing in range(200):
        reads = 0

        def fail(name: str, failing: int = failing) -> None:
            nonlocal reads
            reads += name == "pread"
            if name == "pread" and reads == failing:
                raise OSError(errno.EIO, "not now")

        disk.before = fail
        assert entries_of(read_all(new_reader(disk, run.writer.directory))) == run.stored
        if reads < failing:
            break
    assert 10 < reads < failing
    disk.before = lambda _: None
    await run.close()
