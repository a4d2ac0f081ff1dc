"""`signals list` and `signals tail`: newest first, and every committed row exactly once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from signalkeep import limits
from signalkeep.cli.signals import app, line_of, time_of
from signalkeep.errors import CallerError, DatabaseUnavailable, EnvironmentFault
from signalkeep.store import registry
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.queries import SignalTail, plain_faults
from tests.builders import NUMBER, RECEIVED, Feed, ask, event, fill, frame
from tests.servers import connected, wait_until

pytestmark = pytest.mark.servers

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def listed(dsn: str, data: Path, *arguments: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(
        app, ["list", "--data", str(data), "--json", *arguments], env={"SIGNALKEEP_DATABASE__DSN": dsn}
    )
    assert done.exit_code == 0, done.output
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


# list


def test_a_signal_is_listed_with_everything_that_is_known_of_it(dsn: str, tmp_path: Path) -> None:
    fill(
        dsn,
        event(speed_kmh=54.3, altitude_m=12.1, course_deg=271.4, satellites=9, event_code="4002", ignition=True),
        registered=(NUMBER,),
    )
    (found,) = listed(dsn, tmp_path)
    journal = ask(dsn, "SELECT uuid::text FROM journal")[0]["uuid"]
    assert found == {
        "device_number": NUMBER,
        "device_time": "2026-05-01T12:00:00Z",
        "wire_time": "2026-05-01T12:00:00Z",
        "received_at": "2026-05-01T12:00:00Z",
        "fix_valid": True,
        "latitude": 37.98,
        "longitude": 23.73,
        "altitude_m": 12.1,
        "speed_kmh": 54.3,
        "course_deg": 271.4,
        "satellites": 9,
        "event_code": "4002",
        "attributes": {"ignition": True},
        "flags": [],
        "rules": [],
        "protocol": "json",
        "provenance": {"journal": journal, "seq": 1, "record_no": 0},
    }


def test_one_device_is_listed_by_time_and_all_in_the_order_of_storing(dsn: str, tmp_path: Path) -> None:
    fill(dsn, event("1", minute=10), event("2", minute=5), registered=("1", "2"))
    fill(dsn, event("1", minute=20), event("1", minute=90 * 24 * 60), frame(b'{"device_number": "1"}', "1"))
    wire_times = [RECEIVED - timedelta(minutes=minute) for minute in (0, 10, 20, 90 * 24 * 60)]
    of_one = listed(dsn, tmp_path, "--device", "1")
    assert [datetime.fromisoformat(row["wire_time"]) for row in of_one] == wire_times
    assert of_one[0]["flags"] == ["weak_key"]
    assert [row["provenance"]["seq"] for row in listed(dsn, tmp_path)] == [3, 2, 1, 2, 1]
    assert [row["provenance"]["seq"] for row in listed(dsn, tmp_path, "--limit", "2")] == [3, 2]
    bounds = ("--since", "2026-05-01T11:40", "--until", "2026-05-01T11:55Z")
    assert [row["device_number"] for row in listed(dsn, tmp_path, *bounds)] == ["1", "1"]
    assert len(listed(dsn, tmp_path, "--device", "1", *bounds)) == 2
    assert listed(dsn, tmp_path, "--device", "3") == []


@pytest.mark.parametrize(("condition", "index"), [("device", "pkey"), ("all", "xid")])
async def test_lists_are_read_from_an_index(connection: Connection, condition: str, index: str) -> None:
    await registry.register(connection, NUMBER, actor="tests")
    await (await Feed.open(connection)).write(connection, *(event(minute=minute) for minute in range(50)))
    await connection.execute("SET enable_seqscan = off; SET enable_sort = off; ANALYZE signal")
    ordered = {
        "device": "WHERE device_id = 1 ORDER BY wire_time DESC, digest DESC",
        "all": "ORDER BY xid DESC LIMIT 20",
    }
    plan = await connection.fetch(f"EXPLAIN SELECT * FROM signal {ordered[condition]}")
    text = "\n".join(row[0] for row in plan)
    assert f"_{index}" in text
    assert "Sort" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("2h", NOW - timedelta(hours=2)),
        ("30m", NOW - timedelta(minutes=30)),
        ("2026-05-01", NOW - timedelta(hours=12)),
        ("2026-05-01T12:00:00.5+02:00", NOW - timedelta(hours=2) + timedelta(seconds=0.5)),
    ],
)
def test_times_that_are_understood(text: str | None, expected: datetime | None) -> None:
    assert time_of(text, NOW) == expected


@pytest.mark.parametrize("text", ["yesterday", "", "2h ago", "999999d", "2026-13-01", "-2h"])
def test_times_that_are_not(text: str) -> None:
    with pytest.raises(CallerError):
        time_of(text, NOW)


def test_what_a_device_sent_does_not_steer_the_terminal() -> None:
    row = {
        "device_time": NOW, "wire_time": NOW, "device_number": "1", "latitude": None, "longitude": None, "fix_valid": 0,
        "speed_kmh": None, "event_code": "\x1b[2J", "flags": [], "rules": [], "attributes": {"note": "\x9b2J"},
    }  # fmt: skip
    assert "\x1b" not in line_of(row)
    assert "\x9b" not in line_of(row)


# tail


def keys(rows: list[Row]) -> list[tuple[int, int]]:
    return [(row["journal_id"], row["seq"]) for row in rows]


async def drained(tail: SignalTail, connection: Connection) -> list[tuple[int, int]]:
    """Everything that the tail has now."""
    found: list[tuple[int, int]] = []
    while True:
        rows = await tail.next_page(connection)
        found += keys(rows)
        if len(rows) < limits.TAIL_PAGE_ROWS:
            return found


async def test_a_transaction_that_commits_late_is_neither_missed_nor_doubled(dsn: str, connection: Connection) -> None:
    await registry.register(connection, NUMBER, actor="tests")
    await registry.register(connection, "2", actor="tests")
    first, second = await Feed.open(connection), await Feed.open(connection)
    await first.write(connection, event(minute=9))
    tail = SignalTail()
    async with connected(dsn) as late:
        transaction = late.transaction()
        await transaction.start()
        await first.write(late, event(minute=8))
        await tail.start(connection)
        assert await drained(tail, connection) == [], "neither what was there before nor what is not committed"
        await second.write(connection, event("2", minute=1))
        assert await drained(tail, connection) == [(second.journal_id, 1)], "an open transaction holds up nobody"
        await transaction.commit()
        await second.write(connection, event("2", minute=2))
        assert await drained(tail, connection) == [(first.journal_id, 2), (second.journal_id, 2)]
        assert await drained(tail, connection) == []


async def test_pages_resume_where_a_lost_connection_left_them(
    dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TAIL_PAGE_ROWS", 3)
    await registry.register(connection, NUMBER, actor="tests")
    feed, tail = await Feed.open(connection), SignalTail()
    await feed.write(connection, event(minute=99))
    await tail.start(connection)
    await feed.write(connection, *(event(minute=minute) for minute in range(8)))
    seen = keys(await tail.next_page(connection))
    await feed.write(connection, event(minute=50))
    async with connected(dsn) as other:
        seen += await drained(tail, other)
        seen += await drained(tail, other)
    assert seen == [(feed.journal_id, seq) for seq in range(2, 11)]


async def test_only_the_device_that_is_asked_for(connection: Connection) -> None:
    await registry.register(connection, "1", actor="tests")
    await registry.register(connection, "2", actor="tests")
    feed, tail = await Feed.open(connection), SignalTail("2")
    await tail.start(connection)
    await feed.write(connection, event("1"), event("2"))
    assert await drained(tail, connection) == [(feed.journal_id, 2)]


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_the_order_of_commits_each_row_comes_once(
    dsn: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers begin, write, commit and roll back at random between the pages that the tail takes."""
    monkeypatch.setattr(limits, "TAIL_PAGE_ROWS", 2)
    dice = random.Random(seed)
    async with AsyncExitStack() as stack:
        reader, *writers = [await stack.enter_async_context(connected(dsn)) for _ in range(5)]
        feeds = []
        for number in range(len(writers)):
            await registry.register(reader, str(number), actor="tests")
            feeds.append(await Feed.open(reader))
            await feeds[-1].write(reader, event(str(number), minute=200))
        tail = SignalTail()
        await tail.start(reader)
        seen: list[tuple[int, int]] = []
        committed: list[tuple[int, int]] = []
        open_rows: dict[int, list[tuple[int, int]]] = {}
        transactions = {}
        for minute in range(150):
            number = dice.randrange(len(writers))
            writer, feed = writers[number], feeds[number]
            if dice.random() < 0.3:
                seen += keys(await tail.next_page(reader))
            if number not in open_rows:
                transactions[number] = writer.transaction()
                await transactions[number].start()
                open_rows[number] = []
            elif dice.random() < 0.5:
                open_rows[number].append((feed.journal_id, feed.last_seq + 1))
                await feed.write(writer, event(str(number), minute))
            elif dice.random() < 0.3:
                await transactions[number].rollback()
                feed.last_seq -= len(open_rows.pop(number))
            else:
                await transactions[number].commit()
                committed += open_rows.pop(number)
        for _ in range(2):  # a page that is not full ends what was committed when it began
            seen += await drained(tail, reader)
        assert len(committed) > 10
        assert sorted(seen) == sorted(committed)


