"""Sweeps: every new signal is judged in its place, findings never double, people beat rules, kills lose nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest

from signalkeep.clock import SystemClock
from signalkeep.integrity.quality import QualitySweep, Swept
from signalkeep.model import Flag
from signalkeep.rulebook import Rulebook
from signalkeep.rules.catalogue import BY_ID
from signalkeep.sections import QualitySettings
from signalkeep.store import registry, sweep
from signalkeep.store.postgres import Connection
from tests.builders import NUMBER, RECEIVED, Feed, event

pytestmark = pytest.mark.servers

TELEPORT, OFF_GLOBE = BY_ID["KIN-01"], BY_ID["POS-01"]
DAY = date(2026, 5, 1)


@pytest.fixture(autouse=True)
def two_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other rules have tests of their own, and more of them come."""
    monkeypatch.setattr("signalkeep.rulebook.RULES", (OFF_GLOBE, TELEPORT))


@pytest.fixture
async def feed(connection: Connection) -> Feed:
    await registry.register(connection, NUMBER, actor="tests")
    return await Feed.open(connection)


async def run(connection: Connection, settings: QualitySettings | None = None, **options: Any) -> Swept:
    book = Rulebook(settings or QualitySettings())
    what: dict[str, Any] = {"budget_s": 60.0, "settled_s": 0.0}
    return await QualitySweep(connection, book, SystemClock(), **(what | options)).run()


def at(minute: int, latitude: float = 37.98) -> Any:
    return event(minute=60 - minute, latitude=latitude)


async def state(connection: Connection) -> list[tuple[Any, ...]]:
    """All that sweeps write, but for when."""
    flags = await connection.fetch("SELECT wire_time, flags FROM signal ORDER BY 1")
    findings = await connection.fetch(
        "SELECT kind, subject, detail, count, state, rule_version, begins_at, ends_at, first_sample, last_sample"
        " FROM finding WHERE device_id IS NOT NULL ORDER BY kind, day"
    )
    scores = await connection.fetch("SELECT * FROM quality_score ORDER BY device_id, day")
    return [
        *map(tuple, flags), *map(tuple, findings),
        *(tuple(value for key, value in row.items() if key != "judged_at") for row in scores),
    ]  # fmt: skip


async def test_what_was_stored_without_rules_is_marked(connection: Connection, feed: Feed) -> None:
    await feed.write(connection, at(1), at(2, latitude=42.0), at(3))
    done = await run(connection)
    assert (done.signals, done.days, done.judged_signals, done.changed_flags, done.waiting) == (3, 1, 3, 1, 0)
    flags = [row["flags"] for row in await connection.fetch("SELECT flags FROM signal ORDER BY wire_time")]
    assert flags == [0, TELEPORT.mask | Flag.DOUBTFUL_POSITION, 0]
    row = await connection.fetchrow("SELECT * FROM finding WHERE device_id IS NOT NULL")
    assert row is not None
    assert (row["kind"], row["day"], row["count"], row["state"]) == ("KIN-01", DAY, 1, "confirmed")
    assert row["first_sample"]["latitude"] == 42.0


async def test_every_new_signal_is_seen_once(connection: Connection, feed: Feed) -> None:
    await feed.write(connection, at(1), at(2))
    assert (await run(connection)).signals == 2
    again = await run(connection)
    assert (again.signals, again.days) == (0, 0)
    await feed.write(connection, at(3))
    more = await run(connection)
    assert (more.signals, more.days, more.judged_signals) == (1, 1, 3)


async def test_a_day_waits_until_it_has_settled(connection: Connection, feed: Feed) -> None:
    await feed.write(connection, at(1))
    done = await run(connection, settled_s=3600.0)
    assert (done.days, done.waiting) == (0, 1)
    assert (await run(connection)).days == 1


async def test_judging_again_changes_nothing(connection: Connection, feed: Feed) -> None:
    await feed.write(connection, at(1), at(2, latitude=42.0), at(3), at(4, latitude=95.0))
    await run(connection)
    before = await state(connection)
    device_id = await connection.fetchval("SELECT id FROM device WHERE device_number = $1", NUMBER)
    await sweep.add_days(connection, [(device_id, DAY)])
    done = await run(connection)
    assert (done.days, done.changed_flags) == (1, 0)
    assert await state(connection) == before


