"""Drills of a fleet that is spread over machines: workers come and go, relays die, a cluster loses a node or is cut.

Two gateways with a relay each, two workers or more, one PostgreSQL. Every process knows one node of the cluster; all
the while devices of both gateways are acknowledged. What they cannot see: a network that is slow instead of cut.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Final

from tests.faults.drill import Result, hold
from tests.faults.fleet import Load
from tests.faults.spread import Spread, spread_over
from tests.rabbit import RabbitNode
from tests.rabbit_cluster import RabbitCluster

NODES: Final = 3
LOST: Final = 2  # the node that is killed or cut off: one gateway and one worker know no other
BETWEEN_KILLS_S: Final = 1.5


def machines_come_and_go(seconds: float) -> Result:
    """Two gateways and three workers; a worker, another worker, a relay is killed in turn, and a worker is added."""
    result = Result()
    node = RabbitNode()
    try:
        node.start()
        with spread_over([node], gateways=[0, 0], workers=[0, 0, 0]) as spread, spread.load() as driving:
            began_s, before = time.monotonic(), driving.told_safe
            for number in itertools.count():
                _strike(spread, number)
                hold(driving, BETWEEN_KILLS_S)
                if number >= 2 and time.monotonic() > began_s + seconds:
                    break
            over_s = time.monotonic()
            result.outage_s, result.told_safe_in_outage = over_s - began_s, driving.told_safe - before
            for machine in (*spread.gateways, *spread.workers):
                machine.start()
            spread.end(driving, result, over_s=over_s)
    finally:
        node.close()
    return result


def _strike(spread: Spread, number: int) -> None:
    """Kill somebody, after whoever was killed the last time is started again; once, a new worker comes as well."""
    for machine in (*spread.gateways, *spread.workers):
        machine.start()
    if number == 1:
        spread.add_worker()
    if number % 3 == 2:
        spread.gateways[number // 3 % len(spread.gateways)].kill_process("relay")
    else:
        spread.workers[number % len(spread.workers)].kill_process("ingest")


def node_of_a_cluster_killed(seconds: float) -> Result:
    """Two nodes of three go on; who knows only the third waits for it."""

    def kill_and_start(cluster: RabbitCluster, driving: Load) -> None:
        cluster.kill(LOST)
        hold(driving, seconds)
        cluster.start(LOST)

    return _with_cluster(kill_and_start)


def cluster_cut(seconds: float) -> Result:
    """A node is cut off from the other two and pauses, until they reach each other again."""

    def cut_and_heal(cluster: RabbitCluster, driving: Load) -> None:
        cluster.partition(LOST)
        hold(driving, seconds)
        cluster.heal()

    return _with_cluster(cut_and_heal)


def _with_cluster(trouble: Callable[[RabbitCluster, Load], None]) -> Result:
    result = Result()
    cluster = RabbitCluster(NODES)
    try:
        cluster.start()
        with spread_over(cluster.nodes, gateways=[0, LOST], workers=[1, LOST]) as spread, spread.load() as driving:
            began_s, before = time.monotonic(), driving.told_safe
            trouble(cluster, driving)
            over_s = time.monotonic()
            result.outage_s, result.told_safe_in_outage = over_s - began_s, driving.told_safe - before
            spread.end(driving, result, over_s=over_s)
    finally:
        cluster.close()
    return result
