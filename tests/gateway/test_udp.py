"""The UDP port over real sockets, with a journal whose syncs the test owns: no answer before the sync, ever."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from signalkeep import limits
from signalkeep.clock import SystemClock
from signalkeep.gateway.intake import Intake, Shut
from signalkeep.gateway.listen import udp_sockets
from signalkeep.gateway.policy import Caps, Policy
from signalkeep.gateway.shared import Shared
from signalkeep.gateway.udp import UdpPort
from signalkeep.journal.writer import JournalWriter
from signalkeep.model import DeviceStatus, Reason
from signalkeep.sections import GatewaySettings
from tests.gateway.test_tcp import ROOMY, HandJournal
from tests.gateway.toy import TOY
from tests.servers import wait_until_async

ANSWER_S_MAX = 10.0


class Gateway:
    def __init__(self, policy: Policy, host: str, **settings: Any) -> None:
        self.journal = HandJournal()
        self.shared = Shared(
            writer=cast(JournalWriter, self.journal),
            intake=Intake(),
            policy=policy,
            clock=SystemClock(),
            settings=GatewaySettings(**settings),
        )
        (self.socket,) = udp_sockets("toy", host, 0)
        self.udp = UdpPort(self.shared, TOY, self.socket)

    async def has(self, number: int) -> None:
        await wait_until_async(lambda: len(self.journal.waiting) >= number, what=f"{number} frames in the journal")


class Device:
    """A socket that hears only what comes from where it sends to, as behind NAT."""

    def __init__(self, address: tuple[Any, ...]) -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.connect(address)

    def say(self, data: bytes) -> None:
        self.socket.send(data)

    async def answer(self) -> bytes:
        async with asyncio.timeout(ANSWER_S_MAX):
            return await asyncio.get_running_loop().sock_recv(self.socket, 1 << 16)

    async def silent(self) -> bool:
        try:
            async with asyncio.timeout(0.1):
                return not await asyncio.get_running_loop().sock_recv(self.socket, 1 << 16)
        except TimeoutError:
            return True


@asynccontextmanager
async def gateway(
    policy: Policy | None = None, host: str = "127.0.0.1", **settings: Any
) -> AsyncIterator[tuple[Gateway, Device]]:
    made = Gateway(policy or Policy("quarantine", ROOMY), host, **settings)
    made.udp.start()
    device = Device(("127.0.0.1" if host == "0.0.0.0" else host, made.udp.port))
    try:
        yield made, device
    finally:
        made.udp.close()
        device.socket.close()


async def test_no_answer_before_the_sync() -> None:
    async with gateway() as (made, device):
        device.say(b"I 1\nF a")
        await made.has(1)
        ((entry, _),) = made.journal.waiting
        assert (entry.device_number, entry.raw, entry.context) == ("1", b"I 1\nF a", {"transport": "udp"})
        assert entry.peer == f"127.0.0.1:{device.socket.getsockname()[1]}"
        assert await device.answer() == b"hello;", "which promises nothing"
        assert await device.silent()
        made.journal.sync()
        assert await device.answer() == b"A a;"
        assert made.shared.held == 0
        assert (made.shared.stats.datagrams, made.shared.stats.frames, made.shared.stats.acknowledged) == (1, 1, 1)


async def test_a_frame_that_could_not_be_stored_is_not_answered_and_the_port_goes_on() -> None:
    async with gateway() as (made, device):
        device.say(b"I 1\nF a")
        await made.has(1)
        assert await device.answer() == b"hello;"
        made.journal.sync(durable=False)
        assert await device.silent()
        assert (made.shared.held, made.shared.stats.acknowledged) == (0, 0)
        device.say(b"I 1\nF a")
        await made.has(1)
        made.journal.sync()
        assert await device.answer() == b"hello;"
        assert await device.answer() == b"A a;"


async def test_each_answer_goes_where_its_datagram_came_from() -> None:
    async with gateway() as (made, first):
        second = Device(first.socket.getpeername())
        first.say(b"I 1\nF a")
        await made.has(1)
        second.say(b"I 1\nF b")
        await made.has(2)
        made.journal.sync()
        assert [await first.answer(), await first.answer()] == [b"hello;", b"A a;"]
        assert [await second.answer(), await second.answer()] == [b"hello;", b"A b;"]
        second.socket.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not say which address a datagram was sent to")
@pytest.mark.parametrize("ours", ["127.0.0.1", "127.0.0.77"])
async def test_an_answer_leaves_from_the_address_that_was_written_to(ours: str) -> None:
    async with gateway(host="0.0.0.0") as (made, _):
        device = Device((ours, made.udp.port))
        device.say(b"I 1\nF a")
        await made.has(1)
        made.journal.sync()
        assert [await device.answer(), await device.answer()] == [b"hello;", b"A a;"]
        device.socket.close()


async def test_ipv6() -> None:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 on this machine")
    async with gateway(host="::1") as (made, device):
        device.say(b"I 1\nF a")
        await made.has(1)
        made.journal.sync()
        assert [await device.answer(), await device.answer()] == [b"hello;", b"A a;"]


async def test_a_shut_intake_leaves_datagrams_in_the_kernel_until_it_opens() -> None:
    async with gateway() as (made, device):
        made.shared.intake.set(Shut.DISK, True)
        device.say(b"I 1\nF a")
        assert await device.silent()
        assert made.shared.stats.datagrams == 0
        made.shared.intake.set(Shut.DISK, False)
        await made.has(1)
        made.journal.sync()
        assert await device.answer() == b"hello;"
        assert await device.answer() == b"A a;"


async def test_who_is_not_wanted_is_told_and_counted_and_caps_hold() -> None:
    policy = Policy("quarantine", Caps(600, 600, 600))
    policy.update({"2": DeviceStatus.RETIRED})
    async with gateway(policy) as (made, device):
        device.say(b"I 2\nF a")
        assert await device.answer() == b"go away;"
        device.say(b"I 1\nF a")
        await made.has(1)
        device.say(b"I 1\nF b")
        await wait_until_async(lambda: made.shared.refusals.get(Reason.UNKNOWN_CAP) == 1)
        assert made.shared.refusals == {Reason.RETIRED_DEVICE: 1, Reason.UNKNOWN_CAP: 1}
        assert len(made.journal.waiting) == 1


async def test_what_is_no_datagram_is_counted_and_mistakes_of_ours_cost_one() -> None:
    async with gateway(frame_bytes_max=100) as (made, device):
        device.say(b"rubbish")
        device.say(b"I 1\nE")
        device.say(b"I 1\nF " + b"x" * 100)
        device.say(b"")
        device.say(b"I 1\nF a")
        await made.has(1)
        refused = {Reason.UNFRAMABLE: 1, Reason.GATEWAY_ERROR: 1, Reason.OVERSIZED: 1}
        assert made.shared.refusals == made.shared.stats.refusals == refused


async def test_one_address_and_all_together_hold_no_more_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DATAGRAMS_HELD_PER_ADDRESS_MAX", 5)
    async with gateway(host="0.0.0.0") as (made, device):
        for number in range(8):
            device.say(b"I 1\nF %d" % number)
        await wait_until_async(lambda: made.shared.refusals.get(Reason.ADDRESS_LIMIT) == 3)
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other.bind(("127.0.0.5", 0))
        other.sendto(b"I 2\nF x", ("127.0.0.1", made.udp.port))
        await made.has(6)
        monkeypatch.setattr(limits, "DATAGRAMS_HELD_PER_ADDRESS_MAX", 50)
        monkeypatch.setattr(limits, "DATAGRAMS_HELD_MAX", 7)
        for number in range(8, 20):
            other.sendto(b"I 2\nF %d" % number, ("127.0.0.1", made.udp.port))
        await made.has(7)
        assert made.shared.held == 7
        before = made.shared.stats.datagrams
        made.journal.sync(4)
        assert made.shared.held == 3
        await asyncio.sleep(0)
        assert made.shared.stats.datagrams == before, "it goes on below half"
        made.journal.sync(1)
        await made.has(7)
        made.journal.sync()
        made.journal.sync()
        assert made.shared.held == 0
        other.close()


async def test_others_get_their_turn_while_datagrams_pour_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DATAGRAMS_PER_WAKE_UP_MAX", 4)
    async with gateway() as (made, device):
        for number in range(20):
            device.say(b"I 1\nF %d" % number)
        most = before = 0
        while before < 20:
            await asyncio.sleep(0)
            now = made.shared.stats.datagrams
            most, before = max(most, now - before), now
        assert most <= 4


class Unlucky:
    """A socket whose sending fails."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real
        self.code = 0
        self.tries = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def sendmsg(self, *arguments: Any) -> int:
        self.tries += 1
        if self.code:
            raise OSError(self.code, "no")
        return self._real.sendmsg(*arguments)

    def recvmsg(self, *arguments: Any) -> Any:
        if self.code == errno.ECONNREFUSED:
            raise OSError(self.code, "no")
        return self._real.recvmsg(*arguments)


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENETUNREACH, errno.EPERM, errno.EINVAL, errno.ECONNREFUSED])
async def test_an_answer_that_cannot_leave_is_lost_and_nothing_else_is(code: int) -> None:
    async with gateway() as (made, device):
        unlucky = made.udp._socket = cast(Any, Unlucky(made.socket))
        device.say(b"I 1\nF a")
        await made.has(1)
        assert await device.answer() == b"hello;"
        unlucky.code = code
        made.journal.sync()
        assert unlucky.tries == 2
        assert await device.silent()
        unlucky.code = 0
        device.say(b"I 1\nF a")
        await made.has(1)
        made.journal.sync()
        assert [await device.answer(), await device.answer()] == [b"hello;", b"A a;"]


async def test_after_a_stop_nothing_is_read_and_what_is_held_is_answered() -> None:
    async with gateway() as (made, device):
        device.say(b"I 1\nF a")
        await made.has(1)
        made.udp.stop()
        device.say(b"I 1\nF b")
        made.journal.sync()
        assert [await device.answer(), await device.answer()] == [b"hello;", b"A a;"]
        assert await device.silent()
        assert made.journal.waiting == []
        made.shared.intake.set(Shut.DISK, True)
        made.shared.intake.set(Shut.DISK, False)
        assert await device.silent()
