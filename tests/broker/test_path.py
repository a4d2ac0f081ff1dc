"""From the journals of gateways through RabbitMQ into the database: every message once, in order, whoever works."""

from __future__ import annotations

import asyncio

import pytest

from signalkeep import limits
from signalkeep.broker.service import RelayService
from signalkeep.ingest.worker import Worker
from signalkeep.store.claims import Claims
from signalkeep.store.postgres import Connection
from tests.broker.support import Running, Site
from tests.rabbit import RabbitNode
from tests.servers import wait_until_async

pytestmark = pytest.mark.timeout(400)  # more than what a test waits for in turn


def queues(worker: Running) -> list[int]:
    service: Worker = worker.service
    numbers = service.report().numbers
    assert numbers is not None
    assert numbers.worker is not None  # type: ignore[union-attr]  # a worker's report
    found: list[int] = numbers.worker.queues  # type: ignore[union-attr]  # as above
    return found


def messages_in(rabbit: RabbitNode, site: Site) -> int:
    vhost = site.url.rpartition("/")[2]
    return sum(queue.messages for queue in rabbit.queues(vhost).values())


async def test_everything_once_in_order_and_the_queues_are_empty_at_the_end(
    site: Site, rabbit: RabbitNode, connection: Connection
) -> None:
    machine = site.machine()
    relay = machine.start_relay()
    site.worker()
    await machine.load(4000, seconds=2)
    await site.check(4000)
    await machine.close_journal()
    await wait_until_async(lambda: relay.driving == 0)  # the journal has ended and every lane is in
    lanes = await connection.fetch("SELECT seq, frames, other_entries, lost FROM cursor")
    assert {row["seq"] for row in lanes} == {machine.writer.durable_seq} == {4008}
    assert sum(row["frames"] for row in lanes) == 4000
    assert sum(row["other_entries"] for row in lanes) == 8
    assert relay.stats.went_back == {}
    assert relay.stats.entries == 4008, "nothing was sent twice"
    await wait_until_async(lambda: messages_in(rabbit, site) == 0)


async def test_two_gateways_and_three_workers_share_the_queues(site: Site) -> None:
    machines = [site.machine(), site.machine()]
    workers = [site.worker() for _ in range(3)]
    for machine in machines:
        machine.start_relay()
    await asyncio.gather(*(machine.load(3000, seconds=4) for machine in machines))
    await site.check(6000)
    shares = sorted(len(queues(worker)) for worker in workers)
    assert shares == [2, 3, 3]
    assert sorted(queue for worker in workers for queue in queues(worker)) == list(range(limits.BROKER_QUEUES))


async def test_workers_come_and_go_in_mid_load(site: Site) -> None:
    machine = site.machine()
    machine.start_relay()
    first = site.worker()
    load = asyncio.create_task(machine.load(6000, seconds=9))
    await site.wait_for(500)
    second = site.worker()
    await wait_until_async(lambda: len(queues(second)) == 4)
    await first.die()
    third = site.worker()
    await wait_until_async(lambda: len(queues(second)) + len(queues(third)) == 8)
    await second.end()
    await load
    await site.check(6000)
    await wait_until_async(lambda: len(queues(third)) == 8)


async def test_two_workers_that_are_given_the_same_lanes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def everything(self: Claims) -> set[int]:
        return set(range(limits.BROKER_QUEUES))

    monkeypatch.setattr(Claims, "share", everything)
    machine = site.machine()
    machine.start_relay()
    one, other = site.worker(), site.worker()
    load = asyncio.create_task(machine.load(4000, seconds=3))
    await site.wait_for(500)
    working = max((one, other), key=lambda worker: worker.service.counts.messages)
    await working.die()  # the other is the next consumer of every queue
    await load
    await site.check(4000)
    assert queues(one) == queues(other)


async def test_a_journal_of_one_lane_goes_through_the_broker_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a machine was switched over: its old journal has a single lane."""
    monkeypatch.setattr("tests.broker.support.LANES_WITH_BROKER", 1)
    machine = site.machine()
    machine.receive(500)
    relay: RelayService = machine.start_relay()
    site.worker()
    await site.check(500)
    await machine.close_journal()
    await wait_until_async(lambda: relay.driving == 0)


async def test_an_outage_of_the_database_multiplies_nothing(
    site: Site, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither relay nor workers reach it for a while: what is in the queues stays there and is sent once."""
    machine = site.machine()
    relay = machine.start_relay()
    worker = site.worker()
    machine.receive(1000)
    await site.wait_for(1000)
    blocker = await connection.fetchval("SELECT pg_backend_pid()")
    await connection.execute("BEGIN; LOCK TABLE cursor IN ACCESS EXCLUSIVE MODE")
    await machine.load(2000, seconds=4)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> $1 AND datname = current_database()",
        blocker,
    )
    await asyncio.sleep(2)
    await connection.execute("ROLLBACK")
    await site.check(3000)
    assert relay.stats.went_back == {}
    assert relay.stats.entries == 3006
    assert worker.service.counts.holes == 0


async def test_a_relay_that_is_started_again_does_not_send_again_what_waits_in_the_queues(site: Site) -> None:
    machine = site.machine()
    first = machine.start_relay()
    machine.receive(2000)
    await wait_until_async(lambda: first.stats.entries == 2004)
    await asyncio.sleep(2 * limits.RELAY_NOTE_S)  # how far it has sent is noted that often
    assert machine.relay is not None
    await machine.relay.die()
    second = machine.start_relay()
    await machine.relay.ready.wait()
    site.worker()
    await site.check(2000)
    machine.receive(100)
    await site.check(2100)
    assert second.stats.entries == 101
    assert second.stats.went_back == {}


async def test_a_killed_relay_may_send_twice_and_stores_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_NOTE_S", 1000.0)  # it never notes how far it has come
    machine = site.machine()
    machine.start_relay()
    load = asyncio.create_task(machine.load(4000, seconds=4))
    for _ in range(3):
        await asyncio.sleep(1)
        assert machine.relay is not None
        await machine.relay.die()
        machine.start_relay()
    site.worker()
    await load
    await site.check(4000)
