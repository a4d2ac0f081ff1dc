"""Hostile peers cost others nothing: devices are answered while hundreds of connections do their worst.

Real sockets, the loop that the product runs on, a journal on this disk. What is asserted are answers, counts and
bounds, never times. What it cannot see: a network that is full, and the kernel's own memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

from signalkeep import limits
from signalkeep.model import Reason
from tests.gateway.devices import answer, cut
from tests.gateway.test_service import event, never, often, running, settings_in
from tests.gateway.test_tcp import gateway
from tests.servers import wait_until_async

__all__ = ["never", "often"]  # fixtures

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = 500
GOOD = 20
ROUNDS = 5
MEMORY_BYTES_MAX = 100 * limits.MIB  # for all of them together

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on the loop that the product runs on."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        uvloop.run(test(*arguments, **named))

    return run


@pytest.mark.usefixtures("often")
@on_uvloop
async def test_devices_are_answered_whatever_others_do(tmp_path: Path) -> None:
    settings = settings_in(
        tmp_path, GATEWAY__CONNECTIONS_PER_ADDRESS_MAX="2000", JOURNAL__SEGMENT_BYTES=str(limits.SEGMENT_BYTES)
    )
    async with running(settings) as made:
        good = [await made.device() for _ in range(GOOD)]
        before = psutil.Process().memory_info().rss
        hostile = await asyncio.create_subprocess_exec(
            *(sys.executable, str(ROOT / "tests" / "gateway" / "hostile_peers.py")),
            *(str(made.ports["json"]), str(HOSTILE), event(1).hex()),
        )
        try:
            stats = made.service.stats
            await wait_until_async(
                lambda: (
                    made.service.connections_open > HOSTILE // 2
                    and stats.frames > 1000
                    and stats.refusals.get(Reason.UNFRAMABLE, 0) > 100
                    and stats.connections_opened > HOSTILE + GOOD + 5
                ),
                60,
                what="all of them do their worst",
            )
            most_held = most_pending = 0
            for number in range(ROUNDS):
                for _, writer in good:
                    writer.write(event(number))
                for reader, _ in good:
                    async with asyncio.timeout(60):
                        assert await reader.readexactly(1) == b"1"
                    most_held = max(most_held, made.service.held)
                    most_pending = max(most_pending, made.service.writer.pending_bytes)
            assert hostile.returncode is None
            assert made.service.connections_open <= 2 * HOSTILE + GOOD
            assert most_held <= made.service.connections_open * limits.HELD_REPLIES_PER_CONNECTION_MAX
            assert most_pending <= limits.JOURNAL_PENDING_BYTES_MAX + limits.MIB
            assert psutil.Process().memory_info().rss - before < MEMORY_BYTES_MAX
            for connection in made.service._shared.connections:
                assert connection.held <= limits.HELD_REPLIES_PER_CONNECTION_MAX
        finally:
            hostile.kill()
            await hostile.wait()
        for _, writer in good:
            writer.close()


@pytest.mark.usefixtures("often")
@on_uvloop
async def test_a_message_that_drips_is_cut_off_and_the_patient_are_not(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with running(settings) as made:
        drip_reader, drip = await made.device()
        idle_reader, idle = await made.device()
        for reader, writer in ((drip_reader, drip), (idle_reader, idle)):
            writer.write(event(1))
            assert await answer(reader, 1) == b"1"
        received = made.service.stats.bytes_received
        step_s = settings.gateway.frame_s / 4
        for number, byte in enumerate(event(2)[:4]):
            drip.write(bytes([byte]))
            wanted = received + number + 1
            await wait_until_async(lambda wanted=wanted: made.service.stats.bytes_received >= wanted)  # type: ignore[misc]  # its only argument has a default
            assert made.service.connections_open == 2
            made.clock.ahead_s += step_s + 0.5
        assert await cut(drip_reader), "each byte came in good time, the message did not"
        idle.write(event(3))
        assert await answer(idle_reader, 1) == b"1"
        assert made.service.stats.refusals == {Reason.TIME_OUT: 1}
        idle.close()
        drip.close()


@pytest.mark.usefixtures("often")
@on_uvloop
async def test_who_sends_messages_back_to_back_is_not_dripping(tmp_path: Path) -> None:
    """A part of the next message may be there at any time; what counts is how long it is the same one."""
    settings = settings_in(tmp_path)
    async with running(settings) as made:
        reader, writer = await made.device()
        writer.write(event(1) + event(1)[:10])
        assert await answer(reader, 1) == b"1"
        for number in range(2, 8):
            made.clock.ahead_s += settings.gateway.frame_s * 0.6
            writer.write(event(1)[10:] + event(1)[:10])
            assert await answer(reader, 1) == b"1", f"{number}"
            await made.looked(1)
        assert made.service.stats.refusals == {}
        writer.close()


@on_uvloop
async def test_who_never_takes_his_answers_is_closed_and_his_buffer_is_small() -> None:
    async with gateway() as made:
        deaf = socket.socket()
        deaf.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(deaf, ("127.0.0.1", made.port))
        pouring = asyncio.create_task(loop.sock_sendall(deaf, b"I 1\n" + (b"F " + b"x" * 2000 + b"\n") * 20_000))
        await wait_until_async(lambda: made.shared.connections, what="it is there")
        (connection,) = made.shared.connections
        end = time.monotonic() + 60
        while connection._blocked_at is None:
            assert time.monotonic() < end, "its answers pile up"
            made.journal.sync()
            await asyncio.sleep(0)
        assert connection._transport is not None
        held_bytes_max = limits.HELD_REPLIES_PER_CONNECTION_MAX * 2100
        assert connection._transport.get_write_buffer_size() <= limits.UNREAD_BYTES_PER_CONNECTION_MAX + held_bytes_max
        made.journal.sync()
        received = made.shared.stats.bytes_received
        for _ in range(20):
            await asyncio.sleep(0)
        assert made.shared.stats.bytes_received == received, "it is not read any more"
        assert not pouring.done()
        now, patience_s = made.shared.monotonic(), made.shared.settings.frame_s
        assert connection.overdue(now) is None
        assert connection.overdue(now + patience_s + 1) is Reason.UNREAD_ANSWERS
        connection.give_up(Reason.UNREAD_ANSWERS)
        await wait_until_async(lambda: not made.shared.connections, what="it is closed, with what it has not taken")
        assert made.journal.sessions[-1].kind == "closed"
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)
        deaf.close()


@on_uvloop
async def test_no_address_takes_all_connections(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, GATEWAY__CONNECTIONS_PER_ADDRESS_MAX="3")
    async with running(settings) as made:
        kept = [await made.device() for _ in range(3)]
        await wait_until_async(lambda: made.service.connections_open == 3)
        reader, writer = await made.device()
        assert await cut(reader)
        other_reader, other = await asyncio.open_connection(
            "127.0.0.1", made.ports["json"], local_addr=("127.0.0.9", 0)
        )
        other.write(event(1))
        assert await answer(other_reader, 1) == b"1"
        assert made.service.stats.refusals == {Reason.ADDRESS_LIMIT: 1}
        kept[0][1].close()
        await wait_until_async(lambda: made.service.connections_open == 3, what="its place is free again")
        again_reader, again = await made.device()
        again.write(event(1))
        assert await answer(again_reader, 1) == b"1"
        for _, stream in [*kept, (reader, writer), (other_reader, other), (again_reader, again)]:
            stream.close()


HUNGRY = """
import asyncio, resource, sys, time
from pathlib import Path
import uvloop
from tests.gateway.test_service import running, settings_in

