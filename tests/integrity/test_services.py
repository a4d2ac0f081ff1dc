"""The organizer's look at all machines, the audit as a job, and a disk that is nearly full, on a real database."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from signalkeep import limits
from signalkeep.cli.service_jobs import judging_job, service_jobs
from signalkeep.clock import SystemClock
from signalkeep.config import Settings, load
from signalkeep.integrity import services
from signalkeep.integrity.organizer import Job
from signalkeep.monitor.health import ready
from signalkeep.sections.services import ServicesSettings
from signalkeep.store import services as stored
from signalkeep.store.postgres import Connection
from signalkeep.store.services import OURS, Beat, Seen
from tests.builders import Feed, event
from tests.monitor.test_service import monitoring, settings_of
from tests.servers import wait_until_async

pytestmark = pytest.mark.servers

AT_ONCE = ServicesSettings(bad_s=0, good_s=0)
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


async def nothing(connection: Connection) -> str:
    del connection
    return ""


async def look(connection: Connection, *jobs: Job, named: Sequence[str] = ()) -> dict[tuple[str, str], str]:
    """Look, then all that is open, with its detail."""
    await services.look(connection, AT_ONCE, jobs, named)
    rows = await connection.fetch("SELECT kind, subject, detail FROM incident WHERE state = 'open'")
    return {(row["kind"], row["subject"]): row["detail"] for row in rows}


async def test_what_monitors_wrote_becomes_incidents_and_these_are_over(connection: Connection) -> None:
    await stored.write_host(connection, "a", [Beat(role="gateway", instance=0)], [Seen("gateway-0", "down", "gone")])
    assert await look(connection) == {("service_down", "gateway-0 on a"): "gone"}
    await stored.write_host(connection, "a", [Beat(role="gateway", instance=0, pid=5)], [Seen("gateway-0")])
    assert await look(connection) == {}


async def test_a_machine_that_falls_silent_and_speaks_again(connection: Connection) -> None:
    await stored.write_host(connection, "a", [Beat(role="gateway", instance=0)], [Seen("gateway-0", "down", "gone")])
    await stored.write_host(connection, "b", [], [Seen("gateway-0")])
    for table in ("service", "heartbeat"):
        await connection.execute(f"UPDATE {table} SET at = at - interval '61 seconds' WHERE host = 'a'")
    found = await look(connection)
    assert set(found) == {("host_silent", "a")}
    assert "wrote last at" in found["host_silent", "a"]
    await stored.write_host(connection, "a", [], [Seen("gateway-0")])
    assert await look(connection) == {}


async def test_what_is_not_watched_any_more_is_over(connection: Connection) -> None:
    await stored.note(connection, OURS, [Seen("watch x", "down", "away")])
    assert await look(connection, named=["watch x"]) == {("watch_down", "x"): "away"}
    assert await look(connection) == {}


async def test_it_bears_being_done_twice_and_taken_over(connection: Connection) -> None:
    await stored.note(connection, OURS, [Seen("watch x", "down", "away")])
    for _ in range(3):
        await look(connection, named=["watch x"])
    assert await connection.fetchval("SELECT count(*) FROM incident_event") == 1


def last_run(**changes: Any) -> dict[str, dict[str, Any]]:
    values = {"failed_in_a_row": 0, "result": "done", "began_at": NOW}
    return {"work": {**values, **changes}}


@pytest.mark.parametrize(
    ("changes", "state", "said"),
    [
        ({}, "up", ""),
        ({"failed_in_a_row": 2}, "up", ""),
        ({"failed_in_a_row": 3, "result": "oh"}, "degraded", "failed 3 times in a row: oh"),
        ({"began_at": NOW - timedelta(seconds=11 + 50 + limits.JOB_OVERDUE_S - 1)}, "up", ""),
        ({"began_at": NOW - timedelta(seconds=11 + 50 + limits.JOB_OVERDUE_S + 1)}, "degraded", "begun last at"),
    ],
)
def test_a_job_that_fails_again_and_again_or_does_not_begin(changes: dict[str, Any], state: str, said: str) -> None:
    (seen,) = services.jobs_seen([Job("work", 10.0, nothing, takes_s_max=50.0)], last_run(**changes), NOW)
    assert (seen.name, seen.state) == ("job work", state)
    assert said in seen.why


def test_a_job_that_never_ran_is_no_fault() -> None:
    assert [one.state for one in services.jobs_seen([Job("new", 10.0, nothing)], {}, NOW)] == ["up"]


async def test_a_disk_that_is_nearly_full_is_told_while_devices_are_acknowledged(
    connection: Connection, dsn: str, tmp_path: Path
) -> None:
    """The whole way from the file system, with the bound set to more than half of what is free."""
    usual = settings_of(tmp_path, dsn)
    bound = shutil.disk_usage(tmp_path).free * 3 // 4
    settings = usual.model_copy(
        update={
            "journal": usual.journal.model_copy(update={"disk_free_bytes": bound}),
            "monitor": usual.monitor.model_copy(update={"write_every_s": 0.2}),
        }
    )
    async with monitoring(settings) as service:

        async def told() -> bool:
            state: str | None = await connection.fetchval("SELECT state FROM service WHERE name = 'journal-disk'")
            return state == "degraded"

        await wait_until_async(told)
        (check,) = [one for one in ready(await service._picture()) if one.name == "journal-disk"]
        assert check.state == "degraded"
    found = await look(connection)
    (detail,) = [text for (kind, _), text in found.items() if kind == "disk_low"]
    assert "journal.disk_free_bytes" in detail


# The audit ------------------------------------------------------------------------------------------------------------


def jobs_of(directory: Path, dsn: str, **environment: str) -> tuple[Settings, dict[str, Job]]:
    settings = load(directory, environ={"SIGNALKEEP_DATABASE__DSN": dsn, **environment})
    return settings, {job.name: job for job in service_jobs(settings, SystemClock())}


async def opened(connection: Connection) -> list[str]:
    rows = await connection.fetch("SELECT detail FROM incident WHERE kind = 'sums_off' AND state = 'open'")
    return [row["detail"] for row in rows]


async def due_again(connection: Connection) -> None:
    await connection.execute("UPDATE service SET at = at - interval '6 hours' WHERE name LIKE 'audit %'")


async def test_a_row_that_somebody_deletes_is_told_until_an_audit_is_clean(
    connection: Connection, dsn: str, tmp_path: Path
) -> None:
    audit = jobs_of(tmp_path, dsn)[1]["audit"]
    feed = await Feed.open(connection)
    await feed.write(connection, event(minute=1), event(minute=2))
    await connection.execute("UPDATE device SET status = 'active'")
    await feed.write(connection, event(minute=3), event(minute=4))
    assert await audit.work(connection) == "everything adds up"
    await connection.execute("CREATE TEMP TABLE kept AS TABLE signal")
    await connection.execute("DELETE FROM signal WHERE record_no = 0 AND seq = 3")
    assert "everything adds up" in await audit.work(connection), "it is not due"
    assert await opened(connection) == []
    await due_again(connection)
    assert "signal_rows" in await audit.work(connection)
    (detail,) = await opened(connection)
    assert "the ledger has 2 signals, the table 1: 1 missing" in detail
    assert "signal_rows" in await audit.work(connection), "what it said last"
    await connection.execute("INSERT INTO signal SELECT * FROM kept WHERE seq = 3")
    await due_again(connection)
    assert await audit.work(connection) == "everything adds up"
    assert await opened(connection) == []


async def test_the_audit_of_one_machine_closes_nothing_of_another(
    connection: Connection, dsn: str, tmp_path: Path
) -> None:
    await connection.execute(
        "INSERT INTO incident (source, kind, subject, scope, stage, severity, title, opened_at, seen_at) "
        "VALUES ('audit', 'sums_off', 'sums of another', 'storage', 'diagnostic', 'error', '', now(), now())"
    )
    assert await jobs_of(tmp_path, dsn)[1]["audit"].work(connection) == "everything adds up"
    assert len(await opened(connection)) == 1


def test_jobs_follow_the_settings(tmp_path: Path) -> None:
    settings, jobs = jobs_of(tmp_path, "postgresql://x@127.0.0.1:1/x")
    assert (set(jobs), jobs["audit"].every_s) == ({"storage", "audit"}, limits.AUDIT_LOOK_S)
    assert judging_job(settings, []).every_s == limits.SERVICES_LOOK_S
    more = {
        "SIGNALKEEP_AUDIT__EVERY_S": "0",
        "SIGNALKEEP_SERVICES__CANARY__ENABLED": "true",
        "SIGNALKEEP_SERVICES__WATCH": '[{"name": "x", "tcp": "a:1", "every_s": 7}]',
    }
    _, jobs = jobs_of(tmp_path, "postgresql://x@127.0.0.1:1/x", **more)
    assert {name: job.every_s for name, job in jobs.items()} == {"storage": 60.0, "canary": 60.0, "watch x": 7.0}
