"""The sending end: publishes ranges and returns when the broker has confirmed them.

One connection for all streams of a relay, made again when it is gone. Nothing is kept here: what was not confirmed is
the stream's to send again. While the broker is blocked by an alarm of its memory or disk nothing is given up: what was
written waits in the broker's hand, and to write it again would only multiply it.

A queue that confirms nothing for long, while the broker answers otherwise, has lost its leader for good, as happens to
a young one when RabbitMQ 3.10 is killed. Nothing in it is the only copy: it is deleted and made again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractExchange
from aiormq import exceptions as amqp

from signalkeep import limits
from signalkeep.broker.address import redact
from signalkeep.broker.link import Link, explained
from signalkeep.broker.topology import LANES, queue_name
from signalkeep.errors import BrokerUnavailable, SignalkeepError
from signalkeep.retry import Backoff
from signalkeep.sections import BrokerSettings
from signalkeep.telemetry import get_logger

log = get_logger()


class _Silence:
    """Since when a queue has confirmed nothing, and how long that is borne."""

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.patience_s = limits.BROKER_SILENCE_S


class Publisher:
    """`made[queue]` grows whenever a queue was gone and had to be made, `connections` with each that was opened.

    `connect` may be called by many at once.
    """

    def __init__(self, settings: BrokerSettings, *, application: str = "signalkeep relay") -> None:
        self._settings = settings
        self._application = application
        self._place = redact(settings.resolved_url())
        self._link: Link | None = None
        self._channels: dict[int, tuple[AbstractChannel, AbstractExchange]] = {}  # of the link, by queue
        self._connecting = asyncio.Lock()
        self._backoff = Backoff()
        self._not_before_s = 0.0
        self._complain_at_s = 0.0
        self._silence: dict[int, _Silence] = {}
        self._failure = BrokerUnavailable("not connected yet")
        self.made: Counter[int] = Counter()
        self.connections = 0
        self.blocked = False

    @property
    def connected(self) -> bool:
        return self._link is not None and self._link.is_open

    async def connect(self) -> Link:
        """The connection; a new one if there is none. Raises BrokerUnavailable or UnsafeBroker, soon."""
        async with self._connecting:
            if self._link is not None and self._link.is_open:
                return self._link
            await self._drop()
            if time.monotonic() < self._not_before_s:
                raise self._failure
            try:
                self._link = await Link.open(self._settings, application=self._application)
            except SignalkeepError as failure:
                await self._drop()
                self._failure = BrokerUnavailable(failure.message, hint=failure.hint)
                if type(failure) is not BrokerUnavailable or self._backoff.worth_a_word:
                    log.error("broker cannot be used", error=failure.message, hint=failure.hint)
                self._not_before_s = time.monotonic() + self._backoff.next_s()
                raise
            if self._backoff.was_worth_a_word:
                log.info("the broker works again", broker=self._place)
            self._backoff.reset()
            self.made.update(self._link.made)
            self.connections += 1
            return self._link

    async def publish(self, queue: int, body: bytes) -> int:
        """Return when the broker has confirmed it: `made[queue]` when it was sent.

        Raises BrokerUnavailable if it may not have it.
        """
        link = await self.connect()
        made = self.made[queue]
        message = aio_pika.Message(
            body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, content_type="application/x-signalkeep-range"
        )
        try:
            with explained(self._place):
                exchange = await self._exchange(link, queue)
                publishing = asyncio.ensure_future(exchange.publish(message, str(queue), mandatory=True))
                try:
                    await self._confirmed(publishing, link)
                finally:
                    publishing.cancel()
        except SignalkeepError:
            await self._leave_channel(link, queue)
            await self._note_silence(queue)
            raise
        self._silence.pop(queue, None)
        return made

    async def _exchange(self, link: Link, queue: int) -> AbstractExchange:
        """On a channel of the queue's own: a fault of one queue holds up no other."""
        if queue not in self._channels or self._channels[queue][0].is_closed:
            async with asyncio.timeout(limits.BROKER_CALL_S_MAX):
                channel = await link.connection.channel(publisher_confirms=True, on_return_raises=True)
                self._channels[queue] = (channel, await channel.get_exchange(LANES, ensure=False))
        return self._channels[queue][1]

    async def _leave_channel(self, link: Link, queue: int) -> None:
        """A channel that was refused once may be refused for ever (seen with RabbitMQ 3.10): the next try has another.

        Where not even a channel can be closed, the connection is dead.
        """
        if link is not self._link or queue not in self._channels:
            return
        channel, _ = self._channels.pop(queue)
        try:
            async with asyncio.timeout(limits.BROKER_CALL_S_MAX / 3):
                await channel.close()
        except Exception:
            if link is self._link:
                await self._drop()

    async def _note_silence(self, queue: int) -> None:
        silence = self._silence.setdefault(queue, _Silence(time.monotonic()))
        now_s = time.monotonic()
        if not self.connected:
            silence.since_s = now_s
        elif now_s - silence.since_s > silence.patience_s:
            silence.since_s, silence.patience_s = now_s, 2 * silence.patience_s
            await self._make_again(queue)

    async def _make_again(self, queue: int) -> None:
        log.error("a queue has confirmed nothing for long: it is deleted and made again", queue=queue_name(queue))
        try:
            link = await self.connect()
            with explained(self._place):
                async with asyncio.timeout(2 * limits.BROKER_CALL_S_MAX):
                    await link.delete(queue)
                    await link.make(queue)
        except SignalkeepError as error:
            log.error("a queue cannot be made again", queue=queue_name(queue), error=error.message)
        else:
            self.made[queue] += 1

    async def _confirmed(self, publishing: asyncio.Future[Any], link: Link) -> None:
        while True:
            done, _ = await asyncio.wait([publishing], timeout=limits.BROKER_PUBLISH_S_MAX)
            if done:
                break
            self.blocked = await link.is_blocked()
            if not self.blocked:
                raise BrokerUnavailable(
                    f"{self._place} has not confirmed a message within {limits.BROKER_PUBLISH_S_MAX:g} s"
                )
            log.warning("the broker is blocked by an alarm; waiting", broker=self._place)
        self.blocked = False
        try:
            publishing.result()
        except amqp.PublishError as error:
            raise BrokerUnavailable(f"{self._place} has no queue for a message") from error
        except amqp.DeliveryError as error:
            raise BrokerUnavailable(
                f"{self._place} refuses a message: a queue of ours is full or has no leader"
            ) from error

    async def depth(self, queue: int) -> int:
        """Messages that wait in a queue. One that was gone is made again, and counted in `made`; so is its binding."""
        link = await self.connect()
        with explained(self._place):
            async with asyncio.timeout(limits.BROKER_CALL_S_MAX):
                found = await link.depth(queue)
                if found is None:
                    log.warning("a queue had vanished, making it again", queue=queue_name(queue))
                await link.make(queue)
                self.made[queue] += found is None
        return found or 0

    def complain(self, error: SignalkeepError) -> None:
        now_s = time.monotonic()
        if self.connected and now_s >= self._complain_at_s:  # without a connection, `connect` says so
            self._complain_at_s = now_s + limits.CURSOR_REREAD_S
            log.warning("message not confirmed, sending it again", error=error.message)

    async def close(self) -> None:
        async with self._connecting:
            await self._drop()

    async def _drop(self) -> None:
        link, self._link = self._link, None
        self._channels.clear()
        if link is not None:
            await link.close()
