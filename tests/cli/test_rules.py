"""`rules list`, `explain`, `run` on files and on what is stored, `sweep`."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import Any

import msgspec
import pytest

from signalkeep.errors import SettingsError
from signalkeep.rules.catalogue import BY_ID, RULES
from tests.builders import NUMBER, RECEIVED, ask, event, fill
from tests.cli.commands import RULES as PATCHED
from tests.cli.commands import Commands, lines_of

TELEPORT, OFF_GLOBE = BY_ID["KIN-01"], BY_ID["POS-01"]
OWN = '[{"id": "OWN-01", "title": "Fast", "when": "speed_kmh > 90", "in_a_row": 2, "models": ["FMB920"]}]'
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


@pytest.fixture(autouse=True)
def two_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other rules have tests of their own, and more of them come."""
    monkeypatch.setattr(PATCHED, (OFF_GLOBE, TELEPORT))


@pytest.fixture
def offline(tmp_path: Path) -> Commands:
    """Rules and files need no database."""
    return Commands(NOWHERE, tmp_path, QUALITY__OWN=OWN)


@pytest.fixture
def commands(dsn: str, tmp_path: Path) -> Commands:
    return Commands(dsn, tmp_path)


# list, explain ------------------------------------------------------------------------------------------------------


def test_list(offline: Commands) -> None:
    rows = offline.json("rules", "list")
    assert [row["id"] for row in rows] == ["POS-01", "KIN-01", "OWN-01"]
    assert (rows[1]["bit"], rows[1]["asked"], rows[1]["severity"]) == (TELEPORT.bit, "recent", "error")
    assert rows[1]["limits"] == {name: limit.default for name, limit in TELEPORT.limits.items()}
    table = offline("rules", "list")
    assert [words[0] for words in lines_of(table)] == ["POS-01", "KIN-01", "OWN-01"]
    assert "speed_kmh_max 200 km/h, distance_m 100 m" in table


def test_list_says_what_is_set_here(tmp_path: Path) -> None:
    settings = {"QUALITY__RULES__KIN-01__SPEED_KMH_MAX": "150", "QUALITY__RULES__POS-01__ENABLED": "false"}
    commands = Commands(NOWHERE, tmp_path, **settings)
    assert [row["limits"] for row in commands.json("rules", "list")] == [
        "off",
        {"speed_kmh_max": 150, "distance_m": 100},
    ]
    assert "speed_kmh_max 150 km/h" in commands("rules", "list")
    shown = commands("rules", "explain", "KIN-01")
    assert "speed_kmh_max = 150 km/h, default 200: " in shown
    assert "distance_m = 100 m: " in shown
    assert "switched off by the settings" in commands("rules", "explain", "POS-01")
    assert commands.json("rules", "explain", "POS-01")["enabled"] is False


def test_explain(offline: Commands) -> None:
    said = offline.json("rules", "explain", "kin-01")
    assert (said["id"], said["meaning"], said["enabled"], said["bit"]) == (
        "KIN-01",
        TELEPORT.meaning,
        True,
        TELEPORT.bit,
    )
    shown = offline("rules", "explain", "KIN-01")
    for text in (TELEPORT.title, TELEPORT.meaning, *TELEPORT.causes, *TELEPORT.actions, TELEPORT.source):
        assert text in shown
    assert "rules list" in offline.refused("rules", "explain", "KIN-99")
    assert "Missing argument" in offline.refused("rules", "explain")


def test_a_rule_for_some_models_is_not_called_off(offline: Commands) -> None:
    assert offline.json("rules", "list")[2]["limits"] == {}
    assert offline.json("rules", "explain", "OWN-01")["enabled"] is True
    shown = offline("rules", "explain", "OWN-01")
    assert "switched off" not in shown
    assert "Only for devices of these models: FMB920." in shown
    assert "2 signals in a row" in shown


def test_every_rule_can_be_explained(offline: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PATCHED, RULES)
    assert len(offline.json("rules", "list")) == len(RULES) + 1
    for rule in RULES:
        assert rule.meaning in offline("rules", "explain", rule.id)


def test_settings_of_rules_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    commands = Commands(NOWHERE, tmp_path, **{"QUALITY__RULES__XYZ-01__LEVEL": "1"})
    with pytest.raises(SettingsError, match=r"quality\.rules\.XYZ-01: no such rule"):
        commands("rules", "list")


# run FILE -----------------------------------------------------------------------------------------------------------

TRACK = [("12:00:00", 52.0), ("12:00:10", 52.1), ("12:00:20", 52.0)]  # 11 km and back, in 10 s each


def nmea(clock: str, latitude: float) -> str:
    body = f"GPRMC,{clock.replace(':', '')},A,{int(latitude)}{latitude % 1 * 60:07.4f},N,01330.0000,E,0.0,0.0,060526,,"
    return f"${body}*{reduce(lambda sum_, one: sum_ ^ ord(one), body, 0):02X}"


