"""RabbitMQ as far as the core uses it, in virtual time: quorum queues with one active consumer, and how they fail.

    relay   --publish-->  queue: ready, oldest first  --at most so many at a time-->  the first consumer
            <--confirm--         ^------------ unacknowledged, when its channel ends ------'

What was confirmed stays, whatever ends or stops, until it is acknowledged; only `wipe`, `delete` and `lose_one` break
that. A message for a queue that is not there goes aside, and is confirmed. What is given back returns to its place,
one delivery older. Either end of a connection learns later than the other that it is over.

What it cannot show: AMQP itself, the client library, a cluster that disagrees. Tests beside this one start real nodes.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from signalkeep import limits
from signalkeep.drivers.source import ASIDE_QUEUE
from signalkeep.errors import BrokerUnavailable

WAY_S: Final = (0.001, 0.02)  # to the broker, or back
CONFIRM_S: Final = (0.002, 0.06)
NOTICED_S: Final = (0.0, 0.3)  # until an end of a connection learns that it is over
NOTICED_LATE_S: Final = (5.0, 30.0)  # by missed heartbeats
NACK, CONFIRM_LOST, CONFIRM_LATE = "message refused", "confirm lost", "confirm late"


@dataclass(eq=False)
class Message:
    """One message of a queue. `number`: its place in it."""

    number: int
    body: bytes
    times: int = 0  # it was delivered before


class Line:
    """A connection. `open`: as its process sees it; `known`: as the broker sees it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.open = self.known = True
        self.channels: list[Channel] = []
        self.on_end: Callable[[], None] = lambda: None
        self.waiting: dict[asyncio.Future[bool], None] = {}  # for confirms

    def end_here(self) -> None:
        """The process's end is closed."""
        if self.open:
            self.open = False
            for confirm in self.waiting:
                if not confirm.done():
                    confirm.set_exception(BrokerUnavailable("made up: the connection is gone"))
                    confirm.exception()  # seen: whoever waited may be dead
            self.on_end()


class Channel:
    """One consumer of one queue."""

    def __init__(self, line: Line, queue: int, arrived: Callable[[Channel, Message], None]) -> None:
        self.line, self.queue, self.arrived = line, queue, arrived
        self.open = True  # as its process sees it
        self.unacknowledged: deque[Message] = deque()
        self.due_s = 0.0


class Queue:
    """Durable, first in, first out."""

    def __init__(self) -> None:
        self.ready: deque[Message] = deque()
        self.channels: list[Channel] = []  # the first is served
        self.served = ""  # whose channel that was at last
        self._number = 0

    def put(self, body: bytes) -> None:
        self._number += 1
        self.ready.append(Message(self._number, body))

    def take_back(self, messages: Sequence[Message]) -> None:
        """To their places: what is unacknowledged is older than all that waits."""
        for message in messages:
            message.times += 1
        self.ready.extendleft(reversed(messages))

    @property
    def unacknowledged(self) -> int:
        return sum(len(channel.unacknowledged) for channel in self.channels)


