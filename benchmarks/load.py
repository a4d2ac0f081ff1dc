"""A load for measurements: many units that send as fast as they are answered, or at a fixed rate; their latencies.

    python -m benchmarks.load --port 5027 --connections 1000 --records 10 --seconds 60 [--rate 10000] [--idle 10000]

Each unit keeps one connection and waits for the answer before its next packet, as real units do. With a rate, packets
are due at even distances whatever the other side does (an open loop), and a latency begins when its packet was due, so
that a stall is not hidden by the packets that it kept from being sent. Costs about a microsecond a record. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import resource
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Final, cast

import uvloop

from benchmarks.packets import Packet, login
from signalkeep.simulate.fleet import FIRST_NUMBER, device_numbers, raise_descriptor_limit

TICK_S: Final = 0.002
CONNECTING_AT_A_TIME: Final = 100
GRACE_S: Final = 30.0
STEPS_PER_E: Final = 100  # buckets of latencies are 1 % wide
MIB: Final = 1 << 20
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True)
class Plan:
    """What to send. `rate`: records per second in all; 0: as fast as answers come."""

    port: int
    connections: int = 1000
    records: int = 10
    elements: int = 20
    seconds: float = 60.0
    rate: float = 0.0
    idle: int = 0
    first: int = 0  # index of the first device


@dataclass
class LoadResult:
    """What came of it. Latencies in milliseconds, by percentile and at most."""

    sent: int = 0  # records
    acknowledged: int = 0
    connections_lost: int = 0
    seconds: float = 0.0  # from the first packet to the last answer
    latency_ms: dict[str, float] = field(default_factory=dict)
    cpu_s: float = 0.0
    peak_mib: float = 0.0


class Latencies:
    """A histogram with buckets of 1 %: bounded, however many are added."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._max_s = 0.0

    def add(self, seconds: float) -> None:
        bucket = int(math.log(max(seconds, 1e-6)) * STEPS_PER_E)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self._max_s = max(self._max_s, seconds)

    def milliseconds(self) -> dict[str, float]:
        total, found = sum(self._counts.values()), {}
        for percentile in PERCENTILES if total else ():
            seen = 0
            for bucket in sorted(self._counts):
                seen += self._counts[bucket]
                if seen >= total * percentile / 100:
                    found[f"p{percentile:g}"] = round(math.exp((bucket + 1) / STEPS_PER_E) * 1000, 2)
                    break
        return {**found, "max": round(self._max_s * 1000, 2)}


class Unit(asyncio.Protocol):
    """One device. `due`: when packets were due that have not been sent."""

    def __init__(self, load: Load, number: str, packet: Packet) -> None:
        self._load = load
        self._number = number
        self._packet = packet
        self._transport: asyncio.Transport | None = None
        self._begun_s = 0.0  # when the packet that is out was due
        self._answer = b""
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.due: deque[float] = deque()
        self.waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(login(self._number))

    def data_received(self, data: bytes) -> None:
        if not self.greeted.done():
            self.greeted.set_result(None)
            data = data[1:]
        self._answer += data
        while len(self._answer) >= 4:
            accepted, self._answer = int.from_bytes(self._answer[:4]), self._answer[4:]
            self.waiting = False
            now = time.monotonic()
            self._load.answered(accepted, now - self._begun_s, now)
            if self._load.flat_out:
                self.send(now)
            elif self.due:
                self.send(self.due.popleft())

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self._load.lost()
        if not self.greeted.done():
            self.greeted.set_exception(ConnectionResetError("the gateway has closed the connection"))

    def send(self, due_s: float) -> None:
        """Send the next packet, or remember that it is due."""
        if self.waiting:
            self.due.append(due_s)
        elif self._transport is not None and not self._load.over:
            self.waiting, self._begun_s = True, due_s
            self._transport.write(self._packet.next())
            self._load.sent()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Load:
    """All units of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.flat_out = plan.rate == 0
        self.over = False
        self.result = LoadResult()
        self._closing = False
        self._latencies = Latencies()
        self._last_answer_s = 0.0

    def sent(self) -> None:
        self.result.sent += self.plan.records

    def answered(self, records: int, latency_s: float, now: float) -> None:
        self.result.acknowledged += records
        self._latencies.add(latency_s)
        self._last_answer_s = now

    def lost(self) -> None:
        if not self._closing:
            self.result.connections_lost += 1

    async def run(self) -> LoadResult:
        """Connect, send for the time of the plan, wait for the last answers."""
        plan, result = self.plan, self.result
        numbers = device_numbers(FIRST_NUMBER + plan.first * 10, plan.connections + plan.idle)
        units = await self._connect(numbers)
        active = units[: plan.connections]
        started_s = time.monotonic()
        await (self._flat_out(active) if self.flat_out else self._at_rate(active, started_s))
        self.over = True
        deadline_s = time.monotonic() + GRACE_S
        while result.acknowledged < result.sent and time.monotonic() < deadline_s:
            await asyncio.sleep(0.01)
        self._closing = True
        for unit in units:
            unit.close()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        result.seconds = round(self._last_answer_s - started_s, 3)
        result.latency_ms = self._latencies.milliseconds()
        result.cpu_s = round(usage.ru_utime + usage.ru_stime, 2)
        result.peak_mib = round(usage.ru_maxrss / (MIB if sys.platform == "darwin" else 1024), 1)
        return result

    async def _connect(self, numbers: list[str]) -> list[Unit]:
        loop = asyncio.get_running_loop()
        start_ms = int(time.time() * 1000)
        units = []
        for first in range(0, len(numbers), CONNECTING_AT_A_TIME):
            some = [
                Unit(self, number, Packet(self.plan.records, self.plan.elements, start_ms=start_ms, seed=first + place))
                for place, number in enumerate(numbers[first : first + CONNECTING_AT_A_TIME])
            ]
            for unit in some:
                await loop.create_connection(lambda unit=unit: unit, "127.0.0.1", self.plan.port)  # type: ignore[misc]  # a lambda's default has no type
            await asyncio.gather(*(unit.greeted for unit in some))
            units += some
        return units

    async def _flat_out(self, units: list[Unit]) -> None:
        now = time.monotonic()
        for unit in units:
            unit.send(now)
        await asyncio.sleep(self.plan.seconds)

    async def _at_rate(self, units: list[Unit], started_s: float) -> None:
        packets_per_s = self.plan.rate / self.plan.records
        packets = int(self.plan.seconds * packets_per_s)
        number = 0
        while number < packets:
            now = time.monotonic()
            while number < packets and started_s + number / packets_per_s <= now:
                units[number % len(units)].send(started_s + number / packets_per_s)
                number += 1
            await asyncio.sleep(TICK_S)
        self.flat_out = False


def run_load(plan: Plan) -> LoadResult:
    """Run the plan in this process."""
    raise_descriptor_limit(plan.connections + plan.idle)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Load(plan).run())


def main() -> None:
    """The command line: every field of the plan is an option."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    for name, default in (("connections", 1000), ("records", 10), ("elements", 20), ("idle", 0), ("first", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, seconds in (("seconds", 60.0), ("rate", 0.0)):
        parser.add_argument(f"--{name}", type=float, default=seconds)
    sys.stdout.write(json.dumps(asdict(run_load(Plan(**vars(parser.parse_args()))))) + "\n")


if __name__ == "__main__":
    main()
