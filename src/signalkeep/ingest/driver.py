"""One journal, read directly into the database.

While one batch is written, the next one gathers, is read and decoded. A write that finds the cursor elsewhere is given
up, and reading goes on from where the database is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

from signalkeep import limits
from signalkeep.drivers.driver import Driver
from signalkeep.ingest.pipeline import Pipeline, Prepared
from signalkeep.journal.reader import JournalReader
from signalkeep.retry import Backoff
from signalkeep.store.postgres import Connection
from signalkeep.store.rows import Written
from signalkeep.store.writer import CursorMoved

MakePipeline: TypeAlias = Callable[[Connection, int, list[int]], Pipeline]


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


class JournalDriver(Driver):
    """Drives one journal into the database."""

    def __init__(
        self,
        reader: JournalReader,
        *,
        make_pipeline: MakePipeline,
        batch_frames: int = limits.INGEST_BATCH_FRAMES_MAX,
        **common: Any,
    ) -> None:
        super().__init__(reader, **common)
        self._make_pipeline = make_pipeline
        self._batch_frames = batch_frames
        self.written = Written()

    async def _drive(self, connection: Connection, journal_id: int, backoff: Backoff) -> bool:
        pipeline = self._make_pipeline(connection, journal_id, [])
        await self._follow_cursors(connection, journal_id, pipeline)
        ahead = _Ahead(pipeline)
        try:
            return await self._drive_on(connection, journal_id, ahead, backoff)
        finally:
            await ahead.give_up()

    async def _drive_on(self, connection: Connection, journal_id: int, ahead: _Ahead, backoff: Backoff) -> bool:
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
                await self._follow_cursors(connection, journal_id, ahead.pipeline, anew=True)
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

    async def _follow_cursors(
        self, connection: Connection, journal_id: int, pipeline: Pipeline, *, anew: bool = False
    ) -> None:
        """Go to where the database is. `anew`: the reader is beyond what was given up, even if no cursor has moved."""
        cursors = await self._follow(connection, journal_id)
        lowest = min(cursors)
        if anew or cursors != pipeline.cursors or lowest != self.position:
            pipeline.start_from(cursors)
            self._reader.seek(lowest)
        self.position = lowest
