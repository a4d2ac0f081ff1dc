"""What a monitor writes of its machine: rows that follow from the picture, and a database that cannot be written to."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from signalkeep import limits
from signalkeep.clock import SystemClock
from signalkeep.monitor.beats import BeatWriter, BrokenRules, beats_of, seen_of
from signalkeep.monitor.database import DatabaseWatch
from signalkeep.monitor.health import ready
from signalkeep.monitor.picture import DatabaseFacts, Picture
from signalkeep.store.postgres import Connection
from tests.monitor.pictures import core, gateway_numbers, ingest_numbers, picture, role
from tests.monitor.test_service import settings_of


def states(seen: Picture) -> dict[str, str]:
    return {one.name: one.state for one in seen_of(seen, None)}


def test_every_check_of_the_monitor_is_a_row() -> None:
    found = states(picture())
    assert set(found.values()) == {"up"}
    assert {"gateway-0", "supervisor-0", "gateway", "sockets", "journal-disk", "ingest", "database"} <= set(found)


def test_states_and_reasons_are_those_of_the_checks() -> None:
    away = picture(database=DatabaseFacts(why="away"), roles=core(ingest=role("ingest", vitals=None, lives=False)))
    found = {one.name: one for one in seen_of(away, 0.2)}
    assert (found["database"].state, found["ingest-0"].state) == ("degraded", "down")
    assert "away" in found["database"].why


def test_a_machine_is_not_blamed_for_what_it_has_not() -> None:
    only = picture(roles=[role("organizer"), role("monitor")])
    assert not {"gateway", "sockets", "journal-syncs", "ingest"} & set(states(only))


def test_the_database_takes_as_long_as_the_slower_of_reading_and_writing() -> None:
    (found,) = [one for one in seen_of(picture(), 0.7) if one.name == "database"]
    assert found.took_s == 0.7


def test_a_beat_is_what_the_process_says_and_nothing_of_one_that_is_gone() -> None:
    found = {f"{beat.role}-{beat.instance}": beat for beat in beats_of(picture())}
    gateway = found["gateway-0"]
    assert (gateway.pid, gateway.restarts, gateway.durable_seq) == (4242, 1, 38)
    assert gateway.journal is not None
    assert gateway.journal.hex == gateway_numbers().journal
    assert (found["postgres-0"].pid, found["postgres-0"].restarts) == (None, 2)
    dead = picture(roles=core(gateway=role("gateway", numbers=gateway_numbers(), lives=False)))
    assert {beat.pid for beat in beats_of(dead) if beat.role == "gateway"} == {None}


def test_restarts_are_known_where_a_supervisor_counts_them() -> None:
    assert {beat.restarts for beat in beats_of(picture(supervised=False, restarts={}))} == {None}


def judging(**broken: int) -> Picture:
    return picture(roles=core(ingest=role("ingest", numbers=ingest_numbers(broken_rules=broken))))


def test_a_rule_that_raises_is_named_for_a_while_after_the_last_time() -> None:
    class Time(SystemClock):
        now_s = 1000.0

        def monotonic(self) -> float:
            return self.now_s

    clock = Time()
    rules = BrokenRules(clock)
    assert [one.state for one in rules.look(judging())] == ["up"]
    (one,) = rules.look(judging(OWN=1))
    assert (one.state, "OWN" in one.why) == ("degraded", True)
    clock.now_s += limits.RULE_BROKEN_S - 1
    assert [one.state for one in rules.look(judging(OWN=1))] == ["degraded"]
    clock.now_s += 2
    assert [one.state for one in rules.look(judging(OWN=1))] == ["up"], "it has not raised since"
    assert [one.state for one in rules.look(judging(OWN=2))] == ["degraded"]
    assert rules.look(picture(roles=core(ingest=None))) == []


# The database ---------------------------------------------------------------------------------------------------------


async def look() -> Picture:
    return picture()


@pytest.mark.servers
async def test_what_the_monitor_sees_is_written_and_written_over(
    connection: Connection, dsn: str, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, dsn)
    writer = BeatWriter(settings, SystemClock(), DatabaseWatch(settings, SystemClock()), look)
    for _ in range(2):
        await writer.beat()
    rows = {row["name"]: row for row in await connection.fetch("SELECT * FROM service")}
    assert {row["state"] for row in rows.values()} == {"up"}
    assert rows["database"]["took_s"] > 0
    assert "clock" in rows
    assert await connection.fetchval("SELECT count(*) FROM heartbeat") == 5
    writer._drop()


@pytest.mark.servers
async def test_a_database_that_takes_no_rows_is_degraded_and_said(
    connection: Connection, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PROBE_S_MAX", 1.0)
    settings = settings_of(tmp_path, dsn)
    watch = DatabaseWatch(settings, SystemClock())
    writer = BeatWriter(settings, SystemClock(), watch, look)
    await writer.beat()
    async with connection.transaction():
        await connection.execute("LOCK TABLE service IN ACCESS EXCLUSIVE MODE")
        await writer.beat()
    await watch.look()
    (check,) = [one for one in ready(picture(database=watch.facts)) if one.name == "database"]
    assert (check.state, "cannot be written to" in check.why) == ("degraded", True)
    await writer.beat()
    await watch.look()
    assert watch.facts.write_fault == ""
    writer._drop()
    watch._drop()


@pytest.mark.servers
@pytest.mark.parametrize(
    ("ahead_s", "state", "said"), [(3.0, "degraded", "ahead of"), (-3.0, "degraded", "behind"), (0.0, "up", "")]
)
async def test_a_clock_that_is_wrong_is_said(
    connection: Connection, dsn: str, tmp_path: Path, ahead_s: float, state: str, said: str
) -> None:
    class Wrong(SystemClock):
        def now(self) -> Any:
            return super().now() + timedelta(seconds=ahead_s)

    settings = settings_of(tmp_path, dsn)
    writer = BeatWriter(settings, Wrong(), DatabaseWatch(settings, Wrong()), look)
    await writer.beat()
    row = await connection.fetchrow("SELECT state, why FROM service WHERE name = 'clock'")
    assert row is not None
    assert (row["state"], said in row["why"]) == (state, True)
    writer._drop()
