"""Virtual devices keep and re-send until acknowledged, believe nothing else, and note what they were told."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from signalkeep.clock import Clock, SystemClock
from signalkeep.errors import CallerError, EnvironmentFault
from signalkeep.protocols.contract import Encoder
from signalkeep.simulate.fleet import Fleet, Plan, device_numbers
from signalkeep.simulate.oracle import OracleWriter, sent_path
from signalkeep.simulate.unit import Counts
from tests.servers import free_port, wait_until_async
from tests.simulate.gateways import (
    AtOnceClock,
    Behaviour,
    FakeGateway,
    JsonStandIn,
    Record,
    TeltonikaStandIn,
    lines,
    records,
)

ENCODERS: dict[str, Encoder] = {"teltonika": TeltonikaStandIn(), "json": JsonStandIn()}
PROTOCOLS = ["teltonika", "json"]


def plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "protocol": "teltonika", "port": 1, "devices": 5, "rate_per_s": 100.0, "duration_s": 2.0,
        "grace_s": 30.0, "cut_rate": 0.0, "answer_s": 10.0, "retry_s": 0.001, **changes,
    }  # fmt: skip
    return Plan(**values)


async def run(a_plan: Plan, oracle: Path, clock: Clock | None = None) -> Counts:
    with OracleWriter(oracle) as writer:
        return await Fleet(a_plan, ENCODERS[a_plan.protocol], clock or AtOnceClock(), writer).run()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_faithful_gateway_gets_everything_once(protocol: str, tmp_path: Path) -> None:
    oracle = tmp_path / "oracle"
    async with FakeGateway(protocol, oracle=oracle) as gateway:
        counts = await run(plan(protocol=protocol, port=gateway.port), oracle)
    assert gateway.violations == []
    assert counts.generated == counts.sent == counts.told_safe == 200
    assert counts.resent == counts.own_cuts == counts.failures == counts.unconfirmed == 0
    assert counts.connections == gateway.connections == 5
    assert sorted(gateway.acknowledged.elements()) == sorted(records(oracle)) == sorted(records(sent_path(oracle)))


def misbehaving(number: int) -> Behaviour:
    """Five faults in a row, then an acknowledgement, over and over, so that each is met several times."""
    faults: list[Behaviour] = ["half", "cut", "zero", "torn", "silent"]
    return faults[number % 7] if number % 7 < 5 else "ack"


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_lying_gateway_gets_it_again_until_it_acknowledges(protocol: str, tmp_path: Path) -> None:
    oracle = tmp_path / "oracle"
    async with FakeGateway(protocol, misbehaving, oracle=oracle) as gateway:
        counts = await run(plan(protocol=protocol, port=gateway.port, devices=3, duration_s=0.6, answer_s=0.2), oracle)
    assert gateway.violations == []
    assert counts.unconfirmed == 0
    assert counts.resent > 0
    assert counts.failures > 10
    assert set(records(oracle)) == set(gateway.acknowledged)
    assert len(records(oracle)) == counts.told_safe == 60
    assert set(records(sent_path(oracle))) >= gateway.received


async def test_a_packet_that_is_sent_again_has_other_boundaries(tmp_path: Path) -> None:
    async with FakeGateway("teltonika", lambda number: "ack" if number % 3 == 0 else "cut") as gateway:
        await run(plan(port=gateway.port, devices=1), tmp_path / "oracle")
    again = [(before, after) for before, after in pairwise(gateway.packets) if before[0] == after[0]]
    assert len(again) > 20
    assert all(before != after for before, after in again if len(before) > 1)
    assert any(len(after) > len(before) for before, after in again), "newer records join"


async def test_whatever_is_sent_begins_with_the_oldest_and_has_no_gaps(tmp_path: Path) -> None:
    async with FakeGateway("teltonika", lambda number: "ack" if number % 3 else "cut") as gateway:
        await run(plan(port=gateway.port, cut_rate=0.2, newest_first=0.0, drift=False), tmp_path / "oracle")
    seen: dict[str, list[Record]] = defaultdict(list)
    for packet in gateway.packets:
        first_time = [record for record in packet if record not in seen[packet[0][0]]]
        seen[packet[0][0]].extend(first_time)
    assert sum(len(order) for order in seen.values()) == 200
    for order in seen.values():
        assert order == sorted(order)
    assert [line["order"] for line in lines(sent_path(tmp_path / "oracle")) if line["device_number"] == min(seen)] == [
        *range(1, 41)
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_units_cut_connections_themselves(protocol: str, tmp_path: Path) -> None:
    oracle = tmp_path / "oracle"
    async with FakeGateway(protocol, oracle=oracle) as gateway:
        counts = await run(plan(protocol=protocol, port=gateway.port, cut_rate=0.5), oracle)
        await wait_until_async(lambda: gateway.torn > 0, what="a torn packet arrived")
    assert gateway.violations == []
    assert counts.unconfirmed == 0
    assert counts.own_cuts > 10
    assert counts.connections > 10
    assert max(gateway.acknowledged.values()) > 1, "a duplicate arrived"


async def test_the_seed_reproduces_the_records(tmp_path: Path) -> None:
    async with FakeGateway("teltonika") as gateway:
        for name, seed in (("one", 1), ("again", 1), ("other", 2)):
            await run(plan(port=gateway.port, seed=seed), tmp_path / name)
    one, again, other = (sorted(lines(tmp_path / name), key=str) for name in ("one", "again", "other"))
    assert one == again
    assert one != other
    assert len(one) == 200


async def test_times_are_those_of_the_schedule_and_unique_per_device(tmp_path: Path) -> None:
    async with FakeGateway("teltonika") as gateway:
        await run(
            plan(port=gateway.port, devices=2, rate_per_s=5000.0, duration_s=0.1, drift=False), tmp_path / "oracle"
        )
    found = records(tmp_path / "oracle")
    assert len(found) == len(set(found)) == 500
    assert min(time for _, time in found) == "2024-05-06T07:08:09.123Z"


async def test_duration_times_rate_records_are_made_in_real_time(tmp_path: Path) -> None:
    async with FakeGateway("teltonika") as gateway:
        counts = await run(plan(port=gateway.port, rate_per_s=40.0, duration_s=0.5), tmp_path / "oracle", SystemClock())
    assert counts.generated == counts.told_safe == 20


async def test_told_to_stop_it_sends_what_is_left(tmp_path: Path) -> None:
    async with FakeGateway("teltonika") as gateway:
        with OracleWriter(tmp_path / "oracle") as writer:
            fleet = Fleet(
                plan(port=gateway.port, duration_s=0.0, rate_per_s=500.0),
                TeltonikaStandIn(),
                SystemClock(),
                writer,
            )
            running = asyncio.create_task(fleet.run())
            await wait_until_async(lambda: fleet.counts.generated > 10)
            fleet.stop()
            counts = await running
    assert counts.generated == counts.told_safe > 10


@pytest.mark.parametrize("accept_login", [True, False])
async def test_what_nobody_acknowledges_is_given_up_after_the_grace_period(accept_login: bool, tmp_path: Path) -> None:
    oracle = tmp_path / "oracle"
    async with FakeGateway("teltonika", lambda _: "zero", accept_login=accept_login) as gateway:
        counts = await run(plan(port=gateway.port, grace_s=0.1), oracle)
    assert counts.told_safe == 0
    assert counts.unconfirmed == counts.generated > 0
    assert records(oracle) == []
    assert bool(records(sent_path(oracle))) is accept_login


async def test_without_a_gateway_nothing_counts_as_sent(tmp_path: Path) -> None:
    counts = await run(plan(port=free_port(), grace_s=0.1), tmp_path / "oracle")
    assert counts.sent == counts.connections == 0
    assert counts.failures > 0
    assert counts.unconfirmed == 200


async def test_an_oracle_that_cannot_be_written_stops_the_fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with FakeGateway("teltonika") as gateway:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(EnvironmentFault, match="No space left"):
            await run(plan(port=gateway.port), tmp_path / "oracle")


async def test_five_hundred_units(tmp_path: Path) -> None:
    async with FakeGateway("teltonika") as gateway:
        counts = await run(plan(port=gateway.port, devices=500, rate_per_s=1000.0), tmp_path / "oracle")
    assert counts.told_safe == counts.generated == 2000
    assert counts.connections == 500
    assert len({number for number, _ in gateway.received}) == 500


def luhn_valid(number: str) -> bool:
    digits = [int(digit) for digit in reversed(number)]
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0


def test_device_numbers() -> None:
    numbers = device_numbers(356307040000000, 1000)
    assert len(set(numbers)) == 1000
    assert all(len(number) == 15 and luhn_valid(number) for number in numbers)
    assert numbers[:2] == ["356307040000001", "356307040000019"]
    assert device_numbers(356307040000000, 10) == numbers[:10]
    assert luhn_valid("490154203237518"), "the example of the standard"


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": "smoke signals"},
        {"devices": 0},
        {"rate_per_s": 0.0},
        {"rate_per_s": float("nan")},
        {"duration_s": -1.0},
        {"grace_s": -1.0},
        {"cut_rate": 1.0},
        {"first_number": 1},
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CallerError):
        plan(**changes)
