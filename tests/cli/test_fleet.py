"""Customers, vehicles, assignments and event names from the command line: said in words, logged, nothing overlaps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from signalkeep.cli.main import app
from signalkeep.errors import CallerError
from signalkeep.store.events import WORDS
from tests.builders import NUMBER, ask, event, fill

pytestmark = pytest.mark.servers

Run = Callable[..., Result]


@pytest.fixture
def run(dsn: str, tmp_path: Path) -> Run:
    def call(*arguments: str) -> Result:
        return CliRunner().invoke(
            app, [*arguments, "--data", str(tmp_path)], env={"SIGNALKEEP_DATABASE__DSN": dsn, "COLUMNS": "300"}
        )

    return call


def said(done: Result) -> str:
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    return done.stdout


def as_json(run: Run, *arguments: str) -> Any:
    return json.loads(said(run(*arguments, "--json")))


def refused(done: Result) -> str:
    assert isinstance(done.exception, CallerError), done.output
    return f"{done.exception.message} {done.exception.hint}"


def test_setting_changes_what_is_given_and_raises_the_revision_only_for_what_decides_reading(
    dsn: str, run: Run
) -> None:
    assert "not registered" in refused(run("devices", "set", "1", "--name", "van"))
    said(run("devices", "add", "1"))
    assert said(run("devices", "set", "1", "--name", "van", "--expected-interval", "60")) == (
        "changed 1: name, expected_interval_s\n"
    )
    revision = "SELECT revision FROM device"
    before = ask(dsn, revision)[0][0]
    assert said(run("devices", "set", "1", "--name", "van")) == "1 is so already\n"
    assert ask(dsn, revision)[0][0] == before
    assert as_json(run, "devices", "set", "1", "--time-zone", "Europe/Athens")["changed"] == ["time_zone"]
    assert ask(dsn, revision)[0][0] == before + 1
    assert as_json(run, "devices", "set", "1", "--expected-interval", "0")["changed"] == ["expected_interval_s"]
    assert "nothing is given" in refused(run("devices", "set", "1"))
    assert "no time zone" in refused(run("devices", "set", "1", "--time-zone", "Athens"))
    log = ask(dsn, "SELECT action, detail FROM audit_log ORDER BY id")
    assert [row["action"] for row in log] == ["device.add", "device.set", "device.set", "device.set"]
    assert log[-1]["detail"] == {"expected_interval_s": ""}


def test_customers(run: Run) -> None:
    assert "no customer" in run("customers", "list").stderr
    assert said(run("customers", "add", "Acme", "--notes", "first")) == "added customer Acme\n"
    assert "already" in refused(run("customers", "add", "Acme"))
    assert said(run("customers", "set", "Acme", "--name", "Acme Ltd")) == "changed Acme: name\n"
    assert "no customer" in refused(run("customers", "set", "Acme", "--notes", "x"))
    said(run("vehicles", "add", "van 1", "--customer", "Acme Ltd"))
    (row,) = as_json(run, "customers", "list")
    assert (row["name"], row["vehicles"], row["notes"]) == ("Acme Ltd", 1, "first")
    assert "control" in refused(run("customers", "add", "a\x1bb"))


def test_vehicles_are_unique_for_each_customer(dsn: str, run: Run) -> None:
    said(run("customers", "add", "A"))
    said(run("customers", "add", "B"))
    for customer in ("A", "B"):
        assert said(run("vehicles", "add", "van", "--customer", customer, "--plate", "X 1")) == "added vehicle van\n"
    said(run("vehicles", "add", "van"))
    assert "name 'van' already" in refused(run("vehicles", "add", "van"))
    assert "plate 'X 1' already" in refused(run("vehicles", "add", "van 2", "--customer", "A", "--plate", "X 1"))
    assert "of nobody, A, B" in refused(run("vehicles", "show", "van"))
    assert "no customer" in refused(run("vehicles", "add", "van", "--customer", "C"))
    assert said(run("vehicles", "set", "van", "--customer", "A", "--vin", "WDB1", "--name", "truck")) == (
        "changed van: name, vin\n"
    )
    assert said(run("vehicles", "set", "truck", "--vin", "WDB1")) == "truck is so already\n"
    assert said(run("vehicles", "set", "truck", "--to-customer", "")) == "changed truck: customer\n"
    rows = as_json(run, "vehicles", "list")
    assert [(row["name"], row["customer"]) for row in rows] == [("truck", None), ("van", None), ("van", "B")]
    assert [row["name"] for row in as_json(run, "vehicles", "list", "--customer", "B")] == ["van"]
    assert said(run("vehicles", "retire", "truck")) == "retired truck\n"
    assert "retired already" in said(run("vehicles", "retire", "truck"))
    assert len(as_json(run, "vehicles", "list")) == 2
    assert len(as_json(run, "vehicles", "list", "--retired")) == 3
    actions = {row["action"] for row in ask(dsn, "SELECT action FROM audit_log")}
    assert {"customer.add", "vehicle.add", "vehicle.set", "vehicle.retire"} <= actions


@pytest.fixture
def fleet(run: Run) -> Run:
    said(run("devices", "add", "1", "2"))
    said(run("vehicles", "add", "van"))
    said(run("vehicles", "add", "truck"))
    return run


def test_a_device_moves_from_vehicle_to_vehicle(dsn: str, fleet: Run) -> None:
    assert said(fleet("devices", "assign", "1", "van")) == "1 is in van from the beginning\n"
    assert said(fleet("devices", "assign", "1", "van")) == "1 is in van already from the beginning\n"
    moved = as_json(fleet, "devices", "assign", "1", "truck", "--from", "2026-05-01T12:00")
    assert (moved["left"], moved["begins_at"]) == ("van", "2026-05-01T12:00:00Z")
    spans = ask(
        dsn, "SELECT v.name, begins_at, ends_at FROM assignment JOIN vehicle v ON v.id = vehicle_id ORDER BY 1 DESC"
    )
    assert spans[0]["ends_at"] == spans[1]["begins_at"]
    assert as_json(fleet, "devices", "show", "1")["vehicle"] == "truck"
    assert "vehicle" in said(fleet("devices", "show", "1"))
    (assignment,) = as_json(fleet, "vehicles", "show", "van")["assignments"]
    assert assignment["device_number"] == "1"
    assert "1 " in said(fleet("vehicles", "show", "truck"))
    assert said(fleet("devices", "unassign", "1")) == "1 is no longer in truck\n"
    assert "in no vehicle" in refused(fleet("devices", "unassign", "1"))
    assert as_json(fleet, "devices", "show", "1")["vehicle"] is None


def test_what_is_in_the_way_is_named(fleet: Run) -> None:
    said(fleet("devices", "assign", "1", "van", "--from", "2026-05-01"))
    there = refused(fleet("devices", "assign", "2", "van", "--from", "2026-06-01"))
    assert "device 1 is in vehicle 'van' since 2026-05-01 00:00 UTC" in there
    assert "devices unassign 1" in there
    assert said(fleet("devices", "assign", "2", "van", "--from", "2026-04-01", "--to", "2026-05-01"))
    said(fleet("devices", "assign", "2", "van", "--alongside"))
    own = refused(fleet("devices", "assign", "1", "truck", "--from", "2026-04-01"))
    assert "device 1 is in vehicle 'van'" in own
    assert "before it begins" in refused(
        fleet("devices", "assign", "1", "truck", "--from", "2026-04-02", "--to", "2026-04-01")
    )
    assert "not registered" in refused(fleet("devices", "assign", "404", "van"))
    assert "no vehicle" in refused(fleet("devices", "assign", "1", "tractor"))
    said(fleet("vehicles", "retire", "truck"))
    assert "is retired" in refused(fleet("devices", "assign", "1", "truck"))


def test_retiring_ends_the_assignment_and_refuses_what_comes(dsn: str, fleet: Run) -> None:
    said(fleet("devices", "assign", "1", "van"))
    before = ask(dsn, "SELECT revision FROM device WHERE device_number = '1'")[0][0]
    assert "retired 1" in said(fleet("devices", "retire", "1"))
    assert "retired already" in said(fleet("devices", "retire", "1"))
    assert "nobody" in refused(fleet("devices", "retire", "404"))
    row = ask(dsn, "SELECT revision, status, retired_at FROM device WHERE device_number = '1'")[0]
    assert (row["revision"], row["status"], row["retired_at"] is not None) == (before + 1, "retired", True)
    assert ask(dsn, "SELECT count(*) FROM assignment WHERE ends_at IS NULL")[0][0] == 0
    fill(dsn, event("1"))
    assert ask(dsn, "SELECT reason FROM quarantine")[0][0] == "retired_device"
    assert "is retired" in refused(fleet("devices", "assign", "1", "van"))


def test_erasing_wants_a_yes_and_says_what_it_did(dsn: str, tmp_path: Path, run: Run) -> None:
    fill(dsn, event(minute=1), event(minute=2, latitude="x"), registered=(NUMBER,))
    asked = refused(run("devices", "erase", NUMBER))
    assert "--yes" in asked
    assert ask(dsn, "SELECT count(*) FROM signal")[0][0] == 1
    assert "future" in refused(run("devices", "erase", NUMBER, "--before", "2100-01-01", "--yes"))
    done = run("devices", "erase", NUMBER, "--before", "2026-05-01T12:00", "--yes")
    assert said(done) == (
        f"erased 1 signals and 1 record in quarantine of {NUMBER} up to 2026-05-01 12:00:00; nothing brings them back\n"
    )
    assert "72 h" in done.stderr
    assert (tmp_path / "erasures.jsonl").exists()
    totals = as_json(run, "audit")["totals"]
    assert (totals["erased"], totals["erased_quarantine"]) == (1, 1)
    assert "erased: 1 signals" in said(run("audit"))


def test_event_names(dsn: str, run: Run) -> None:
    names = {(row["protocol"], row["code"]): row["name"] for row in as_json(run, "events", "list")}
    assert names["json", "7000"] == "ignition_on"
    assert names["teltonika", "246"] == "tow"
    assert set(names.values()) <= set(WORDS)
    done = run("events", "add", "json", "4002", "door", "--description", "rear door")
    assert said(done) == "json 4002 is door\n"
    assert said(run("events", "add", "json", "4002", "ramp_down")) == "json 4002 is ramp_down, it was door\n"
    assert "of your own" in run("events", "add", "json", "4002", "ramp_down").stderr
    assert ask(dsn, "SELECT description FROM event_format WHERE code = '4002'")[0][0] == "rear door"
    assert "no name of an event" in refused(run("events", "add", "json", "1", "Rear Door"))
    assert "no protocol" in refused(run("events", "add", "morse", "1", "door"))
    (row,) = [row for row in as_json(run, "events", "list", "--protocol", "json") if row["code"] == "4002"]
    assert row["name"] == "ramp_down"


def test_migrate_lets_readers_read_again(dsn: str, run: Run) -> None:
    ask(dsn, "REVOKE SELECT ON signal FROM signalkeep_reader")
    assert "reading role" in {check["check"] for check in json.loads(run("doctor", "--json").stdout)}
    said(run("migrate"))
    assert "reading role" not in {check["check"] for check in json.loads(run("doctor", "--json").stdout)}
