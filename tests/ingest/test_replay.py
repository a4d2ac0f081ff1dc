"""Replay: what is stored is compared, put right, or put back, and never there twice. The audit has the last word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from signalkeep import limits
from signalkeep.ingest.pace import Pace
from signalkeep.ingest.release import release
from signalkeep.journal.record import FrameEntry
from signalkeep.model import Context, Decoded, DeviceSettings, Flag, Outcome, Reason, Signal, Undecodable
from signalkeep.protocols.json_events import JSON
from signalkeep.store import registry
from signalkeep.store import replay as stored
from signalkeep.store.erasure import erase
from signalkeep.store.postgres import Connection
from signalkeep.store.quarantine import Selection, discard
from signalkeep.store.replay import MovedElsewhere, Replay, Wanted
from signalkeep.store.retention import Retention
from tests.builders import NUMBER, PROTOCOLS, RECEIVED, assert_sums, event, frame
from tests.gateway.toy import ToyProtocol
from tests.ingest.replays import ALWAYS, HOUR, Core, Newer, counted, cut_otherwise, newer, with_fuel, with_one_more
from tests.ingest.support import HandClock
from tests.servers import connected

pytestmark = pytest.mark.servers

FUTURE = (RECEIVED + timedelta(days=3)).isoformat()


@pytest.fixture
async def core(connection: Connection, tmp_path: Path) -> Core:
    made = Core(connection, tmp_path)
    await registry.register(connection, NUMBER, actor="tests")
    return made


# Nothing to do ------------------------------------------------------------------------------------------------------


async def test_what_is_as_it_should_be_stays_untouched(core: Core) -> None:
    sent = [event(minute=minute, speed_kmh=12.3, fuel=0.1) for minute in range(5)]
    await core.take(*sent, sent[1])
    await core.take(sent[2])
    before = await core.signals()
    for _ in range(2):
        assert await core.replay() == {"frames": 7, "records": 7, "same": 5, "duplicate": 2}
    assert await core.signals() == before
    assert await core.audit() == []


async def test_only_what_was_received_then_and_only_up_to_the_cursor(core: Core) -> None:
    def at(hour: int, number: str = NUMBER) -> FrameEntry:
        entry = event(number, minute=hour)
        return msgspec.structs.replace(entry, received_at_us=entry.received_at_us + hour * 3_600_000_000)

    await registry.register(core.connection, "2", actor="tests")
    await core.take(*(at(hour) for hour in range(6)), at(3, "2"), at(4, "2"), ingest=7)
    wanted = Wanted(since=RECEIVED + 2 * HOUR, until=RECEIVED + 4 * HOUR)
    assert (await core.replay(wanted=wanted))["frames"] == 3
    assert await core.replay() == {"frames": 7, "records": 7, "same": 7}, "entry 8 is not ingested yet"
    of_one = Wanted(since=wanted.since, until=wanted.until, device_number="2")
    assert (await core.replay(wanted=of_one))["frames"] == 1
    assert await core.audit() == []


async def test_what_lies_beyond_its_lanes_cursor_is_left_to_ingest(core: Core) -> None:
    """One lane is further than another, or a cursor goes back meanwhile: nothing of that is written twice."""
    await core.take(*(event(minute=minute) for minute in range(5)))
    replay = await core.begin()
    await core.connection.execute("UPDATE cursor SET seq = 3")
    assert counted(await core.replayer(replay).run()) == {"frames": 3, "records": 3, "same": 3}


# What is read otherwise now -----------------------------------------------------------------------------------------


async def test_a_newer_decoder_replaces_and_never_doubles(core: Core) -> None:
    await core.take(event(minute=1), event(minute=2, speed_kmh=50), event(minute=1))
    await core.connection.execute("UPDATE signal SET flags = 256 | 8")
    before = await core.signals()
    assert await core.replay(newer(with_fuel)) == {"frames": 3, "records": 3, "changed": 2, "duplicate": 1}
    after = await core.signals()
    assert [row["attributes"]["fuel_l"] for row in after] == [12.5, 12.5]
    others = {"attributes": None, "xid": None}
    assert [dict(row) | others for row in after] == [dict(row) | others for row in before]
    assert all(new["xid"] > old["xid"] for new, old in zip(after, before, strict=True)), "who follows sees them again"
    days = await core.connection.fetch("SELECT day FROM quality_todo")
    assert [row["day"] for row in days] == [RECEIVED.date()]
    assert await core.replay(newer(with_fuel)) == {"frames": 3, "records": 3, "same": 2, "duplicate": 1}
    assert await core.audit() == []


async def test_the_latest_position_follows_a_changed_row(core: Core) -> None:
    await core.take(event(minute=1, latitude=1.0), event(minute=2, latitude=2.0))

    def moved(signal: Signal) -> None:
        assert signal.latitude is not None
        signal.latitude += 10
        if signal.latitude == 11:
            signal.fix_valid = False

    assert (await core.replay(newer(moved)))["changed"] == 2
    row = await core.connection.fetchrow("SELECT latitude, device_time FROM device_state")
    assert row is not None
    assert tuple(row) == (12.0, RECEIVED - timedelta(minutes=2)), "the newer one has no fix, as we know now"


async def test_a_changed_time_has_both_days_judged(core: Core) -> None:
    await core.take(event(minute=1))

    def earlier(signal: Signal) -> None:
        assert signal.device_time is not None
        signal.device_time -= timedelta(days=1)

    assert (await core.replay(newer(earlier)))["changed"] == 1
    days = await core.connection.fetch("SELECT day FROM quality_todo ORDER BY day")
    assert [row["day"] for row in days] == [RECEIVED.date() - timedelta(days=1), RECEIVED.date()]


async def test_more_records_than_before_are_booked(core: Core) -> None:
    await core.take(event(minute=1), event(minute=2))
    newest = {"json": Newer(with_one_more)}
    assert await core.replay(newest) == {"frames": 2, "records": 4, "same": 2, "added": 2}
    ledger = await core.connection.fetchrow("SELECT records, stored FROM ledger")
    assert ledger is not None
    assert tuple(ledger) == (4, 4)
    assert await core.replay(newest) == {"frames": 2, "records": 4, "same": 4}
    assert await core.audit() == []
    await assert_sums(core.connection)


async def test_other_slicing_is_refused_and_named(core: Core) -> None:
    await core.take(event(minute=1), event(minute=2))
    before = await core.signals()
    replay = await core.begin()
    done = await core.replayer(replay, {"json": Newer(cut_otherwise)}).run()
    assert counted(done) == {"frames": 2, "records": 2, "refused": 2}
    assert f"device {NUMBER}, entry 1 of journal {core.last_id}: this version cuts it into other" in done.named[0]
    assert await core.signals() == before
    assert await core.audit() == []


async def test_what_cannot_be_read_any_more_is_kept_and_named(core: Core) -> None:
    def broken(outcomes: list[Outcome]) -> list[Outcome]:
        raise RuntimeError("a mistake of ours")

    def dislikes(outcomes: list[Outcome]) -> list[Outcome]:
        return [Undecodable(Reason.BAD_VALUE, "", one.raw_record, RECEIVED - timedelta(minutes=1)) for one in outcomes]

    await core.take(event(minute=1))
    before = await core.signals()
    for change in (broken, dislikes):
        assert await core.replay({"json": Newer(change)}) == {"frames": 1, "records": 1, "refused": 1}
    assert await core.signals() == before
    assert await core.audit() == []


# What is missing ----------------------------------------------------------------------------------------------------


async def test_deleted_rows_come_back(core: Core) -> None:
    await core.take(*(event(minute=minute) for minute in range(6)), event(minute=1))
    ledger = await core.connection.fetch("SELECT * FROM ledger")
    before = {row["seq"]: row["digest"] for row in await core.signals()}
    await core.connection.execute("DELETE FROM signal WHERE seq IN (2, 4)")
    assert await core.audit() != []
    assert await core.replay() == {"frames": 7, "records": 7, "same": 4, "restored": 2, "duplicate": 1}
    assert {row["seq"]: row["digest"] for row in await core.signals()} == before
    assert await core.connection.fetch("SELECT * FROM ledger") == ledger, "it had them all the time"
    assert await core.audit() == []
    assert (await core.replay())["same"] == 6


async def test_a_lost_month_comes_back(core: Core) -> None:
    await core.take(event(minute=1), event(message_date="2026-03-01T10:00:00Z"))
    await core.connection.execute("DROP TABLE signal_2026_03")
    assert (await core.replay())["restored"] == 1
    assert await core.audit() == []


async def test_missing_rows_and_records_that_are_new_in_one_replay(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REPLAY_BATCH_FRAMES", 2)
    await core.take(*(event(minute=minute) for minute in range(6)))
    await core.connection.execute("DELETE FROM signal WHERE seq IN (2, 5)")
    newest = {"json": Newer(with_one_more)}
    done = await core.replay(newest)
    assert done == {"frames": 6, "records": 12, "same": 4, "restored": 2, "added": 6}
    await assert_sums(core.connection)
    assert await core.replay(newest) == {"frames": 6, "records": 12, "same": 12}
    assert await core.audit() == []


async def test_a_resend_takes_the_place_of_what_its_own_journal_has_lost(core: Core) -> None:
    """The first journal's files are gone, and so are its rows; the device sent one of its records again later."""
    sent = [event(minute=minute) for minute in range(3)]
    await core.take(*sent)
    await core.take(sent[1], event(minute=9))
    await core.connection.execute("DELETE FROM signal WHERE journal_id = $1", core.last_id - 1)
    second = (await stored.parts_of(core.connection, core.directories))[-1:]
    assert second[0].journal_id == core.last_id
    replay = await stored.begin(core.connection, ALWAYS, second, version="1", actor="tester")
    done = counted(await core.replayer(replay).run())
    assert done == {"frames": 2, "records": 2, "same": 1, "restored": 1}
    assert [row.partition("the ledger has")[2] for row in await core.audit()] == [
        f" 2 signals, the table 0: 2 missing; missing: the record of {RECEIVED} (entry 1); missing: the record of "
        f"{RECEIVED - timedelta(minutes=2)} (entry 3)"
    ]
    assert await core.replay() == {"frames": 5, "records": 5, "same": 2, "restored": 2, "duplicate": 1}
    assert await core.audit() == []


