"""Connections between virtual devices and the gateway: bytes arrive late, in pieces of any size, or not at all.

    unit end (`Wire`)  --chunks, each delayed-->  transport of the gateway  -> TcpConnection
                       <--answers-------------

Order holds within a direction, as in TCP. A cut loses what is on its way, in both directions. What it cannot show:
half-open connections that the kernel would notice later, and full socket buffers.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from tests.faults.simulation.virtual_time import VirtualLoop

LATENCY_S: Final = (0.001, 0.06)
PIECES_MAX: Final = 4
READ_BYTES: Final = 4096


class Cut(Exception):
    """The connection is gone."""


class Wire:
    """One connection. The device's side is `send` and `receive`; the gateway's is an asyncio transport."""

    def __init__(
        self,
        loop: VirtualLoop,
        rng: random.Random,
        peer: tuple[str, int],
        protocol: asyncio.BufferedProtocol,
        *,
        on_acknowledged: Callable[[bytes], None],
    ) -> None:
        self._loop, self._rng = loop, rng
        self._on_acknowledged = on_acknowledged
        self._expected: deque[tuple[int, bytes]] = deque()  # answers that are due: their size, and to what
        self._said = bytearray()
        self._answers = bytearray()
        self._news = asyncio.Event()
        self._gone = False
        self._due = {"up": 0.0, "down": 0.0}
        self.gateway = _GatewayEnd(self, protocol, peer)
        protocol.connection_made(self.gateway)

    @property
    def gone(self) -> bool:
        return self._gone

    def expect(self, size: int, raw: bytes) -> None:
        """The next answer of so many bytes is about this message."""
        self._expected.append((size, raw))

    def send(self, data: bytes) -> None:
        """From the device. Raises Cut."""
        if self._gone:
            raise Cut
        for piece in self._pieces(data):
            self._later("up", self.gateway.arrive, piece)

    async def receive(self, count: int, timeout_s: float) -> bytes:
        """Exactly so many bytes of answer. Raises Cut, TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while len(self._answers) < count:
                if self._gone:
                    raise Cut
                self._news.clear()
                await self._news.wait()
        taken = bytes(self._answers[:count])
        del self._answers[:count]
        return taken

    def close(self) -> None:
        """The device hangs up in good order: what it sent arrives."""
        self._later("up", self.gateway.end)

    def cut(self) -> None:
        """Somebody pulls the plug: what is on its way is lost."""
        self._gone = True
        self._news.set()
        self.gateway.lose(ConnectionResetError("cut"))

    def die(self) -> None:
        """The gateway's process is dead; the device sees it a little later."""
        self.gateway.die()
        self.hang_up()

    def to_device(self, data: bytes) -> None:
        """An answer leaves: at this instant what it promises has to be true."""
        self._said += data
        while self._expected and len(self._said) >= self._expected[0][0]:
            size, raw = self._expected.popleft()
            answer = bytes(self._said[:size])
            del self._said[:size]
            if raw and answer.strip(b"\0") not in (b"", b"0"):
                self._on_acknowledged(raw)
        for piece in self._pieces(data):
            self._later("down", self._arrive, piece)

    def hang_up(self) -> None:
        """The gateway's side has closed; the device sees it when what was sent before has arrived."""
        self._later("down", self._end)

    def _arrive(self, piece: bytes) -> None:
        if not self._gone:
            self._answers += piece
            self._news.set()

    def _end(self) -> None:
        self._gone = True
        self._news.set()

    def _pieces(self, data: bytes) -> list[bytes]:
        cuts = sorted(self._rng.randrange(len(data) + 1) for _ in range(self._rng.randrange(PIECES_MAX)))
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]

    def _later(self, direction: str, action: Callable[..., None], *arguments: Any) -> None:
        at = max(self._due[direction] + 1e-6, self._loop.time() + self._rng.uniform(*LATENCY_S))
        self._due[direction] = at
        self._loop.call_at(at, action, *arguments)


class _GatewayEnd(asyncio.Transport):
    def __init__(
        self,
        wire: Wire,
        protocol: asyncio.BufferedProtocol,
        peer: tuple[str, int],
    ) -> None:
        super().__init__({"peername": peer})
        self._wire, self._protocol = wire, protocol
        self._waiting: deque[bytes] = deque()
        self._paused = self._closing = self._lost = self._ended = False

    def arrive(self, data: bytes) -> None:
        self._waiting.append(data)
        self._deliver()

    def end(self) -> None:
        self._ended = True
        self._deliver()

    def _deliver(self) -> None:
        while self._waiting and self.is_reading() and not self.is_closing():
            data = self._waiting.popleft()
            while data and not self.is_closing():
                buffer = memoryview(self._protocol.get_buffer(len(data)))
                count = min(len(data), len(buffer), READ_BYTES)
                buffer[:count] = data[:count]
                data = data[count:]
                self._protocol.buffer_updated(count)
        if self._ended and not self._waiting and not self.is_closing() and not self._protocol.eof_received():
            self.close()

    def die(self) -> None:
        self._lost = self._closing = True

    def lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = self._closing = True
            self._protocol.connection_lost(error)

    # asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._lost:
            return
        self._wire.to_device(bytes(data))

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._wire.hang_up()
            asyncio.get_running_loop().call_soon(self.lose, None)

    def abort(self) -> None:
        self._closing = True
        self._wire.hang_up()
        asyncio.get_running_loop().call_soon(self.lose, None)

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        asyncio.get_running_loop().call_soon(self._deliver)

    def is_reading(self) -> bool:
        return not self._paused

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0
