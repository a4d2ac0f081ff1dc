"""A whole core with a broker: `signalkeep run` with a relay and two workers, and a private RabbitMQ node beside it.

The node belongs to the test, as it would to an operator: whoever ends it starts it again.
"""

from __future__ import annotations

from typing import Final

from signalkeep.limits import BROKER_QUEUES
from tests.core import Core
from tests.faults.drill import ask
from tests.faults.judgement import EXAMPLES_SHOWN
from tests.rabbit import CallFailed, RabbitNode
from tests.servers import wait_until

NO_PLUGIN: Final = "http://127.0.0.1:1"  # policies are not looked for: nobody listens there
WORKERS: Final = 2
EMPTY_S_MAX: Final = 60.0


class BrokerCore(Core):
    """`node`: RabbitMQ. Its queues are on its disk when `start` returns."""

    def __init__(self, **settings: str) -> None:
        self.node = RabbitNode()
        super().__init__(
            broker__url=self.node.url,
            broker__management_url=NO_PLUGIN,
            ingest__processes=str(WORKERS),
            **settings,
        )

    def start(self, *options: str) -> None:
        """Node first, then the core."""
        if self.node.pid is None:
            self.node.start()
        super().start(*options)
        remember_queues(self.node)

    def close(self) -> None:
        """End everything, the node last."""
        try:
            super().close()
        finally:
            self.node.close()


def remember_queues(node: RabbitNode) -> None:
    """Wait until there are all queues, and see to it that a killed node knows them again."""
    wait_until(lambda: len(node.queues()) > BROKER_QUEUES, 60, what="the queues and the one for what is set aside")
    node.remember_queues()


def leftovers(node: RabbitNode, dsn: str) -> list[str]:
    """When everything is in the database: what the broker still has of it, and what workers could not use."""
    left: dict[str, int] = {}

    def empty() -> bool:
        left.clear()
        left.update({queue.name: queue.messages for queue in node.queues().values() if queue.messages})
        return not left

    found = []
    try:
        wait_until(empty, EMPTY_S_MAX, what="the queues are empty")
    except (AssertionError, CallFailed) as error:
        found.append(f"messages stay in the queues: {left or error}")
    rows = ask(dsn, f"SELECT queue, reason, detail FROM set_aside LIMIT {EXAMPLES_SHOWN}")
    return [*found, *(f"set aside from {row['queue']}, {row['reason']}: {row['detail']}" for row in rows)]