async def test_lost_rows_of_quarantine_come_back_open(core: Core) -> None:
    await core.take(event("2", minute=1), event("2", minute=2), frame(b"no JSON", "2"))
    await core.connection.execute("DELETE FROM quarantine WHERE id > 1")
    assert await core.replay() == {"frames": 3, "records": 3, "quarantined": 1, "restored": 2}
    assert await core.audit() == []
    assert (await core.replay())["quarantined"] == 3


async def test_a_lost_signal_of_a_forced_release_comes_back_with_its_mark(core: Core) -> None:
    await core.take(event(message_date=FUTURE), event(minute=1))
    done = await release(
        core.connection, Selection(), forced=True, closed_by="tests", protocols=PROTOCOLS, retention=Retention()
    )
    assert done.released == 1
    assert (await core.replay())["same"] == 2
    await core.connection.execute("DELETE FROM signal WHERE seq = 1")
    assert await core.replay() == {"frames": 2, "records": 2, "same": 1, "restored": 1}
    assert (await core.signals())[0]["flags"] == Flag.FORCED | Flag.WEAK_KEY
    assert await core.audit() == []


async def test_rows_of_a_device_that_was_retired_since(core: Core) -> None:
    await core.take(event(minute=1), event(minute=2))
    await registry.retire(core.connection, NUMBER, actor="tests")
    await core.connection.execute("DELETE FROM signal WHERE seq = 2")
    assert await core.replay(newer(with_fuel)) == {"frames": 2, "records": 2, "changed": 1, "restored": 1}
    assert [row["flags"] for row in await core.signals()] == [0, 0]
    assert await core.audit() == []


