"""The format of the journal: entries, segment headers, batch headers. Pure: bytes in, values out.

    segment = header block, then batches; each starts on a block of limits.JOURNAL_BLOCK_BYTES
    batch   = header, then `count` entries (length u32, MessagePack), then zeros up to the next block
    seal    = a batch header with count 0: "everything before me is synced"

What is read is believed only if it is provably ours: every batch header carries its own place in the file and a CRC
that is seeded with the segment's random salt. So bytes that a device sent can never pass for a batch, not even true
batch bytes that were copied from elsewhere. Reading never raises for bad bytes: it gives None.

All numbers are big-endian. The segment header stands twice in its block, so that one bad sector loses nothing. Of it,
every version keeps: magic, version, its own length, and a CRC in its last four bytes.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final, TypeAlias
from uuid import UUID

import msgspec

from signalkeep.limits import JOURNAL_BLOCK_BYTES

VERSION: Final = 1
SALT_BYTES: Final = 16
SEGMENT_MAGIC: Final = b"SKEEPSEG"
BATCH_MAGIC: Final = b"SKBT"
HEADER_COPY_OFFSET: Final = JOURNAL_BLOCK_BYTES // 2

_PREFIX = struct.Struct(">8sHH")  # magic, version, length of the header with its CRC
_SEGMENT = struct.Struct(">8sHH16sI16sQIQ")  # ... journal, lanes, salt, first seq, previous chain, created at
_BATCH = struct.Struct(">4sIQIIII")  # magic, block, first seq, count, body bytes, chain, body CRC
_U32 = struct.Struct(">I")
SEGMENT_HEADER_BYTES: Final = _SEGMENT.size + _U32.size
BATCH_HEADER_BYTES: Final = _BATCH.size + _U32.size

assert SEGMENT_HEADER_BYTES <= HEADER_COPY_OFFSET


class FrameEntry(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A frame as it came, with what a decoder needs besides. `device_number` is the claimed identity."""

    received_at_us: int  # microseconds since 1970, UTC
    protocol: str
    device_number: str
    peer: str
    context: dict[str, str]
    raw: bytes
    authenticated: bool = False


class SessionEntry(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Something that happened to a connection: `kind` is opened, identified, closed or contact."""

    at_us: int
    kind: str
    protocol: str
    device_number: str
    peer: str
    detail: str


class TallyEntry(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Refusals by reason since the last tally."""

    at_us: int
    counts: dict[str, int]


Entry: TypeAlias = FrameEntry | SessionEntry | TallyEntry

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Entry] = msgspec.msgpack.Decoder(Entry)


class SegmentHeader(msgspec.Struct, frozen=True):
    """What stands at the beginning of a segment. `crc` is the chain value of its first batch."""

    journal_id: UUID
    lanes: int
    salt: bytes
    first_seq: int
    previous_chain: int  # header CRC of the last batch of the segment before, 0 in the first one
    created_at_us: int
    crc: int = 0  # filled in by unpacking

    @property
    def seed(self) -> int:
        """What the CRCs of this segment's batches start from."""
        return zlib.crc32(self.salt)


class UnknownVersion(msgspec.Struct, frozen=True):
    """A sound segment header of a version that this program does not know."""

    version: int


class BatchHeader(msgspec.Struct, frozen=True):
    """What stands at the beginning of a batch, or is a seal. `crc` is the chain value of the next one."""

    offset: int  # of this header in its segment, bytes
    first_seq: int
    count: int
    body_bytes: int
    chain: int
    body_crc: int
    crc: int

    @property
    def next_seq(self) -> int:
        return self.first_seq + self.count

    @property
    def end(self) -> int:
        """Where the next batch begins."""
        return self.offset + blocks_bytes(BATCH_HEADER_BYTES + self.body_bytes)


