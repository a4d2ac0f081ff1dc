"""What a stream sends, when it calls that done, and on what evidence it sends again; the broker here is a list.

The journal is real, the database is what the test says it has.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from signalkeep import limits
from signalkeep.broker.stats import RelayStats
from signalkeep.broker.stream import Evidence, Stream
from signalkeep.clock import SystemClock
from signalkeep.errors import BrokerUnavailable, SignalkeepError
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.lanes import lane_of_entry
from signalkeep.journal.ranges import LaneRange, decode_range
from signalkeep.journal.reader import JournalReader
from signalkeep.journal.record import Entry, FrameEntry, SessionEntry
from signalkeep.journal.writer import JournalWriter
from signalkeep.store.relay import LaneState
from tests.broker.support import message
from tests.ingest.support import RECEIVED_US
from tests.servers import wait_until_async
from tests.test_vitals import HandClock

FS = LocalFileSystem()
LANES, ENTRIES = 4, 60


class ListSender:
    """A broker that keeps what it is sent, in order, until somebody takes it."""

    def __init__(self) -> None:
        self.made: Counter[int] = Counter()
        self.attempts: list[bytes] = []
        self.kept: list[LaneRange] = []
        self.failures = 0  # so many more publishes fail
        self.connections = 1

    async def publish(self, queue: int, body: bytes) -> int:
        self.attempts.append(body)
        if self.failures:
            self.failures -= 1
            raise BrokerUnavailable("it may have it, or not")
        self.kept.append(decode_range(body))
        return self.made[queue]

    async def depth(self, queue: int) -> int:
        return len(self.kept)

    def complain(self, error: SignalkeepError) -> None:
        pass


class Rig:
    """One stream of all lanes of a journal with so many messages, and a database beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sender, self.clock, self.stats = ListSender(), HandClock(), RelayStats()
        self.cursor = self.hole_epoch = 0
        self.stream = self.made()

    def made(self) -> Stream:
        reader = JournalReader(FS, self.directory, evidence_root=self.directory.parent / "evidence")
        return Stream(
            reader, queue=0, lanes=range(LANES), sender=self.sender, clock=self.clock,
            window_bytes=limits.BROKER_WINDOW_BYTES, stats=self.stats,
        )  # fmt: skip

    def see(self, *, sent: int = 0, epoch: int = 1) -> Evidence | None:
        """As the driver does: the database has everything up to `cursor`."""
        return self.stream.see([LaneState(lane, self.cursor, sent, epoch, self.hole_epoch) for lane in range(LANES)])

    async def send_all(self) -> None:
        self.stream.start()
        await wait_until_async(lambda: self.stream.sent == ENTRIES)

    async def suspicious_within(self, seconds: float) -> Evidence | None:
        """As the driver does: it looks again and again until there is evidence."""
        end_s = self.clock.at_s + seconds
        while self.clock.at_s < end_s:
            self.clock.at_s += limits.RELAY_LOOK_S
            if (evidence := await self.stream.suspicious()) is not None:
                return evidence
        return None

    def sent_entries(self) -> list[int]:
        return [seq for one in self.sender.kept for seq, _ in one.entries]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    (tmp_path / "journal").mkdir()
    writer = JournalWriter.create(FS, tmp_path / "journal", clock=SystemClock(), segment_bytes=1 << 20, lanes=LANES)
    writing = asyncio.create_task(writer.run())
    for number in range(ENTRIES):
        writer.append(message(number))
    await writer.close()
    await writing
    made = Rig(writer.directory)
    yield made
    await made.stream.stop()


async def test_everything_is_sent_once_and_in_order(rig: Rig) -> None:
    rig.see()
    await rig.send_all()
    assert rig.sent_entries() == list(range(1, ENTRIES + 1))
    rig.cursor = ENTRIES // 2
    assert rig.see() is None
    assert await rig.stream.suspicious() is None


async def test_what_is_confirmed_is_not_done_with_until_the_database_has_it(rig: Rig) -> None:
    """The broker may still lose it all."""
    rig.see()
    await rig.send_all()
    rig.see()
    assert rig.stream.reader.finished
    assert not rig.stream.complete
    rig.cursor = ENTRIES
    rig.see()
    assert rig.stream.complete


async def test_a_message_that_was_not_confirmed_is_sent_again_as_it_was(rig: Rig) -> None:
    rig.sender.failures = 2
    rig.see()
    await rig.send_all()
    first, second, third = rig.sender.attempts[:3]
    assert first == second == third
    assert rig.sent_entries() == list(range(1, ENTRIES + 1))
    assert rig.stats.failures == 2


