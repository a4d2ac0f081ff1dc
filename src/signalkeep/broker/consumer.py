"""The receiving end: messages of the queues that a worker takes, until they are acknowledged.

One connection, one channel for each queue, so that a fault of one queue ends nothing else. A bounded number of
messages is in hand at a time. When the connection goes, what was in hand comes again, from the broker, to whoever is
there; acknowledging it then says nothing and hurts nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from contextlib import suppress
from typing import Any

from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from signalkeep import limits
from signalkeep.broker.address import redact
from signalkeep.broker.link import Link, explained
from signalkeep.broker.topology import queue_name
from signalkeep.drivers.source import Delivery
from signalkeep.errors import BrokerUnavailable, SignalkeepError
from signalkeep.retry import Backoff
from signalkeep.sections import BrokerSettings
from signalkeep.tasks import end
from signalkeep.telemetry import get_logger

log = get_logger()


class Consumer:
    """A `drivers.source.Source` of RabbitMQ."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._place = redact(settings.resolved_url())
        self._link: Link | None = None
        self._channels: dict[int, AbstractChannel] = {}
        self._wanted: set[int] = set()
        self._heard_s: dict[int, float] = {}  # when a queue was last known to serve us
        self._unacknowledged: Counter[int] = Counter()  # by queue, of its present channel
        self._inbox: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._change = asyncio.Event()  # something is to be done about connection or channels
        self._keeper: asyncio.Task[None] | None = None
        self._busy = asyncio.Lock()  # with channels

    @property
    def connected(self) -> bool:
        return self._link is not None and self._link.is_open

    async def take(self, queues: set[int]) -> None:
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="consumer")
        elif self._keeper.done():
            self._keeper.result()
        if queues == self._wanted:
            return
        self._wanted = set(queues)
        async with self._busy:
            for queue in set(self._channels) - self._wanted:
                await self._leave(queue)
        self._change.set()

    async def receive(self, *, max_messages: int, max_bytes: int, wait_s: float) -> list[Delivery]:
        if not self._inbox:
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._arrived.wait()
        taken: list[Delivery] = []
        size = 0
        while self._inbox and len(taken) < max_messages:
            size += len(self._inbox[0].body)
            if taken and size > max_bytes:
                break
            taken.append(self._inbox.popleft())
        return taken

    async def done(self, deliveries: list[Delivery]) -> None:
        last: dict[AbstractChannel, AbstractIncomingMessage] = {}
        for delivery in deliveries:
            channel, message = delivery.token
            last[channel] = message
            self._unacknowledged[delivery.queue] -= self._channels.get(delivery.queue) is channel
        for channel, message in last.items():
            with suppress(Exception):  # the connection is gone: the message comes again
                if not channel.is_closed:
                    await message.ack(multiple=True)

    async def close(self) -> None:
        if self._keeper is not None:
            await end(self._keeper)
            self._keeper = None
        await self._drop()

    async def _keep(self) -> None:
        """Connect, and consume from every queue that is wanted; again and again, whatever happens."""
        backoff = Backoff()
        while True:
            self._change.clear()
            try:
                await self._attend()
            except SignalkeepError as error:
                if type(error) is not BrokerUnavailable or backoff.worth_a_word:
                    log.error("broker cannot be used", error=error.message, hint=error.hint)
                await self._drop()
                await asyncio.sleep(backoff.next_s())
                continue
            if backoff.was_worth_a_word:
                log.info("the broker works again", broker=self._place)
            backoff.reset()
            with suppress(TimeoutError):
                async with asyncio.timeout(limits.CLAIM_S):
                    await self._change.wait()

    async def _attend(self) -> None:
        if self._link is None or not self._link.is_open:
            await self._drop()
            self._link = await Link.open(self._settings, application="signalkeep ingest")
        async with self._busy:
            for queue, channel in list(self._channels.items()):
                if channel.is_closed:
                    self._forget(queue, channel)
            with explained(self._place):
                await self._wake(self._link)
            for queue in sorted(self._wanted - self._channels.keys()):
                with explained(self._place):
                    await self._enter(self._link, queue)

    async def _wake(self, link: Link) -> None:
        """A queue may have lost our consumer without a word: where it has been quiet for long, it is asked."""
        now_s = time.monotonic()
        for queue, heard_s in list(self._heard_s.items()):
            if queue not in self._channels or now_s - heard_s < limits.BROKER_QUIET_S:
                continue
            self._heard_s[queue] = now_s
            async with asyncio.timeout(limits.BROKER_CALL_S_MAX):
                found = await link.ask(queue)
            if found is None or (not self._unacknowledged[queue] and (found[0] or not found[1])):
                log.warning("a queue does not serve us any more, asking for it again", queue=queue_name(queue))
                await self._leave(queue)

    async def _enter(self, link: Link, queue: int) -> None:
        async with asyncio.timeout(limits.BROKER_CALL_S_MAX):
            if not await link.exists(queue):
                await link.make(queue)
            channel = await link.connection.channel(publisher_confirms=False)
            share = limits.BROKER_PREFETCH // max(1, len(self._wanted))  # more, and the last would wait for seconds
            await channel.set_qos(prefetch_count=max(limits.BROKER_PREFETCH_MIN, share))
            name = queue_name(queue)
            declared = await channel.get_queue(name, ensure=False)

            async def arrived(message: AbstractIncomingMessage) -> None:
                self._inbox.append(_delivery(queue, name, channel, message))
                self._unacknowledged[queue] += 1
                self._heard_s[queue] = time.monotonic()
                self._arrived.set()

            underlay = await channel.get_underlay_channel()
            underlay.on_consumer_cancel_callbacks.add(lambda _: self._cancelled(queue, channel))
            channel.close_callbacks.add(lambda *_: self._change.set())
            self._channels[queue] = channel
            self._heard_s[queue] = time.monotonic()
            await declared.consume(arrived)

    async def _cancelled(self, queue: int, channel: AbstractChannel) -> None:
        """The broker has ended it, as when a queue is deleted: a new channel finds or makes it."""
        log.warning("the broker has cancelled our consumer", queue=queue_name(queue))
        self._forget(queue, channel)
        self._change.set()
        with suppress(Exception):
            await channel.close()

    async def _leave(self, queue: int) -> None:
        """Closing the channel hands back what is unacknowledged."""
        channel = self._channels[queue]
        self._forget(queue, channel)
        with suppress(Exception):
            async with asyncio.timeout(limits.BROKER_CALL_S_MAX):
                await channel.close()

    def _forget(self, queue: int, channel: AbstractChannel) -> None:
        """What of it is in our inbox comes again, to us or to others."""
        if self._channels.get(queue) is channel:
            del self._channels[queue]
            self._unacknowledged[queue] = 0
        self._inbox = deque(one for one in self._inbox if one.token[0] is not channel)

    async def _drop(self) -> None:
        link, self._link = self._link, None
        for queue, channel in list(self._channels.items()):
            self._forget(queue, channel)
        if link is not None:
            await link.close()


def _delivery(queue: int, name: str, channel: AbstractChannel, message: AbstractIncomingMessage) -> Delivery:
    headers: dict[str, Any] = dict(message.headers or {})
    said = {"type": message.content_type, "app": message.app_id, "user": message.user_id, "key": message.routing_key}
    return Delivery(
        queue=queue,
        queue_name=name,
        body=message.body,
        times=_number(headers.get("x-delivery-count")),
        token=(channel, message),
        sender=", ".join(f"{key} {value}" for key, value in said.items() if value),
        returned="x-death" in headers,
    )


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
