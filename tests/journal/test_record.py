"""The format: what is written can be read, and nothing else can, whatever the bytes."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalkeep.journal import record
from signalkeep.journal.reader import Lost
from signalkeep.journal.record import (
    BATCH_HEADER_BYTES,
    HEADER_COPY_OFFSET,
    SEGMENT_HEADER_BYTES,
    Entry,
    FrameEntry,
    SegmentHeader,
    SessionEntry,
    TallyEntry,
    UnknownVersion,
    body_is_sound,
    decode_entries,
    encode_entry,
    pack_batch,
    pack_segment_header,
    unpack_batch_header,
    unpack_segment_header,
)
from tests.journal.simdisk import SimDisk
from tests.journal.support import Run, entries_of, frame, new_disk, new_reader, numbered, read_all

HEADER = SegmentHeader(UUID(int=7), 64, b"s" * 16, 1000, 0xDEADBEEF, 1_714_521_600_000_000)

texts = st.text(st.characters(codec="utf-8"), max_size=20)
times = st.integers(-(1 << 62), 1 << 62)
entries: st.SearchStrategy[Entry] = st.one_of(
    st.builds(
        FrameEntry,
        times,
        texts,
        texts,
        texts,
        st.dictionaries(texts, texts, max_size=3),
        st.binary(max_size=300),
        st.booleans(),
    ),
    st.builds(SessionEntry, times, texts, texts, texts, texts, texts),
    st.builds(TallyEntry, times, st.dictionaries(texts, st.integers(0, 1 << 60), max_size=3)),
)


@given(st.lists(entries, max_size=8))
def test_entries_come_back_equal(items: list[Entry]) -> None:
    encoded = [encode_entry(item) for item in items]
    decoded = decode_entries(b"".join(encoded), len(items))
    assert decoded == [(item, len(data)) for item, data in zip(items, encoded, strict=True)]


@given(st.lists(entries, min_size=1, max_size=3), st.integers(-2, 2), st.data())
def test_a_body_that_is_not_exactly_its_entries_is_refused(items: list[Entry], off: int, data: st.DataObject) -> None:
    body = b"".join(map(encode_entry, items))
    assert off == 0 or decode_entries(body, max(0, len(items) + off)) is None
    assert decode_entries(body[: data.draw(st.integers(0, len(body) - 1))], len(items)) is None


@given(st.binary(max_size=300), st.integers(0, 5))
def test_any_bytes_are_entries_or_refused(body: bytes, count: int) -> None:
    decoded = decode_entries(body, count)
    assert decoded is None or len(decoded) == count


def test_entries_of_an_older_program_lack_what_was_added_at_the_end() -> None:
    data = msgspec.msgpack.encode([1, 5, "teltonika", "35", "p", {}, b"raw"])
    (decoded,) = decode_entries(struct.pack(">I", len(data)) + data, 1) or []
    assert decoded[0] == FrameEntry(5, "teltonika", "35", "p", {}, b"raw", authenticated=False)


def test_a_segment_header_survives_damage_of_one_copy() -> None:
    block = pack_segment_header(HEADER)
    assert len(block) == 4096
    found = unpack_segment_header(block)
    assert isinstance(found, SegmentHeader)
    assert found == msgspec.structs.replace(HEADER, crc=found.crc)
    for at in range(4096):
        assert unpack_segment_header(block[:at] + bytes([block[at] ^ 0x55]) + block[at + 1 :]) == found
    second = block[:0] + bytes(HEADER_COPY_OFFSET) + block[HEADER_COPY_OFFSET:]
    assert unpack_segment_header(second) == found
    for at in range(HEADER_COPY_OFFSET, HEADER_COPY_OFFSET + SEGMENT_HEADER_BYTES):
        assert unpack_segment_header(second[:at] + bytes([second[at] ^ 0x55]) + second[at + 1 :]) is None
    for length in range(HEADER_COPY_OFFSET):
        assert unpack_segment_header(second[:length]) is None


def test_a_newer_version_is_told_from_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "VERSION", 2)
    block = pack_segment_header(HEADER)
    monkeypatch.undo()
    assert unpack_segment_header(block) == UnknownVersion(2)
    old = pack_segment_header(HEADER)
    assert unpack_segment_header(old[:9] + b"\x02" + old[10:HEADER_COPY_OFFSET]) is None


@given(st.binary(max_size=9000), st.integers(1, 20000), st.integers(0, (1 << 32) - 1), st.integers(1, 1000))
def test_a_batch_is_believed_only_where_it_was_written_and_with_its_salt(
    body: bytes, count: int, seed: int, block: int
) -> None:
    header, data = pack_batch(body, count=count, offset=block * 4096, first_seq=9, chain=3, seed=seed)
    assert len(data) % 4096 == 0
    assert header.end == block * 4096 + len(data)
    assert unpack_batch_header(data, offset=block * 4096, seed=seed) == header
    assert body_is_sound(header, data[BATCH_HEADER_BYTES:][: len(body)], seed)
    assert unpack_batch_header(data, offset=(block + 1) * 4096, seed=seed) is None
    assert unpack_batch_header(data, offset=block * 4096, seed=seed ^ 1) is None
    for at in range(BATCH_HEADER_BYTES):
        damaged = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        assert unpack_batch_header(damaged, offset=block * 4096, seed=seed) is None
    if body:
        at = len(body) // 2
        assert not body_is_sound(header, body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :], seed)
        assert not body_is_sound(header, body[:-1], seed)
        assert not body_is_sound(header, body, seed ^ 1)


def forged_batch(offset: int, first_seq: int, *, seed: int = 0) -> bytes:
    """A batch as somebody would write it who knows the format and not the salt."""
    body = encode_entry(frame(31_337))
    packed = struct.pack(">4sIQIIII", b"SKBT", offset // 4096, first_seq, 1, len(body), 0, zlib.crc32(body, seed))
    return (packed + struct.pack(">I", zlib.crc32(packed, seed)) + body).ljust(4096, b"\0")


def carrying(blocks: bytes) -> FrameEntry:
    """A frame that puts `blocks` exactly on the blocks of the segment, when it is alone in its batch."""
    for padding in range(4096):
        candidate = frame(1, 0)
        candidate = msgspec.structs.replace(candidate, raw=bytes(padding) + blocks)
        if (BATCH_HEADER_BYTES + encode_entry(candidate).index(blocks)) % 4096 == 0:
            return candidate
    raise AssertionError("no padding fits")


async def journal_with(run: Run, *items: Entry) -> None:
    """Each entry in a batch of its own."""
    run.start()
    for item in items:
        run.append(item)
        await run.settle()


async def test_frames_that_contain_batches_are_never_taken_for_batches() -> None:
    """Forged ones, true ones of the same segment, and true ones of another segment at their own place."""
    other = new_disk()
    other_run = Run(other, seed=1)
    await journal_with(other_run, *[frame(number, 5_000) for number in range(1, 4)])
    first = first_segment(other, other_run)
    for seed in range(3):
        disk = new_disk()
        run = Run(disk, seed=2, segment_bytes=1 << 16)
        await journal_with(run, frame(1), frame(2))
        own = disk.content(first_segment(disk, run))
        forged = b"".join(
            [
                forged_batch(0x4000 + 4096 * 0, 1 << 40),
                forged_batch(0x5000, 6),
                own[4096:8192],
                other.content(first)[0x6000 : 0x6000 + 4096],
                forged_batch(0x8000, 9),
                own[8192 : 8192 + 4096],
            ]
        )
        poisoned = carrying(forged)
        for item in (poisoned, frame(3), frame(4)):
            run.append(item)
            await run.settle()
        await run.close()
        whole = read_all(new_reader(disk, run.writer.directory))
        assert entries_of(whole) == run.stored
        path = first_segment(disk, run)
        start = 3 * 4096  # the batch that holds the forged ones: lose its header, or its body
        at = (start + 5, start + 60, start + 4096 - 1)[seed]
        disk.damage(path, lambda data, at=at: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])  # type: ignore[misc]  # B023: bound now
        items = read_all(new_reader(disk, run.writer.directory))
        assert [(item.first_seq, item.last_seq) for item in items if isinstance(item, Lost)] == [(3, 3)]
        assert numbered(items) == {1: run.stored[0], 2: run.stored[1], 4: frame(3), 5: frame(4)}
        disk.damage(path, lambda data: data[: 3 * 4096 + 4096 * 7] + bytes(len(data) - 4096 * 10))
        torn = read_all(new_reader(disk, run.writer.directory))
        assert entries_of(torn) == run.stored[:2]
        assert not any(isinstance(item, Lost) for item in torn), "what follows a torn tail is forged"


def first_segment(disk: SimDisk, run: Run) -> Path:
    return run.writer.directory / "0000000000000001.seg"


def test_random_blocks_are_not_headers() -> None:
    rng = random.Random(0)
    for _ in range(2_000):
        assert unpack_segment_header(b"SKEEPSEG" + rng.randbytes(100)) is None
        assert unpack_batch_header(b"SKBT" + rng.randbytes(100), offset=4096, seed=0) is None
