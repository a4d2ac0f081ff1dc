"""Bit rot: any byte of any segment flipped, zeroed, overwritten or cut off, and segments that are gone.

The reader always starts, returns exactly the entries of undamaged batches, and names what is lost with its exact range
as soon as anything sound follows. What was damaged is computed here from the bytes that the writer wrote.
tests/faults/bit_rot.py does it any number of times, at random; here are the cases that have names.
"""

from __future__ import annotations

import errno
import random
from pathlib import Path

import msgspec
import pytest

from signalkeep.errors import SyncFailed
from signalkeep.journal import reader as reader_module
from signalkeep.journal import record
from signalkeep.journal.reader import Chunk, Lost
from signalkeep.journal.record import (
    BATCH_HEADER_BYTES,
    Entry,
    SegmentHeader,
    pack_batch,
    unpack_batch_header,
    unpack_segment_header,
)
from tests.faults.bit_rot import Image, Item, check, image, with_older
from tests.journal.simdisk import Crash, SimDisk
from tests.journal.support import EVIDENCE, Run, new_disk, new_reader, numbered, read_all


@pytest.mark.parametrize("closed", [False, True])
def test_every_segment_missing_empty_or_short(closed: bool) -> None:
    whole = image(2, closed)
    for path in sorted({item.path for item in whole.items}):
        for kept_bytes in (None, 0, 1, 100, 4096, 4097, 8192, 12_000):
            damaged = whole.disk.process_death()
            if kept_bytes is None:
                damaged.unlink(path)
            else:
                damaged.damage(path, lambda data, kept=kept_bytes: data[:kept])  # type: ignore[misc]  # B023: bound now
            check(whole, damaged)
    damaged = whole.disk.process_death()
    for path in {item.path for item in whole.items}:
        damaged.unlink(path)
    reader = new_reader(damaged, whole.directory)
    assert reader.read(1, 1) == []
    assert reader.finished


def broken(whole: Image, number: int) -> tuple[SimDisk, Item]:
    """A copy with one byte of one batch's body flipped."""
    item = [item for item in whole.items if item.seqs][number]
    damaged = whole.disk.process_death()
    at = item.end - 1
    damaged.damage(item.path, lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    return damaged, item


@pytest.mark.parametrize("closed", [False, True])
def test_a_batch_that_is_not_the_one_that_was_synced_is_not_believed(closed: bool) -> None:
    """The disk has lost a write: what stands there is sound, and older than what others build on."""
    whole = image(1, closed)
    batches = [item for item in whole.items if item.seqs]
    for item in batches[:-1]:
        damaged = whole.disk.process_death()
        damaged.damage(item.path, lambda data, item=item: with_older(data, item))  # type: ignore[misc]  # B023: bound now
        items = read_all(new_reader(damaged, whole.directory))
        (lost,) = [x for x in items if isinstance(x, Lost)]
        assert range(lost.first_seq, lost.last_seq + 1) == item.seqs
        assert lost.why == "corrupt"
        assert numbered(items) == {seq: x for seq, x in whole.entries.items() if seq not in item.seqs}


def test_damaged_bytes_are_copied_aside_once() -> None:
    whole = image(0, closed=True)
    damaged, item = broken(whole, 3)
    for _ in range(3):
        (lost,) = [x for x in read_all(new_reader(damaged, whole.directory)) if isinstance(x, Lost)]
        assert range(lost.first_seq, lost.last_seq + 1) == item.seqs
        assert lost.why == "corrupt"
        assert Path(lost.evidence).parent == EVIDENCE
        assert damaged.listdir(EVIDENCE) == [Path(lost.evidence).name]
        copied = damaged.content(Path(lost.evidence))
        assert damaged.content(item.path)[item.start :].startswith(copied)
        assert len(copied) >= item.end - item.start
    at = item.end - 1
    damaged.damage(item.path, lambda data: data[:at] + bytes([data[at] ^ 3]) + data[at + 1 :])
    read_all(new_reader(damaged, whole.directory))
    assert len(damaged.listdir(EVIDENCE)) == 2, "other bytes are other evidence"


def test_a_crash_while_copying_aside_changes_nothing() -> None:
    whole = image(0, closed=True)
    damaged, _ = broken(whole, 3)
    expected = read_all(new_reader(damaged.process_death(), whole.directory))
    interrupted: list[SimDisk] = []
    rng = random.Random(0)
    damaged.after = lambda _: interrupted.extend(damaged.power_loss(rng, crash) for crash in Crash for _ in range(3))
    read_all(new_reader(damaged, whole.directory))
    assert len(interrupted) > 50
    for found in interrupted:
        assert read_all(new_reader(found, whole.directory)) == expected
        (lost,) = [item for item in expected if isinstance(item, Lost)]
        assert found.content(Path(lost.evidence)) == damaged.content(Path(lost.evidence))
        assert found.listdir(EVIDENCE) == [Path(lost.evidence).name]


@pytest.mark.parametrize("call", ["mkdir", "open_new", "pwrite", "sync", "rename", "sync_directory"])
def test_reading_goes_on_when_the_evidence_cannot_be_kept(call: str) -> None:
    whole = image(0, closed=True)
    damaged, item = broken(whole, 3)

    def fail(name: str) -> None:
        if name == call:
            raise OSError(errno.ENOSPC, "no room")

    damaged.before = fail
    items = read_all(new_reader(damaged, whole.directory))
    (lost,) = [x for x in items if isinstance(x, Lost)]
    assert lost == Lost(item.seqs.start, item.seqs.stop - 1, "corrupt", "")
    assert numbered(items).keys() == whole.entries.keys() - set(item.seqs)


@pytest.mark.parametrize("closed", [False, True])
def test_a_reader_that_is_refused_once_skips_nothing(closed: bool) -> None:
    """Each operation of a whole reading fails once, in turn."""
    whole = image(0, closed)
    damaged, _ = broken(whole, 3)
    expected = numbered(read_all(new_reader(damaged.process_death(), whole.directory)))
    refused = 0
    for failing in range(1_000):
        disk = damaged.process_death()
        reader = new_reader(disk, whole.directory)
        left = failing

        def fail(_: str) -> None:
            nonlocal left
            left -= 1
            if left == -1:
                raise OSError(errno.EMFILE, "too many open files")

        disk.before = fail
        items: list[Chunk | Lost] = []
        while not reader.finished:
            try:
                items += reader.read(5, 1 << 20)
            except OSError:
                refused += 1
        assert numbered(items) == expected
        if left >= 0:
            break
    assert failing > 50
    assert refused > 20


def test_what_the_disk_cannot_read_is_damage() -> None:
    whole = image(0, closed=True)
    item = [item for item in whole.items if item.seqs][3]

    class Unreadable(SimDisk):
        def pread(self, file: int, length: int, offset: int) -> bytes:
            if self._open[file] is bad and offset < item.end and offset + length > item.start:
                raise OSError(errno.EIO, "bad sector")
            return super().pread(file, length, offset)

    disk = Unreadable()
    disk._root = whole.disk.process_death()._root
    bad = disk._file(item.path)
    items = read_all(new_reader(disk, whole.directory))
    assert numbered(items).keys() == whole.entries.keys() - set(item.seqs)
    (lost,) = [x for x in items if isinstance(x, Lost)]
    assert range(lost.first_seq, lost.last_seq + 1) == item.seqs


async def test_damage_in_a_living_journal_is_named_when_it_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "LOOKS_BEFORE_SEARCH", 4)
    disk = new_disk()
    run = Run(disk, seed=9)
    run.start()
    await run.go(2)
    (path,) = [run.writer.directory / name for name in disk.listdir(run.writer.directory) if name.endswith(".seg")]
    disk.damage(path, lambda data: data[:4096] + b"\xff" * (len(data) - 4096))  # with the seal, which would prove it
    reader = new_reader(disk, run.writer.directory)
    for _ in range(20):
        assert reader.read(10, 10_000) == [], "it might be a write in progress"
    await run.go(60)
    items = [item for _ in range(20) for item in read_all(reader)]
    (lost,) = [item for item in items if isinstance(item, Lost)]
    assert lost.first_seq == 1
    assert list(numbered(items)) == list(range(lost.last_seq + 1, 63))
    assert reader.alive
    await run.close()


