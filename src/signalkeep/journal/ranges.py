"""What travels between machines: a range of a journal for a group of lanes, as one message. Pure.

A message says from where to where it speaks for its lanes, (after_seq, last_seq], so that whoever writes it can see by
the cursors whether it continues what the database has, repeats it, or leaves a hole. It carries its own checksum:
what is damaged or foreign is recognised before anything of it is believed. Reading never raises for bad bytes but
`BadRange`, which says what is wrong.

    message = magic, version u8, CRC u32 of what follows, MessagePack of `LaneRange`

All numbers are big-endian.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final
from uuid import UUID

import msgspec

from signalkeep.journal.lanes import lane_of_entry
from signalkeep.journal.record import Entry
from signalkeep.limits import LANES_MAX

MAGIC: Final = b"SKRANGE"
VERSION: Final = 1
_HEAD = struct.Struct(">7sBI")


class LostEntries(msgspec.Struct, frozen=True, array_like=True):
    """Entries of a journal that could not be read."""

    first_seq: int
    last_seq: int
    why: str
    evidence: str


class LaneRange(msgspec.Struct, frozen=True, array_like=True):
    """Everything that these lanes of a journal have in (after_seq, last_seq]; it may be nothing."""

    journal: UUID
    journal_lanes: int  # how many the journal has
    lanes: list[int]
    epoch: int  # grows whenever the sender goes back to the cursors
    after_seq: int
    last_seq: int
    entries: list[tuple[int, Entry]]  # by sequence number, growing
    lost: list[LostEntries]


class BadRange(Exception):
    """These bytes are no range of ours; the text says why."""


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[LaneRange] = msgspec.msgpack.Decoder(LaneRange)


def encode_range(message: LaneRange) -> bytes:
    body = _encoder.encode(message)
    return _HEAD.pack(MAGIC, VERSION, zlib.crc32(body)) + body


def is_ours(data: bytes) -> bool:
    """Whether it says of itself that it is such a message, sound or not."""
    return data.startswith(MAGIC)


def decode_range(data: bytes) -> LaneRange:
    """Raises BadRange."""
    if len(data) < _HEAD.size or not data.startswith(MAGIC):
        raise BadRange("it is no message of ours")
    _, version, crc = _HEAD.unpack_from(data)
    if version != VERSION:
        raise BadRange(f"its format is {version}, this program reads {VERSION}")
    body = memoryview(data)[_HEAD.size :]
    if zlib.crc32(body) != crc:
        raise BadRange("its checksum is wrong")
    try:
        message = _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise BadRange(f"it cannot be decoded: {error}") from error
    fault = _fault(message)
    if fault:
        raise BadRange(fault)
    return message


def _fault(message: LaneRange) -> str:
    """What a sound checksum does not show."""
    lanes = set(message.lanes)
    if not 0 < message.journal_lanes <= LANES_MAX or not lanes or not lanes <= set(range(message.journal_lanes)):
        return "its lanes are not those of a journal"
    if not 0 <= message.after_seq < message.last_seq:
        return "its range is empty"
    before = message.after_seq
    for seq, entry in message.entries:
        if not before < seq <= message.last_seq:
            return "its entries are not in order, or outside of its range"
        if lane_of_entry(entry, message.journal_lanes) not in lanes:
            return "it has entries of other lanes"
        before = seq
    if any(not message.after_seq < gap.first_seq <= gap.last_seq <= message.last_seq for gap in message.lost):
        return "its lost entries are outside of its range"
    return ""
