"""UDP, TLS, gaps and backlogs: what a unit does besides a plain TCP conversation, against gateways that misbehave."""

from __future__ import annotations

import asyncio
import json
import selectors
import ssl
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from signalkeep.clock import Clock
from signalkeep.errors import CallerError
from signalkeep.model import Signal
from signalkeep.protocols.registry import ENCODERS
from signalkeep.simulate.answers import BadAnswerError, JsonAnswers, TeltonikaAnswers, datagram_answer
from signalkeep.simulate.datagrams import datagram
from signalkeep.simulate.fleet import Fleet, Plan
from signalkeep.simulate.oracle import OracleWriter, sent_path
from signalkeep.simulate.unit import Counts
from tests.servers import free_port, wait_until_async
from tests.simulate.certificates import server_context
from tests.simulate.gateways import (
    AtOnceClock,
    Behaviour,
    FakeGateway,
    FakeUdpGateway,
    Record,
    TeltonikaStandIn,
    lines,
    records,
)

START = datetime(2024, 5, 6, 10, 8, 9, tzinfo=UTC)


class DatagramStandIn(TeltonikaStandIn):
    """With the eight bytes in front and the four behind that a datagram leaves out."""

    def encode_frame(self, device_number: str, signals: list[Signal]) -> bytes:
        body = super().encode_frame(device_number, signals)[4:]
        return bytes(4) + len(body).to_bytes(4) + body + bytes(4)


def plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "protocol": "teltonika", "port": 1, "devices": 5, "rate_per_s": 100.0, "duration_s": 2.0,
        "grace_s": 30.0, "cut_rate": 0.0, "answer_s": 10.0, "retry_s": 0.001, "start": START, **changes,
    }  # fmt: skip
    return Plan(**values)


async def run(a_plan: Plan, oracle: Path, clock: Clock | None = None) -> Counts:
    encoder = DatagramStandIn() if a_plan.transport == "udp" else TeltonikaStandIn()
    with OracleWriter(oracle) as writer:
        return await Fleet(a_plan, encoder, clock or AtOnceClock(), writer).run()


# UDP


def test_the_datagram_of_the_makers_paper() -> None:
    paper = bytes.fromhex(
        "003DCAFE0105000F33353230393330383634303336353508010000016B4F815B30010000000000000000000000000000000103021503"
        "010101425DBC000001"
    )
    packet = bytes(4) + len(paper[23:]).to_bytes(4) + paper[23:] + bytes(4)
    assert datagram(packet, "352093086403655", 0xCAFE, 5) == paper
    assert datagram_answer(bytes.fromhex("0005CAFE010501")) == (0xCAFE, 5, 1)


@pytest.mark.parametrize("answer", ["", "0005CAFE0105", "0005CAFE01050100", "0004CAFE010501", "0005CAFE000501"])
def test_what_is_no_answer_to_a_datagram(answer: str) -> None:
    with pytest.raises(BadAnswerError):
        datagram_answer(bytes.fromhex(answer))


async def test_udp_everything_once(tmp_path: Path) -> None:
    oracle = tmp_path / "oracle"
    async with FakeUdpGateway(oracle=oracle) as gateway:
        counts = await run(plan(transport="udp", port=gateway.port), oracle)
    assert gateway.violations == []
    assert counts.generated == counts.sent == counts.told_safe == 200
    assert counts.resent == counts.failures == 0
    assert sorted(gateway.acknowledged.elements()) == sorted(records(oracle)) == sorted(records(sent_path(oracle)))


def misbehaving(number: int) -> Behaviour:
    faults: list[Behaviour] = ["half", "cut", "zero", "torn", "silent"]
    return faults[number % 7] if number % 7 < 5 else "ack"


async def test_udp_a_lying_gateway_gets_it_again_until_it_acknowledges(tmp_path: Path) -> None:
    oracle = tmp_path / "oracle"
    async with FakeUdpGateway(misbehaving, oracle=oracle) as gateway:
        counts = await run(
            plan(transport="udp", port=gateway.port, devices=3, duration_s=0.6, answer_s=0.1, cut_rate=0.1), oracle
        )
    assert gateway.violations == []
    assert counts.unconfirmed == 0
    assert counts.resent > 0
    assert counts.failures > 3
    assert set(records(oracle)) == set(gateway.acknowledged)
    assert len(records(oracle)) == counts.told_safe == 60
    assert set(records(sent_path(oracle))) >= gateway.received


async def test_udp_a_datagram_without_an_answer_comes_again_with_the_same_numbers(tmp_path: Path) -> None:
    async with FakeUdpGateway(lambda number: "ack" if number % 3 == 0 else "silent") as gateway:
        counts = await run(plan(transport="udp", port=gateway.port, devices=1, answer_s=0.05), tmp_path / "oracle")
    assert counts.failures == 0
    assert len(set(gateway.datagrams)) * 3 == len(gateway.datagrams)
    numbers = [data[2:4] for data in gateway.datagrams[::3]]
    assert len(set(numbers)) == len(numbers), "another packet has another number"


