"""Three nodes of RabbitMQ: one is killed, one is cut off, in mid-load; nothing is missing, doubled or disordered.

Every client knows one node. Who is connected to the one in trouble waits or comes back to it; the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from signalkeep import limits
from signalkeep.store.postgres import Connection
from tests.broker.support import PATIENCE_S, Machine, Running, Site
from tests.rabbit_cluster import RabbitCluster
from tests.servers import wait_until_async

pytestmark = pytest.mark.timeout(400)  # more than what a test waits for in turn

COUNT = 4000
FIRST = 400  # through before anything happens
NOTICED_S = 1.0  # how long a cut lasts at least, and a node stays away


@pytest.fixture(scope="module")
def cluster(rabbitmq: None) -> Iterator[RabbitCluster]:
    """Nodes of these tests alone; each test leaves them running and together."""
    made = RabbitCluster(3)
    try:
        made.start()
        yield made
    finally:
        made.close()


class Spread(Site):
    """Two gateways and two workers; each of them knows the node with its number and no other."""

    def __init__(self, tmp_path: Path, dsn: str, cluster: RabbitCluster, connection: Connection) -> None:
        super().__init__(tmp_path, dsn, cluster.nodes[0].url, connection)
        self._urls = [node.url for node in cluster.nodes]

    def machine_at(self, node: int) -> Machine:
        machine = self.machine(broker__url=self._urls[node])
        machine.start_relay()
        return machine

    async def wait_for_journal(self, machine: Machine, count: int) -> None:
        """Until so much of this machine is stored."""
        query = "SELECT count(*) FROM signal s JOIN journal j ON j.id = s.journal_id WHERE j.uuid = $1"
        uuid = machine.writer.journal_id

        async def there() -> bool:
            return bool(await self._connection.fetchval(query, uuid) == count)

        await wait_until_async(there, PATIENCE_S, what=f"{count} rows of one machine")

    def worker_at(self, node: int) -> Running:
        return self.worker(broker__url=self._urls[node])


@pytest.fixture
async def spread(
    tmp_path: Path, dsn: str, cluster: RabbitCluster, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Spread]:
    monkeypatch.setattr(limits, "RELAY_STALL_S", 3.0)
    monkeypatch.setattr(limits, "RETRY_S_MAX", 1.0)
    monkeypatch.setattr(limits, "BROKER_PUBLISH_S_MAX", 3.0)
    monkeypatch.setattr(limits, "BROKER_AWAY_S", 2.0)
    node = cluster.nodes[0]
    await asyncio.to_thread(node.delete_vhost, "/")  # with what another test has left
    await asyncio.to_thread(node.add_vhost, "/")
    made = Spread(tmp_path, dsn, cluster, connection)
    yield made
    await made.end()


async def begin(spread: Spread, machines: list[Machine]) -> None:
    """The first messages of everyone are through."""
    for machine in machines:
        machine.receive(FIRST)
    await spread.wait_for(FIRST * len(machines))


async def load(machine: Machine) -> None:
    await machine.load(COUNT - FIRST, seconds=6)


async def test_a_node_killed_and_started_again(spread: Spread, cluster: RabbitCluster) -> None:
    """It has a relay and a worker of its own, and leads some of the queues; the other relay hardly notices.

    The worker that cannot reach it leaves its queues to the one that reaches another node.
    """
    machines = [spread.machine_at(0), spread.machine_at(2)]
    for node in (1, 2):
        spread.worker_at(node)
    await begin(spread, machines)
    for member in cluster.nodes:
        await asyncio.to_thread(member.remember_queues)
    loads = asyncio.gather(*map(load, machines))
    await asyncio.sleep(NOTICED_S)
    await asyncio.to_thread(cluster.kill, 2)
    await spread.wait_for_journal(machines[0], COUNT)  # two of three are a majority
    assert cluster.nodes[2].pid is None
    await asyncio.to_thread(cluster.start, 2)
    await loads
    await spread.check(COUNT * len(machines))
    relay = machines[1].relay
    assert relay is not None
    assert relay.service.stats.failures > 0


@pytest.mark.parametrize("where", ["minority", "majority"])
async def test_a_partition_that_heals(spread: Spread, cluster: RabbitCluster, where: str) -> None:
    """A relay and a worker are at the node that is cut off, or nobody is: there nothing is taken and nothing given."""
    alone = 2
    machine = spread.machine_at(alone if where == "minority" else 0)
    for node in (alone, 1):
        spread.worker_at(node)
    await begin(spread, [machine])
    loading = asyncio.create_task(load(machine))
    await asyncio.sleep(NOTICED_S)
    await asyncio.to_thread(cluster.partition, alone)
    stored = await spread.stored()
    if where == "majority":
        await spread.wait_for(stored + 500)
    else:
        await asyncio.sleep(2 * NOTICED_S)
    assert not await asyncio.to_thread(cluster.nodes[alone].is_ready), "it pauses while it is alone"
    await asyncio.to_thread(cluster.heal)
    await loading
    await spread.check(COUNT)
    assert machine.relay is not None
    assert (machine.relay.service.stats.failures > 0) is (where == "minority")
