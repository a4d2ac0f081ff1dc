"""Events become messages once, whoever is cut off; what time brings comes once, too."""

from __future__ import annotations

from datetime import timedelta

import pytest

from signalkeep import limits
from signalkeep.kinds import Stage
from signalkeep.notify.routing import route
from signalkeep.store import assignments, fleet, registry
from signalkeep.store.incidents import acknowledge, snooze, unsnooze
from signalkeep.store.postgres import Connection
from tests.notify.support import World, nowhere
from tests.servers import connected

pytestmark = pytest.mark.servers

CHANNELS = {name: nowhere() for name in ("ops", "acme", "boss")}
DEVICE = "350000000000001"


@pytest.fixture
def world(connection: Connection) -> World:
    return World(connection, CHANNELS, customers={"Acme": ["acme"]}, escalate_to=["boss"])


async def the_incident(world: World) -> int:
    found: int = await world.connection.fetchval("SELECT id FROM incident")
    return found


async def pass_(world: World, **span: float) -> None:
    world.clock.forward(**span)
    await world.route()


async def test_the_customer_is_told_with_the_names_of_things(world: World) -> None:
    await fleet.add_customer(world.connection, "Acme", actor="tests")
    await registry.register(world.connection, DEVICE, actor="tests")
    await fleet.add_vehicle(world.connection, "van 7", customer="Acme", plate="B-7", actor="tests")
    await assignments.assign(world.connection, DEVICE, "van 7", actor="tests")
    ids = await world.connection.fetchrow("SELECT d.id AS device, c.id AS customer FROM device d, customer c")
    assert ids is not None
    await world.see(DEVICE, device_id=ids["device"], customer_id=ids["customer"])
    await world.route()
    (row,) = await world.connection.fetch("SELECT channel, title, body, payload FROM notification")
    assert row["channel"] == "acme"
    assert row["title"] == f"[signalkeep] WARNING silent: {DEVICE} (van 7, Acme)"
    assert "Vehicle: van 7 (B-7)" in row["body"]
    assert row["payload"]["incident"]["vehicle"] == "van 7"


async def test_what_is_diagnostic_is_told_when_it_gets_worse(world: World) -> None:
    await world.see("1", stage=Stage.DIAGNOSTIC)
    await pass_(world)
    assert await world.words() == []
    world.clock.forward(minutes=1)
    await world.see("1")
    await pass_(world)
    await pass_(world)
    assert await world.words() == ["opened"]


async def test_opened_as_diagnostic_and_worse_before_anybody_looked_is_told_once(world: World) -> None:
    await world.see("1", stage=Stage.DIAGNOSTIC)
    world.clock.forward(seconds=1)
    await world.see("1")
    await pass_(world)
    assert await world.words() == ["opened"]


async def test_nobody_takes_it_so_others_are_told_once_and_hear_the_end(world: World) -> None:
    await world.see("1")
    await pass_(world)
    await pass_(world, minutes=29)
    assert await world.words("boss") == []
    for _ in range(3):
        await pass_(world, minutes=1)
    assert await world.words("boss") == ["escalated"]
    await world.see()
    await pass_(world)
    assert await world.words("boss") == ["escalated", "cleared"]
    assert await world.words() == ["opened", "cleared"]


async def test_who_took_it_is_left_alone_until_it_is_over(world: World) -> None:
    await world.see("1")
    await pass_(world)
    await acknowledge(world.connection, await the_incident(world), who="ann", note="on my way", now=world.clock.now())
    for _ in range(5):
        await pass_(world, days=1)
    assert await world.words("boss") == []
    await world.see()
    await pass_(world)
    assert await world.words() == ["opened", "cleared"]


async def test_it_is_told_again_every_day(world: World) -> None:
    await world.see("1")
    await pass_(world)
    for _ in range(5):
        await pass_(world, hours=12)
    assert await world.words() == ["opened", "reminded", "reminded"]


async def test_snoozed_until_then_once(world: World) -> None:
    await world.see("1")
    await pass_(world)
    now = world.clock.now()
    await snooze(
        world.connection, await the_incident(world), until=now + timedelta(hours=2), who="ann", note="", now=now
    )
    for _ in range(3):
        await pass_(world, minutes=39)
        assert await world.words() == ["opened"]
        assert await world.words("boss") == []
    for _ in range(3):
        await pass_(world, minutes=3)
    assert await world.words() == ["opened", "reminded"]
    await pass_(world, minutes=30)
    assert await world.words("boss") == ["escalated"]


