"""What idle connections cost a gateway process: resident memory with and without them.

    python benchmarks/idle_connections.py --connections 10000

Every connection has logged in, so that everything a living connection needs is there. Prints figures, judges nothing,
and leaves nothing behind. What the kernel keeps for a socket is not part of the process and not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
from pathlib import Path
from typing import cast

import psutil
import uvloop
from gateway_process import start_gateway

from signalkeep.protocols.teltonika import TELTONIKA_ENCODER

AT_A_TIME = 200
SETTLE_S = 2.0
SPARE_DESCRIPTORS = 500


class Unit(asyncio.Protocol):
    """Logs in, and then says nothing."""

    def __init__(self, number: int) -> None:
        self._login = TELTONIKA_ENCODER.encode_login(f"35630704{number:07}")
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._login)

    def data_received(self, data: bytes) -> None:
        del data  # an answer
        if not self.accepted.done():
            self.accepted.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.accepted.done():
            self.accepted.set_exception(exc or ConnectionError("closed by the gateway"))


async def open_idle(port: int, numbers: range) -> list[asyncio.Transport]:
    """Connections that have logged in."""
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda number=number: Unit(number), "127.0.0.1", port) for number in numbers]
    await asyncio.gather(*(unit.accepted for _, unit in made))
    return [cast(asyncio.Transport, transport) for transport, _ in made]


async def measure(port: int, gateway: psutil.Process, connections: int) -> tuple[int, int]:
    """Resident bytes of the gateway with a few connections, and with all of them."""
    kept = await open_idle(port, range(AT_A_TIME))  # what is made once for all is made now
    await asyncio.sleep(SETTLE_S)
    before = gateway.memory_info().rss
    for first in range(AT_A_TIME, AT_A_TIME + connections, AT_A_TIME):
        kept += await open_idle(port, range(first, min(first + AT_A_TIME, AT_A_TIME + connections)))
    await asyncio.sleep(SETTLE_S)
    after = gateway.memory_info().rss
    for transport in kept:
        transport.abort()
    return before, after


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    connections = parser.parse_args().connections
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + AT_A_TIME + SPARE_DESCRIPTORS
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    with tempfile.TemporaryDirectory() as directory:
        process, ports = start_gateway(
            Path(directory) / "data",
            GATEWAY__CONNECTIONS_MAX=str(2 * wanted),
            GATEWAY__CONNECTIONS_PER_ADDRESS_MAX=str(2 * wanted),
        )
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                before, after = runner.run(measure(ports["teltonika"], psutil.Process(process.pid), connections))
        finally:
            process.terminate()
            process.wait()
    sys.stdout.write(f"{'connections':20} {connections:12}\n{'rss_before_mb':20} {before / 1e6:12.1f}\n")
    sys.stdout.write(f"{'rss_after_mb':20} {after / 1e6:12.1f}\n")
    sys.stdout.write(f"{'kb_per_connection':20} {(after - before) / connections / 1e3:12.2f}\n")


if __name__ == "__main__":
    main()
