"""The writing end of a journal: a queue in front, group commit behind. The only place that says "durable".

    append -> queue -> batch -> [thread: write, fdatasync, seal if nothing waits] -> on_done(True), in append order

There is no timer: while one batch is synced, the next one fills, and beside both, in another thread, the next segment
is prepared. `on_done(True)` is called after the sync of its batch has returned and never otherwise; `on_done(False)`
means that the entry was not stored, or that nobody can say so. After a failed sync everything is refused, `run` raises
SyncFailed and the process has to end.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias
from uuid import UUID, uuid4

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.errors import DiskFull, EnvironmentFault, SyncFailed
from signalkeep.journal.appender import Appender, body_bytes_max
from signalkeep.journal.files import FileSystem
from signalkeep.journal.record import Entry, encode_entry
from signalkeep.journal.retention import sweep
from signalkeep.journal.segments import NEW_SUFFIX, WRITER_LOCK
from signalkeep.telemetry import get_logger

OnDone: TypeAlias = Callable[[bool], None]
Queued: TypeAlias = tuple[bytes, OnDone | None]
RunBlocking: TypeAlias = Callable[[Callable[[], None]], Awaitable[None]]

log = get_logger()


class JournalWriter:
    """One journal, from its creation to its end. Everything is called on one event loop."""

    def __init__(
        self,
        appender: Appender,
        journal_id: UUID,
        *,
        body_bytes_max: int,
        run_blocking: RunBlocking | None,
        release: Callable[[], None],
    ) -> None:
        self.journal_id = journal_id
        self.directory = appender.directory
        self.durable_seq = 0
        self.pending_bytes = 0  # appended, not yet answered
        self._appender = appender
        self._body_bytes_max = body_bytes_max
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="journal") if run_blocking is None else None
        self._run_blocking = run_blocking or self._in_own_thread
        self._release = release
        self._queue: deque[Queued] = deque()
        self._in_flight: list[Queued] = []
        self._preparing: asyncio.Task[None] | None = None  # the next segment
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()
        self._running = False
        self._refusing = False
        self._failed = False
        self._no_room = False

    @classmethod
    def create(
        cls,
        fs: FileSystem,
        root: Path,
        *,
        clock: Clock,
        journal_id: UUID | None = None,
        salt: Callable[[int], bytes] = os.urandom,
        lanes: int = 1,
        segment_bytes: int = limits.SEGMENT_BYTES,
        run_blocking: RunBlocking | None = None,
    ) -> JournalWriter:
        """Make a new journal under `root`, durable with its first segment before anybody can see it.

        Raises EnvironmentFault if that is not possible now, SyncFailed if a sync fails.
        """
        assert segment_bytes % limits.JOURNAL_BLOCK_BYTES == 0
        assert segment_bytes >= 3 * limits.JOURNAL_BLOCK_BYTES
        journal_id = journal_id or uuid4()
        directory = root / journal_id.hex
        making = root / (journal_id.hex + NEW_SUFFIX)
        appender = Appender(fs, making, journal_id, clock=clock, salt=salt, lanes=lanes, segment_bytes=segment_bytes)
        try:
            sweep(fs, root)
            fs.mkdir(making)
            lock = fs.lock(making / WRITER_LOCK)
            appender.start_segment()
            fs.rename(making, directory)
        except OSError as error:
            raise EnvironmentFault(
                f"cannot make a journal under {root}: {error.strerror or error}",
                hint="The directory must be on a local disk and writable for this user.",
            ) from error
        appender.directory = directory
        fs.sync_directory(root)
        fs.sync_directory(root.parent)

        def release() -> None:
            appender.release()
            fs.close(lock)

        return cls(
            appender,
            journal_id,
            body_bytes_max=min(limits.BATCH_BYTES_MAX, body_bytes_max(segment_bytes)),
            run_blocking=run_blocking,
            release=release,
        )

    @property
    def bytes_used(self) -> int:
        """What this journal takes on the disk, the prepared segment included."""
        return self._appender.bytes_used

    def append(self, entry: Entry, on_done: OnDone | None = None) -> None:
        """Queue an entry; `on_done` tells later what became of it, or at once if nothing is taken any more."""
        if self._refusing:
            if on_done is not None:
                on_done(False)
            return
        data = encode_entry(entry)
        assert len(data) <= self._body_bytes_max, "an entry larger than a batch"
        self._queue.append((data, on_done))
        self.pending_bytes += len(data)
        self._wake.set()

    async def run(self) -> None:
        """Commit until closed. Raises SyncFailed; after that, or any other error, nothing is taken any more.

        Called again, it waits for the same end.
        """
        if self._running:
            await self._end()
            return
        self._running = True
        try:
            while await self._turn():
                pass
            await self._prepared()
            await self._run_blocking(self._appender.finish)
        except BaseException as error:
            self._refusing = self._failed = True
            preparing = self._preparing is not None and not self._preparing.done()
            if self._preparing is not None:
                self._preparing.cancel()
            if isinstance(error, SyncFailed) and not preparing:  # else a thread may still be writing: files stay open
                self._release()
            self._answer([*self._in_flight, *self._queue], durable=False)
            self._queue.clear()
            raise
        else:
            self._release()
        finally:
            self._ended.set()
            if self._executor is not None:
                self._executor.shutdown(wait=False)

    async def close(self) -> None:
        """Take nothing more, make durable what was taken, leave the journal sealed and small. Raises SyncFailed."""
        self._refusing = True
        self._wake.set()
        await self.run()

    async def _end(self) -> None:
        """Wait for the end of the run that there is."""
        await self._ended.wait()
        if self._failed:
            raise SyncFailed("the journal has failed and was not closed", hint="See the error of its run.")

    async def _turn(self) -> bool:
        """One step of the group commit; False when there is nothing left to do."""
        if self._preparing is None and self._appender.wants_next and not self._refusing:
            self._preparing = asyncio.create_task(self._prepare())
            self._preparing.add_done_callback(lambda _: self._wake.set())
        if self._preparing is not None and self._preparing.done():
            await self._prepared()
        if self._queue:
            await self._commit()
        elif self._refusing:
            return False
        else:
            self._wake.clear()
            await self._idle()
        return True

    async def _idle(self) -> None:
        """Until there is something to do. A seal that could not be written is tried again: readers wait for it."""
        try:
            async with asyncio.timeout(None if self._appender.sealed else limits.SEAL_AGAIN_S):
                await self._wake.wait()
        except TimeoutError:
            await self._run_blocking(self._appender.seal)

    async def _commit(self) -> None:
        self._in_flight = self._take_batch()
        entries = [data for data, _ in self._in_flight]
        if self._appender.needs_next(sum(map(len, entries))):
            await self._prepared()
        try:
            await self._run_blocking(lambda: self._store(entries))
        except DiskFull as fault:
            self._note_room(fault)
            durable = False
            self._in_flight += self._queue  # else a connection's later frames would be kept without its earlier ones
            self._queue.clear()
        else:
            self._note_room(None)
            durable = True
        self.durable_seq = self._appender.next_seq - 1
        batch, self._in_flight = self._in_flight, []
        self._answer(batch, durable=durable)

    async def _prepare(self) -> None:
        """Make the next segment ready while this one is being filled."""
        with suppress(DiskFull):  # tried again, and reported, when the segment is needed
            await self._run_blocking(partial(self._appender.prepare_next, in_advance=True))

    async def _prepared(self) -> None:
        """Wait until nobody prepares a segment. Raises SyncFailed."""
        if self._preparing is not None:
            await self._preparing
            self._preparing = None

    def _store(self, entries: list[bytes]) -> None:
        """In the thread."""
        self._appender.append(b"".join(entries), len(entries))
        if not self._queue:  # else the next batch, which follows at once, says the same
            self._appender.seal()

    def _take_batch(self) -> list[Queued]:
        batch: list[Queued] = []
        room = self._body_bytes_max
        while self._queue and len(batch) < limits.BATCH_ENTRIES_MAX and len(self._queue[0][0]) <= room:
            batch.append(self._queue.popleft())
            room -= len(batch[-1][0])
        return batch

    def _answer(self, batch: list[Queued], *, durable: bool) -> None:
        for data, on_done in batch:
            self.pending_bytes -= len(data)
            if on_done is None:
                continue
            try:
                on_done(durable)
            except Exception as error:  # one connection's mistake must not cost the others their answers
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a callback of the journal failed", "exception": error}
                )

    def _note_room(self, fault: DiskFull | None) -> None:
        if fault is not None and not self._no_room:
            log.error("journal takes nothing", journal=self.journal_id.hex, error=fault.message)
        if fault is None and self._no_room:
            log.info("journal has room again", journal=self.journal_id.hex)
        self._no_room = fault is not None

    async def _in_own_thread(self, job: Callable[[], None]) -> None:
        assert self._executor is not None
        await asyncio.get_running_loop().run_in_executor(self._executor, job)
