"""One journal, driven into the database until its gateway has ended and everything is in.

The position is the database's: at every connect, every minute, and whenever a write finds the cursor elsewhere, the
cursors are read again and the reader follows them. A cursor that has moved back means a restored database: the range
is driven again, the record keys keep it from doubling, and a finding says so. Any fault of the environment is retried
for ever; nothing is ever skipped because of one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.errors import SignalkeepError, SyncFailed
from signalkeep.ingest.pipeline import Pipeline, Prepared
from signalkeep.journal.reader import JournalReader
from signalkeep.retry import Backoff
from signalkeep.store import journals
from signalkeep.store.postgres import Connection
from signalkeep.store.rows import Written
from signalkeep.store.writer import CursorMoved
from signalkeep.telemetry import get_logger

Connect: TypeAlias = Callable[[], Awaitable[Connection]]
MakePipeline: TypeAlias = Callable[[Connection, int, list[int]], Pipeline]

log = get_logger()


class _Ahead:
    """The batch that is being written while the next one is prepared."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._writing: asyncio.Task[Written] | None = None

    def begin(self, prepared: Prepared) -> None:
        assert self._writing is None, "one after the other"
        self._writing = asyncio.create_task(self.pipeline.write(prepared), name="write")

    async def finish(self) -> Written | None:
        """What was written; None if there was nothing to wait for. Raises what kept it from being written."""
        if self._writing is None:
            return None
        writing, self._writing = self._writing, None
        return await writing

    async def give_up(self) -> None:
        """Write no further: whatever was not committed is driven again from the cursor."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
            self._writing = None


class JournalDriver:
    """Drives one journal. `position`: up to where the database is known to have everything."""

    def __init__(
        self,
        reader: JournalReader,
        *,
        connect: Connect,
        make_pipeline: MakePipeline,
        host: str,
        clock: Clock,
        batch_frames: int = limits.INGEST_BATCH_FRAMES_MAX,
        stop: asyncio.Event | None = None,
    ) -> None:
        self._reader = reader
        self._connect = connect
        self._make_pipeline = make_pipeline
        self._host = host
        self._clock = clock
        self._batch_frames = batch_frames
        self._stop = stop or asyncio.Event()
        self._noted_seq = -1
        self.position = 0
        self.written = Written()
        self.journal_id = reader.journal_id
        self.busy_elsewhere = False  # another ingest process drives this journal

    async def run(self) -> None:
        """Return when the journal has ended and is in the database, somebody else drives it, or we are to stop."""
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                connection = await self._connect()
                try:
                    if await self._drive(connection, backoff):
                        return
                finally:
                    await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)
            except (AssertionError, SyncFailed):
                raise
            except Exception as error:
                self._log_retry(error, backoff)
                await self._pause(backoff.next_s())

    async def _drive(self, connection: Connection, backoff: Backoff) -> bool:
        journal_id = await journals.register(
            connection, self._reader.journal_id, self._host, self._reader.directory, self._reader.lanes
        )
        self.busy_elsewhere = not await journals.claim(connection, journal_id)
        if self.busy_elsewhere:
            return True
        pipeline = self._make_pipeline(connection, journal_id, [])
        await self._follow_cursors(connection, journal_id, pipeline)
        ahead = _Ahead(pipeline)
        try:
            return await self._drive_on(connection, journal_id, ahead, backoff)
        finally:
            await ahead.give_up()

    async def _drive_on(self, connection: Connection, journal_id: int, ahead: _Ahead, backoff: Backoff) -> bool:
        """From the cursors on. While one batch is written, the next one gathers, is read and decoded."""
        reread_at = note_at = self._clock.monotonic()
        wait_s = limits.INGEST_POLL_S_MIN
        while not self._stop.is_set():
            now = self._clock.monotonic()
            try:
                if now >= reread_at:
                    await self._settle(ahead)
                    await self._follow_cursors(connection, journal_id, ahead.pipeline)
                    reread_at = now + limits.CURSOR_REREAD_S
                items = self._reader.read(self._batch_frames, limits.INGEST_BATCH_BYTES_MAX)
                if items:
                    prepared = await ahead.pipeline.prepare(items)
                    await self._settle(ahead)
                    ahead.begin(prepared)
                    backoff.reset()
                    wait_s = limits.INGEST_POLL_S_MIN
                    if not self._reader.filled:
                        await self._pause(now + limits.INGEST_GATHER_S - self._clock.monotonic())
                if not items or now >= note_at:
                    await self._settle(ahead)
            except CursorMoved:
                await ahead.give_up()
                await self._follow_cursors(connection, journal_id, ahead.pipeline)
                continue
            if now >= note_at:
                await self._note_progress(connection, journal_id)
                note_at = now + limits.PROGRESS_NOTE_S
            if items:
                continue
            if self._reader.refused:
                return await self._refused(connection, journal_id)
            if self._reader.finished:
                return await self._ended(connection, journal_id)
            await self._pause(wait_s)
            wait_s = min(wait_s * 2, limits.INGEST_POLL_S_MAX)
        await self._settle(ahead)
        return True

    async def _settle(self, ahead: _Ahead) -> None:
        """Wait until what is being written is in the database, or raise what keeps it out."""
        written = await ahead.finish()
        if written is not None:
            self.written.add(written)
            self.position = min(ahead.pipeline.cursors)

    async def _follow_cursors(self, connection: Connection, journal_id: int, pipeline: Pipeline) -> None:
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
        if cursors != pipeline.cursors or lowest != self.position:
            pipeline.start_from(cursors)
            self._reader.seek(lowest)
        self.position = lowest

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
