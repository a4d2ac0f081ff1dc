"""From a range of a journal to rows: decode, triage, write; and what to do when the database says no.

`prepare` decodes and may run while the range before is being written; `write` stores what was prepared, in order. One
connection serves both, never at the same time.

Data errors bisect the range: first by frames, each half a transaction of its own that moves the cursor; then, within
one frame, record by record in transactions that are rolled back. What is left is quarantined as `database_rejected`
with the SQLSTATE; its neighbours are stored. A missing partition is made and the write tried again. A registry entry
that changed under our feet means decoding again. Everything else is raised: the driver retries it for ever and
quarantines nothing for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from signalkeep import limits
from signalkeep.ingest.lanes import Fit, fit, lane_of
from signalkeep.ingest.sessions import refusals_in, sessions_in
from signalkeep.ingest.triage import reject, triage
from signalkeep.journal.reader import Chunk, Lost
from signalkeep.journal.record import Entry, FrameEntry
from signalkeep.model import DeviceStatus
from signalkeep.protocols.contract import TrackerProtocol
from signalkeep.store import registry
from signalkeep.store.partitions import ensure_partitions
from signalkeep.store.postgres import Connection, Fault, classify, sqlstate
from signalkeep.store.rows import Device, FrameRows, IngestBatch, LostRange, Written
from signalkeep.store.writer import CursorMoved, DeviceChanged, probe, write
from signalkeep.telemetry import get_logger

Numbered: TypeAlias = tuple[int, Entry]
Prepared: TypeAlias = "list[tuple[_Range, IngestBatch]]"
"""Ranges, one after the other in each lane, with the rows that they become."""

FRAMES_AT_A_TIME: Final = 16  # decoded before others on the event loop have their turn

log = get_logger()


class RegistryRestless(Exception):
    """Registry entries changed at every try; the driver starts afresh."""


class Rules(msgspec.Struct, frozen=True):
    """The settings that decide where a record goes."""

    register_unknown: bool = False
    retention_days: int = 0
    register_line: str = "signalkeep devices add {}"  # shown for a device that nobody registered


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
    ) -> None:
        self._connection = connection
        self._in_use = asyncio.Lock()  # the connection
        self._journal_id = journal_id
        self._protocols = protocols
        self._rules = rules
        self._devices: dict[str, Device] = {}
        self._mentioned: set[str] = set()
        self._months: set[tuple[int, int]] = set()
        self.start_from(cursors)

    def start_from(self, cursors: list[int]) -> None:
        """What is prepared next begins here; what was prepared before and is not written counts for nothing."""
        self.cursors = cursors
        self._prepared_to = list(cursors)

    async def ingest(self, items: Sequence[Chunk | Lost]) -> Written:
        """Prepare and write, one after the other."""
        return await self.write(await self.prepare(items))

    async def prepare(self, items: Sequence[Chunk | Lost]) -> Prepared:
        """Decode what was read, lane by lane. Raises CursorMoved if it does not continue what was prepared before."""
        prepared = []
        for span in self._ranges(items):
            devices = await self._devices_of(span)
            batch = await self._batch(span, devices)
            if not _months(batch) <= self._months:
                async with self._in_use:
                    await self._know_months(batch)
            prepared.append((span, batch))
            self._prepared_to[span.lane] = span.last_seq
        return prepared

    async def write(self, prepared: Prepared) -> Written:
        """Store what was prepared. Raises CursorMoved if a cursor is not where it was last seen."""
        written = Written()
        async with self._in_use:
            try:
                for span, batch in prepared:
                    written.add(await self._write(span, batch))
                    self._mention_unknown(span)
                    self.cursors[span.lane] = span.last_seq
            except BaseException:
                self.start_from(self.cursors)
                raise
        return written

    def _ranges(self, items: Sequence[Chunk | Lost]) -> list[_Range]:
        lanes = len(self._prepared_to)
        first_seq, last_seq = items[0].first_seq, _last_seq(items[-1])
        entries: list[list[Numbered]] = [[] for _ in range(lanes)]
        lost: list[LostRange] = []
        for item in items:
            if isinstance(item, Lost):
                lost.append(LostRange(item.first_seq, item.last_seq, item.why, item.evidence))
                continue
            for seq, entry in enumerate(item.entries, item.first_seq):
                lane = lane_of(entry.device_number, lanes) if isinstance(entry, FrameEntry) else 0
                entries[lane].append((seq, entry))
        ranges = []
        for lane, cursor in enumerate(self._prepared_to):
            match fit(first_seq, last_seq, cursor):
                case Fit.HOLE:
                    raise CursorMoved
                case Fit.NEW:
                    new = [numbered for numbered in entries[lane] if numbered[0] > cursor]
                    missing = [span for span in lost if span.last_seq > cursor] if lane == 0 else []
                    ranges.append(_Range(lane, cursor, last_seq, new, missing))
                case Fit.DONE:
                    pass
        return ranges

    async def _write(self, span: _Range, prepared: IngestBatch | None = None) -> Written:
        """One transaction for the range, or several if the database rejects a value in it."""
        for tries_left in reversed(range(limits.WRITE_TRIES_MAX)):
            batch = prepared or await self._prepare_again(span)
            prepared = None
            try:
                return await write(self._connection, batch)
            except DeviceChanged:
                self._forget_devices(batch)
            except CursorMoved:
                raise
            except Exception as error:
                fault = classify(error)
                if fault is Fault.MISSING_PARTITION and tries_left:
                    self._months.clear()
                    continue
                match fault:
                    case Fault.DATA if len(span.entries) > 1:
                        left, right = span.halves()
                        written = await self._write(left)
                        written.add(await self._write(right))
                        return written
                    case Fault.DATA if batch.frames and batch.frames[0].signals:
                        return await self._isolate(batch)
                    case _:
                        raise
        raise RegistryRestless

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

    async def _prepare_again(self, span: _Range) -> IngestBatch:
        """While we have the connection."""
        await self._know_devices(_numbers(span))
        batch = await self._batch(span, self._devices)
        await self._know_months(batch)
        return batch

    async def _batch(self, span: _Range, devices: Mapping[str, Device]) -> IngestBatch:
        """Decode, a few frames at a time: whoever shares the event loop is not kept waiting."""
        rows: list[FrameRows] = []
        others: list[Entry] = []
        for number, (seq, entry) in enumerate(span.entries):
            if number % FRAMES_AT_A_TIME == 0:
                await asyncio.sleep(0)
            if isinstance(entry, FrameEntry):
                device, protocol = devices[entry.device_number], self._protocols.get(entry.protocol)
                rows.append(triage(seq, entry, device, protocol, retention_days=self._rules.retention_days))
            else:
                others.append(entry)
        return IngestBatch(
            self._journal_id,
            span.lane,
            span.after_seq,
            span.last_seq,
            rows,
            other_entries=len(others),
            refusals=refusals_in(others),
            lost=span.lost,
            sessions=sessions_in(others),
        )

    async def _devices_of(self, span: _Range) -> Mapping[str, Device]:
        """The registry's entries for the devices of a range. The connection is only waited for if one is missing."""
        numbers = _numbers(span)
        if not self._devices.keys() >= numbers:
            async with self._in_use:
                await self._know_devices(numbers)
        return {number: self._devices[number] for number in numbers}

    async def _know_devices(self, numbers: set[str]) -> None:
        missing = numbers - self._devices.keys()
        if not missing:
            return
        if len(self._devices) > limits.DEVICE_CACHE_MAX:
            self._devices.clear()
            missing = numbers
        self._devices.update(
            await registry.resolve(self._connection, missing, register_unknown=self._rules.register_unknown)
        )

    def _forget_devices(self, batch: IngestBatch) -> None:
        for rows in batch.frames:
            self._devices.pop(rows.device.device_number, None)

    async def _know_months(self, batch: IngestBatch) -> None:
        months = _months(batch)
        if not months <= self._months:
            await ensure_partitions(self._connection, months - self._months)
            self._months |= months


def _numbers(span: _Range) -> set[str]:
    return {entry.device_number for _, entry in span.entries if isinstance(entry, FrameEntry)}


def _months(batch: IngestBatch) -> set[tuple[int, int]]:
    return {(row.wire_time.year, row.wire_time.month) for rows in batch.frames for row in rows.signals}


def _last_seq(item: Chunk | Lost) -> int:
    if isinstance(item, Lost):
        return item.last_seq
    return item.first_seq + len(item.entries) - 1
