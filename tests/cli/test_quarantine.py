"""`quarantine list`, `show`, `release`, `discard`: nothing is taken out without being named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from signalkeep.cli.quarantine import MEANINGS, app
from signalkeep.errors import CallerError
from signalkeep.model import Reason
from tests.builders import NUMBER, ask, event, fill, frame

pytestmark = pytest.mark.servers

REASONS = Path(__file__).parents[2] / "docs" / "reasons.md"


def run(dsn: str, data: Path, command: str, *arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(
        app,
        [command, "--data", str(data), *arguments],
        input=answer,
        env={"SIGNALKEEP_DATABASE__DSN": dsn, "COLUMNS": "300"},
    )


def as_json(dsn: str, data: Path, command: str, *arguments: str, expect: int = 0) -> Any:
    done = run(dsn, data, command, "--json", *arguments)
    assert done.exit_code == expect, done.output
    return json.loads(done.stdout)


def states(dsn: str) -> list[str]:
    return [row["state"] for row in ask(dsn, "SELECT state FROM quarantine ORDER BY id")]


def ids(rows: list[dict[str, Any]]) -> list[int]:
    return [row["id"] for row in rows]


def test_listing_by_device_reason_and_state(dsn: str, tmp_path: Path) -> None:
    fill(dsn, event("1"), event("2"), event("2", latitude="north"))
    assert ids(as_json(dsn, tmp_path, "list")) == [3, 2, 1]
    assert ids(as_json(dsn, tmp_path, "list", "--limit", "1")) == [3]
    assert ids(as_json(dsn, tmp_path, "list", "--device", "2")) == [3, 2]
    assert ids(as_json(dsn, tmp_path, "list", "--device", "2", "--reason", "unknown_device")) == [2]
    run(dsn, tmp_path, "discard", "1")
    assert ids(as_json(dsn, tmp_path, "list")) == [3, 2]
    assert ids(as_json(dsn, tmp_path, "list", "--state", "discarded")) == [1]
    assert ids(as_json(dsn, tmp_path, "list", "--state", "all")) == [3, 2, 1]
    assert "unknown_device" in run(dsn, tmp_path, "list").stdout
    assert run(dsn, tmp_path, "list", "--reason", "dislike").exit_code == 2


def test_showing_everything_of_one(dsn: str, tmp_path: Path) -> None:
    sent = event(event_code="4002")
    fill(dsn, sent, frame(b'{"latitude": "\xff"}', "1"))
    row = as_json(dsn, tmp_path, "show", "1")
    assert bytes.fromhex(row["frame_raw"]) == sent.raw
    assert row["frame_raw_text"] == sent.raw.decode()
    assert (row["device_number"], row["reason"], row["peer"]) == (NUMBER, "unknown_device", "192.0.2.1:4711")
    assert row["meaning"] == "Nobody has registered this device."
    assert row["what_to_do"].startswith("Register it")
    assert "frame_raw_text" not in as_json(dsn, tmp_path, "show", "2"), "these bytes are no text"
    shown = run(dsn, tmp_path, "show", "1")
    assert "4002" in shown.stdout
    assert f"signalkeep quarantine release 1 --data {tmp_path}" in shown.stderr
    assert isinstance(run(dsn, tmp_path, "show", "99").exception, CallerError)


def test_meanings_are_those_of_the_documentation() -> None:
    page = REASONS.read_text(encoding="utf-8").replace("`", "")
    written = dict(re.findall(r"^\| (\w+) \| (.* \| .*) \|$", page, flags=re.MULTILINE))
    for reason, (meaning, advice) in MEANINGS.items():
        assert written[reason] == f"{meaning} | {advice}"
    quarantined = page.partition("\n## Quarantined\n")[2]
    assert set(re.findall(r"^\| (\w+) \|", quarantined, flags=re.MULTILINE)) - {"reason"} <= MEANINGS.keys()
    assert list(MEANINGS) == [reason for reason in Reason if reason in MEANINGS], "in the order of the list of reasons"


@pytest.mark.parametrize("command", ["release", "discard"])
def test_nothing_is_meant_unless_it_is_named(dsn: str, tmp_path: Path, command: str) -> None:
    fill(dsn, event())
    assert isinstance(run(dsn, tmp_path, command).exception, CallerError)
    assert states(dsn) == ["open"]


def test_all_stands_alone(dsn: str, tmp_path: Path) -> None:
    assert isinstance(run(dsn, tmp_path, "release", "--all", "1").exception, CallerError)


def test_releasing_says_what_could_not_be(dsn: str, tmp_path: Path) -> None:
    fill(dsn, event("1"), event("2"))
    fill(dsn, registered=("1",))
    mixed = run(dsn, tmp_path, "release", "--all")
    assert mixed.exit_code == 1
    assert mixed.stdout == "1 record released from quarantine; 1 record not released (unknown_device 1)\n"
    assert states(dsn) == ["released", "open"]
    assert as_json(dsn, tmp_path, "release", "2", expect=1)["not_done"] == [2]
    forced = as_json(dsn, tmp_path, "release", "2", "--force")
    assert (forced["released"], forced["not_done"]) == (1, [])
    again = run(dsn, tmp_path, "release", "1", "2")
    assert (again.exit_code, again.stdout) == (0, "nothing was open that fits\n"), "released is released"


def test_ids_that_do_not_exist_or_do_not_fit(dsn: str, tmp_path: Path) -> None:
    fill(dsn, event("1"), event("2"))
    missing = run(dsn, tmp_path, "release", "99")
    assert (missing.exit_code, missing.stderr) == (1, "99: nothing has this id\n")
    assert as_json(dsn, tmp_path, "release", "1", "--device", "2", "--force", expect=1)["not_done"] == [1]
    assert as_json(dsn, tmp_path, "discard", "1", "99", expect=1) == {"discarded": 1, "not_done": [99]}
    assert as_json(dsn, tmp_path, "release", "1", "--force", expect=1)["not_done"] == [1], "discarded is discarded"


def test_a_dry_run_releases_nothing_and_shows_the_first(dsn: str, tmp_path: Path) -> None:
    fill(dsn, event("1"), event("2"))
    fill(dsn, registered=("1",))
    done = run(dsn, tmp_path, "release", "--since", "2026-05-01", "--dry-run")
    assert done.exit_code == 1
    assert "dry run, nothing is changed: 1 record released from quarantine; 1 record not released" in done.stdout
    assert "2   stays     unknown_device  device 2 is not registered" in done.stdout
    told = as_json(dsn, tmp_path, "release", "1", "--dry-run")
    assert (told["released"], told["not_done"], told["first"][0]["what"]) == (1, [], "released")
    assert states(dsn) == ["open", "open"]
    assert as_json(dsn, tmp_path, "release", "--all", "--limit", "1", "--rate", "100")["released"] == 1


def test_by_time(dsn: str, tmp_path: Path) -> None:
    fill(dsn, event("1"), event("2"))
    assert ids(as_json(dsn, tmp_path, "list", "--since", "2026-05-01", "--until", "2026-05-02")) == [2, 1]
    assert as_json(dsn, tmp_path, "list", "--until", "2026-05-01") == []
    assert as_json(dsn, tmp_path, "discard", "--until", "2026-05-01", "--yes")["discarded"] == 0
    done = as_json(dsn, tmp_path, "discard", "--since", "2026-05-01", "--limit", "1", "--yes")
    assert done["discarded"] == 1
    assert states(dsn) == ["discarded", "open"]


def test_discarding_by_filter_wants_a_yes(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(dsn, event("1"), event("1", minute=1), event("2"))
    refused = run(dsn, tmp_path, "discard", "--device", "1")
    assert isinstance(refused.exception, CallerError), "there is nobody to ask"
    monkeypatch.setattr("signalkeep.cli.quarantine._is_terminal", lambda: True)
    assert run(dsn, tmp_path, "discard", "--device", "1", answer="n\n").exit_code == 1
    assert states(dsn) == ["open"] * 3
    done = run(dsn, tmp_path, "discard", "--device", "1", answer="y\n")
    assert done.stdout.endswith("2 discarded\n")
    assert "Discard 2 records?" in done.stderr
    assert states(dsn) == ["discarded", "discarded", "open"]
    monkeypatch.undo()
    assert as_json(dsn, tmp_path, "discard", "--reason", "unknown_device", "--yes")["discarded"] == 1
    actions = ask(dsn, "SELECT action, subject, detail FROM audit_log ORDER BY id")
    assert [row["subject"] for row in actions] == ["device 1", "reason unknown_device"]
