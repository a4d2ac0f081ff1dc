"""One journal, emptied until its gateway has ended and the database has everything.

The position is the database's: at every connect, every minute, and whenever something is found elsewhere than thought,
the cursors are read again and followed. A cursor that has moved back means a restored database: the range is driven
again, the record keys keep it from doubling, and a finding says so. Any fault of the environment is retried for ever;
nothing is ever skipped because of one.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.errors import SignalkeepError, SyncFailed
from signalkeep.journal.reader import JournalReader
from signalkeep.retry import Backoff
from signalkeep.store import journals
from signalkeep.store.postgres import Connection
from signalkeep.telemetry import get_logger

Connect: TypeAlias = Callable[[], Awaitable[Connection]]

log = get_logger()


class Driver(ABC):
    """Drives one journal. `position`: up to where the database is known to have everything."""

    def __init__(
        self,
        reader: JournalReader,
        *,
        connect: Connect,
        host: str,
        clock: Clock,
        stop: asyncio.Event | None = None,
    ) -> None:
        self._reader = reader
        self._connect = connect
        self._host = host
        self._clock = clock
        self._stop = stop or asyncio.Event()
        self._noted_seq = -1
        self.position = 0
        self.journal_id = reader.journal_id
        self.busy_elsewhere = False  # another process drives this journal

    async def run(self) -> None:
        """Return when the journal has ended and is in the database, somebody else drives it, or we are to stop."""
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                connection = await self._connect()
                try:
                    if await self._take_up(connection, backoff):
                        return
                finally:
                    await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)
            except (AssertionError, SyncFailed):
                raise
            except Exception as error:
                self._log_retry(error, backoff)
                await self._pause(backoff.next_s())

    async def _take_up(self, connection: Connection, backoff: Backoff) -> bool:
        journal_id = await journals.register(
            connection, self._reader.journal_id, self._host, self._reader.directory, self._reader.lanes
        )
        self.busy_elsewhere = not await journals.claim(connection, journal_id)
        if self.busy_elsewhere or not self._reader.exists():
            return True
        await journals.note_present(connection, journal_id)
        return await self._drive(connection, journal_id, backoff)

    @abstractmethod
    async def _drive(self, connection: Connection, journal_id: int, backoff: Backoff) -> bool:
        """From the cursors on. True: done, or told to stop. `backoff` is reset by progress."""

    async def _follow(self, connection: Connection, journal_id: int) -> list[int]:
        """Where the database is now, by lane. One that has gone back is reported."""
        cursors = await journals.cursors(connection, journal_id)
        lowest = min(cursors)
        if lowest < self.position:
            log.warning("cursor moved back, driving again", journal=journal_id, was=self.position, now=lowest)
            await journals.add_finding(
                connection,
                "cursor_moved_back",
                f"journal {journal_id}",
                f"the database had entries up to {self.position} and now has them up to {lowest}: "
                "it was restored from an older state; the range is driven again",
            )
        return cursors

    async def _note_progress(self, connection: Connection, journal_id: int) -> None:
        durable_seq = self._reader.durable_seq
        if durable_seq != self._noted_seq:
            await journals.note_progress(connection, journal_id, durable_seq, ended=False)
            self._noted_seq = durable_seq

    async def _ended(self, connection: Connection, journal_id: int) -> bool:
        durable_seq = self._reader.durable_seq
        await journals.note_progress(connection, journal_id, durable_seq, ended=True)
        if durable_seq < self.position:
            await journals.add_finding(
                connection,
                "journal_shorter_than_cursor",
                f"journal {journal_id}",
                f"the database has entries up to {self.position}, the files end at {durable_seq}: "
                "nothing is missing in the database, but this range cannot be replayed",
            )
        log.info("journal is in the database", journal=journal_id, entries=durable_seq)
        return True

    async def _refused(self, connection: Connection, journal_id: int) -> bool:
        """A newer version's journal: nothing of it is lost, but it takes that version to read it."""
        log.error("journal cannot be read by this version", journal=journal_id, reason=self._reader.refused)
        await journals.add_finding(connection, "journal_unreadable", f"journal {journal_id}", self._reader.refused)
        return True

    async def _pause(self, seconds: float) -> None:
        """Wait, but not beyond the signal to stop; not at all if the time is over."""
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            pass

    def _log_retry(self, error: Exception, backoff: Backoff) -> None:
        if not isinstance(error, SignalkeepError):
            log.warning("write failed, trying again", error=f"{type(error).__name__}: {error}", after=self.position)
        elif backoff.worth_a_word:
            log.warning("waiting for the database", error=error.message)
