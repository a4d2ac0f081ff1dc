"""Bit rot: any byte of any segment flipped, zeroed, overwritten, cut off, or as it was before the last write.

    python -m tests.faults.bit_rot --tries 10000 [--first 1] [--stop-at-first] [--save]

The reader always starts, returns exactly the entries of undamaged batches, and names what is lost with its exact range
as soon as anything sound follows. What was damaged is computed here from the bytes that the writer wrote. Some devices
are hostile: they send what would pass for a batch to a reader that believes it.

What it cannot see: damage that has the right checksums, which somebody with the file in hand can make.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from signalkeep.errors import SignalkeepError
from signalkeep.journal.reader import Lost
from signalkeep.journal.record import (
    BATCH_HEADER_BYTES,
    HEADER_COPY_OFFSET,
    SEGMENT_HEADER_BYTES,
    Entry,
    FrameEntry,
    SegmentHeader,
    encode_entry,
    pack_batch,
    unpack_batch_header,
    unpack_segment_header,
)
from signalkeep.limits import JOURNAL_BLOCK_BYTES
from tests.faults.results import quiet, save
from tests.faults.simulation.scenario import Broken
from tests.journal.simdisk import SimDisk
from tests.journal.support import Run, frame, new_disk, new_reader, numbered, read_all

HOSTILE_BYTES: Final = 9_000
REPLAY: Final = "python -m tests.faults.bit_rot"


class Item(NamedTuple):
    """A batch or a seal as it was written; a seal has no entries."""

    path: Path
    start: int
    end: int
    seqs: range


class Image(NamedTuple):
    """A journal whose writer is gone, and where everything in it stands."""

    disk: SimDisk
    directory: Path
    items: list[Item]
    entries: dict[int, Entry]


def forged(run: Run) -> FrameEntry:
    """A frame whose payload has a batch at every place where a reader could look for one, if it had no salt."""
    entry = frame(1, HOSTILE_BYTES - 4)
    before_raw = BATCH_HEADER_BYTES + encode_entry(entry).index(entry.raw)
    begin = run.writer._appender._offset + before_raw  # where it will stand, if nothing else is waiting
    raw = bytearray(HOSTILE_BYTES)
    body = encode_entry(frame(666))
    for place in range(-(-begin // JOURNAL_BLOCK_BYTES) * JOURNAL_BLOCK_BYTES, begin + HOSTILE_BYTES - 500, 4096):
        _, batch = pack_batch(body, count=1, offset=place, first_seq=1_000_000, chain=0, seed=0)
        used = batch[: BATCH_HEADER_BYTES + len(body)]
        raw[place - begin : place - begin + len(used)] = used
    return msgspec.structs.replace(entry, raw=bytes(raw))


@cache
def image(seed: int, closed: bool) -> Image:
    disk = new_disk()
    run = Run(disk, seed)

    async def go() -> None:
        run.start()
        await run.go(20)
        run.append(forged(run))
        await run.go(20)
        if closed:
            await run.close()
        else:
            assert run.task is not None
            run.task.cancel()

    asyncio.run(go())
    paths: dict[int, Path] = {}
    items: dict[tuple[int, int], Item] = {}
    for name, arguments in disk.log:
        match name, arguments:
            case "open_new", (Path(), int() as file):
                paths[file] = Path()
            case "rename", (Path(name="next.tmp"), Path() as path):
                paths[max(paths)] = run.writer.directory / path.name
            case "pwrite", (int() as file, bytes() as data, int() as offset) if offset:
                header = unpack_batch_header(data, offset=offset, seed=None)
                assert header is not None
                end = offset + BATCH_HEADER_BYTES + header.body_bytes
                items[file, offset] = Item(paths[file], offset, end, range(header.first_seq, header.next_seq))
    found = [item._replace(path=paths[file]) for (file, _), item in items.items()]
    return Image(disk.process_death(), run.writer.directory, found, dict(enumerate(run.stored, 1)))


def hurt(rng: random.Random, data: bytes) -> bytes:
    """Damage of a random kind at a random place."""
    at = rng.randrange(len(data))
    length = rng.choice((1, 16, 512, 4096, 8192))
    match rng.randrange(5):
        case 0:
            return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:at] + bytes(min(length, len(data) - at)) + data[at + length :]
        case 2:
            return data[:at] + rng.randbytes(min(length, len(data) - at)) + data[at + length :]
        case 3:
            return data[: rng.choice((at, at // 512 * 512, at // 4096 * 4096, 0))]
        case _:
            block = rng.randrange(-(-len(data) // 4096)) * 4096  # of another place of the same file
            return data[: at // 4096 * 4096] + data[block : block + 4096] + data[at // 4096 * 4096 + 4096 :]


def intact(before: bytes, after: bytes, start: int, end: int) -> bool:
    return before[start:end] == after[start:end]


def check(whole: Image, damaged: SimDisk) -> bool:
    """Read a damaged copy; returns whether something was lost and named."""
    segments = sorted({item.path for item in whole.items})
    before = {path: whole.disk.content(path) for path in segments}
    names = damaged.listdir(whole.directory)
    after = {path: damaged.content(path) for path in segments if path.name in names}
    readable = {
        path: any(intact(before[path], after[path], at, at + SEGMENT_HEADER_BYTES) for at in (0, HEADER_COPY_OFFSET))
        for path in after
    }
    good: set[int] = set()
    proof = max((int(path.stem) for path in after), default=0)  # everything before this number was synced
    for path, start, end, seqs in whole.items:
        if readable.get(path):
            if intact(before[path], after[path], start, end):
                good.update(seqs)
            if intact(before[path], after[path], start, start + BATCH_HEADER_BYTES):
                proof = max(proof, seqs.start)
    reader = new_reader(damaged, whole.directory)
    items = read_all(reader)
    assert reader.finished
    found = numbered(items)
    assert found == {seq: whole.entries[seq] for seq in sorted(good)}
    lost = {seq for item in items if isinstance(item, Lost) for seq in range(item.first_seq, item.last_seq + 1)}
    named = {seq for seq in range(1, proof) if seq not in good}
    if after and not readable[max(after)]:  # its salt is gone: what it held is known only by its own claims
        assert named < lost <= {*whole.entries, max(lost)} - good
    else:
        assert lost == named
    again = new_reader(damaged, whole.directory)
    assert read_all(again) == items, "the same, whoever reads and however often"
    return bool(lost)


def with_older(data: bytes, item: Item) -> bytes:
    """A segment in which the disk has lost a write: what stands there is sound, and older than what others build on."""
    header = unpack_segment_header(data)
    assert isinstance(header, SegmentHeader)
    synced = unpack_batch_header(data[item.start :], offset=item.start, seed=header.seed)
    assert synced is not None
    body = data[item.start + BATCH_HEADER_BYTES : item.end]
    older, written = pack_batch(
        body[:-1] + bytes([body[-1] ^ 1]),
        count=synced.count,
        offset=item.start,
        first_seq=synced.first_seq,
        chain=synced.chain,
        seed=header.seed,
    )
    assert older.end == synced.end
    return data[: item.start] + written + data[synced.end :]


def one_try(number: int) -> bool:
    """Damage and read one journal; returns whether something was lost and named. Raises Broken."""
    rng = random.Random(f"bit rot {number}")
    whole = image(number % 5, closed=number % 2 == 0)
    damaged = whole.disk.process_death()
    if rng.random() < 0.1:
        item = rng.choice([item for item in whole.items if item.seqs][:-1])
        damaged.damage(item.path, lambda data: with_older(data, item))
    else:
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            path = whole.directory / rng.choice(sorted({item.path.name for item in whole.items}))
            if damaged.content(path):
                damaged.damage(path, lambda data: hurt(rng, data))
    try:
        return check(whole, damaged)
    except AssertionError as error:
        raise Broken("I3", str(error).partition("\n")[0] or "a wrong row, or a loss that is not named") from error
    except (OSError, SignalkeepError, ValueError, LookupError, TypeError) as error:
        raise Broken("I6", f"{type(error).__name__}: {error}") from error


def search(tries: int, first: int, *, stop_at_first: bool = False) -> tuple[Counter[str], list[Broken]]:
    """What happened how often, and what broke."""
    counts: Counter[str] = Counter()
    broken: list[Broken] = []
    for number in range(first, first + tries):
        counts["damaged journals"] += 1
        try:
            counts["with entries named as lost"] += one_try(number)
        except Broken as error:
            broken.append(error)
            sys.stderr.write(f"try {number}: {error}\n    {REPLAY} --first {number} --tries 1\n")
            if stop_at_first:
                break
    return counts, broken


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--stop-at-first", action="store_true")
    parser.add_argument("--save", action="store_true", help="keep the result for docs/reliability.md")
    given = parser.parse_args()
    quiet()
    counts, broken = search(given.tries, given.first, stop_at_first=given.stop_at_first)
    print(", ".join(f"{number:,} {what}" for what, number in counts.items()) + f"; {len(broken)} broken")
    if given.save:
        save("bit_rot", f"make rot TRIES={given.tries}", counts={"broken": len(broken), **counts})
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
