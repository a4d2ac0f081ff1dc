"""One journal, sent to the broker, until its gateway has ended and the database has everything.

The driver asks the database where the cursors are, tells the streams, and notes how far they have sent. What the
broker confirms decides nothing: files are forgotten by the cursors alone. While the database is away the streams go
on as far as their windows let them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from signalkeep import limits
from signalkeep.broker.stats import RelayStats
from signalkeep.broker.stream import Sender, Stream
from signalkeep.drivers.driver import Driver
from signalkeep.journal.lanes import lanes_of
from signalkeep.journal.reader import JournalReader
from signalkeep.journal.shelf import Shelf, ShelfReader
from signalkeep.retry import Backoff
from signalkeep.store import relay
from signalkeep.store.postgres import Connection


class RelayDriver(Driver):
    """Drives one journal to the broker."""

    def __init__(
        self,
        reader: JournalReader,
        *,
        make_reader: Callable[[], JournalReader],
        sender: Sender,
        queues: int,
        window_bytes: int,
        stats: RelayStats,
        **common: Any,
    ) -> None:
        super().__init__(reader, **common)
        shelf = Shelf(make_reader)
        self.streams = [
            Stream(
                ShelfReader(shelf),
                queue=queue,
                lanes=lanes,
                sender=sender,
                clock=self._clock,
                window_bytes=window_bytes,
                stats=stats,
            )
            for queue in range(queues)
            if (lanes := lanes_of(queue, queues, reader.lanes))
        ]

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            for stream in self.streams:
                await stream.stop()

    @property
    def window_bytes(self) -> int:
        """Sent and not in the database."""
        return sum(stream.window_bytes for stream in self.streams)

    async def _drive(self, connection: Connection, journal_id: int, backoff: Backoff) -> bool:
        await relay.add_lanes(connection, journal_id, self._reader.lanes)
        note_at = self._clock.monotonic()
        while not self._stop.is_set():
            cursors = await self._follow(connection, journal_id)
            await self._look(connection, journal_id)
            if min(cursors) != self.position:
                backoff.reset()
            self.position = min(cursors)
            if self._clock.monotonic() >= note_at:
                await self._note(connection, journal_id)
                note_at = self._clock.monotonic() + limits.RELAY_NOTE_S
            refused = [stream.reader.refused for stream in self.streams if stream.reader.refused]
            if refused:
                self._reader.refused = refused[0]
                return await self._refused(connection, journal_id)
            if all(stream.complete for stream in self.streams):
                self._learn_durable()
                return await self._ended(connection, journal_id)
            await self._pause(limits.RELAY_LOOK_S)
        await self._note(connection, journal_id)
        return True

    async def _look(self, connection: Connection, journal_id: int) -> None:
        """Show the streams where the database is, and send those back that have lost something."""
        states = await relay.lanes(connection, journal_id)
        for stream in self.streams:
            evidence = stream.see([states[lane] for lane in stream.lanes]) or await stream.suspicious()
            if evidence is not None:
                await stream.go_back(evidence)
                await relay.note_sent(connection, journal_id, stream.lanes, stream.sent, stream.epoch)
            stream.start()

    async def _note(self, connection: Connection, journal_id: int) -> None:
        for stream in self.streams:
            found = (stream.sent, stream.epoch)
            if found != stream.noted:
                await relay.note_sent(connection, journal_id, stream.lanes, *found)
                stream.noted = found
        self._learn_durable()
        await self._note_progress(connection, journal_id)

    def _learn_durable(self) -> None:
        """What our streams have seen: the driver itself does not read."""
        self._reader.durable_seq = max(stream.reader.durable_seq for stream in self.streams)
