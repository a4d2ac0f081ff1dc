"""`findings list`, `show`, `mark`, `unmark`, `marks`: a person beats the rules, after the next sweep."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from signalkeep.model import Flag
from signalkeep.rules.catalogue import BY_ID
from tests.builders import NUMBER, ask, event, fill
from tests.cli.commands import RULES, Commands, lines_of

pytestmark = pytest.mark.servers

TELEPORT, OFF_GLOBE = BY_ID["KIN-01"], BY_ID["POS-01"]
JUMP = "2026-05-01T11:02"  # when device NUMBER is elsewhere


@pytest.fixture
def commands(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Device NUMBER jumps once on the first of May; device 2 was off the globe on the day before. Both are judged."""
    monkeypatch.setattr(RULES, (OFF_GLOBE, TELEPORT))
    frames = [event(minute=60 - minute, latitude=42.0 if minute == 2 else 37.98) for minute in range(1, 4)]
    frames += [event("2", minute=24 * 60 + n, latitude=95.0) for n in range(2)]
    fill(dsn, *frames, registered=(NUMBER, "2"))
    commands = Commands(dsn, tmp_path)
    commands("rules", "sweep")
    return commands


def states(commands: Commands) -> dict[str, str]:
    return {row["rule"]: row["state"] for row in commands.json("findings", "list", "--all")}


def flags(commands: Commands) -> list[int]:
    query = "SELECT flags FROM signal s JOIN device d ON d.id = s.device_id WHERE device_number = $1 ORDER BY wire_time"
    return [row["flags"] for row in ask(commands.dsn, query, NUMBER)]


def mark(commands: Commands, *arguments: str, device: str = NUMBER) -> int:
    number: int = commands.json("findings", "mark", device, *arguments)["mark"]
    return number


# list, show ---------------------------------------------------------------------------------------------------------


def test_list(commands: Commands) -> None:
    rows = commands.json("findings", "list")
    found = [
        (row["rule"], row["device_number"], row["day"], row["count"], row["state"], row["severity"]) for row in rows
    ]
    assert found == [
        ("KIN-01", NUMBER, "2026-05-01", 1, "confirmed", "error"),
        ("POS-01", "2", "2026-04-30", 2, "confirmed", "error"),
    ]
    assert rows[0]["detail"] == "447 km in 60 s: 26820 km/h"
    assert rows[0]["first_sample"]["latitude"] == 42.0
    table = commands("findings", "list")
    assert [words[1:4] for words in lines_of(table)] == [
        ["2026-05-01", NUMBER, "KIN-01"], ["2026-04-30", "2", "POS-01"],
    ]  # fmt: skip
    assert "447 km in 60 s" in table


@pytest.mark.parametrize(
    ("arguments", "rules"),
    [
        (["--device", "2"], ["POS-01"]), (["--device", "404"], []), (["--rule", "kin-01"], ["KIN-01"]),
        (["--since", "2026-05-01"], ["KIN-01"]), (["--since", "2026-05-02"], []), (["--limit", "1"], ["KIN-01"]),
    ],
)  # fmt: skip
def test_list_some(commands: Commands, arguments: list[str], rules: list[str]) -> None:
    assert [row["rule"] for row in commands.json("findings", "list", *arguments)] == rules
    if not rules:
        assert "nothing is wrong there" in commands.result("findings", "list", *arguments).stderr


def test_what_is_over_is_shown_only_if_asked_for(commands: Commands) -> None:
    for state in ("cleared", "withdrawn", "dismissed"):
        ask(commands.dsn, "UPDATE finding SET state = $1 WHERE kind = 'KIN-01' RETURNING id", state)
        assert [row["rule"] for row in commands.json("findings", "list")] == ["POS-01"]
        assert states(commands) == {"KIN-01": state, "POS-01": "confirmed"}


def test_show(commands: Commands) -> None:
    number = commands.json("findings", "list", "--rule", "KIN-01")[0]["id"]
    row = commands.json("findings", "show", number)
    assert (row["rule"], row["begins_at"], row["last_sample"]["seq"]) == ("KIN-01", "2026-05-01T11:02:00Z", 2)
    shown = commands("findings", "show", number)
    for text in (TELEPORT.title, TELEPORT.meaning, TELEPORT.actions[0], NUMBER, "42.0, 23.73", "entry 2, record 0"):
        assert text in shown
    assert "findings list --all" in commands.refused("findings", "show", "99")


def test_what_show_advises_can_be_done_and_helps(commands: Commands) -> None:
    for rule in ("KIN-01", "POS-01"):
        number = commands.json("findings", "list", "--rule", rule)[0]["id"]
        (advice,) = re.findall(r"signalkeep (findings mark .*)", commands("findings", "show", number))
        commands(*advice.split())
    commands("rules", "sweep")
    assert states(commands) == {"KIN-01": "withdrawn", "POS-01": "withdrawn"}


def test_what_show_advises_of_a_report_is_for_the_whole_day(commands: Commands) -> None:
    commands("errors", "set", OFF_GLOBE.error_type, "Broken GPS", "--limit", "1")
    commands("rules", "sweep")
    (row,) = (row for row in commands.json("errors", "due") if row["device_number"] == "2")
    (advice,) = re.findall(r"signalkeep (findings mark .*)", commands("findings", "show", row["id"]))
    assert advice.endswith("--from 2026-04-30 --to 2026-05-01")
    commands(*advice.split())
    commands("rules", "sweep")
    assert commands.json("findings", "show", row["id"])["state"] == "dismissed"


# mark, unmark, marks ------------------------------------------------------------------------------------------------


