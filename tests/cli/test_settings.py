"""`config`: values that could stand in a file, the place each comes from, and no secret in any of it."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from signalkeep.cli.settings import app, example_file, leaves, masked, toml_value
from signalkeep.config import Settings, load
from signalkeep.errors import SettingsError

SECRET = "hunter2"
DSN = f"postgresql://me:{SECRET}@db.example/x"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SIGNALKEEP_")]:
        monkeypatch.delenv(name)


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(app, [*arguments], env={"COLUMNS": "400", **environ})


def shown(data: Path, *arguments: str, **environ: str) -> dict[str, dict[str, object]]:
    done = run("show", "--data", str(data), "--json", *arguments, **environ)
    assert done.exit_code == 0, done.output
    found: dict[str, dict[str, object]] = json.loads(done.stdout)
    return found


def test_each_value_with_its_meaning_or_its_origin(tmp_path: Path) -> None:
    (tmp_path / "signalkeep.toml").write_text("[gateway.ports]\njson = 7\n[journal]\ncap_bytes = 5\n")
    environ = {"SIGNALKEEP_JOURNAL__CAP_BYTES": "6", "SIGNALKEEP_LOG": '{"level": "error"}'}
    plain = shown(tmp_path, **environ)
    assert plain["journal.cap_bytes"] == {"value": 6, "meaning": "above it, sockets are not read"}
    found = {name: row["origin"] for name, row in shown(tmp_path, "--origin", **environ).items()}
    assert found["journal.cap_bytes"] == "environment SIGNALKEEP_JOURNAL__CAP_BYTES"
    assert found["log.level"] == "environment SIGNALKEEP_LOG"
    assert found["gateway.ports"] == f"file {tmp_path}/signalkeep.toml"
    assert found["monitor.port"] == "default"
    assert found["data"] == "--data"


def test_parts_of_a_table_and_the_case_of_variables(tmp_path: Path) -> None:
    found = shown(tmp_path, "--origin", signalkeep_gateway__ports__json="2007", SIGNALKEEP_DATA="/elsewhere")
    assert found["gateway.ports"]["origin"] == "environment signalkeep_gateway__ports__json"
    assert found["data"]["origin"] == "--data"
    done = run("show", "--json", "--origin", SIGNALKEEP_DATA=str(tmp_path))
    assert json.loads(done.stdout)["data"]["origin"] == "environment SIGNALKEEP_DATA"


def test_the_table_shows_values_that_could_stand_in_the_file(tmp_path: Path) -> None:
    table = run("show", "--data", str(tmp_path)).stdout
    assert "origin" not in table.splitlines()[0]
    (ports,) = [line for line in table.splitlines() if line.startswith("gateway.ports ")]
    assert "{ teltonika = 5027, json = 2006 }" in ports
    assert "origin" in run("show", "--data", str(tmp_path), "--origin").stdout.splitlines()[0]


def test_no_password_is_shown_wherever_it_stands(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{DSN}\n")
    for environ in ({"SIGNALKEEP_DATABASE__DSN": DSN}, {"SIGNALKEEP_DATABASE__DSN_FILE": str(secret)}):
        for arguments in ((), ("--origin",), ("--json",), ("--json", "--origin")):
            done = run("show", "--data", str(tmp_path), *arguments, **environ)
            assert "postgresql://me:********@db.example/x" in done.output
            assert SECRET not in done.output
    found = shown(tmp_path, "--origin", SIGNALKEEP_DATABASE__DSN_FILE=str(secret))["database.dsn"]
    assert found["origin"] == f"secret file {secret}"
    gone = shown(tmp_path, "--origin", SIGNALKEEP_DATABASE__DSN_FILE=str(tmp_path / "gone"))["database.dsn"]
    assert (gone["value"], "No such file" in str(gone["origin"])) == ("", True)


def test_no_password_of_a_watched_service_is_shown(tmp_path: Path) -> None:
    watch = [
        {"name": "a", "sql": "SELECT 1", "dsn": DSN},
        {"name": "b", "http": f"https://me:{SECRET}@shop.example/health?token={SECRET}"},
        {"name": "c", "tcp": "db.example:5432", "every_s": 7.0},
    ]
    for arguments in ((), ("--json",)):
        done = run("show", "--data", str(tmp_path), *arguments, SIGNALKEEP_SERVICES__WATCH=json.dumps(watch))
        assert SECRET not in done.output
        assert "https://me:********@shop.example/health" in done.output
    value = shown(tmp_path, SIGNALKEEP_SERVICES__WATCH=json.dumps(watch))["services.watch"]["value"]
    assert isinstance(value, list)
    assert value[2] == watch[2]
    bad = run("show", "--data", str(tmp_path), SIGNALKEEP_SERVICES__WATCH=json.dumps([{"name": "a", "dsn": DSN}]))
    assert SECRET not in str(bad.exception)


@pytest.mark.parametrize("name", ["password", "smtp_password", "api_token", "secret", "signing_key"])
def test_what_is_called_a_secret_is_masked(name: str) -> None:
    assert masked(("x", name), "abc") == "********"
    assert masked(("x", name), "") == ""
    assert masked(("x", "keyboard"), "abc") == "abc"


def test_the_example_changes_nothing_as_it_stands_and_with_its_marks_gone(tmp_path: Path) -> None:
    text = run("example").stdout
    assert text == example_file()
    usual = load(tmp_path / "none", environ={})
    set_lines = re.sub(r"^#(\w+ = \S.*)$", r"\1", text, flags=re.MULTILINE)
    assert set_lines != text
    for number, content in enumerate((text, set_lines)):
        data = tmp_path / str(number)
        data.mkdir()
        (data / "signalkeep.toml").write_text(content)
        loaded = load(data, environ={})
        assert loaded.model_dump(exclude={"data"}) == usual.model_dump(exclude={"data"})
    values = tomllib.loads(set_lines)
    for path, value, _ in leaves(usual):
        if path != ("data",) and value is not None:
            found = values
            for part in path:
                found = found[part]
            assert found == (list(value) if isinstance(value, tuple) else value), "every setting is in it"


def test_a_file_is_checked_alone_and_every_fault_is_named(tmp_path: Path) -> None:
    file = tmp_path / "new.toml"
    file.write_text("[log]\nlevel = 'error'\n")
    good = run("check", str(file), SIGNALKEEP_LOG__LEVEL="nonsense")
    assert (good.exit_code, "can be used" in good.output) == (0, True)
    file.write_text("[log]\nlevel = 'loud'\n[jurnal]\nx = 1\n")
    bad = run("check", str(file))
    assert isinstance(bad.exception, SettingsError)
    assert "log.level" in bad.exception.message
    assert "jurnal" in bad.exception.message


@pytest.mark.parametrize(
    "value", ["", "a\"b\\c\n", "ü", True, 0, 1.5, 900.0, {"a b": 1, "c": {"d": "e"}}, {}, [1, "x"], Path("/x")]
)  # fmt: skip
def test_values_are_toml(value: object) -> None:
    expected = str(value) if isinstance(value, Path) else value
    assert tomllib.loads(f"x = {toml_value(value)}") == {"x": expected}


def test_every_setting_says_what_it_is_or_is_one_of_a_known_few() -> None:
    silent = {".".join(path) for path, _, meaning in leaves(Settings(data=Path("/x"))) if not meaning}
    assert silent <= {"data", "journal.segment_bytes"} | {
        f"gateway.unknown_bytes_{which}" for which in ("per_device", "per_address", "total")
    }
