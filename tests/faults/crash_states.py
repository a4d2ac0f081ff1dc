"""Crash states of the journal: `make states STATES=1000000`.

    python -m tests.faults.crash_states --states 100000 [--first 1] [--stop-at-first] [--save]

One seed is one history of a journal on a simulated disk: it is written, now and then without room, with short writes or
with a sync that fails; read when its writer is dead; archived and removed. After every operation the power fails, in
each of the ways of `Crash`, and what is found then has to hold: I1 (what was acknowledged is there, equal, in order),
I2 (once), I3 (nothing else, and nothing was read that the disk can still lose), I5 (at the instant of an answer it is
in the durable image), I6 (nothing is in the way of the next journal), I8 (recovery that is itself interrupted gives the
same). Ends with 1 if something does not; a failing seed prints the command that runs it again.

What it cannot see: mistakes of kernels and drives, and whatever the simulated disk does not do.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Final

from signalkeep.errors import SignalkeepError, SyncFailed
from signalkeep.journal.archive import keep
from signalkeep.journal.reader import Chunk, Lost, find_journals
from signalkeep.journal.record import Entry
from signalkeep.journal.retention import remove_journal, unlink_before
from signalkeep.journal.segments import segments
from tests.faults.results import quiet, save
from tests.faults.simulation.scenario import Broken
from tests.journal.simdisk import Crash, SimDisk
from tests.journal.support import (
    DATA,
    ROOT,
    Run,
    entries_of,
    new_disk,
    new_reader,
    new_writer,
    numbered,
    read_all,
    recovered,
)

WRITING: Final = {Crash.NONE: 1, Crash.ALL: 1, Crash.PREFIX: 4, Crash.SECTORS: 6}
ELSEWHERE: Final = {Crash.NONE: 1, Crash.ALL: 1, Crash.PREFIX: 2, Crash.SECTORS: 3}
ARCHIVE: Final = DATA / "archive"
ENTRIES: Final = 45
REPLAY: Final = "python -m tests.faults.crash_states"
CHANGES: Final = ("datasync", "sync", "sync_directory", "pwrite", "rename", "unlink", "open_new", "mkdir", "rmdir")


def require(holds: bool, invariant: str, detail: str) -> None:
    """Raises Broken."""
    if not holds:
        raise Broken(invariant, detail)


def sound(items: Iterable[Chunk | Lost]) -> list[Entry]:
    """The entries of a journal that nobody has damaged. Raises Broken if some are called lost."""
    items = list(items)
    lost = [item for item in items if isinstance(item, Lost)]
    require(not lost, "I1", f"nothing is damaged, and this is called lost: {lost[:2]}")
    entries = entries_of(items)
    require(list(numbered(items)) == list(range(1, len(entries) + 1)), "I2", "numbers have holes")
    return entries


class Examiner:
    """Crashes a run after each of its operations and looks at what recovery finds."""

    def __init__(self, run: Run, rng: random.Random, counts: Counter[str]) -> None:
        self._run, self._rng, self._counts = run, rng, counts
        self.broken: Broken | None = None
        run.disk.after = lambda _: self.examine()
        run.on_stored = self._answered

    def _answered(self) -> None:
        """I5, at the instant of each answer."""
        self._counts["answers looked at in the durable image"] += 1
        self._one(self._run.disk.power_loss(self._rng, Crash.NONE), at_answer=True)

    def examine(self) -> None:
        disk = self._run.disk
        for found in ways_to_crash(disk, self._rng, WRITING):
            self._one(found)
        if disk.unsynced:
            self._one(disk.process_death())

    def _one(self, found: SimDisk, *, at_answer: bool = False) -> None:
        try:
            given = self.check(found)
        except Broken as error:  # what the writer makes of it is not what matters
            self.broken = self.broken or (Broken("I5", f"at an answer: {error}") if at_answer else error)
            raise self.broken from error
        run, counts = self._run, self._counts
        counts["states"] += 1
        counts["with unanswered entries"] += given > len(run.stored)
        counts["with a tail cut"] += given < len(run.appended) - len(run.refused)

    def check(self, found: SimDisk) -> int:
        """Recovery of one crash state; how many entries it gave. Raises Broken."""
        run = self._run
        entries = sound(recovered(found))
        require(
            entries[: len(run.stored)] == run.stored, "I1", f"of {len(run.stored)} acknowledged entries some are gone"
        )
        unanswered = [item for item in run.appended if item not in run.stored]
        after = entries[len(run.stored) :]
        require(all(item in unanswered for item in after), "I3", "there is an entry that nobody appended")
        places = [unanswered.index(item) for item in after]
        require(places == sorted(set(places)), "I2", "unanswered entries are doubled or out of order")
        if found.unsynced:
            survived = sound(recovered(found.power_loss(self._rng, Crash.NONE)))
            require(survived == entries, "I3", "what was read could still be lost")
        return len(entries)


def ways_to_crash(disk: SimDisk, rng: random.Random, tries: dict[Crash, int]) -> list[SimDisk]:
    """What a power loss may leave now: one state if everything is synced."""
    if not disk.unsynced:
        return [disk.power_loss(rng, Crash.NONE)]
    return [disk.power_loss(rng, crash) for crash, count in tries.items() for _ in range(count)]


class History:
    """The parts of one seed. `counts`: what happened, over all seeds."""

    def __init__(self, seed: int, counts: Counter[str]) -> None:
        self._seed, self._counts = seed, counts
        self._rng = random.Random(f"crash states {seed}")
        self._examiner: Examiner | None = None

    @property
    def broken(self) -> Broken | None:
        """What was found first."""
        return self._examiner.broken if self._examiner is not None else None

    def _examine(self, run: Run) -> Examiner:
        self._examiner = Examiner(run, self._rng, self._counts)
        return self._examiner

    async def run(self) -> None:
        """Raises Broken."""
        for part in (self._making, self._writing, self._without_room, self._broken_disk, self._reading, self._going):
            await part()
        self._counts["seeds"] += 1

    async def _making(self) -> None:
        """A crash while a journal is made hinders nobody, and leaves nothing."""
        disk = new_disk()
        left: list[SimDisk] = []
        disk.after = lambda _: left.extend(ways_to_crash(disk, self._rng, ELSEWHERE))
        new_writer(disk, self._seed)
        for found in left:
            self._counts["states"] += 1
            for directory in find_journals(found, ROOT):
                require(sound(new_reader(found, directory).read(10, 10_000)) == [], "I3", "entries of nobody")
            writer = new_writer(found, self._seed + 1_000_000)
            require(writer.directory in find_journals(found, ROOT), "I6", "no new journal can be made")
            rest = [name for name in found.listdir(ROOT) if name.endswith(".new") and found.listdir(ROOT / name)]
            require(rest == [], "I7", f"left over: {rest}")

    async def _writing(self) -> None:
        disk = new_disk()
        disk.short_writes = random.Random(self._seed) if self._seed % 2 else None
        run = Run(disk, self._seed)
        self._examine(run)
        run.start()
        await run.go(ENTRIES)
        await run.close()
        require(run.stored == run.appended, "I6", "a sound disk, and something was refused")
        self._counts["segments"] += sum(name == "rename" for name, _ in disk.log)

    async def _without_room(self) -> None:
        """What there is no room for is refused, and once there is room it goes on."""
        disk = new_disk()
        disk.short_writes = random.Random(self._seed)
        run = Run(disk, self._seed)
        self._examine(run)

        def full(name: str) -> None:
            if name in ("pwrite", "allocate", "open_new", "rename") and self._rng.random() < 0.15:
                raise OSError(self._rng.choice((errno.ENOSPC, errno.EDQUOT)), "no room")

        run.start()
        disk.before = full
        await run.go(ENTRIES // 2)
        disk.before = disk.after = lambda _: None
        run.append(run.appended[0])
        await run.close()
        require(run.stored[-1] == run.appended[0], "I6", "there is room again, and an entry was refused")
        require(sound(recovered(disk)) == run.stored, "I1", "what was refused is there, or what was stored is not")
        self._counts["entries refused for want of room"] += len(run.refused)

    async def _broken_disk(self) -> None:
        """One sync or write fails, and its pages count as clean: nothing is acknowledged any more."""
        disk = new_disk()
        run = Run(disk, self._seed)
        left = self._rng.randrange(5, 60)

        def fail(name: str) -> None:
            nonlocal left
            left -= name in ("datasync", "sync", "sync_directory", "pwrite")
            if left == 0:
                left = -1
                raise OSError(errno.EIO, "broken")

        run.start()
        disk.before = fail
        examiner = self._examine(run)
        disk.after = lambda _: None
        await run.go(ENTRIES // 2)
        disk.before = lambda _: None
        examiner.examine()
        assert run.task is not None
        if run.task.done():
            self._counts["runs ended by a disk error"] += isinstance(run.task.exception(), SyncFailed)
        run.task.cancel()

    async def _reading(self) -> None:
        """A dead writer's journal is read, and the power fails meanwhile: what was read stays, and is read again."""
        found, stored = await self._dead_journal()
        (directory,) = find_journals(found, ROOT)
        whole = sound(recovered(found.process_death()))
        require(whole[: len(stored)] == stored, "I1", "recovery has lost what was acknowledged")
        returned: list[Entry] = []

        def crash(name: str = "") -> None:
            if name and name not in CHANGES:
                return
            for left in ways_to_crash(found, self._rng, ELSEWHERE):
                given = sound(recovered(left))
                self._counts["states"] += 1
                require(given[: len(stored)] == stored, "I1", "acknowledged entries are gone")
                require(given == whole[: len(given)], "I3", "other entries than before")
                require(given[: len(returned)] == returned, "I3", "what was read is gone from the disk")
            self._counts["states"] += 1
            self._counts["recoveries interrupted"] += 1
            require(sound(recovered(found.process_death())) == whole, "I8", "recovery interrupted gives something else")

        found.before = found.after = crash
        reader = new_reader(found, directory)
        while items := reader.read(self._rng.choice((1, 3, 100)), 1 << 20):
            returned += sound_part(items)
            crash()
        require(returned == whole, "I8", "the same journal gives something else")
        found.before = found.after = lambda _: None
        self._fail_one_read(found, directory, whole)

    def _fail_one_read(self, found: SimDisk, directory: Path, whole: list[Entry]) -> None:
        """The last reads matter most: nothing follows that would show what is missing."""
        reads: list[str] = []
        found.before = reads.append
        read_all(new_reader(found, directory))
        total = reads.count("pread")
        failing = total - self._rng.randrange(min(total, 12))
        reads.clear()

        def fail(name: str) -> None:
            reads.append(name)
            if name == "pread" and reads.count("pread") == failing:
                self._counts["reads that failed once"] += 1
                raise OSError(errno.EIO, "not now")

        found.before = fail
        again = sound(read_all(new_reader(found, directory)))
        require(again == whole, "I1", "an error of the disk that passes is taken for damage")

    async def _dead_journal(self) -> tuple[SimDisk, list[Entry]]:
        """A journal whose writer was killed at any of its operations, and what it had acknowledged."""
        disk = new_disk()
        run = Run(disk, self._seed)
        wanted = self._rng.randrange(5, 120)
        taken: list[tuple[SimDisk, list[Entry]]] = []

        def after(_: str) -> None:
            nonlocal wanted
            wanted -= 1
            if wanted == 0:
                taken.append((disk.process_death(), list(run.stored)))

        disk.after = after
        run.start()
        await run.go(ENTRIES // 2)
        assert run.task is not None
        run.task.cancel()
        return taken[0] if taken else (disk.process_death(), list(run.stored))

    async def _going(self) -> None:
        """Segments go, to an archive or for good, and then the whole journal: never what is still needed."""
        disk = new_disk()
        disk.mkdir(ARCHIVE)
        disk.sync_directory(DATA)
        run = Run(disk, self._seed)
        run.start()
        await run.go(ENTRIES)
        await run.close()
        directory = run.writer.directory
        disk = disk.power_loss(self._rng, Crash.NONE)  # old enough to go: nothing of it is in memory alone
        links, seq = self._rng.random() < 0.5, self._rng.randrange(len(run.stored) + 1)
        disk.before = refuse_nothing if links else refuse_links

        def crash(_: str) -> None:
            for left in ways_to_crash(disk, self._rng, ELSEWHERE):
                self._counts["states"] += 1
                found: dict[int, Entry] = {}
                for place in (ARCHIVE / directory.name, directory):
                    if directory.parent == place.parent and directory not in find_journals(left, ROOT):
                        continue
                    found |= entries_in(left, place)
                gone = [number for number, entry in enumerate(run.stored, 1) if found.get(number) != entry]
                require(not gone, "I1", f"entries {gone[:3]} are neither in the journal nor in the archive")

        disk.after = crash
        for (_, path, _), (next_first_seq, _, _) in pairwise(segments(disk, directory)):
            if next_first_seq <= seq + 1:
                keep(disk, ARCHIVE, path)
        unlink_before(disk, directory, seq)
        for _, path, _ in segments(disk, directory):
            keep(disk, ARCHIVE, path)
        remove_journal(disk, directory)
        disk.after = lambda _: None
        require(disk.listdir(ROOT) == [], "I7", "the removal leaves something")
        self._counts["journals archived and removed"] += 1


def sound_part(items: list[Chunk | Lost]) -> list[Entry]:
    """Entries from the middle of an undamaged journal. Raises Broken if some are called lost."""
    require(not any(isinstance(item, Lost) for item in items), "I1", "nothing is damaged, and something is called lost")
    return entries_of(items)


def entries_in(disk: SimDisk, directory: Path) -> dict[int, Entry]:
    """By number, whatever of the segments is there."""
    if not segments(disk, directory):
        return {}
    reader = new_reader(disk, directory)
    found: dict[int, Entry] = {}
    while items := reader.read(1_000, 1 << 30):
        for item in items:
            if isinstance(item, Chunk):
                found.update(enumerate(item.entries, item.first_seq))
    return found


def refuse_nothing(_: str) -> None:
    pass


def refuse_links(name: str) -> None:
    """The archive is on another file system."""
    if name == "link":
        raise OSError(errno.EXDEV, "another file system")


def search(states: int, first: int, *, stop_at_first: bool = False) -> tuple[Counter[str], list[Broken]]:
    """Whole seeds until that many states were looked at: what happened how often, and what broke."""
    counts: Counter[str] = Counter()
    broken: list[Broken] = []
    seed = first
    while counts["states"] < states and not (broken and stop_at_first):
        error = _one_seed(seed, counts)
        if error is not None:
            broken.append(error)
            sys.stderr.write(f"state {counts['states']}: {error}\n    {REPLAY} --first {seed} --states 1\n")
        seed += 1
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{counts['states']:,} states ")
    return counts, broken


def _one_seed(seed: int, counts: Counter[str]) -> Broken | None:
    before = counts["states"]
    history = History(seed, counts)
    try:
        asyncio.run(history.run())
    except Broken as error:
        return error
    except (AssertionError, OSError, SignalkeepError, ValueError, LookupError, TypeError) as error:
        return history.broken or Broken("I6", f"{type(error).__name__}: {error}")
    finally:
        counts["states"] += counts["states"] == before  # so that a search ends even if nothing works
    return None


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=1, help="seed")
    parser.add_argument("--stop-at-first", action="store_true")
    parser.add_argument("--save", action="store_true", help="keep the result for docs/reliability.md")
    given = parser.parse_args()
    quiet()
    began = time.monotonic()
    counts, broken = search(given.states, given.first, stop_at_first=given.stop_at_first)
    seconds = time.monotonic() - began
    for what, number in sorted(counts.items()):
        print(f"{number:>12,}  {what}")
    states = counts["states"]
    print(f"{states:,} states in {seconds:.0f} s, {states / seconds:,.0f} a second; {len(broken)} broken")
    if given.save:
        save(
            "crash_states",
            f"make states STATES={given.states}",
            counts={"broken": len(broken), **dict(sorted(counts.items()))},
        )
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
