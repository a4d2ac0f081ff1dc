"""`devices add`, `list`, `show`: said in words and as JSON, and nothing waits longer than it must."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from signalkeep.cli.devices import app
from signalkeep.errors import CallerError, DatabaseUnavailable
from tests.builders import NUMBER, ask, event, fill
from tests.servers import PostgresServer, run_sync

pytestmark = pytest.mark.servers


def run(dsn: str, data: Path, command: str, *arguments: str) -> Result:
    return CliRunner().invoke(
        app, [command, "--data", str(data), *arguments], env={"SIGNALKEEP_DATABASE__DSN": dsn, "COLUMNS": "300"}
    )


def as_json(dsn: str, data: Path, command: str, *arguments: str) -> Any:
    done = run(dsn, data, command, "--json", *arguments)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_adding_releases_what_waits_and_says_so(dsn: str, tmp_path: Path) -> None:
    fill(dsn, event(minute=1), event(minute=2), event("other"))
    done = run(dsn, tmp_path, "add", NUMBER)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"registered {NUMBER}; 2 records released from quarantine\n"
    assert done.stderr == ""
    assert ask(dsn, "SELECT count(*) FROM signal")[0][0] == 2
    states = ask(dsn, "SELECT device_number, state FROM quarantine JOIN device d ON d.id = device_id ORDER BY 1")
    assert [tuple(row) for row in states] == [(NUMBER, "released"), (NUMBER, "released"), ("other", "open")]
    log = ask(dsn, "SELECT actor, action, subject FROM audit_log ORDER BY id")
    assert [(row["action"]) for row in log] == ["device.add", "quarantine.release"]
    assert all(row["actor"] for row in log)


def test_what_else_waits_is_named(dsn: str, tmp_path: Path) -> None:
    fill(dsn, event(message_date="2030-01-01T00:00:00Z"), event(minute=1), event(latitude="north"))
    done = run(dsn, tmp_path, "add", NUMBER)
    assert "1 record released from quarantine; 1 record not released (future 1)" in done.stdout
    assert "still in quarantine: bad_value 1, future 1" in done.stderr
    assert f"quarantine list --device {NUMBER} --data {tmp_path}" in done.stderr


def test_adding_again_changes_only_what_is_given(dsn: str, tmp_path: Path) -> None:
    first = run(dsn, tmp_path, "add", "1", "--name", "van", "--model", "FMB920", "--time-zone", "Europe/Athens")
    assert first.stdout == "registered 1\n"
    assert run(dsn, tmp_path, "add", "1").stdout == "1 is registered already, nothing changed\n"
    assert run(dsn, tmp_path, "add", "1", "--name", "truck", "--model", "FMB920").stdout == "changed 1: name\n"
    assert run(dsn, tmp_path, "add", "1", "--time-zone", "").stdout == "changed 1: time_zone\n"
    (row,) = ask(dsn, "SELECT name, model, time_zone, revision FROM device WHERE device_number = '1'")
    assert tuple(row) == ("truck", "FMB920", "", 4), "a revision for each change and none for nothing"


def test_a_retired_device_is_made_active_again(dsn: str, tmp_path: Path) -> None:
    run(dsn, tmp_path, "add", "1")
    ask(dsn, "UPDATE device SET status = 'retired', retired_at = now()")
    assert "it was retired" in run(dsn, tmp_path, "add", "1").stdout
    assert ask(dsn, "SELECT status FROM device")[0][0] == "active"


def test_several_at_once_or_none_at_all(dsn: str, tmp_path: Path) -> None:
    wrong = run(dsn, tmp_path, "add", "1", "2", "with blank")
    assert isinstance(wrong.exception, CallerError)
    assert ask(dsn, "SELECT count(*) FROM device")[0][0] == 0
    done = as_json(dsn, tmp_path, "add", "1", "2", "1")
    assert [(row["device_number"], row["before"], row["released"]) for row in done] == [("1", None, 0), ("2", None, 0)]


@pytest.mark.parametrize(
    ("zone", "hint"),
    [("Athens", "Europe/Athens"), ("Europe/Atens", "Europe/Athens"), ("Europe", "IANA"), ("../etc/passwd", "IANA")],
)
def test_a_wrong_time_zone_is_refused_with_a_suggestion(dsn: str, tmp_path: Path, zone: str, hint: str) -> None:
    wrong = run(dsn, tmp_path, "add", "1", "--time-zone", zone)
    assert isinstance(wrong.exception, CallerError)
    assert hint in wrong.exception.hint or "Did you mean" in wrong.exception.hint
    assert ask(dsn, "SELECT count(*) FROM device")[0][0] == 0


def test_listing_by_status(dsn: str, tmp_path: Path) -> None:
    fill(dsn, event("1", speed_kmh=54.3), event("2"), registered=("1", "3"))
    rows = as_json(dsn, tmp_path, "list")
    assert {row["device_number"]: row["status"] for row in rows} == {"1": "active", "2": "unknown", "3": "active"}
    assert [row["device_number"] for row in rows][-1] == "3", "never heard of, so last"
    assert rows[0]["speed_kmh"] == 54.3
    assert [row["device_number"] for row in as_json(dsn, tmp_path, "list", "--status", "unknown")] == ["2"]
    assert len(as_json(dsn, tmp_path, "list", "--limit", "1")) == 1
    shown = run(dsn, tmp_path, "list")
    assert "54" not in shown.stdout.splitlines()[0]
    assert len(shown.stdout.splitlines()) == 4
    assert run(dsn, tmp_path, "list", "--status", "lost").exit_code == 2


def test_showing_a_device_that_waits(dsn: str, tmp_path: Path) -> None:
    fill(dsn, event(), event(latitude="north"))
    device = as_json(dsn, tmp_path, "show", NUMBER)
    assert device["waiting"] == {"bad_value": 1, "unknown_device": 1}
    assert (device["status"], device["records"], device["last_peer"]) == ("unknown", 2, "192.0.2.1:4711")
    shown = run(dsn, tmp_path, "show", NUMBER)
    assert "bad_value 1, unknown_device 1" in shown.stdout
    assert f"signalkeep devices add {NUMBER} --data {tmp_path}" in shown.stderr


def test_a_device_that_nobody_knows(dsn: str, tmp_path: Path) -> None:
    missing = run(dsn, tmp_path, "show", "404")
    assert isinstance(missing.exception, CallerError)
    assert f"signalkeep devices add 404 --data {tmp_path}" in missing.exception.hint


def test_the_first_command_makes_the_schema(postgres_server: PostgresServer, tmp_path: Path) -> None:
    empty = run_sync(postgres_server.create_database(migrated=False))
    assert run(empty, tmp_path, "add", "1").stdout == "registered 1\n"


def test_a_database_that_is_away_is_said_in_words(tmp_path: Path) -> None:
    done = run("postgresql://nobody@127.0.0.1:1/none", tmp_path, "list")
    assert isinstance(done.exception, DatabaseUnavailable)
