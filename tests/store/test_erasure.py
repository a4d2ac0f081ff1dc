"""What was erased is gone, is counted, and nothing brings it back: no re-send, no replay, no release, no restore."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from signalkeep import limits
from signalkeep.clock import SystemClock
from signalkeep.config import Settings, load
from signalkeep.errors import CallerError, EnvironmentFault
from signalkeep.ingest.pipeline import Pipeline, Rules
from signalkeep.ingest.release import release
from signalkeep.ingest.service import IngestService
from signalkeep.integrity.quality import QualitySweep
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.reader import Chunk
from signalkeep.journal.record import FrameEntry
from signalkeep.journal.writer import JournalWriter
from signalkeep.rulebook import Rulebook
from signalkeep.sections import QualitySettings
from signalkeep.store import erasure, erasure_log, journals, quality, registry
from signalkeep.store.erasure import erase, finish_erasures, reapply_erasures
from signalkeep.store.postgres import Connection
from signalkeep.store.quarantine import Selection, discard
from signalkeep.store.retention import Retention
from signalkeep.store.sweep import JudgedDay, next_days, write_day
from tests.builders import NUMBER, PROTOCOLS, RECEIVED, Feed, assert_sums, event
from tests.servers import connected, wait_until_async

pytestmark = pytest.mark.servers

OTHER = "357544371234567"
FLOOR = RECEIVED - timedelta(minutes=10)
LATE = timedelta(hours=1)


def later(minute: int, number: str = NUMBER, **values: object) -> FrameEntry:
    """An event that was received an hour after the others, `minute` minutes after RECEIVED."""
    sent = event(number, minute=-minute, **values)
    received_at_us = sent.received_at_us + int(LATE.total_seconds() * 1_000_000)
    return FrameEntry(received_at_us, "json", number, sent.peer, {}, sent.raw)


@pytest.fixture
async def log(connection: Connection, tmp_path: Path) -> Path:
    await registry.register(connection, NUMBER, actor="tests")
    await registry.register(connection, OTHER, actor="tests")
    return tmp_path / "erasures.jsonl"


async def times(connection: Connection, table: str = "signal", number: str = NUMBER) -> list[datetime]:
    rows = await connection.fetch(
        f"SELECT wire_time FROM {table} t JOIN device d ON d.id = device_id WHERE device_number = $1 ORDER BY 1", number
    )
    return [row["wire_time"] for row in rows]


async def ledger(connection: Connection, number: str = NUMBER) -> dict[str, int]:
    row = await connection.fetchrow(
        "SELECT sum(records)::int AS records, sum(stored)::int AS stored, sum(duplicate)::int AS duplicate, "
        "sum(quarantined)::int AS quarantined, sum(suppressed)::int AS suppressed, sum(erased)::int AS erased, "
        "sum(erased_quarantine)::int AS erased_quarantine FROM ledger JOIN device d ON d.id = device_id "
        "WHERE device_number = $1",
        number,
    )
    assert row is not None
    return dict(row)


async def test_up_to_a_moment_everything_goes_and_the_sums_hold(connection: Connection, log: Path) -> None:
    feed = await Feed.open(connection)
    bad = [later(minute, latitude="north") for minute in (-20, 30)]
    await feed.write(connection, *(later(minute) for minute in range(-20, 20)), *bad, event(OTHER, minute=15))
    done = await erase(connection, NUMBER, FLOOR, log=log, actor="tests")
    assert (done.signals, done.quarantined, done.frames, done.erased_to) == (11, 1, 1, FLOOR)
    assert await times(connection) == [RECEIVED + timedelta(minutes=minute) for minute in range(-9, 20)]
    assert len(await times(connection, "quarantine")) == 1
    assert len(await times(connection, number=OTHER)) == 1
    await assert_sums(connection)
    line = await ledger(connection)
    assert (line["stored"], line["erased"], line["erased_quarantine"]) == (40, 11, 1)
    assert erasure_log.read(log) == ({NUMBER: FLOOR}, [])
    actions = await connection.fetch(
        "SELECT action, detail FROM audit_log WHERE action LIKE 'device.erase%' ORDER BY id"
    )
    assert [row["action"] for row in actions] == ["device.erase", "device.erased"]
    assert actions[1]["detail"]["signals"] == 11


async def test_pages_are_bounded_and_reported(
    connection: Connection, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ERASE_BATCH_ROWS", 3)
    feed = await Feed.open(connection)
    await feed.write(connection, *(event(minute=minute) for minute in range(10)))
    await feed.write(connection, *(event(minute=minute, latitude="x") for minute in range(7)))
    said: list[int] = []
    await erase(connection, NUMBER, RECEIVED, log=log, actor="tests", progress=said.append)
    assert said == [3, 6, 9, 10, 13, 16, 17]
    assert await connection.fetchval("SELECT count(*) FROM quarantine_frame") == 0
    await assert_sums(connection)


async def test_what_is_sent_again_stays_away_and_newer_data_are_stored(connection: Connection, log: Path) -> None:
    feed = await Feed.open(connection)
    old, bad = event(minute=20), event(minute=21, latitude="north")
    await feed.write(connection, old, bad)
    await erase(connection, NUMBER, FLOOR, log=log, actor="tests")
    written = await feed.write(connection, old, bad, later(-20), later(1))
    assert (written.records, written.stored, written.suppressed) == (4, 1, 3)
    assert await times(connection) == [RECEIVED + timedelta(minutes=1)]
    assert await times(connection, "quarantine") == []
    await assert_sums(connection)


async def test_what_was_received_before_the_floor_is_erased_whatever_its_clock_said(
    connection: Connection, log: Path
) -> None:
    feed = await Feed.open(connection)
    ahead = event(minute=-120)  # its clock is two hours ahead
    await feed.write(connection, ahead)
    await erase(connection, NUMBER, RECEIVED + timedelta(minutes=1), log=log, actor="tests")
    assert await times(connection) == []
    assert (await feed.write(connection, ahead)).suppressed == 1
    await assert_sums(connection)


async def test_every_state_of_quarantine_is_erased_and_booked(connection: Connection, log: Path) -> None:
    feed = await Feed.open(connection)
    await feed.write(connection, *(event("9", minute=minute) for minute in range(4)))
    forced = Selection(ids=(1,))
    await release(connection, forced, forced=True, closed_by="tests", protocols=PROTOCOLS, retention=Retention())
    await discard(connection, Selection(ids=(2,)), closed_by="tests")
    done = await erase(connection, "9", RECEIVED, log=log, actor="tests")
    assert (done.signals, done.quarantined, done.frames) == (1, 4, 4)
    await assert_sums(connection)
    state = await connection.fetchrow("SELECT quarantine_open FROM device_state WHERE quarantined > 0")
    assert state is not None
    assert state["quarantine_open"] == 0


async def test_the_latest_position_becomes_that_of_what_is_left(connection: Connection, log: Path) -> None:
    feed = await Feed.open(connection)
    await feed.write(connection, event(minute=30), event(minute=20))
    position = "SELECT device_time, latitude FROM device_state JOIN device ON id = device_id WHERE device_number = $1"
    await erase(connection, NUMBER, RECEIVED - timedelta(minutes=25), log=log, actor="tests")
    row = await connection.fetchrow(position, NUMBER)
    assert row is not None
    assert row["device_time"] == RECEIVED - timedelta(minutes=20)
    await erase(connection, NUMBER, RECEIVED, log=log, actor="tests")
    row = await connection.fetchrow(position, NUMBER)
    assert row is not None
    assert tuple(row) == (None, None)


async def test_a_floor_never_sinks(connection: Connection, log: Path) -> None:
    await erase(connection, NUMBER, RECEIVED, log=log, actor="tests")
    done = await erase(connection, NUMBER, FLOOR, log=log, actor="tests")
    assert done.erased_to == RECEIVED


async def test_a_release_cannot_bring_it_back_while_rows_are_being_deleted(connection: Connection, log: Path) -> None:
    """The floor is raised and the row is still there: it is left alone until the deletion reaches it."""
    feed = await Feed.open(connection)
    await feed.write(connection, event("9", minute=20), event("9", minute=21, latitude="north"))
    await erasure._raise_floor(connection, "9", FLOOR, actor="tests")
    selection = Selection(device_number="9")
    await registry.register(connection, "9", actor="tests")
    released = await release(
        connection, selection, forced=True, closed_by="tests", protocols=PROTOCOLS, retention=Retention()
    )
    assert (released.released, released.replaced, released.still_quarantined) == (0, 0, 2)
    (done,) = await finish_erasures(connection)
    assert done.quarantined == 2
    assert await finish_erasures(connection) == []
    await assert_sums(connection)


async def test_nothing_is_erased_that_cannot_be_noted_or_that_nobody_knows(connection: Connection, log: Path) -> None:
    feed = await Feed.open(connection)
    await feed.write(connection, event())
    with pytest.raises(EnvironmentFault, match="nothing was erased"):
        await erase(connection, NUMBER, RECEIVED, log=log.parent / "no" / "file", actor="tests")
    with pytest.raises(CallerError, match="nobody"):
        await erase(connection, "404", RECEIVED, log=log, actor="tests")
    assert erasure_log.read(log) == ({}, [])
    assert len(await times(connection)) == 1


async def ingest(connection: Connection, journal_id: int, entries: list[FrameEntry]) -> None:
    """As a driver does it, from the cursor on, in batches."""
    (cursor,) = await journals.cursors(connection, journal_id)
    pipeline = Pipeline(connection, journal_id, [cursor], protocols=PROTOCOLS, rules=Rules())
    for start in range(cursor, len(entries), 5):
        await pipeline.ingest([Chunk(start + 1, list(entries[start : start + 5]))])
        await asyncio.sleep(0)


async def test_erasing_while_ingest_writes_and_replaying_the_whole_journal(
    connection: Connection, dsn: str, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ERASE_BATCH_ROWS", 7)
    entries = [
        event(number, minute=minute, **({"latitude": "north"} if minute % 5 == 0 else {}))
        for minute in range(150)
        for number in (NUMBER, OTHER)
    ]
    entries += [later(minute) for minute in range(1, 20)]
    journal_id = await journals.register(connection, UUID(int=1), "tests", Path("/nowhere"), 1)
    async with connected(dsn) as other:
        writing = asyncio.create_task(ingest(other, journal_id, entries))
        await wait_until_async(lambda: times(connection))
        await erase(connection, NUMBER, RECEIVED, log=log, actor="tests")
        await writing
    kept = [RECEIVED + timedelta(minutes=minute) for minute in range(1, 20)]
    assert await times(connection) == kept
    assert await times(connection, "quarantine") == []
    await assert_sums(connection)
    line = await ledger(connection)
    assert line["erased"] + line["erased_quarantine"] + line["suppressed"] == 150

    others = await times(connection, number=OTHER)
    await connection.execute("UPDATE cursor SET seq = 0")
    await ingest(connection, journal_id, entries)
    assert await times(connection) == kept
    assert await times(connection, "quarantine") == []
    assert await times(connection, number=OTHER) == others
    await assert_sums(connection)
    assert (await ledger(connection))["suppressed"] == line["suppressed"] + 150


# After a restore


async def test_a_restored_database_is_erased_again(connection: Connection, log: Path) -> None:
    feed = await Feed.open(connection)
    await feed.write(connection, event(minute=20), later(1))
    noted = erasure_log.NotedErasure(at=RECEIVED, device_number=NUMBER, erased_to=FLOOR, actor="somebody")
    erasure_log.append(log, noted)
    erasure_log.append(log, erasure_log.NotedErasure(at=RECEIVED, device_number="77", erased_to=FLOOR, actor="x"))
    done = await reapply_erasures(connection, log)
    assert [(erased.device_number, erased.signals) for erased in done] == [(NUMBER, 1), ("77", 0)]
    assert await times(connection) == [RECEIVED + timedelta(minutes=1)]
    findings = await connection.fetch("SELECT subject, detail FROM finding WHERE kind = 'erasure_repeated' ORDER BY 1")
    assert [row["subject"] for row in findings] == ["device 77", f"device {NUMBER}"]
    assert await reapply_erasures(connection, log) == []
    assert (await feed.write(connection, event("77", minute=20))).suppressed == 1, "the journal may still name it"
    await assert_sums(connection)


def test_a_line_that_was_cut_short_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "erasures.jsonl"
    first = erasure_log.NotedErasure(at=RECEIVED, device_number="1", erased_to=FLOOR, actor="x")
    erasure_log.append(path, first)
    with path.open("ab") as file:
        file.write(b'{"at":"20')
    assert erasure_log.read(path) == ({"1": FLOOR}, [])
    erasure_log.append(path, erasure_log.NotedErasure(at=RECEIVED, device_number="1", erased_to=RECEIVED, actor="x"))
    assert erasure_log.read(path) == ({"1": RECEIVED}, [2])
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def damaged(log: Path) -> None:
    log.write_bytes(b"nonsense\n")


@pytest.mark.usefixtures("damaged")
async def test_lines_that_cannot_be_read_are_named(connection: Connection, log: Path) -> None:
    await reapply_erasures(connection, log)
    assert "lines 1 cannot be read" in await connection.fetchval("SELECT detail FROM finding WHERE device_id IS NULL")


def settings(data: Path, dsn: str) -> Settings:
    return load(data, environ={"SIGNALKEEP_DATABASE__DSN": dsn})


async def test_ingest_erases_again_before_it_drives_a_journal(dsn: str, connection: Connection, log: Path) -> None:
    """A database older than the erasure, the journal still there: nothing of it is ever stored."""
    (log.parent / "journal").mkdir()
    writer = JournalWriter.create(LocalFileSystem(), log.parent / "journal", clock=SystemClock(), segment_bytes=1 << 20)
    for entry in (event(minute=20), event(minute=21), later(1)):
        writer.append(entry)
    await writer.close()
    erasure_log.append(log, erasure_log.NotedErasure(at=RECEIVED, device_number=NUMBER, erased_to=FLOOR, actor="x"))
    stop = asyncio.Event()
    service = IngestService(settings(log.parent, dsn), fs=LocalFileSystem(), clock=SystemClock(), stop=stop)
    running = asyncio.create_task(service.run())
    try:
        await wait_until_async(
            lambda: connection.fetchval("SELECT count(*) = 3 FROM ledger, generate_series(1, records)")
        )
        await wait_until_async(lambda: connection.fetchval("SELECT erased_at IS NOT NULL FROM device WHERE id = 1"))
    finally:
        stop.set()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert (await ledger(connection))["suppressed"] == 2
    assert (await ledger(connection))["erased"] == 0, "it never was a row again"
    assert await times(connection) == [RECEIVED + timedelta(minutes=1)]
    await assert_sums(connection)


async def test_housekeeping_leaves_an_erasure_that_has_begun_to_whoever_began_it(
    connection: Connection, dsn: str, log: Path
) -> None:
    erasure_log.append(log, erasure_log.NotedErasure(at=RECEIVED, device_number=NUMBER, erased_to=FLOOR, actor="x"))
    async with connected(dsn) as other:
        await other.execute("SELECT pg_advisory_lock($1, 1)", erasure.LOCK_CLASS)
        assert await reapply_erasures(connection, log) == []
        assert await connection.fetchval("SELECT count(*) FROM finding WHERE device_id IS NULL") == 0
    await wait_until_async(lambda: reapply_erasures(connection, log))
    assert await connection.fetchval("SELECT kind FROM finding WHERE device_id IS NULL") == "erasure_repeated"


async def test_what_rules_and_people_said_of_erased_days_goes_with_them(connection: Connection, log: Path) -> None:
    """Findings hold samples of positions. The day of the floor is judged again by what is left of it."""
    feed = await Feed.open(connection)
    days_ago = 24 * 60
    await feed.write(connection, *(event(minute=minute, latitude=95.0) for minute in (2 * days_ago, 20, 0)))
    sweep = QualitySweep(connection, Rulebook(QualitySettings()), SystemClock(), budget_s=60, settled_s=0)
    await sweep.run()
    device_id = await connection.fetchval("SELECT id FROM device WHERE device_number = $1", NUMBER)
    await quality.mark(connection, NUMBER, FLOOR, FLOOR, rule=None, verdict="bad", note="", actor="tests")

    async def said() -> list[int]:
        tables = ("finding WHERE kind = 'POS-01' AND", "quality_score WHERE", "quality_mark WHERE")
        return [await connection.fetchval(f"SELECT count(*) FROM {one} device_id = $1", device_id) for one in tables]

    assert await said() == [2, 2, 1]
    await erase(connection, NUMBER, FLOOR, log=log, actor="tests")
    assert await said() == [0, 0, 0]
    await QualitySweep(connection, Rulebook(QualitySettings()), SystemClock(), budget_s=60, settled_s=0).run()
    assert await said() == [1, 1, 0]
    row = await connection.fetchrow("SELECT signals, day FROM quality_score WHERE device_id = $1", device_id)
    assert row is not None
    assert (row["signals"], row["day"]) == (1, RECEIVED.date())


async def test_a_sweep_under_way_does_not_bring_back_what_was_erased(connection: Connection, log: Path) -> None:
    feed = await Feed.open(connection)
    await feed.write(connection, event(minute=24 * 60), event(minute=20), event(minute=0))
    settings = QualitySettings()
    await QualitySweep(connection, Rulebook(settings), SystemClock(), budget_s=60, settled_s=3600).run()
    waiting = await next_days(connection, settled_s=0, count=10)
    assert len(waiting) == 2
    await erase(connection, NUMBER, FLOOR, log=log, actor="tests")
    judged = JudgedDay((), (), 3, (0,) * 12, None, {}, {}, (), 0, 0, False)
    assert [await write_day(connection, one, judged, 1, "device") for one in waiting] == [False, False]