async def test_what_comes_later_can_explain_and_withdraw(connection: Connection, feed: Feed) -> None:
    """Seen in the order of arrival it was a jump; in the order of device time there was a way."""
    await feed.write(connection, at(1), at(3, latitude=38.04))
    await run(connection, QualitySettings(rules={"KIN-01": {"speed_kmh_max": 150}}))
    assert await connection.fetchval("SELECT state FROM finding WHERE kind = 'KIN-01'") == "confirmed"
    await feed.write(connection, at(2, latitude=38.015), at(2, latitude=38.0))
    await run(connection, QualitySettings(rules={"KIN-01": {"speed_kmh_max": 300}}))
    assert await connection.fetchval("SELECT state FROM finding WHERE kind = 'KIN-01'") == "withdrawn"
    assert await connection.fetchval("SELECT max(flags) FROM signal") == 0


async def test_other_limits_or_versions_judge_every_day_again_without_doubles(
    connection: Connection, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await feed.write(connection, at(1), at(2, latitude=42.0), at(3))
    await run(connection)
    newer = msgspec.structs.replace(TELEPORT, version=2)
    monkeypatch.setattr("signalkeep.rulebook.RULES", (OFF_GLOBE, newer))
    done = await run(connection)
    assert (done.signals, done.days, done.changed_flags) == (0, 1, 0)
    rows = await connection.fetch("SELECT count, rule_version FROM finding WHERE device_id IS NOT NULL")
    assert [tuple(row) for row in rows] == [(1, 2)]
    assert (await run(connection)).days == 0


async def test_a_sweep_that_is_killed_goes_on_where_it_was(connection: Connection, feed: Feed) -> None:
    await feed.write(connection, at(1), at(2, latitude=42.0), at(3))

    class Killed(Exception):
        pass

    def kill_at(days: int) -> Callable[[Swept], None]:
        def kill(done: Swept) -> None:
            if done.days == days:
                raise Killed

        return kill

    for days in (0, 1):
        with pytest.raises(Killed):
            await run(connection, progress=kill_at(days))
    await run(connection)
    assert await connection.fetchval("SELECT sum(count) FROM finding WHERE device_id IS NOT NULL") == 1
    assert await connection.fetchval("SELECT count(*) FROM quality_todo") == 0


async def test_a_sweep_that_fails_while_it_notes_days_sees_their_signals_again(
    connection: Connection, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await feed.write(connection, at(1), at(2, latitude=42.0), at(3))

    async def fail(*_: object) -> None:
        raise OSError("the connection broke")

    with monkeypatch.context() as broken:
        broken.setattr(sweep, "add_days", fail)
        with pytest.raises(OSError, match="broke"):
            await run(connection)
    done = await run(connection)
    assert (done.signals, done.days, done.changed_flags) == (3, 1, 1)


async def test_what_comes_while_a_day_is_judged_postpones_it(connection: Connection, feed: Feed) -> None:
    await feed.write(connection, at(1))
    await run(connection, budget_s=60.0, settled_s=3600.0)
    (waiting,) = await sweep.next_days(connection, settled_s=0.0, count=10)
    await feed.write(connection, at(2))
    empty = sweep.JudgedDay((), (), 1, (0,) * 12, None, {}, {}, (), 0, 0, False)
    assert not await sweep.write_day(connection, waiting, empty, 1, "device")
    assert await connection.fetchval("SELECT count(*) FROM quality_score") == 0


async def test_a_person_beats_the_rules_and_a_person_can_doubt_what_they_believe(
    connection: Connection, feed: Feed
) -> None:
    await feed.write(connection, at(1), at(2, latitude=42.0), at(3))
    await run(connection)
    device_id = await connection.fetchval("SELECT id FROM device WHERE device_number = $1", NUMBER)
    moment = RECEIVED - timedelta(minutes=58)
    await connection.execute(
        "INSERT INTO quality_mark (device_id, begins_at, ends_at, rule, verdict, marked_by)"
        " VALUES ($1, $2, $2, 'KIN-01', 'good', 'anna'), ($1, $3, $3, NULL, 'bad', 'anna')",
        device_id, moment, moment + timedelta(minutes=1),
    )  # fmt: skip
    await sweep.add_days(connection, [(device_id, DAY)])
    await run(connection)
    flags = [row["flags"] for row in await connection.fetch("SELECT flags FROM signal ORDER BY wire_time")]
    assert flags == [0, Flag.PERSON_GOOD, Flag.PERSON_BAD]
    good = await connection.fetch("SELECT latitude FROM signal_good ORDER BY wire_time")
    assert [row["latitude"] for row in good] == [37.98, 42.0]
    assert await connection.fetchval("SELECT state FROM finding WHERE kind = 'KIN-01'") == "withdrawn"


async def test_the_limit_of_an_error_type_reports_the_device(connection: Connection, feed: Feed) -> None:
    frames = [at(minute, latitude=95.0) for minute in range(1, 5)]
    await feed.write(connection, *frames)
    await run(connection)
    limit = "SELECT detail, count FROM finding WHERE kind = 'ERR-1'"
    assert await connection.fetchrow(limit) is None, "four hits, and the limit is five"
    assert await connection.fetchval("SELECT count(*) FROM error_trace WHERE error_code = 1") == 4
    await feed.write(connection, at(6, latitude=95.0))
    await run(connection)
    row = await connection.fetchrow(limit)
    assert row is not None
    assert tuple(row) == ("Broken GPS: 5 hits within 24 h, the limit is 5", 5)


async def test_hits_of_the_evening_before_count_for_the_window(connection: Connection, feed: Feed) -> None:
    midnight = datetime(2026, 5, 1, tzinfo=UTC)
    moments = [midnight + timedelta(minutes=minute) for minute in (-30, -20, -10, 10, 20)]
    await feed.write(connection, *(event(message_date=when.isoformat(), latitude=95.0) for when in moments))
    await run(connection)
    row = await connection.fetchrow("SELECT day, count FROM finding WHERE kind = 'ERR-1'")
    assert row is not None
    assert tuple(row) == (DAY, 5)


async def test_old_days_are_judged_again_at_random(connection: Connection, feed: Feed) -> None:
    """Somebody has taken a mark away, which no new signal would ever show."""
    await feed.write(connection, at(1), at(2, latitude=42.0))
    await run(connection)
    await connection.execute("UPDATE signal SET flags = 0")
    assert (await run(connection, sample_days=0)).days == 0
    done = await run(connection, sample_days=5)
    assert (done.days, done.changed_flags) == (1, 1)


async def test_what_ingest_said_of_a_time_that_is_not_kept_stands(
    connection: Connection, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of 1970 is stored under the time of its arrival: a sweep cannot see any more what was sent."""
    old = BY_ID["TIM-03"]
    monkeypatch.setattr("signalkeep.rulebook.RULES", (old,))
    await feed.write(connection, event(message_date="1970-01-21T18:48:43Z"))
    device_id = await connection.fetchval("SELECT id FROM device WHERE device_number = $1", NUMBER)
    await connection.execute("UPDATE signal SET flags = flags | $1", old.mask)
    await connection.execute(
        "INSERT INTO finding (kind, subject, detail, device_id, day, severity, state, begins_at, ends_at, last_sample)"
        " VALUES ('TIM-03', 'x', 'from 1970', $1, $2, 'warning', 'detected', $3, $3, '{}')",
        device_id, DAY, RECEIVED,
    )  # fmt: skip
    done = await run(connection)
    assert (done.days, done.changed_flags) == (1, 0)
    row = await connection.fetchrow("SELECT detail, state, count, last_sample FROM finding WHERE kind = 'TIM-03'")
    assert row is not None
    assert tuple(row) == ("from 1970", "confirmed", 1, {})
    assert await connection.fetchval("SELECT hits FROM quality_score") == {"TIM-03": 1}