def files() -> dict[str, str]:
    rows = [f"2026-05-06T{clock}Z,{latitude},13.5" for clock, latitude in TRACK]
    points = [
        f'<trkpt lat="{latitude}" lon="13.5"><time>2026-05-06T{clock}Z</time></trkpt>' for clock, latitude in TRACK
    ]
    return {
        "csv": "\n".join(["time,latitude,longitude", *rows]),
        "gpx": '<gpx version="1.1" xmlns="http://www.topografix.com/GPX/1/1">\n<trk><trkseg>\n' + "\n".join(points)
        + "\n</trkseg></trk></gpx>",
        "nmea": "\n".join(nmea(*point) for point in TRACK),
        "log": "\n".join(nmea(*point) for point in TRACK),
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "line"), [("csv", 3), ("gpx", 4), ("nmea", 2), ("log", 2)])
def test_run_on_a_file(offline: Commands, tmp_path: Path, kind: str, line: int) -> None:
    file = tmp_path / f"track.{kind}"
    file.write_text(files()[kind])
    said = offline.json("rules", "run", file)
    assert (said["signals"], said["days"], said["rules"]) == (3, 1, {"KIN-01": 1})
    assert (said["skipped_lines"], said["skipped"], said["broken"]) == (0, [], {})
    (hit,) = said["hits"]
    assert (hit["rule"], hit["line"], hit["time"]) == ("KIN-01", line, "2026-05-06T12:00:10Z")
    assert "in 10 s" in hit["detail"]
    done = offline.result("rules", "run", file)
    assert f"line {line}: 2026-05-06 12:00:10 " in done.stdout
    assert "3 signals on 1 days" in done.stderr


def test_run_on_a_file_that_is_clean(offline: Commands, tmp_path: Path) -> None:
    file = tmp_path / "track.csv"
    file.write_text("time,latitude,longitude\n2026-05-06T12:00:00Z,52,13\n")
    done = offline.result("rules", "run", file)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "no rule has found anything" in done.stderr


def test_run_on_a_file_with_broken_lines_says_which(offline: Commands, tmp_path: Path) -> None:
    file = tmp_path / "track.csv"
    file.write_text(files()["csv"] + "\n2026-05-06T12:00:30Z,north,13.5" * 5)
    said = offline.json("rules", "run", file)
    assert (said["signals"], said["skipped_lines"], said["rules"]) == (3, 5, {"KIN-01": 1})
    assert said["skipped"][0]["line"] == 5
    assert "north" in said["skipped"][0]["why"]
    shown = offline.result("rules", "run", file).stderr
    assert "line 5 cannot be read: " in shown
    assert "and 2 more lines that cannot be read" in shown


def test_run_with_the_limits_of_a_model(tmp_path: Path) -> None:
    file = tmp_path / "track.csv"
    file.write_text(files()["csv"])
    commands = Commands(NOWHERE, tmp_path, QUALITY__MODELS='{"jet": {"KIN-01": {"speed_kmh_max": 10000}}}')
    assert commands.json("rules", "run", file)["rules"] == {"KIN-01": 1}
    assert commands.json("rules", "run", file, "--model", "jet")["rules"] == {}


def test_run_names_rules_that_broke(offline: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = msgspec.structs.replace(OFF_GLOBE, id="TST-01", bit=9, check=lambda *_: 1 / 0)
    monkeypatch.setattr(PATCHED, (broken, TELEPORT))
    file = tmp_path / "track.csv"
    file.write_text(files()["csv"])
    said = offline.json("rules", "run", file, expect=1)
    assert said["broken"] == {"TST-01": "ZeroDivisionError: division by zero"}
    assert said["rules"] == {"KIN-01": 1}
    done = offline.result("rules", "run", file)
    assert (done.exit_code, "TST-01 cannot be asked: ZeroDivisionError" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("track.csv", b""), ("track.csv", b"\xff\xfe\x00"), ("track.csv", b"a,b\n1,2\n"), ("track.gpx", b"\x00\x01"),
        ("track.gpx", b""), ("track.doc", b"x"), ("track", b"x"), ("track.nmea", b"\x89PNG\r\n"), ("track.csv", None),
        ("track.gpx", None), ("track.nmea", None),
    ],
)  # fmt: skip
def test_a_file_that_is_no_track_is_refused(
    offline: Commands, tmp_path: Path, name: str, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert name in offline.refused("rules", "run", tmp_path / name)


def test_a_directory_is_no_track(offline: Commands, tmp_path: Path) -> None:
    (tmp_path / "track.csv").mkdir()
    assert "track.csv" in offline.refused("rules", "run", tmp_path / "track.csv")


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["track.csv", "--since", "2h"], ["track.csv", "--device", "1"], ["track.csv", "--until", "1h"],
        ["--since", "yesterday"], ["--since", "2h", "--until", "noon"], ["--until", "1h"],
        ["--since", "2h", "--model", "x"], ["--since", "1h", "--until", "2h"],
    ],
)  # fmt: skip
def test_calls_of_run_that_make_no_sense(offline: Commands, arguments: list[str]) -> None:
    offline.refused("rules", "run", *arguments)


