"""Messages reach people at least once, with one id; a channel that fails or hangs delays nobody else."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
from datetime import timedelta

import pytest

from signalkeep import limits
from signalkeep.notify.outbox import _is_full, send_waiting
from signalkeep.store import outbox
from signalkeep.store.postgres import Connection
from tests.notify.receivers import Mail, Silent, Webhook
from tests.notify.support import NOON, World, nowhere, settings_of
from tests.servers import connected, wait_until_async

pytestmark = pytest.mark.servers


async def test_an_incident_and_its_end_reach_a_webhook(connection: Connection) -> None:
    with Webhook() as hook:
        world = World(connection, {"ops": hook.settings})
        await world.see("350000000000001")
        await world.turn()
        await world.see()
        await world.turn(minutes=65)
        await world.turn()
    opened, cleared = hook.got
    assert (opened["what"], cleared["what"]) == ("opened", "cleared")
    assert opened["subject"] == "[signalkeep] WARNING silent: 350000000000001"
    assert f"signalkeep incidents ack {opened['incident']['id']}" in opened["text"]
    assert cleared["incident"]["state"] == "cleared"


async def test_mail_by_apprise(connection: Connection) -> None:
    with Mail() as mail:
        world = World(connection, {"ops": mail.settings})
        await world.see("350000000000001")
        await world.route()
        assert await world.send() == "1 sent"
    (message,) = mail.got
    assert message["Subject"] == "[signalkeep] WARNING silent: 350000000000001"
    (text,) = [part for part in message.walk() if not part.is_multipart()]
    assert text.get_content_type() == "text/plain"
    assert f"Message {await connection.fetchval('SELECT id FROM notification')}" in str(text)


# What fails ---------------------------------------------------------------------------------------------------------


async def test_what_fails_is_tried_again_later_with_the_same_id(connection: Connection) -> None:
    with Webhook() as hook:
        hook.statuses = [500, 302]
        world = World(connection, {"ops": hook.settings})
        await world.see("1")
        await world.turn()
        assert await world.send() == "0 sent"
        await world.turn(seconds=limits.NOTIFY_RETRY_S_MIN)
        row = await connection.fetchrow("SELECT * FROM notification")
        assert row is not None
        assert (row["attempts"], row["state"]) == (2, "waiting")
        assert row["error"] == "answered with 302, and redirects are not followed"
        assert row["next_at"] - world.clock.now() == timedelta(seconds=2 * limits.NOTIFY_RETRY_S_MIN)
        await world.turn(seconds=2 * limits.NOTIFY_RETRY_S_MIN)
    assert len(hook.got) == 3
    assert len({message["id"] for message in hook.got}) == 1
    assert await connection.fetchval("SELECT state FROM notification") == "sent"


async def test_it_is_given_up_after_about_two_days(connection: Connection) -> None:
    world = World(connection, {"ops": nowhere()})
    await world.see("1")
    await world.route()
    for _ in range(2 * limits.NOTIFY_ATTEMPTS_MAX):  # a try that hangs keeps the next one from being one
        await world.send()
        world.clock.at = await connection.fetchval("SELECT next_at FROM notification")
        if await connection.fetchval("SELECT state FROM notification") != "waiting":
            break
    row = await connection.fetchrow("SELECT state, attempts FROM notification")
    assert row is not None
    assert tuple(row) == ("given_up", limits.NOTIFY_ATTEMPTS_MAX)
    assert timedelta(days=2) < world.clock.now() - NOON < timedelta(days=3)
    await world.see()
    await world.route()
    assert await world.words() == ["opened"], "who was never told needs no end"


async def test_a_message_that_is_refused_stops_no_other_but_those_of_its_incident(connection: Connection) -> None:
    with Webhook() as hook:
        hook.statuses = [400]
        world = World(connection, {"ops": hook.settings})
        await world.see("1", "2")
        await world.turn()
        await world.see("2")
        await world.turn(seconds=1)
        assert [(one["what"], one["incident"]["subject"]) for one in hook.got[1:]] == [("opened", "2")]
        await world.turn(seconds=limits.NOTIFY_RETRY_S_MIN)
    assert [(one["what"], one["incident"]["subject"]) for one in hook.got[2:]] == [("opened", "1"), ("cleared", "1")]


async def test_one_that_hangs_delays_no_other_and_is_left_alone(connection: Connection, dsn: str) -> None:
    """Beside it another works; the channel has one thread, and is used again when that has ended."""
    with Silent() as silent, Webhook() as hook:
        world = World(connection, {"ops": hook.settings, "slow": silent.settings}, admins=["slow", "ops"])
        await world.see("1")
        await world.route()
        async with connected(dsn) as other:
            slow = asyncio.create_task(send_waiting(other, world.channels["slow"], world.clock))
            await wait_until_async(lambda: any(thread.name == "notify slow" for thread in threading.enumerate()))
            assert await world.send("ops") == "1 sent"
            assert "hangs: no answer within 0.3 s" in await slow
        await wait_until_async(lambda: world.is_free("slow"))
        world.clock.forward(hours=1)
        assert await world.send("slow") == "an earlier message still hangs there"
        threads = [thread for thread in threading.enumerate() if thread.name == "notify slow"]
        assert len(threads) == 1
        assert await connection.fetchval("SELECT attempts FROM notification WHERE channel = 'slow'") == 1
        silent.close()
        threads[0].join(20)
        assert not threads[0].is_alive()
        assert "hangs" not in await world.send("slow")


async def test_a_webhook_that_never_answers_has_failed(connection: Connection) -> None:
    with Silent() as silent:
        world = World(connection, {"ops": {"webhook": f"http://127.0.0.1:{silent.port}/", "timeout_s": 0.3}})
        await world.see("1")
        await world.route()
        error = await world.send()
    assert re.search(r"hangs: no answer within 0.3 s|TimeoutError|timed out", error), error


# A channel as an incident -------------------------------------------------------------------------------------------


async def failing(connection: Connection) -> list[tuple[str, str]]:
    rows = await connection.fetch("SELECT subject, state FROM incident WHERE kind = 'channel_failing' ORDER BY id")
    return [(row["subject"], row["state"]) for row in rows]


async def test_a_channel_that_fails_again_and_again_is_told_over_the_others(connection: Connection) -> None:
    with Webhook() as good, Webhook() as bad:
        bad.statuses = [503] * limits.NOTIFY_FAILED_IN_A_ROW
        world = World(connection, {"good": good.settings, "bad": bad.settings}, admins=["good", "bad"])
        await world.see("1")
        for _ in range(limits.NOTIFY_FAILED_IN_A_ROW - 1):
            await world.turn(minutes=15)
            assert await failing(connection) == []
        await world.turn(minutes=15)
        await world.turn()
        assert await failing(connection) == [("bad", "open")]
        assert [one["incident"]["kind"] for one in good.got] == ["silent", "channel_failing"]
        assert "answered with 503" in good.got[1]["text"]
        await world.turn(minutes=15)
        assert bad.got[-1]["incident"]["kind"] == "silent"
        await world.turn()
        assert await failing(connection) == [("bad", "cleared")]
        await world.turn()
    assert good.words == ["opened", "opened", "cleared"]
    assert set(bad.words) == {"opened"}


async def test_one_that_hangs_is_an_incident_at_once(connection: Connection) -> None:
    with Silent() as silent:
        world = World(connection, {"ops": nowhere(), "slow": silent.settings}, admins=["slow"])
        await world.see("1")
        await world.turn()
        await world.turn()
    assert await failing(connection) == [("slow", "open")]


# Too many -----------------------------------------------------------------------------------------------------------


async def test_more_than_a_channel_may_carry_comes_in_one_message(connection: Connection) -> None:
    with Webhook() as hook:
        world = World(connection, {"ops": {**hook.settings, "per_hour_max": 2}})
        await world.see(*"12345")
        await world.turn()
        assert hook.words == ["opened", "opened", "digest"]
        digest = hook.got[-1]
        assert [title.rpartition(" ")[2] for title in digest["messages"]] == ["3", "4", "5"]
        rows = await connection.fetch("SELECT state, digest_id FROM notification WHERE state <> 'sent'")
        assert [(row["state"], str(row["digest_id"])) for row in rows] == [("in_digest", digest["id"])] * 3
        await world.see(*"123456")
        await world.turn(minutes=1)
        assert len(hook.got) == 3, "the next digest comes later"
        await world.turn(seconds=limits.NOTIFY_DIGEST_S)
        assert [title.rpartition(" ")[2] for title in hook.got[-1]["messages"]] == ["6"]
        await world.see(*"1234567")
        await world.turn(hours=1)
    assert hook.words[-1] == "opened", "the hour is over"
    await world.see()
    await world.route()
    assert (await world.words())[-7:] == ["cleared"] * 7, "who was told in a digest is told of the end"


async def test_a_digest_that_is_cut_off_leaves_what_waits(connection: Connection, dsn: str) -> None:
    with Webhook() as hook:
        world = World(connection, {"ops": {**hook.settings, "per_hour_max": 1}})
        await world.see(*"123")
        await world.route()
        await connection.execute(
            "UPDATE notification SET state = 'sent', sent_at = $1 WHERE id = "
            "(SELECT id FROM notification ORDER BY event_id LIMIT 1)",
            world.clock.now(),
        )
        async with connected(dsn) as other:
            await other.transaction().start()
            await _is_full(other, world.channels["ops"], world.clock.now())
            assert await other.fetchval("SELECT count(*) FROM notification WHERE state = 'in_digest'") == 2
            other.terminate()
        assert await connection.fetchval("SELECT count(*) FROM notification WHERE state = 'waiting'") == 2


# Who is cut off -----------------------------------------------------------------------------------------------------


def sender(dsn: str, hook: Webhook) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.notify.sender", dsn, json.dumps(hook.settings)])


async def test_killed_between_sending_and_noting_it_sends_the_same_id_again(connection: Connection, dsn: str) -> None:
    """A real process, ended by SIGKILL while the receiver holds its message."""
    with Webhook() as hook:
        world = World(connection, {"ops": hook.settings})
        await world.see("1")
        await world.route()
        killed = threading.Event()
        process = sender(dsn, hook)

        def kill(_: object) -> None:
            if not killed.is_set():
                process.kill()
                process.wait(30)
                killed.set()

        hook.on_message = kill
        await asyncio.to_thread(killed.wait, 60)
        assert await connection.fetchval("SELECT state FROM notification") == "waiting"
        await wait_until_async(lambda: world.is_free("ops"))
        assert await world.send() == "1 sent"
    assert len(hook.got) == 2
    assert hook.got[0] == hook.got[1]


async def test_of_two_senders_one_works(connection: Connection, dsn: str) -> None:
    world = World(connection, {"ops": nowhere()})
    async with connected(dsn) as other:
        assert await outbox.try_channel(other, "ops")
        assert await world.send() == "another organizer sends there"
    await wait_until_async(lambda: world.is_free("ops"))


async def test_what_waits_for_a_channel_that_is_gone_is_given_up(connection: Connection) -> None:
    world = World(connection, {"ops": nowhere()})
    await world.see("1")
    await world.route()
    world.settings = settings_of({"new": nowhere()})
    assert "1 without a channel" in await world.route()
    assert await connection.fetchval("SELECT state FROM notification") == "given_up"


async def test_a_channel_that_takes_another_message_is_not_failing(connection: Connection) -> None:
    with Webhook() as hook:
        hook.statuses = [400] * limits.NOTIFY_FAILED_IN_A_ROW
        world = World(connection, {"ops": hook.settings})
        await world.see("1")
        for _ in range(limits.NOTIFY_FAILED_IN_A_ROW):
            await world.turn(minutes=1)
        await world.route()
        assert await failing(connection) == [("ops", "open")]
        await world.see("1", "2")
        await world.turn(seconds=1)
        await world.turn()
        assert hook.got[-1]["incident"]["subject"] == "2"
    assert await failing(connection) == [("ops", "cleared")]
