"""A real RabbitMQ for the tests of the broker: one node in a worker process, and a virtual host for each test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from signalkeep.store.postgres import Connection
from tests.broker.support import Site
from tests.rabbit import RabbitNode


@pytest.fixture(scope="session")
def rabbit(rabbitmq: None) -> Iterator[RabbitNode]:
    """A running node with the management plugin, which tests share: leave it as it was."""
    node = RabbitNode(management=True)
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture
def vhost_url(rabbit: RabbitNode) -> Iterator[str]:
    """A fresh virtual host on the shared node, deleted with all that is in it."""
    vhost = f"test-{secrets.token_hex(4)}"
    rabbit.add_vhost(vhost)
    yield rabbit.vhost_url(vhost)
    rabbit.delete_vhost(vhost)


@pytest.fixture
async def site(tmp_path: Path, dsn: str, vhost_url: str, connection: Connection) -> AsyncIterator[Site]:
    """Gateways and workers of one test, on the shared node."""
    made = Site(tmp_path, dsn, vhost_url, connection)
    yield made
    await made.end()
