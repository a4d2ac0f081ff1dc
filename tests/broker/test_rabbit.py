"""The RabbitMQ of the tests does what tests rely on: it can be stopped, killed, frozen, wiped, blocked and cut off,
and it keeps what a quorum queue has confirmed."""

from __future__ import annotations

import asyncio
import json
import ssl
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import AMQPConnectionError, ChannelClosed, DeliveryError

from signalkeep.errors import EnvironmentFault
from tests import erlang
from tests.erlang import answers, processes_of
from tests.rabbit import CallFailed, RabbitNode
from tests.rabbit_cluster import RabbitCluster
from tests.servers import wait_until_async

pytestmark = pytest.mark.servers
QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}
CONFIRM_S = 30.0
CONFIRM_AGAIN_S = 10.0  # where it is tried again after that
NO_CONFIRM_S = 1.0  # how long we look at a confirmation that must not come


@asynccontextmanager
async def channel(url: str, **options: Any) -> AsyncIterator[AbstractChannel]:
    """A channel with confirms, on a connection of its own."""
    connection = await aio_pika.connect(url, timeout=30, **options)
    try:
        yield await connection.channel(publisher_confirms=True, on_return_raises=True)
    finally:
        with suppress(AMQPConnectionError, TimeoutError):
            await asyncio.wait_for(connection.close(), 5)


async def publish(on: AbstractChannel, queue: str = "q", *, timeout_s: float = CONFIRM_S) -> None:
    """Publish a persistent message; returns when it is confirmed."""
    message = aio_pika.Message(b"signal", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await on.default_exchange.publish(message, queue, mandatory=True, timeout=timeout_s)


async def confirmed(url: str) -> bool:
    """Whether a message is confirmed now; a node that knows no leader refuses at once, one that pauses hears nobody.

    Each time on a new channel: RabbitMQ 3.10 refuses everything on a channel that began while there was no leader,
    for as long as the node of the former one is away.
    """
    try:
        async with channel(url) as on:
            await publish(on, timeout_s=CONFIRM_AGAIN_S)
    except (DeliveryError, AMQPConnectionError, TimeoutError):
        return False
    return True


async def wait_for_messages(node: RabbitNode, count: int, vhost: str = "/") -> None:
    def there() -> bool:
        queue = node.queues(vhost).get("q")
        return queue is not None and queue.messages == count

    await wait_until_async(there, what=f"{count} messages in the queue")


def vhost_of(url: str) -> str:
    return url.rpartition("/")[2]


@pytest.fixture
def node(rabbitmq: None) -> Iterator[RabbitNode]:
    """A node of the test's own, not yet started."""
    made = RabbitNode()
    yield made
    made.close()
    assert not processes_of(made.directory)


@pytest.fixture(scope="module")
def cluster(rabbitmq: None) -> Iterator[RabbitCluster]:
    """Three nodes, which tests share, for their start is long: leave them together."""
    made = RabbitCluster(3)
    try:
        made.start()
        yield made
    finally:
        made.close()


async def test_each_test_has_a_virtual_host_on_the_shared_node(rabbit: RabbitNode, vhost_url: str) -> None:
    vhost = vhost_of(vhost_url)
    async with channel(vhost_url) as on:
        await on.declare_queue("q", durable=True, arguments=QUORUM)
        await on.declare_queue("classic", durable=True)
        for _ in range(3):
            await publish(on)
    await wait_for_messages(rabbit, 3, vhost)
    queues = rabbit.queues(vhost)
    assert {name: queue.type for name, queue in queues.items()} == {"q": "quorum", "classic": "classic"}
    assert (queues["q"].ready, queues["q"].unacknowledged, queues["classic"].messages) == (3, 0, 0)
    assert vhost in rabbit.ctl("list_vhosts").split()


def test_the_management_plugin_answers(rabbit: RabbitNode) -> None:
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, rabbit.management_url, "guest", "guest")
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPBasicAuthHandler(passwords)
    )
    with opener.open(f"{rabbit.management_url}api/overview", timeout=10) as answer:
        assert json.load(answer)["node"] == rabbit.name


async def test_users_and_policies(rabbit: RabbitNode, vhost_url: str) -> None:
    vhost, name, password = vhost_of(vhost_url), 'it\'s "a" user/ö', "p@ss: wörd"
    rabbit.add_user(name, password, vhost, configure="^q$", write="^$", read="")
    rabbit.set_policy(vhost, "short", "^q$", {"max-length": 2})
    async with channel(rabbit.vhost_url(vhost, user=name, password=password)) as on:
        await on.declare_queue("q", durable=True, arguments=QUORUM)
        with pytest.raises(ChannelClosed, match="ACCESS_REFUSED"):
            await on.declare_queue("other")
    async with channel(vhost_url) as on:
        for _ in range(5):
            await publish(on)
    await wait_for_messages(rabbit, 2, vhost)


