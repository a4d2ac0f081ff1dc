"""TCP: one Protocol object per connection, a thin shell around `DeviceSession`.

    transport -> [PROXY header] -> [TLS] -> session -> journal, and answers the way back

It reads, hands entries to the journal, and writes what the session says may leave. It pauses reading while the session
holds too much, the device does not take its answers, or the intake is shut, so what cannot be stored stays with the
device. A frame that could not be stored cuts the connection: the device keeps its records and sends them again.
No connection takes more of a turn than one read of limits.READ_BYTES_MAX and one fill of what it may hold, so those
that pour do not keep the others waiting. Ten thousand idle ones cost little: no task, no timer and no closure per
connection; deadlines are looked at from outside, once a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import cast

import msgspec

from signalkeep import limits
from signalkeep.gateway import proxy_header
from signalkeep.gateway.session import NOBODY, DeviceSession, Held, Taken
from signalkeep.gateway.shared import Shared
from signalkeep.gateway.tls import TlsChannel, TlsFailed, TlsSource
from signalkeep.model import Reason
from signalkeep.protocols.contract import TrackerProtocol
from signalkeep.sections import Network
from signalkeep.telemetry import get_logger

log = get_logger()

# Where the loop puts what it reads. One for all: it is emptied before anything else is read.
_read_buffer = memoryview(bytearray(limits.READ_BYTES_MAX))


class Port(msgspec.Struct, frozen=True):
    """What the connections of one listening port have in common."""

    shared: Shared
    protocol: TrackerProtocol
    tls: TlsSource | None = None
    proxy_from: tuple[Network, ...] = ()  # not empty: a header comes first, and only from these

    def connection(self) -> TcpConnection:
        """For a connection that comes in."""
        return TcpConnection(self)


class TcpConnection(asyncio.BufferedProtocol):
    """One connection of a device."""

    __slots__ = (
        "_address",
        "_blocked_at",
        "_header",
        "_opened_at_us",
        "_paused_at",
        "_peer",
        "_port",
        "_session",
        "_shared",
        "_tls",
        "_transport",
        "_why",
        "begun_at",
        "heard_at",
        "opened_at",
    )

    def __init__(self, port: Port) -> None:
        self._port = port
        self._shared = port.shared
        self._transport: asyncio.Transport | None = None
        self._session: DeviceSession | None = None
        self._header: bytes | None = b"" if port.proxy_from else None  # None: not awaited, or not any more
        self._tls: TlsChannel | None = None
        self._address = self._peer = self._why = ""
        self._opened_at_us = 0
        self._paused_at: float | None = None
        self._blocked_at: float | None = None  # since then the device has not taken its answers
        self.begun_at: float | None = None  # a message that is not complete
        self.opened_at = self.heard_at = port.shared.monotonic()

    @property
    def held(self) -> int:
        return self._session.held if self._session is not None else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        shared = self._shared
        self._transport = cast(asyncio.Transport, transport)
        self._opened_at_us = shared.now_us()
        shared.stats.connections_opened += 1
        if len(shared.connections) >= shared.settings.connections_max:
            self.give_up(Reason.CONNECTION_LIMIT)
            return
        self._transport.set_write_buffer_limits(high=limits.UNREAD_BYTES_PER_CONNECTION_MAX)
        address, number = (transport.get_extra_info("peername") or ("unknown", 0))[:2]
        if self._header is None:
            if not self._enter(address, number):
                return
        elif not any(ip_address(address) in network for network in self._port.proxy_from):
            self.give_up(Reason.PROXY_HEADER)
            return
        else:
            self._peer = f"{address}:{number}"
        shared.connections[self] = None
        shared.intake.join(self)
        self._regulate()

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return _read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(_read_buffer[:nbytes])
        now = self._shared.monotonic()
        self._shared.stats.bytes_received += len(data)
        if self._header is not None:
            data = self._behind_header(data)
        if self._tls is not None and data:
            data = self._decrypted(data)
        if data:
            self.heard_at = now
            self._receive(data, now)
        if self._tls is not None and self._tls.finished:
            self._end()

    def eof_received(self) -> bool:
        """The device closed its side (`nc` at the end of its input): answer what is held, then close."""
        if self._header:
            self.give_up(Reason.PROXY_HEADER)
        self._end()
        return self._session is not None and self._transport is not None and not self._transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        """What is held is stored, unanswered."""
        shared = self._shared
        self._transport = None
        if self in shared.connections:
            del shared.connections[self]
            shared.intake.leave(self)
            self.note_end(self._why or ("closed by device" if exc is None else "connection lost"))
        if self._address:
            shared.leave(self._address)

    def pause_writing(self) -> None:
        self._blocked_at = self._shared.monotonic()
        self._regulate()

    def resume_writing(self) -> None:
        self._blocked_at = None
        self._regulate()
        self._go_on(self._shared.monotonic())

    def intake_changed(self) -> None:
        self._regulate()

    def overdue(self, now: float) -> Reason | None:
        """Why this connection has outstayed a deadline. Time in which nobody read does not count against a device."""
        settings, session, transport = self._shared.settings, self._session, self._transport
        if self._blocked_at is not None and now - self._blocked_at > settings.frame_s:
            return Reason.UNREAD_ANSWERS
        if session is not None:
            if session.held:
                return None
            if self.begun_at is not None and now - self.begun_at > settings.frame_s:
                return Reason.TIME_OUT
        if transport is not None and transport.is_closing() and now - self.heard_at > settings.frame_s:
            return Reason.UNREAD_ANSWERS
        if (session is None or not session.greeted) and now - self.opened_at > settings.handshake_s:
            return Reason.TIME_OUT
        return Reason.TIME_OUT if now - self.heard_at > settings.idle_s else None

    def give_up(self, reason: Reason) -> None:
        """Count why, and cut the connection."""
        self._shared.count(reason)
        self._why = reason
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
        else:
            self.abort()

    def note_end(self, why: str) -> None:
        """Journal that the conversation has ended, unless that is done, or there was none. Nobody waits for it."""
        entry = self._session.closed(self._shared.now_us(), why) if self._session is not None else None
        if entry is not None:
            self._shared.writer.append(entry)

    def _enter(self, address: str, number: int) -> bool:
        """Go on as a connection of this address."""
        if not self._shared.enter(address):
            self.give_up(Reason.ADDRESS_LIMIT)
            return False
        self._address, self._peer = address, f"{address}:{number}"
        if self._port.tls is not None:
            self._tls = self._port.tls.channel()
        else:
            self._start_session(NOBODY)
        return True

    def _start_session(self, certified: frozenset[str]) -> None:
        shared = self._shared
        self._session = DeviceSession(
            self._port.protocol,
            address=self._address,
            peer=self._peer,
            policy=shared.policy,
            count=shared.count,
            opened_at_us=self._opened_at_us,
            frame_bytes_max=shared.settings.frame_bytes_max,
            certified=certified,
        )

    def _behind_header(self, data: bytes) -> bytes:
        """What follows the balancer's header; b"" while it is not complete."""
        assert self._header is not None
        if self._transport is None or self._transport.is_closing():
            return b""
        self._header += data
        found = proxy_header.parse(self._header)
        if found is None:
            return b""
        if isinstance(found, proxy_header.Malformed):
            self.give_up(Reason.PROXY_HEADER)
            return b""
        if found.local:  # the balancer asks whether we live
            self._header = None
            self._transport.close()
            return b""
        rest, self._header = self._header[found.size_bytes :], None
        address, number = found.source or self._peer.rsplit(":", 1)
        return rest if self._enter(address, int(number)) else b""

    def _decrypted(self, data: bytes) -> bytes:
        tls, transport = self._tls, self._transport
        assert tls is not None
        if transport is None or transport.is_closing():
            return b""
        try:
            plain = tls.receive(data)
        except TlsFailed:
            transport.write(tls.outgoing())  # the alert that says why
            self._shared.count(Reason.TLS_FAILED)
            self._why = Reason.TLS_FAILED
            transport.close()
            return b""
        if self._session is None and tls.established:
            self._start_session(tls.names())
        if said := tls.outgoing():
            transport.write(said)
        return plain

    def _receive(self, data: bytes, now: float) -> None:
        session = self._session
        if session is None or self._transport is None:
            return
        events = session.events
        try:
            taken = session.receive(data, self._shared.now_us())
        except Exception:
            self._failed()
            return
        self._store(taken, now)
        self._flush()
        if session.waiting:
            self._go_on(now)
        if not session.partial:
            self.begun_at = None
        elif self.begun_at is None or session.events != events:
            self.begun_at = now

    def _end(self) -> None:
        """The device will say nothing more."""
        session = self._session
        if session is not None and self._transport is not None:
            now = self._shared.monotonic()
            self._run(partial(session.end, self._shared.now_us()), now)
            self._go_on(now)

    def _run(self, session: Callable[[], Taken], now: float) -> None:
        """Run the session and store what it gives."""
        try:
            taken = session()
        except Exception:
            self._failed()
        else:
            self._store(taken, now)
            self._flush()

    def _failed(self) -> None:
        """A mistake of ours in the session costs this connection, not the gateway."""
        log.exception("session failed", protocol=self._port.protocol.name)
        self.give_up(Reason.GATEWAY_ERROR)

    def _go_on(self, now: float) -> None:
        """Take what was received before, as soon as less is held."""
        session = self._session
        while (
            session is not None
            and session.waiting
            and session.held <= limits.HELD_REPLIES_PER_CONNECTION_MAX // 2
            and self._blocked_at is None
            and self._transport is not None
            and not self._transport.is_closing()
        ):
            self._run(session.more, now)

    def _store(self, taken: Taken, read_at: float) -> None:
        if not taken:
            return
        shared = self._shared
        writer, stats = shared.writer, shared.stats
        for entry, held in taken:
            if held is None:
                writer.append(entry)
                continue
            shared.held += 1
            stats.frames += 1
            stats.frame_bytes += held.size_bytes
            writer.append(entry, partial(self._settled, held, read_at))
        if writer.pending_bytes >= limits.JOURNAL_PENDING_BYTES_MAX:
            shared.intake.follow_pending(writer.pending_bytes)

    def _settled(self, held: Held, read_at: float, durable: bool) -> None:
        shared = self._shared
        shared.held -= 1
        if not durable:
            self._why = "not stored"
            self.abort()
            return
        now = self.heard_at = shared.monotonic()  # it had to wait for us
        shared.stats.durable(now - read_at)
        session = self._session
        if session is not None:
            session.stored(held)
            self._flush()
            if session.waiting:
                self._go_on(now)
        if not shared.intake.open:
            shared.intake.follow_pending(shared.writer.pending_bytes)

    def _flush(self) -> None:
        session, transport = self._session, self._transport
        if session is None or transport is None or transport.is_closing():
            return
        data = session.outgoing()
        if data:
            transport.write(data if self._tls is None else self._tls.send(data))
        if session.closing and not session.held:
            if self._tls is not None:
                transport.write(self._tls.close())
            transport.close()
        elif self._paused_at is not None or session.sated:
            self._regulate()

    def _regulate(self) -> None:
        """Read, or pause."""
        transport, session = self._transport, self._session
        if transport is None or transport.is_closing():
            return
        pause = self._blocked_at is not None or not self._shared.intake.open
        if session is not None and not pause:
            pause = session.sated
        if pause == (self._paused_at is not None):
            return
        now = self._shared.monotonic()
        if pause:
            self._paused_at = now
            transport.pause_reading()
            return
        if session is not None and session.held > limits.HELD_REPLIES_PER_CONNECTION_MAX // 2:
            return  # hysteresis: resume at half
        assert self._paused_at is not None
        unread_s = now - self._paused_at
        self.opened_at += unread_s
        self.heard_at += unread_s
        if self.begun_at is not None:
            self.begun_at += unread_s
        self._paused_at = None
        transport.resume_reading()
