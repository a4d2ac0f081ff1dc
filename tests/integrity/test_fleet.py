"""The fleet's hours: each is looked at once, and what rules see of it is what is there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from signalkeep.integrity.fleet import judge_fleet
from signalkeep.model import CANARY_MODEL
from signalkeep.rulebook import Rulebook
from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.contract import Rule, Scope
from signalkeep.rules.fleet import FleetHit, FleetView
from signalkeep.sections import QualitySettings
from signalkeep.store import registry
from signalkeep.store.postgres import Connection
from tests.builders import NUMBER, RECEIVED, Feed, event

pytestmark = pytest.mark.servers

NOW = RECEIVED + timedelta(minutes=5)
HOUR = datetime(2026, 5, 1, 11, tzinfo=UTC)


class Spy:
    """A rule that keeps what it is shown."""

    def __init__(self) -> None:
        self.views: list[FleetView] = []

    def __call__(self, view: FleetView, limits: Any) -> list[FleetHit]:
        self.views.append(view)
        return [FleetHit("spy", f"{view.signals} signals")]


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    made = Spy()
    rule: Rule = msgspec.structs.replace(BY_ID["FLT-02"], id="TST-01", check=made, scope=Scope.FLEET)
    broken = msgspec.structs.replace(rule, id="TST-02", check=lambda *_: 1 / 0)
    monkeypatch.setattr("signalkeep.rulebook.RULES", (broken, rule))
    return made


async def look(connection: Connection, now: datetime) -> str:
    return await judge_fleet(connection, Rulebook(QualitySettings()), now)


async def test_an_hour_is_looked_at_once_and_a_rule_that_raises_costs_nothing(connection: Connection, spy: Spy) -> None:
    assert await look(connection, NOW) == "2026-05-01 11h: 1 findings"
    assert await look(connection, NOW + timedelta(minutes=20)) == "nothing to do"
    assert len(spy.views) == 1
    assert await connection.fetchval("SELECT count FROM finding WHERE kind = 'TST-01'") == 1
    assert await look(connection, NOW + timedelta(hours=1)) == "2026-05-01 12h: 1 findings"
    assert await connection.fetchval("SELECT count FROM finding WHERE kind = 'TST-01'") == 2


async def test_what_is_seen_is_what_is_there(connection: Connection, spy: Spy) -> None:
    await registry.register(connection, NUMBER, actor="tests")
    feed = await Feed.open(connection)
    await feed.write(connection, event(minute=30), event("4711", minute=20))
    await look(connection, NOW)
    first = spy.views[0]
    assert (first.signals, first.usual, first.frames, first.active_devices) == (0, [], 0, 2), "nothing is known before"
    assert list(first.unknown) == [("4711", 1)]
    await connection.execute(
        "INSERT INTO refusal (journal_id, reason, count, last_at) VALUES ($1, 'checksum', 7, now())", feed.journal_id
    )
    await feed.write(connection, event(minute=10), event(minute=9), event(minute=8))
    await look(connection, NOW + timedelta(hours=1))
    second = spy.views[1]
    assert (second.signals, second.frames, second.refused) == (3, 3, {"checksum": 7})


async def test_our_own_signals_are_no_part_of_the_fleet(connection: Connection, spy: Spy) -> None:
    await registry.register(connection, "canary-h", model=CANARY_MODEL, actor="tests")
    feed = await Feed.open(connection)
    await feed.write(connection, event("canary-h", minute=30))
    await look(connection, NOW)
    await feed.write(connection, event("canary-h", minute=20), event("canary-h", minute=10, latitude="north"))
    await look(connection, NOW + timedelta(hours=1))
    second = spy.views[1]
    assert (second.signals, second.frames, second.active_devices, list(second.groups)) == (0, 0, 0, [])


async def test_the_same_hour_of_the_weeks_before_is_what_is_usual(connection: Connection, spy: Spy) -> None:
    for week in (1, 2, 3):
        await connection.execute(
            "INSERT INTO fleet_hour VALUES ($1, $1, 0, 0, '{}', $2)", HOUR - timedelta(weeks=week), week * 100
        )
    await connection.execute(
        "INSERT INTO fleet_hour VALUES ($1, $2, 0, 0, '{}', NULL)", HOUR - timedelta(hours=1), NOW - timedelta(hours=1)
    )
    await look(connection, NOW)
    assert list(spy.views[0].usual) == [100, 200, 300]
    late = HOUR + timedelta(days=1)
    await connection.execute("INSERT INTO fleet_hour VALUES ($1, $1, 0, 0, '{}', NULL)", late - timedelta(hours=1))
    await look(connection, late + timedelta(hours=1, minutes=50))
    assert list(spy.views[1].usual) == [], "looked at so late, it says nothing of the hour"
