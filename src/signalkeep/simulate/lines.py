"""The lines between units and gateway: TCP with or without TLS, and UDP; opened a bounded number at a time.

A line only carries: it tells its unit that it is open, what came, and that it is gone. Promises: a fault of the
simulator itself, raised while a unit is told something, ends the fleet instead of vanishing in the event loop; what
is written to a line that is gone is dropped, and its unit hears that it is gone.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

from signalkeep import limits
from signalkeep.simulate.answers import BadAnswerError


class Listener(Protocol):
    """A unit, as its line knows it."""

    def opened(self, line: Line) -> None: ...

    def received(self, line: Line, data: bytes) -> None: ...

    def lost(self, line: Line | None, why: str) -> None: ...


class Line:
    """One connection, or one UDP socket; both kinds of callbacks, of which a transport uses its own."""

    __slots__ = ("_fail", "_listener", "_transport")

    def __init__(self, listener: Listener, fail: Callable[[BaseException], None]) -> None:
        self._listener: Listener | None = listener
        self._fail = fail
        self._transport: Any = None

    @property
    def is_open(self) -> bool:
        return not self._transport.is_closing()

    def send(self, data: bytes) -> None:
        if self.is_open:
            self._transport.write(data)

    def send_datagram(self, data: bytes) -> None:
        if self.is_open:
            self._transport.sendto(data)

    def close(self) -> None:
        """What was written still goes out. The unit hears no more."""
        self._listener = None
        self._transport.close()

    def abort(self) -> None:
        """Whatever is left to send will be sent again. The unit hears no more."""
        self._listener = None
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._tell(lambda listener: listener.received(self, data))

    def datagram_received(self, data: bytes, _: Any) -> None:
        self.data_received(data)

    def error_received(self, error: Exception) -> None:
        self._tell(lambda listener: listener.lost(self, str(error)))

    def connection_lost(self, error: Exception | None) -> None:
        self._tell(lambda listener: listener.lost(self, str(error or "closed by the gateway")))

    def eof_received(self) -> bool:
        return False  # close our side too

    def pause_writing(self) -> None:
        """A unit waits for an answer before it writes more."""

    def resume_writing(self) -> None:
        """See there."""

    def _tell(self, what: Callable[[Listener], None]) -> None:
        listener = self._listener
        if listener is None:
            return
        try:
            what(listener)
        except BadAnswerError as error:
            listener.lost(self, str(error))
        except Exception as error:
            self._fail(error)


class Address(NamedTuple):
    """Where the gateway is, and how to speak to it."""

    host: str
    port: int
    transport: str = "tcp"
    tls: ssl.SSLContext | None = None


class Dialler:
    """Opens lines: at most `limits.SIMULATED_CONNECTING_MAX` at a time, each within `wait_s`."""

    def __init__(self, address: Address, wait_s: float, fail: Callable[[BaseException], None]) -> None:
        self._address = address
        self._wait_s = wait_s
        self._fail = fail
        self._waiting: deque[Listener] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def dial(self, listener: Listener) -> None:
        """It hears `opened`, or `lost` without a line."""
        self._waiting.append(listener)
        self._next()

    def close(self) -> None:
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()

    def _next(self) -> None:
        while self._waiting and len(self._tasks) < limits.SIMULATED_CONNECTING_MAX:
            task = asyncio.create_task(self._open(self._waiting.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)
        self._next()

    async def _open(self, listener: Listener) -> None:
        line = Line(listener, self._fail)
        try:
            async with asyncio.timeout(self._wait_s):
                await self._connected(line)
        except OSError as error:  # refused, unreachable, no name, no trust; TimeoutError is one too
            listener.lost(None, str(error) or f"no connection within {self._wait_s:g} s")
        else:
            listener.opened(line)

    async def _connected(self, line: Line) -> None:
        host, port, transport, tls = self._address
        loop = asyncio.get_running_loop()
        if transport == "udp":
            # A line has the methods of both kinds of protocol without deriving from them: it stays small.
            await loop.create_datagram_endpoint(lambda: cast(asyncio.DatagramProtocol, line), remote_addr=(host, port))
        else:
            await loop.create_connection(lambda: cast(asyncio.Protocol, line), host, port, ssl=tls)
