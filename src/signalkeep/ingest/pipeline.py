"""From ranges of a journal to rows: decode, triage, write; and what to do when the database says no.

`prepare` decodes and may run while the range before is being written; `write` stores what was prepared, in order. One
connection serves both, never at the same time.

Data errors bisect: first by lanes, then by frames, each part a transaction of its own that moves its cursor; then,
within one frame, record by record in transactions that are rolled back. What is left is quarantined as
`database_rejected` with the SQLSTATE; its neighbours are stored. A missing partition is made and the write tried again.
A registry entry that changed under our feet means decoding again. Everything else is raised: the caller retries it for
ever and quarantines nothing for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from signalkeep import limits
from signalkeep.ingest.judging import Judging
from signalkeep.ingest.sessions import refusals_in, sessions_in
from signalkeep.ingest.triage import reject, triage
from signalkeep.journal.lanes import Fit, fit, lane_of_entry
from signalkeep.journal.reader import Chunk, Lost
from signalkeep.journal.record import Entry, FrameEntry
from signalkeep.journal.shelf import last_seq
from signalkeep.model import DeviceStatus
from signalkeep.protocols.contract import Decodes, TrackerProtocol
from signalkeep.store import registry
from signalkeep.store.partitions import ensure_partitions
from signalkeep.store.postgres import Connection, Fault, classify, sqlstate
from signalkeep.store.retention import Retention
from signalkeep.store.rows import CursorMove, Device, FrameRows, IngestBatch, LostRange, Written
from signalkeep.store.writer import CursorMoved, DeviceChanged, probe, write
from signalkeep.telemetry import get_logger

Numbered: TypeAlias = tuple[int, Entry]
Prepared: TypeAlias = "tuple[list[_Range], IngestBatch]"
"""Ranges, at most one of each lane, with the rows that they become."""

FRAMES_AT_A_TIME: Final = 16  # decoded before others on the event loop have their turn

log = get_logger()


class RegistryRestless(Exception):
    """Registry entries changed at every try; the driver starts afresh."""


class Rules(msgspec.Struct, frozen=True):
    """The settings that decide where a record goes."""

    register_unknown: bool = False
    retention: Retention = Retention()
    register_line: str = "signalkeep devices add {}"  # shown for a device that nobody registered


class Span(msgspec.Struct):
    """Everything that some lanes of a journal have in (after_seq, last_seq]."""

    lanes: Sequence[int]
    after_seq: int
    last_seq: int
    entries: list[Numbered]
    lost: list[LostRange] = msgspec.field(default_factory=list)  # they count in lane 0


class _Range(msgspec.Struct):
    """Entries of one lane in (after_seq, last_seq], and what could not be read between them."""

    lane: int
    after_seq: int
    last_seq: int
    entries: list[Numbered]
    lost: list[LostRange]

    def halves(self) -> tuple[_Range, _Range]:
        middle = len(self.entries) // 2
        split = self.entries[middle - 1][0]
        return (
            _Range(
                self.lane,
                self.after_seq,
                split,
                self.entries[:middle],
                [x for x in self.lost if x.last_seq < split],
            ),
            _Range(
                self.lane,
                split,
                self.last_seq,
                self.entries[middle:],
                [x for x in self.lost if x.last_seq > split],
            ),
        )


class Pipeline:
    """Writes ranges of one journal over one connection. `cursors`: what has been committed, by lane."""

    def __init__(
        self,
        connection: Connection,
        journal_id: int,
        cursors: list[int],
        *,
        protocols: Mapping[str, TrackerProtocol],
        rules: Rules,
        judging: Judging | None = None,
    ) -> None:
        self._connection = connection
        self.in_use = asyncio.Lock()  # the connection; one for all pipelines that share one
        self._journal_id = journal_id
        self._protocols = protocols
        self._rules = rules
        self._judging = judging
        self._devices: dict[str, Device] = {}
        self._mentioned: set[str] = set()
        self._months: set[tuple[int, int]] = set()
        self.read_as: dict[int, Decodes] = {}  # by sequence number: what decodes a frame instead of its protocol
        self.start_from(cursors)

    def start_from(self, cursors: list[int]) -> None:
        """What is prepared next begins here; what was prepared before and is not written counts for nothing."""
        self.cursors = cursors
        self._prepared_to = list(cursors)
        self._forget_judged()

    async def ingest(self, items: Sequence[Chunk | Lost]) -> Written:
        """Prepare and write, one after the other."""
        return await self.write(await self.prepare(items))

    async def prepare(self, items: Sequence[Chunk | Lost]) -> Prepared:
        """Decode what was read of the whole journal. Raises CursorMoved if it does not continue what was prepared."""
        return await self.prepare_spans([self._span(items)])

    async def prepare_spans(self, spans: Sequence[Span]) -> Prepared:
        """Decode ranges that follow each other in every lane. Raises CursorMoved at a hole."""
        ranges = self._ranges(spans)
        devices = await self._devices_of(ranges)
        batch = await self._batch(ranges, devices)
        if not _months(batch) <= self._months:
            async with self.in_use:
                await self._know_months(batch)
        for found in ranges:
            self._prepared_to[found.lane] = found.last_seq
        return ranges, batch

    def prepared_to(self, lane: int) -> int:
        """Up to where this lane was prepared, and will be in the database if all goes well."""
        return self._prepared_to[lane]

    async def write(self, prepared: Prepared) -> Written:
        """Store what was prepared. Raises CursorMoved if a cursor is not where it was last seen."""
        ranges, batch = prepared
        async with self.in_use:
            try:
                return await self._write(ranges, batch) if ranges else Written()
            except BaseException:
                self.start_from(self.cursors)
                raise

    def _span(self, items: Sequence[Chunk | Lost]) -> Span:
        entries: list[Numbered] = []
        lost: list[LostRange] = []
        for item in items:
            if isinstance(item, Lost):
                lost.append(LostRange(item.first_seq, item.last_seq, item.why, item.evidence))
            else:
                entries += enumerate(item.entries, item.first_seq)
        return Span(range(len(self._prepared_to)), items[0].first_seq - 1, last_seq(items[-1]), entries, lost)

    def _ranges(self, spans: Sequence[Span]) -> list[_Range]:
        found: dict[int, _Range] = {}
        for span in spans:
            entries: dict[int, list[Numbered]] = {lane: [] for lane in span.lanes}
            for numbered in span.entries:
                entries[lane_of_entry(numbered[1], len(self._prepared_to))].append(numbered)
            for lane in span.lanes:
                cursor = found[lane].last_seq if lane in found else self._prepared_to[lane]
                match fit(span.after_seq + 1, span.last_seq, cursor):
                    case Fit.HOLE:
                        raise CursorMoved
                    case Fit.NEW:
                        one = found.setdefault(lane, _Range(lane, cursor, cursor, [], []))
                        one.entries += [numbered for numbered in entries[lane] if numbered[0] > cursor]
                        one.lost += [gap for gap in span.lost if gap.last_seq > cursor] if lane == 0 else []
                        one.last_seq = span.last_seq
                    case Fit.DONE:
                        pass
        return list(found.values())

    async def _write(self, ranges: list[_Range], prepared: IngestBatch | None = None) -> Written:
        """One transaction for all, or several if the database rejects a value in them."""
        for tries_left in reversed(range(limits.WRITE_TRIES_MAX)):
            batch = prepared or await self._prepare_again(ranges)
            prepared = None
            try:
                written = await write(self._connection, batch)
            except DeviceChanged:
                self._forget_devices(batch)
            except CursorMoved:
                raise
            except Exception as error:
                fault = classify(error)
                if fault is Fault.MISSING_PARTITION and tries_left:
                    self._months.clear()
                    continue
                if fault is not Fault.DATA:
                    raise
                return await self._write_apart(ranges, batch)
            else:
                self._wrote(ranges)
                return written
        raise RegistryRestless

    async def _write_apart(self, ranges: list[_Range], batch: IngestBatch) -> Written:
        """The database rejects a value: find it by writing parts."""
        if len(ranges) > 1:
            parts = [[one] for one in ranges]
        elif len(ranges[0].entries) > 1:
            parts = [[half] for half in ranges[0].halves()]
        else:
            written = await self._isolate(batch)
            self._wrote(ranges)
            return written
        written = Written()
        for part in parts:
            written.add(await self._write(part))
        return written

    def _wrote(self, ranges: list[_Range]) -> None:
        for one in ranges:
            self.cursors[one.lane] = one.last_seq
            self._mention_unknown(one)

    def _mention_unknown(self, span: _Range) -> None:
        """Say once of each device that nobody registered how to do that."""
        for _, entry in span.entries:
            if not isinstance(entry, FrameEntry) or not entry.device_number or entry.device_number in self._mentioned:
                continue
            device = self._devices.get(entry.device_number)
            if device is None or device.status is not DeviceStatus.UNKNOWN:
                continue
            if len(self._mentioned) < limits.UNKNOWN_MENTIONED_MAX:
                self._mentioned.add(entry.device_number)
                log.warning(
                    "unknown device: its records wait in quarantine",
                    device=entry.device_number,
                    to_register=self._rules.register_line.format(entry.device_number),
                )

    async def _isolate(self, batch: IngestBatch) -> Written:
        """One frame that the database rejects: find the records to blame and quarantine these alone."""
        if not batch.frames or not batch.frames[0].signals:
            return await write(self._connection, batch)  # there is nobody to blame: raises what it raised before
        (rows,) = batch.frames
        for row in list(rows.signals):
            alone = msgspec.structs.replace(rows, signals=[row], quarantined=[])
            try:
                await probe(self._connection, msgspec.structs.replace(batch, frames=[alone]))
            except Exception as error:
                if classify(error) is not Fault.DATA:
                    raise
                log.warning(
                    "record rejected by the database",
                    device=rows.device.device_number,
                    seq=rows.seq,
                    error=str(error),
                )
                reject(rows, row.record_no, sqlstate(error), str(error))
        return await write(self._connection, batch)

    async def _prepare_again(self, ranges: list[_Range]) -> IngestBatch:
        """While we have the connection. What was judged before was not written."""
        self._forget_judged()
        await self._know_devices(_numbers(ranges))
        batch = await self._batch(ranges, self._devices)
        await self._know_months(batch)
        return batch

    async def _batch(self, ranges: list[_Range], devices: Mapping[str, Device]) -> IngestBatch:
        """Decode, a few frames at a time: whoever shares the event loop is not kept waiting."""
        rows: list[FrameRows] = []
        others: list[Entry] = []
        moves: list[CursorMove] = []
        days, kept_from = self._rules.retention.days, self._rules.retention.floor()
        for one in ranges:
            rows_before, others_before = len(rows), len(others)
            for number, (seq, entry) in enumerate(one.entries):
                if number % FRAMES_AT_A_TIME == 0:
                    await asyncio.sleep(0)
                if isinstance(entry, FrameEntry):
                    protocol = self.read_as.get(seq) or self._protocols.get(entry.protocol)
                    device = devices[entry.device_number]
                    rows.append(triage(seq, entry, device, protocol, retention_days=days, kept_from=kept_from))
                else:
                    others.append(entry)
            await self._judge(rows[rows_before:])
            frames, rest = len(rows) - rows_before, len(others) - others_before
            moves.append(CursorMove(one.lane, one.after_seq, one.last_seq, frames, rest, one.lost))
        return IngestBatch(self._journal_id, moves, rows, refusals_in(others), sessions_in(others))

    async def _judge(self, frames: Sequence[FrameRows]) -> None:
        """After all of them are decoded: doing one thing for long is what processors are fast at."""
        if self._judging is None:
            return
        for number, frame in enumerate(frames):
            if number % FRAMES_AT_A_TIME == 0:
                await asyncio.sleep(0)
            self._judging.judge(frame)

    async def _devices_of(self, ranges: list[_Range]) -> Mapping[str, Device]:
        """The registry's entries for the devices of ranges. The connection is only waited for if one is missing."""
        numbers = _numbers(ranges)
        if not self._knows(numbers):
            async with self.in_use:
                await self._know_devices(numbers)
        return {number: self._devices[number] for number in numbers}

    def _knows(self, numbers: set[str]) -> bool:
        if not self._devices.keys() >= numbers:
            return False
        return self._judging is None or self._judging.knows([self._devices[number] for number in numbers])

    async def _know_devices(self, numbers: set[str]) -> None:
        missing = numbers - self._devices.keys()
        if missing:
            if len(self._devices) > limits.DEVICE_CACHE_MAX:
                self._devices.clear()
                missing = numbers
            self._devices.update(
                await registry.resolve(self._connection, missing, register_unknown=self._rules.register_unknown)
            )
        if self._judging is not None:
            await self._judging.look_up(self._connection, [self._devices[number] for number in numbers])

    def _forget_judged(self) -> None:
        if self._judging is not None:
            self._judging.forget()

    def _forget_devices(self, batch: IngestBatch) -> None:
        for rows in batch.frames:
            self._devices.pop(rows.device.device_number, None)

    async def _know_months(self, batch: IngestBatch) -> None:
        months = _months(batch)
        if not months <= self._months:
            await ensure_partitions(self._connection, months - self._months)
            self._months |= months


def _numbers(ranges: list[_Range]) -> set[str]:
    return {entry.device_number for one in ranges for _, entry in one.entries if isinstance(entry, FrameEntry)}


def _months(batch: IngestBatch) -> set[tuple[int, int]]:
    return {(row.wire_time.year, row.wire_time.month) for rows in batch.frames for row in rows.signals}
