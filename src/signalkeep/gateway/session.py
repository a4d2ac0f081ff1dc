"""One device's conversation, without its socket: bytes in, frames to store and replies to send out.

Replies leave in the order of what they answer, and the reply of a frame leaves only after `stored` was called for it:
there is no other way for an acknowledgement to reach `outgoing`. After a refusal that is not recoverable, or after
`fail`, nothing more is read. Pure: the time comes with each call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from signalkeep import limits
from signalkeep.gateway.policy import Policy
from signalkeep.journal.record import FrameEntry
from signalkeep.model import Reason
from signalkeep.protocols.contract import Event, Frame, Identified, Refused, Reply, TrackerProtocol


class Held(msgspec.Struct, eq=False):
    """A reply in its place. `ready` when it may leave."""

    reply: bytes
    size_bytes: int  # of the frame that it answers
    ready: bool = False


class DeviceSession:
    """State of one connection. `count` is told of every refusal."""

    def __init__(
        self,
        protocol: TrackerProtocol,
        *,
        address: str,
        peer: str,
        policy: Policy,
        count: Callable[[Reason], None],
    ) -> None:
        self._framing = protocol.session()
        self._protocol_name = protocol.name
        self._address = address
        self._peer = peer
        self._policy = policy
        self._count = count
        self._queue: deque[Held] = deque()
        self._device_number: str | None = None
        self.held_bytes = 0
        self.closing = False  # read no more; close once nothing is held
        self.greeted = False  # the device has said something that we understood

    @property
    def held(self) -> int:
        """Replies that wait for the journal, or for one before them."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """More is held than one connection may have."""
        return (
            self.held >= limits.HELD_REPLIES_PER_CONNECTION_MAX
            or self.held_bytes >= limits.HELD_BYTES_PER_CONNECTION_MAX
        )

    def receive(self, data: bytes, received_at_us: int) -> list[tuple[FrameEntry, Held]]:
        """Take bytes from the device; returns the frames that must now be stored, in order."""
        return [] if self.closing else self._take(self._framing.feed(data), received_at_us)

    def end(self, received_at_us: int) -> list[tuple[FrameEntry, Held]]:
        """The device has closed its side; what is held can still be answered."""
        frames = [] if self.closing else self._take(self._framing.end(), received_at_us)
        self.closing = True
        return frames

    def stored(self, held: Held) -> None:
        """The frame of this reply is on stable storage."""
        held.ready = True
        self.held_bytes -= held.size_bytes

    def outgoing(self) -> bytes:
        """The replies that may leave now."""
        ready = []
        while self._queue and self._queue[0].ready:
            ready.append(self._queue.popleft().reply)
        return b"".join(ready)

    def _take(self, events: Iterable[Event], received_at_us: int) -> list[tuple[FrameEntry, Held]]:
        frames: list[tuple[FrameEntry, Held]] = []
        for event in events:
            match event:
                case Frame():
                    self._frame(event, received_at_us, frames)
                case Identified():
                    self._identified(event)
                case Reply(data=data):
                    self._say(data)
                case Refused(reason=reason, recoverable=recoverable):
                    self._count(reason)
                    self.closing = self.closing or not recoverable
            if self.closing:
                break
        return frames

    def _identified(self, event: Identified) -> None:
        self._device_number = event.device_number
        reason = self._policy.refusal(event.device_number)
        if reason is None:
            self.greeted = True
            self._say(event.reply)
            return
        self._count(reason)
        self._say(event.refusal)
        self.closing = True

    def _frame(self, event: Frame, received_at_us: int, frames: list[tuple[FrameEntry, Held]]) -> None:
        assert self._device_number is not None, "a protocol names the device before its frames"
        context_bytes = sum(len(key) + len(value) for key, value in event.context.items())
        assert context_bytes <= limits.CONTEXT_BYTES_MAX, "a protocol bounds what it tells its decoder"
        reason = self._policy.admit(self._device_number, self._address, len(event.raw))
        if reason is not None:
            self._count(reason)
            self.closing = True
            return
        entry = FrameEntry(
            received_at_us=received_at_us,
            protocol=self._protocol_name,
            device_number=self._device_number,
            peer=self._peer,
            context=event.context,
            raw=event.raw,
        )
        held = Held(event.reply, len(event.raw))
        self._queue.append(held)
        self.held_bytes += held.size_bytes
        frames.append((entry, held))

    def _say(self, data: bytes) -> None:
        if data:
            self._queue.append(Held(data, 0, ready=True))
