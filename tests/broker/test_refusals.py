"""What may lose a confirmed message, or keeps us from working, is refused with the reason; passwords stay unseen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aiormq import exceptions as amqp

from signalkeep import limits
from signalkeep.broker import management
from signalkeep.broker.address import redact
from signalkeep.broker.link import Link, explained, refuse_old
from signalkeep.broker.topology import ASIDE, ASIDE_QUEUE, LANES, LANES_ARGUMENTS, queue_name
from signalkeep.errors import BrokerUnavailable, SettingsError, SignalkeepError, UnsafeBroker
from signalkeep.sections import BrokerSettings
from tests.broker.support import Site
from tests.rabbit import RabbitNode
from tests.servers import wait_until_async


def settings(url: str, **changes: Any) -> BrokerSettings:
    return BrokerSettings.model_validate({"url": url, "management_url": "http://127.0.0.1:1", **changes})


async def opened(url: str, **changes: Any) -> Link:
    return await Link.open(settings(url, **changes), application="tests")


def vhost_of(url: str) -> str:
    return url.rpartition("/")[2]


async def declare(url: str, name: str, arguments: dict[str, Any]) -> None:
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        await channel.declare_queue(name, durable=True, arguments=arguments)


async def test_what_is_declared(vhost_url: str, rabbit: RabbitNode) -> None:
    link = await opened(vhost_url)
    try:
        assert link.made == set(range(limits.BROKER_QUEUES))
        again = await opened(vhost_url)
        assert again.made == set()
        await again.close()
        queues = rabbit.queues(vhost_of(vhost_url))
        assert set(queues) == {queue_name(queue) for queue in range(limits.BROKER_QUEUES)} | {ASIDE}
        assert {queue.type for queue in queues.values()} == {"quorum"}
    finally:
        await link.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"x-queue-type": "classic"},
        {"x-queue-type": "stream"},
        {"x-queue-type": "quorum"},
        {key: value for key, value in LANES_ARGUMENTS.items() if key != "x-single-active-consumer"},
        LANES_ARGUMENTS | {"x-delivery-limit": 3},
        LANES_ARGUMENTS | {"x-max-length": 10},
        {key: value for key, value in LANES_ARGUMENTS.items() if key != "x-dead-letter-strategy"},
    ],
)
async def test_a_queue_of_our_name_that_is_not_ours(vhost_url: str, wrong: dict[str, Any]) -> None:
    await declare(vhost_url, queue_name(2), wrong)
    with pytest.raises(UnsafeBroker, match=r"is not as it must be.*signalkeep\.lanes\.2") as caught:
        await opened(vhost_url)
    assert "sent again from the journals" in caught.value.hint


async def test_an_exchange_of_our_name_that_is_not_ours(vhost_url: str) -> None:
    connection = await aio_pika.connect(vhost_url)
    async with connection:
        channel = await connection.channel()
        await channel.declare_exchange(LANES, "direct", durable=True)  # without an alternate
    with pytest.raises(UnsafeBroker, match="alternate-exchange"):
        await opened(vhost_url)


@pytest.mark.parametrize("key", ["max-length", "max-length-bytes", "message-ttl", "expires"])
async def test_a_policy_that_trims(vhost_url: str, rabbit: RabbitNode, key: str) -> None:
    rabbit.set_policy(vhost_of(vhost_url), "trim", "^signalkeep", {key: 100_000})
    with pytest.raises(UnsafeBroker, match=rf"'trim' sets {key} on signalkeep"):
        await opened(vhost_url, management_url=rabbit.management_url)


async def test_a_policy_that_trims_and_cannot_be_seen_loses_nothing(
    site: Site, rabbit: RabbitNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full queue refuses, and what expires goes aside: both are sent again."""
    monkeypatch.setattr(limits, "RELAY_STALL_S", 2.0)
    vhost = vhost_of(site.url)
    rabbit.set_policy(vhost, "trim", r"^signalkeep\.lanes", {"max-length": 2, "message-ttl": 300})
    machine = site.machine()
    relay = machine.start_relay()
    await machine.load(1000, seconds=2)
    await wait_until_async(lambda: relay.stats.failures > 0 or relay.stats.messages > 20)
    worker = site.worker()
    await wait_until_async(lambda: worker.service.counts.set_aside["returned"] > 0)
    rabbit.order(f'rabbit_policy:delete(<<"{vhost}">>, <<"trim">>, <<"tests">>)')
    await site.check(1000)


def test_of_several_policies_the_one_with_the_highest_priority_counts() -> None:
    some = [
        {"name": "low", "pattern": ".*", "apply-to": "all", "priority": 0},
        {"name": "high", "pattern": "^signalkeep", "apply-to": "queues", "priority": 5},
        {"name": "others", "pattern": "^app", "apply-to": "all", "priority": 9},
        {"name": "exchanges", "pattern": ".*", "apply-to": "exchanges", "priority": 9},
    ]
    assert management.applying("signalkeep.lanes.0", some)["name"] == "high"
    assert management.applying("other", some)["name"] == "low"
    assert management.applying("other", some[1:]) == {}


async def test_a_policy_that_only_adds_members_is_welcome(vhost_url: str, rabbit: RabbitNode) -> None:
    rabbit.set_policy(vhost_of(vhost_url), "fine", "^signalkeep", {"delivery-limit": 10})
    link = await opened(vhost_url, management_url=rabbit.management_url)
    await link.close()


