"""Drills of a fleet that is spread over machines: workers come, go, hang; relays die; a cluster loses a node or is cut.

Two gateways with a relay each, two workers or more, one PostgreSQL. Every process knows one node of the cluster; all
the while devices of both gateways are acknowledged. What they cannot see: a network that is slow instead of cut.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from signalkeep.limits import BROKER_QUEUES, CLAIM_SILENT_S
from signalkeep.store.claims import QUEUES_CLASS
from tests.faults.drill import Result, hold, wait_until_asked
from tests.faults.fleet import Load
from tests.faults.spread import Spread, spread_over
from tests.rabbit import RabbitNode
from tests.rabbit_cluster import RabbitCluster

NODES: Final = 3
LOST: Final = 2  # the node that is killed or cut off: one gateway and one worker know no other
BETWEEN_KILLS_S: Final = 1.5
FREE_S_MAX: Final = 2 * CLAIM_SILENT_S  # the queues of a worker that hangs

# How many queues the one of two workers has that has fewer.
SHARE: Final = f"""
SELECT CASE WHEN count(*) > 1 THEN min(held) ELSE 0 END AS smallest
FROM (SELECT count(*) AS held FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = {QUEUES_CLASS}
      GROUP BY pid) of_each
"""

# Of the device of which nothing has come for the longest time.
NEWEST: Final = """
SELECT min(newest) AS of_the_last FROM (SELECT max(received_at) AS newest FROM signal GROUP BY device_id) of_each
"""


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


def worker_frozen(seconds: float) -> Result:
    """One of two workers: the other gets its queues while it is frozen, and it goes on as if nothing had been."""
    result = Result()
    node = RabbitNode()
    try:
        node.start()
        with spread_over([node], gateways=[0], workers=[0, 0]) as spread, spread.load() as driving:
            wait_until_asked(spread.dsn, SHARE, lambda row: row["smallest"] >= BROKER_QUEUES // 2, "both share")
            wait_until_asked(spread.dsn, NEWEST, lambda row: row["of_the_last"] is not None, "rows come")
            began_s, before = time.monotonic(), driving.told_safe
            with spread.workers[0].frozen("ingest"):
                frozen_at = datetime.now(UTC)
                hold(driving, seconds)
                others = "the other writes what comes of every device"
                wait_until_asked(spread.dsn, NEWEST, lambda row: row["of_the_last"] > frozen_at, others, FREE_S_MAX)
            over_s = time.monotonic()
            result.outage_s, result.told_safe_in_outage = over_s - began_s, driving.told_safe - before
            spread.end(driving, result, over_s=over_s)
    finally:
        node.close()
    return result


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