async def test_udp_given_up_it_is_cut_anew(tmp_path: Path) -> None:
    async with FakeUdpGateway(lambda number: "silent" if number <= 8 else "ack") as gateway:
        counts = await run(plan(transport="udp", port=gateway.port, devices=1, answer_s=0.03), tmp_path / "oracle")
    assert counts.failures == 2
    assert [len(set(gateway.datagrams[at : at + 4])) for at in (0, 4)] == [1, 1]
    assert gateway.packets[0] != gateway.packets[4]
    assert counts.unconfirmed == 0


async def test_udp_units_lose_datagrams_and_answers_themselves(tmp_path: Path) -> None:
    oracle = tmp_path / "oracle"
    async with FakeUdpGateway(oracle=oracle) as gateway:
        counts = await run(plan(transport="udp", port=gateway.port, cut_rate=0.3, answer_s=0.05), oracle)
    assert gateway.violations == []
    assert counts.own_cuts > 3
    assert counts.unconfirmed == counts.failures == 0
    assert max(gateway.acknowledged.values()) > 1, "a duplicate arrived"


async def test_udp_without_a_gateway_nothing_is_told_safe(tmp_path: Path) -> None:
    counts = await run(plan(transport="udp", port=free_port(), grace_s=0.2, answer_s=0.05), tmp_path / "oracle")
    assert counts.told_safe == 0
    assert counts.failures > 0
    assert counts.unconfirmed == 200


# TLS


async def test_tls_everything_once(tmp_path: Path) -> None:
    context, certificate = server_context(tmp_path)
    trusting = ssl.create_default_context(cafile=certificate)
    async with FakeGateway("teltonika", tls=context) as gateway:
        counts = await run(plan(port=gateway.port, tls=trusting, duration_s=0.5), tmp_path / "oracle")
    assert counts.generated == counts.told_safe == 50
    assert counts.failures == 0


async def test_tls_a_certificate_that_nobody_trusts_is_not_talked_to(tmp_path: Path) -> None:
    context, _ = server_context(tmp_path)
    async with FakeGateway("teltonika", tls=context) as gateway:
        counts = await run(plan(port=gateway.port, tls=ssl.create_default_context(), grace_s=0.3), tmp_path / "oracle")
    assert counts.sent == counts.told_safe == 0
    assert "certificate" in counts.last_failure


# Gaps, backlogs, order


async def test_a_backlog_goes_out_in_larger_packets_oldest_or_newest_first(tmp_path: Path) -> None:
    for newest_first in (0.0, 1.0):
        async with FakeGateway("teltonika") as gateway:
            await run(plan(port=gateway.port, newest_first=newest_first, drift=False), tmp_path / f"{newest_first}")
        sizes = [len(packet) for packet in gateway.packets]
        assert max(sizes) > 10
        by_unit: dict[str, list[Record]] = defaultdict(list)
        for packet in gateway.packets:
            by_unit[packet[0][0]] += packet
        for order in by_unit.values():
            assert order == sorted(order, reverse=bool(newest_first))


async def test_newest_first_what_left_before_comes_before_what_is_new(tmp_path: Path) -> None:
    """The order of first deliveries holds also where the newest go first and packets are lost."""
    async with FakeGateway("teltonika", lambda number: "ack" if number % 3 else "cut") as gateway:
        await run(plan(port=gateway.port, newest_first=1.0, cut_rate=0.2), tmp_path / "oracle")
    order = [(line["device_number"], line["device_time"]) for line in lines(sent_path(tmp_path / "oracle"))]
    arrived: set[Record] = set()
    for packet in gateway.packets:
        for record in packet:
            if record not in arrived:
                arrived.add(record)
                before = order[: order.index(record)]
                assert all(one in arrived for one in before if one[0] == record[0])
    assert len(arrived) == 200


SPEED: Final = 1000.0


