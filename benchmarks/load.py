"""A load generator: many Teltonika connections whose packets cost next to nothing to make.

    python -m benchmarks.load --port 5027 --connections 200 --rate 20000 --seconds 30
    from benchmarks.load import Plan, run_load

Each connection has one packet, encoded once and patched before it is sent again, so that every record is new. Flat out,
each connection sends its next packet when an answer frees its window. At a rate, packets have scheduled times, evenly
spread, that nothing moves: a latency counts from the scheduled time, so a gateway that stalls cannot hide it;
`answer_ms` counts from the moment of sending, and `lag_ms` says how late the generator itself was (its timer has steps
of a millisecond). Not a part of the product. Promises: memory does not grow with the run, but for what is due and has
no room; what counts as acknowledged was answered with the right count. Never resends, never reconnects: lost
connections are reported. As a program it takes a higher priority where it may: devices have processors of their own,
and what is to be measured is not how long a sender waits for one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

import uvloop

from benchmarks.packets import Packet, login
from signalkeep.simulate.fleet import FIRST_NUMBER, device_numbers, raise_descriptor_limit

CONNECTING_MAX: Final = 200
CONNECT_S_MAX: Final = 60.0
DRAIN_S_MAX: Final = 15.0
PRIORITY: Final = 10
STEP_S: Final = 0.001  # waiting less would be spinning
LOOK_S: Final = 0.01  # how often is looked whether the load has ended


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to send. `rate` is records per second of all connections together; 0: flat out."""

    port: int
    host: str = "127.0.0.1"
    connections: int = 1000
    records: int = 10  # in a packet
    elements: int = 20  # in a record
    rate: float = 0.0
    seconds: float = 60.0
    total: int = 0  # records to send flat out, unless the time is up before; 0: until it is
    window: int = 1  # packets that a connection sends before it waits for an answer
    idle: int = 0  # connections that log in and say no more
    first: int = 0  # index of the first device


@dataclass
class LoadResult:
    """What came of it, in records; latencies in milliseconds."""

    sent: int
    acknowledged: int
    per_s: float  # acknowledged
    packets: int
    refused: int  # packets answered with another count than was sent
    connections_lost: int
    seconds: float  # from the first packet to the last answer
    latency_ms: dict[str, float]
    answer_ms: dict[str, float]  # from the moment of sending
    lag_ms: dict[str, float]  # how late a scheduled packet was looked at
    cpu_s: float
    cpu_us_per_record: float
    peak_mib: float


class Histogram:
    """Counts by microseconds, in buckets that grow with the value: within 2 % of it, in bounded memory."""

    FINE: Final = 64
    POWERS: Final = 40

    def __init__(self) -> None:
        self._buckets = [0] * (self.FINE * self.POWERS)
        self.count = 0
        self.most_us = 0

    def add(self, seconds: float) -> None:
        us = int(seconds * 1e6)
        power = max(0, us.bit_length() - 6)
        self._buckets[min(power * self.FINE + (us >> power), len(self._buckets) - 1)] += 1
        self.count += 1
        self.most_us = max(self.most_us, us)

    def percentile_ms(self, share: float) -> float:
        """The value that this share of all stays at or below."""
        left = max(1, round(share * self.count))
        for index, count in enumerate(self._buckets):
            left -= count
            if left <= 0:
                power, fine = divmod(index, self.FINE)
                return min(((fine + 1) << power) - 1, self.most_us) / 1000
        return self.most_us / 1000

    def summary(self) -> dict[str, float]:
        if not self.count:
            return {}
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
        return {name: self.percentile_ms(share) for name, share in shares.items()} | {"max": self.most_us / 1000}


