"""TCP: one Protocol object per connection, a thin shell around `DeviceSession`.

It reads, hands frames to the journal, and writes what the session says may leave. It pauses reading while the session
holds too much or the intake is shut, so what cannot be stored stays with the device. A frame that could not be stored
cuts the connection: the device keeps its records and sends them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.gateway.intake import Intake
from signalkeep.gateway.policy import Policy
from signalkeep.gateway.session import DeviceSession, Held
from signalkeep.journal.record import FrameEntry
from signalkeep.journal.writer import JournalWriter
from signalkeep.model import Reason
from signalkeep.protocols.contract import TrackerProtocol
from signalkeep.telemetry import get_logger

log = get_logger()


class Shared:
    """What all connections of a gateway process share."""

    def __init__(
        self, *, writer: JournalWriter, intake: Intake, policy: Policy, clock: Clock, connections_max: int
    ) -> None:
        self.writer = writer
        self.intake = intake
        self.policy = policy
        self.clock = clock
        self.connections_max = connections_max
        self.connections: set[TcpConnection] = set()
        self.refusals: dict[str, int] = {}

    def count(self, reason: Reason) -> None:
        """Count a refusal; the next tally in the journal takes it along."""
        self.refusals[reason] = self.refusals.get(reason, 0) + 1

    def now_us(self) -> int:
        """received_at: microseconds since 1970, UTC."""
        return round(self.clock.now().timestamp() * 1_000_000)


class TcpConnection(asyncio.Protocol):
    """One connection of a device."""

    def __init__(self, shared: Shared, protocol: TrackerProtocol) -> None:
        self._shared = shared
        self._protocol = protocol
        self._transport: asyncio.Transport | None = None
        self._session: DeviceSession | None = None
        self._paused = False
        self._write_blocked = False
        self.opened_at = self.heard_at = self._shut_at = shared.clock.monotonic()

    @property
    def greeted(self) -> bool:
        """A whole message has arrived."""
        return self._session is not None and self._session.greeted

    @property
    def held(self) -> int:
        return self._session.held if self._session else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._shared.connections) >= self._shared.connections_max:
            self._shared.count(Reason.CONNECTION_LIMIT)
            self._transport.abort()
            return
        address, port = (transport.get_extra_info("peername") or ("unknown", 0))[:2]
        self._session = DeviceSession(
            self._protocol,
            address=address,
            peer=f"{address}:{port}",
            policy=self._shared.policy,
            count=self._shared.count,
        )
        self._shared.connections.add(self)
        self._shared.intake.join(self)
        self._regulate()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._shared.clock.monotonic()
        self._guarded(lambda session: session.receive(data, self._shared.now_us()))

    def eof_received(self) -> bool:
        """The device closed its side (`nc` at the end of its input): answer what is held, then close."""
        self._guarded(lambda session: session.end(self._shared.now_us()))
        return self._transport is not None and not self._transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # whether it was cut or closed makes no difference: what is held is stored, unanswered
        self._shared.connections.discard(self)
        self._shared.intake.leave(self)
        self._transport = None

    def pause_writing(self) -> None:
        self._write_blocked = True
        self._regulate()

    def resume_writing(self) -> None:
        self._write_blocked = False
        self._regulate()

    def intake_changed(self) -> None:
        now = self._shared.clock.monotonic()
        if self._shared.intake.open:  # the time in which nobody read does not count against the device
            self.opened_at += now - self._shut_at
            self.heard_at += now - self._shut_at
        else:
            self._shut_at = now
        self._regulate()

    def give_up(self, reason: Reason) -> None:
        """Close a connection that has outstayed a deadline."""
        self._shared.count(reason)
        self.abort()

    def abort(self) -> None:
        """Cut the connection without another byte."""
        if self._transport is not None:
            self._transport.abort()

    def close_when_answered(self) -> None:
        """Read no more; close as soon as everything held has been answered."""
        if self._session is not None:
            self._session.closing = True
            self._flush()

    def _guarded(self, read: Callable[[DeviceSession], list[tuple[FrameEntry, Held]]]) -> None:
        """Run the session; a mistake of ours in it costs this connection, not the gateway."""
        if self._session is None or self._transport is None:
            return
        try:
            frames = read(self._session)
        except Exception:
            log.exception("session failed", protocol=self._protocol.name)
            self.give_up(Reason.GATEWAY_ERROR)
            return
        for entry, held in frames:
            self._store(entry, held)
        self._flush()

    def _store(self, entry: FrameEntry, held: Held) -> None:
        def done(durable: bool) -> None:
            if not durable:
                self.abort()
                return
            if self._session is not None:
                self._session.stored(held)
                self._flush()
            if not self._shared.intake.open:
                self._shared.intake.follow_pending(self._shared.writer.pending_bytes)

        self._shared.writer.append(entry, done)
        self._shared.intake.follow_pending(self._shared.writer.pending_bytes)

    def _flush(self) -> None:
        session, transport = self._session, self._transport
        if session is None or transport is None or transport.is_closing():
            return
        data = session.outgoing()
        if data:
            transport.write(data)
        if session.closing and not session.held:
            transport.close()
            return
        self._regulate()

    def _regulate(self) -> None:
        session, transport = self._session, self._transport
        if session is None or transport is None or transport.is_closing():
            return
        pause = session.full or session.closing or self._write_blocked or not self._shared.intake.open
        if self._paused and not pause and session.held > limits.HELD_REPLIES_PER_CONNECTION_MAX // 2:
            return  # hysteresis: resume at half
        if pause != self._paused:
            self._paused = pause
            (transport.pause_reading if pause else transport.resume_reading)()
