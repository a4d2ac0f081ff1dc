"""What the journal's tests share: entries that are known by number, a writer that runs inline, and a strict reader."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from signalkeep.journal.files import FileSystem
from signalkeep.journal.reader import Chunk, JournalReader, Lost, find_journals
from signalkeep.journal.record import Entry, FrameEntry, SessionEntry, TallyEntry
from signalkeep.journal.writer import JournalWriter
from tests.journal.simdisk import SimDisk

DATA = Path("/data")
ROOT = DATA / "journal"
EVIDENCE = DATA / "evidence"
SEGMENT_BYTES = 6 * 4096


class FixedClock:
    def now(self) -> datetime:
        return datetime(2024, 5, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


def new_disk() -> SimDisk:
    """A disk with the directories that an installation has."""
    disk = SimDisk()
    for path in (DATA, ROOT):
        disk.mkdir(path)
        disk.sync_directory(path.parent)
    disk.log.clear()
    return disk


def frame(number: int, raw_bytes: int = 20) -> FrameEntry:
    raw = number.to_bytes(4, "big") + random.Random(number).randbytes(raw_bytes)
    return FrameEntry(1_700_000_000_000_000 + number, "teltonika", f"35209308145{number:04d}", "p", {"tz": "x"}, raw)


def entry(number: int, rng: random.Random) -> Entry:
    """Any kind and size; no two are equal."""
    match rng.randrange(8):
        case 0:
            return TallyEntry(number, {"checksum": number})
        case 1:
            return SessionEntry(number, "opened", "teltonika", "", "10.0.0.1:7", "é" * rng.randrange(30))
        case 2:
            return frame(number, rng.randint(3_000, 9_000))
        case _:
            return frame(number, rng.randint(0, 900))


async def inline(job: Callable[[], None]) -> None:
    """Runs the job at once, but lets others run before its result is seen, as a thread would."""
    job()
    await asyncio.sleep(0)


def new_writer(fs: FileSystem, seed: int = 0, *, segment_bytes: int = SEGMENT_BYTES, lanes: int = 1) -> JournalWriter:
    rng = random.Random(seed)
    return JournalWriter.create(
        fs,
        ROOT,
        clock=FixedClock(),
        journal_id=UUID(bytes=rng.randbytes(16)),
        salt=rng.randbytes,
        lanes=lanes,
        segment_bytes=segment_bytes,
        run_blocking=inline,
    )


class Run:
    """A seeded run of a writer, and what was promised in it."""

    def __init__(self, disk: SimDisk, seed: int, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.disk = disk
        self.rng = random.Random(seed)
        self.appended: list[Entry] = []
        self.stored: list[Entry] = []  # in the order in which on_done(True) came
        self.refused: list[Entry] = []
        self.on_stored: Callable[[], None] = lambda: None
        self.writer = new_writer(disk, seed, segment_bytes=segment_bytes)
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.writer.run())

    def append(self, item: Entry) -> None:
        def done(durable: bool) -> None:
            (self.stored if durable else self.refused).append(item)
            if durable:
                self.on_stored()

        self.appended.append(item)
        self.writer.append(item, done)

    async def settle(self) -> None:
        """Until everything appended was answered."""
        while len(self.stored) + len(self.refused) < len(self.appended):
            await asyncio.sleep(0)
            if self.task is not None and self.task.done():
                return

    async def go(self, entries: int) -> None:
        """Append entries in bursts, with and without waiting for them."""
        while entries > 0:
            burst = min(entries, self.rng.choice((1, 1, 2, 4)))
            for _ in range(burst):
                self.append(entry(len(self.appended) + 1, self.rng))
            entries -= burst
            if self.rng.random() < 0.4:
                await self.settle()
            for _ in range(self.rng.randrange(3)):
                await asyncio.sleep(0)
        await self.settle()

    async def close(self) -> None:
        await self.writer.close()
        assert self.task is not None
        await self.task


def new_reader(fs: FileSystem, directory: Path) -> JournalReader:
    return JournalReader(fs, directory, evidence_root=EVIDENCE)


def read_all(reader: JournalReader, *, most: int = 1_000) -> list[Chunk | Lost]:
    """Everything that there is now."""
    items: list[Chunk | Lost] = []
    while found := reader.read(most, 1 << 30):
        items += found
    return items


def entries_of(items: list[Chunk | Lost]) -> list[Entry]:
    return [item for chunk in items if isinstance(chunk, Chunk) for item in chunk.entries]


def numbered(items: list[Chunk | Lost]) -> dict[int, Entry]:
    """Entries by sequence number; asserts that items follow each other without a hole or an overlap."""
    found: dict[int, Entry] = {}
    expected = items[0].first_seq if items else 0
    for item in items:
        assert item.first_seq == expected, "a hole or an overlap"
        if isinstance(item, Lost):
            assert item.last_seq >= item.first_seq
            expected = item.last_seq + 1
        else:
            assert item.entries
            found.update(enumerate(item.entries, item.first_seq))
            expected += len(item.entries)
    return found


def recovered(fs: FileSystem) -> list[Chunk | Lost]:
    """What the only journal of a dead writer gives; [] if there is none."""
    journals = find_journals(fs, ROOT)
    if not journals:
        return []
    (directory,) = journals
    reader = new_reader(fs, directory)
    assert not reader.alive
    items = read_all(reader)
    assert reader.finished
    return items
