"""The database is away: who led last tells it once, whoever is killed; when it is back, all is written down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from signalkeep.notify.channels import channels_of
from signalkeep.notify.emergency import FILE, Emergency
from signalkeep.store.postgres import Connection
from tests.notify.receivers import Webhook
from tests.notify.support import World
from tests.servers import wait_until_async

pytestmark = pytest.mark.servers

Start = Callable[..., Emergency]


@asynccontextmanager
async def emergencies(directory: Path, world: World) -> AsyncIterator[Start]:
    """Starts organizers' watches on one data directory; all are ended."""
    started: list[Emergency] = []

    def start(place: str = "run") -> Emergency:
        (directory / place).mkdir(exist_ok=True)
        one = Emergency(
            directory / place, world.settings, channels_of(world.settings, world.clock), clock=world.clock, host="host7"
        )
        started.append(one)
        return one

    try:
        yield start
    finally:
        for one in started:
            await one.close()


def worlds(connection: Connection, hook: Webhook) -> World:
    return World(connection, {"ops": hook.settings}, database_away_s=0.05)


async def states(connection: Connection) -> list[tuple[str, str]]:
    rows = await connection.fetch(
        "SELECT payload->>'what' AS what, state FROM notification ORDER BY created_at, event_id"
    )
    return [(row["what"], row["state"]) for row in rows]


async def test_it_is_told_once_and_written_down_when_it_is_back(connection: Connection, tmp_path: Path) -> None:
    with Webhook() as hook:
        world = worlds(connection, hook)
        async with emergencies(tmp_path, world) as start:
            one = start()
            one.leads(True)
            for _ in range(3):
                one.away()
            began = world.clock.now()
            await wait_until_async(lambda: b'"sent":{"ops"' in (tmp_path / "run" / FILE).read_bytes())
            world.clock.forward(minutes=5)
            await one.back(connection)
            await one.back(connection)
            await world.turn()
            await world.turn()
        assert hook.words == ["opened", "cleared"]
        away, back = hook.got
        assert away["incident"]["kind"] == "database_away"
        assert away["incident"].keys() == back["incident"].keys(), "programs find the same in both"
        assert away["incident"]["subject"] == back["incident"]["subject"] == "the database"
        assert "ERROR: cannot be used: the database" in away["text"]
        assert "OVER: cannot be used: the database" in back["text"]
        assert "It was: PostgreSQL cannot be used, as " in back["text"]
        assert "It lasted 5 min." in back["text"]
    assert await states(connection) == [("opened", "sent"), ("cleared", "sent")]
    row = await connection.fetchrow("SELECT opened_at, cleared_at, state FROM incident")
    assert row is not None
    assert (row["opened_at"], row["cleared_at"], row["state"]) == (began, world.clock.now(), "cleared")
    assert (
        str(await connection.fetchval("SELECT id FROM notification ORDER BY created_at, event_id LIMIT 1"))
        == (hook.got[0]["id"])
    )


async def test_a_short_absence_is_nothing(connection: Connection, tmp_path: Path) -> None:
    with Webhook() as hook:
        world = World(connection, {"ops": hook.settings}, database_away_s=3600)
        async with emergencies(tmp_path, world) as start:
            one = start()
            one.leads(True)
            one.away()
            await asyncio.sleep(0)
            await one.back(connection)
        assert hook.got == []
    assert await connection.fetchval("SELECT count(*) FROM incident") == 0


async def test_who_never_led_or_leads_no_more_says_nothing(connection: Connection, tmp_path: Path) -> None:
    with Webhook() as hook:
        world = worlds(connection, hook)
        async with emergencies(tmp_path, world) as start:
            never, before, leader = start("never"), start("before"), start("leader")
            before.leads(True)
            before.leads(False)
            leader.leads(True)
            for one in (never, before, start("before"), leader):
                one.away()
            await wait_until_async(lambda: len(hook.got) == 1)
            await wait_until_async(lambda: b'"sent":{"ops"' in (tmp_path / "leader" / FILE).read_bytes())
            assert all(one._task is None for one in (never, before))
        assert len(hook.got) == 1


async def test_killed_after_sending_and_before_noting_it_sends_the_same_id(
    connection: Connection, tmp_path: Path
) -> None:
    """The file as it was when the message was on its way."""
    with Webhook() as hook:
        world = worlds(connection, hook)
        file, kept = tmp_path / "run" / FILE, []
        hook.on_message = lambda _: kept.append(file.read_bytes())
        async with emergencies(tmp_path, world) as start:
            first = start()
            first.leads(True)
            first.away()
            await wait_until_async(lambda: b'"sent":{"ops"' in file.read_bytes())
            await first.close()
            file.write_bytes(kept[0])
            second = start()
            second.away()
            await wait_until_async(lambda: len(hook.got) == 2)
            await wait_until_async(lambda: b'"sent":{"ops"' in file.read_bytes())
            third = start()  # that finds all told
            third.away()
            await asyncio.sleep(0.1)
        assert hook.got[0] == hook.got[1]
        assert len(hook.got) == 2


async def test_killed_between_writing_down_and_forgetting_it_is_written_down_once(
    connection: Connection, tmp_path: Path
) -> None:
    with Webhook() as hook:
        world = worlds(connection, hook)
        file = tmp_path / "run" / FILE
        async with emergencies(tmp_path, world) as start:
            first = start()
            first.leads(True)
            first.away()
            await wait_until_async(lambda: b'"sent":{"ops"' in file.read_bytes())
            kept = file.read_bytes()
            await first.back(connection)
            file.write_bytes(kept)
            await start().back(connection)
            await world.turn()
        assert hook.words == ["opened", "cleared"]
    assert await connection.fetchval("SELECT count(*) FROM incident") == 1


async def test_who_could_not_be_reached_hears_both_when_it_is_back(connection: Connection, tmp_path: Path) -> None:
    with Webhook() as hook:
        hook.statuses = [503]
        world = worlds(connection, hook)
        async with emergencies(tmp_path, world) as start:
            one = start()
            one.leads(True)
            one.away()
            await wait_until_async(lambda: len(hook.got) == 1)
            await one.back(connection)
            await world.turn()
        assert hook.words == ["opened", "opened", "cleared"]
        assert hook.got[0] == hook.got[1]


async def test_a_file_that_cannot_be_read_is_begun_anew(connection: Connection, tmp_path: Path) -> None:
    with Webhook() as hook:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / FILE).write_bytes(b"\x00")
        async with emergencies(tmp_path, worlds(connection, hook)) as start:
            one = start()
            one.away()
            await one.back(connection)
        assert hook.got == []