class Hurrying(asyncio.SelectorEventLoop):
    """A second of this loop is a thousandth of one: for its timers, for what waits for sockets, and as a clock."""

    class Selector(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            return super().select(timeout and timeout / SPEED)

    def __init__(self) -> None:
        super().__init__(self.Selector())

    def time(self) -> float:
        return time.monotonic() * SPEED

    def now(self) -> datetime:
        return START

    monotonic = time


def test_without_network_records_pile_up_and_are_sent_afterwards(tmp_path: Path) -> None:
    oracle = tmp_path / "oracle"
    loop = Hurrying()

    async def hours() -> tuple[FakeGateway, Counts]:
        async with FakeGateway("teltonika") as gateway:
            with OracleWriter(oracle) as writer:
                a_plan = plan(port=gateway.port, devices=10, rate_per_s=0.5, duration_s=0.0, answer_s=1e5, grace_s=1e5)
                fleet = Fleet(a_plan, TeltonikaStandIn(), loop, writer)
                running = asyncio.create_task(fleet.run())
                await wait_until_async(lambda: fleet.counts.gaps >= 10, 60)
                fleet.stop()
                return gateway, await running

    with closing(loop):
        gateway, counts = loop.run_until_complete(hours())
    assert gateway.violations == []
    assert counts.unconfirmed == counts.failures == 0
    assert counts.connections > 15, "a unit without network has no connection either"
    assert max(map(len, gateway.packets)) > 10
    assert sorted(gateway.acknowledged.elements()) == sorted(records(oracle))


@pytest.mark.parametrize("transport", ["tcp", "udp"])
async def test_the_seed_and_the_start_reproduce_the_records_whatever_the_network_does(
    transport: str, tmp_path: Path
) -> None:
    """All but `order`, which is when a newest-first unit could send what."""

    def content(path: Path) -> list[str]:
        return sorted(json.dumps({**line, "order": 0}) for line in lines(path))

    behaviours: dict[str, Callable[[int], Behaviour]] = {"good": lambda _: "ack", "bad": misbehaving}
    for name, behave in behaviours.items():
        async with FakeUdpGateway(behave) if transport == "udp" else FakeGateway("teltonika", behave) as gateway:
            a_plan = plan(
                transport=transport, port=gateway.port, answer_s=0.1, cut_rate=0.1 if name == "bad" else 0.0, seed=7
            )
            assert (await run(a_plan, tmp_path / name)).unconfirmed == 0
    assert content(tmp_path / "good") == content(tmp_path / "bad")
    assert len(content(tmp_path / "good")) == 200


async def test_real_packets_over_real_datagrams(tmp_path: Path) -> None:
    """With the product's encoder, the data of a datagram are those of the packet."""
    signal = Signal(wire_time=START, device_time=START, latitude=1.0, longitude=2.0)
    packet = ENCODERS["teltonika"].encode_frame("356307040000001", [signal])
    data = datagram(packet, "356307040000001", 1, 2)
    assert data[23:] == packet[8:-4]
    assert data[23] == 0x8E


# Answers


@pytest.mark.parametrize(
    ("buffer", "records", "expected", "left"),
    [(b"", 3, 0, b""), (b"\0\0\0", 3, 0, b"\0\0\0"), (b"\0\0\0\3", 3, 3, b""), (b"\0\0\0\3x", 3, 3, b"x")],
)
def test_answers_of_teltonika(buffer: bytes, records: int, expected: int, left: bytes) -> None:
    data = bytearray(buffer)
    assert TeltonikaAnswers().packet(data, records) == expected
    assert data == left


@pytest.mark.parametrize("answer", [b"\0\0\0\0", b"\0\0\0\2", b"\3\0\0\0"])
def test_another_number_accepts_nothing(answer: bytes) -> None:
    with pytest.raises(BadAnswerError):
        TeltonikaAnswers().packet(bytearray(answer), 3)


def test_answers_of_json() -> None:
    data = bytearray(b"110")
    assert JsonAnswers().packet(data, 3) == 2
    with pytest.raises(BadAnswerError):
        JsonAnswers().packet(data, 1)


class Talkative(asyncio.Protocol):
    """Gives one answer after the other, whatever it hears."""

    def __init__(self, answers: list[bytes]) -> None:
        self._answers = answers
        self._seen = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._answers[min(self._seen, len(self._answers) - 1)])
        self._seen += 1


@pytest.mark.parametrize("answers", [[b"\1", b"\0\0\0\1\0\0\0\1"], [b"\1\0\0\0\1\0\0\0\1", b""]])
async def test_an_answer_that_nobody_asked_for_is_not_believed(answers: list[bytes], tmp_path: Path) -> None:
    """The second of two answers would accept the next packet, which the gateway has not seen."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Talkative(answers), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        counts = await run(
            plan(port=port, devices=1, rate_per_s=50.0, duration_s=0.02, grace_s=0.3), tmp_path / "oracle"
        )
    assert counts.told_safe == 0
    assert "unasked" in counts.last_failure


def test_a_transport_that_a_protocol_does_not_have_is_refused() -> None:
    with pytest.raises(CallerError, match="json over udp"):
        plan(protocol="json", transport="udp")
    with pytest.raises(CallerError, match="TLS over udp"):
        plan(transport="udp", tls=ssl.create_default_context())


def test_stand_ins_agree_on_the_form() -> None:
    signals = [Signal(wire_time=START, device_time=START)]
    assert DatagramStandIn().encode_frame("1", signals)[8:-4] == TeltonikaStandIn().encode_frame("1", signals)[4:]
