"""Push-back: what may have become storable is tried by itself, less and less often, and no record holds up another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from signalkeep import __version__, limits
from signalkeep.cli.jobs import push_back_jobs
from signalkeep.config import load
from signalkeep.ingest.pace import Pace
from signalkeep.ingest.push_back import push_back
from signalkeep.ingest.release import Released, Releaser
from signalkeep.model import Context, DeviceSettings, Outcome, Reason
from signalkeep.protocols.contract import TrackerProtocol
from signalkeep.protocols.json_events import JSON
from signalkeep.store import push_back as stored
from signalkeep.store import registry
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.retention import Retention
from tests.builders import NUMBER, PROTOCOLS, RECEIVED, Feed, ask, assert_sums, event, fill, frame
from tests.cli.commands import Commands
from tests.gateway.toy import ToyProtocol
from tests.ingest.support import HandClock

pytestmark = pytest.mark.servers

MINUTE = 60


class Moody(ToyProtocol):
    """A decoder that fails while it is told to, and reads well in between."""

    def __init__(self) -> None:
        self.fails = True
        self.calls = 0

    def decode(self, frame: bytes, device_number: str, context: Context, settings: DeviceSettings) -> list[Outcome]:
        self.calls += 1
        if self.fails:
            raise RuntimeError("not today")
        return JSON.decode(frame, device_number, context, settings)


class Again:
    """Runs of push-back, with the time in hand."""

    def __init__(self, connection: Connection, protocols: Mapping[str, TrackerProtocol] = PROTOCOLS) -> None:
        self.connection = connection
        self.protocols = protocols
        self.clock = HandClock(RECEIVED)
        self.version = "1"

    async def run(self, after_s: float = 0, attempts_max: int = 10) -> Released:
        self.clock.move(after_s)
        return await push_back(
            self.connection,
            clock=self.clock,
            protocols=self.protocols,
            retention=Retention(),
            attempts_max=attempts_max,
            version=self.version,
        )

    async def row(self) -> Row:
        (row,) = await self.connection.fetch("SELECT * FROM quarantine")
        return row


@pytest.fixture(autouse=True)
def ingested_under(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signalkeep.store.writer.__version__", "1")


async def add(connection: Connection, number: str = NUMBER, **values: Any) -> None:
    await registry.register(connection, number, actor="tests", **values)


async def count(connection: Connection) -> int:
    found: int = await connection.fetchval("SELECT count(*) FROM signal")
    return found


# What makes a row due ------------------------------------------------------------------------------------------------


async def test_what_waited_for_its_device_becomes_rows_by_itself(connection: Connection) -> None:
    await (await Feed.open(connection)).write(connection, event(minute=1), event(minute=2), event("2"))
    again = Again(connection)
    assert await again.run() == Released(), "nobody has registered it"
    await add(connection)
    assert await again.run() == Released(released=2)
    rows = await connection.fetch("SELECT state, closed_by, attempts, trying_since FROM quarantine ORDER BY id")
    assert [tuple(row) for row in rows] == [("released", "push-back", 1, None)] * 2 + [("open", None, 0, None)]
    (logged,) = await connection.fetch("SELECT actor, action FROM audit_log WHERE action LIKE 'quarantine%'")
    assert tuple(logged) == ("push-back", "quarantine.release")
    await assert_sums(connection)
    assert await again.run(86_400) == Released()


async def test_a_retired_device_waits_until_it_is_active_again(connection: Connection) -> None:
    await add(connection)
    await registry.retire(connection, NUMBER, actor="tests")
    await (await Feed.open(connection)).write(connection, event())
    again = Again(connection)
    assert await again.run(86_400) == Released()
    await add(connection)
    assert await again.run() == Released(released=1)


async def test_tries_of_people_do_not_keep_a_device_waiting(connection: Connection) -> None:
    await (await Feed.open(connection)).write(connection, event())
    await connection.execute("UPDATE quarantine SET attempts = 99, tried_at = now() + interval '9 years'")
    await add(connection)
    assert await Again(connection).run() == Released(released=1)


async def test_another_version_tries_once_what_could_not_be_read(connection: Connection) -> None:
    await add(connection)
    await (await Feed.open(connection)).write(connection, frame(b"no JSON at all"))
    again = Again(connection)
    assert await again.run(86_400) == Released(), "this version has said what it thinks of it"
    again.version = "2"
    assert await again.run() == Released(still_quarantined=1, reasons={"bad_format": 1})
    row = await again.row()
    assert (row["attempts"], row["tried_at"], row["tried_under"]) == (1, again.clock.at, "2")
    assert await again.run(86_400) == Released()


async def test_a_changed_model_is_reason_enough_to_read_again(connection: Connection) -> None:
    await add(connection)
    await (await Feed.open(connection)).write(connection, frame(b"no JSON at all"))
    await add(connection, model="X2")
    again = Again(connection)
    assert (await again.run()).still_quarantined == 1
    assert await again.run(86_400) == Released(), "once"


async def test_what_cannot_pass_by_itself_is_left_to_people(connection: Connection) -> None:
    await (await Feed.open(connection)).write(
        connection, event(message_date=(RECEIVED + timedelta(days=9)).isoformat())
    )
    await add(connection)
    again = Again(connection)
    assert (await again.run()).reasons == {"future": 1}
    again.version = "2"
    await add(connection, model="X2")
    assert await again.run(86_400) == Released()


# Back-off -----------------------------------------------------------------------------------------------------------


async def test_a_decoder_that_fails_twice_and_then_works(connection: Connection) -> None:
    moody = Moody()
    again = Again(connection, {"json": moody})
    await add(connection)
    await (await Feed.open(connection)).write(connection, event(), protocols={"json": moody})
    assert await again.run() == Released(), "not at once"
    assert (await again.run(1 * MINUTE)).reasons == {"decoder_error": 1}
    assert await again.run(1 * MINUTE) == Released(), "it doubles"
    assert (await again.run(1 * MINUTE)).reasons == {"decoder_error": 1}
    row = await again.row()
    assert (row["attempts"], row["tried_at"], row["reason"]) == (2, again.clock.at, Reason.DECODER_ERROR)
    moody.fails = False
    assert await again.run(4 * MINUTE - 1) == Released()
    assert await again.run(1) == Released(released=1)
    assert await count(connection) == 1
    await assert_sums(connection)
    assert await again.run(86_400) == Released()
    assert await count(connection) == 1


async def test_what_always_fails_is_given_up_until_another_version_comes(connection: Connection) -> None:
    moody = Moody()
    again = Again(connection, {"json": moody})
    await add(connection)
    await (await Feed.open(connection)).write(connection, event(), protocols={"json": moody})
    calls = moody.calls
    for _ in range(20):
        await again.run(86_400, attempts_max=3)
    assert moody.calls - calls == 3
    assert (await again.row())["attempts"] == 3
    assert await stored.given_up(connection, "1", 3) == 1
    again.version = "2"
    assert (await again.run(attempts_max=3)).still_quarantined == 1
    assert await again.run(86_400, attempts_max=3) == Released(), "and that tries it once"
    moody.fails, again.version = False, "3"
    assert await again.run(attempts_max=3) == Released(released=1)
    assert await stored.given_up(connection, "3", 3) == 0


def test_the_back_off_doubles_up_to_a_day() -> None:
    assert [stored.back_off(attempts).total_seconds() for attempts in (0, 1, 2, 10, 11, 999)] == [
        60, 120, 240, 61_440, 86_400, 86_400,
    ]  # fmt: skip


async def test_a_record_that_the_database_rejects_holds_up_no_other(connection: Connection) -> None:
    feed = await Feed.open(connection)
    codes = {3: "poison", 5: "poison"}
    await feed.write(connection, *(event(minute=minute, event_code=codes.get(minute)) for minute in range(9)))
    await add(connection)
    await connection.execute("ALTER TABLE signal ADD CONSTRAINT taste CHECK (event_code <> 'poison')")
    again = Again(connection)
    assert await again.run() == Released(released=7, still_quarantined=2, reasons={"database_rejected": 2})
    assert (await again.run(2 * MINUTE)).still_quarantined == 2
    await connection.execute("ALTER TABLE signal DROP CONSTRAINT taste")
    assert await again.run(4 * MINUTE) == Released(released=2)
    await assert_sums(connection)


# Tries that end their process ---------------------------------------------------------------------------------------


async def test_a_record_that_ends_its_process_is_tried_alone(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is cut off whenever the poison is among what it tries, before anything is written."""

    class Killed(BaseException):
        pass

    settle = Releaser.settle

    async def deadly(self: Releaser, rows: list[Row], frames: Mapping[int, Row]) -> None:
        if any(row["seq"] == 4 for row in rows):
            raise Killed
        await settle(self, rows, frames)

    monkeypatch.setattr(Releaser, "settle", deadly)
    await (await Feed.open(connection)).write(connection, *(event(minute=minute) for minute in range(9)))
    await add(connection)
    again = Again(connection)
    with pytest.raises(Killed):
        await again.run(attempts_max=3)
    assert await count(connection) == 0
    assert await again.run(attempts_max=3) == Released(), "not at once"
    for _ in range(3):
        try:
            await again.run(86_400, attempts_max=3)
        except Killed:
            continue
    assert await count(connection) == 8, "the others were not to blame"
    row = await connection.fetchrow("SELECT * FROM quarantine WHERE state = 'open'")
    assert row is not None
    assert (row["seq"], row["attempts"]) == (4, 3)
    assert await again.run(86_400, attempts_max=3) == Released(), "it is left alone"
    again.version = "2"
    monkeypatch.undo()
    assert await again.run(attempts_max=3) == Released(released=1)
    await assert_sums(connection)


