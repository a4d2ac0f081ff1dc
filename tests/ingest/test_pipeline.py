"""Ranges of a journal into PostgreSQL: exactly once, whatever is sent again, rejected, raced or torn away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from signalkeep.ingest.pipeline import Pipeline, Rules
from signalkeep.journal.lanes import lane_of
from signalkeep.journal.reader import Chunk, Lost
from signalkeep.journal.record import Entry, FrameEntry, TallyEntry
from signalkeep.model import Context, Decoded, DeviceSettings, Outcome, Reason, Signal, Undecodable
from signalkeep.store import journals, registry
from signalkeep.store.postgres import Connection
from signalkeep.store.release import discard_rows
from signalkeep.store.writer import CursorMoved
from tests.gateway.toy import ToyProtocol
from tests.servers import connected

pytestmark = pytest.mark.servers

RECEIVED = datetime(2026, 5, 1, 12, tzinfo=UTC)
START = datetime(2026, 5, 1, 11, tzinfo=UTC)


class Words(ToyProtocol):
    """Each word is a record: seconds after START with an optional `:note` (`nofix`: has no fix), or `bad`."""

    def decode(self, frame: bytes, device_number: str, context: Context, settings: DeviceSettings) -> list[Outcome]:
        return [self._record(word, settings) for word in frame.decode().split()]

    def _record(self, word: str, settings: DeviceSettings) -> Outcome:
        if word.startswith("bad"):
            return Undecodable(Reason.BAD_FORMAT, "a bad word", word.encode(), START)
        seconds, _, note = word.partition(":")
        when = START + timedelta(seconds=int(seconds))
        signal = Signal(
            wire_time=when,
            device_time=when,
            fix_valid=note != "nofix",
            latitude=int(seconds) / 100,
            longitude=1.0,
            attributes={"note": note, "model": settings.model},
        )
        return Decoded(signal, word.encode())


PROTOCOLS = {"toy": Words()}


def frame(text: str, number: str = "1", *, received: datetime = RECEIVED) -> FrameEntry:
    return FrameEntry(
        received_at_us=int(received.timestamp() * 1_000_000),
        protocol="toy",
        device_number=number,
        peer="127.0.0.1:1",
        context={},
        raw=text.encode(),
    )


class Bench:
    """A journal in the database and what is needed to feed it."""

    def __init__(self, connection: Connection, *, lanes: int = 1, rules: Rules | None = None) -> None:
        self.connection = connection
        self.lanes = lanes
        self.rules = rules or Rules(register_unknown=True)
        self.journal_id = 0
        self.next_seq = 1
        self.pipeline: Pipeline

    async def open(self, uuid: int = 1) -> Bench:
        self.journal_id = await journals.register(self.connection, UUID(int=uuid), "here", Path("/nowhere"), self.lanes)
        self.pipeline = await self.another(self.connection)
        return self

    async def another(self, connection: Connection) -> Pipeline:
        """A second worker on the same journal."""
        cursors = await journals.cursors(connection, self.journal_id)
        return Pipeline(connection, self.journal_id, cursors, protocols=PROTOCOLS, rules=self.rules)

    def chunk(self, *entries: Entry | str) -> Chunk:
        numbered = [frame(entry) if isinstance(entry, str) else entry for entry in entries]
        chunk = Chunk(self.next_seq, list(numbered))
        self.next_seq += len(numbered)
        return chunk

    async def feed(self, *entries: Entry | str) -> dict[str, int]:
        written = await self.pipeline.ingest([self.chunk(*entries)])
        return dict(msgspec.structs.asdict(written))

    async def value(self, query: str, *parameters: Any) -> Any:
        return await self.connection.fetchval(query, *parameters)


async def sums_hold(connection: Connection) -> None:
    """Ledger = rows by provenance, per journal and device; and counters = ledger."""
    off = await connection.fetch(
        """
        SELECT * FROM ledger l
        WHERE records <> stored + duplicate + quarantined + suppressed
           OR stored + released - erased <> (SELECT count(*) FROM signal s
                                    WHERE (s.journal_id, s.device_id) = (l.journal_id, l.device_id))
           OR key_xor <> (SELECT coalesce(bit_xor(digest), 0) FROM signal s
                          WHERE (s.journal_id, s.device_id) = (l.journal_id, l.device_id))
           OR quarantined - erased_quarantine <> (SELECT count(*) FROM quarantine q
                              WHERE (q.journal_id, q.device_id) = (l.journal_id, l.device_id))
        """
    )
    assert not off, off
    assert await connection.fetchval("SELECT sum(records) FROM ledger") == await connection.fetchval(
        "SELECT sum(records) FROM device_state"
    )
    assert await connection.fetchval("SELECT coalesce(sum(quarantine_open), 0) FROM device_state") == (
        await connection.fetchval("SELECT count(*) FROM quarantine WHERE state = 'open'")
    )


async def test_records_become_rows_with_provenance_and_state(connection: Connection) -> None:
    bench = await Bench(connection).open()
    written = await bench.feed("1 2", "3")
    assert written == {"records": 3, "stored": 3, "duplicate": 0, "quarantined": 0, "suppressed": 0}
    rows = await connection.fetch("SELECT seq, record_no, latitude, attributes FROM signal ORDER BY wire_time")
    assert [(row["seq"], row["record_no"], row["latitude"]) for row in rows] == [
        (1, 0, 0.01),
        (1, 1, 0.02),
        (2, 0, 0.03),
    ]
    state = await connection.fetchrow("SELECT * FROM device_state")
    assert state is not None
    assert (state["latitude"], state["frames"], state["last_peer"]) == (0.03, 2, "127.0.0.1:1")
    assert await journals.cursors(connection, bench.journal_id) == [2]
    await sums_hold(connection)


async def test_a_resent_record_never_makes_a_second_row_however_it_is_regrouped(connection: Connection) -> None:
    bench = await Bench(connection).open()
    await bench.feed("1 2 3", "2")
    await bench.feed("3 4", "1")
    assert await bench.value("SELECT count(*) FROM signal") == 4
    assert await bench.value("SELECT sum(duplicate) FROM ledger") == 3
    other = await Bench(connection).open(uuid=2)
    assert (await other.feed("4 3 2 1"))["duplicate"] == 4
    await sums_hold(connection)


async def test_a_record_twice_in_one_frame_is_one_row(connection: Connection) -> None:
    bench = await Bench(connection, rules=Rules()).open()
    assert await bench.feed("1 1") == {"records": 2, "stored": 0, "duplicate": 1, "quarantined": 1, "suppressed": 0}
    await registry.register(connection, "1", actor="test")
    assert await bench.feed("2 2 3") == {"records": 3, "stored": 2, "duplicate": 1, "quarantined": 0, "suppressed": 0}
    await sums_hold(connection)


async def test_a_stored_record_that_may_no_longer_come_in_is_not_quarantined_beside_itself(
    connection: Connection,
) -> None:
    bench = await Bench(connection).open()
    await bench.feed("1")
    await connection.execute("UPDATE device SET status = 'retired', revision = revision + 1")
    assert await bench.feed("1 2") == {"records": 2, "stored": 0, "duplicate": 1, "quarantined": 1, "suppressed": 0}
    assert await bench.value("SELECT raw FROM quarantine") == b"2"
    await sums_hold(connection)


async def test_two_workers_with_the_same_range_write_it_once(connection: Connection, dsn: str) -> None:
    bench = await Bench(connection).open()
    async with connected(dsn) as second:
        other = await bench.another(second)
        chunk = bench.chunk("1", "2", "3")
        await bench.pipeline.ingest([chunk])
        with pytest.raises(CursorMoved):
            await other.ingest([chunk])
        other.start_from(await journals.cursors(second, bench.journal_id))
        assert (await other.ingest([Chunk(1, [*chunk.entries, frame("4")])])).stored == 1, "cuts what is there"
        with pytest.raises(CursorMoved):
            await other.ingest([Chunk(9, [frame("9")])])
    assert await bench.value("SELECT count(*) FROM signal") == 4
    assert await bench.value("SELECT frames FROM cursor") == 4
    await sums_hold(connection)


async def test_a_failed_write_leaves_neither_rows_nor_cursor(connection: Connection) -> None:
    bench = await Bench(connection).open()
    await bench.feed("1")
    await connection.execute("ALTER TABLE device_state RENAME COLUMN frames TO frames_gone")
    with pytest.raises(Exception, match="frames"):
        await bench.feed("2")
    await connection.execute("ALTER TABLE device_state RENAME COLUMN frames_gone TO frames")
    assert await bench.value("SELECT count(*) FROM signal") == 1
    assert await journals.cursors(connection, bench.journal_id) == [1]


async def test_unknown_devices_wait_in_quarantine_and_a_resend_after_registration_releases(
    connection: Connection,
) -> None:
    bench = await Bench(connection, rules=Rules()).open()
    assert (await bench.feed("1 2", "1"))["quarantined"] == 2
    await registry.register(connection, "1", actor="test")
    written = await bench.feed("1 3")
    assert written == {"records": 2, "stored": 1, "duplicate": 1, "quarantined": 0, "suppressed": 0}
    states = await connection.fetch("SELECT state FROM quarantine ORDER BY wire_time")
    assert [row["state"] for row in states] == ["released", "open"]
    assert await bench.value("SELECT seq FROM signal ORDER BY wire_time LIMIT 1") == 1, "under its first provenance"
    await sums_hold(connection)


async def test_a_registration_between_decoding_and_writing_is_noticed(connection: Connection, dsn: str) -> None:
    bench = await Bench(connection, rules=Rules()).open()
    await bench.feed("1")
    async with connected(dsn) as other:
        await registry.register(other, "1", model="m2", actor="test")
    assert (await bench.feed("2"))["stored"] == 1, "decoded again under the new entry"
    assert (await bench.value("SELECT attributes FROM signal"))["model"] == "m2"


async def test_a_discarded_record_stays_discarded(connection: Connection) -> None:
    bench = await Bench(connection, rules=Rules()).open()
    await bench.feed("1")
    async with connection.transaction():
        assert await discard_rows(connection, [await bench.value("SELECT id FROM quarantine")], closed_by="test") == 1
    await registry.register(connection, "1", actor="test")
    assert (await bench.feed("1"))["duplicate"] == 1
    assert await bench.value("SELECT count(*) FROM signal") == 0
    await sums_hold(connection)


async def test_undecodable_records_are_kept_with_their_bytes_beside_stored_neighbours(connection: Connection) -> None:
    bench = await Bench(connection).open()
    assert await bench.feed("1 bad 2", "bad") == {
        "records": 4,
        "stored": 2,
        "duplicate": 1,
        "quarantined": 1,
        "suppressed": 0,
    }
    row = await connection.fetchrow(
        "SELECT q.*, f.raw AS whole FROM quarantine q JOIN quarantine_frame f ON f.id = frame_id"
    )
    assert row is not None
    assert (row["raw"], row["whole"], row["reason"], row["record_no"]) == (b"bad", b"1 bad 2", "bad_format", 1)
    await sums_hold(connection)


async def poison(connection: Connection) -> None:
    """A table that rejects one value, as a database may for reasons that no validation of ours foresees.

    At another value it runs out of disk: that says nothing against the record.
    """
    await connection.execute(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.attributes ->> 'note' = 'poison' THEN RAISE 'no' USING ERRCODE = '22023'; END IF;
            IF NEW.attributes ->> 'note' = 'outage' THEN RAISE 'disk full' USING ERRCODE = '53100'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON signal FOR EACH ROW EXECUTE FUNCTION refuse();
        """
    )


