"""A worker with a source of ours: cut, drop, set aside, acknowledge; and frames that end the process reading them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from signalkeep import limits
from signalkeep.clock import SystemClock
from signalkeep.config import Settings, load
from signalkeep.drivers.source import ASIDE_QUEUE, Delivery
from signalkeep.ingest.service import books_for
from signalkeep.ingest.worker import Worker
from signalkeep.journal.lanes import lane_of, lanes_of
from signalkeep.journal.ranges import LaneRange, decode_range, encode_range
from signalkeep.journal.record import FrameEntry
from signalkeep.protocols.registry import PROTOCOLS
from signalkeep.roles import prepare_directories
from signalkeep.store import journals, relay
from signalkeep.store.claims import WORKERS_CLASS, Claims
from signalkeep.store.postgres import Connection
from tests.ingest.support import event
from tests.servers import wait_until_async

LANES, QUEUES = 64, 8
ALONE = f"""
SELECT count(*) = 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.classid = {WORKERS_CLASS}
"""  # a test that takes part counts, too


class Mailbox:
    """A `Source` that holds what a test puts into it."""

    connected = True

    def __init__(self) -> None:
        self.waiting: deque[Delivery] = deque()
        self.acknowledged: list[Delivery] = []
        self.frozen = False
        self.on_done: Callable[[list[Delivery]], None] = lambda _: None

    async def take(self, queues: set[int]) -> None: ...

    async def receive(self, *, max_messages: int, max_bytes: int, wait_s: float) -> list[Delivery]:
        del max_bytes
        while self.frozen:
            await asyncio.sleep(0.01)
        if not self.waiting:
            await asyncio.sleep(min(wait_s, 0.01))
        return [self.waiting.popleft() for _ in range(min(max_messages, len(self.waiting)))]

    async def done(self, deliveries: list[Delivery]) -> None:
        self.on_done(deliveries)
        self.acknowledged += deliveries

    async def close(self) -> None: ...


class Bench:
    """A worker, its mailbox, and a journal that the database knows."""

    def __init__(self, settings: Settings, connection: Connection, journal: UUID, journal_id: int) -> None:
        self.connection, self.journal, self.journal_id = connection, journal, journal_id
        self.mailbox = Mailbox()
        self._stop = asyncio.Event()
        self.worker = Worker(
            settings, self.mailbox, make_books=books_for(settings, SystemClock()), clock=SystemClock(), stop=self._stop
        )
        self.task = asyncio.create_task(self.worker.run())

    def message(self, after_seq: int, last_seq: int, *, queue: int = 1, **changes: Any) -> Delivery:
        """Frames of devices of that queue's lanes at each sequence number."""
        devices = [str(number) for number in range(200) if lane_of(str(number), LANES) % QUEUES == queue]
        entries = [(seq, event(seq, devices[seq % len(devices)])) for seq in range(after_seq + 1, last_seq + 1)]
        lanes = list(lanes_of(queue, QUEUES, LANES))
        made = LaneRange(self.journal, LANES, lanes, 1, after_seq, last_seq, list(entries), [])
        body = encode_range(msgspec.structs.replace(made, **changes))
        return Delivery(queue, f"queue {queue}", body, 0)

    def put(self, *deliveries: Delivery) -> None:
        self.mailbox.waiting.extend(deliveries)

    async def settled(self, messages: int) -> None:
        await wait_until_async(lambda: len(self.mailbox.acknowledged) >= messages, 20)

    async def stored(self) -> list[int]:
        rows = await self.connection.fetch("SELECT seq FROM signal ORDER BY seq")
        return [row["seq"] for row in rows]

    async def end(self) -> None:
        self._stop.set()
        await self.task