async def main():
    async with running(settings_in(Path(sys.argv[1]), GATEWAY__CONNECTIONS_MAX="1")) as made:
        while not made.ports:
            await asyncio.sleep(0.01)
        made.service._shared.settings = made.service._shared.settings.model_copy(update={"connections_max": 10_000})
        in_use = len(list(Path("/proc/self/fd").iterdir()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 20, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        print(made.ports["json"], flush=True)
        used = time.process_time()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        print(time.process_time() - used, made.task.done(), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

uvloop.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
@on_uvloop
async def test_without_descriptors_it_neither_dies_nor_spins_and_goes_on_when_there_are_some(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HUNGRY, str(tmp_path)),
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        streams: list[Streams] = [await asyncio.open_connection("127.0.0.1", port) for _ in range(60)]
        served = 0
        for reader, writer in streams:
            writer.write(event(1))
            with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(0.2):
                    served += await reader.readexactly(1) == b"1"
        assert 0 < served < 60
        process.stdin.write(b"\n")
        used_s, ended = (await process.stdout.readline()).split()
        assert ended == b"False"
        assert float(used_s) < 10, "an idle wait"
        for _, writer in streams:
            writer.close()
        reader, writer = await until_answered(port)
        writer.close()
    finally:
        process.kill()
        await process.wait()


async def until_answered(port: int) -> Streams:
    """A connection that is served."""
    end = time.monotonic() + 20
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(event(2))
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(1):
                assert await reader.readexactly(1) == b"1"
                return reader, writer
        writer.close()
        assert time.monotonic() < end, "nobody is served any more"


def test_this_process_may_open_what_these_tests_need() -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 2 * HOSTILE
