"""A cluster of RabbitMQ nodes on the loopback, whose nodes can be killed and cut off from each other.

A cut is made where the nodes talk to each other and nowhere else: both sides are told a wrong secret for the other,
then the connection is closed. Neither can open it again, while clients reach all nodes as before.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final, Literal

from tests.erlang import Epmd, atom
from tests.rabbit import CallFailed, RabbitNode
from tests.servers import wait_until

TOGETHER_S: Final = 60.0
PartitionHandling = Literal["pause_minority", "ignore"]


class RabbitCluster:
    """Throw-away nodes that know each other. With `ignore`, a node that is cut off goes on serving its clients, as
    far as it can do that alone; with `pause_minority` it closes their connections and refuses new ones."""

    def __init__(self, size: int = 3, *, partition_handling: PartitionHandling = "pause_minority") -> None:
        self._epmd, self._partition_handling = Epmd(), partition_handling
        cookie = secrets.token_hex(16)
        self.nodes = [RabbitNode(epmd=self._epmd, cookie=cookie) for _ in range(size)]
        self._cut: set[int] = set()
        for node in self.nodes:
            node.config += [
                f"cluster_partition_handling = {partition_handling}",
                "cluster_formation.peer_discovery_backend = classic_config",
                # They start at the same time and take turns by a lock. The first to get it finds no one that it could
                # join, and need not look for long.
                "cluster_formation.discovery_retry_limit = 1",
                "cluster_formation.discovery_retry_interval = 100",
                *(f"cluster_formation.classic_config.nodes.{n} = {peer.name}" for n, peer in enumerate(self.nodes, 1)),
            ]

    def start(self, index: int | None = None) -> None:
        """Start a node, without a number all that are down, and wait until the running ones are together."""
        assert not self._cut, "heal them first: a node waits for others when it starts"
        down = [node for node in self.nodes if node.pid is None] if index is None else [self.nodes[index]]
        for node in down:
            node.launch()
        for node in down:
            node.wait_ready()
        self._wait_together()

    def kill(self, index: int) -> None:
        """kill -9 of one node."""
        self.nodes[index].kill()

    def handle_partitions(self, how: PartitionHandling) -> None:
        """Change what running nodes do when they are cut off; a node that is started later does as configured."""
        for node in self._running():
            node.order(f"application:set_env(rabbit, cluster_partition_handling, {how})")
        self._partition_handling = how

    def partition(self, index: int) -> None:
        """Cut one running node off from the others; it stays so until `heal`."""
        alone, others = self.nodes[index], [node for node in self._running() if node is not self.nodes[index]]
        # Others first: after this they refuse the node, and it cannot come back over one that does not know yet.
        for other in others:
            other.eval(f"erlang:set_cookie({atom(alone.name)}, severed_here)")
        names = names_of(others)
        alone.eval(f"[[erlang:set_cookie(N, severed_there), erlang:disconnect_node(N)] || N <- {names}]")
        wait_until(lambda: not alone.eval("nodes()"), what="the node is alone")
        wait_until(lambda: not any(alone.name in other.eval("nodes()") for other in others), what="the others noticed")
        self._cut.add(index)

    def heal(self) -> None:
        """Let the nodes reach each other again, and wait until they work together."""
        for index in self._cut:
            # A node that went on alone must forget what it came to believe, which it does when its broker starts.
            # One that paused does this by itself.
            if self._partition_handling == "ignore" and self.nodes[index].pid is not None:
                self.nodes[index].order("rabbit:stop()", timeout_s=TOGETHER_S)
        for node in self._running():
            node.eval(f"[erlang:set_cookie(N, erlang:get_cookie()) || N <- {names_of(self.nodes)}, N =/= node()]")
        for node in self._running():
            names = names_of(self._running())
            node.eval(f"[net_kernel:connect_node(N) || N <- {names}, N =/= node()]")
        for index in self._cut:
            if self._partition_handling == "ignore" and self.nodes[index].pid is not None:
                self.nodes[index].order("rabbit:start()", timeout_s=TOGETHER_S)
        self._cut.clear()
        self._wait_together()

    def close(self) -> None:
        """End all and remove everything, each whatever becomes of the others."""
        with ExitStack() as last:
            last.callback(self._epmd.close)
            for node in self.nodes:
                last.callback(node.close)

    def _running(self) -> list[RabbitNode]:
        return [node for node in self.nodes if node.pid is not None]

    def _wait_together(self) -> None:
        """Until each running node serves clients and sees all running nodes."""
        running = self._running()

        def together() -> bool:
            try:
                seen = [set(node.eval("rabbit_nodes:all_running()")) for node in running if node.is_ready()]
            except CallFailed:
                return False
            return seen == [{node.name for node in running}] * len(running)

        wait_until(together, TOGETHER_S, what="the nodes are together")


def names_of(nodes: Sequence[RabbitNode]) -> str:
    """An Erlang list of their names."""
    return f"[{', '.join(atom(node.name) for node in nodes)}]"
