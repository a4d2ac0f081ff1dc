"""`retention show`, and the organizer's jobs that make months and drop them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from signalkeep.cli.month_jobs import month_jobs
from signalkeep.clock import SystemClock
from signalkeep.config import Settings, load
from signalkeep.errors import SettingsError
from signalkeep.store import registry
from signalkeep.store.partitions import months_there
from signalkeep.store.postgres import Connection
from tests.builders import NUMBER, Feed, ask, assert_sums, event, fill
from tests.cli.commands import Commands, lines_of

pytestmark = pytest.mark.servers

APRIL = 24 * 60  # minutes before the first of May
DROPPING = {"INGEST__RETENTION_DAYS": "60", "INGEST__DROP_MONTHS": "true"}


class At(SystemClock):
    """Always the same time."""

    def __init__(self, text: str) -> None:
        self._now = datetime.fromisoformat(text)

    def now(self) -> datetime:
        return self._now


def settings(directory: Path, **environment: str) -> Settings:
    return load(directory, environ={f"SIGNALKEEP_{name}": value for name, value in environment.items()})


async def test_months_are_made_before_they_begin_and_the_audit_log_says_so(
    connection: Connection, tmp_path: Path
) -> None:
    (ahead,) = month_jobs(settings(tmp_path), At("2026-11-30T23:59:59+00:00"))
    assert await ahead.work(connection) == "made signal_2026_11, signal_2026_12, signal_2027_01"
    assert await months_there(connection) == [(2026, 11), (2026, 12), (2027, 1)]
    assert await ahead.work(connection) == "all are there"
    (later,) = month_jobs(settings(tmp_path), At("2026-12-01T00:00:00+00:00"))
    assert await later.work(connection) == "made signal_2027_02"
    logged = await connection.fetch("SELECT actor, action, subject FROM audit_log ORDER BY id")
    assert [tuple(row) for row in logged] == [
        ("organizer", "month.make", month) for month in ("2026-11", "2026-12", "2027-01", "2027-02")
    ]


def test_months_go_only_if_that_was_asked_for(tmp_path: Path) -> None:
    assert [job.name for job in month_jobs(settings(tmp_path, **DROPPING), SystemClock())] == ["months", "retention"]
    only = settings(tmp_path, INGEST__RETENTION_DAYS="60")
    assert [job.name for job in month_jobs(only, SystemClock())] == ["months"]
    with pytest.raises(SettingsError, match="drop_months needs retention_days"):
        settings(tmp_path, INGEST__DROP_MONTHS="true")


async def test_the_job_drops_what_is_over(dsn: str, connection: Connection, tmp_path: Path) -> None:
    await fill_both_months(connection)
    _, too_early = month_jobs(settings(tmp_path, **DROPPING), At("2026-06-29T23:59:59+00:00"))
    assert await too_early.work(connection) == "no month is over"
    _, retention = month_jobs(settings(tmp_path, **DROPPING), At("2026-06-30T00:00:00+00:00"))
    assert await retention.work(connection) == "2026-04 went with 2 signals"
    assert await retention.work(connection) == "no month is over"
    await assert_sums(connection)


async def fill_both_months(connection: Connection) -> None:
    await registry.register(connection, NUMBER, actor="tests")
    await (await Feed.open(connection)).write(connection, event(minute=APRIL), event(minute=APRIL + 1), event())


def test_what_is_there_and_when_it_goes_is_shown(dsn: str, tmp_path: Path) -> None:
    plain, dropping = Commands(dsn, tmp_path), Commands(dsn, tmp_path, **DROPPING)
    assert plain.json("retention", "show") == []
    fill(dsn, event(minute=APRIL), event(minute=APRIL + 1), event(), registered=(NUMBER,))
    assert [row[0] + row[-1] for row in lines_of(plain("retention", "show"))] == ["2026-04never", "2026-05never"]
    assert "nothing is ever dropped" in plain.result("retention", "show").stderr
    april, may = dropping.json("retention", "show")
    assert (april["month"], april["signals"], april["goes_at"]) == ("2026-04", 2, "2026-06-30T00:00:00Z")
    assert (may["month"], may["signals"], may["goes_at"]) == ("2026-05", 1, "2026-07-31T00:00:00Z")
    assert ask(dsn, "SELECT count(*) FROM signal")[0][0] == 3, "it only shows"
