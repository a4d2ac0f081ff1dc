"""The contract of a protocol: a framing session, a decoder, and (optional) an encoder.

A *framing session* cuts one conversation into events. It is fed bytes and yields the same events however the bytes
were cut. It checks lengths and checksums and learns the identity; it does not decode records.

    Identified   the device has said who it is; `reply` goes out if the gateway accepts it, `refusal` if not
    Frame        one whole message of the device identified last; `reply` is held until the frame is durable
    Reply        an answer that promises nothing (heartbeats); keeps its place behind held replies
    Refused      bytes that are no message; recoverable: the stream goes on behind them, else it must be closed

A protocol that also speaks UDP (`transports` has "udp") says of each *datagram* alone what it means, with the same
events: `Identified`, then its frames, or `Refused`. A frame's `raw` is the whole datagram; what the decoder must know
besides, that it came this way, is in the frame's context. A record gives the same `raw_record` over either transport.

A *decoder* turns one frame into records: `Decoded(signal, raw_record)` or `Undecodable(reason, raw_record)`. Each frame
decodes alone, from its bytes, the device number, its context and the device's settings. One bad record never takes
its neighbours along; arbitrary bytes give only these values, in time linear in their length.

Bounded memory: a session never holds more than `limits.FRAME_BYTES_MAX` plus one piece that it was fed.
Every protocol file must pass tests/contracts/test_protocol_contract.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Protocol, TypeAlias, runtime_checkable

import msgspec

from signalkeep.model import Context, DeviceSettings, Outcome, Reason, Signal


class Identified(msgspec.Struct, frozen=True):
    device_number: str  # "" only where a protocol's frames may come without one (json)
    reply: bytes = b""
    refusal: bytes = b""


class Frame(msgspec.Struct, frozen=True):
    raw: bytes
    context: Context = msgspec.field(default_factory=dict)
    reply: bytes = b""


class Reply(msgspec.Struct, frozen=True):
    data: bytes


class Refused(msgspec.Struct, frozen=True):
    reason: Reason
    sample: bytes  # the first bytes of what was refused, at most limits.REFUSED_SAMPLE_BYTES_MAX
    recoverable: bool
    frame: Frame | None = None  # a wrong checksum, or a message cut short: what can still be tried (lenient decoding)


Event: TypeAlias = Identified | Frame | Reply | Refused


class AckClass(StrEnum):
    """When the device learns that its data are safe."""

    PER_PACKET = "per packet"
    WHEN_ENABLED = "when enabled"
    LOGIN_ONLY = "login or heartbeat only"
    NEVER = "never"


class Session(Protocol):
    """One conversation. After a non-recoverable `Refused` nothing more is yielded."""

    @property
    def partial_bytes(self) -> int:
        """How much of a message that was begun and is not complete has come; 0 between messages."""
        ...

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take the next bytes, whatever their cut; must be iterated to its end before the next call."""
        ...

    def end(self) -> Iterator[Event]:
        """The peer has closed its side: yield what the rest of the bytes still means."""
        ...


class TrackerProtocol(Protocol):
    """A protocol as the registry holds it."""

    name: str
    default_port: int
    transports: tuple[str, ...]  # of "tcp", "udp"
    ack_class: AckClass
    text: bool  # messages are text, one a line (for the decode command)

    def session(self) -> Session: ...

    def decode(self, frame: bytes, device_number: str, context: Context, settings: DeviceSettings) -> list[Outcome]: ...


class Decodes(Protocol):
    """The half of a protocol that ingest needs."""

    def decode(self, frame: bytes, device_number: str, context: Context, settings: DeviceSettings) -> list[Outcome]: ...


@runtime_checkable
class DatagramProtocol(TrackerProtocol, Protocol):
    """A protocol that also speaks UDP."""

    def datagram(self, data: bytes) -> Iterator[Event]:
        """What one datagram means; depends on nothing but its bytes."""
        ...


class Encoder(Protocol):
    """The device's side, for the simulator and for round-trip tests."""

    def encode_login(self, device_number: str) -> bytes:
        """What a device says first on a connection; may be empty."""
        ...

    def encode_frame(self, device_number: str, signals: list[Signal]) -> bytes:
        """One packet with these records."""
        ...


@runtime_checkable
class DatagramEncoder(Encoder, Protocol):
    """The device's side of UDP."""

    def encode_datagram(self, device_number: str, signals: list[Signal], number: int) -> bytes:
        """One datagram with these records, the `number`-th that the device sends."""
        ...
