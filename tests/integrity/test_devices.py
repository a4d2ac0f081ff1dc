"""Devices that ail: from signals, findings and silence to incidents, each once, and over when it is over."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from signalkeep.cli.jobs import jobs_of
from signalkeep.clock import SystemClock
from signalkeep.config import load
from signalkeep.ingest.triage import EPOCH
from signalkeep.integrity.quality import QualitySweep
from signalkeep.journal.record import FrameEntry
from signalkeep.model import CANARY_MODEL
from signalkeep.rulebook import Rulebook
from signalkeep.rules.catalogue import BY_ID
from signalkeep.sections import QualitySettings
from signalkeep.store import assignments, device_health, fleet, registry
from signalkeep.store.postgres import Connection
from tests.builders import Feed, event
from tests.integrity.ailing import LONG_AGO, NOW, Fleet, add_devices, after, find

pytestmark = pytest.mark.servers


async def test_a_silent_device_opens_one_incident_and_is_well_after_some_records_and_minutes(
    connection: Connection,
) -> None:
    await add_devices(connection, ["1"])
    fleet = Fleet(connection)
    assert await fleet.look(10) == "0 devices ail: nothing new"
    assert await fleet.look(11) == "1 device ails: 1 opened"
    assert await fleet.look(12) == "1 device ails: nothing new"
    assert await fleet.incidents() == [("silent", "1", "malfunction", "open")]
    assert await connection.fetchval("SELECT opened_at FROM incident") == NOW
    await fleet.hear(20)
    assert await fleet.look(20.5) == "1 device ails: nothing new"
    await fleet.hear(29, records=5)
    assert await fleet.look(29) == "1 device ails: nothing new"
    await fleet.hear(31)
    assert await fleet.look(31) == "0 devices ail: 1 cleared"
    assert await fleet.told() == [("1", "opened"), ("1", "cleared")]
    assert await connection.fetchval("SELECT count(*) FROM device_trouble") == 0


async def test_only_active_devices_that_were_heard_of_are_missed(connection: Connection) -> None:
    await add_devices(connection, ["retired", "unknown"])
    await add_devices(connection, ["in its box"], last_received_at=None, device_time=None, stored_to=None)
    for status in ("retired", "unknown"):
        await connection.execute("UPDATE device SET status = $1 WHERE device_number = $1", status)
    assert await Fleet(connection).look(100_000) == "0 devices ail: nothing new"


async def test_the_canary_is_none_of_the_fleet(connection: Connection) -> None:
    await add_devices(connection, ["1"], CANARY_MODEL)
    assert await Fleet(connection).look(11) == "0 devices ail: nothing new"


async def test_a_device_that_is_retired_ails_no_longer(connection: Connection) -> None:
    await add_devices(connection, ["1"])
    fleet = Fleet(connection)
    await fleet.look(11)
    await connection.execute("UPDATE device SET status = 'retired'")
    assert await fleet.look(12) == "0 devices ail: 1 cleared"


async def test_a_parked_vehicle_may_rest_and_its_last_signal_is_read_once(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = device_health.last_signals

    async def last_signals(connection: Connection, device_ids: Sequence[int]) -> Any:
        asked.append(list(device_ids))
        return await real(connection, device_ids)

    monkeypatch.setattr(device_health, "last_signals", last_signals)
    fleet = Fleet(connection)
    await registry.register(connection, "1", actor="tests")
    await connection.execute("UPDATE device SET expected_interval_s = 60, created_at = $1", LONG_AGO)
    feed = await Feed.open(connection)
    await feed.write(connection, sent(0, ignition=False))
    assert await fleet.look(60) == await fleet.look(61) == "0 devices ail: nothing new"
    assert len(asked) == 1
    await feed.write(connection, sent(62, ignition=True))
    assert await fleet.look(80) == "1 device ails: 1 opened", "what it said last counts, not what it said before"
    assert len(asked) == 2
    row = await connection.fetchrow("SELECT good_since, detail FROM device_trouble")
    assert row is not None
    assert tuple(row) == (None, "nothing for longer than 10 min")


async def test_reports_without_a_position(connection: Connection) -> None:
    fleet = Fleet(connection)
    await registry.register(connection, "1", actor="tests")
    await connection.execute("UPDATE device SET created_at = $1", LONG_AGO)
    feed = await Feed.open(connection)
    await feed.write(connection, sent(0))
    await feed.write(connection, *(sent(n, latitude=None, longitude=None, ignition=True) for n in (30, 61)))
    assert await fleet.look(59) == "0 devices ail: nothing new"
    assert await fleet.look(61) == "1 device ails: 1 opened"
    assert await fleet.incidents() == [("no_fix", "1", "malfunction", "open")]
    await feed.write(connection, *(sent(n) for n in range(70, 90)))
    await fleet.look(71)
    await feed.write(connection, *(sent(n) for n in range(90, 101)))
    assert await fleet.look(100) == "1 device ails: nothing new"
    assert await fleet.look(101) == "0 devices ail: 1 cleared"


# From signals, by rules ---------------------------------------------------------------------------------------------


def sent(minute: float, number: str = "1", late_s: float = 2, **values: Any) -> FrameEntry:
    at = after(minute)
    received_at_us = (at + timedelta(seconds=late_s) - EPOCH) // timedelta(microseconds=1)
    entry = event(number, message_date=at.isoformat(), **values)
    return msgspec.structs.replace(entry, received_at_us=received_at_us)


async def sweep(connection: Connection) -> None:
    book = Rulebook(QualitySettings())
    await QualitySweep(connection, book, SystemClock(), budget_s=60.0, settled_s=0.0).run()


@pytest.mark.parametrize(("late_s", "opened"), [(2, True), (3600, False)])
async def test_wrong_positions_are_a_malfunction_when_they_are_many_and_late_data_opens_nothing(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, late_s: float, opened: bool
) -> None:
    monkeypatch.setattr("signalkeep.rulebook.RULES", (BY_ID["POS-01"],))
    await registry.register(connection, "1", actor="tests")
    feed = await Feed.open(connection)
    fleet = Fleet(connection, troubles={"position_faults": {"hits": 3}})

    async def wrong(*minutes: float) -> list[tuple[str, str, str, str]]:
        await feed.write(connection, *(sent(n, late_s=late_s, latitude=95.0) for n in minutes))
        await sweep(connection)
        await fleet.look(minutes[-1] + late_s / 60)
        return await fleet.incidents()

    assert await wrong(1, 2) == ([("position_faults", "1", "diagnostic", "open")] if opened else [])
    assert await wrong(3) == ([("position_faults", "1", "malfunction", "open")] if opened else [])
    assert await fleet.told() == ([("1", "opened"), ("1", "malfunction")] if opened else [])


async def test_of_a_finding_only_the_hits_that_came_in_time_count(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signalkeep.rulebook.RULES", (BY_ID["POS-01"],))
    await registry.register(connection, "1", actor="tests")
    feed = await Feed.open(connection)
    await feed.write(connection, *(sent(n, latitude=95.0) for n in (1, 2)))
    await feed.write(connection, *(sent(n, late_s=3600, latitude=95.0) for n in range(3, 60)))
    await sweep(connection)
    await Fleet(connection, troubles={"position_faults": {"hits": 3}}).look(5)
    (row,) = await device_health.ailing(connection, "1", 10)
    assert (row["hits"], row["stage"], row["last_hit"]) == (2, "diagnostic", after(2))


async def test_one_late_hit_after_live_ones_does_not_open_it_again(connection: Connection) -> None:
    await add_devices(connection, ["1"])
    fleet = Fleet(connection)
    await find(connection, "DEV-02", hits=5)
    await fleet.look(1)
    await fleet.hear(31, records=20)
    assert await fleet.look(31) == "0 devices ail: 1 cleared"
    await connection.execute("UPDATE finding SET count = 9, ends_at = $1", after(30))
    await fleet.hear(45)
    assert await fleet.look(45) == "0 devices ail: nothing new"
    await find(connection, "DEV-02", hits=6, minutes=50)
    assert await fleet.look(50) == "1 device ails: 1 opened"


async def test_bad_minutes(connection: Connection) -> None:
    await add_devices(connection, ["1"])
    fleet = Fleet(connection, troubles={"jamming": {"hits": 1000}})
    await find(connection, "DEV-02", hits=59, begins_at=after(-59))
    await fleet.look(0)
    assert await fleet.incidents() == [("jamming", "1", "diagnostic", "open")]
    await find(connection, "DEV-02", hits=60, minutes=1, begins_at=after(-59))
    assert await fleet.look(1) == "1 device ails: 1 worsened"
    (row,) = await device_health.ailing(connection, "1", 10)
    assert (row["hits"], row["bad_minutes"], row["stage"]) == (60, 60.0, "malfunction")


async def test_a_clock_is_judged_by_when_its_signals_came(connection: Connection) -> None:
    """Its findings lie on days of another time, and never count as live."""
    await add_devices(connection, ["1"])
    years_ago = NOW - timedelta(days=7168)
    sample = {"received_at": (NOW - timedelta(minutes=5)).isoformat()}
    await find(
        connection, "TIM-04", hits=7, day=years_ago.date(), begins_at=years_ago, ends_at=years_ago, live=False,
        live_hits=0, live_at=None, first_sample=sample, last_sample=sample,
    )  # fmt: skip
    fleet = Fleet(connection)
    await fleet.look(0)
    assert await fleet.incidents() == [("wrong_clock", "1", "malfunction", "open")]
    await fleet.hear(60, records=50)
    await fleet.look(60)
    assert await fleet.incidents() == [("wrong_clock", "1", "malfunction", "cleared")]


async def test_restarts_are_judged_by_the_day(connection: Connection) -> None:
    await add_devices(connection, ["1"])
    await find(connection, "DEV-04", live_hits=0, live_at=None, live=False, last_at=NOW, severity="info")
    fleet = Fleet(connection)
    await fleet.look(1)
    assert await fleet.incidents() == [("restart_loop", "1", "malfunction", "open")]


async def test_what_a_person_dismisses_or_the_day_explains_counts_not(connection: Connection) -> None:
    await add_devices(connection, ["1"])
    await find(connection, "DEV-03", state="dismissed")
    await find(connection, "DEV-02", state="withdrawn")
    await find(connection, "KIN-03", hits=500)
    await find(connection, "OWN-01", hits=500)
    assert await Fleet(connection).look(1) == "0 devices ail: nothing new"


async def test_the_limit_of_an_error_type_and_whose_vehicle_it_is(connection: Connection) -> None:
    await add_devices(connection, ["1"])
    await fleet.add_customer(connection, "Acme", actor="tests")
    await fleet.add_vehicle(connection, "van 7", customer="Acme", actor="tests")
    await assignments.assign(connection, "1", "van 7", actor="tests")
    await find(connection, "ERR-1", hits=5, detail="Broken GPS: 5 hits within 24 h, the limit is 5")
    looked = Fleet(connection)
    looked.clock.at = datetime.now(UTC)
    await looked.look(1)
    row = await connection.fetchrow("SELECT kind, detail, hits, customer_id FROM incident")
    assert row is not None
    customer_id = await connection.fetchval("SELECT id FROM customer")
    assert tuple(row) == ("error_limit", "ERR-1: Broken GPS: 5 hits within 24 h, the limit is 5", 5, customer_id)


# Many at once -------------------------------------------------------------------------------------------------------

NUMBERS = [f"{n:02}" for n in range(20)]


async def test_many_of_a_model_are_one_incident_and_apart_again_when_it_ends(connection: Connection) -> None:
    """First three are silent by themselves; with ten it is the model's fault; at the end one is left."""
    await add_devices(connection, NUMBERS, "FMB920", last_received_at=after(20))
    await add_devices(connection, [f"o{n}" for n in range(60)], "other", last_received_at=after(1000))
    await connection.execute(
        "UPDATE device_state SET last_received_at = $1 WHERE device_id <= 3", NOW
    )  # the first three, earlier than the others
    fleet = Fleet(connection)
    assert await fleet.look(15) == "3 devices ail: 3 opened"
    await fleet.hear(40, numbers=NUMBERS[10:])
    assert await fleet.look(31) == "10 devices ail, 1 shared fault: 1 opened, 3 cleared"
    assert await fleet.incidents() == [
        *(("silent", number, "malfunction", "cleared") for number in NUMBERS[:3]),
        ("shared_fault", "silent: model FMB920", "malfunction", "open"),
    ]
    row = await connection.fetchrow("SELECT id, scope, devices, detail FROM incident WHERE kind = 'shared_fault'")
    assert row is not None
    assert (row["scope"], row["devices"]) == ("group", 10)
    assert row["detail"] == "10 of 20 active devices (50 %): 00, 01, 02, 03, 04 and 5 more"
    notes = await connection.fetch("SELECT note, routed_at FROM incident_event WHERE what = 'cleared'")
    assert {tuple(one) for one in notes} == {(f"part of incident {row['id']}", after(31))}
    assert await fleet.told() == [*((one, "opened") for one in NUMBERS[:3]), ("silent: model FMB920", "opened")]
    assert await fleet.look(32) == "10 devices ail, 1 shared fault: nothing new"
    await fleet.hear(41, records=9, numbers=[*NUMBERS[:9], *NUMBERS[10:]])
    await fleet.look(42)
    await fleet.hear(53, records=9, numbers=[*NUMBERS[:9], *NUMBERS[10:]])
    assert await fleet.look(53) == "1 device ails: 1 opened, 1 cleared"
    assert (await fleet.told())[-2:] == [("09", "opened"), ("silent: model FMB920", "cleared")]