async def test_a_rejected_record_is_bisected_out_and_its_neighbours_are_stored(connection: Connection) -> None:
    bench = await Bench(connection).open()
    await poison(connection)
    written = await bench.feed("1", "2 3:poison 4", "5", "6:poison", "7", TallyEntry(at_us=0, counts={"checksum": 2}))
    assert written == {"records": 7, "stored": 5, "duplicate": 0, "quarantined": 2, "suppressed": 0}
    rows = await connection.fetch("SELECT reason, detail, raw FROM quarantine ORDER BY id")
    assert [(row["reason"], row["raw"]) for row in rows] == [
        ("database_rejected", b"3:poison"),
        ("database_rejected", b"6:poison"),
    ]
    assert rows[0]["detail"].startswith("22023")
    assert await journals.cursors(connection, bench.journal_id) == [6]
    assert await bench.value("SELECT frames FROM cursor") == 5
    assert await bench.value("SELECT other_entries FROM cursor") == 1
    await bench.feed(TallyEntry(at_us=1, counts={"checksum": 3, "oversized": 1}))
    refusals = await connection.fetch("SELECT reason, count FROM refusal ORDER BY reason")
    assert [tuple(row) for row in refusals] == [("checksum", 5), ("oversized", 1)]
    await sums_hold(connection)


