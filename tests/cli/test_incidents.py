"""`incidents list`, `show`, `ack`, `snooze`, `unsnooze`: what is wrong, and what people do about it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from signalkeep.kinds import KINDS
from signalkeep.store import registry
from signalkeep.store.incidents import Condition, observe
from tests.builders import NUMBER, ask
from tests.cli.commands import Commands
from tests.servers import connected, run_sync

pytestmark = pytest.mark.servers


@pytest.fixture
def commands(dsn: str, tmp_path: Path) -> Commands:
    """Device NUMBER is silent, the canary is lost; another device was silent."""

    async def work() -> None:
        async with connected(dsn) as connection:
            await registry.register(connection, NUMBER, actor="tests")
            device = await connection.fetchval("SELECT id FROM device")
            now = datetime.now(UTC)
            silent = [Condition(kind="silent", subject=one, detail="[red]nothing", device_id=device if one == NUMBER
                                else None) for one in (NUMBER, "2")]  # fmt: skip
            await observe(connection, "devices", silent, now)
            await observe(connection, "devices", silent[:1], now)
            await observe(connection, "services", [Condition(kind="canary_lost", subject="host7", detail="")], now)

    run_sync(work())
    return Commands(dsn, tmp_path)


def number_of(commands: Commands, kind: str = "silent") -> int:
    (row,) = commands.json("incidents", "list", "--kind", kind)
    found: int = row["id"]
    return found


def test_list(commands: Commands) -> None:
    def subjects(*options: str) -> list[str]:
        return sorted(row["subject"] for row in commands.json("incidents", "list", *options))

    assert subjects() == sorted([NUMBER, "host7"])
    assert subjects("--all") == sorted([NUMBER, "2", "host7"])
    assert subjects("--scope", "service") == ["host7"]
    assert subjects("--kind", "silent") == [NUMBER]
    assert subjects("--device", NUMBER) == [NUMBER]
    assert len(subjects("--all", "--limit", "1")) == 1
    assert "[red]nothing" in commands("incidents", "list")
    assert "There are" in commands.refused("incidents", "list", "--kind", "nonsense")


def test_show_and_ack(commands: Commands) -> None:
    number = number_of(commands)
    text = commands("incidents", "show", number)
    assert "Nobody was told." in text
    assert KINDS["silent"].what_to_do in text
    assert f"signalkeep incidents ack {number}" in text
    assert "is yours" in commands("incidents", "ack", number, "--note", "on my way")
    assert "was taken before" in commands("incidents", "ack", number)
    found = commands.json("incidents", "show", number)
    assert (found["state"], found["messages"]) == ("acknowledged", [])
    assert [(event["what"], event["note"]) for event in found["history"]] == [
        ("opened", ""), ("acknowledged", "on my way"),
    ]  # fmt: skip
    assert "on my way" in commands("incidents", "show", number)
    (logged,) = ask(commands.dsn, "SELECT action, subject, detail FROM audit_log WHERE action LIKE 'incident.%'")
    assert tuple(logged) == (
        "incident.acknowledged", str(number), {"kind": "silent", "subject": NUMBER, "note": "on my way"},
    )  # fmt: skip


def test_snooze_and_unsnooze(commands: Commands) -> None:
    number = number_of(commands, "canary_lost")
    assert "nobody is told" in commands("incidents", "snooze", number, "--for", "2h")
    assert commands.json("incidents", "show", number)["snoozed_until"] is not None
    assert "until" in commands("incidents", "show", number)
    assert "again" in commands("incidents", "unsnooze", number)
    assert "was not snoozed" in commands("incidents", "unsnooze", number)
    for wrong in ("0h", "soon", "31d", "-1h", "2"):
        assert "30d at most" in commands.refused("incidents", "snooze", number, f"--for={wrong}")


def test_what_is_not_there_or_over(commands: Commands) -> None:
    (over,) = [row["id"] for row in commands.json("incidents", "list", "--all") if row["state"] == "cleared"]
    assert "is over" in commands.refused("incidents", "ack", over)
    assert "is over" in commands.refused("incidents", "snooze", over, "--for", "2h")
    assert "was not snoozed" in commands("incidents", "unsnooze", over)
    for command in (["show", 9999], ["ack", 9999], ["snooze", 9999, "--for", "1h"], ["unsnooze", 9999]):
        assert "there is no incident 9999" in commands.refused("incidents", *command)