def blocks_bytes(length: int) -> int:
    """A length, rounded up to whole blocks."""
    return -(-length // JOURNAL_BLOCK_BYTES) * JOURNAL_BLOCK_BYTES


def encode_entry(entry: Entry) -> bytes:
    """An entry as it stands in a body, with its length."""
    data = _encoder.encode(entry)
    return _U32.pack(len(data)) + data


def decode_entries(body: bytes, count: int) -> list[tuple[Entry, int]] | None:
    """The entries of a body with the bytes that each takes; None if this is not `count` entries."""
    entries: list[tuple[Entry, int]] = []
    view, at = memoryview(body), 0
    try:
        for _ in range(count):
            (length,) = _U32.unpack_from(body, at)
            end = at + _U32.size + length
            entries.append((_decoder.decode(view[at + _U32.size : end]), end - at))
            at = end
    except (msgspec.DecodeError, struct.error):
        return None
    return entries if at == len(body) else None


def pack_segment_header(header: SegmentHeader) -> bytes:
    """The whole first block of a segment."""
    packed = _SEGMENT.pack(
        SEGMENT_MAGIC,
        VERSION,
        SEGMENT_HEADER_BYTES,
        header.journal_id.bytes,
        header.lanes,
        header.salt,
        header.first_seq,
        header.previous_chain,
        header.created_at_us,
    )
    packed += _U32.pack(zlib.crc32(packed))
    return packed.ljust(HEADER_COPY_OFFSET, b"\0") + packed.ljust(JOURNAL_BLOCK_BYTES - HEADER_COPY_OFFSET, b"\0")


def unpack_segment_header(block: bytes) -> SegmentHeader | UnknownVersion | None:
    """The header in a first block, from whichever copy is sound."""
    return _one_segment_header(block) or _one_segment_header(block[HEADER_COPY_OFFSET:])


def _one_segment_header(data: bytes) -> SegmentHeader | UnknownVersion | None:
    if len(data) < _PREFIX.size:
        return None
    magic, version, length = _PREFIX.unpack_from(data)
    if magic != SEGMENT_MAGIC or not _PREFIX.size + _U32.size <= length <= min(len(data), HEADER_COPY_OFFSET):
        return None
    (crc,) = _U32.unpack_from(data, length - _U32.size)
    if zlib.crc32(data[: length - _U32.size]) != crc:
        return None
    if version != VERSION:
        return UnknownVersion(version)
    _, _, _, journal_id, lanes, salt, first_seq, previous_chain, created_at_us = _SEGMENT.unpack_from(data)
    return SegmentHeader(UUID(bytes=journal_id), lanes, salt, first_seq, previous_chain, created_at_us, crc)


def pack_batch(
    body: bytes, *, count: int, offset: int, first_seq: int, chain: int, seed: int
) -> tuple[BatchHeader, bytes]:
    """A batch as it is written at `offset`, in whole blocks. Without entries it is a seal."""
    body_crc = zlib.crc32(body, seed)
    block = offset // JOURNAL_BLOCK_BYTES
    packed = _BATCH.pack(BATCH_MAGIC, block, first_seq, count, len(body), chain, body_crc)
    crc = zlib.crc32(packed, seed)
    header = BatchHeader(offset, first_seq, count, len(body), chain, body_crc, crc)
    padding = bytes(header.end - offset - BATCH_HEADER_BYTES - len(body))
    return header, b"".join((packed, _U32.pack(crc), body, padding))


def unpack_batch_header(data: bytes, *, offset: int, seed: int | None) -> BatchHeader | None:
    """The batch header that was written at this very place, or None. Without a seed the CRC is not checked."""
    if len(data) < BATCH_HEADER_BYTES or not data.startswith(BATCH_MAGIC):
        return None
    (crc,) = _U32.unpack_from(data, _BATCH.size)
    if seed is not None and zlib.crc32(data[: _BATCH.size], seed) != crc:
        return None
    _, block, first_seq, count, body_bytes, chain, body_crc = _BATCH.unpack_from(data)
    if block * JOURNAL_BLOCK_BYTES != offset:
        return None
    return BatchHeader(offset, first_seq, count, body_bytes, chain, body_crc, crc)


def body_is_sound(header: BatchHeader, body: bytes, seed: int) -> bool:
    """Whether these are the bytes that the header was written for."""
    return len(body) == header.body_bytes and zlib.crc32(body, seed) == header.body_crc
