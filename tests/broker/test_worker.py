"""What a worker does with messages that come too early, too late, twice or from elsewhere, and when it acknowledges.

The broker here is a list; the database is real.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from signalkeep import limits
from signalkeep.drivers.source import Delivery
from signalkeep.journal.ranges import LaneRange, encode_range
from signalkeep.journal.record import Entry
from signalkeep.store import journals, relay
from signalkeep.store.postgres import Connection
from tests.broker.support import Site, message
from tests.servers import connected, wait_until_async

LANES, EPOCH = 4, 5
NOBODY = "amqp://nobody@127.0.0.1:1/"
SOON_S = 30.0


class ListSource:
    """Brings what it is given, and remembers what was acknowledged."""

    connected = True

    def __init__(self) -> None:
        self.waiting: list[Delivery] = []
        self.acknowledged: list[Delivery] = []

    async def take(self, queues: set[int]) -> None:
        pass

    async def receive(self, *, max_messages: int, max_bytes: int, wait_s: float) -> list[Delivery]:
        if not self.waiting:
            await asyncio.sleep(wait_s)
        taken, self.waiting = self.waiting[:max_messages], self.waiting[max_messages:]
        return taken

    async def done(self, deliveries: list[Delivery]) -> None:
        self.acknowledged += deliveries

    async def close(self) -> None:
        pass


class Rig:
    """A journal that the database knows, a worker, and its list of messages."""

    def __init__(self, dsn: str, connection: Connection, journal: UUID, journal_id: int) -> None:
        self.source = ListSource()
        self.dsn, self.connection = dsn, connection
        self._journal, self._journal_id = journal, journal_id

    @classmethod
    async def made(cls, site: Site, dsn: str, connection: Connection, directory: Path) -> Rig:
        journal = uuid4()
        journal_id = await journals.register(connection, journal, "elsewhere", directory, LANES)
        await relay.add_lanes(connection, journal_id, LANES)
        rig = cls(dsn, connection, journal, journal_id)
        site.worker(lambda _: rig.source)
        return rig

    def deliver(self, first_seq: int, last_seq: int) -> None:
        """A message with these entries, of all lanes."""
        entries: list[tuple[int, Entry]] = [(seq, message(seq)) for seq in range(first_seq, last_seq + 1)]
        found = LaneRange(self._journal, LANES, list(range(LANES)), EPOCH, first_seq - 1, last_seq, entries, [])
        self.deliver_bytes(encode_range(found))

    def deliver_bytes(self, body: bytes) -> None:
        self.source.waiting.append(Delivery(queue=0, queue_name="signalkeep.lanes.0", body=body, times=0))

    async def wait_for_acknowledged(self, count: int) -> None:
        await wait_until_async(lambda: len(self.source.acknowledged) >= count, SOON_S)
        assert len(self.source.acknowledged) == count

    async def stored(self) -> list[int]:
        return [row["seq"] for row in await self.connection.fetch("SELECT seq FROM signal ORDER BY seq")]

    async def cursors(self) -> set[int]:
        return set(await journals.cursors(self.connection, self._journal_id))

    async def wait_until_it_writes(self) -> None:
        """It waits for a lock that somebody holds."""
        waits = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"
        await wait_until_async(lambda: self.connection.fetchval(waits), SOON_S)


@pytest.fixture
async def rig(tmp_path: Path, dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(limits, "RETRY_S_MAX", 0.5)
    site = Site(tmp_path, dsn, NOBODY, connection)
    yield await Rig.made(site, dsn, connection, tmp_path)
    await site.end()


async def test_acknowledged_after_the_commit_and_not_before(rig: Rig) -> None:
    async with connected(rig.dsn) as other, other.transaction():
        await other.execute("LOCK TABLE cursor IN SHARE MODE")  # it can be read, and not moved
        rig.deliver(1, 10)
        await rig.wait_until_it_writes()
        rig.deliver(11, 20)  # is prepared meanwhile
        await wait_until_async(lambda: not rig.source.waiting, SOON_S)
        assert rig.source.acknowledged == []
    await rig.wait_for_acknowledged(2)
    assert await rig.stored() == list(range(1, 21))


async def test_what_lies_behind_a_hole_is_dropped_and_the_relay_is_told(rig: Rig) -> None:
    rig.deliver(11, 20)
    await rig.wait_for_acknowledged(1)
    assert (await rig.stored(), await rig.cursors()) == ([], {0})
    told = await rig.connection.fetch("SELECT holes, hole_epoch FROM relay")
    assert {tuple(row) for row in told} == {(1, EPOCH)}
    rig.deliver(1, 10)
    rig.deliver(11, 20)
    await rig.wait_for_acknowledged(3)
    assert (await rig.stored(), await rig.cursors()) == (list(range(1, 21)), {20})


async def test_what_comes_twice_is_cut_at_the_cursor(rig: Rig) -> None:
    for first_seq, last_seq in ((1, 10), (1, 10), (5, 15)):
        rig.deliver(first_seq, last_seq)
        await wait_until_async(lambda: not rig.source.waiting, SOON_S)
    await rig.wait_for_acknowledged(3)
    assert (await rig.stored(), await rig.cursors()) == (list(range(1, 16)), {15})
    counted = await rig.connection.fetchrow("SELECT sum(records), sum(stored), sum(duplicate) FROM ledger")
    assert counted is not None
    assert tuple(counted) == (15, 15, 0), "it was not even decoded again"
    assert await rig.connection.fetchval("SELECT sum(frames) FROM cursor") == 15


async def test_what_nobody_can_use_is_kept_before_it_is_acknowledged(rig: Rig) -> None:
    rig.deliver_bytes(b"good morning")
    rig.deliver(1, 10)
    await rig.wait_for_acknowledged(2)
    (row,) = await rig.connection.fetch("SELECT reason, bytes, body FROM set_aside")
    assert tuple(row) == ("foreign", 12, b"good morning")
    assert await rig.connection.fetchval("SELECT count(*) FROM finding WHERE device_id IS NULL") == 1
    assert await rig.stored() == list(range(1, 11))


async def test_what_is_in_hand_when_the_database_goes_stays_in_hand(rig: Rig) -> None:
    """The broker would not bring it again: nobody has given it back."""
    async with connected(rig.dsn) as other, other.transaction():
        await other.execute("LOCK TABLE cursor IN SHARE MODE")
        rig.deliver(1, 10)
        await rig.wait_until_it_writes()
        rig.deliver(11, 20)
        await wait_until_async(lambda: not rig.source.waiting, SOON_S)
        await other.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted")
    await rig.wait_for_acknowledged(2)
    assert await rig.stored() == list(range(1, 21))
