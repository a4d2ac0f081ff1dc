"""`errors types`, `set`, `traces`, `due`: the talk's table of error types, and who has reached a limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from signalkeep.rules.catalogue import BY_ID
from tests.builders import ask, event, fill
from tests.cli.commands import RULES, Commands, lines_of

pytestmark = pytest.mark.servers

OFF_GLOBE = BY_ID["POS-01"]
OWN = '[{"id": "OWN-01", "title": "Fast", "when": "speed_kmh > 90", "error_type": 7}]'


@pytest.fixture(autouse=True)
def one_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RULES, (OFF_GLOBE,))


@pytest.fixture
def commands(dsn: str, tmp_path: Path) -> Commands:
    return Commands(dsn, tmp_path, QUALITY__OWN=OWN)


def test_the_types_that_there_are(commands: Commands) -> None:
    rows = commands.json("errors", "types")
    assert [(row["code"], row["description"], row["hits_max"], row["window_h"], row["critical"]) for row in rows] == [
        (1, "Broken GPS", 5, 24, False), (2, "Wrong event code", 5, 24, False),
    ]  # fmt: skip
    commands("rules", "sweep")
    assert commands.json("errors", "types")[0]["rules"] == "POS-01"
    assert [words[0] for words in lines_of(commands("errors", "types"))] == ["1", "2"]


def test_a_type_is_added_and_changed(commands: Commands) -> None:
    commands("rules", "sweep")
    said = commands("errors", "set", 7, "Too fast", "--limit", "3", "--window", "2", "--critical")
    assert said == "error type 7 is Too fast: 3 hits within 2 h\n"
    commands("errors", "set", 1, "GPS")
    commands("rules", "sweep")
    rows = {row["code"]: row for row in commands.json("errors", "types")}
    assert (rows[1]["description"], rows[1]["hits_max"], rows[1]["critical"]) == ("GPS", 5, False)
    assert rows[7] | {"rules": "OWN-01"} == rows[7]
    assert (rows[7]["hits_max"], rows[7]["window_h"], rows[7]["critical"]) == (3, 2, True)
    actions = ask(commands.dsn, "SELECT action, subject FROM audit_log WHERE action = 'error_type.set' ORDER BY id")
    assert [row["subject"] for row in actions] == ["7", "1"]


def test_who_has_reached_a_limit_is_due(commands: Commands) -> None:
    fill(commands.dsn, *(event("1", minute=n, latitude=95.0) for n in range(5)), registered=("1",))
    fill(commands.dsn, *(event("2", minute=n, latitude=95.0) for n in range(4)), registered=("2",))
    assert commands.json("errors", "due") == []
    assert "none" in commands.result("errors", "due").stderr
    commands("rules", "sweep")
    (row,) = commands.json("errors", "due")
    assert (row["device_number"], row["rule"], row["severity"], row["day"]) == ("1", "ERR-1", "warning", "2026-05-01")
    assert row["detail"] == "Broken GPS: 5 hits within 24 h, the limit is 5"
    assert lines_of(commands("errors", "due"))[0][:4] == ["2026-05-01", "1", "ERR-1", "warning"]


def test_a_limit_that_is_changed_holds_for_days_that_are_judged_already(commands: Commands) -> None:
    fill(commands.dsn, *(event("2", minute=n, latitude=95.0) for n in range(4)), registered=("2",))
    commands("rules", "sweep")
    assert commands.json("errors", "due") == []
    commands("errors", "set", 1, "Broken GPS", "--limit", "4", "--critical")
    commands("rules", "sweep")
    (row,) = commands.json("errors", "due")
    assert (row["device_number"], row["severity"]) == ("2", "error")
    commands("errors", "set", 1, "Broken GPS")
    commands("rules", "sweep")
    assert commands.json("errors", "due") == []


def test_the_history_of_errors(commands: Commands) -> None:
    commands("errors", "set", 7, "Too fast")
    fast = event("1", minute=10, speed_kmh=120)
    fill(commands.dsn, event("1", minute=20, latitude=95.0), fast, event("2", minute=30, latitude=95.0),
         registered=("1", "2"))  # fmt: skip
    commands("rules", "sweep")
    rows = commands.json("errors", "traces", "--since", "2026-05-01")
    assert [(row["device_number"], row["error_code"], row["message_date"], row["rule"]) for row in rows] == [
        ("1", 7, "2026-05-01T11:50:00Z", "OWN-01"), ("1", 1, "2026-05-01T11:40:00Z", "POS-01"),
        ("2", 1, "2026-05-01T11:30:00Z", "POS-01"),
    ]  # fmt: skip
    table = lines_of(commands("errors", "traces", "--since", "2026-05-01"))
    assert [words[0] for words in table] == ["1", "1", "2"]

    def count(*arguments: object) -> int:
        return len(commands.json("errors", "traces", *arguments))

    assert count("--since", "2026-05-01", "--device", "1") == 2
    assert count("--since", "2026-05-01", "--code", 1) == 2
    assert count("--since", "2026-05-01", "--limit", 1) == 1
    assert count("--since", "2026-05-01T11:45") == 1
    assert count("--since", "2026-05-01T13:45+02:00") == 1
    assert count() == 0, "of the last day alone"
    assert "no errors there" in commands.result("errors", "traces").stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["set"], ["set", "1"], ["set", "0", "x"], ["set", "x", "x"], ["set", "1", " "], ["set", "1", ""],
        ["set", "99999999999", "x"], ["set", "1", "x", "--limit", "0"], ["set", "1", "x", "--limit", "99999999999"],
        ["set", "1", "x", "--window", "25"], ["set", "1", "x", "--window", "0"], ["traces", "--since", "now"],
        ["traces", "--code", "x"], ["traces", "--code", "99999999999"], ["traces", "--limit", "0"],
        ["due", "--limit", "0"], ["due", "now"], [],
    ],
)  # fmt: skip
def test_calls_that_make_no_sense(commands: Commands, arguments: list[str]) -> None:
    commands.refused("errors", *arguments)
