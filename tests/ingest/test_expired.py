"""What is sent again, replayed or released of a month that went does not come back, and makes no partition."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from signalkeep.clock import SystemClock
from signalkeep.ingest.pipeline import Pipeline, Rules
from signalkeep.ingest.release import Released, release
from signalkeep.ingest.triage import EPOCH
from signalkeep.journal.reader import Chunk
from signalkeep.journal.record import FrameEntry
from signalkeep.store import journals, registry
from signalkeep.store.partitions import months_there
from signalkeep.store.postgres import Connection
from signalkeep.store.quarantine import Selection
from signalkeep.store.retention import Retention, drop_months, months_over
from signalkeep.store.rows import Written
from tests.builders import NUMBER, PROTOCOLS, RECEIVED, assert_sums, event

pytestmark = pytest.mark.servers

APRIL, MAY = (2026, 4), (2026, 5)
RETENTION_DAYS = 30
LATER = timedelta(days=30)  # from RECEIVED: it is the last of May, and April is over


class Moving(SystemClock):
    """It is when the test says."""

    def __init__(self) -> None:
        self.time = RECEIVED

    def now(self) -> datetime:
        return self.time


def sent(day: int, received_after: timedelta = timedelta(0), number: str = NUMBER, **values: Any) -> FrameEntry:
    """An event of a day of April, unless it says otherwise."""
    at = datetime(2026, 4, day, 8, tzinfo=UTC).isoformat()
    received_at = (RECEIVED + received_after - EPOCH) // timedelta(microseconds=1)
    made = event(number, **{"message_date": at, **values})
    return msgspec.structs.replace(made, received_at_us=received_at)


class Ingest:
    """A pipeline of one journal, where months go after RETENTION_DAYS."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.clock = Moving()
        self.rules = Rules(retention=Retention(RETENTION_DAYS, months_go=True, clock=self.clock))
        self.pipeline: Pipeline
        self.seq = 0

    async def open(self) -> Ingest:
        await registry.register(self.connection, NUMBER, actor="tests")
        journal_id = await journals.register(self.connection, uuid4(), "here", Path("/nowhere"), 1)
        self.pipeline = Pipeline(self.connection, journal_id, [0], protocols=PROTOCOLS, rules=self.rules)
        return self

    def chunk(self, *frames: FrameEntry) -> Chunk:
        first, self.seq = self.seq + 1, self.seq + len(frames)
        return Chunk(first, list(frames))

    async def __call__(self, *frames: FrameEntry) -> Written:
        return await self.pipeline.ingest([self.chunk(*frames)])

    async def month_goes(self) -> None:
        self.clock.time = RECEIVED + LATER
        over = await months_over(self.connection, self.clock.now(), RETENTION_DAYS)
        assert over == [APRIL]
        _, waiting = await drop_months(self.connection, over, actor="organizer")
        assert not waiting

    async def quarantined(self) -> list[tuple[str, str]]:
        rows = await self.connection.fetch("SELECT reason, state FROM quarantine ORDER BY id")
        return [(row["reason"], row["state"]) for row in rows]


@pytest.fixture
async def ingest(connection: Connection) -> Ingest:
    return await Ingest(connection).open()


async def test_what_is_sent_again_of_a_month_that_went_is_quarantined_once(
    connection: Connection, ingest: Ingest
) -> None:
    assert (await ingest(sent(10), sent(11), event())).stored == 3
    await ingest.month_goes()
    # Sent again now, replayed as it was received then, and once more.
    again, replayed = sent(10, LATER), sent(11)
    assert msgspec.structs.asdict(await ingest(again, replayed)) == {
        "records": 2, "stored": 0, "duplicate": 0, "quarantined": 2, "suppressed": 0
    }  # fmt: skip
    assert (await ingest(again)).duplicate == 1
    assert await ingest.quarantined() == [("expired", "open")] * 2
    assert await months_there(connection) == [MAY]
    await assert_sums(connection)


async def test_what_is_sent_again_before_its_month_goes_is_a_duplicate(connection: Connection, ingest: Ingest) -> None:
    """The organizer may be late: what is stored is stored."""
    await ingest(sent(10))
    ingest.clock.time = RECEIVED + LATER
    assert (await ingest(sent(10, LATER))).duplicate == 1
    assert (await ingest(sent(11))).quarantined == 1
    await assert_sums(connection)
    await ingest.month_goes()
    await assert_sums(connection)


async def test_what_was_prepared_before_its_month_went_is_looked_at_again(
    connection: Connection, ingest: Ingest
) -> None:
    await ingest(sent(10))
    prepared = await ingest.pipeline.prepare([ingest.chunk(sent(11), event())])
    await ingest.month_goes()
    written = await ingest.pipeline.write(prepared)
    assert (written.stored, written.quarantined) == (1, 1)
    assert await ingest.quarantined() == [("expired", "open")]
    assert await months_there(connection) == [MAY]
    await assert_sums(connection)


async def test_a_record_without_a_clock_goes_by_when_it_was_received(connection: Connection, ingest: Ingest) -> None:
    at_once = sent(10, timedelta(days=-5), message_date="1980-01-06T00:00:00Z")
    assert (await ingest(at_once)).stored == 1
    await ingest.month_goes()
    assert (await ingest(at_once)).quarantined == 1
    assert (await ingest(sent(10, LATER, message_date="1980-01-06T00:00:00Z"))).stored == 1
    assert await months_there(connection) == [MAY]
    await assert_sums(connection)


async def test_without_months_that_go_only_what_comes_late_is_expired(connection: Connection, ingest: Ingest) -> None:
    ingest.rules = Rules(retention=Retention(RETENTION_DAYS, clock=ingest.clock))
    await ingest.open()
    ingest.clock.time = RECEIVED + 100 * LATER
    assert ((await ingest(sent(10))).stored, (await ingest(sent(11, LATER))).quarantined) == (1, 1)


@pytest.mark.parametrize("forced", [False, True])
async def test_nothing_is_released_into_a_month_that_went(connection: Connection, ingest: Ingest, forced: bool) -> None:
    await ingest(sent(10), sent(11, number="77"))
    await registry.register(connection, "77", actor="tests")
    await ingest.month_goes()

    async def released(retention: Retention) -> Released:
        return await release(
            connection, Selection(), forced=forced, closed_by="tests", protocols=PROTOCOLS,
            retention=retention,
        )  # fmt: skip

    assert await released(ingest.rules.retention) == Released(still_quarantined=1, reasons={"expired": 1})
    assert await months_there(connection) == []
    await assert_sums(connection)
    assert await released(Retention(RETENTION_DAYS)) == Released(released=1), "the retention was raised"
    await assert_sums(connection)
