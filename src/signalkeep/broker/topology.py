"""Exchanges and queues: what there must be, and whether what there is can be trusted. Declared at every connection.

    relay --> signalkeep.lanes (direct) --> signalkeep.lanes.0 .. n-1     one queue for each group of lanes
                     |  no queue is bound             |  given back too often, by whatever policy
                     +--> signalkeep.aside (fanout) <-+
                                  +--> signalkeep.aside                   what workers set aside, and count
    relay --> signalkeep.signals (topic) --> queues of applications

Every queue is a quorum queue: a confirmed message is on the disks of a majority. Nothing in it expires, is trimmed or
is dropped: a full queue refuses, what is given back goes on for ever, and what a policy takes out goes aside
at least once. One consumer is active at a time, so that a group of lanes keeps its order.
"""

from __future__ import annotations

from typing import Any, Final

from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractQueue

from signalkeep import limits

LANES: Final = "signalkeep.lanes"
ASIDE: Final = "signalkeep.aside"
SIGNALS: Final = "signalkeep.signals"
ASIDE_QUEUE: Final = -1  # its number, where queues have numbers

NEVER: Final = 1_000_000_000  # deliveries: from RabbitMQ 4.0 on, a queue without a limit of its own has one of 20
_KEEPING: Final[dict[str, Any]] = {
    "x-queue-type": "quorum",
    "x-overflow": "reject-publish",
    "x-delivery-limit": NEVER,
    "x-queue-leader-locator": "balanced",
}
LANES_ARGUMENTS: Final[dict[str, Any]] = {
    **_KEEPING,
    "x-single-active-consumer": True,
    "x-dead-letter-exchange": ASIDE,
    "x-dead-letter-strategy": "at-least-once",
}
TRIMMING: Final = frozenset({"max-length", "max-length-bytes", "message-ttl", "expires"})
"""What a policy may not set on our queues."""


def queue_name(queue: int) -> str:
    return ASIDE if queue == ASIDE_QUEUE else f"{LANES}.{queue}"


async def declare_exchanges(channel: AbstractChannel) -> AbstractExchange:
    """All that is not a queue of lanes; returns the exchange that takes ranges."""
    call_s = limits.BROKER_CALL_S_MAX
    aside = await channel.declare_exchange(ASIDE, "fanout", durable=True, timeout=call_s)
    await declare_aside(channel, aside)
    await channel.declare_exchange(SIGNALS, "topic", durable=True, timeout=call_s)
    return await channel.declare_exchange(
        LANES, "direct", durable=True, arguments={"alternate-exchange": ASIDE}, timeout=call_s
    )


async def declare_aside(channel: AbstractChannel, aside: AbstractExchange) -> None:
    queue = await channel.declare_queue(ASIDE, durable=True, arguments=dict(_KEEPING), timeout=limits.BROKER_CALL_S_MAX)
    await queue.bind(aside, timeout=limits.BROKER_CALL_S_MAX)


async def declare_lanes(channel: AbstractChannel, exchange: AbstractExchange, queue: int) -> None:
    """One queue of lanes, with its binding."""
    declared = await declare_queue(channel, queue)
    await declared.bind(exchange, routing_key=str(queue), timeout=limits.BROKER_CALL_S_MAX)


async def declare_queue(channel: AbstractChannel, queue: int) -> AbstractQueue:
    """A queue that is there and is another one is refused by the broker."""
    return await channel.declare_queue(
        queue_name(queue), durable=True, arguments=dict(LANES_ARGUMENTS), timeout=limits.BROKER_CALL_S_MAX
    )
