"""A toy protocol for gateway tests: lines, each event one.

`I number`  identity       `F text`  frame, answered `A text`
`H`         heartbeat      `B`       recoverable refusal      `X`  refusal that ends the stream
A datagram is lines, too; its frames are all of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from signalkeep.model import Context, Decoded, DeviceSettings, Outcome, Reason, Signal
from signalkeep.protocols.contract import AckClass, Event, Frame, Identified, Refused, Reply


class ToySession:
    def __init__(self) -> None:
        self._rest = b""

    @property
    def partial_bytes(self) -> int:
        return len(self._rest)

    def feed(self, data: bytes) -> Iterator[Event]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield self.event(line)

    def end(self) -> Iterator[Event]:
        if self._rest:
            yield Refused(Reason.TRUNCATED, self._rest, recoverable=False)

    def event(self, line: bytes) -> Event:
        kind, _, text = line.partition(b" ")
        match kind:
            case b"I":
                return Identified(text.decode(), b"hello;", b"go away;")
            case b"F":
                return Frame(text, {"n": "1"}, b"A " + text + b";")
            case b"H":
                return Reply(b"beat;")
            case b"E":
                raise RuntimeError("a mistake of ours")
        return Refused(Reason.UNFRAMABLE, line, recoverable=kind == b"B")


class ToyProtocol:
    name: str = "toy"
    default_port: int = 0
    transports: tuple[str, ...] = ("tcp", "udp")
    ack_class: AckClass = AckClass.PER_PACKET
    text: bool = True

    def session(self) -> ToySession:
        return ToySession()

    def datagram(self, data: bytes) -> Iterator[Event]:
        for line in data.splitlines():
            event = ToySession().event(line)
            if isinstance(event, Frame):
                event = Frame(data, {"transport": "udp"}, event.reply)
            yield event

    def decode(self, frame: bytes, device_number: str, context: Context, settings: DeviceSettings) -> list[Outcome]:
        return [Decoded(Signal(wire_time=None, device_time=None), frame)]


TOY = ToyProtocol()