async def test_an_error_of_the_environment_quarantines_nothing(connection: Connection) -> None:
    bench = await Bench(connection).open()
    await bench.feed("1")
    await connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(Exception, match="read-only"):
        await bench.feed("2")
    await connection.execute("SET default_transaction_read_only = off")
    assert await bench.value("SELECT count(*) FROM quarantine") == 0
    assert await journals.cursors(connection, bench.journal_id) == [1]


async def test_an_outage_while_a_rejected_record_is_searched_for_quarantines_nothing(connection: Connection) -> None:
    bench = await Bench(connection).open()
    await poison(connection)
    for entries in (["1:poison 2:outage"], ["1", "2:outage"]):
        bench.next_seq = 1
        with pytest.raises(Exception, match="disk full"):
            await bench.feed(*entries)
    assert await bench.value("SELECT (SELECT count(*) FROM signal) + (SELECT count(*) FROM quarantine)") == 0
    assert await journals.cursors(connection, bench.journal_id) == [0]


async def test_a_partition_that_was_dropped_is_made_again(connection: Connection) -> None:
    bench = await Bench(connection).open()
    await bench.feed("1")
    await connection.execute("DROP TABLE signal_2026_05")
    assert (await bench.feed("2"))["stored"] == 1
    assert await bench.value("SELECT count(*) FROM signal") == 1


