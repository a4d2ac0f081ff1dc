"""`status`: right and useful whatever is missing, roles, database or the journals' files."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import typer
from typer.testing import CliRunner, Result

from signalkeep.cli.status import roles_of, status
from signalkeep.clock import SystemClock
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.writer import JournalWriter
from signalkeep.roles import RoleFile, RoleState
from signalkeep.store import journals, services
from signalkeep.store.incidents import Condition, observe
from signalkeep.store.schema import HEAD
from signalkeep.store.services import Seen
from tests.builders import NUMBER, ask, event, fill
from tests.servers import connected, run_sync

pytestmark = pytest.mark.servers

AWAY = "postgresql://somebody:secret@127.0.0.1:1/none"
app = typer.Typer()
app.command()(status)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A data directory with a journal of three entries, whose gateway has ended."""

    async def work() -> None:
        (tmp_path / "journal").mkdir()
        writer = JournalWriter.create(
            LocalFileSystem(), tmp_path / "journal", clock=SystemClock(), segment_bytes=256 * 1024
        )
        for minute in range(3):
            writer.append(event(minute=minute))
        await asyncio.gather(writer.run(), writer.close())

    run_sync(work())
    yield tmp_path
    shutil.rmtree(tmp_path)


def run(dsn: str, data: Path, *arguments: str) -> Result:
    environment = {"SIGNALKEEP_DATABASE__DSN": dsn, "COLUMNS": "300"}
    return CliRunner().invoke(app, ["--data", str(data), *arguments], env=environment)


def as_json(dsn: str, data: Path, *, expect: int = 0) -> Any:
    done = run(dsn, data, "--json")
    assert done.exit_code == expect, (done.output, done.exception)
    return json.loads(done.stdout)


def announce(data: Path, *roles: str, restarts: dict[str, int] | None = None) -> None:
    """Let this process stand for a supervisor and these roles."""
    expected = {f"{role}-0": 0 for role in roles}
    RoleFile(data / "run", "supervisor", 0).ready(restarts={**expected, **(restarts or {})}, postgres_pid=None)
    for role in roles:
        RoleFile(data / "run", role, 0).ready(ports={"json": 2006} if role == "gateway" else {})


def ingested(dsn: str, data: Path, seq: int) -> None:
    """Let the database know the journal, with its cursor there."""

    async def work() -> None:
        (directory,) = (data / "journal").iterdir()
        async with connected(dsn) as connection:
            uuid = UUID(directory.name)
            journal_id = await journals.register(connection, uuid, socket.gethostname(), directory, 1)
            await journals.note_progress(connection, journal_id, 3, ended=True)
            await connection.execute("UPDATE cursor SET seq = $2 WHERE journal_id = $1", journal_id, seq)

    run_sync(work())


def test_nothing_runs(dsn: str, data: Path) -> None:
    page = as_json(dsn, data, expect=1)
    assert (page["running"], page["roles"], page["missing"]) == (False, [], [])
    assert page["database"]["reachable"]
    assert page["database"]["schema"] == HEAD
    (journal,) = page["journals"]
    assert (journal["live"], journal["durable_seq"], journal["ingested_seq"]) == (False, 3, 0)
    assert journal["backlog_entries"] == 3
    assert journal["bytes"] > 0
    said = run(dsn, data).stdout.splitlines()[0]
    assert "is not running" in said
    assert said.endswith(f"signalkeep run --data {data}")


def test_all_is_well(dsn: str, data: Path) -> None:
    announce(data, "gateway", "ingest", restarts={"ingest-0": 2})
    ingested(dsn, data, 3)
    fill(dsn, event(), event("2"), event("2"), registered=(NUMBER,))
    page = as_json(dsn, data)
    assert page["running"]
    roles = {role["role"]: role for role in page["roles"]}
    assert roles["gateway"]["ports"] == {"json": 2006}
    assert roles["gateway"]["pid"] == os.getpid()
    assert (roles["ingest"]["restarts"], roles["gateway"]["restarts"]) == (2, 0)
    assert page["journals"][0]["backlog_entries"] == 0
    counts = page["counts"]
    assert (counts["records"], counts["stored"], counts["duplicate"], counts["quarantine_open"]) == (3, 1, 1, 1)
    assert counts["devices"] == {"active": 1, "unknown": 1}
    assert page["findings"] == 0
    text = run(dsn, data).stdout
    assert text.startswith("signalkeep runs; everything acknowledged is in the database\n")
    assert "records   3 = stored 1 + duplicate 1 + quarantined 1, of which 1 still wait" in text