class Connection(asyncio.Protocol):
    """One device. Sends when `Load` says so, or when an answer makes room."""

    __slots__ = ("_buffer", "_number", "_sent_s", "_waiting_s", "is_lost", "load", "logged_in", "packet", "transport")

    def __init__(self, load: Load, number: str, packet: Packet | None) -> None:
        self.load = load
        self.packet = packet
        self.logged_in = asyncio.get_running_loop().create_future()
        self.is_lost = False
        self._number = number
        self._buffer = b""
        self._sent_s: deque[tuple[float, float]] = deque()  # of each packet in flight: from when it counts, and sent
        self._waiting_s: deque[float] = deque()  # scheduled times of packets that have no room

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(login(self._number))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self.logged_in.done():
            self.load.lost(len(self._sent_s))
        else:
            self.logged_in.set_exception(exc or ConnectionResetError("closed at login"))

    def send(self, since_s: float) -> None:
        """The next packet; its latency counts from `since_s`."""
        if self.is_lost:
            return
        if len(self._sent_s) >= self.load.window:
            self._waiting_s.append(since_s)
            return
        assert self.packet is not None
        self.load.packets += 1
        if self.load.packets == self.load.packets_max:
            self.load.is_flat_out = False
        self._sent_s.append((since_s, time.perf_counter()))
        self.transport.write(self.packet.next())

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        if not self.logged_in.done():
            if buffer[:1] != b"\x01":
                self.logged_in.set_exception(ConnectionRefusedError("the login was refused"))
                self.transport.abort()
                return
            self.logged_in.set_result(None)
            buffer = buffer[1:]
        now_s = time.perf_counter()
        load = self.load
        while len(buffer) >= 4 and self._sent_s:
            since_s, sent_s = self._sent_s.popleft()
            load.answered(now_s - since_s, now_s - sent_s, int.from_bytes(buffer[:4]))
            buffer = buffer[4:]
            if self._waiting_s:
                self.send(self._waiting_s.popleft())
            elif load.is_flat_out:
                self.send(now_s)
        self._buffer = buffer


