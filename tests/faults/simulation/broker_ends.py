"""The two ends of the simulated broker: what a relay sends with, and what a worker receives with.

They behave as `broker.publisher.Publisher` and `broker.consumer.Consumer` promise: a publish returns when it is
confirmed and fails after a while; connections are made again; what is in hand comes again when its channel is gone.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress

from signalkeep import limits
from signalkeep.drivers.source import Delivery
from signalkeep.errors import BrokerUnavailable, SignalkeepError
from signalkeep.retry import Backoff
from tests.faults.simulation.broker import Channel, Line, Message, SimBroker
from tests.faults.simulation.process import Process


class SimSender:
    """A `broker.service.Broker`. `on_publish` and `on_confirmed` are told of each message."""

    def __init__(self, broker: SimBroker, process: Process) -> None:
        self._broker, self._process = broker, process
        self._line: Line | None = None
        self._connecting = asyncio.Lock()
        self._backoff = Backoff()
        self._not_before_s = 0.0
        self.made: Counter[int] = Counter()
        self.connections = 0
        self.blocked = False
        self.on_publish: Callable[[int, bytes], None] = lambda queue, body: None
        self.on_confirmed: Callable[[int, bytes], None] = lambda queue, body: None
        process.at_death.append(self._hang_up)

    @property
    def connected(self) -> bool:
        return self._line is not None and self._line.open

    async def connect(self) -> Line:
        self._process.check()
        async with self._connecting:
            if self._line is not None and self._line.open:
                return self._line
            self._hang_up()
            now_s = asyncio.get_running_loop().time()
            if now_s < self._not_before_s:
                raise BrokerUnavailable("made up: not yet again")
            try:
                line, made = await self._broker.connect(self._process.name)
            except BrokerUnavailable:
                self._not_before_s = now_s + self._backoff.next_s()
                raise
            self._process.check()
            self._line = line
            self._backoff.reset()
            self.made.update(made)
            self.connections += 1
            return line

    async def publish(self, queue: int, body: bytes) -> int:
        line = await self.connect()
        made = self.made[queue]
        self.on_publish(queue, body)
        confirm = self._broker.publish(line, queue, body)
        try:
            while not (await asyncio.wait([confirm], timeout=limits.BROKER_PUBLISH_S_MAX))[0]:
                self.blocked = self._broker.blocked
                if not self.blocked:
                    if line is self._line:
                        self._hang_up()
                    raise BrokerUnavailable("made up: not confirmed in time")
            self.blocked = False
            if not confirm.result():
                raise BrokerUnavailable("made up: the message was refused")
        finally:
            confirm.cancel()
        self._process.check()
        self.on_confirmed(queue, body)
        return made

    async def depth(self, queue: int) -> int:
        line = await self.connect()
        found = await self._broker.depth(line, queue)
        self._process.check()
        if found is None:
            self._broker.make(queue)
            self.made[queue] += 1
        return found or 0

    def complain(self, error: SignalkeepError) -> None:
        del error

    async def close(self) -> None:
        self._process.check()
        self._hang_up()

    def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            self._broker.hang_up(line)


class SimSource:
    """A `drivers.source.Source`."""

    def __init__(self, broker: SimBroker, process: Process) -> None:
        self._broker, self._process = broker, process
        self._line: Line | None = None
        self._channels: dict[int, Channel] = {}
        self._wanted: set[int] = set()
        self._inbox: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._change = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        process.at_death.append(self._hang_up)

    @property
    def connected(self) -> bool:
        return self._line is not None and self._line.open

    @property
    def in_hand(self) -> int:
        """What the broker has given us and was not told to forget."""
        return sum(len(channel.unacknowledged) for channel in self._channels.values())

    async def take(self, queues: set[int]) -> None:
        self._process.check()
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="consumer")
        elif self._keeper.done():
            self._keeper.result()
        if queues == self._wanted:
            return
        self._wanted = set(queues)
        for queue in sorted(self._channels.keys() - queues):
            await self._broker.way()
            self._leave(queue)
        self._change.set()

    async def receive(self, *, max_messages: int, max_bytes: int, wait_s: float) -> list[Delivery]:
        self._process.check()
        if not self._inbox:
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._arrived.wait()
        self._process.check()
        taken: list[Delivery] = []
        size = 0
        while self._inbox and len(taken) < max_messages:
            size += len(self._inbox[0].body)
            if taken and size > max_bytes:
                break
            taken.append(self._inbox.popleft())
        return taken

    async def done(self, deliveries: list[Delivery]) -> None:
        self._process.check()
        last: dict[Channel, int] = {}
        for delivery in deliveries:
            channel, number = delivery.token
            last[channel] = number
        await self._broker.way()
        self._process.check()
        for channel, number in last.items():
            if channel.open and channel.line.open:
                self._broker.acknowledge(channel, number)

    async def close(self) -> None:
        self._process.check()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        self._hang_up()

    async def _keep(self) -> None:
        backoff = Backoff()
        while True:
            self._process.check()
            self._change.clear()
            try:
                await self._attend()
            except BrokerUnavailable:
                self._hang_up()
                await asyncio.sleep(backoff.next_s())
                continue
            backoff.reset()
            with suppress(TimeoutError):
                async with asyncio.timeout(limits.CLAIM_S):
                    await self._change.wait()

    async def _attend(self) -> None:
        if self._line is None or not self._line.open:
            self._hang_up()
            line, _ = await self._broker.connect(self._process.name)
            if not self._process.alive:
                self._broker.hang_up(line)
            self._process.check()
            line.on_end = self._change.set
            self._line = line
        for queue, channel in list(self._channels.items()):
            if not channel.open:
                self._leave(queue)
        for queue in sorted(self._wanted - self._channels.keys()):
            await self._enter(self._line, queue)

    async def _enter(self, line: Line, queue: int) -> None:
        if await self._broker.depth(line, queue) is None:
            self._broker.make(queue)
        self._process.check()
        if queue in self._wanted and queue not in self._channels and line.open:
            self._channels[queue] = self._broker.consume(line, queue, self._take_in)

    def _take_in(self, channel: Channel, message: Message) -> None:
        name = f"queue {channel.queue}"
        self._inbox.append(Delivery(channel.queue, name, message.body, message.times, (channel, message.number)))
        self._arrived.set()

    def _leave(self, queue: int) -> None:
        """What of it is in our inbox comes again, to us or to others."""
        channel = self._channels.pop(queue)
        self._broker.close_channel(channel)
        self._inbox = deque(one for one in self._inbox if one.token[0] is not channel)

    def _hang_up(self) -> None:
        line, self._line = self._line, None
        for channel in self._channels.values():
            channel.open = False
        self._channels.clear()
        self._inbox.clear()
        if line is not None:
            line.on_end = lambda: None
            self._broker.hang_up(line)
