"""The protocol `teltonika`: FMx, TAT and GH trackers over TCP and UDP, binary, every packet acknowledged by its count.

Source: the maker's public page "Teltonika Data Sending Protocols". Numbers are big-endian. On one connection come

    identity    u16 length, that many digits (IMEI)                 answered 01, or 00 if the device is not wanted
    packet      u32 0, u32 length of the data, data, u32 CRC        answered u32 count, the first of data's two
                data: u8 codec, u8 count, records, u8 count         codecs 12 to 15: not answered
    ff          to keep the connection open                         not answered

The count is all that a device understands: with any other answer, or none, it sends the packet again for ever. So
whatever is framed and has a right checksum gets its own count back, also with an unknown codec or with two counts that
differ: it is in the journal, and the decoder sets aside what it cannot read. Of what is refused, only a packet with a
wrong checksum lets the stream go on: its length brought us to the next one. The device may name itself again.

Codecs 8, 8 extended, 16, 7 and 12 to 15 are decoded, see `teltonika_records`; datagrams are in `teltonika_udp`. Never
logs, never raises on any bytes, never looks at a clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from signalkeep import limits
from signalkeep.model import Context, DeviceSettings, Outcome, Reason, Undecodable
from signalkeep.protocols.buffer import ReceiveBuffer
from signalkeep.protocols.checksum import crc16_ibm
from signalkeep.protocols.contract import AckClass, Event, Frame, Identified, Refused
from signalkeep.protocols.teltonika_encoder import TeltonikaEncoder
from signalkeep.protocols.teltonika_messages import MESSAGE_CODECS
from signalkeep.protocols.teltonika_records import (
    CHECKSUM_BYTES,
    DATA_BYTES_MIN,
    HEADER_BYTES,
    decode_data,
    decode_frame,
)
from signalkeep.protocols.teltonika_udp import TRANSPORT, UDP, data_of, events_of

ACCEPTED: Final = b"\x01"
REFUSED: Final = b"\x00"
KEEP_ALIVE: Final = b"\xff"
IDENTITY_LENGTH_BYTES: Final = 2
PREAMBLE: Final = bytes(4)


class TeltonikaSession:
    """One connection. What is refused is shown as far as it decided, so that cuts make no difference."""

    __slots__ = ("_buffer", "_closed", "_identified")

    def __init__(self) -> None:
        self._buffer = ReceiveBuffer(limits.FRAME_BYTES_MAX)
        self._identified = False
        self._closed = False

    @property
    def partial_bytes(self) -> int:
        """See the contract."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take the next bytes; see the contract."""
        if self._closed:
            return
        self._buffer.feed(data)
        while len(self._buffer) and (event := self._next()) is not None:
            yield event

    def end(self) -> Iterator[Event]:
        """The peer has closed its side: what is not complete never will be."""
        if not self._closed and len(self._buffer):
            rest = self._buffer.peek(min(len(self._buffer), limits.FRAME_BYTES_MAX)) or b""
            is_packet = rest.startswith(PREAMBLE) and len(rest) > HEADER_BYTES + DATA_BYTES_MIN
            yield self._refused(Reason.TRUNCATED, rest, Frame(rest) if is_packet else None)
        self._closed = True

    def _next(self) -> Event | None:
        """The event at the front of the buffer; None if more bytes are needed."""
        head = self._buffer.head(HEADER_BYTES)
        while head.startswith(KEEP_ALIVE):
            self._buffer.discard(1)
            head = self._buffer.head(HEADER_BYTES)
        if len(head) < IDENTITY_LENGTH_BYTES:
            return None
        if head.startswith(PREAMBLE[:IDENTITY_LENGTH_BYTES]):
            return self._packet(head)
        return self._identity(int.from_bytes(head[:IDENTITY_LENGTH_BYTES]))

    def _identity(self, length: int) -> Event | None:
        if length > limits.DEVICE_NUMBER_CHARS_MAX:
            reason = Reason.UNFRAMABLE if self._identified else Reason.BAD_IDENTITY
            return self._refused(reason, length.to_bytes(IDENTITY_LENGTH_BYTES))
        raw = self._buffer.take(IDENTITY_LENGTH_BYTES + length)
        if raw is None:
            return None
        device_number = raw[IDENTITY_LENGTH_BYTES:]
        if not device_number.isalnum():  # of bytes: ASCII letters and digits
            return self._refused(Reason.BAD_IDENTITY, raw)
        self._identified = True
        return Identified(device_number.decode("ascii"), ACCEPTED, REFUSED)

    def _packet(self, header: bytes) -> Event | None:
        preamble = header[: len(PREAMBLE)]
        if len(preamble) < len(PREAMBLE):
            return None
        if preamble != PREAMBLE:  # an identity without a digit, or no packet
            return self._refused(Reason.UNFRAMABLE if self._identified else Reason.BAD_IDENTITY, preamble)
        if not self._identified:
            return self._refused(Reason.NO_IDENTITY, preamble)
        if len(header) < HEADER_BYTES:
            return None
        data_bytes = int.from_bytes(header[len(PREAMBLE) :])
        if data_bytes < DATA_BYTES_MIN:
            return self._refused(Reason.UNFRAMABLE, header)
        if HEADER_BYTES + data_bytes + CHECKSUM_BYTES > limits.FRAME_BYTES_MAX:
            return self._refused(Reason.OVERSIZED, header)
        raw = self._buffer.take(HEADER_BYTES + data_bytes + CHECKSUM_BYTES)
        return None if raw is None else checked(raw)

    def _refused(self, reason: Reason, sample: bytes, frame: Frame | None = None) -> Refused:
        self._closed = True
        self._buffer.discard(len(self._buffer))
        return Refused(reason, sample[: limits.REFUSED_SAMPLE_BYTES_MAX], recoverable=False, frame=frame)


def checked(raw: bytes) -> Frame | Refused:
    """A whole packet as a frame, or what it would have been if its checksum is wrong."""
    data = raw[HEADER_BYTES:-CHECKSUM_BYTES]
    codec, count = data[0], data[1]
    frame = Frame(raw, reply=b"" if codec in MESSAGE_CODECS else count.to_bytes(4))
    if int.from_bytes(raw[-CHECKSUM_BYTES:]) == crc16_ibm(data):
        return frame
    return Refused(Reason.CHECKSUM, raw[: limits.REFUSED_SAMPLE_BYTES_MAX], recoverable=True, frame=frame)


class TeltonikaProtocol:
    """As the registry holds it."""

    name = "teltonika"
    default_port = 5027
    transports: tuple[str, ...] = ("tcp", "udp")
    ack_class = AckClass.PER_PACKET
    text = False

    def session(self) -> TeltonikaSession:
        return TeltonikaSession()

    def datagram(self, data: bytes) -> Iterator[Event]:
        return events_of(data)

    def decode(self, frame: bytes, device_number: str, context: Context, settings: DeviceSettings) -> list[Outcome]:
        """All that is needed is in the frame, and in the context how it came: times are UTC."""
        del device_number, settings
        if context.get(TRANSPORT) != UDP[TRANSPORT]:
            return decode_frame(frame)
        data = data_of(frame)
        if len(data) < DATA_BYTES_MIN:
            return [Undecodable(Reason.BAD_FORMAT, "the datagram is too short", frame)]
        return decode_data(data)


TELTONIKA: Final = TeltonikaProtocol()
TELTONIKA_ENCODER: Final = TeltonikaEncoder()