async def test_what_ends_in_a_snooze_is_told_after_it_and_what_comes_back_in_it_is_not(world: World) -> None:
    await world.see("1", "2")
    await pass_(world)
    now = world.clock.now()
    rows = await world.connection.fetch("SELECT id FROM incident ORDER BY id")
    for row in rows:
        await snooze(world.connection, row["id"], until=now + timedelta(hours=2), who="ann", note="", now=now)
    await world.see()
    await pass_(world, minutes=1)
    await world.see("2")
    await pass_(world, minutes=1)
    assert await world.words() == ["opened", "opened"]
    await pass_(world, hours=2)
    assert sorted((await world.words())[2:]) == ["cleared", "reminded"]


async def test_unsnoozed_it_goes_on_as_before(world: World) -> None:
    await world.see("1")
    await pass_(world)
    now, number = world.clock.now(), await the_incident(world)
    await snooze(world.connection, number, until=now + timedelta(days=2), who="ann", note="", now=now)
    await unsnooze(world.connection, number, who="ann", note="", now=now)
    await pass_(world, minutes=31)
    assert await world.words("boss") == ["escalated"]


async def test_what_comes_and_goes_is_said_to_flap_once_and_to_be_over_once(world: World) -> None:
    await world.see("1")
    for _ in range(9):
        await pass_(world, minutes=1)
        await world.see()
        await pass_(world, minutes=1)
        await world.see("1")
    await pass_(world)
    told = ["opened", *["cleared", "reopened"] * 2, "cleared", "flapping"]
    assert await world.words() == told
    await world.see()
    await pass_(world, seconds=limits.REOPEN_S - 1)
    assert await world.words() == told
    await pass_(world, seconds=1)
    await pass_(world, seconds=1)
    assert await world.words() == [*told, "cleared"]
    body = await world.connection.fetchval("SELECT body FROM notification ORDER BY created_at DESC LIMIT 1")
    assert "It lasted 18 min." in body, "until it ended, not until it was told"


async def test_what_ends_long_after_it_flapped_is_told_at_once(world: World) -> None:
    await world.see("1")
    for _ in range(4):
        await pass_(world, minutes=1)
        await world.see()
        await pass_(world, minutes=1)
        await world.see("1")
    await pass_(world, hours=2)
    await world.see()
    await pass_(world)
    assert (await world.words())[-2:] == ["flapping", "cleared"]


async def test_cut_off_in_the_middle_it_is_told_once(world: World, dsn: str) -> None:
    """Before the commit nothing is there, afterwards everything."""
    await world.see("1", "2")
    async with connected(dsn) as other:
        await other.transaction().start()
        assert await route(other, world.settings, world.clock.now()) == 2
        other.terminate()
    assert await world.words() == []
    await pass_(world)
    await pass_(world)
    assert await world.words() == ["opened", "opened"]


async def test_more_than_a_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NOTIFY_EVENTS_MAX", 3)
    await world.see(*"12345678")
    await pass_(world)
    assert len(await world.words()) == 8
    await pass_(world, minutes=31)
    assert await world.words("boss") == ["escalated"] * 8


async def test_without_channels_nobody_is_told_later_either(connection: Connection) -> None:
    world = World(connection, {})
    await world.see("1")
    await world.route()
    await pass_(world, days=2)
    assert await connection.fetchval("SELECT count(*) FROM incident_event") == 1
    world.settings = World(connection, CHANNELS, remind_every_s=0).settings
    await world.route()
    assert await world.words() == []


async def test_opened_again_it_may_escalate_anew(world: World) -> None:
    await world.see("1")
    await pass_(world, minutes=31)
    await world.see()
    await pass_(world, minutes=1)
    await world.see("1")
    await pass_(world, minutes=1)
    await pass_(world, minutes=31)
    assert await world.words("boss") == ["escalated", "cleared", "escalated"]


async def test_who_takes_what_is_snoozed_is_not_reminded(world: World) -> None:
    await world.see("1")
    await pass_(world)
    now, number = world.clock.now(), await the_incident(world)
    await snooze(world.connection, number, until=now + timedelta(hours=1), who="ann", note="", now=now)
    await acknowledge(world.connection, number, who="ann", note="", now=now)
    await pass_(world, hours=2)
    assert await world.words() == ["opened"]


async def test_what_began_and_ended_before_anybody_looked_is_told_with_its_end(world: World) -> None:
    await world.see("1")
    world.clock.forward(seconds=1)
    await world.see()
    await pass_(world)
    assert await world.words() == ["opened", "cleared"]
