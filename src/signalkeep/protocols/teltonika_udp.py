"""Teltonika over UDP: the same data as over TCP, each datagram with its identity, ids for its answer, and no checksum.

Source: the maker's public page "Teltonika Data Sending Protocols", UDP. Numbers are big-endian.

    datagram   u16 length of what follows, u16 packet id, u8 01, u8 AVL packet id, u16 length, that many digits (IMEI),
               data: u8 codec, u8 count, records, u8 count
    answer     u16 5, u16 packet id, u8 01, u8 AVL packet id, u8 count

The ids say which datagram is meant and change when it is sent again; nothing of them is kept in a record. A datagram
whose length does not fit is refused: nothing else shows that it is whole. A device that is not wanted gets no answer.
Pure; never raises on any bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from signalkeep import limits
from signalkeep.model import Context, Reason
from signalkeep.protocols.contract import Event, Frame, Identified, Refused
from signalkeep.protocols.teltonika_messages import MESSAGE_CODECS
from signalkeep.protocols.teltonika_records import DATA_BYTES_MIN

TRANSPORT: Final = "transport"
UDP: Final[Context] = {TRANSPORT: "udp"}
HEADER: Final = struct.Struct(">HHBBH")
ANSWER: Final = struct.Struct(">HHBBB")
LENGTH_BYTES: Final = 2
ANSWER_LENGTH: Final = ANSWER.size - LENGTH_BYTES


def events_of(raw: bytes) -> Iterator[Event]:
    """What a datagram means."""
    if len(raw) < HEADER.size:
        yield _refused(Reason.UNFRAMABLE, raw)
        return
    length, packet_id, fixed, avl_packet_id, identity_length = HEADER.unpack_from(raw)
    if length != len(raw) - LENGTH_BYTES:
        yield _refused(Reason.TRUNCATED if length > len(raw) - LENGTH_BYTES else Reason.UNFRAMABLE, raw)
        return
    at = HEADER.size + identity_length
    identity = raw[HEADER.size : at]
    if identity_length > limits.DEVICE_NUMBER_CHARS_MAX or not identity.isalnum():  # of bytes: ASCII
        yield _refused(Reason.BAD_IDENTITY, raw)
        return
    if len(raw) - at < DATA_BYTES_MIN:
        yield _refused(Reason.UNFRAMABLE, raw)
        return
    yield Identified(identity.decode("ascii"))
    codec, count = raw[at], raw[at + 1]
    answered = codec not in MESSAGE_CODECS
    reply = ANSWER.pack(ANSWER_LENGTH, packet_id, fixed, avl_packet_id, count) if answered else b""
    yield Frame(raw, UDP, reply)


def data_of(raw: bytes) -> bytes:
    """The data in a datagram, b"" if it is none: codec, count, records, count."""
    if len(raw) < HEADER.size:
        return b""
    *_, identity_length = HEADER.unpack_from(raw)
    return raw[HEADER.size + identity_length :]


def _refused(reason: Reason, raw: bytes) -> Refused:
    return Refused(reason, raw[: limits.REFUSED_SAMPLE_BYTES_MAX], recoverable=True)
