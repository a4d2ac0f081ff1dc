"""Incidents follow from what checks see: each is opened, refreshed, worsened, cleared and reopened once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from signalkeep import limits
from signalkeep.kinds import Stage
from signalkeep.store.incidents import Condition, Observed, observe
from signalkeep.store.postgres import Connection
from tests.servers import connected

pytestmark = pytest.mark.servers

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def silent(subject: str = "350000000000001", **changes: Any) -> Condition:
    return Condition(**{"kind": "silent", "subject": subject, "detail": "nothing for 3 h", **changes})


async def see(connection: Connection, *conditions: Condition, minutes: float = 0, **options: Any) -> Observed:
    return await observe(connection, "devices", conditions, NOW + timedelta(minutes=minutes), **options)


async def history(connection: Connection) -> list[tuple[str, str]]:
    rows = await connection.fetch(
        "SELECT i.subject, e.what FROM incident_event e JOIN incident i ON i.id = e.incident_id ORDER BY e.id"
    )
    return [(row["subject"], row["what"]) for row in rows]


async def test_what_is_seen_is_opened_once_and_cleared_when_it_is_gone(connection: Connection) -> None:
    first = await see(connection, silent("1"), silent("2"), silent("2"))
    assert len(first.opened) == 2
    assert await see(connection, silent("1", detail="nothing for 4 h", hits=7), silent("2"), minutes=1) == Observed()
    third = await see(connection, silent("2"), minutes=2)
    assert (third.opened, len(third.cleared)) == ([], 1)
    assert await history(connection) == [("1", "opened"), ("2", "opened"), ("1", "cleared")]
    row = await connection.fetchrow("SELECT * FROM incident WHERE subject = '1'")
    assert row is not None
    assert (row["state"], row["detail"], row["hits"]) == ("cleared", "nothing for 4 h", 7)
    assert (row["opened_at"], row["cleared_at"]) == (NOW, NOW + timedelta(minutes=2))


async def test_what_comes_back_soon_is_the_same_incident_and_later_another(connection: Connection) -> None:
    await see(connection, silent())
    await see(connection, minutes=1)
    back = await see(connection, silent(), minutes=1 + limits.REOPEN_S / 60 - 0.1)
    assert (len(back.reopened), back.opened) == (1, [])
    assert await connection.fetchval("SELECT reopened FROM incident WHERE state = 'open'") == 1
    await see(connection, minutes=20)
    later = await see(connection, silent(), minutes=20 + limits.REOPEN_S / 60 + 0.1)
    assert (len(later.opened), later.reopened) == (1, [])
    assert await connection.fetchval("SELECT count(*) FROM incident") == 2


async def test_a_diagnostic_becomes_a_malfunction_once_and_stays_one(connection: Connection) -> None:
    await see(connection, silent(stage=Stage.DIAGNOSTIC))
    assert await connection.fetchval("SELECT malfunction_at FROM incident") is None
    worse = await see(connection, silent(), minutes=5)
    assert len(worse.worsened) == 1
    assert await see(connection, silent(stage=Stage.DIAGNOSTIC), minutes=6) == Observed()
    row = await connection.fetchrow("SELECT stage, malfunction_at FROM incident")
    assert row is not None
    assert tuple(row) == ("malfunction", NOW + timedelta(minutes=5))
    await see(connection, minutes=7)
    await see(connection, silent(stage=Stage.DIAGNOSTIC), minutes=8)
    assert await connection.fetchval("SELECT stage FROM incident") == "diagnostic", "it begins anew"


async def test_who_has_not_looked_at_everything_clears_nothing(connection: Connection) -> None:
    await see(connection, silent("1"), silent("2"))
    assert await see(connection, silent("1"), minutes=1, clear=False) == Observed()


async def test_what_another_one_tells_of_is_cleared_without_a_word(connection: Connection) -> None:
    await see(connection, silent("1"), silent("2"), silent("3"))
    group = Condition(kind="shared_fault", subject="silent: model A", detail="2 of 2", devices=2)
    told_by = ("shared_fault", "silent: model A")
    part_of = {("silent", "1"): told_by, ("silent", "2"): told_by, ("silent", "9"): told_by}
    seen = await see(connection, group, minutes=1, part_of=part_of)
    assert (len(seen.opened), len(seen.cleared)) == (1, 3)
    rows = await connection.fetch(
        "SELECT i.subject, e.note, e.routed_at FROM incident_event e JOIN incident i ON i.id = e.incident_id"
        " WHERE what = 'cleared' ORDER BY 1"
    )
    note, now = f"part of incident {seen.opened[0]}", NOW + timedelta(minutes=1)
    assert [tuple(row) for row in rows] == [("1", note, now), ("2", note, now), ("3", "", None)]
    apart = await see(connection, silent("1"), minutes=2)
    assert (len(apart.reopened), len(apart.cleared)) == (1, 1)


async def test_one_that_a_person_took_stays_taken(connection: Connection) -> None:
    await see(connection, silent())
    await connection.execute("UPDATE incident SET state = 'acknowledged', acknowledged_by = 'ann'")
    await see(connection, silent(), minutes=1)
    assert await connection.fetchval("SELECT state FROM incident") == "acknowledged"
    assert len((await see(connection, minutes=2)).cleared) == 1


async def test_an_observation_that_is_cut_off_leaves_nothing(connection: Connection, dsn: str) -> None:
    async with connected(dsn) as other:
        await other.transaction().start()
        assert len((await observe(other, "devices", [silent()], NOW)).opened) == 1
        other.terminate()
    assert await connection.fetchval("SELECT count(*) FROM incident") == 0
    assert await history(connection) == []
