"""Release: each row tried once, judged under the registry as it is, safe against everything that happens beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import msgspec
import pytest

from signalkeep import limits
from signalkeep.ingest.pace import Pace
from signalkeep.ingest.release import Released, release
from signalkeep.journal.record import FrameEntry
from signalkeep.model import Context, Decoded, DeviceSettings, Flag, Outcome, Reason, Signal, Undecodable
from signalkeep.protocols.contract import TrackerProtocol
from signalkeep.store import registry, sql
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.quarantine import Selection, count_open, discard
from signalkeep.store.retention import Retention
from tests.builders import NUMBER, PROTOCOLS, RECEIVED, Feed, assert_sums, event, frame
from tests.gateway.toy import ToyProtocol
from tests.ingest.support import HandClock
from tests.servers import connected, wait_until_async

pytestmark = pytest.mark.servers

ALL = Selection()
FUTURE = (RECEIVED + timedelta(days=2)).isoformat()


class Otherwise(ToyProtocol):
    """A later decoder, which finds other records in the same frame."""

    def decode(self, frame: bytes, device_number: str, context: Context, settings: DeviceSettings) -> list[Outcome]:
        half = len(frame) // 2
        signal = Signal(wire_time=RECEIVED, device_time=RECEIVED)
        return [Decoded(signal, part) for part in (frame[:half], frame[half:])]


def received(entry: FrameEntry, hour: int) -> FrameEntry:
    return msgspec.structs.replace(entry, received_at_us=entry.received_at_us + hour * 3_600_000_000)


async def run(
    connection: Connection,
    selection: Selection = ALL,
    *,
    forced: bool = False,
    protocols: Mapping[str, TrackerProtocol] = PROTOCOLS,
    retention_days: int = 0,
) -> Released:
    return await release(
        connection,
        selection,
        forced=forced,
        closed_by="tester",
        protocols=protocols,
        retention=Retention(retention_days),
    )


async def add(connection: Connection, number: str = NUMBER) -> None:
    await registry.register(connection, number, actor="tests")


async def quarantined(connection: Connection) -> list[Row]:
    return list(await connection.fetch("SELECT * FROM quarantine ORDER BY id"))


async def signals(connection: Connection) -> list[Row]:
    return list(await connection.fetch("SELECT * FROM signal ORDER BY journal_id, seq, record_no"))


async def test_what_waited_for_its_device_becomes_signals_with_provenance(connection: Connection) -> None:
    feed = await Feed.open(connection)
    await feed.write(connection, event(minute=2, latitude=1.5), event(minute=1, event_code="9"))
    assert await run(connection) == Released(still_quarantined=2, reasons={"unknown_device": 2})
    assert [row["attempts"] for row in await quarantined(connection)] == [1, 1]
    await add(connection)
    assert await run(connection) == Released(released=2)
    found = await signals(connection)
    assert [(row["journal_id"], row["seq"], row["record_no"]) for row in found] == [
        (feed.journal_id, 1, 0),
        (feed.journal_id, 2, 0),
    ]
    assert [row["latitude"] for row in found] == [1.5, 37.98]
    assert [row["received_at"] for row in found] == [RECEIVED, RECEIVED]
    assert [row["flags"] for row in found] == [0, 0]
    closed = await quarantined(connection)
    assert [(row["state"], row["closed_by"], row["attempts"]) for row in closed] == [("released", "tester", 2)] * 2
    position = await connection.fetchrow("SELECT * FROM device_state")
    assert position is not None
    assert position["device_time"] == RECEIVED - timedelta(minutes=1)
    assert position["quarantine_open"] == 0
    await assert_sums(connection)
    assert await run(connection) == Released()


async def test_the_audit_log_says_who_released_what(connection: Connection) -> None:
    await (await Feed.open(connection)).write(connection, event())
    await add(connection)
    await run(connection, Selection(device_number=NUMBER, reason=Reason.UNKNOWN_DEVICE))
    line = await connection.fetchrow("SELECT * FROM audit_log WHERE action = 'quarantine.release'")
    assert line is not None
    assert (line["actor"], line["subject"]) == ("tester", f"device {NUMBER}; reason unknown_device")
    assert line["detail"] == {"released": 1, "already_stored": 0, "first_id": 1, "last_id": 1}


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(ids=(2, 99)), ["2"]),
        (Selection(device_number="1"), ["1"]),
        (Selection(device_number="nobody"), []),
        (Selection(reason=Reason.FUTURE), ["3"]),
        (Selection(ids=(1, 2), device_number="2", reason=Reason.UNKNOWN_DEVICE), ["2"]),
        (Selection(ids=(1,), device_number="2"), []),
        (ALL, ["1", "2", "3"]),
    ],
)
async def test_only_what_is_meant_is_released(
    connection: Connection, selection: Selection, expected: list[str]
) -> None:
    await add(connection, "3")
    feed = await Feed.open(connection)
    await feed.write(connection, event("1"), event("2"), event("3", message_date=FUTURE))
    assert (await run(connection, selection, forced=True)).released == len(expected)
    found = await connection.fetch("SELECT device_number FROM signal JOIN device ON id = device_id ORDER BY 1")
    assert [row["device_number"] for row in found] == expected
    await assert_sums(connection)


async def test_by_time_of_receiving_and_at_most_so_many(connection: Connection) -> None:
    feed = await Feed.open(connection)
    await feed.write(connection, *(received(event(minute=hour), hour) for hour in range(6)))
    await add(connection)
    hours = [RECEIVED + timedelta(hours=hour) for hour in range(6)]
    assert (await run(connection, Selection(since=hours[1], until=hours[3]))).released == 2
    assert [row["seq"] for row in await signals(connection)] == [2, 3], "from the first on, before the second"
    assert (await run(connection, Selection(since=hours[3], limit=2))).released == 2
    assert [row["seq"] for row in await signals(connection)] == [2, 3, 4, 5], "the oldest"
    assert await discard(connection, Selection(until=hours[1], limit=5), closed_by="tester") == 1
    assert await discard(connection, Selection(limit=0), closed_by="tester") == 0
    assert await count_open(connection, Selection(limit=9)) == 1
    await assert_sums(connection)


async def everything(connection: Connection) -> list[list[Row]]:
    tables = ("signal", "quarantine", "ledger", "device_state", "audit_log", "pg_inherits")
    return [list(await connection.fetch(f"SELECT * FROM {table} ORDER BY 1, 2")) for table in tables]


async def test_a_trial_says_what_would_become_of_each_and_changes_nothing(connection: Connection) -> None:
    feed = await Feed.open(connection)
    await feed.write(connection, event(minute=1), event(minute=2), event("2"), frame(b"no JSON at all"))
    await feed.write(connection, event(minute=3, event_code="poison"))
    await add(connection)
    assert (await run(connection, Selection(ids=(1,)))).released == 1
    await connection.execute("UPDATE quarantine SET state = 'open' WHERE id = 1")  # it is in both now
    await connection.execute("ALTER TABLE signal ADD CONSTRAINT taste CHECK (event_code <> 'poison')")
    before = await everything(connection)
    told: list[str] = []
    result = await release(
        connection,
        ALL,
        forced=False,
        closed_by="tester",
        protocols=PROTOCOLS,
        retention=Retention(),
        trial=lambda outcome: told.append(f"{outcome.id} {outcome.what} {outcome.reason}".strip()),
    )
    assert sorted(told) == [
        "1 already_stored", "2 released", "3 stays unknown_device", "4 stays bad_format", "5 stays database_rejected",
    ]  # fmt: skip
    assert (result.released, result.already_stored, result.still_quarantined) == (1, 1, 3)
    assert await everything(connection) == before
    really = await run(connection)
    assert really == result, "the same judgement"


async def test_a_trial_leaves_no_month_behind(connection: Connection) -> None:
    await (await Feed.open(connection)).write(connection, event())
    await add(connection)
    before = await everything(connection)
    for _ in range(2):
        result = await release(
            connection,
            ALL,
            forced=False,
            closed_by="tester",
            protocols=PROTOCOLS,
            retention=Retention(),
            trial=lambda outcome: None,
        )
        assert result.released == 1
    assert await everything(connection) == before


async def test_not_faster_than_it_may(connection: Connection) -> None:
    await (await Feed.open(connection)).write(connection, *(event(minute=minute) for minute in range(25)))
    await add(connection)
    waits: list[tuple[float, int]] = []
    clock = HandClock(RECEIVED)

    async def sleep(wait_s: float) -> None:
        assert not connection.is_in_transaction(), "nobody is kept waiting meanwhile"
        waits.append((wait_s, len(await signals(connection))))
        clock.move(wait_s)

    result = await release(
        connection,
        ALL,
        forced=False,
        closed_by="tester",
        protocols=PROTOCOLS,
        retention=Retention(),
        pace=Pace(10, clock=clock, sleep=sleep),
    )
    assert result.released == 25
    assert waits == [(1.0, 10), (1.0, 20), (0.5, 25)]


async def test_force_overrules_policy_and_flags_only_what_needed_it(connection: Connection) -> None:
    feed = await Feed.open(connection)
    await add(connection, "known")
    await feed.write(connection, event("1"), event("known", message_date=FUTURE), frame(b'{"latitude": 1e999}', "1"))
    await feed.write(connection, event("2"))
    await add(connection, "2")
    result = await run(connection, forced=True)
    assert (result.released, result.still_quarantined) == (3, 1), "what cannot be read stays, forced or not"
    unknown, future, plain = await signals(connection)
    assert unknown["flags"] == Flag.FORCED
    assert future["flags"] == Flag.FORCED | Flag.WEAK_KEY
    assert (future["wire_time"], future["device_time"]) == (RECEIVED, None)
    assert plain["flags"] == 0, "nothing was against it any more"
    await assert_sums(connection)


async def test_the_retention_of_today_decides(connection: Connection) -> None:
    await add(connection)
    feed = await Feed.open(connection)
    await feed.write(connection, event("1", minute=3 * 24 * 60))
    await add(connection, "1")
    assert (await run(connection, retention_days=2)).reasons == {"expired": 1}
    assert (await run(connection, retention_days=4)).released == 1


async def test_rows_that_stay_are_tried_once_and_hold_up_nobody(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "QUARANTINE_RELEASE_BATCH", 3)
    feed = await Feed.open(connection)
    await feed.write(connection, *(event(str(minute % 2), minute) for minute in range(20)))
    await add(connection, "1")
    tried: list[int] = []
    result = await release(
        connection,
        ALL,
        forced=False,
        closed_by="tester",
        protocols=PROTOCOLS,
        retention=Retention(),
        progress=tried.append,
    )
    assert result == Released(released=10, still_quarantined=10, reasons={"unknown_device": 10})
    assert tried == [3, 6, 9, 12, 15, 18, 20]
    assert [row["attempts"] for row in await quarantined(connection)] == [1] * 20
    await assert_sums(connection)


async def test_a_row_that_the_database_rejects_blocks_no_other(connection: Connection) -> None:
    await (await Feed.open(connection)).write(
        connection, *(event("1", minute, event_code="poison" if minute in {3, 4} else None) for minute in range(9))
    )
    await add(connection, "1")
    await connection.execute("ALTER TABLE signal ADD CONSTRAINT taste CHECK (event_code <> 'poison')")
    assert await run(connection) == Released(released=7, still_quarantined=2, reasons={"database_rejected": 2})
    rows = [row for row in await quarantined(connection) if row["state"] == "open"]
    assert [row["reason"] for row in rows] == ["database_rejected"] * 2
    assert all(row["detail"].startswith("23514 ") and "taste" in row["detail"] for row in rows)
    assert [row["attempts"] for row in rows] == [1, 1]
    await assert_sums(connection)


async def test_a_decoder_that_slices_otherwise_releases_nothing_and_says_so(connection: Connection) -> None:
    await (await Feed.open(connection)).write(connection, event())
    await add(connection)
    result = await run(connection, protocols={"json": Otherwise()}, forced=True)
    assert result == Released(still_quarantined=1, reasons={"unknown_device": 1})
    (row,) = await quarantined(connection)
    assert "reads the frame differently" in row["detail"]
    assert (row["state"], row["reason"], row["attempts"]) == ("open", "unknown_device", 1)
    assert (await run(connection)).released == 1, "and with the decoder of before it can go"


async def test_what_could_not_be_read_is_replaced_by_what_a_newer_decoder_finds_in_it(connection: Connection) -> None:
    feed = await Feed.open(connection)
    await add(connection)
    await feed.write(connection, frame(b"no JSON at all"), event())
    result = await run(connection, protocols={"json": Otherwise()})
    assert result == Released(replaced=1)
    assert [row["state"] for row in await quarantined(connection)] == ["replaced"]
    found = await signals(connection)
    assert [(row["seq"], row["record_no"]) for row in found] == [(1, 0), (1, 1), (2, 0)]
    ledger = await connection.fetchrow("SELECT * FROM ledger")
    assert ledger is not None
    assert (ledger["records"], ledger["stored"], ledger["quarantined"], ledger["replaced"]) == (4, 3, 1, 1)
    await assert_sums(connection)
    assert await run(connection, protocols={"json": Otherwise()}) == Released(), "once"


async def test_a_replacement_stores_nothing_twice(connection: Connection) -> None:
    """A re-send that the newer decoder has ingested already, and two rows of one frame."""
    feed = await Feed.open(connection)
    await add(connection)
    await feed.write(connection, frame(b"no JSON at all"))
    later = await Feed.open(connection)
    await later.write(connection, frame(b"no JSON at all"), protocols={"json": Otherwise()})
    assert await run(connection, protocols={"json": Otherwise()}) == Released(replaced=1)
    assert len(await signals(connection)) == 2
    await assert_sums(connection)


async def test_what_a_newer_decoder_cannot_read_either_stays_once(connection: Connection) -> None:
    class StillNot(ToyProtocol):
        def decode(self, frame: bytes, device_number: str, context: Context, settings: DeviceSettings) -> list[Outcome]:
            return [Undecodable(Reason.BAD_VALUE, "still not", frame[3:])]

    await add(connection)
    await (await Feed.open(connection)).write(connection, frame(b"no JSON at all"))
    assert await run(connection, protocols={"json": StillNot()}) == Released(replaced=1)
    assert [row["state"] for row in await quarantined(connection)] == ["replaced", "open"]
    assert await run(connection, protocols={"json": StillNot()}) == Released(
        still_quarantined=1, reasons={"bad_value": 1}
    )
    await assert_sums(connection)


async def test_the_reason_of_now_replaces_the_one_of_then(connection: Connection) -> None:
    await (await Feed.open(connection)).write(connection, event(message_date=FUTURE))
    assert (await run(connection)).reasons == {"unknown_device": 1}
    await add(connection)
    assert (await run(connection)).reasons == {"future": 1}
    (row,) = await quarantined(connection)
    assert row["reason"] == "future"
    assert "24 h" in row["detail"]


async def test_a_record_that_is_stored_already_is_only_closed(connection: Connection) -> None:
    feed = await Feed.open(connection)
    await feed.write(connection, event("1", minute=1), event("1", minute=2))
    await add(connection, "1")
    assert (await run(connection, Selection(ids=(1,)))).released == 1
    await connection.execute("UPDATE quarantine SET state = 'open' WHERE id = 1")
    await connection.execute("UPDATE device_state SET quarantine_open = 2")
    assert await run(connection) == Released(released=1, already_stored=1)
    booked = await connection.fetchrow("SELECT released, released_duplicate FROM ledger")
    assert booked is not None
    assert tuple(booked) == (2, 1)


async def test_a_resend_that_is_ingested_meanwhile_is_waited_for(dsn: str, connection: Connection) -> None:
    feed = await Feed.open(connection)
    await feed.write(connection, event())
    await add(connection)
    # Its month exists already, as it does for any device that sends.
    await (await Feed.open(connection)).write(connection, event(minute=5))
    async with connected(dsn) as other, connected(dsn) as watcher:
        transaction = other.transaction()
        await transaction.start()
        await feed.write(other, event())
        task = asyncio.create_task(run(connection))
        await wait_until_async(lambda: is_waiting(watcher), what="the release waits for the device")
        await transaction.commit()
        assert await task == Released(), "somebody else has closed the row"
    assert len(await signals(connection)) == 2
    await assert_sums(connection)


async def test_a_device_that_is_retired_meanwhile_keeps_its_records_out(dsn: str, connection: Connection) -> None:
    await (await Feed.open(connection)).write(connection, event())
    await add(connection)
    async with connected(dsn) as other, connected(dsn) as watcher:
        async with other.transaction():
            await other.execute(sql.LOCK_DEVICES, [1])
            task = asyncio.create_task(run(connection))
            await wait_until_async(lambda: is_waiting(watcher), what="the release waits for the device")
            await other.execute("UPDATE device SET status = 'retired', revision = revision + 1")
        assert await task == Released(still_quarantined=1, reasons={"retired_device": 1})
    assert await signals(connection) == []


async def test_discarding_closes_and_keeps(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "QUARANTINE_RELEASE_BATCH", 2)
    await (await Feed.open(connection)).write(connection, *(event(str(minute % 2), minute) for minute in range(10)))
    assert await discard(connection, Selection(device_number="1"), closed_by="tester") == 5
    assert await discard(connection, Selection(device_number="1"), closed_by="tester") == 0
    states = await connection.fetch("SELECT state, count(*) FROM quarantine GROUP BY state ORDER BY state")
    assert [tuple(row) for row in states] == [("discarded", 5), ("open", 5)]
    logged = await connection.fetch("SELECT detail FROM audit_log WHERE action = 'quarantine.discard'")
    assert sum(row["detail"]["records"] for row in logged) == 5
    await add(connection, "1")
    assert await run(connection, Selection(device_number="1")) == Released(), "discarded is discarded"
    await assert_sums(connection)


async def is_waiting(watcher: Connection) -> bool:
    """Whether a session of this database waits for a lock."""
    found: bool = await watcher.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
    )
    return found