# run --since, sweep -------------------------------------------------------------------------------------------------


def stored(dsn: str) -> None:
    """Two devices, each with a jump; one of them also has a place off the globe."""
    frames = [event(minute=60 - minute, latitude=37.98 if minute != 2 else 42.0) for minute in range(4)]
    frames += [event("2", minute=60 - minute, latitude=95.0 if minute == 5 else 37.98) for minute in range(4, 7)]
    fill(dsn, *frames, registered=(NUMBER, "2"))


@pytest.mark.servers
def test_run_on_what_is_stored_marks_nothing(commands: Commands) -> None:
    stored(commands.dsn)
    said = commands.json("rules", "run", "--since", "2026-05-01")
    assert (said["signals"], said["days"], said["rules"]) == (7, 2, {"KIN-01": 1, "POS-01": 1})
    assert {(hit["device"], hit["rule"]) for hit in said["hits"]} == {(NUMBER, "KIN-01"), ("2", "POS-01")}
    done = commands.result("rules", "run", "--since", "2026-05-01")
    assert f"device {NUMBER}: 2026-05-01 11:02:00 " in done.stdout
    assert "7 signals on 2 days" in done.stderr
    assert ask(commands.dsn, "SELECT FROM signal WHERE flags <> 0") == []
    assert ask(commands.dsn, "SELECT FROM quality_score") == []


@pytest.mark.servers
def test_run_on_some_of_what_is_stored(commands: Commands) -> None:
    stored(commands.dsn)

    def signals(*arguments: str) -> int:
        found: int = commands.json("rules", "run", *arguments)["signals"]
        return found

    assert signals("--since", "2026-05-01", "--device", "2") == 3
    assert signals("--since", "2026-05-01T11:02", "--until", "2026-05-01T11:05") == 3
    assert signals("--since", "2026-05-01T13:02+02:00", "--until", "2026-05-01T13:05+02:00") == 3
    assert signals("--since", "2026-05-02") == 0
    assert "devices list" in commands.refused("rules", "run", "--since", "2026-05-01", "--device", "404")


@pytest.mark.servers
def test_sweep(commands: Commands) -> None:
    stored(commands.dsn)
    done = commands.json("rules", "sweep")
    assert (done["signals"], done["days"], done["judged_signals"], done["changed_flags"]) == (7, 2, 7, 2)
    assert (done["waiting"], done["postponed"], done["broken"]) == (0, 0, {})
    assert len(ask(commands.dsn, "SELECT FROM signal WHERE flags <> 0")) == 2
    again = commands("rules", "sweep")
    assert again == "0 new signals; 0 days with 0 signals judged, marks of 0 changed; 0 days wait\n"
    assert commands.json("rules", "sweep", "--sample", "5")["days"] in {1, 2}, "of the two devices, at random"
    commands.refused("rules", "sweep", "--budget", "0")
    commands.refused("rules", "sweep", "--sample", "-1")
    commands.refused("rules", "sweep", "--sample", "99999999999999999999")


@pytest.mark.servers
def test_sweep_names_rules_that_broke(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(commands.dsn)
    broken = msgspec.structs.replace(OFF_GLOBE, id="TST-01", bit=9, check=lambda *_: 1 / 0)
    monkeypatch.setattr(PATCHED, (broken, TELEPORT))
    done = commands.result("rules", "sweep", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["broken"] == {"TST-01": 7}
    assert "rules that cannot be asked: TST-01" in done.stderr
    assert len(ask(commands.dsn, "SELECT FROM signal WHERE flags <> 0")) == 1, "the others were asked all the same"


@pytest.mark.servers
def test_a_limit_can_be_tried_before_it_is_set(dsn: str, tmp_path: Path) -> None:
    stored(dsn)
    slow = Commands(dsn, tmp_path, **{"QUALITY__RULES__KIN-01__SPEED_KMH_MAX": "100000"})
    assert slow.json("rules", "run", "--since", "2026-05-01")["rules"] == {"POS-01": 1}


def test_times_of_hits_are_those_of_the_signals() -> None:
    """What these tests are built on."""
    sent: Any = json.loads(event(minute=58).raw)
    assert datetime.fromisoformat(sent["message_date"]) == RECEIVED - timedelta(minutes=58)