async def test_what_was_erased_stays_away(core: Core, tmp_path: Path) -> None:
    await core.take(event(minute=9), event(minute=1))
    floor = RECEIVED - timedelta(minutes=5)
    await erase(core.connection, NUMBER, floor, log=tmp_path / "erasures", actor="tests")
    assert await core.replay() == {"frames": 2, "records": 2, "same": 1, "suppressed": 1}
    assert await core.audit() == []


async def test_a_month_that_went_with_the_retention_stays_away(core: Core) -> None:
    await core.take(event(message_date="2026-03-01T10:00:00Z"), event(minute=1))
    await core.connection.execute(
        "UPDATE ledger SET expired = 1, key_xor = key_xor # (SELECT digest FROM signal WHERE seq = 1)"
    )
    await core.connection.execute("DROP TABLE signal_2026_03")
    assert await core.replay() == {"frames": 2, "records": 2, "same": 1, "suppressed": 1}
    assert len(await core.signals()) == 1


# What waits in quarantine -------------------------------------------------------------------------------------------


async def test_what_waits_is_released_on_the_way(core: Core) -> None:
    await core.take(event("2", minute=1), frame(b"no JSON", NUMBER), event("3", minute=1), event("2", minute=3))
    await discard(core.connection, Selection(ids=(4,)), closed_by="tests")
    await registry.register(core.connection, "2", actor="tests")

    class Lenient(ToyProtocol):
        def decode(self, frame: bytes, device_number: str, context: Context, settings: DeviceSettings) -> list[Outcome]:
            if frame != b"no JSON":
                return JSON.decode(frame, device_number, context, settings)
            return [Decoded(Signal(wire_time=RECEIVED, device_time=RECEIVED), frame + b"!")]

    done = await core.replay({"json": Lenient()})
    assert done == {"frames": 4, "records": 4, "same": 2, "quarantined": 2, "released": 1, "replaced": 1}
    states = await core.connection.fetch("SELECT state FROM quarantine ORDER BY id")
    assert [row["state"] for row in states] == ["released", "replaced", "open", "discarded"]
    await assert_sums(core.connection)
    again = await core.replay({"json": Lenient()})
    assert again == {"frames": 4, "records": 4, "same": 2, "quarantined": 2}


