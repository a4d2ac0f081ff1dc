"""The audit against a core in which everything adds up, and then one thing does not: it is found, and named (P5)."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from signalkeep.clock import SystemClock
from signalkeep.ingest.pipeline import Pipeline, Rules
from signalkeep.ingest.release import release
from signalkeep.ingest.triage import record_keys
from signalkeep.integrity.audit import Audit, JournalSums, Report
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.reader import JournalReader, segments
from signalkeep.journal.record import Entry, FrameEntry, TallyEntry
from signalkeep.journal.retention import unlink_before
from signalkeep.journal.writer import JournalWriter
from signalkeep.store import journals, registry
from signalkeep.store.postgres import Connection
from signalkeep.store.quarantine import Selection, discard
from signalkeep.store.retention import Expired, Retention, drop_month
from tests.builders import NUMBER, PROTOCOLS, RECEIVED, event

pytestmark = pytest.mark.servers

FS = LocalFileSystem()
HOST = "here"
UNKNOWN = "999"
DAY_MINUTES = 24 * 60
FUTURE = (RECEIVED + timedelta(days=3)).isoformat()


class Core:
    """A journal on this machine's disk, and a database that has it."""

    def __init__(self, connection: Connection, path: Path) -> None:
        self.connection = connection
        self.root = path / "journal"
        self.root.mkdir()
        self.writer: JournalWriter
        self.journal_id = 0

    @property
    def directory(self) -> Path:
        return self.writer.directory

    async def receive(self, *entries: Entry, segment_bytes: int = 1 << 20) -> None:
        """A gateway lives, takes these, and ends."""
        self.writer = JournalWriter.create(FS, self.root, clock=SystemClock(), segment_bytes=segment_bytes)
        for entry in entries:
            self.writer.append(entry)
        await self.writer.close()

    async def ingest(self, max_entries: int = 10_000, *, note: bool = True) -> None:
        """Up to so many entries of it, as a driver does it; the note of what is durable comes after that."""
        reader = self.reader()
        uuid, connection = self.writer.journal_id, self.connection
        self.journal_id = await journals.register(connection, uuid, HOST, self.directory, 1)
        if items := reader.read(max_entries, 1 << 30):
            pipeline = Pipeline(connection, self.journal_id, [0], protocols=PROTOCOLS, rules=Rules())
            await pipeline.ingest(items)
        if note:
            await journals.note_progress(connection, self.journal_id, self.writer.durable_seq, ended=True)

    def reader(self) -> JournalReader:
        return JournalReader(FS, self.directory, evidence_root=self.root.parent / "evidence")

    async def audit(self, host: str = HOST) -> Report:
        evidence = self.root.parent / "evidence"
        return await Audit(self.connection, fs=FS, host=host, evidence_root=evidence, record_keys=keys).run()

    async def checks(self) -> list[str]:
        """Which checks find something."""
        return sorted({finding.check for finding in (await self.audit()).findings})

    async def detail(self, check: str) -> str:
        """What the one finding of this check says."""
        (finding,) = [found for found in (await self.audit()).findings if found.check == check]
        return f"{finding.subject}: {finding.detail}"


def keys(frame: FrameEntry) -> list[tuple[datetime, int]]:
    return record_keys(frame, PROTOCOLS.get(frame.protocol))


@pytest.fixture
async def core(connection: Connection, tmp_path: Path) -> Core:
    """Stored, sent again, open, released and discarded records, and a tally."""
    made = Core(connection, tmp_path)
    await registry.register(connection, NUMBER, actor="tests")
    resent = event(minute=1)
    late = [event(UNKNOWN, minute=minute) for minute in (1, 2, 3)]
    tally = TallyEntry(at_us=1, counts={"checksum": 2})
    await made.receive(resent, event(minute=2), event(minute=3), resent, event(message_date=FUTURE), *late, tally)
    await made.ingest()
    await discard(connection, Selection(ids=(2,)), closed_by="tests")
    third = Selection(ids=(3,))
    await release(connection, third, forced=True, closed_by="tests", protocols=PROTOCOLS, retention=Retention())
    await journals.register(connection, uuid4(), "elsewhere", Path("/nowhere"), 1)
    return made