class Load:
    """All connections and what they count."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.window = plan.window
        self.is_flat_out = False
        self.packets = 0
        self.packets_max = -(-plan.total // plan.records)  # 0: no end but the time's
        self._answers = 0
        self._refused = 0
        self._lost_packets = 0
        self._lost_connections = 0
        self._latency, self._answer, self._lag = Histogram(), Histogram(), Histogram()
        self._stopping = False

    def answered(self, latency_s: float, answer_s: float, records: int) -> None:
        self._answers += 1
        if records != self._plan.records:
            self._refused += 1
        else:
            self._latency.add(latency_s)
            self._answer.add(answer_s)

    def lost(self, packets: int) -> None:
        if not self._stopping:
            self._lost_connections += 1
        self._lost_packets += packets

    async def run(self) -> LoadResult:
        plan = self._plan
        start_ms = time.time_ns() // 1_000_000
        numbers = device_numbers(FIRST_NUMBER + plan.first * 10, plan.connections + plan.idle)
        connections = await self._connected(
            [
                Connection(self, number, Packet(plan.records, plan.elements, start_ms=start_ms, seed=index))
                if index < plan.connections
                else Connection(self, number, None)
                for index, number in enumerate(numbers)
            ]
        )
        before = resource.getrusage(resource.RUSAGE_SELF)
        began_s = time.perf_counter()
        active = connections[: plan.connections]
        await (self._at_rate(active, plan.rate) if plan.rate else self._flat_out(active))
        await self._drained()
        seconds = time.perf_counter() - began_s
        after = resource.getrusage(resource.RUSAGE_SELF)
        self._stopping = True
        for connection in connections:
            connection.transport.abort()
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return self._result(seconds, cpu_s, after.ru_maxrss / 1024)

    async def _connected(self, connections: list[Connection]) -> list[Connection]:
        """All logged in."""
        loop, room = asyncio.get_running_loop(), asyncio.Semaphore(CONNECTING_MAX)

        async def connect(connection: Connection) -> None:
            async with room:
                await loop.create_connection(lambda: connection, self._plan.host, self._plan.port)
                await connection.logged_in

        async with asyncio.timeout(CONNECT_S_MAX):
            await asyncio.gather(*map(connect, connections))
        return connections

    async def _flat_out(self, connections: list[Connection]) -> None:
        self.is_flat_out = True
        for connection in connections:
            for _ in range(self.window):
                if self.is_flat_out:
                    connection.send(time.perf_counter())
        deadline_s = time.perf_counter() + self._plan.seconds
        while self.is_flat_out and time.perf_counter() < deadline_s:
            await asyncio.sleep(LOOK_S)
        self.is_flat_out = False

    async def _at_rate(self, connections: list[Connection], rate: float) -> None:
        """Packet k is due k intervals after the begin, whatever happens, on connection k mod N."""
        interval_s = self._plan.records / rate
        packets = int(self._plan.seconds / interval_s)
        loop = asyncio.get_running_loop()
        began_s, done = time.perf_counter(), loop.create_future()
        sent = 0

        def send_due() -> None:
            nonlocal sent
            now_s = time.perf_counter()
            due = min(packets, int((now_s - began_s) / interval_s) + 1)
            while sent < due:
                scheduled_s = began_s + sent * interval_s
                self._lag.add(max(0.0, time.perf_counter() - scheduled_s))
                connections[sent % len(connections)].send(scheduled_s)
                sent += 1
            if sent < packets:
                loop.call_later(max(STEP_S, began_s + sent * interval_s - time.perf_counter()), send_due)
            else:
                done.set_result(None)

        send_due()
        await done

    async def _drained(self) -> None:
        """Until all is answered, or it takes too long."""
        deadline_s = time.perf_counter() + DRAIN_S_MAX
        while self._answers + self._lost_packets < self.packets and time.perf_counter() < deadline_s:
            await asyncio.sleep(0.005)

    def _result(self, seconds: float, cpu_s: float, rss_mib_max: float) -> LoadResult:
        plan = self._plan
        acknowledged = self._latency.count * plan.records
        return LoadResult(
            sent=self.packets * plan.records,
            acknowledged=acknowledged,
            per_s=round(acknowledged / seconds, 1),
            packets=self.packets,
            refused=self._refused,
            connections_lost=self._lost_connections,
            seconds=round(seconds, 3),
            latency_ms=self._latency.summary(),
            answer_ms=self._answer.summary(),
            lag_ms=self._lag.summary(),
            cpu_s=round(cpu_s, 3),
            cpu_us_per_record=round(cpu_s / max(1, self.packets * plan.records) * 1e6, 2),
            peak_mib=round(rss_mib_max, 1),
        )


def run_load(plan: Plan) -> LoadResult:
    """Carry out a plan on a loop of its own. Raises OSError where the gateway does not take the connections."""
    raise_descriptor_limit(plan.connections + plan.idle)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Load(plan).run())


def plan_of(arguments: list[str] | None = None) -> Plan:
    """The plan that a command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default=Plan.host)
    parser.add_argument("--connections", type=int, default=Plan.connections)
    parser.add_argument("--records", type=int, default=Plan.records, help="in a packet (1 to 255)")
    parser.add_argument("--elements", type=int, default=Plan.elements, help="in a record")
    parser.add_argument("--rate", type=float, default=Plan.rate, help="records per second in all; 0: flat out")
    parser.add_argument("--seconds", type=float, default=Plan.seconds)
    parser.add_argument("--total", type=int, default=Plan.total, help="records, when flat out; 0: until the time is up")
    parser.add_argument("--window", type=int, default=Plan.window, help="packets on their way for each connection")
    parser.add_argument("--idle", type=int, default=Plan.idle, help="connections that only log in")
    parser.add_argument("--first", type=int, default=Plan.first, help="index of the first device")
    found: dict[str, Any] = vars(parser.parse_args(arguments))
    return Plan(**found)


def raise_priority() -> None:
    """Be first where processors are short, if we may."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -PRIORITY)
    with suppress(OSError):  # Linux may go by sessions instead
        os.setsid()
        Path("/proc/self/autogroup").write_text(str(-PRIORITY), encoding="ascii")


if __name__ == "__main__":
    raise_priority()
    print(json.dumps(asdict(run_load(plan_of())), indent=2))
