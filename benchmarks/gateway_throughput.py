"""How many frames one gateway process takes in a second: real sockets, a real journal on this disk, no database.

    python benchmarks/gateway_throughput.py --connections 100 --seconds 8

Each connection is a unit that sends a packet of one record as soon as the one before was acknowledged. The units run
in a process of their own; per second of the gateway's own processor time is what one core would do. Prints figures,
judges nothing, and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import psutil
import uvloop
from gateway_process import start_gateway

from signalkeep.model import Signal
from signalkeep.protocols.teltonika import TELTONIKA_ENCODER

WARM_UP_S = 1.0
ATTRIBUTES = {f"io{number}": number for number in range(1000, 1040)}  # about 200 bytes, as real packets have


class Unit(asyncio.Protocol):
    """Logs in, then sends a packet at every answer. Counts answers in `told`."""

    def __init__(self, number: int, told: list[int]) -> None:
        self._login = TELTONIKA_ENCODER.encode_login(f"35630704{number:07}")
        at = datetime(2026, 1, 1, tzinfo=UTC)
        signal = Signal(wire_time=at, device_time=at, latitude=37.98, longitude=23.73, satellites=9)
        signal.attributes = dict(ATTRIBUTES)
        self.packet = TELTONIKA_ENCODER.encode_frame("", [signal])
        self._told = told

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._login)

    def data_received(self, data: bytes) -> None:
        del data  # an answer
        self._told[0] += 1
        self._transport.write(self.packet)


async def drive(port: int, gateway: psutil.Process, connections: int, seconds: float) -> dict[str, float]:
    """Let the units run; what the gateway did meanwhile."""
    told = [0]
    loop = asyncio.get_running_loop()
    units = [
        await loop.create_connection(lambda number=number: Unit(number, told), "127.0.0.1", port)
        for number in range(connections)
    ]
    await asyncio.sleep(WARM_UP_S)
    frames, used, at = told[0], sum(gateway.cpu_times()[:2]), time.monotonic()
    await asyncio.sleep(seconds)
    frames, used, taken = told[0] - frames, sum(gateway.cpu_times()[:2]) - used, time.monotonic() - at
    size = len(units[0][1].packet)
    for transport, _ in units:
        transport.abort()
    return {
        "packet_bytes": float(size),
        "frames_per_s": frames / taken,
        "gateway_cpu_share": used / taken,
        "frames_per_cpu_s": frames / used,
        "cpu_us_per_frame": used / frames * 1e6,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--data", type=Path, help="an empty directory on the disk to measure")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.data) as directory:
        process, ports = start_gateway(Path(directory) / "data")
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                found = runner.run(
                    drive(ports["teltonika"], psutil.Process(process.pid), given.connections, given.seconds)
                )
        finally:
            process.terminate()
            process.wait()
    for name, value in found.items():
        sys.stdout.write(f"{name:20} {value:12.1f}\n")


if __name__ == "__main__":
    main()
