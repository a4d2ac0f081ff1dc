"""Erasure and what was said of the signals: findings with their samples, scores and marks go, later days stay."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from signalkeep.clock import SystemClock
from signalkeep.ingest.triage import EPOCH
from signalkeep.integrity.quality import QualitySweep
from signalkeep.journal.record import FrameEntry
from signalkeep.rulebook import Rulebook
from signalkeep.rules.catalogue import BY_ID
from signalkeep.sections import QualitySettings
from signalkeep.store import quality, registry
from signalkeep.store.erasure import erase
from signalkeep.store.postgres import Connection
from tests.builders import NUMBER, RECEIVED, Feed, event

pytestmark = pytest.mark.servers

DAY = RECEIVED.date()
FLOOR = RECEIVED
OTHER = "357544371234567"


@pytest.fixture(autouse=True)
def one_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signalkeep.rulebook.RULES", (BY_ID["POS-01"],))


@pytest.fixture
async def feed(connection: Connection) -> Feed:
    for number in (NUMBER, OTHER):
        await registry.register(connection, number, actor="tests")
    return await Feed.open(connection)


def off_globe(hours: float, number: str = NUMBER, *, received_hours: float | None = None) -> FrameEntry:
    """A signal so many hours after the floor, with a position that gives a finding, received 2 s later."""
    at = FLOOR + timedelta(hours=hours)
    received = at + timedelta(seconds=2) if received_hours is None else FLOOR + timedelta(hours=received_hours)
    sent = event(number, message_date=at.isoformat(), latitude=95.0)
    return msgspec.structs.replace(sent, received_at_us=(received - EPOCH) // timedelta(microseconds=1))


async def sweep(connection: Connection) -> None:
    book = Rulebook(QualitySettings())
    await QualitySweep(connection, book, SystemClock(), budget_s=60.0, settled_s=0.0).run()


async def days(connection: Connection, table: str, number: str = NUMBER) -> list[date]:
    rows = await connection.fetch(
        f"SELECT day FROM {table} t JOIN device d ON d.id = t.device_id WHERE device_number = $1 ORDER BY 1", number
    )
    return [row["day"] for row in rows]


async def marks(connection: Connection) -> list[tuple[datetime, datetime]]:
    rows = await connection.fetch("SELECT begins_at, ends_at FROM quality_mark ORDER BY id")
    return [(row["begins_at"], row["ends_at"]) for row in rows]


async def samples(connection: Connection) -> list[dict[str, Any]]:
    rows = await connection.fetch("SELECT first_sample, last_sample FROM finding WHERE device_id IS NOT NULL")
    return [sample for row in rows for sample in (row["first_sample"], row["last_sample"])]


def after(count: int) -> date:
    return DAY + timedelta(days=count)


async def test_findings_and_scores_of_erased_days_go_and_those_of_later_days_stay(
    connection: Connection, feed: Feed, tmp_path: Path
) -> None:
    await feed.write(connection, *(off_globe(hours) for hours in (-50, -1, 24, 72)), off_globe(-1, OTHER))
    await sweep(connection)
    everything = [after(-2), DAY, after(1), after(3)]
    assert await days(connection, "finding") == await days(connection, "quality_score") == everything
    await erase(connection, NUMBER, FLOOR, log=tmp_path / "log", actor="tests")
    for table in ("finding", "quality_score"):
        assert await days(connection, table) == [after(1), after(3)]
        assert await days(connection, table, OTHER) == [DAY]
    await sweep(connection)
    assert await days(connection, "finding") == [after(1), after(3)]
    assert await connection.fetchval("SELECT count(*) FROM quality_todo") == 0


async def test_of_the_day_of_the_floor_what_is_left_is_judged_again(
    connection: Connection, feed: Feed, tmp_path: Path
) -> None:
    await feed.write(connection, *(off_globe(hours) for hours in (-2, -1, 1)))
    await sweep(connection)
    await erase(connection, NUMBER, FLOOR, log=tmp_path / "log", actor="tests")
    assert await days(connection, "finding") == []
    await sweep(connection)
    row = await connection.fetchrow("SELECT day, count, first_sample FROM finding")
    assert row is not None
    assert (row["day"], row["count"]) == (DAY, 1)
    assert datetime.fromisoformat(row["first_sample"]["device_time"]) == FLOOR + timedelta(hours=1)
    assert await connection.fetchval("SELECT signals FROM quality_score") == 1


async def test_samples_of_a_clock_that_was_ahead_go_with_their_signals(
    connection: Connection, feed: Feed, tmp_path: Path
) -> None:
    """It was received before the floor and speaks of the day after it."""
    await feed.write(connection, off_globe(14, received_hours=-1), off_globe(15), off_globe(40))
    await sweep(connection)
    assert await days(connection, "finding") == [after(1), after(2)]
    await erase(connection, NUMBER, FLOOR, log=tmp_path / "log", actor="tests")
    below = [one for one in await samples(connection) if datetime.fromisoformat(one["received_at"]) <= FLOOR]
    assert below == []
    assert await days(connection, "finding") == [after(2)]
    await sweep(connection)
    assert await days(connection, "finding") == [after(1), after(2)]
    assert await connection.fetchval("SELECT signals FROM quality_score WHERE day = $1", after(1)) == 1


@pytest.mark.parametrize("state", ["cleared", "withdrawn", "dismissed"])
async def test_findings_that_are_over_go_too(connection: Connection, feed: Feed, tmp_path: Path, state: str) -> None:
    """They still have their samples."""
    await feed.write(connection, off_globe(-1))
    await sweep(connection)
    await connection.execute("UPDATE finding SET state = $1", state)
    assert len(await samples(connection)) == 2
    await erase(connection, NUMBER, FLOOR, log=tmp_path / "log", actor="tests")
    assert await samples(connection) == []


async def test_marks_hold_for_what_is_left(connection: Connection, feed: Feed, tmp_path: Path) -> None:
    await feed.write(connection, off_globe(-1), off_globe(1))
    await sweep(connection)
    for begins, ends in ((-30, -20), (-1, 0), (-1, 2), (1, 2)):
        await quality.mark(
            connection, NUMBER, FLOOR + timedelta(hours=begins), FLOOR + timedelta(hours=ends), rule=None,
            verdict="bad", note="", actor="tests",
        )  # fmt: skip
    await erase(connection, NUMBER, FLOOR, log=tmp_path / "log", actor="tests")
    end = FLOOR + timedelta(hours=2)
    assert await marks(connection) == [
        (FLOOR + timedelta(microseconds=1), end), (FLOOR + timedelta(hours=1), end),
    ]  # fmt: skip


async def test_days_that_wait_are_not_judged_for_nothing(connection: Connection, feed: Feed, tmp_path: Path) -> None:
    await feed.write(connection, off_globe(-50), off_globe(72))
    follower = QualitySweep(connection, Rulebook(QualitySettings()), SystemClock(), budget_s=60.0, settled_s=3600.0)
    await follower.run()
    assert await days(connection, "quality_todo") == [after(-2), after(3)]
    await erase(connection, NUMBER, FLOOR, log=tmp_path / "log", actor="tests")
    assert await days(connection, "quality_todo") == [DAY, after(3)]


async def test_a_position_that_people_or_rules_doubt_does_not_become_the_latest(
    connection: Connection, feed: Feed, tmp_path: Path
) -> None:
    moments = [FLOOR + timedelta(hours=hours) for hours in (-1, 1, 2, 3)]
    await feed.write(
        connection, *(event(message_date=at.isoformat(), latitude=37.0 + n) for n, at in enumerate(moments))
    )
    for at, flags in ((moments[2], 4), (moments[3], 16)):
        await connection.execute("UPDATE signal SET flags = $2 WHERE wire_time = $1", at, flags)
    await connection.execute("UPDATE signal SET received_at = wire_time")
    await erase(connection, NUMBER, FLOOR, log=tmp_path / "log", actor="tests")
    assert await connection.fetchval("SELECT latitude FROM device_state WHERE latitude IS NOT NULL") == 38.0
