"""What the sending end takes for a confirm: the broker's yes, and nothing else. The broker here is a script."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aio_pika
import pytest
from aiormq import exceptions as amqp

from signalkeep import limits
from signalkeep.broker.link import Link
from signalkeep.broker.publisher import Publisher
from signalkeep.broker.topology import LANES_ARGUMENTS
from signalkeep.errors import BrokerUnavailable
from signalkeep.sections import BrokerSettings

Answer = Callable[[], Awaitable[None]]


async def yes() -> None:
    """It is confirmed."""


async def never() -> None:
    await asyncio.Event().wait()


async def refused() -> None:
    raise amqp.DeliveryError(None, None)  # type: ignore[arg-type]  # which message does not matter here


class Script:
    """Stands in for a link, its connection, a channel and an exchange."""

    def __init__(self) -> None:
        self.answer: Answer = yes
        self.blocked = self.closed = False
        self.made: set[int] = set()
        self.channel_options: dict[str, Any] = {}
        self.published: list[tuple[aio_pika.Message, str, bool]] = []
        self.connection = self

    @property
    def is_closed(self) -> bool:
        return self.closed

    @property
    def is_open(self) -> bool:
        return not self.closed

    async def is_blocked(self) -> bool:
        return self.blocked

    async def channel(self, **options: Any) -> Script:
        self.channel_options = options
        return self

    async def get_exchange(self, name: str, *, ensure: bool) -> Script:
        return self

    async def publish(self, message: aio_pika.Message, key: str, *, mandatory: bool) -> None:
        self.published.append((message, key, mandatory))
        await self.answer()

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    made = Script()

    async def opened(settings: BrokerSettings, *, application: str) -> Script:
        made.closed = False
        return made

    monkeypatch.setattr(Link, "open", opened)
    monkeypatch.setattr(limits, "BROKER_PUBLISH_S_MAX", 0.1)
    return made


@pytest.fixture
def publisher() -> Publisher:
    return Publisher(BrokerSettings(url="amqp://nobody@127.0.0.1:1/"))


async def test_a_confirm_is_a_confirm(script: Script, publisher: Publisher) -> None:
    assert await publisher.publish(3, b"range") == 0
    ((message, key, mandatory),) = script.published
    assert (message.body, key) == (b"range", "3")
    assert message.delivery_mode is aio_pika.DeliveryMode.PERSISTENT
    assert mandatory, "where no queue is bound it must not vanish"
    assert script.channel_options == {"publisher_confirms": True, "on_return_raises": True}


@pytest.mark.parametrize("answer", [never, refused])
async def test_anything_else_is_none(script: Script, publisher: Publisher, answer: Answer) -> None:
    script.answer = answer
    with pytest.raises(BrokerUnavailable):
        await asyncio.wait_for(publisher.publish(0, b"range"), 30)
    script.answer = yes
    assert await publisher.publish(0, b"range") == 0, "the next one is sent as if nothing had been"


async def test_each_connection_is_counted_once_it_is_there(
    script: Script, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert publisher.connections == 0
    for made in (1, 2):
        await publisher.publish(0, b"range")
        await publisher.publish(0, b"range")
        assert publisher.connections == made
        script.closed = True

    async def refuses(settings: BrokerSettings, *, application: str) -> Script:
        raise BrokerUnavailable("nobody is there")

    monkeypatch.setattr(Link, "open", refuses)
    with pytest.raises(BrokerUnavailable):
        await publisher.publish(0, b"range")
    assert publisher.connections == 2


async def test_while_an_alarm_blocks_the_broker_nothing_is_given_up(script: Script, publisher: Publisher) -> None:
    free = asyncio.Event()

    async def blocked() -> None:
        await free.wait()

    script.answer, script.blocked = blocked, True
    publishing = asyncio.create_task(publisher.publish(0, b"range"))
    await asyncio.sleep(5 * limits.BROKER_PUBLISH_S_MAX)
    assert not publishing.done()
    assert publisher.blocked
    free.set()
    assert await asyncio.wait_for(publishing, 30) == 0
    assert len(script.published) == 1, "and nothing is multiplied"


def test_queues_keep_what_they_confirm_and_have_one_consumer_at_a_time() -> None:
    asked = {name: LANES_ARGUMENTS[name] for name in ("x-queue-type", "x-overflow", "x-single-active-consumer")}
    assert asked == {"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-single-active-consumer": True}
