"""What a worker has received, sorted: what fits the cursors of its journals, and what is to be dropped and why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeAlias
from uuid import UUID

import msgspec

from signalkeep.drivers.source import ASIDE_QUEUE, Delivery
from signalkeep.ingest.pipeline import Pipeline, Prepared, Span
from signalkeep.journal.lanes import Fit
from signalkeep.journal.ranges import BadRange, LaneRange, decode_range, is_ours
from signalkeep.store import relay
from signalkeep.store.postgres import Connection
from signalkeep.store.rows import LostRange

MakePipeline: TypeAlias = Callable[[Connection, int, list[int]], Pipeline]


class Missing(msgspec.Struct):
    """A message that cannot be written because what comes before it is missing."""

    journal_id: int | None  # None: the database does not know the journal
    lanes: Sequence[int]
    epoch: int


class Useless(msgspec.Struct):
    """A message that nobody can use. `reason`: as in the table set_aside."""

    delivery: Delivery
    reason: str
    detail: str


class Batch(msgspec.Struct):
    """Deliveries, in the order in which they came."""

    spans: dict[UUID, list[Span]] = msgspec.field(default_factory=dict)
    doubles: int = 0
    holes: list[Missing] = msgspec.field(default_factory=list)
    useless: list[Useless] = msgspec.field(default_factory=list)
    prepared: list[tuple[Pipeline, Prepared]] = msgspec.field(default_factory=list)

    @property
    def misfits(self) -> bool:
        return bool(self.doubles or self.holes or self.useless)


class Books:
    """The pipelines of one connection, one for each journal that messages speak of."""

    def __init__(self, connection: Connection, make_pipeline: MakePipeline) -> None:
        self._connection = connection
        self._make_pipeline = make_pipeline
        self._in_use = asyncio.Lock()  # the connection
        self._known: dict[UUID, tuple[Pipeline, int]] = {}

    def forget(self) -> None:
        """Ask the database again where the cursors are. Nothing may be prepared and not yet written."""
        self._known.clear()

    async def pipeline(self, journal: UUID) -> tuple[Pipeline, int]:
        """The pipeline of a journal and our number for it. Raises KeyError if the database does not know it."""
        if journal not in self._known:
            found = await self._find(journal)
            if found is None:
                raise KeyError(journal)
            journal_id, cursors = found
            pipeline = self._make_pipeline(self._connection, journal_id, cursors)
            pipeline.in_use = self._in_use
            self._known[journal] = (pipeline, journal_id)
        return self._known[journal]

    async def sort(self, deliveries: Sequence[Delivery]) -> Batch:
        """See what fits what was prepared before, and what was received with it."""
        batch = Batch()
        reached: dict[tuple[UUID, int], int] = {}  # by journal and lane: up to where this batch brings it
        for delivery in deliveries:
            try:
                message = decode_range(delivery.body)
            except BadRange as bad:
                batch.useless.append(Useless(delivery, "damaged" if is_ours(delivery.body) else "foreign", str(bad)))
                continue
            if delivery.queue == ASIDE_QUEUE:
                reason = "returned" if delivery.returned else "unroutable"
                said = f"journal {message.journal} {message.after_seq + 1}..{message.last_seq}: it is sent again"
                batch.useless.append(Useless(delivery, reason, said))
                await self._missing(batch, message)
                continue
            await self._place(batch, message, reached)
        return batch

    async def prepare(self, batch: Batch) -> None:
        """Decode what fits. Raises CursorMoved if it does not fit any more."""
        for journal, spans in batch.spans.items():
            pipeline, _ = await self.pipeline(journal)
            batch.prepared.append((pipeline, await pipeline.prepare_spans(spans)))

    async def write(self, batch: Batch) -> None:
        """A transaction for each journal. Raises what the pipelines raise."""
        for pipeline, prepared in batch.prepared:
            await pipeline.write(prepared)

    async def _place(self, batch: Batch, message: LaneRange, reached: dict[tuple[UUID, int], int]) -> None:
        try:
            pipeline, journal_id = await self.pipeline(message.journal)
        except KeyError:
            batch.holes.append(Missing(None, message.lanes, message.epoch))
            return
        if len(pipeline.cursors) != message.journal_lanes:
            batch.holes.append(Missing(None, message.lanes, message.epoch))
            return
        places = {lane: reached.get((message.journal, lane), pipeline.prepared_to(lane)) for lane in message.lanes}
        match fit_all(message, places):
            case Fit.HOLE:
                batch.holes.append(Missing(journal_id, message.lanes, message.epoch))
            case Fit.DONE:
                batch.doubles += 1
            case Fit.NEW:
                batch.spans.setdefault(message.journal, []).append(span_of(message))
                for lane, place in places.items():
                    reached[message.journal, lane] = max(place, message.last_seq)

    async def _missing(self, batch: Batch, message: LaneRange) -> None:
        found = await self._find(message.journal)
        batch.holes.append(Missing(found[0] if found else None, message.lanes, message.epoch))

    async def _find(self, journal: UUID) -> tuple[int, list[int]] | None:
        async with self._in_use:
            return await relay.find_journal(self._connection, journal)


def fit_all(message: LaneRange, places: dict[int, int]) -> Fit:
    """How a message lies to the places of its lanes: a hole in one is one for all, and done is what all have."""
    if any(place < message.after_seq for place in places.values()):
        return Fit.HOLE
    return Fit.NEW if any(place < message.last_seq for place in places.values()) else Fit.DONE


def span_of(message: LaneRange) -> Span:
    lost = [LostRange(gap.first_seq, gap.last_seq, gap.why, gap.evidence) for gap in message.lost]
    return Span(message.lanes, message.after_seq, message.last_seq, list(message.entries), lost)
