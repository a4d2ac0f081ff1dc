"""One device's conversation, without its socket: bytes in, entries to store and replies to send out.

Replies leave in the order of what they answer, and the reply of a frame leaves only after `stored` was called for it:
there is no other way for an acknowledgement to reach `outgoing`. After a refusal that is not recoverable nothing more
is read. Once the device has said who it is, entries tell of the conversation itself: opened, identified, closed. One
that never says so leaves no entry, so connecting alone fills no disk. No more is taken at a time than may be held: what
is left of the bytes waits in `waiting` until `more` is called.
Pure: the time comes with each call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final

import msgspec

from signalkeep import limits
from signalkeep.gateway.policy import FRAME_COST_MIN_BYTES, Policy
from signalkeep.journal.record import FrameEntry, SessionEntry
from signalkeep.model import Reason
from signalkeep.protocols.contract import Event, Frame, Identified, Refused, Reply, TrackerProtocol

NOBODY: Final[frozenset[str]] = frozenset()


class Held:
    """A reply in its place. `ready` when it may leave."""

    __slots__ = ("ready", "reply", "size_bytes")

    def __init__(self, reply: bytes, size_bytes: int, *, ready: bool = False) -> None:
        self.reply = reply
        self.size_bytes = size_bytes  # of the frame that it answers
        self.ready = ready


Taken = list[tuple[FrameEntry, Held] | tuple[SessionEntry, None]]


class Ending(msgspec.Struct, frozen=True):
    """The detail of a `closed` entry, as JSON."""

    why: str
    frames: int
    bytes: int  # as the protocol saw them: within TLS, behind a PROXY header
    seconds: float


class DeviceSession:
    """State of one connection. `count` is told of every refusal; `certified`: numbers that a certificate proves."""

    __slots__ = (
        "_address",
        "_authenticated",
        "_certified",
        "_count",
        "_device_number",
        "_ended",
        "_framing",
        "_noted",
        "_noted_number",
        "_opened_at_us",
        "_peer",
        "_policy",
        "_protocol_name",
        "_queue",
        "_received_at_us",
        "_waiting",
        "closing",
        "events",
        "frame_bytes_max",
        "frames",
        "greeted",
        "held_bytes",
        "partial",
        "received_bytes",
        "why",
    )

    def __init__(
        self,
        protocol: TrackerProtocol,
        *,
        address: str,
        peer: str,
        policy: Policy,
        count: Callable[[Reason], None],
        opened_at_us: int,
        frame_bytes_max: int = limits.FRAME_BYTES_MAX,
        certified: frozenset[str] = NOBODY,
    ) -> None:
        self._framing = protocol.session()
        self._protocol_name = protocol.name
        self._address = address
        self._peer = peer
        self._policy = policy
        self._count = count
        self._opened_at_us = opened_at_us
        self._certified = certified
        self._authenticated = False
        self._queue: list[Held] = []
        self._waiting: Iterator[Event] | None = None  # not taken yet, because enough is held
        self._received_at_us = 0
        self._ended = False  # the device has closed its side
        self._device_number: str | None = None
        self._noted = 0  # identities that entries tell of
        self._noted_number = ""
        self.frame_bytes_max = frame_bytes_max
        self.held_bytes = 0
        self.events = self.frames = self.received_bytes = 0
        self.partial = False  # a message was begun and is not complete
        self.closing = False  # read no more; close once nothing is held
        self.greeted = False  # the device has said something that we understood
        self.why = ""  # it ends, if it was not the device

    @property
    def held(self) -> int:
        """Replies that wait for the journal, or for one before them."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """More is held than one connection may have."""
        return (
            len(self._queue) >= limits.HELD_REPLIES_PER_CONNECTION_MAX
            or self.held_bytes >= limits.HELD_BYTES_PER_CONNECTION_MAX
        )

    @property
    def sated(self) -> bool:
        """Nothing more should be read for now."""
        return self.closing or self._waiting is not None or self.full

    @property
    def waiting(self) -> bool:
        """Something has been received and waits until less is held."""
        return self._waiting is not None

    def receive(self, data: bytes, received_at_us: int) -> Taken:
        """Take bytes from the device; returns what must now be stored, in order."""
        if self.closing:
            return []
        self.received_bytes += len(data)
        self._received_at_us = received_at_us
        return self._take(self._framing.feed(data))

    def more(self) -> Taken:
        """Go on with what was received, as far as it may be held now."""
        return [] if self.closing or self._waiting is None else self._take(iter(()))

    def end(self, received_at_us: int) -> Taken:
        """The device has closed its side; what is held can still be answered."""
        if self.closing:
            return []
        self._ended = True
        self._received_at_us = received_at_us
        return self._take(self._framing.end())

    def closed(self, at_us: int, why: str) -> SessionEntry | None:
        """The entry for the end, once; None if the device never said who it is. `why`: unless we know better."""
        if not self._noted:
            return None
        self._noted = 0
        self.closing = True
        seconds = round((at_us - self._opened_at_us) / 1_000_000, 3)
        ending = Ending(self.why or why, self.frames, self.received_bytes, seconds)
        return self._entry(at_us, "closed", msgspec.json.encode(ending).decode())

    def stored(self, held: Held) -> None:
        """The frame of this reply is on stable storage."""
        held.ready = True
        self.held_bytes -= held.size_bytes

    def outgoing(self) -> bytes:
        """The replies that may leave now."""
        queue, ready = self._queue, 0
        while ready < len(queue) and queue[ready].ready:
            ready += 1
        if not ready:
            return b""
        data = queue[0].reply if ready == 1 else b"".join([held.reply for held in queue[:ready]])
        del queue[:ready]
        return data

    def _take(self, events: Iterator[Event]) -> Taken:
        if self._waiting is not None:  # bytes enter the framing only when it is their turn
            events = chain(self._waiting, events)
        at_us, taken = self._received_at_us, Taken()
        if self._queue and self.full:
            self._waiting = events
            return taken
        for event in events:
            self.events += 1
            match event:
                case Frame():
                    self._frame(event, at_us, taken)
                case Identified():
                    self._identified(event, at_us, taken)
                case Reply(data=data):
                    self._say(data)
                case Refused(reason=reason, recoverable=recoverable):
                    if recoverable:
                        self._count(reason)
                    else:
                        self._refuse(reason)
            if self.closing:
                self._waiting = None
                return taken
            if self.full:
                self._waiting = events
                return taken
        self._waiting = None
        partial_bytes = self._framing.partial_bytes
        self.partial = partial_bytes > 0
        if partial_bytes > self.frame_bytes_max:
            self._refuse(Reason.OVERSIZED)
        self.closing = self.closing or self._ended
        return taken

    def _identified(self, event: Identified, at_us: int, taken: Taken) -> None:
        number = self._device_number = event.device_number
        self._authenticated = number in self._certified
        news = number not in ("", self._noted_number) and self._noted < limits.IDENTITIES_NOTED_MAX
        reason = self._policy.refusal(number)
        if reason is None and news:  # entries of unknown devices take their share of what such devices may leave
            reason = self._policy.admit(number, self._address, FRAME_COST_MIN_BYTES)
        if reason is not None:
            self._refuse(reason)
            self._say(event.refusal)
            return
        if news:
            self._noted_number = number
            if not self._noted:
                taken.append((self._entry(self._opened_at_us, "opened"), None))
            self._noted += 1
            taken.append((self._entry(at_us, "identified"), None))
        self.greeted = True
        self._say(event.reply)

    def _frame(self, event: Frame, received_at_us: int, taken: Taken) -> None:
        number, raw, size_bytes = self._device_number, event.raw, len(event.raw)
        assert number is not None, "a protocol names the device before its frames"
        if event.context:
            context_bytes = sum(len(key) + len(value) for key, value in event.context.items())
            assert context_bytes <= limits.CONTEXT_BYTES_MAX, "a protocol bounds what it tells its decoder"
        if size_bytes > self.frame_bytes_max:
            self._refuse(Reason.OVERSIZED)
            return
        reason = self._policy.admit(number, self._address, size_bytes)
        if reason is not None:
            self._refuse(reason)
            return
        entry = FrameEntry(
            received_at_us, self._protocol_name, number, self._peer, event.context, raw, self._authenticated
        )
        held = Held(event.reply, size_bytes)
        self._queue.append(held)
        self.held_bytes += size_bytes
        self.frames += 1
        taken.append((entry, held))

    def _entry(self, at_us: int, kind: str, detail: str = "") -> SessionEntry:
        return SessionEntry(at_us, kind, self._protocol_name, self._noted_number, self._peer, detail)

    def _refuse(self, reason: Reason) -> None:
        """Count it, read no more."""
        self._count(reason)
        self.why = self.why or reason
        self.closing = True

    def _say(self, data: bytes) -> None:
        if data:
            self._queue.append(Held(data, 0, ready=True))