async def test_a_record_that_the_database_rejects_is_named_and_holds_up_no_other(core: Core) -> None:
    await core.take(*(event(minute=minute, event_code="poison" if minute == 3 else "1") for minute in range(7)))
    await core.connection.execute("DELETE FROM signal WHERE seq IN (3, 4, 5)")
    await core.connection.execute("ALTER TABLE signal ADD CONSTRAINT taste CHECK (event_code <> 'poison')")
    done = await core.replay()
    assert done == {"frames": 7, "records": 7, "same": 4, "restored": 2, "refused": 1}
    await core.connection.execute("ALTER TABLE signal DROP CONSTRAINT taste")
    assert (await core.replay())["restored"] == 1
    assert await core.audit() == []


# Under way ----------------------------------------------------------------------------------------------------------


async def test_a_trial_says_the_same_and_changes_nothing(core: Core) -> None:
    await core.take(*(event(minute=minute) for minute in range(4)), event("2", message_date="2026-02-01T00:00:00Z"))
    await registry.register(core.connection, "2", actor="tests")
    await core.connection.execute("DELETE FROM signal WHERE seq = 2")
    before = await core.everything()
    parts = await stored.parts_of(core.connection, core.directories)
    trial = await core.replayer(Replay(None, ALWAYS, parts), newer(with_fuel)).run()
    assert await core.everything() == before
    assert counted(trial) == await core.replay(newer(with_fuel))