async def test_where_policies_cannot_be_seen_that_is_said_once(
    vhost_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    management._told.clear()
    for _ in range(2):
        await (await opened(vhost_url)).close()
    assert "".join(capsys.readouterr()).count("policies of the broker cannot be seen") == 1


@pytest.mark.parametrize(
    ("rights", "said"),
    [
        ({"configure": "^$"}, r"(?s)does not let us work.*configure"),
        ({"write": "^$"}, r"(?s)does not let us work.*"),
        ({"read": "^$"}, r"(?s)does not let us work.*"),
    ],
)
async def test_a_missing_right(vhost_url: str, rabbit: RabbitNode, rights: dict[str, str], said: str) -> None:
    user = f"user-{vhost_of(vhost_url)}-{next(iter(rights))}"
    rabbit.add_user(user, "secret-word", vhost_of(vhost_url), **rights)
    with pytest.raises(UnsafeBroker, match=said) as caught:
        await opened(rabbit.vhost_url(vhost_of(vhost_url), user=user, password="secret-word"))
    assert r"signalkeep\..*" in caught.value.hint
    assert "secret-word" not in str(caught.value)


async def test_a_wrong_password_a_missing_virtual_host_and_nobody_there(vhost_url: str, rabbit: RabbitNode) -> None:
    with pytest.raises(BrokerUnavailable, match="does not accept our user") as caught:
        await opened(rabbit.vhost_url(vhost_of(vhost_url), password="secret-word"))
    assert "secret-word" not in str(caught.value)
    with pytest.raises(BrokerUnavailable):
        await opened(rabbit.vhost_url("nowhere"))
    with pytest.raises(BrokerUnavailable, match="Connect") as caught:
        await opened("amqp://guest:secret-word@127.0.0.1:1/")
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize(
    "server",
    [
        {"product": "RabbitMQ", "version": "3.9.29"},
        {"product": b"RabbitMQ", "version": b"3.8.0"},
        {"product": "LavinMQ", "version": "2.0.0"},
        {},
    ],
)
def test_an_old_or_unknown_broker(server: dict[str, object]) -> None:
    with pytest.raises(UnsafeBroker, match="not known to keep"):
        refuse_old(server)


@pytest.mark.parametrize("version", ["3.10.8", "3.13.7", "4.0.5", "4.2.0-rc.1", "10.0"])
def test_newer_ones(version: str) -> None:
    refuse_old({"product": "RabbitMQ", "version": version})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://guest:secret@host:5672/", "amqp://guest:********@host:5672/"),
        ("amqps://user:p%40ss@[::1]:5671/fleet?heartbeat=9", "amqps://user:********@[::1]:5671/fleet"),
        ("amqp://host", "amqp://host"),
        ("amqp://user@host/", "amqp://user@host/"),
        ("amqp://user:a/b@host/", "********"),
        ("amqp://[broken/", "********"),
        ("secret", "********"),
    ],
)
def test_an_address_as_it_is_shown(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_no_password_in_what_an_error_says() -> None:
    for error in (
        amqp.ConnectionClosed(320, "by amqp://u:secret@h/ operator"),
        OSError("amqp://u:secret@h/ unreachable"),
        amqp.ChannelAccessRefused("access to amqp://u:secret@h/ refused"),
    ):
        with pytest.raises(SignalkeepError) as caught, explained("amqp://h/"):
            raise error
        assert "secret" not in caught.value.message + caught.value.hint


async def test_credentials_never_reach_the_log(
    site: Site, rabbit: RabbitNode, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither through us nor through the libraries, in an outage and with a wrong password."""
    caplog.set_level(logging.DEBUG)
    vhost = vhost_of(site.url)
    rabbit.add_user(f"speaker-{vhost}", "secret-word", vhost)
    site.url = rabbit.vhost_url(vhost, user=f"speaker-{vhost}", password="secret-word")
    machine = site.machine()
    machine.start_relay()
    site.worker()
    machine.receive(100)
    await site.wait_for(100)
    rabbit.order(f'rabbit_auth_backend_internal:change_password(<<"speaker-{vhost}">>, <<"other">>, <<"tests">>)')
    rabbit.eval('[rabbit_networking:close_connection(P, <<"tests">>) || P <- rabbit_networking:connections_local()]')
    await asyncio.sleep(4)
    said = capsys.readouterr()
    assert "does not accept our user" in said.out + said.err
    assert "secret-word" not in said.out + said.err + caplog.text


@pytest.fixture(scope="module")
def tls_node(rabbitmq: None) -> Iterator[RabbitNode]:
    node = RabbitNode(tls=True)
    try:
        node.start()
        yield node
    finally:
        node.close()


async def test_tls(tls_node: RabbitNode, tmp_path: Path) -> None:
    link = await opened(tls_node.amqps_url, ca_file=tls_node.ca_file)
    assert await link.depth(0) == 0
    assert await link.depth(ASIDE_QUEUE) == 0
    await link.close()
    with pytest.raises(BrokerUnavailable, match=r"(?i)certificate"):
        await opened(tls_node.amqps_url)
    with pytest.raises(SettingsError, match="TLS files"):
        await opened(tls_node.amqps_url, ca_file=tmp_path / "missing.pem")
