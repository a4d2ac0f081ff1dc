"""Rules at ingest: what they mark, what becomes of it in the database, and that they never cost a record."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from signalkeep.clock import SystemClock
from signalkeep.ingest.judging import Judging
from signalkeep.ingest.pipeline import Pipeline, Rules
from signalkeep.journal.reader import Chunk
from signalkeep.journal.record import FrameEntry
from signalkeep.model import Flag
from signalkeep.rulebook import Rulebook
from signalkeep.rules.catalogue import BY_ID
from signalkeep.sections import QualitySettings
from signalkeep.store import journals
from signalkeep.store.postgres import Connection
from tests.builders import NUMBER, PROTOCOLS, RECEIVED, assert_sums, event

pytestmark = pytest.mark.servers

TELEPORT = BY_ID["KIN-01"]


class Site:
    """A journal that goes through a pipeline with rules."""

    def __init__(self, connection: Connection, settings: QualitySettings | None = None) -> None:
        self.connection = connection
        self.settings = settings or QualitySettings()
        self.journal_id = 0
        self.next_seq = 1
        self.pipeline: Pipeline
        self.judging: Judging

    async def open(self) -> Site:
        self.journal_id = await journals.register(self.connection, UUID(int=7), "here", Path("/nowhere"), 1)
        await self.begin_anew()
        return self

    async def begin_anew(self) -> None:
        """As after a restart: nothing is remembered but what is stored."""
        self.judging = Judging(Rulebook(self.settings), SystemClock())
        self.pipeline = Pipeline(
            self.connection, self.journal_id, await journals.cursors(self.connection, self.journal_id),
            protocols=PROTOCOLS, rules=Rules(register_unknown=True), judging=self.judging,
        )  # fmt: skip

    async def feed(self, *frames: FrameEntry) -> None:
        chunk = Chunk(self.next_seq, [*frames])
        self.next_seq += len(frames)
        await self.pipeline.ingest([chunk])

    async def flags(self) -> list[int]:
        return [row["flags"] for row in await self.connection.fetch("SELECT flags FROM signal ORDER BY wire_time")]

    async def findings(self) -> list[tuple[str, int, str]]:
        rows = await self.connection.fetch("SELECT kind, count, state FROM finding WHERE device_id IS NOT NULL")
        return [(row["kind"], row["count"], row["state"]) for row in rows]


@pytest.fixture
async def site(connection: Connection) -> Site:
    return await Site(connection).open()


@pytest.fixture(autouse=True)
def only_teleport(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other rules have tests of their own, and more of them come."""
    monkeypatch.setattr("signalkeep.rulebook.RULES", (TELEPORT,))


def at(minute: int, latitude: float = 37.98) -> FrameEntry:
    """A position `minute` minutes after an hour before it was received."""
    return event(minute=60 - minute, latitude=latitude)


async def test_a_hit_is_a_bit_and_a_finding_and_does_not_move_the_latest_position(site: Site) -> None:
    await site.feed(at(1), at(2, latitude=42.0))
    assert await site.flags() == [0, TELEPORT.mask | Flag.DOUBTFUL_POSITION]
    row = await site.connection.fetchrow("SELECT * FROM finding WHERE device_id IS NOT NULL")
    assert row is not None
    assert (row["kind"], row["subject"], row["count"]) == ("KIN-01", f"device {NUMBER} on 2026-05-01", 1)
    assert row["detail"] == "447 km in 60 s: 26820 km/h"
    assert row["begins_at"] == row["ends_at"] == RECEIVED - timedelta(minutes=58)
    assert row["last_sample"]["latitude"] == 42.0
    assert row["last_sample"]["seq"] == 2
    assert not row["live"], "it came an hour after it happened"
    assert await site.connection.fetchval("SELECT latitude FROM device_state") == 37.98
    assert await site.connection.fetchval("SELECT count(*) FROM signal_good") == 1
    await assert_sums(site.connection)


async def test_what_is_sent_again_counts_once(site: Site) -> None:
    bad = at(2, latitude=42.0)
    await site.feed(at(1), bad)
    await site.feed(bad, at(1), bad)
    await site.begin_anew()
    await site.feed(bad)
    assert await site.findings() == [("KIN-01", 1, "detected")]


