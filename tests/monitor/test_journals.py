"""How far the database is behind, from real journals: living, dead, new to the database and unknown to it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from signalkeep.clock import SystemClock
from signalkeep.config import Settings, load
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.writer import JournalWriter
from signalkeep.monitor.journals import JournalWatch
from signalkeep.roles import prepare_directories
from signalkeep.vitals import Vitals
from tests.builders import event
from tests.monitor.pictures import gateway_numbers, ingest_numbers, vitals

SEGMENT_BYTES = 256 * 1024


class LaterClock:
    """An hour after the entries of `event` were received."""

    def __init__(self, received_at: datetime) -> None:
        self._now = received_at + timedelta(hours=1)

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = load(tmp_path / "data", environ={})
    prepare_directories(made)
    return made


async def journal(settings: Settings, entries: int) -> str:
    """A dead one; its uuid."""
    writer = JournalWriter.create(
        LocalFileSystem(), settings.journal_root, clock=SystemClock(), segment_bytes=SEGMENT_BYTES
    )
    for _ in range(entries):
        writer.append(event())
    await asyncio.gather(writer.run(), writer.close())
    return writer.journal_id.hex


def watch(settings: Settings) -> JournalWatch:
    received_at = datetime.fromtimestamp(event().received_at_us / 1e6, UTC)
    return JournalWatch(settings, LocalFileSystem(), LaterClock(received_at))


def ingest(**positions: int) -> Vitals:
    return vitals("ingest", numbers=ingest_numbers(positions=positions))


async def test_lags_are_summed_and_the_largest_is_named(settings: Settings) -> None:
    first, second = await journal(settings, 5), await journal(settings, 9)
    facts = watch(settings).look([], {first: 5, second: 2})
    assert (facts.journals, facts.segments) == (2, 2)
    assert (facts.durable_entries, facts.lag_entries, facts.lag_max_entries) == (14, 7, 7)
    assert facts.oldest_age_s == pytest.approx(3600, abs=1)
    assert facts.used_bytes > 0
    assert facts.free_bytes > 0


async def test_ingest_knows_more_than_the_last_answer_of_the_database(settings: Settings) -> None:
    name = await journal(settings, 5)
    watching = watch(settings)
    assert watching.look([ingest(**{name: 4})], {name: 2}).lag_entries == 1
    done = watching.look([ingest(**{name: 5})], {name: 2})
    assert (done.lag_entries, done.oldest_age_s) == (0, 0.0)


async def test_a_journal_that_is_new_to_the_database_waits_whole(settings: Settings) -> None:
    await journal(settings, 5)
    assert watch(settings).look([], {}).lag_entries == 5


async def test_what_nobody_has_said_is_unknown_not_zero(settings: Settings) -> None:
    name = await journal(settings, 5)
    facts = watch(settings).look([], None)
    assert (facts.lag_entries, facts.lag_max_entries, facts.oldest_age_s) == (None, None, None)
    assert watch(settings).look([ingest(**{name: 3})], None).lag_entries == 2


async def test_a_living_journal_is_as_far_as_its_gateway_says(settings: Settings) -> None:
    writer = JournalWriter.create(
        LocalFileSystem(), settings.journal_root, clock=SystemClock(), segment_bytes=SEGMENT_BYTES
    )
    running = asyncio.create_task(writer.run())
    durable = asyncio.Event()
    for _ in range(3):
        writer.append(event(), lambda _: durable.set())
    await durable.wait()
    watching = watch(settings)
    numbers = gateway_numbers(journal=writer.journal_id.hex, durable_seq=3)
    facts = watching.look([vitals("gateway", numbers=numbers)], {writer.journal_id.hex: 1})
    assert (facts.lag_entries, facts.durable_entries) == (2, 3)
    assert facts.oldest_age_s == pytest.approx(3600, abs=1)
    await writer.close()
    await running
    assert watching.look([], {writer.journal_id.hex: 1}).lag_entries == 2, "dead, it is read from its files"


def test_no_journals(settings: Settings) -> None:
    facts = watch(settings).look([], None)
    assert (facts.journals, facts.used_bytes, facts.lag_entries, facts.oldest_age_s) == (0, 0, 0, 0.0)
