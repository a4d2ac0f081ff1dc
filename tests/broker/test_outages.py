"""The broker stopped, killed, wiped, blocked, robbed of a queue in mid-load: nothing missing, doubled, disordered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aio_pika
import pytest

from signalkeep import limits
from signalkeep.broker.topology import ASIDE, LANES
from signalkeep.store.postgres import Connection
from tests.broker.support import Machine, Running, Site
from tests.rabbit import RabbitNode

pytestmark = pytest.mark.timeout(400)  # more than what a test waits for in turn

COUNT = 5000
UNHURRIED_S = 2 * limits.RELAY_STALL_S  # of a stall, where there must be none however slow the machine is


@pytest.fixture(scope="module")
def node(rabbitmq: None) -> Iterator[RabbitNode]:
    """A node of these tests alone, which leave it running."""
    made = RabbitNode()
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
async def busy(
    tmp_path: Path, dsn: str, node: RabbitNode, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Site, Machine, Running]]:
    """A machine and a worker on that node, with the first messages through."""
    monkeypatch.setattr(limits, "RELAY_STALL_S", 3.0)
    monkeypatch.setattr(limits, "RETRY_S_MAX", 1.0)
    if node.pid is None:
        node.start()
    node.delete_vhost("/")  # with what another test has left
    node.add_vhost("/")
    site = Site(tmp_path, dsn, node.url, connection)
    machine = site.machine()
    machine.start_relay()
    worker = site.worker()
    machine.receive(500)
    await site.wait_for(500)
    yield site, machine, worker
    await site.end()


async def through(site: Site, machine: Machine, *trouble: Callable[[], None]) -> None:
    """A load of eight seconds with the trouble spread over it, and everything once in the end."""
    load = asyncio.create_task(machine.load(COUNT - 500, seconds=6))
    for step in trouble:
        await asyncio.sleep(1.0)
        await asyncio.to_thread(step)
    await load
    await site.check(COUNT)


async def test_stopped_and_started(
    busy: tuple[Site, Machine, Running], node: RabbitNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RELAY_STALL_S", UNHURRIED_S)
    site, machine, worker = busy
    await through(site, machine, node.stop, node.start)
    assert machine.relay is not None
    stats = machine.relay.service.stats
    assert stats.failures > 0
    assert stats.went_back == {}, "what it had confirmed was still there"
    assert worker.service.counts.holes == 0


async def test_killed_twice(busy: tuple[Site, Machine, Running], node: RabbitNode) -> None:
    site, machine, _ = busy
    node.remember_queues()
    await through(site, machine, node.kill, node.start, node.kill, node.start)


async def test_wiped(busy: tuple[Site, Machine, Running], node: RabbitNode) -> None:
    """Confirmed messages are gone with it; the journals have them."""
    site, machine, worker = busy
    node.remember_queues()
    site.workers.remove(worker)
    await worker.end()  # so that something is in the queues
    before = await site.stored()
    await through_without_worker(site, machine, node)
    assert machine.relay is not None
    assert machine.relay.service.stats.went_back.total() > 0
    assert before < COUNT


async def through_without_worker(site: Site, machine: Machine, node: RabbitNode) -> None:
    load = asyncio.create_task(machine.load(COUNT - 500, seconds=4))
    await asyncio.sleep(1.5)
    await asyncio.to_thread(node.kill)
    node.wipe()
    await asyncio.to_thread(node.start)
    site.worker()
    await load
    await site.check(COUNT)


async def test_blocked_by_its_memory_alarm(
    busy: tuple[Site, Machine, Running], node: RabbitNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RELAY_STALL_S", UNHURRIED_S)
    site, machine, _ = busy
    assert machine.relay is not None
    stats = machine.relay.service.stats
    await through(
        site, machine, lambda: node.memory_alarm(True), lambda: None, lambda: None, lambda: node.memory_alarm(False)
    )
    assert stats.went_back == {}
    assert stats.entries == COUNT + COUNT // 500, "nothing was sent twice"


async def test_frozen_for_a_while(
    busy: tuple[Site, Machine, Running], node: RabbitNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections stay, and nothing on them is answered."""
    monkeypatch.setattr(limits, "BROKER_PUBLISH_S_MAX", 1.0)
    monkeypatch.setattr(limits, "BROKER_CALL_S_MAX", 2.0)
    site, machine, _ = busy
    await through(site, machine, node.pause, lambda: None, lambda: None, node.resume)


async def test_a_queue_is_deleted_and_a_binding_too(busy: tuple[Site, Machine, Running], node: RabbitNode) -> None:
    """By somebody with the rights to: unroutable messages go aside, and everything is made again."""
    site, machine, worker = busy
    load = asyncio.create_task(machine.load(COUNT - 500, seconds=5))
    connection = await aio_pika.connect(node.url)
    async with connection:
        channel = await connection.channel()
        await asyncio.sleep(1)
        await channel.queue_delete(f"{LANES}.3")
        await asyncio.sleep(1)
        queue = await channel.get_queue(f"{LANES}.5")
        await queue.unbind(LANES, "5")
        await load
        await site.check(COUNT)
        aside = await channel.declare_queue(ASIDE, passive=True)
        assert aside.declaration_result.message_count == 0
    assert machine.relay is not None
    assert machine.relay.service.stats.went_back.total() > 0
    assert worker.service.counts.set_aside["unroutable"] > 0


async def test_a_binding_alone_is_deleted(busy: tuple[Site, Machine, Running], node: RabbitNode) -> None:
    """No connection ends and no queue is gone: only what is missing in the database says so."""
    site, machine, worker = busy
    load = asyncio.create_task(machine.load(COUNT - 500, seconds=4))
    connection = await aio_pika.connect(node.url)
    async with connection:
        channel = await connection.channel()
        await asyncio.sleep(1)
        await (await channel.get_queue(f"{LANES}.5")).unbind(LANES, "5")
        await load
        await site.check(COUNT)
    assert machine.relay is not None
    assert machine.relay.service.stats.went_back.total() > 0
    assert worker.service.counts.set_aside["unroutable"] > 0


async def test_a_queue_without_a_leader_is_made_again(
    busy: tuple[Site, Machine, Running], node: RabbitNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of RabbitMQ 3.10, when a queue is younger than a second and it is killed."""
    monkeypatch.setattr(limits, "BROKER_SILENCE_S", 2.0)
    monkeypatch.setattr(limits, "BROKER_PUBLISH_S_MAX", 2.0)
    monkeypatch.setattr(limits, "BROKER_QUIET_S", 3.0)
    site, machine, _ = busy
    load = asyncio.create_task(machine.load(COUNT - 500, seconds=4))
    await asyncio.sleep(1)
    await asyncio.to_thread(node.order, f"begin {REMOVE_MEMBER} end")
    await load
    await site.check(COUNT)


REMOVE_MEMBER = (
    '{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"signalkeep.lanes.2">>)), '
    "{Name, Node} = amqqueue:get_pid(Q), ra:force_delete_server(quorum_queues, {Name, Node}), ok"
)