async def test_not_faster_than_it_may(core: Core) -> None:
    await core.take(*(event(minute=minute) for minute in range(25)))
    clock, waits = HandClock(RECEIVED), []

    async def sleep(wait_s: float) -> None:
        assert not core.connection.is_in_transaction()
        waits.append(wait_s)
        clock.move(wait_s)

    assert (await core.replay(pace=Pace(10, clock=clock, sleep=sleep)))["same"] == 25
    assert waits == [1.0, 1.0, 0.5]


class Mortal:
    """Connections of a test die at their n-th statement: as if the process was killed there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: type[Connection]) -> None:
        self.dies: Connection | None = None
        self.left = 0
        for name in ("fetch", "fetchrow", "fetchval", "execute"):
            monkeypatch.setattr(kind, name, self._counting(getattr(kind, name)))

    def _counting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(connection: Connection, *arguments: Any, **named: Any) -> Any:
            if connection is self.dies:
                self.left -= 1
                if self.left == 0:
                    connection.terminate()
                    raise ConnectionError("killed")
            return await method(connection, *arguments, **named)

        return call


async def test_cut_off_at_any_statement_it_goes_on(core: Core, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection dies at the first statement, at the second, and so on, until a replay gets through."""
    monkeypatch.setattr(limits, "REPLAY_BATCH_FRAMES", 2)
    await core.take(*(event(minute=minute) for minute in range(5)), event("2", minute=1))
    await registry.register(core.connection, "2", actor="tests")
    await core.connection.execute("DELETE FROM signal WHERE seq IN (1, 4)")
    replay = await core.begin()
    assert replay.id is not None
    mortal, own, deaths, done = Mortal(monkeypatch, type(core.connection)), core.connection, 0, False
    while not done:
        found = await stored.find(own, replay.id, core.directories)
        assert found is not None
        async with connected(dsn) as connection:
            core.connection, mortal.dies, mortal.left = connection, connection, deaths + 1
            try:
                await core.replayer(found[0]).run()
                done = True
            except Exception:
                if not connection.is_closed():
                    raise
                deaths += 1
            finally:
                core.connection, mortal.dies = own, None
    assert deaths > 10
    row = await own.fetchrow("SELECT * FROM replay")
    assert row is not None
    assert (row["state"], row["frames"], row["restored"], row["released"]) == ("done", 6, 2, 1)
    assert await core.audit() == []
    assert len(await core.signals()) == 6


async def test_two_processes_do_not_do_the_same_replay(core: Core) -> None:
    await core.take(*(event(minute=minute) for minute in range(3)))
    replay = await core.begin()
    assert replay.id is not None
    found = await stored.find(core.connection, replay.id, core.directories)
    assert found is not None
    await core.replayer(replay).run()
    with pytest.raises(MovedElsewhere):
        await core.replayer(found[0]).run()


async def test_what_the_files_do_not_have_any_more_is_named(core: Core) -> None:
    writer = await core.take(event(minute=1), event(minute=2))
    for file in writer.directory.iterdir():
        file.unlink()
    done = await core.replayer(await core.begin()).run()
    assert done.lost == 2
    assert "entries 1..2" in done.named[0]


async def test_beside_live_ingest(core: Core, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same device sends on, and sends again, while its past is replayed with a newer decoder."""
    monkeypatch.setattr(limits, "REPLAY_BATCH_FRAMES", 5)
    await core.take(*(event(minute=minute) for minute in range(60)))
    await core.connection.execute("DELETE FROM signal WHERE seq % 7 = 0")
    async with connected(dsn) as other:
        live = Core.__new__(Core)
        live.connection, live.root, live.evidence = other, core.root, core.evidence

        async def send() -> None:
            for minute in range(60, 80):
                await live.take(event(minute=minute), event(minute=minute - 60))

        sending = asyncio.create_task(send())
        replay = await core.begin()
        await core.replayer(replay, newer(with_fuel)).run()
        await sending
    assert len(await core.signals()) == 80
    await assert_sums(core.connection)
    assert await core.audit() == []
    fuel = await core.connection.fetchval("SELECT count(*) FROM signal WHERE attributes ? 'fuel_l'")
    assert fuel >= 50
