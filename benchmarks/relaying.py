"""What a relay's own work costs: a full journal, read by all its streams, for a broker that confirms at once.

No socket, no RabbitMQ, no database: what is left is reading, choosing the lanes of each queue and writing messages. The
streams are told that the database has what they have sent, so their windows hold up nothing.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

from benchmarks.stages import fill_journal
from signalkeep.broker.stats import RelayStats
from signalkeep.broker.stream import Stream
from signalkeep.clock import SystemClock
from signalkeep.errors import SignalkeepError
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.lanes import lanes_of
from signalkeep.journal.reader import JournalReader, find_journals
from signalkeep.journal.shelf import Shelf, ShelfReader
from signalkeep.limits import BROKER_QUEUES, BROKER_WINDOW_BYTES, LANES_WITH_BROKER
from signalkeep.store.relay import LaneState

LOOK_S: Final = 0.01
RELAY_S_MAX: Final = 120.0


class Confirming:
    """A `Sender` that keeps nothing."""

    def __init__(self) -> None:
        self.made: Counter[int] = Counter()
        self.connections = 1

    async def publish(self, queue: int, body: bytes) -> int:
        del queue, body
        await asyncio.sleep(0)
        return 0

    async def depth(self, queue: int) -> int:
        del queue
        return 0

    def complain(self, error: SignalkeepError) -> None:
        raise error


def relay(place: Path, records: int, entries: int) -> dict[str, float]:
    """Send a full journal."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        return asyncio.run(_relay(Path(directory), records, entries))


async def _relay(directory: Path, records: int, entries: int) -> dict[str, float]:
    root = directory / "journal"
    root.mkdir()
    await fill_journal(root, entries, records, lanes=LANES_WITH_BROKER)
    fs, sender, clock, stats = LocalFileSystem(), Confirming(), SystemClock(), RelayStats()
    (journal,) = find_journals(fs, root)
    shelf = Shelf(lambda: JournalReader(fs, journal, evidence_root=directory / "evidence"))
    streams = [
        Stream(
            ShelfReader(shelf),
            queue=queue,
            lanes=lanes_of(queue, BROKER_QUEUES, LANES_WITH_BROKER),
            sender=sender,
            clock=clock,
            window_bytes=BROKER_WINDOW_BYTES,
            stats=stats,
        )
        for queue in range(BROKER_QUEUES)
    ]
    began, used = time.perf_counter(), time.process_time()
    while stats.entries < entries and time.perf_counter() - began < RELAY_S_MAX:
        for stream in streams:
            stream.see([LaneState(lane, stream.sent, stream.sent, 0, -1) for lane in stream.lanes])
            stream.start()
        await asyncio.sleep(LOOK_S)
    taken, used = time.perf_counter() - began, time.process_time() - used
    for stream in streams:
        await stream.stop()
    return {
        "records_per_s": stats.entries * records / taken,
        "cpu_us_per_record": used / stats.entries / records * 1e6,
        "cpu_us_per_entry": used / stats.entries * 1e6,
        "entries_per_message": stats.entries / stats.messages,
    }