async def test_everything_adds_up(core: Core) -> None:
    report = await core.audit()
    assert report.findings == []
    assert report.ok
    here, elsewhere = report.journals
    assert here == JournalSums(str(core.writer.journal_id), 8, 8, 0, 0, ingested_seq=9, durable_seq=9, on_disk=True)
    assert not elsewhere.on_disk
    assert report.totals == {
        "records": 8,
        "stored": 3,
        "duplicate": 1,
        "quarantined": 4,
        "suppressed": 0,
        "released": 1,
        "released_duplicate": 0,
        "discarded": 1,
        "replaced": 0,
        "erased": 0,
        "erased_quarantine": 0,
        "expired": 0,
    }


async def test_what_is_pending_is_counted_and_nothing_is_wrong_with_it(connection: Connection, tmp_path: Path) -> None:
    core = Core(connection, tmp_path)
    await core.receive(*(event(minute=minute) for minute in range(9)))
    await core.ingest(4)
    report = await core.audit()
    assert report.ok
    (sums,) = report.journals
    assert (sums.received, sums.ingested, sums.pending) == (9, 4, 5)


OF_DEVICE = f"WHERE device_id = (SELECT id FROM device WHERE device_number = '{NUMBER}')"
HERE = "WHERE journal_id = 1"
SECOND = "WHERE (wire_time, digest) = (SELECT wire_time, digest FROM signal WHERE seq = 2)"
COPY_OF_SECOND = """
INSERT INTO signal (
    device_id, wire_time, digest, received_at, fix_valid, attributes, protocol, journal_id, seq, record_no)
SELECT device_id, wire_time, 5, received_at, false, '{}', protocol, journal_id, seq, record_no FROM signal WHERE seq = 2
"""
OPEN_ROW_STORED = """
INSERT INTO signal (
    device_id, wire_time, digest, received_at, fix_valid, attributes, protocol, journal_id, seq, record_no)
SELECT device_id, wire_time, digest, received_at, false, '{}', 'json', journal_id, seq, record_no
FROM quarantine WHERE id = 4;
UPDATE ledger l SET key_xor = key_xor # q.digest, records = records + 1, stored = stored + 1
FROM quarantine q WHERE q.id = 4 AND q.device_id = l.device_id;
UPDATE device_state s SET records = records + 1, stored = stored + 1
FROM quarantine q WHERE q.id = 4 AND q.device_id = s.device_id;
"""