def test_a_backlog_is_counted_and_is_no_fault(dsn: str, data: Path) -> None:
    announce(data, "gateway", "ingest")
    ingested(dsn, data, 1)
    page = as_json(dsn, data)
    assert page["journals"][0]["backlog_entries"] == 2
    assert "2 journal entries" in page["verdict"]


def test_the_database_is_away(data: Path) -> None:
    announce(data, "gateway", "ingest")
    page = as_json(AWAY, data, expect=1)
    assert page["running"]
    assert not page["database"]["reachable"]
    assert "secret" not in json.dumps(page)
    assert "acknowledged all the same" in page["verdict"]
    (journal,) = page["journals"]
    assert (journal["durable_seq"], journal["ingested_seq"], journal["backlog_entries"]) == (3, None, None)
    assert page["counts"] is None
    assert "unknown" in run(AWAY, data).stdout


def test_a_role_that_is_down_is_named(dsn: str, data: Path) -> None:
    announce(data, "gateway", restarts={"ingest-0": 7})
    page = as_json(dsn, data, expect=1)
    assert page["missing"] == ["ingest-0"]
    assert "ingest-0" in page["verdict"]


def test_a_journal_that_vanished_is_named(dsn: str, data: Path) -> None:
    announce(data, "gateway", "ingest")
    ingested(dsn, data, 1)
    (directory,) = (data / "journal").iterdir()
    shutil.rmtree(directory)
    page = as_json(dsn, data, expect=1)
    (journal,) = page["journals"]
    assert journal["durable_seq"] is None
    assert journal["backlog_entries"] == 2
    assert journal["journal"] in page["verdict"]
    assert "files gone" in run(dsn, data).stdout


def test_findings_and_refusals_are_shown(dsn: str, data: Path) -> None:
    announce(data, "gateway", "ingest")
    ingested(dsn, data, 3)
    ask(dsn, "INSERT INTO refusal SELECT id, 'checksum', 5, now() FROM journal")
    ask(dsn, "INSERT INTO finding (kind, subject, detail) SELECT 'k', 's' || n, '[d]' FROM generate_series(1, 7) n")
    page = as_json(dsn, data)
    assert page["findings"] == 7
    assert page["counts"]["refused"] == {"checksum": 5}
    text = run(dsn, data).stdout
    assert "refused   checksum 5" in text
    assert "finding   k: s1: [d]" in text
    assert "7 in all" in text


def test_services_that_are_not_well_are_shown_with_the_incidents(dsn: str, data: Path) -> None:
    announce(data, "gateway", "ingest")

    async def work() -> None:
        async with connected(dsn) as connection:
            await services.write_host(connection, "h1", [], [Seen("clock"), Seen("broker", "degraded", "it is away")])
            away = [Condition(kind="broker_away", subject="the broker", detail="h1: it is away")]
            await observe(connection, "services", away, datetime.now(UTC))

    assert as_json(dsn, data)["services"]["services"] == 0
    assert "services" not in run(dsn, data).stdout
    run_sync(work())
    page = as_json(dsn, data)["services"]
    assert (page["services"], page["hosts"], page["unwell_count"], page["open"]) == (2, 1, 1, 1)
    (unwell,) = page["unwell"]
    assert {key: unwell[key] for key in ("host", "name", "state", "why")} == {
        "host": "h1", "name": "broker", "state": "degraded", "why": "it is away",
    }  # fmt: skip
    text = run(dsn, data).stdout
    assert "services  2 on 1 machine, 1 not well\n" in text
    assert f"degraded  broker on h1 since {datetime.now(UTC):%Y-%m-%d} " in text
    assert "UTC: it is away\nincidents 1 open\n" in text


def test_a_directory_that_never_was(tmp_path: Path) -> None:
    page = as_json(AWAY, tmp_path / "nowhere", expect=1)
    assert (page["running"], page["journals"]) == (False, [])
    assert not (tmp_path / "nowhere").exists(), "asking changes nothing"


def test_roles_with_their_restarts() -> None:
    now = datetime(2026, 5, 1, tzinfo=UTC)
    supervisor = RoleState(
        role="supervisor",
        instance=0,
        pid=1,
        started_at=now - timedelta(seconds=90),
        detail={"restarts": {"gateway-0": 1, "gateway-1": 0, "postgres-0": 3}, "postgres_pid": os.getpid()},
    )
    gateway = RoleState(role="gateway", instance=0, pid=2, started_at=now - timedelta(seconds=5))
    roles, missing = roles_of([gateway, supervisor], now)
    assert [(role.role, role.restarts, role.uptime_s) for role in roles] == [
        ("gateway", 1, 5.0),
        ("supervisor", 0, 90.0),
    ]
    assert missing == ["gateway-1", "postgres-0"], "a pid that is no PostgreSQL's is not shown as one"