async def test_the_whole_fleet_is_ours_and_an_area_is_seen(connection: Connection) -> None:
    await add_devices(connection, NUMBERS[:10], latitude=37.9, longitude=23.74)
    await add_devices(connection, NUMBERS[10:], latitude=52.5, longitude=13.4)
    await add_devices(connection, [f"o{n}" for n in range(40)], last_received_at=after(30))
    fleet = Fleet(connection)
    await fleet.look(20)
    assert await fleet.incidents() == [("shared_fault", "silent: the whole fleet", "malfunction", "open")]
    assert await connection.fetchval("SELECT customer_id FROM incident") is None
    apart = Fleet(connection, group={"fleet_share": 1.0})
    await connection.execute("UPDATE device_trouble SET part_of = NULL")
    await apart.look(21)
    (_, *others) = await apart.incidents()
    assert [one[1] for one in others] == ["silent: around 37.875, 23.625", "silent: around 52.500, 13.500"]


async def test_the_organizer_looks_after_devices_unless_it_is_told_not_to(connection: Connection) -> None:
    await add_devices(connection, ["1"], last_received_at=LONG_AGO)
    (job,) = [job for job in jobs_of(load(Path("/nowhere"), environ={}), SystemClock()) if job.name == "devices"]
    assert job.every_s == 60
    assert await job.work(connection) == "1 device ails: 1 opened"
    off = load(Path("/nowhere"), environ={"SIGNALKEEP_DEVICES__ENABLED": "false"})
    assert "devices" not in {job.name for job in jobs_of(off, SystemClock())}