@pytest.fixture
async def bench(
    tmp_path: Path, dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    monkeypatch.setattr(limits, "CLAIM_SILENT_S", 5 * limits.CLAIM_S)
    environ = {
        "SIGNALKEEP_DATABASE__DSN": dsn,
        "SIGNALKEEP_UNKNOWN_DEVICES": "register",
        "SIGNALKEEP_BROKER__URL": "amqp://127.0.0.1:1/",
    }
    settings = load(tmp_path / "data", environ=environ)
    prepare_directories(settings)
    journal = uuid4()
    journal_id = await journals.register(connection, journal, "here", Path("/journal"), LANES)
    await relay.add_lanes(connection, journal_id, LANES)
    made = Bench(settings, connection, journal, journal_id)
    yield made
    await made.end()


async def test_in_order_several_messages_at_a_time(bench: Bench) -> None:
    bench.put(bench.message(0, 3), bench.message(3, 7), bench.message(0, 4, queue=2), bench.message(7, 9))
    await bench.settled(4)
    assert await bench.stored() == sorted([*range(1, 10), *range(1, 5)])
    assert bench.worker.stats.batches < 4, "several messages in one transaction"


async def test_what_the_database_has_is_cut_or_dropped(bench: Bench) -> None:
    bench.put(bench.message(0, 5))
    await bench.settled(1)
    bench.put(bench.message(0, 5), bench.message(0, 8), bench.message(2, 8))
    await bench.settled(4)
    assert await bench.stored() == list(range(1, 9))
    assert bench.worker.counts.doubles == 2
    ledger = await bench.connection.fetchrow("SELECT sum(records) AS records, sum(duplicate) AS doubled FROM ledger")
    assert ledger is not None
    assert tuple(ledger) == (8, 0), "cut by the cursor, not only by the record key"


async def test_a_hole_is_told_and_never_written(bench: Bench) -> None:
    bench.put(bench.message(0, 3), bench.message(5, 9, epoch=4), bench.message(3, 4))
    await bench.settled(3)
    assert await bench.stored() == [1, 2, 3, 4]
    assert bench.worker.counts.holes == 1
    rows = await bench.connection.fetch("SELECT lane, holes, hole_epoch FROM relay WHERE holes > 0 ORDER BY lane")
    assert [tuple(row) for row in rows] == [(lane, 1, 4) for lane in lanes_of(1, QUEUES, LANES)]


async def test_one_that_hangs_leaves_its_queues_to_others_and_goes_on_when_it_moves(
    bench: Bench,
) -> None:
    """As a process that is frozen. One that only has nothing to do keeps them."""
    other = Claims(bench.connection, QUEUES)
    bench.put(bench.message(0, 3))
    await bench.settled(1)
    assert len(await other.share()) < QUEUES
    bench.mailbox.frozen = True
    await wait_until_async(lambda: bench.connection.fetchval(ALONE), what="it has lost its connection")
    assert len(await other.share()) == QUEUES
    await other.leave()
    for queue in range(QUEUES):
        await other.release(queue)
    bench.mailbox.frozen = False
    bench.put(bench.message(3, 5))
    await bench.settled(2)
    assert await bench.stored() == [1, 2, 3, 4, 5]


async def test_a_journal_that_a_restored_database_has_forgotten(bench: Bench) -> None:
    bench.put(bench.message(0, 3, journal=uuid4()), bench.message(0, 2))
    await bench.settled(2)
    assert await bench.stored() == [1, 2]
    assert bench.worker.counts.holes == 1


async def test_foreign_and_damaged_messages_are_set_aside_and_stop_nothing(bench: Bench) -> None:
    sound = bench.message(0, 3)
    damaged = msgspec.structs.replace(sound, body=sound.body[:-1] + b"\0", sender="type text")
    foreign = msgspec.structs.replace(sound, body=b"hello\0" * 50_000)
    bench.put(foreign, damaged, sound, msgspec.structs.replace(sound, queue=ASIDE_QUEUE, queue_name="aside", body=b"x"))
    await bench.settled(4)
    assert await bench.stored() == [1, 2, 3]
    rows = await bench.connection.fetch(
        "SELECT queue, reason, detail, bytes, length(body) AS kept FROM set_aside ORDER BY id"
    )
    assert [tuple(row) for row in rows] == [
        ("queue 1", "foreign", "it is no message of ours", 300_000, limits.SET_ASIDE_BYTES_MAX),
        ("queue 1", "damaged", "its checksum is wrong; type text", len(sound.body), len(sound.body)),
        ("aside", "foreign", "it is no message of ours", 1, 1),
    ]
    assert (
        await bench.connection.fetchval("SELECT sum(count) FROM finding WHERE kind = 'broker_message_set_aside'") == 3
    )
    assert bench.worker.counts.set_aside == {"foreign": 2, "damaged": 1}


async def test_a_flood_of_foreign_messages_is_only_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SET_ASIDE_ROWS_MAX", 10)
    bench.put(*(Delivery(1, "queue 1", b"%d" % number, 0) for number in range(30)))
    await bench.settled(30)
    assert await bench.connection.fetchval("SELECT count(*) FROM set_aside") == 10
    assert bench.worker.counts.set_aside["foreign"] == 30


@pytest.mark.parametrize(("returned", "reason"), [(True, "returned"), (False, "unroutable")])
async def test_what_came_aside_is_asked_for_again(bench: Bench, returned: bool, reason: str) -> None:
    lost = msgspec.structs.replace(bench.message(0, 3), queue=ASIDE_QUEUE, queue_name="aside", returned=returned)
    bench.put(lost)
    await bench.settled(1)
    assert await bench.stored() == []
    row = await bench.connection.fetchrow("SELECT reason, length(body) AS kept FROM set_aside")
    assert row is not None
    assert tuple(row) == (reason, 0), "the journal has it"
    assert await bench.connection.fetchval("SELECT max(hole_epoch) FROM relay") == 1


async def test_nothing_is_acknowledged_before_its_commit(bench: Bench) -> None:
    """Also over an outage of the database: what is in hand stays there, and comes from nowhere else again."""
    seen: list[int] = []
    bench.mailbox.on_done = lambda deliveries: seen.append(len(deliveries))
    await bench.connection.execute("BEGIN; LOCK TABLE cursor IN ACCESS EXCLUSIVE MODE")
    bench.put(bench.message(0, 3), bench.message(3, 6))
    await asyncio.sleep(0.7)
    await bench.connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    await asyncio.sleep(0.7)
    assert seen == []
    await bench.connection.execute("ROLLBACK")
    await bench.settled(2)
    assert await bench.stored() == [1, 2, 3, 4, 5, 6]
    assert bench.worker.counts.messages == 2


async def test_a_cursor_that_somebody_else_moves_under_the_worker(bench: Bench) -> None:
    bench.put(bench.message(0, 3))
    await bench.settled(1)
    await bench.connection.execute("DELETE FROM signal; DELETE FROM ledger; UPDATE cursor SET seq = 0, frames = 0")
    bench.put(bench.message(3, 6), bench.message(0, 6, epoch=2))
    await bench.settled(3)
    assert await bench.stored() == [1, 2, 3, 4, 5, 6]
    assert bench.worker.counts.holes == 1


class Death(BaseException):
    """Stands for the end of the process."""


class Deadly:
    """The JSON protocol with a decoder that ends its process at one frame."""

    def __init__(self, deadly: bytes) -> None:
        self._real = PROTOCOLS["json"]
        self._deadly = deadly
        self.deaths = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def decode(self, frame: bytes, *rest: Any) -> Any:
        if frame == self._deadly:
            self.deaths += 1
            raise Death  # nothing that the core catches
        return self._real.decode(frame, *rest)


async def test_a_frame_that_ends_its_reader_is_quarantined_unread(
    tmp_path: Path, dsn: str, connection: Connection, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every process that takes it dies; the broker gives it to the next one, and counts."""
    message = bench.message(0, 200)
    raw = next(entry.raw for seq, entry in _entries(message) if seq == 137)
    deadly = Deadly(raw)
    monkeypatch.setitem(PROTOCOLS, "json", deadly)
    await bench.end()
    settings = load(
        tmp_path / "data",
        environ={
            "SIGNALKEEP_DATABASE__DSN": dsn,
            "SIGNALKEEP_UNKNOWN_DEVICES": "register",
            "SIGNALKEEP_BROKER__URL": "amqp://127.0.0.1:1/",
        },
    )
    deaths = 0
    while deaths < 30:
        mailbox = Mailbox()
        mailbox.waiting.append(msgspec.structs.replace(message, times=deaths))
        stop = asyncio.Event()
        worker = Worker(
            settings, mailbox, make_books=books_for(settings, SystemClock()), clock=SystemClock(), stop=stop
        )
        task = asyncio.get_running_loop().create_task(_process(worker))
        await wait_until_async(lambda: task.done() or mailbox.acknowledged, 20)  # noqa: B023 - awaited here
        stop.set()
        if await task:
            break
        deaths += 1
    assert mailbox.acknowledged
    assert deaths == deadly.deaths
    assert deaths < 12
    assert await bench.stored() == [seq for seq in range(1, 201) if seq != 137]
    row = await connection.fetchrow("SELECT seq, reason, detail, raw FROM quarantine")
    assert row is not None
    assert (row["seq"], row["reason"], row["raw"]) == (137, "decoder_error", raw)
    assert "processes ended while they decoded it" in row["detail"]
    assert await connection.fetchval("SELECT count(*) FROM decode_attempt") == 0


async def _process(worker: Worker) -> bool:
    """Whether it came to its end."""
    try:
        await worker.run()
    except Death:
        return False
    return True


def _entries(delivery: Delivery) -> list[tuple[int, FrameEntry]]:
    return [(seq, entry) for seq, entry in decode_range(delivery.body).entries if isinstance(entry, FrameEntry)]