def test_a_mark_holds_after_a_sweep_and_not_before(commands: Commands) -> None:
    doubted = TELEPORT.mask | Flag.DOUBTFUL_POSITION
    said = commands("findings", "mark", NUMBER, "--from", JUMP, "--rule", "kin-01", "--note", "the ferry")
    assert said.startswith("mark 1 holds; the next sweep applies it")
    assert (flags(commands), states(commands)["KIN-01"]) == ([0, doubted, 0], "confirmed")
    commands("rules", "sweep")
    assert (flags(commands), states(commands)["KIN-01"]) == ([0, Flag.PERSON_GOOD, 0], "withdrawn")
    assert commands("findings", "unmark", "1") == "mark 1 is taken back\n"
    commands("rules", "sweep")
    assert (flags(commands), states(commands)["KIN-01"]) == ([0, doubted, 0], "confirmed")
    actions = ask(
        commands.dsn, "SELECT action, subject, detail FROM audit_log WHERE action LIKE 'quality.%' ORDER BY id"
    )
    assert [(row["action"], row["subject"]) for row in actions] == [("quality.mark", NUMBER), ("quality.unmark", "1")]
    assert actions[0]["detail"]["rule"] == "KIN-01"


def test_signals_can_be_called_bad_although_rules_believe_them(commands: Commands) -> None:
    mark(commands, "--bad", "--from", "2026-05-01T11:01", "--to", "2026-05-01T11:02")
    commands("rules", "sweep")
    assert flags(commands) == [Flag.PERSON_BAD, TELEPORT.mask | Flag.DOUBTFUL_POSITION | Flag.PERSON_BAD, 0]
    good = ask(commands.dsn, "SELECT latitude FROM signal_good WHERE device_number = $1", NUMBER)
    assert len(good) == 1


def test_a_whole_day_can_be_dismissed(commands: Commands) -> None:
    mark(commands, "--from", "2026-04-30", "--to", "2026-05-01", device="2")
    commands("rules", "sweep")
    assert states(commands)["POS-01"] == "withdrawn"


def test_a_time_may_have_a_zone(commands: Commands) -> None:
    """Around midnight it is another day there than ours."""
    fill(commands.dsn, event("2", message_date="2026-04-28T23:30:00Z", latitude=95.0))
    commands("rules", "sweep")
    mark(commands, "--from", "2026-04-29T01:30+02:00", device="2")
    commands("rules", "sweep")
    (row,) = ask(commands.dsn, "SELECT flags FROM signal WHERE wire_time = '2026-04-28T23:30:00Z'")
    assert row["flags"] == Flag.PERSON_GOOD


def test_marks_are_kept_when_they_are_taken_back(commands: Commands) -> None:
    assert "nobody has marked anything there" in commands.result("findings", "marks").stderr
    first = mark(commands, "--from", JUMP, "--note", "[the] ferry")
    second = mark(commands, "--from", "2026-04-30", "--to", "2026-05-01", "--bad", device="2")
    commands("findings", "unmark", first)
    rows = commands.json("findings", "marks")
    assert [(row["id"], row["device_number"], row["verdict"], row["rule"]) for row in rows] == [
        (second, "2", "bad", ""), (first, NUMBER, "good", ""),
    ]  # fmt: skip
    assert (rows[0]["taken_back_at"], rows[1]["taken_back_at"] is not None) == (None, True)
    assert rows[1]["begins_at"] == rows[1]["ends_at"] == "2026-05-01T11:02:00Z"
    assert rows[1]["marked_by"]
    assert "[the] ferry" in commands("findings", "marks")
    assert [row["id"] for row in commands.json("findings", "marks", "--device", "2")] == [second]
    assert [row["id"] for row in commands.json("findings", "marks", "--limit", "1")] == [second]
    assert "findings marks" in commands.refused("findings", "unmark", first)
    assert "findings marks" in commands.refused("findings", "unmark", "99")


@pytest.mark.parametrize(
    "arguments",
    [
        [NUMBER], [NUMBER, "--from", "noon"], [NUMBER, "--from", JUMP, "--to", "later"], ["404", "--from", JUMP],
        [NUMBER, "--from", JUMP, "--to", "2026-05-01T11:01"], [NUMBER, "--from", JUMP, "--rule", "KIN-1"],
        [NUMBER, "--from", JUMP, "--rule", "KIN-99"], [NUMBER, "--from", JUMP, "--bad", "--rule", "KIN-01"],
        [NUMBER, "--from", "2024-01-01", "--to", "2026-01-01"], ["--from", JUMP],
        [NUMBER, "--from", "0001-01-01T00:00+14:00"],
        [NUMBER, "--from", "9999-12-31"], [NUMBER, "--from", "1969-12-31"],
    ],
)  # fmt: skip
def test_marks_that_make_no_sense(commands: Commands, arguments: list[str]) -> None:
    commands.refused("findings", "mark", *arguments)
    assert commands.json("findings", "marks") == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--since", "2h"], ["list", "--limit", "0"], ["list", "--rule"], ["show"], ["show", "KIN-01"],
        ["show", "-1"], ["show", "99999999999999999999"], ["unmark", "99999999999999999999"], ["unmark", "x"],
        ["marks", "--limit", "x"], [],
    ],
)  # fmt: skip
def test_calls_that_make_no_sense(dsn: str, tmp_path: Path, arguments: list[str]) -> None:
    Commands(dsn, tmp_path).refused("findings", *arguments)


def test_before_anything_was_judged(dsn: str, tmp_path: Path) -> None:
    commands = Commands(dsn, tmp_path)
    empty: Any = commands.json("findings", "list", "--all")
    assert empty == commands.json("findings", "marks") == []