@pytest.mark.parametrize(
    ("tamper", "check", "named"),
    [
        (f"UPDATE cursor SET other_entries = other_entries + 1 {HERE}", "journal_sum", "frames 8 + other entries 2"),
        (f"UPDATE cursor SET lost = lost + 1 {HERE}", "journal_sum", "lost 1"),
        (f"UPDATE cursor SET frames = frames + 1, other_entries = 0 {HERE}", "journal_frames", "hold 8 frames"),
        (
            f"UPDATE cursor SET seq = 12, other_entries = 4 {HERE}",
            "journal_range_missing",
            "entries 10..12 were durable",
        ),
        ("UPDATE journal SET durable_seq = 12 WHERE id = 1", "journal_range_missing", "entries 10..12 were durable"),
        (
            f"UPDATE ledger SET duplicate = duplicate + 1 {OF_DEVICE};"
            f"UPDATE device_state SET duplicate = duplicate + 1 {OF_DEVICE}",
            "ledger_sum",
            "records 5 is not stored 3 + duplicate 2 + quarantined 1",
        ),
        (f"DELETE FROM signal {SECOND}", "signal_rows", "1 missing; missing: the record of 2026-05-01 11:58:00"),
        (COPY_OF_SECOND, "signal_rows", "1 too many; not from the journal: the signal row of 2026-05-01 11:58:00"),
        (f"UPDATE signal SET digest = digest # 1 {SECOND}", "signal_rows", "their keys are others"),
        (f"UPDATE signal SET journal_id = 2 {SECOND}", "signal_rows", "has 3 signals, the table 2"),
        (f"UPDATE signal SET journal_id = 2 {SECOND}", "signal_rows", "has 0 signals, the table 1: 1 too many"),
        (f"UPDATE signal SET journal_id = 77 {SECOND}", "signal_rows", "has 0 signals, the table 1: 1 too many"),
        (f"UPDATE signal SET device_id = 77 {SECOND}", "signal_rows", "has 0 signals, the table 1: 1 too many"),
        (f"DELETE FROM signal {OF_DEVICE}", "signal_rows", "has 3 signals, the table 0: 3 missing"),
        ("UPDATE ledger SET released = 2, released_duplicate = -1 WHERE discarded > 0", "signal_rows", "has 2 signals"),
        ("UPDATE quarantine SET journal_id = 2 WHERE id = 1", "quarantine_rows", "has 0 quarantined"),
        ("DELETE FROM quarantine WHERE id = 1", "quarantine_rows", "the table 0 (0 released"),
        ("DELETE FROM quarantine WHERE id = 4", "quarantine_rows", "missing: the record of 2026-05-01 11:57:00"),
        (
            "UPDATE quarantine SET state = 'open' WHERE id = 2",
            "quarantine_rows",
            "1 discarded, 0 replaced), the table 3 (1 released, 0 discarded",
        ),
        (
            "UPDATE ledger SET replaced = 1 WHERE discarded = 1;"
            "UPDATE device_state SET quarantine_open = 0 WHERE device_id = 2",
            "quarantine_rows",
            "1 discarded, 1 replaced), the table 3 (1 released, 1 discarded, 0 replaced",
        ),
        (
            "UPDATE ledger SET released_duplicate = 1 WHERE released = 1;"
            "UPDATE device_state SET quarantine_open = 0 WHERE device_id = 2",
            "quarantine_rows",
            "(2 released, 1 discarded, 0 replaced), the table 3 (1 released, 1 discarded",
        ),
        (f"UPDATE device_state SET suppressed = 1 {OF_DEVICE}", "device_counters", "suppressed 1"),
        ("UPDATE ledger SET expired = 1 WHERE stored = 3", "signal_rows", "the ledger has 2 signals, the table 3"),
        ("UPDATE ledger SET erased = 1 WHERE stored = 3", "signal_rows", "the ledger has 2 signals, the table 3"),
        (
            "UPDATE ledger SET erased_quarantine = 1, erased_released = 1 WHERE released = 1",
            "quarantine_rows",
            "the ledger has 2 quarantined (0 released",
        ),
        (
            "UPDATE device SET erased_to = '2026-05-01 11:57:30Z', erased_at = now() WHERE id = 1",
            "erased_rows",
            "everything up to 2026-05-01 11:57:30",
        ),
        (OPEN_ROW_STORED, "record_in_both", "2026-05-01 11:57:00"),
        (f"UPDATE device_state SET records = records + 1 {OF_DEVICE}", "device_counters", "records 6"),
        (f"UPDATE device_state SET stored = stored + 1 {OF_DEVICE}", "device_counters", "stored 4"),
        (f"UPDATE device_state SET duplicate = duplicate + 1 {OF_DEVICE}", "device_counters", "duplicate 2"),
        (f"UPDATE device_state SET quarantined = quarantined + 1 {OF_DEVICE}", "device_counters", "quarantined 2"),
        (f"UPDATE device_state SET quarantine_open = 0 {OF_DEVICE}", "device_counters", "open 0"),
    ],
)
async def test_one_thing_that_is_off_is_found_by_its_own_check_and_named(
    core: Core, tamper: str, check: str, named: str
) -> None:
    await core.connection.execute(tamper)
    found = (await core.audit()).findings
    assert {finding.check for finding in found} == {check}, found
    assert any(named in finding.detail for finding in found), found