async def test_a_memory_alarm_blocks_who_publishes(rabbit: RabbitNode, vhost_url: str) -> None:
    async with channel(vhost_url) as on:
        await on.declare_queue("q", durable=True, arguments=QUORUM)
        rabbit.memory_alarm(True)
        try:
            waiting = asyncio.create_task(publish(on))
            await asyncio.wait({waiting}, timeout=NO_CONFIRM_S)
            assert not waiting.done()
        finally:
            rabbit.memory_alarm(False)
        await waiting


async def test_a_frozen_node_confirms_when_it_goes_on(rabbit: RabbitNode, vhost_url: str) -> None:
    async with channel(vhost_url) as on:
        await on.declare_queue("q", durable=True, arguments=QUORUM)
        rabbit.pause()
        try:
            waiting = asyncio.create_task(publish(on))
            await asyncio.wait({waiting}, timeout=NO_CONFIRM_S)
            assert not waiting.done()
        finally:
            rabbit.resume()
        await waiting


async def test_what_is_confirmed_outlives_the_node_and_not_its_data(node: RabbitNode) -> None:
    node.start()
    async with channel(node.url) as on:
        await on.declare_queue("q", durable=True, arguments=QUORUM)
        await publish(on)
    node.remember_queues()
    node.kill()
    assert not answers(node.port)
    assert not processes_of(node.directory)
    with pytest.raises(CallFailed):
        node.queues()
    node.start()
    await wait_for_messages(node, 1)
    node.stop()
    assert not answers(node.port)
    node.wipe()
    node.start()
    assert node.queues() == {}


def test_a_node_that_cannot_start_shows_its_log(node: RabbitNode) -> None:
    node.config.append("no.such = setting")
    with pytest.raises(AssertionError, match=r"no\.such"):
        node.start()


async def test_tls(rabbitmq: None) -> None:
    node = RabbitNode(tls=True)
    try:
        node.start()
        trusting = ssl.create_default_context(cafile=str(node.ca_file))
        async with channel(node.amqps_url, ssl_context=trusting) as on:
            await on.declare_queue("q", durable=True, arguments=QUORUM)
            await publish(on)
        with pytest.raises(AMQPConnectionError, match=r"(?i)certificate"):
            async with channel(node.amqps_url, ssl_context=ssl.create_default_context()):
                pass
    finally:
        node.close()


async def test_a_quorum_queue_goes_on_where_the_majority_is(cluster: RabbitCluster) -> None:
    first, second, third = cluster.nodes
    async with channel(first.url) as on:
        await on.queue_delete("q")
        await on.declare_queue("q", durable=True, arguments=QUORUM)
        await publish(on)
    for node in cluster.nodes:
        node.remember_queues()

    cluster.kill(0)
    await wait_until_async(lambda: confirmed(second.url), what="two of three confirm")
    cluster.start(0)

    cluster.handle_partitions("ignore")
    async with channel(first.url) as minority:
        await publish(minority)
        cluster.partition(0)
        with pytest.raises((TimeoutError, DeliveryError)):
            await publish(minority, timeout_s=NO_CONFIRM_S)
        assert not await confirmed(first.url)
        await wait_until_async(lambda: confirmed(third.url), what="the majority confirms")
    cluster.heal()
    await wait_until_async(lambda: confirmed(first.url), what="all confirm")
    # What was not confirmed may have been stored all the same.
    await wait_until_async(lambda: second.queues()["q"].messages >= 5, what="nothing that was confirmed is missing")


async def test_a_minority_that_pauses_refuses_its_clients(cluster: RabbitCluster) -> None:
    first, second, _ = cluster.nodes
    cluster.handle_partitions("pause_minority")
    async with channel(second.url) as on:
        await on.queue_delete("q")
        await on.declare_queue("q", durable=True, arguments=QUORUM)
    cluster.partition(0)
    await wait_until_async(lambda: not answers(first.port), what="the minority refuses its clients")
    await wait_until_async(lambda: confirmed(second.url), what="the majority confirms")
    cluster.heal()
    await wait_until_async(lambda: confirmed(first.url), what="all confirm")


def test_a_machine_without_rabbitmq_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(erlang, "SCRIPTS", tmp_path)
    with pytest.raises(EnvironmentFault, match="apt-get install --no-install-recommends rabbitmq-server"):
        erlang.find_rabbitmq()