async def test_what_an_administrator_can_mend_is_said_in_words(connection: Connection) -> None:
    with pytest.raises(asyncpg.PostgresSyntaxError), plain_faults(connection):
        await connection.execute("SELEC")
    await connection.execute("SET ROLE pg_monitor")
    with pytest.raises(EnvironmentFault, match="permission denied"), plain_faults(connection):
        await connection.fetch("SELECT * FROM signal")
    connection.terminate()
    with pytest.raises(DatabaseUnavailable), plain_faults(connection):
        await connection.fetch("SELECT 1")


PROGRAM = "import sys; from signalkeep.cli.signals import app; sys.argv[0] = 'signals'; app()"


class Tail:
    """`signals tail` as a process, its output in files."""

    def __init__(self, dsn: str, directory: Path, *arguments: str) -> None:
        self._out, self._err = directory / "out", directory / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, "tail", "--data", str(directory), *arguments],
                env={**os.environ, "SIGNALKEEP_DATABASE__DSN": dsn},
                stdout=out,
                stderr=err,
            )

    def lines(self) -> list[str]:
        return self._out.read_text().splitlines()

    def said(self) -> str:
        return self._err.read_text()


@pytest.fixture
def tail(dsn: str, tmp_path: Path) -> Iterator[Tail]:
    started = Tail(dsn, tmp_path, "--json")
    try:
        wait_until(lambda: "following" in started.said(), what="the tail follows")
        yield started
    finally:
        started.process.kill()
        started.process.wait()


def test_the_command_survives_a_lost_database_and_ends_quietly(dsn: str, tail: Tail) -> None:
    fill(dsn, event(minute=2), event(minute=1), registered=(NUMBER,))
    wait_until(lambda: len(tail.lines()) == 2, what="two lines")
    ask(
        dsn,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'signalkeep signals'",
    )
    fill(dsn, event(minute=0))
    wait_until(lambda: len(tail.lines()) == 3, what="the third line")
    assert "waiting for the database" in tail.said()
    assert "is back" in tail.said()
    times = [json.loads(line)["wire_time"] for line in tail.lines()]
    assert times == ["2026-05-01T11:58:00Z", "2026-05-01T11:59:00Z", "2026-05-01T12:00:00Z"]
    tail.process.send_signal(signal.SIGINT)
    assert tail.process.wait(20) == 0
    assert "Traceback" not in tail.said()
    assert "Abort" not in tail.said()