async def test_a_month_that_went_adds_up_and_is_not_named_among_what_is_missing(
    connection: Connection, tmp_path: Path
) -> None:
    core = Core(connection, tmp_path)
    await registry.register(connection, NUMBER, actor="tests")
    await core.receive(*(event(minute=minute) for minute in (1, 2, DAY_MINUTES, 2 * DAY_MINUTES)))
    await core.ingest()
    assert await drop_month(connection, (2026, 4), actor="organizer") == Expired("2026-04", 2, 1)
    report = await core.audit()
    assert report.findings == []
    assert (report.totals["stored"], report.totals["expired"]) == (4, 2)
    await connection.execute(f"DELETE FROM signal {SECOND}")
    said = await core.detail("signal_rows")
    assert "the ledger has 2 signals, the table 1: 1 missing; missing: the record of 2026-05-01 11:58:00" in said
    assert "2026-04" not in said


async def test_a_journal_that_vanished_is_named_with_what_it_held(connection: Connection, tmp_path: Path) -> None:
    core = Core(connection, tmp_path)
    await core.receive(*(event(minute=minute) for minute in range(9)))
    await core.ingest(4)
    shutil.rmtree(core.directory)
    assert "entries 5..9 were not ingested" in await core.detail("journal_vanished")
    assert (await core.audit("another host")).ok, "its files lie on another machine"
    await journals.note_removed(connection, core.journal_id)
    assert (await core.audit()).ok, "it was removed on purpose"


async def test_a_segment_that_is_missing_is_named_unless_it_was_removed_on_purpose(
    connection: Connection, tmp_path: Path
) -> None:
    core = Core(connection, tmp_path)
    await core.receive(*(event(minute=minute) for minute in range(200)), segment_bytes=16 * 1024)
    await core.ingest()
    assert (await core.audit()).ok
    (_, first, _), (second_seq, _, _), *_, (last_seq, last, _) = segments(FS, core.directory)
    first.unlink()
    assert f"entries 1..{second_seq - 1} are missing; they were ingested" in await core.detail("journal_range_missing")
    await journals.note_kept_from(connection, core.journal_id, second_seq)
    assert (await core.audit()).ok
    last.unlink()
    assert f"entries {last_seq}..200 were durable" in await core.detail("journal_range_missing")


async def test_the_end_of_a_journal_is_missed_although_its_note_came_too_late(
    connection: Connection, tmp_path: Path
) -> None:
    """The rows and the cursor are written first; a crash may come before the note of what is durable."""
    core = Core(connection, tmp_path)
    await core.receive(*(event(minute=minute) for minute in range(200)), segment_bytes=16 * 1024)
    await core.ingest(note=False)
    *_, (last_seq, last, _) = segments(FS, core.directory)
    await journals.note_kept_from(connection, core.journal_id, 2)
    unlink_before(FS, core.directory, 1)
    assert (await core.audit()).ok
    last.unlink()
    assert f"entries {last_seq}..200 were durable" in await core.detail("journal_range_missing")


async def test_a_damaged_range_is_named_with_its_evidence(connection: Connection, tmp_path: Path) -> None:
    core = Core(connection, tmp_path)
    await core.receive(*(event(minute=minute) for minute in range(200)), segment_bytes=16 * 1024)
    await core.ingest()
    (_, first, _), (second_seq, _, _), *_ = segments(FS, core.directory)
    content = bytearray(first.read_bytes())
    content[5000:5100] = bytes(100)
    first.write_bytes(content)
    said = await core.detail("journal_range_damaged")
    assert f"entries 1..{second_seq - 1} are corrupt; they were ingested before; the bytes are kept in" in said
    assert list((tmp_path / "evidence").rglob("*"))