class SimBroker:
    """`losses`: by queue, how often something was lost that had been confirmed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: random.Random, queues: int) -> None:
        self._loop, self._rng = loop, rng
        self.names: list[int] = [ASIDE_QUEUE, *range(queues)]
        self._held: list[tuple[Line, int, bytes, asyncio.Future[bool]]] = []
        self._lines: list[Line] = []
        self.queues: dict[int, Queue] = {}
        self.up = True
        self.blocked = False
        self.unreachable_by: frozenset[str] = frozenset()  # processes
        self.fault_rate = 0.0  # of publishes
        self.double_rate = 0.0  # of deliveries
        self.on_acknowledged: Callable[[bytes], None] = lambda body: None
        self.losses: Counter[int] = Counter()
        self.counts: Counter[str] = Counter()

    # What processes ask of it

    async def connect(self, name: str) -> tuple[Line, set[int]]:
        """A connection, and the queues that were not there and had to be made. Raises BrokerUnavailable."""
        await self.way()
        if not self.up or name in self.unreachable_by:
            raise BrokerUnavailable("the simulated broker is away")
        line = Line(name)
        self._lines.append(line)
        missing = {queue for queue in self.names if queue not in self.queues}
        for queue in missing:
            self.make(queue)
        return line, missing

    async def way(self) -> None:
        await asyncio.sleep(self._rng.uniform(*WAY_S))

    def make(self, queue: int) -> None:
        self.queues.setdefault(queue, Queue())

    async def depth(self, line: Line, queue: int) -> int | None:
        """What is ready in a queue; None if it is not there. Raises BrokerUnavailable."""
        await self.way()
        if not (line.known and line.open):
            line.end_here()
            raise BrokerUnavailable("made up: the connection is gone")
        return len(self.queues[queue].ready) if queue in self.queues else None

    def publish(self, line: Line, queue: int, body: bytes) -> asyncio.Future[bool]:
        """On its way now; the result is the broker's confirm. Fails with BrokerUnavailable when the line ends."""
        confirm: asyncio.Future[bool] = self._loop.create_future()
        line.waiting[confirm] = None
        confirm.add_done_callback(lambda done: line.waiting.pop(done, None))
        self._loop.call_later(self._rng.uniform(*WAY_S), self._arrive, line, queue, body, confirm)
        return confirm

    def consume(self, line: Line, queue: int, arrived: Callable[[Channel, Message], None]) -> Channel:
        """Be the next consumer of a queue that is there."""
        channel = Channel(line, queue, arrived)
        line.channels.append(channel)
        self.queues[queue].channels.append(channel)
        self._serve(queue)
        return channel

    def acknowledge(self, channel: Channel, number: int) -> None:
        """This message and all before it; on its way now."""
        for message in channel.unacknowledged:
            if message.number <= number:
                self.on_acknowledged(message.body)
        self._loop.call_later(self._rng.uniform(*WAY_S), self._forget, channel, number)

    def close_channel(self, channel: Channel) -> None:
        """By its process."""
        channel.open = False
        self._take_back(channel)

    def hang_up(self, line: Line) -> None:
        """The process closes the connection, or dies; the broker learns it a little later."""
        line.end_here()
        self._loop.call_later(self._noticed_s(), self._end_there, line)

    # What it does

    def _arrive(self, line: Line, queue: int, body: bytes, confirm: asyncio.Future[bool]) -> None:
        if not self.up or (not (line.open and line.known) and self._rng.random() < 0.5):
            return  # what was on its way when a line ended has come, or not
        if self.blocked:
            self._held.append((line, queue, body, confirm))
            return
        fate = self._rng.choice((NACK, CONFIRM_LOST, CONFIRM_LATE)) if self._rng.random() < self.fault_rate else ""
        if fate:
            self.counts[fate] += 1
        if fate != NACK or self._rng.random() < 0.3:
            there = queue if queue in self.queues else ASIDE_QUEUE
            self.make(there)
            self.counts["message without a queue"] += there != queue
            self.queues[there].put(body)
            self._serve(there)
        if fate != CONFIRM_LOST:
            late_s = limits.BROKER_PUBLISH_S_MAX + 1.0 if fate == CONFIRM_LATE else 0.0
            self._loop.call_later(late_s + self._rng.uniform(*CONFIRM_S), self._confirm, line, confirm, fate != NACK)

    def _confirm(self, line: Line, confirm: asyncio.Future[bool], taken: bool) -> None:
        if line.known and line.open and not confirm.done():
            confirm.set_result(taken)

    def _serve(self, queue: int) -> None:
        found = self.queues[queue]
        if not found.channels or not self.up:
            return
        channel = found.channels[0]
        if channel.line.name != found.served:
            self.counts["queue handed over"] += bool(found.served and found.ready)
            found.served = channel.line.name
        while found.ready and len(channel.unacknowledged) < limits.BROKER_PREFETCH:
            message = found.ready.popleft()
            channel.unacknowledged.append(message)
            copies = 1
            if self._rng.random() < self.double_rate:
                self.counts["delivered twice"] += 1
                copies = 2
            for _ in range(copies):
                channel.due_s = max(channel.due_s + 1e-6, self._loop.time() + self._rng.uniform(*WAY_S))
                self._loop.call_at(channel.due_s, self._deliver, channel, message)

    def _deliver(self, channel: Channel, message: Message) -> None:
        if channel.open and channel.line.open:
            channel.arrived(channel, message)

    def _forget(self, channel: Channel, number: int) -> None:
        if not channel.line.known or not self.up:
            return
        while channel.unacknowledged and channel.unacknowledged[0].number <= number:
            channel.unacknowledged.popleft()
        if channel.queue in self.queues:
            self._serve(channel.queue)

    def _end_there(self, line: Line) -> None:
        """The broker gives a connection up."""
        if line.known:
            line.known = False
            self._lines.remove(line)
            for channel in list(line.channels):
                self._take_back(channel)

    def _take_back(self, channel: Channel) -> None:
        """A channel has ended, and what is unacknowledged is for the next one."""
        queue = self.queues.get(channel.queue)
        if channel in channel.line.channels:
            channel.line.channels.remove(channel)
        if queue is not None and channel in queue.channels:
            queue.channels.remove(channel)
            queue.take_back(channel.unacknowledged)
            channel.unacknowledged = deque()
            self._serve(channel.queue)

    def _noticed_s(self) -> float:
        return self._rng.uniform(*(NOTICED_S if self._rng.random() < 0.9 else NOTICED_LATE_S))

    # How it fails

    @property
    def lines(self) -> list[Line]:
        return list(self._lines)

    @property
    def messages(self) -> int:
        """In all queues, with consumers or not."""
        return sum(len(queue.ready) + queue.unacknowledged for queue in self.queues.values())

    def cut(self, line: Line) -> None:
        """The network between."""
        self._loop.call_later(self._noticed_s(), line.end_here)
        self._loop.call_later(self._noticed_s(), self._end_there, line)

    def go_down(self) -> None:
        """Every connection ends; what was confirmed stays."""
        self.up = False
        self._held.clear()
        for line in list(self._lines):
            self._end_there(line)
            self._loop.call_later(self._noticed_s(), line.end_here)

    def unblock(self) -> None:
        self.blocked = False
        held, self._held = self._held, []
        for publish in held:
            self._arrive(*publish)

    def wipe(self) -> None:
        """Its disks are new. While it is down."""
        assert not self.up
        for queue in self.queues:
            self.losses[queue] += 1
        self.queues.clear()

    def delete(self, queue: int) -> None:
        """Consumers are told, a little later."""
        found = self.queues.pop(queue, None)
        if found is None:
            return
        self.losses[queue] += 1
        for channel in found.channels:
            channel.line.channels.remove(channel)
            self._loop.call_later(self._rng.uniform(*NOTICED_S), self._cancelled, channel)

    def _cancelled(self, channel: Channel) -> None:
        channel.open = False
        channel.line.on_end()

    def lose_one(self, queue: int) -> bool:
        """One message out of the middle. Whether there was one."""
        found = self.queues.get(queue)
        if found is None or not found.ready:
            return False
        del found.ready[self._rng.randrange(len(found.ready))]
        self.losses[queue] += 1
        return True

    def put_again(self, queue: int) -> bool:
        """A copy of something that waits, somewhere behind it. Whether there was something."""
        found = self.queues.get(queue)
        if found is None or not found.ready:
            return False
        found.put(self._rng.choice(found.ready).body)
        self._serve(queue)
        return True

    def put(self, queue: int, body: bytes) -> None:
        """By a stranger."""
        if queue in self.queues:
            self.queues[queue].put(body)
            self._serve(queue)
