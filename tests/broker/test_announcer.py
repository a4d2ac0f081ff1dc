"""Stored signals for applications: after their commit, in the order of visibility, at least once, each with its id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import msgspec
import pytest
from aio_pika.abc import AbstractIncomingMessage

from signalkeep import limits
from signalkeep.broker.announcer import routing_key
from signalkeep.broker.service import RelayService
from signalkeep.broker.topology import SIGNALS
from signalkeep.store import assignments, fleet, registry
from signalkeep.store.announced import AnnouncedTail
from signalkeep.store.postgres import Connection
from tests.broker.support import Site
from tests.servers import wait_until_async


class Application:
    """A queue of its own, bound by a pattern; what has come, in order."""

    def __init__(self) -> None:
        self.messages: list[AbstractIncomingMessage] = []

    @property
    def ids(self) -> list[str]:
        return [str(message.message_id) for message in self.messages]

    def signals(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(message.body) for message in self.messages]

    async def listen(self, channel: aio_pika.abc.AbstractChannel, pattern: str) -> None:
        exchange = await channel.declare_exchange(SIGNALS, "topic", durable=True)
        queue = await channel.declare_queue("", exclusive=True)
        await queue.bind(exchange, pattern)

        async def arrived(message: AbstractIncomingMessage) -> None:
            self.messages.append(message)

        await queue.consume(arrived, no_ack=True)


@pytest.fixture
async def channel(vhost_url: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    connection = await aio_pika.connect(vhost_url)
    async with connection:
        yield await connection.channel()


async def announcing(relay: RelayService, connection: Connection) -> None:
    """From here on what is committed is published."""

    async def started() -> bool:
        return bool(await connection.fetchval("SELECT count(*) FROM announced"))

    await wait_until_async(started)
    assert relay.stats.announced == 0


async def test_applications_get_what_they_ask_for_in_order(
    site: Site, connection: Connection, channel: aio_pika.abc.AbstractChannel
) -> None:
    await fleet.add_customer(connection, "Acme Ltd.", actor="tests")
    await registry.register(connection, "gateway-0-3", actor="tests")
    await fleet.add_vehicle(connection, "van 7", customer="Acme Ltd.", plate="V7", actor="tests")
    await assignments.assign(connection, "gateway-0-3", "van 7", actor="tests")
    everything, acme = Application(), Application()
    await everything.listen(channel, "#")
    await acme.listen(channel, "Acme_Ltd_.*.*")
    machine = site.machine(broker__publish_signals="true")
    relay = machine.start_relay()
    await announcing(relay, connection)
    site.worker()
    machine.receive(1200)
    await site.check(1200)
    await wait_until_async(lambda: len(everything.messages) >= 1200)
    assert len(set(everything.ids)) == len(everything.ids) == 1200
    signals = everything.signals()
    for device in {signal["device_number"] for signal in signals}:
        places = [signal["seq"] for signal in signals if signal["device_number"] == device]
        assert places == sorted(places)
    assert len(acme.messages) == 1200 // 40
    first = acme.signals()[0]
    assert (first["customer"], first["vehicle"], first["device_number"]) == ("Acme Ltd.", "van 7", "gateway-0-3")
    assert acme.messages[0].routing_key == "Acme_Ltd_.gateway-0-3.-"
    assert first["journal"] == str(machine.writer.journal_id)
    assert not {"xid", "journal_id"} & first.keys()


async def test_one_of_several_relays_announces_and_another_takes_over(
    site: Site, connection: Connection, channel: aio_pika.abc.AbstractChannel
) -> None:
    everything = Application()
    await everything.listen(channel, "#")
    machines = [site.machine(broker__publish_signals="true") for _ in range(2)]
    relays = [machine.start_relay() for machine in machines]
    await announcing(relays[0], connection)
    site.worker()
    machines[0].receive(300)
    await wait_until_async(lambda: len(everything.messages) == 300)
    leader = max((0, 1), key=lambda number: relays[number].stats.announced)
    assert relays[1 - leader].stats.announced == 0
    dying = machines[leader].relay
    assert dying is not None
    await dying.die()
    machines[1 - leader].receive(200)
    await wait_until_async(lambda: len(set(everything.ids)) == 500)
    machines[leader].start_relay()


async def test_what_was_published_and_not_noted_is_published_again_with_the_same_id(
    site: Site, connection: Connection, channel: aio_pika.abc.AbstractChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = Application()
    await everything.listen(channel, "#")
    note = AnnouncedTail.note
    failing = {"left": 0}

    async def fails(tail: AnnouncedTail, over: Connection) -> None:
        if failing["left"]:
            failing["left"] -= 1
            raise ConnectionError("made up: between the confirms and the note")
        await note(tail, over)

    monkeypatch.setattr(AnnouncedTail, "note", fails)
    machine = site.machine(broker__publish_signals="true")
    relay = machine.start_relay()
    await announcing(relay, connection)
    site.worker()
    failing["left"] = 2
    machine.receive(200)
    await wait_until_async(lambda: relay.stats.announced >= 200)
    assert len(set(everything.ids)) == 200
    assert len(everything.ids) > 200


async def test_a_page_without_all_confirms_is_not_noted(
    site: Site, connection: Connection, channel: aio_pika.abc.AbstractChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BROKER_PUBLISH_S_MAX", 1.0)
    everything = Application()
    await everything.listen(channel, "#")
    machine = site.machine(broker__publish_signals="true")
    relay = machine.start_relay()
    await announcing(relay, connection)
    site.worker()
    publish, calls = aio_pika.Exchange.publish, {"count": 0}

    async def hangs(exchange: aio_pika.Exchange, *arguments: Any, **named: Any) -> Any:
        if exchange.name == SIGNALS:
            calls["count"] += 1
            if calls["count"] == 100:
                await asyncio.sleep(60)
        return await publish(exchange, *arguments, **named)

    monkeypatch.setattr(aio_pika.Exchange, "publish", hangs)
    machine.receive(150)
    await wait_until_async(lambda: len(set(everything.ids)) == 150)
    assert len(everything.ids) > 150


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ({"customer": None, "device_number": "1", "event_code": None}, "-.1.-"),
        ({"customer": "A.B * C#", "device_number": "x y", "event_code": "4002"}, "A_B___C_.x_y.4002"),
        ({"customer": "ü" * 100, "device_number": "9" * 64, "event_code": "e"}, f"{'ü' * 40}.{'9' * 64}.e"),
    ],
)
def test_routing_keys(row: dict[str, Any], key: str) -> None:
    assert routing_key(row) == key
    assert len(key.encode()) < 256