async def test_cut_off_after_its_time_it_leaves_the_rest_to_the_next_run(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "QUARANTINE_RELEASE_BATCH", 4)
    monkeypatch.setattr(limits, "PUSH_BACK_RUN_S", 0.5)
    await (await Feed.open(connection)).write(connection, *(event(minute=minute) for minute in range(9)))
    await add(connection)
    again = Again(connection)

    async def sleep(wait_s: float) -> None:
        again.clock.move(wait_s)

    result = await push_back(
        connection,
        clock=again.clock,
        protocols=PROTOCOLS,
        retention=Retention(),
        attempts_max=3,
        pace=Pace(4, clock=again.clock, sleep=sleep),
        version="1",
    )
    assert result == Released(released=4)
    assert await again.run() == Released(released=5)


# The whole ----------------------------------------------------------------------------------------------------------


async def test_the_job(connection: Connection, dsn: str, tmp_path: Path) -> None:
    await (await Feed.open(connection)).write(connection, event())
    await add(connection)
    settings = load(tmp_path, environ={"SIGNALKEEP_DATABASE__DSN": dsn, "SIGNALKEEP_PUSH_BACK__EVERY_S": "7"})
    (job,) = push_back_jobs(settings, HandClock(RECEIVED))
    assert (job.name, job.every_s) == ("push-back", 7.0)
    assert await job.work(connection) == "1 records released, 0 tried in vain"
    off = load(tmp_path, environ={"SIGNALKEEP_PUSH_BACK__ENABLED": "false"})
    assert push_back_jobs(off, HandClock(RECEIVED)) == []


def test_the_list_says_when_each_is_tried_next(dsn: str, tmp_path: Path) -> None:
    fill(dsn, event("1"), event("2"), frame(b"no JSON", "3"), registered=("3",))
    fill(dsn, registered=("2",))
    ask(dsn, "UPDATE quarantine SET tried_under = $1 WHERE id = 3", __version__)
    cli = Commands(dsn, tmp_path)
    assert [row["next_try"] for row in cli.json("quarantine", "list")] == [
        "with another version",
        "soon",
        "once registered",
    ]
    ask(dsn, "UPDATE quarantine SET reason = 'decoder_error', tried_under = $1, attempts = 2", __version__)
    ask(dsn, "UPDATE quarantine SET tried_revision = 99")
    shown = {row["id"]: row["next_try"] for row in cli.json("quarantine", "list")}
    assert shown == dict.fromkeys((1, 2, 3), "2026-05-01T12:04:00Z")
    ask(dsn, "UPDATE quarantine SET attempts = 10 WHERE id = 1")
    assert json.loads(cli("quarantine", "show", "1", "--json"))["next_try"] == "with another version"