async def unsealed() -> tuple[SimDisk, Run]:
    """The writer died when its first batch was written and not yet synced."""
    disk = new_disk()
    run = Run(disk, seed=9)
    run.start()
    states: list[SimDisk] = []
    disk.before = lambda name: states.append(disk.process_death()) if name == "datasync" else None
    await run.go(1)
    await run.close()
    return states[0], run


@pytest.mark.parametrize("chain", [0, 1])
async def test_a_last_batch_that_does_not_continue_what_stands_before_it_is_no_batch(chain: int) -> None:
    disk, run = await unsealed()
    path = run.writer.directory / "0000000000000001.seg"
    data = disk.content(path)
    header = unpack_segment_header(data)
    assert isinstance(header, SegmentHeader)
    batch = unpack_batch_header(data[4096:], offset=4096, seed=header.seed)
    assert batch is not None
    body = data[4096 + BATCH_HEADER_BYTES :][: batch.body_bytes]
    _, written = pack_batch(body, count=1, offset=4096, first_seq=1, chain=(header.crc, 123)[chain], seed=header.seed)
    disk.damage(path, lambda data: data[:4096] + written + data[4096 + len(written) :])
    reader = new_reader(disk, run.writer.directory)
    assert numbered(reader.read(10, 10_000)) == ({1: run.stored[0]}, {})[chain]
    assert reader.read(1, 1) == []
    assert reader.finished


async def test_a_sync_that_fails_for_the_reader_is_not_hidden() -> None:
    disk, run = await unsealed()

    def fail(name: str) -> None:
        if name == "datasync":
            raise OSError(errno.EIO, "broken")

    disk.before = fail
    reader = new_reader(disk, run.writer.directory)
    with pytest.raises(SyncFailed):
        reader.read(10, 10_000)
    disk.before = lambda _: None
    reader.seek(0)
    with pytest.raises(SyncFailed):
        reader.read(10, 10_000)


def test_entries_that_cannot_be_decoded_are_named_and_kept() -> None:
    """A sound batch of a program that knows other kinds of entries."""
    whole = image(0, closed=True)
    item = [item for item in whole.items if item.seqs][2]
    damaged = whole.disk.process_death()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "_decoder", Refusing(whole.entries[item.seqs.start]))
        items = read_all(new_reader(damaged, whole.directory))
    (lost,) = [x for x in items if isinstance(x, Lost)]
    assert (range(lost.first_seq, lost.last_seq + 1), lost.why) == (item.seqs, "undecodable")
    assert (
        damaged.content(Path(lost.evidence))[: item.end - item.start]
        == damaged.content(item.path)[item.start : item.end]
    )
    assert numbered(items) == {seq: x for seq, x in whole.entries.items() if seq not in item.seqs}


class Refusing:
    """A decoder that does not know one entry."""

    def __init__(self, unknown: Entry) -> None:
        self._unknown = unknown
        self._decoder: msgspec.msgpack.Decoder[Entry] = msgspec.msgpack.Decoder(Entry)

    def decode(self, data: bytes) -> Entry:
        decoded: Entry = self._decoder.decode(data)
        if decoded == self._unknown:
            raise msgspec.ValidationError("unknown")
        return decoded
