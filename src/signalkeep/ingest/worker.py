"""The ingest process of a fleet on several machines: takes its share of the queues and writes what comes.

    receive --> fits the cursor: prepare, write, commit --> acknowledge
                repeats what the database has           --> acknowledge, count
                leaves a hole                           --> tell the relay, acknowledge, count
                is damaged or foreign                   --> set aside, acknowledge, count

Whatever is in hand while the database is away stays in hand: messages are given back to the broker only by a clean
stop, by another share of the queues, or by the end of the process. While one batch is written the next one is decoded.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import msgspec

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.drivers.database import Database
from signalkeep.drivers.source import ASIDE_QUEUE, Delivery, Source
from signalkeep.errors import SignalkeepError, SyncFailed
from signalkeep.ingest.batches import Batch, Books
from signalkeep.ingest.careful import write_carefully
from signalkeep.ingest.report import IngestStats
from signalkeep.retry import Backoff
from signalkeep.store import relay
from signalkeep.store.claims import Claims
from signalkeep.store.postgres import Connection, close_when_silent
from signalkeep.store.writer import CursorMoved
from signalkeep.telemetry import get_logger
from signalkeep.vitals import Report, WorkerNumbers

log = get_logger()


class WorkerStats:
    """Of messages; records are counted by the pipelines."""

    def __init__(self) -> None:
        self.messages = 0
        self.doubles = 0
        self.holes = 0
        self.set_aside: Counter[str] = Counter()


class Worker:
    """`run` returns when `stop` is set; it raises only for our own mistakes."""

    def __init__(
        self, settings: Settings, source: Source, *, make_books: Callable[[Connection, IngestStats], Books],
        clock: Clock, stop: asyncio.Event,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._source = source
        self._make_books = make_books
        self._clock = clock
        self._stop = stop
        self.database = Database(settings, application="signalkeep ingest")
        self._in_hand: list[list[Delivery]] = []  # batches that are being prepared or written, oldest first
        self._again: list[Delivery] = []  # in hand, to be begun anew
        self._queues: set[int] = set()
        self._reached_s = clock.monotonic()  # when the broker was last known to be there
        self.stats = IngestStats()
        self.counts = WorkerStats()

    def report(self) -> Report:
        """For metrics and health."""
        in_hand = sum(map(len, self._in_hand)) + len(self._again)
        counts = self.counts
        worker = WorkerNumbers(
            messages=counts.messages,
            doubles=counts.doubles,
            holes=counts.holes,
            set_aside=dict(counts.set_aside),
            queues=sorted(self._queues - {ASIDE_QUEUE}),
            in_hand=in_hand,
            connected=self._source.connected,
        )
        report = self.stats.report(driving=0, positions={}, worker=worker)
        return msgspec.structs.replace(report, waits=in_hand > 0)

    async def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        self.database.on_ready = lambda: None
        backoff = Backoff()
        try:
            while not self._stop.is_set():
                try:
                    connection = await self.database.connect()
                    try:
                        await self._work(connection, backoff, on_ready)
                    finally:
                        await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)
                except (AssertionError, SyncFailed):
                    raise
                except Exception as error:
                    self._log_retry(error, backoff)
                    self.stats.retries += 1
                    await self._pause(backoff.next_s())
        finally:
            await self._source.close()
            await self.database.close()

    async def _work(self, connection: Connection, backoff: Backoff, on_ready: Callable[[], None]) -> None:
        """Over one connection to the database, which holds our claims to queues."""
        await close_when_silent(connection, limits.CLAIM_SILENT_S)
        claims = Claims(connection, self._settings.broker.queues)
        books = self._make_books(connection, self.stats)
        writing = _Writing(books)
        share_at = self._clock.monotonic()
        try:
            while not self._stop.is_set():
                if self._clock.monotonic() >= share_at:
                    await self._finish(writing)  # the connection is free
                    await self._share(claims)
                    share_at = self._clock.monotonic() + limits.CLAIM_S
                    if self._source.connected:
                        on_ready()
                deliveries = await self._next(wait_s=0.0 if writing.busy else limits.INGEST_POLL_S_MAX)
                if not deliveries:
                    await self._finish(writing)
                    continue
                gathered_s = self._clock.monotonic() + limits.INGEST_GATHER_S
                try:
                    await self._take_on(connection, books, writing, deliveries)
                    if sum(len(one.body) for one in deliveries) < limits.INGEST_BATCH_BYTES_MAX // 2:
                        await self._gather(writing, gathered_s)
                except CursorMoved:  # somebody else has written it, or the database was restored
                    await writing.give_up()
                    self._begin_again()
                    books.forget()
                    await self._pause(limits.RETRY_S_MIN)
                    continue
                backoff.reset()
            await self._finish(writing)
        finally:
            await writing.give_up()
            self._begin_again()

    async def _gather(self, writing: _Writing, until_s: float) -> None:
        """Let more come in; what is written meanwhile is acknowledged at once, so that the broker can send more."""
        await writing.wait(until_s - self._clock.monotonic())
        if writing.done:
            await self._finish(writing)
        await self._pause(until_s - self._clock.monotonic())

    async def _next(self, *, wait_s: float) -> list[Delivery]:
        if self._again:
            again, self._again = self._again, []
            return again
        deliveries = await self._source.receive(
            max_messages=self._settings.ingest.batch_frames, max_bytes=limits.INGEST_BATCH_BYTES_MAX, wait_s=wait_s
        )
        self.counts.messages += len(deliveries)
        return deliveries

    async def _take_on(
        self, connection: Connection, books: Books, writing: _Writing, deliveries: list[Delivery]
    ) -> None:
        """Prepare what was received, and begin to write it when what is being written has been committed."""
        self._in_hand.append(deliveries)
        if any(one.times >= limits.DELIVERIES_BEFORE_CARE for one in deliveries):
            await self._finish(writing, all_but_last=True)
            await self._carefully(connection, books, deliveries)
            return
        batch = await self._sorted(connection, books, writing, deliveries)
        await books.prepare(batch)
        await self._finish(writing, all_but_last=True)
        writing.begin(batch)

    async def _sorted(
        self, connection: Connection, books: Books, writing: _Writing, deliveries: list[Delivery]
    ) -> Batch:
        """What fits, and what is to be dropped. What seems not to fit is compared with the database's own cursors."""
        batch = await books.sort(deliveries)
        if batch.misfits:
            await self._finish(writing, all_but_last=True)
            books.forget()
            batch = await books.sort(deliveries)
            await self._drop(connection, batch)
        return batch

    async def _drop(self, connection: Connection, batch: Batch) -> None:
        """Say what becomes of messages that are of no use; they are acknowledged with their batch."""
        self.counts.doubles += batch.doubles
        for hole in batch.holes:
            self.counts.holes += 1
            if hole.journal_id is not None:
                await relay.note_hole(connection, hole.journal_id, hole.lanes, hole.epoch)
        for useless in batch.useless:
            self.counts.set_aside[useless.reason] += 1
            one = useless.delivery
            detail = f"{useless.detail}; {one.sender}" if one.sender else useless.detail
            await relay.set_aside(
                connection,
                one.queue_name,
                useless.reason,
                detail,
                one.body,
                keep=useless.reason in {"foreign", "damaged"},
            )
            log.warning("message set aside", queue=one.queue_name, reason=useless.reason, detail=detail)

    async def _carefully(self, connection: Connection, books: Books, deliveries: list[Delivery]) -> None:
        """One message after the other; those that came back often, frame by frame. Nothing else is being written."""
        for delivery in deliveries:
            books.forget()
            batch = await books.sort([delivery])
            await self._drop(connection, batch)
            for journal, spans in batch.spans.items():
                pipeline, journal_id = await books.pipeline(journal)
                for span in spans:
                    if delivery.times >= limits.DELIVERIES_BEFORE_CARE:
                        await write_carefully(connection, pipeline, journal_id, span, times=delivery.times)
                    else:
                        await pipeline.write(await pipeline.prepare_spans([span]))
        await self._source.done(deliveries)
        self._in_hand.remove(deliveries)

    async def _finish(self, writing: _Writing, *, all_but_last: bool = False) -> None:
        """Wait for the batch that is being written, if any, and acknowledge it: never before the commit."""
        if await writing.finish():
            await self._source.done(self._in_hand.pop(0))
        assert len(self._in_hand) == int(all_but_last), "what is in hand is being prepared, or written"

    async def _share(self, claims: Claims) -> None:
        """Take our part of the queues; without a broker they are for others, who may reach another node of it."""
        now_s = self._clock.monotonic()
        if self._source.connected:
            self._reached_s = now_s
        away = now_s - self._reached_s > limits.BROKER_AWAY_S
        fair = await (claims.leave() if away else claims.share())
        queues = fair | ({ASIDE_QUEUE} if 0 in fair else set())
        if queues != self._queues:
            log.info("queues of this worker", queues=sorted(fair))
        await self._source.take(queues)
        self._queues = queues
        for queue in claims.held - fair:
            await claims.release(queue)

    def _begin_again(self) -> None:
        self._again = [one for batch in self._in_hand for one in batch] + self._again
        self._in_hand.clear()

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            pass

    def _log_retry(self, error: Exception, backoff: Backoff) -> None:
        if not isinstance(error, SignalkeepError):
            log.warning("write failed, trying again", error=f"{type(error).__name__}: {error}")
        elif backoff.worth_a_word:
            log.warning("waiting for the database", error=error.message)


class _Writing:
    """The batch that is being written while the next one is prepared."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        return self._task is not None

    @property
    def done(self) -> bool:
        """It is written, or could not be."""
        return self._task is not None and self._task.done()

    async def wait(self, seconds: float) -> None:
        """Until it is done, but no longer than that."""
        if self._task is not None and seconds > 0:
            await asyncio.wait([self._task], timeout=seconds)

    def begin(self, batch: Batch) -> None:
        assert self._task is None, "one after the other"
        self._task = asyncio.create_task(self._books.write(batch), name="write")

    async def finish(self) -> bool:
        """Whether there was one. Raises what kept it from being written."""
        if self._task is None:
            return False
        task, self._task = self._task, None
        await task
        return True

    async def give_up(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
