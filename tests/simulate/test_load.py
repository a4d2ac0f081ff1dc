"""The load generator measures what it says, against a gateway that only answers; and its packets are real ones."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.acknowledging import acknowledging
from benchmarks.load import Histogram, Plan, plan_of, run_load
from benchmarks.packets import Packet, login
from signalkeep.model import Decoded, DeviceSettings, Signal
from signalkeep.protocols import registry
from signalkeep.protocols.contract import Frame

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with acknowledging() as found:
        yield found


def decoded(data: bytes) -> list[Signal]:
    spoken = registry.get("teltonika")
    session = spoken.session()
    frames = [event for event in [*session.feed(data), *session.end()] if isinstance(event, Frame)]
    outcomes = [one for frame in frames for one in spoken.decode(frame.raw, "1", frame.context, DeviceSettings())]
    return [one.signal for one in outcomes if isinstance(one, Decoded)]


def test_its_packets_decode_and_no_record_comes_twice() -> None:
    packet = Packet(10, 20, start_ms=1_700_000_000_000, seed=3)
    signals = decoded(login("356307040000001") + packet.next() + packet.next())
    assert len({signal.wire_time for signal in signals}) == len(signals) == 20
    assert all(signal.fix_valid and len(signal.attributes) >= 18 for signal in signals)


@pytest.mark.parametrize("changes", [{}, {"records": 1}, {"window": 3}, {"idle": 5}])
def test_flat_out_everything_is_acknowledged(port: int, changes: dict[str, Any]) -> None:
    result = run_load(Plan(port=port, connections=4, seconds=0.2, **changes))
    assert result.sent == result.acknowledged > 0
    assert result.sent == result.packets * changes.get("records", 10)
    assert result.refused == result.connections_lost == 0
    assert list(result.latency_ms) == ["p50", "p90", "p99", "p99.9", "max"]
    assert result.peak_mib > 1


@pytest.mark.parametrize(("total", "sent"), [(200, 200), (35, 40)])
def test_flat_out_it_ends_with_so_many_records(port: int, total: int, sent: int) -> None:
    result = run_load(Plan(port=port, connections=8, seconds=30.0, total=total))
    assert result.sent == result.acknowledged == sent, "whole packets, none more than needed"


def test_at_a_rate_as_many_are_sent_as_are_scheduled(port: int) -> None:
    result = run_load(Plan(port=port, connections=3, rate=2000.0, seconds=0.5, records=5))
    assert result.sent == result.acknowledged == 1000
    assert result.lag_ms


class Stalling(asyncio.Protocol):
    """Answers after half a second."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._logged_in = False

    def data_received(self, data: bytes) -> None:
        if not self._logged_in:
            self._logged_in = True
            self._transport.write(b"\1")
            data = data[17:]
        if data:
            asyncio.get_running_loop().call_later(0.5, self._transport.write, data.count(b"\x8e\1").to_bytes(4))


async def test_a_stall_is_not_hidden_by_the_packets_that_it_holds_up() -> None:
    """Due every tenth of a second, answered every half: the last of ten waits for four seconds."""
    server = await asyncio.get_running_loop().create_server(Stalling, "127.0.0.1", 0)
    async with server:
        plan = Plan(port=server.sockets[0].getsockname()[1], connections=1, rate=10.0, records=1, seconds=1.0)
        result = await asyncio.to_thread(run_load, plan)
    assert result.acknowledged == 10
    assert result.latency_ms["max"] >= 4000
    assert result.answer_ms["p50"] < result.latency_ms["p50"]


class Refusing(Stalling):
    """Accepts none of the records, and hangs up after the second packet."""

    def data_received(self, data: bytes) -> None:
        if not self._logged_in:
            self._logged_in = True
            self._transport.write(b"\1")
        else:
            self._transport.write(bytes(4))
            self._transport.close()


async def test_what_is_refused_or_cut_off_is_not_acknowledged() -> None:
    server = await asyncio.get_running_loop().create_server(Refusing, "127.0.0.1", 0)
    async with server:
        plan = Plan(port=server.sockets[0].getsockname()[1], connections=2, seconds=0.2)
        result = await asyncio.to_thread(run_load, plan)
    assert result.acknowledged == 0
    assert result.refused == 2
    assert result.connections_lost == 2


def test_percentiles_are_within_two_percent() -> None:
    source = random.Random(1)
    values = sorted(source.lognormvariate(-6, 1.5) for _ in range(20_000))
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    for share in (0.5, 0.9, 0.99, 0.999):
        exact_ms = values[round(share * len(values)) - 1] * 1000
        assert histogram.percentile_ms(share) == pytest.approx(exact_ms, rel=0.035)
    assert histogram.percentile_ms(1.0) == histogram.most_us / 1000 == int(values[-1] * 1e6) / 1000
    assert Histogram().summary() == {}


def test_the_command_line() -> None:
    assert plan_of(["--port", "1", "--rate", "5", "--records", "1"]) == Plan(port=1, rate=5.0, records=1)
    with acknowledging() as port:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.load", "--port", str(port), "--connections", "2", "--seconds", "0.1"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert json.loads(done.stdout)["acknowledged"] > 0
