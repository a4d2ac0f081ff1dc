"""The cheapest gateway there can be: answers every Teltonika packet at once and keeps nothing.

What is left when senders are measured against it is what the senders cost. Speaks TCP and UDP on one port. Promises
the right answers to packets that are framed rightly; never checks, stores or decodes anything. Runs as a process of
its own: `async with` a server within one, or `acknowledging()` for a child.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

PREAMBLE_BYTES = 8
CHECKSUM_BYTES = 4
COUNT_AT = PREAMBLE_BYTES + 1


class TcpSide(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._buffer = b""
        self._logged_in = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own derives from nothing

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        answers = b""
        at = 0
        if not self._logged_in and len(buffer) >= 2 + int.from_bytes(buffer[:2]):
            at = 2 + int.from_bytes(buffer[:2])
            self._logged_in = True
            answers = b"\x01"
        while self._logged_in and len(buffer) - at >= PREAMBLE_BYTES:
            end = at + PREAMBLE_BYTES + int.from_bytes(buffer[at + 4 : at + 8]) + CHECKSUM_BYTES
            if len(buffer) < end:
                break
            answers += buffer[at + COUNT_AT].to_bytes(4)
            at = end
        self._buffer = buffer[at:]
        if answers:
            self._transport.write(answers)


class UdpSide(asyncio.DatagramProtocol):
    """All datagrams."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        codec_at = 8 + int.from_bytes(data[6:8])
        self._transport.sendto(b"\x00\x05" + data[2:4] + b"\x01" + data[5:6] + data[codec_at + 1 : codec_at + 2], addr)


async def serve(port: int = 0) -> tuple[asyncio.Server, asyncio.DatagramTransport, int]:
    """Both servers on one port of the loopback; which one."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(TcpSide, "127.0.0.1", port, backlog=8192)
    port = server.sockets[0].getsockname()[1]
    transport, _ = await loop.create_datagram_endpoint(UdpSide, ("127.0.0.1", port))
    return server, transport, port


@contextmanager
def acknowledging() -> Iterator[int]:
    """A server in a process of its own; its port."""
    command = [sys.executable, str(Path(__file__).resolve())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


async def _until_parent_ends() -> None:
    _, _, port = await serve()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main() -> None:
    import resource

    import uvloop

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_parent_ends())


if __name__ == "__main__":
    main()