async def test_a_later_hit_of_the_day_is_added(site: Site) -> None:
    await site.feed(at(1), at(2, latitude=42.0))
    await site.feed(at(3), at(4, latitude=43.0))
    row = await site.connection.fetchrow("SELECT * FROM finding WHERE device_id IS NOT NULL")
    assert row is not None
    assert row["count"] == 2
    assert row["ends_at"] - row["begins_at"] == timedelta(minutes=2)
    assert (row["first_sample"]["latitude"], row["last_sample"]["latitude"]) == (42.0, 43.0)


async def test_hits_that_came_in_time_are_counted_apart(site: Site) -> None:
    """Only the last two of them came within five minutes."""
    await site.feed(at(1), at(2, latitude=42.0))
    await site.feed(at(57), at(58, latitude=43.0))
    await site.feed(at(59, latitude=44.0))
    row = await site.connection.fetchrow("SELECT count, live_hits, live_at, live FROM finding")
    assert row is not None
    assert tuple(row) == (3, 2, RECEIVED - timedelta(minutes=1), True)


async def test_after_a_restart_it_remembers_what_is_stored(site: Site) -> None:
    await site.feed(at(1))
    await site.begin_anew()
    await site.feed(at(2, latitude=42.0))
    assert (await site.flags())[1] & TELEPORT.mask


async def test_what_was_not_written_is_not_remembered(site: Site) -> None:
    """A jump that was prepared and given up must not be the point that others are compared with."""
    await site.feed(at(1))
    wild = [at(2, latitude=42.0), at(3, latitude=42.0), at(4, latitude=42.0)]
    await site.pipeline.prepare([Chunk(site.next_seq, [*wild])])
    site.pipeline.start_from(await journals.cursors(site.connection, site.journal_id))
    await site.feed(at(5))
    assert await site.flags() == [0, 0]


async def test_a_rule_that_raises_costs_no_signal(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = msgspec.structs.replace(TELEPORT, id="TST-01", check=lambda *_: 1 / 0, bit=9, reanchors=False)
    monkeypatch.setattr("signalkeep.rulebook.RULES", (broken, TELEPORT))
    await site.begin_anew()
    await site.feed(at(1), at(2, latitude=42.0))
    assert await site.flags() == [0, TELEPORT.mask | Flag.DOUBTFUL_POSITION]
    assert site.judging.broken() == {"TST-01": 2}


async def test_what_a_rule_says_keeps_no_signal_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that PostgreSQL refuses must not send the record to quarantine."""
    odd = msgspec.structs.replace(TELEPORT, id="TST-01", check=lambda *_: "a\0b\ud800" + "x" * 9999, reanchors=False)
    monkeypatch.setattr("signalkeep.rulebook.RULES", (odd,))
    await site.begin_anew()
    await site.feed(at(1), at(2))
    assert len(await site.flags()) == 2
    assert await site.connection.fetchval("SELECT count(*) FROM quarantine") == 0
    detail = await site.connection.fetchval("SELECT detail FROM finding WHERE device_id IS NOT NULL")
    assert detail.startswith("a\\0b\\ud800xx")
    assert len(detail) < 600


async def test_limits_of_a_model_and_of_a_customer(connection: Connection) -> None:
    settings = QualitySettings(models={"FERRARI": {"KIN-01": {"speed_kmh_max": 30_000}}})
    site = await Site(connection, settings).open()
    await site.feed(at(1))
    await connection.execute("UPDATE device SET model = 'FERRARI', revision = revision + 1")
    await site.feed(at(2, latitude=42.0))
    assert await site.flags() == [0, 0]


async def test_rules_of_users_get_bits_that_stay(connection: Connection) -> None:
    own = {"id": "OWN-01", "title": "High up", "when": "latitude > 40"}
    settings = QualitySettings.model_validate({"own": [{**own, "id": "OWN-02", "when": "latitude > 90"}, own]})
    site = await Site(connection, settings).open()
    await site.feed(at(1, latitude=41.0))
    bits = {row["id"]: row["bit"] for row in await connection.fetch("SELECT id, bit FROM rule WHERE bit >= 53")}
    assert bits == {"OWN-02": 53, "OWN-01": 54}
    site.settings = QualitySettings.model_validate({"own": [own]})
    await site.begin_anew()
    await site.feed(at(2, latitude=41.0))
    assert await site.flags() == [1 << 54, 1 << 54]