async def test_a_hole_sends_back_to_the_cursor_once_and_not_for_every_message_behind_it(rig: Rig) -> None:
    """Messages that were on the way when the relay went back leave the same hole again: they are of the old epoch."""
    rig.see()
    await rig.send_all()
    rig.cursor, rig.hole_epoch = 10, rig.stream.epoch
    assert rig.see() is Evidence.HOLE
    await rig.stream.go_back(Evidence.HOLE)
    for _ in range(3):
        assert rig.see() is None, "the same hole is no news"
    rig.sender.kept.clear()
    await rig.send_all()
    assert rig.sent_entries() == list(range(11, ENTRIES + 1))
    assert {one.epoch for one in rig.sender.kept} == {rig.stream.epoch}
    rig.hole_epoch = rig.stream.epoch
    assert rig.see() is Evidence.HOLE, "this one is new"


async def test_a_queue_that_was_gone_sends_back_to_the_cursor(rig: Rig) -> None:
    rig.see()
    await rig.send_all()
    assert rig.see() is None
    rig.sender.made[0] += 1
    assert rig.see() is Evidence.VANISHED
    await rig.stream.go_back(Evidence.VANISHED)
    assert rig.see() is None


async def test_an_empty_queue_and_no_progress_for_long_sends_back_and_then_waits_longer(rig: Rig) -> None:
    rig.see()
    await rig.send_all()
    within_s = limits.RELAY_STALL_S + 1
    assert await rig.suspicious_within(within_s) is None, "everything waits in the queue: workers are slow, or gone"
    rig.sender.kept.clear()
    assert await rig.suspicious_within(within_s) is Evidence.STALLED
    assert await rig.suspicious_within(within_s) is None
    assert await rig.suspicious_within(within_s) is Evidence.STALLED


async def test_what_a_worker_has_just_taken_in_hand_is_no_stall(rig: Rig) -> None:
    """It came late to a queue in which everything had waited for long."""
    rig.see()
    await rig.send_all()
    rig.clock.at_s += limits.RELAY_STALL_S + 1
    rig.sender.kept.clear()
    assert await rig.stream.suspicious() is None
    rig.cursor = ENTRIES // 2
    rig.see()
    assert await rig.suspicious_within(limits.RELAY_STALL_S - 1) is None
    assert await rig.suspicious_within(2) is Evidence.STALLED


async def test_after_a_new_connection_workers_are_given_their_time_anew(rig: Rig) -> None:
    """They had to connect again too, and what they have just taken in hand is no longer in the queue."""
    rig.see()
    await rig.send_all()
    rig.sender.kept.clear()
    assert await rig.suspicious_within(limits.RELAY_STALL_S - 1) is None
    rig.sender.connections += 1
    assert await rig.suspicious_within(limits.RELAY_STALL_S) is None
    assert await rig.suspicious_within(2) is Evidence.STALLED


async def test_a_queue_that_was_gone_is_evidence_on_a_new_connection_too(rig: Rig) -> None:
    rig.see()
    await rig.send_all()
    rig.sender.connections += 1
    rig.sender.made[0] += 1
    rig.clock.at_s += limits.RELAY_STALL_S + 1
    assert await rig.stream.suspicious() is Evidence.VANISHED


async def test_a_restored_database_sends_back_to_its_cursor(rig: Rig) -> None:
    rig.see()
    await rig.send_all()
    rig.cursor = 40
    assert rig.see() is None
    rig.cursor = 20
    assert rig.see() is Evidence.RESTORED


async def test_a_relay_that_comes_again_begins_where_the_last_one_was(rig: Rig) -> None:
    rig.see(sent=50, epoch=3)
    rig.stream.start()
    rig.cursor = 50  # what the last one sent has arrived: there is room for more
    assert rig.see(sent=50, epoch=3) is None
    await rig.send_all()
    assert rig.sent_entries() == list(range(51, ENTRIES + 1))
    assert rig.stream.epoch == 3


def test_whatever_speaks_of_a_device_is_in_its_lane() -> None:
    """Or a session could overtake the frames that came before it."""

    def of(device: str) -> Iterable[Entry]:
        yield FrameEntry(RECEIVED_US, "json", device, "127.0.0.1:1", {}, b"{}")
        yield SessionEntry(RECEIVED_US, "identified", "json", device, "127.0.0.1:1", "")

    for number in range(50):
        assert len({lane_of_entry(entry, limits.LANES_WITH_BROKER) for entry in of(f"unit-{number}")}) == 1
