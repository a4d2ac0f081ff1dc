"""From a range of a journal to rows: decode, triage, write; and what to do when the database says no.

Data errors bisect the range: first by frames, each half a transaction of its own that moves the cursor; then, within
one frame, record by record in transactions that are rolled back. What is left is quarantined as `database_rejected`
with the SQLSTATE; its neighbours are stored. A missing partition is made and the write tried again. A registry entry
that changed under our feet means decoding again. Everything else is raised: the driver retries it for ever and
quarantines nothing for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

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
    """Writes ranges of one journal over one connection. `cursors` follows what has been committed."""

    def __init__(
        self,
        connection: Connection,
        journal_id: int,
        cursors: list[int],
        *,
        protocols: Mapping[str, TrackerProtocol],
        rules: Rules,
    ) -> None:
        self.cursors = cursors
        self._connection = connection
        self._journal_id = journal_id
        self._protocols = protocols
        self._rules = rules
        self._devices: dict[str, Device] = {}
        self._mentioned: set[str] = set()
        self._months: set[tuple[int, int]] = set()

    async def ingest(self, items: Sequence[Chunk | Lost]) -> Written:
        """Write what was read, lane by lane. Raises CursorMoved if a cursor is not where it was last seen."""
        written = Written()
        for span in self._ranges(items):
            written.add(await self._write(span))
            self._mention_unknown(span)
            self.cursors[span.lane] = span.last_seq
        return written

    def _ranges(self, items: Sequence[Chunk | Lost]) -> list[_Range]:
        lanes = len(self.cursors)
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
        for lane, cursor in enumerate(self.cursors):
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

    async def _write(self, span: _Range) -> Written:
        """One transaction for the range, or several if the database rejects a value in it."""
        for tries_left in reversed(range(limits.WRITE_TRIES_MAX)):
            batch = await self._batch(span)
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

    async def _batch(self, span: _Range) -> IngestBatch:
        frames = [(seq, entry) for seq, entry in span.entries if isinstance(entry, FrameEntry)]
        await self._know_devices({entry.device_number for _, entry in frames})
        rows = [
            triage(
                seq,
                entry,
                self._devices[entry.device_number],
                self._protocols.get(entry.protocol),
                retention_days=self._rules.retention_days,
            )
            for seq, entry in frames
        ]
        await self._know_months(rows)
        entries = [entry for _, entry in span.entries]
        return IngestBatch(
            self._journal_id,
            span.lane,
            span.after_seq,
            span.last_seq,
            rows,
            other_entries=len(span.entries) - len(frames),
            refusals=refusals_in(entries),
            lost=span.lost,
            sessions=sessions_in(entries),
        )

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

    async def _know_months(self, frames: list[FrameRows]) -> None:
        months = {(row.wire_time.year, row.wire_time.month) for rows in frames for row in rows.signals}
        if not months <= self._months:
            await ensure_partitions(self._connection, months - self._months)
            self._months |= months


def _last_seq(item: Chunk | Lost) -> int:
    if isinstance(item, Lost):
        return item.last_seq
    return item.first_seq + len(item.entries) - 1
