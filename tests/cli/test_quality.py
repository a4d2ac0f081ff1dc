"""`rules`, `scores`, `findings`, `errors`: what is found, shown, marked and taken back, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from signalkeep.cli.main import app
from signalkeep.errors import CallerError, SettingsError
from tests.builders import NUMBER, ask, event, fill

DAY = "2026-05-01"
TRACK = """time,latitude,longitude,speed_kmh
2026-05-01T08:00:00Z,52.52,13.4,0
2026-05-01T08:00:10Z,52.52,13.4,0
this is no line of a track
2026-05-01T08:00:20Z,53.52,13.4,0
2026-05-01T08:00:30Z,52.52,13.4,0
"""


def run(data: Path, *arguments: str, dsn: str = "") -> Result:
    environment = {"SIGNALKEEP_DATABASE__DSN": dsn, "SIGNALKEEP_DATA": str(data), "COLUMNS": "300"}
    return CliRunner().invoke(app, arguments, env=environment)


def as_json(data: Path, *arguments: str, dsn: str = "") -> Any:
    done = run(data, *arguments, "--json", dsn=dsn)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


# Without a database


def test_rules_are_listed_and_explained(tmp_path: Path) -> None:
    rules = {row["id"]: row for row in as_json(tmp_path, "rules", "list")}
    assert rules["KIN-01"]["limits"] == {"speed_kmh_max": 200.0, "distance_m": 100.0}
    assert "KIN-01" in run(tmp_path, "rules", "list").stdout
    said = as_json(tmp_path, "rules", "explain", "kin-01")
    assert said["title"] == "Teleport"
    assert said["actions"]
    shown = run(tmp_path, "rules", "explain", "KIN-01").stdout
    assert "speed_kmh_max = 200 km/h" in shown
    assert "What to do" in shown
    assert isinstance(run(tmp_path, "rules", "explain", "KIN-99").exception, CallerError)


def test_limits_are_shown_as_they_are_set(tmp_path: Path) -> None:
    (tmp_path / "signalkeep.toml").write_text(
        '[quality.rules."KIN-01"]\nspeed_kmh_max = 160\n[quality.rules."POS-02"]\nenabled = false\n', encoding="utf-8"
    )
    shown = run(tmp_path, "rules", "explain", "KIN-01").stdout
    assert "speed_kmh_max = 160 km/h, default 200" in shown
    rules = {row["id"]: row for row in as_json(tmp_path, "rules", "list")}
    assert rules["POS-02"]["limits"] == "off"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('[quality.rules."KIN-01"]\nspeed_max = 1', "KIN-01.speed_max: no such limit"),
        ('[quality.rules."KIN-01"]\nspeed_kmh_max = "fast"', "this is no number from 1 to inf (found 'fast')"),
        ('[quality.rules."KIN-99"]\nspeed_kmh_max = 1', "quality.rules.KIN-99: no such rule"),
        ('[quality.models.X."KIN-01"]\nenabled = 3', "X.KIN-01.enabled"),
        ('[[quality.own]]\nid = "OWN-01"\ntitle = "x"\nwhen = "speed_kmh >"', "quality.own.0.when"),
        ('[[quality.own]]\nid = "OWN-01"\ntitle = "x"\nwhen = "open(1)"', "not understood"),
        ('[[quality.own]]\nid = "KIN-01"\ntitle = "x"\nwhen = "true"', "KIN-01 is the id of another rule"),
    ],
)
def test_what_cannot_be_set_is_refused_with_its_place(setting: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "signalkeep.toml").write_text(setting, encoding="utf-8")
    found = run(tmp_path, "rules", "list").exception
    assert isinstance(found, SettingsError)
    assert said in found.message


def test_rules_run_on_a_file(tmp_path: Path) -> None:
    track = tmp_path / "track.csv"
    track.write_text(TRACK, encoding="utf-8")
    found = as_json(tmp_path, "rules", "run", str(track))
    assert (found["signals"], found["skipped_lines"]) == (4, 1)
    jump = [hit for hit in found["hits"] if hit["rule"] == "KIN-01"]
    assert [(hit["line"], hit["detail"]) for hit in jump] == [(5, "111 km in 10 s: 40030 km/h")]
    shown = run(tmp_path, "rules", "run", str(track))
    assert "Teleport" in shown.stdout
    assert "line 4 cannot be read" in shown.stderr


def test_a_file_that_is_no_track_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "track.exe"
    other.write_bytes(b"\x00\xff")
    for arguments in ([str(other)], [str(tmp_path / "missing.gpx")], [], [str(other), "--since", "1h"]):
        assert isinstance(run(tmp_path, "rules", "run", *arguments).exception, CallerError), arguments


# With one


@pytest.fixture
def site(dsn: str, tmp_path: Path) -> tuple[Path, str]:
    """Thirty positions, one of which is far away, all judged."""
    jump = {20: 42.0}
    fill(dsn, *(event(minute=60 - n, latitude=jump.get(n, 37.98)) for n in range(30)), registered=(NUMBER,))
    assert as_json(tmp_path, "rules", "sweep", dsn=dsn)["judged_signals"] == 30
    return tmp_path, dsn


@pytest.mark.servers
def test_findings_are_listed_shown_marked_and_taken_back(site: tuple[Path, str]) -> None:
    data, dsn = site
    found = as_json(data, "findings", "list", "--rule", "kin-01", "--all", dsn=dsn)
    assert [(row["device_number"], row["count"], row["state"]) for row in found] == [(NUMBER, 1, "confirmed")]
    number = str(found[0]["id"])
    shown = run(data, "findings", "show", number, dsn=dsn).stdout
    for text in ("Teleport", "42.0", "What to do", f"signalkeep findings mark {NUMBER} --good --rule KIN-01"):
        assert text in shown
    assert isinstance(run(data, "findings", "show", "9999", dsn=dsn).exception, CallerError)
    when = found[0]["begins_at"]
    marked = as_json(data, "findings", "mark", NUMBER, "--good", "--rule", "KIN-01", "--from", when, dsn=dsn)
    assert as_json(data, "rules", "sweep", dsn=dsn)["changed_flags"] == 1
    assert as_json(data, "findings", "list", "--rule", "KIN-01", dsn=dsn) == []
    assert len(as_json(data, "findings", "list", "--rule", "KIN-01", "--all", dsn=dsn)) == 1
    run(data, "findings", "unmark", str(marked["mark"]), dsn=dsn)
    as_json(data, "rules", "sweep", dsn=dsn)
    assert len(as_json(data, "findings", "list", "--rule", "KIN-01", dsn=dsn)) == 1
    (mark,) = as_json(data, "findings", "marks", dsn=dsn)
    assert mark["taken_back_at"] is not None
    assert [row["action"] for row in ask(dsn, "SELECT action FROM audit_log WHERE action LIKE 'quality%'")] == [
        "quality.mark", "quality.unmark",
    ]  # fmt: skip


@pytest.mark.servers
@pytest.mark.parametrize(
    "arguments",
    [
        ["findings", "mark", "nobody", "--from", "2026-05-01T00:00Z"],
        ["findings", "mark", NUMBER, "--from", "2026-05-02", "--to", "2026-05-01"],
        ["findings", "mark", NUMBER, "--from", "2020-01-01", "--to", "2026-05-01"],
        ["findings", "mark", NUMBER, "--from", "2026-05-01", "--bad", "--rule", "KIN-01"],
        ["findings", "unmark", "77"],
        ["findings", "list", "--since", "yesterday"],
        ["scores", "--by", "colour"],
        ["scores", "--since", "soon"],
    ],
)
def test_what_makes_no_sense_is_refused(site: tuple[Path, str], arguments: list[str]) -> None:
    data, dsn = site
    assert isinstance(run(data, *arguments, dsn=dsn).exception, CallerError)


@pytest.mark.servers
def test_scores_of_devices_models_vehicles_customers_and_days(site: tuple[Path, str]) -> None:
    data, dsn = site
    for arguments in (
        ("customers", "add", "ACME"),
        ("vehicles", "add", "van", "--customer", "ACME"),
        ("devices", "assign", NUMBER, "van", "--from", "2026-01-01"),
        ("devices", "set", NUMBER, "--model", "FMB920"),
    ):
        done = run(data, *arguments, dsn=dsn)
        assert done.exit_code == 0, done.output
    days = ("--since", DAY, "--until", DAY)
    for by, name in (("device", NUMBER), ("model", "FMB920"), ("vehicle", "van"), ("customer", "ACME"), ("day", DAY)):
        (row,) = as_json(data, "scores", "--by", by, *days, dsn=dsn)
        assert (row["name"], row["signals"]) == (name, 30), by
        assert row["dimensions"]["uniqueness"] == {"of": 30, "good": 30, "score": 1.0}
        accuracy = row["dimensions"]["accuracy"]
        assert accuracy["of"] - accuracy["good"] == 1
        assert 0 < row["overall"] < 1
    shown = run(data, "scores", *days, dsn=dsn).stdout
    assert NUMBER in shown
    assert "?" in run(data, "scores", "--by", "day", *days, dsn=dsn).stdout or "100 %" in shown
    assert as_json(data, "scores", "--only", "nobody", *days, dsn=dsn) == []


@pytest.mark.servers
def test_error_types_traces_and_devices_that_are_due(site: tuple[Path, str]) -> None:
    data, dsn = site
    first, second = as_json(data, "errors", "types", dsn=dsn)
    assert (first["code"], first["description"], first["hits_max"]) == (1, "Broken GPS", 5)
    assert second["description"] == "Wrong event code"
    assert "KIN-01" in first["rules"]
    traces = as_json(data, "errors", "traces", "--since", DAY, "--code", "1", dsn=dsn)
    assert {(row["device_number"], row["rule"]) for row in traces} == {(NUMBER, "KIN-01")}
    assert as_json(data, "errors", "due", dsn=dsn) == []
    assert run(data, "errors", "set", "1", "Broken GPS", "--limit", "1", dsn=dsn).exit_code == 0
    as_json(data, "rules", "sweep", dsn=dsn)
    (due,) = as_json(data, "errors", "due", dsn=dsn)
    assert due["detail"] == "Broken GPS: 1 hits within 24 h, the limit is 1"


@pytest.mark.servers
def test_rules_run_on_what_is_stored_and_mark_nothing(site: tuple[Path, str]) -> None:
    data, dsn = site
    ask(dsn, "UPDATE signal SET flags = 0 RETURNING 1")
    found = as_json(data, "rules", "run", "--since", DAY, "--until", "2026-05-02", "--device", NUMBER, dsn=dsn)
    assert found["signals"] == 30
    assert found["rules"]["KIN-01"] == 1
    assert ask(dsn, "SELECT max(flags) AS flags FROM signal")[0]["flags"] == 0