async def test_records_of_many_months_find_their_partitions(connection: Connection) -> None:
    bench = await Bench(connection).open()
    month = 31 * 86400
    await bench.feed(" ".join(str(-number * month) for number in range(30)))
    assert await bench.value("SELECT count(DISTINCT tableoid) FROM signal") == 30


async def test_a_lost_range_moves_the_cursor_and_is_named(connection: Connection) -> None:
    bench = await Bench(connection).open()
    first, last = bench.chunk("1"), Chunk(5, [frame("5")])
    await bench.pipeline.ingest([first, Lost(2, 4, "corrupt", "/kept/here"), last])
    assert await journals.cursors(connection, bench.journal_id) == [5]
    assert await bench.value("SELECT lost FROM cursor") == 3
    finding = await connection.fetchrow("SELECT kind, subject, detail FROM finding WHERE device_id IS NULL")
    assert finding is not None
    assert finding["kind"] == "journal_range_lost"
    assert "2..4" in finding["subject"]
    assert "/kept/here" in finding["detail"]


async def test_a_rejected_record_beside_lost_ranges_names_each_of_them_once(connection: Connection) -> None:
    """Whatever is split for the sake of the database: every range that could not be read has its finding."""
    bench = await Bench(connection).open()
    await poison(connection)
    texts = {1: "1", 4: "2:poison", 7: "3", 8: "4"}
    chunks = [Chunk(seq, [frame(text)]) for seq, text in texts.items()]
    lost = [Lost(2, 3, "corrupt", ""), Lost(5, 6, "missing", ""), Lost(9, 9, "undecodable", "")]
    items: list[Chunk | Lost] = [*chunks, *lost]
    items.sort(key=lambda item: item.first_seq)
    written = await bench.pipeline.ingest(items)
    assert (written.stored, written.quarantined) == (3, 1)
    assert await journals.cursors(connection, bench.journal_id) == [9]
    assert await bench.value("SELECT (frames, lost) FROM cursor") == (4, 5)
    found = await connection.fetch("SELECT subject, count FROM finding WHERE device_id IS NULL ORDER BY subject")
    assert [(row["subject"].partition("entries ")[2], row["count"]) for row in found] == [
        ("2..3", 1),
        ("5..6", 1),
        ("9..9", 1),
    ]
    await sums_hold(connection)


async def test_lanes_have_cursors_of_their_own_and_a_half_done_range_is_finished(connection: Connection) -> None:
    bench = await Bench(connection, lanes=4).open()
    numbers = [str(number) for number in range(20)]
    chunk = bench.chunk(*(frame(number, number) for number in numbers))
    await connection.execute("UPDATE cursor SET seq = 20 WHERE lane = 2")  # as if a worker died between two lanes
    bench.pipeline.start_from(await journals.cursors(connection, bench.journal_id))
    written = await bench.pipeline.ingest([chunk])
    assert written.stored == sum(lane_of(number, 4) != 2 for number in numbers)
    assert await journals.cursors(connection, bench.journal_id) == [20, 20, 20, 20]


async def test_position_moves_forward_only_on_a_good_fix_and_never_into_the_future(connection: Connection) -> None:
    bench = await Bench(connection).open()
    await bench.feed("100 60", "70")
    await bench.feed("50")
    await bench.feed("150:nofix")
    assert await bench.value("SELECT latitude FROM device_state") == 1.0
    beyond = int((RECEIVED - START).total_seconds()) + 61
    await bench.feed(str(beyond))
    assert await bench.value("SELECT latitude FROM device_state") == 1.0
    await bench.feed(str(beyond - 1))
    assert await bench.value("SELECT latitude FROM device_state") == (beyond - 1) / 100


async def test_last_contact_follows_received_at(connection: Connection) -> None:
    bench = await Bench(connection).open()
    earlier = msgspec.structs.replace(frame("2", received=RECEIVED - timedelta(hours=1)), peer="192.0.2.1:1")
    await bench.feed(frame("1"), earlier)
    assert await bench.value("SELECT (last_received_at, last_peer) FROM device_state") == (RECEIVED, "127.0.0.1:1")
    await bench.feed(earlier)  # an old journal, driven after a younger one
    assert await bench.value("SELECT (last_received_at, last_peer) FROM device_state") == (RECEIVED, "127.0.0.1:1")
