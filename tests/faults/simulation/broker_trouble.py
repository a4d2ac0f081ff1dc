"""What breaks about a broker, and about those at its ends: when, and for how long."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from signalkeep.drivers.source import ASIDE_QUEUE
from tests.faults.simulation.broker_side import RELAY, BrokerSide

if TYPE_CHECKING:
    from tests.faults.simulation.world import World

LOOKS: Final = 50  # for a message that waits
LOOK_S: Final = 0.1


class BrokerTrouble:
    """`faults`: each goes on for a while."""

    def __init__(self, world: World, side: BrokerSide, rng: random.Random) -> None:
        self._world, self._side, self._rng = world, side, rng
        self._broker = side.broker
        self._count = world.count
        self.faults: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self._kill_relay,
            self._kill_worker,
            self._cut,
            self._down,
            self._blocked,
            self._wiped,
            self._deleted,
            self._one_lost,
            self._publishes_fail,
            self._doubled,
            self._rubbish,
        ]

    def calm(self) -> None:
        broker = self._broker
        broker.up, broker.unreachable_by = True, frozenset()
        broker.unblock()
        broker.fault_rate = broker.double_rate = 0.0

    async def _kill_relay(self) -> None:
        self._world.kill(RELAY)
        self._count("relay killed")

    async def _kill_worker(self) -> None:
        self._world.kill(self._rng.choice(self._side.workers))
        self._count("worker killed")

    async def _cut(self) -> None:
        for line in self._broker.lines:
            if self._rng.random() < 0.6:
                self._broker.cut(line)
                self._count("broker's connection cut")

    async def _down(self) -> None:
        self._broker.go_down()
        self._count("broker away")
        await asyncio.sleep(self._rng.choice((0.3, 3.0, 15.0)))
        self._broker.up = True

    async def _blocked(self) -> None:
        self._broker.blocked = True
        self._count("broker blocked")
        await asyncio.sleep(self._rng.choice((0.5, 5.0, 20.0)))
        self._broker.unblock()

    async def _wiped(self) -> None:
        self._broker.go_down()
        self._broker.wipe()
        self._count("broker wiped")
        await asyncio.sleep(self._rng.uniform(0.2, 3.0))
        self._broker.up = True
        if self._rng.random() < 0.5:  # whoever comes first makes the queues: the relay has to be it at times
            self._broker.unreachable_by = frozenset(self._side.workers)
            await asyncio.sleep(3.0)
            self._broker.unreachable_by = frozenset()

    async def _deleted(self) -> None:
        self._broker.delete(self._some_queue())
        self._count("queue deleted")

    async def _one_lost(self) -> None:
        for _ in range(LOOKS):
            if self._broker.lose_one(self._some_queue()):
                self._count("one message lost")
                return
            await asyncio.sleep(LOOK_S)

    async def _publishes_fail(self) -> None:
        self._broker.fault_rate = self._rng.choice((0.1, 0.4))
        await asyncio.sleep(self._rng.uniform(1.0, 8.0))
        self._broker.fault_rate = 0.0

    async def _doubled(self) -> None:
        self._broker.double_rate = 0.3
        for _ in range(self._rng.randint(5, LOOKS)):
            if self._rng.random() < 0.2 and self._broker.put_again(self._some_queue()):
                self._count("old message again")
            await asyncio.sleep(LOOK_S)
        self._broker.double_rate = 0.0

    async def _rubbish(self) -> None:
        """Of strangers, and damaged."""
        queue = self._some_queue()
        self._broker.put(queue, self._rng.choice((b"", b"SKRANGE")) + self._rng.randbytes(self._rng.randint(0, 60)))

    def _some_queue(self) -> int:
        return self._rng.choice([queue for queue in self._broker.names if queue != ASIDE_QUEUE])
