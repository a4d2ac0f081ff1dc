"""Release: records that wait in quarantine are judged again and become signals where nothing is against it now.

Judged is what was kept: the whole frame with its envelope, by the same triage and under the registry as it is now. A
record that the decoder still cuts out of the frame with the same bytes is released. One that could not be decoded and
that a newer decoder cuts otherwise is replaced: the frame is written again as it is read now, record keys keep what is
stored already from doubling, and the old row is closed. Each batch is one transaction
under the locks of its devices: rows, ledger and audit log change together, and a re-send of the same record that is
ingested at the same moment waits for it, or has been waited for.

Every row that was open at the start is tried once; what stays gets its present reason and one more attempt. A row
that the database rejects never blocks its neighbours. Nothing is retried for ever: other faults are raised, and what
was released until then stays released. A trial does all of this, says what came of it, and rolls it back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import timedelta
from typing import TypeAlias

import msgspec

from signalkeep import __version__, limits
from signalkeep.errors import EnvironmentFault
from signalkeep.ingest.pace import Pace
from signalkeep.ingest.triage import EPOCH, detail_of, triage
from signalkeep.journal.record import FrameEntry
from signalkeep.model import Reason
from signalkeep.protocols.contract import TrackerProtocol
from signalkeep.store import quarantine
from signalkeep.store.partitions import ensure_partitions
from signalkeep.store.postgres import Connection, Fault, Row, classify, sqlstate
from signalkeep.store.quarantine import ChangedMeanwhile, Selection
from signalkeep.store.registry import log_action
from signalkeep.store.release import (
    ReleaseItem,
    Trying,
    already_stored,
    close_replaced,
    note_failed,
    release_rows,
)
from signalkeep.store.retention import Retention
from signalkeep.store.rows import Device, FrameRows
from signalkeep.store.writer import write_again

Left: TypeAlias = tuple[int, str, str]
"""A row that stays: its id, and the reason and detail that it has from now on."""

MICROSECOND = timedelta(microseconds=1)
OTHERWISE = "this version reads the frame differently: the record is not in it as it was quarantined; it was "
ERASED = "it lies below the device's floor: an erasure is about to delete it"
UNREAD = frozenset(
    {Reason.BAD_FORMAT, Reason.BAD_VALUE, Reason.COUNT_MISMATCH, Reason.UNSUPPORTED, Reason.DECODER_ERROR}
)  # reasons of the decoder: nothing was read of such a record, so its place among others proves nothing


class Replacement(msgspec.Struct, frozen=True):
    """An open row, and its frame as it is read now."""

    id: int
    journal_id: int
    rows: FrameRows


class Verdicts(msgspec.Struct):
    """What shall become of the rows of a batch."""

    items: list[ReleaseItem] = msgspec.field(default_factory=list)
    replaced: list[Replacement] = msgspec.field(default_factory=list)
    left: list[Left] = msgspec.field(default_factory=list)

    @property
    def months(self) -> set[tuple[int, int]]:
        """Of all signals that may be written."""
        rows = [item.row for item in self.items]
        rows += [row for replacement in self.replaced for row in replacement.rows.signals]
        return {(row.wire_time.year, row.wire_time.month) for row in rows}

    def still_open(self, ids: set[int]) -> Verdicts:
        """Without those that somebody else has closed meanwhile."""
        return Verdicts(
            [item for item in self.items if item.id in ids],
            [replacement for replacement in self.replaced if replacement.id in ids],
            [left for left in self.left if left[0] in ids],
        )


class Outcome(msgspec.Struct, frozen=True):
    """What becomes of one row. `what`: released, already_stored, replaced or stays."""

    id: int
    what: str
    reason: str = ""
    detail: str = ""


Tell: TypeAlias = Callable[[Outcome], None]


class Released(msgspec.Struct):
    """What became of the rows that were tried, in records."""

    released: int = 0
    already_stored: int = 0  # closed, too: the record had reached `signal` another way
    replaced: int = 0  # closed: other records of the same frame were ingested in their place
    still_quarantined: int = 0
    reasons: dict[str, int] = msgspec.field(default_factory=dict)  # of those that stay

    def add(self, other: Released) -> None:
        self.released += other.released
        self.already_stored += other.already_stored
        self.replaced += other.replaced
        self.still_quarantined += other.still_quarantined
        for reason, count in other.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + count


async def release(
    connection: Connection,
    selection: Selection,
    *,
    forced: bool,
    closed_by: str,
    protocols: Mapping[str, TrackerProtocol],
    retention: Retention,
    progress: Callable[[int], None] | None = None,
    pace: Pace | None = None,
    trial: Tell | None = None,
) -> Released:
    """Try every open row that is meant. `forced`: reasons of policy (unknown or retired device, future, expired) do
    not count, but what is of a month that goes stays even then. `progress` is told how many rows have been tried.
    `trial`: change nothing; it is told of each row."""
    pace = pace or Pace(None)
    releaser = Releaser(connection, selection.words(), closed_by, protocols, retention, forced=forced, tell=trial)
    tried = 0
    async for rows in quarantine.pages(connection, selection, pace.piece(limits.QUARANTINE_RELEASE_BATCH)):
        frames = await quarantine.frames_of(connection, rows)
        async with rolled_back(connection) if trial is not None else nullcontext():
            await releaser.settle(rows, frames)
        tried += len(rows)
        if progress is not None:
            progress(tried)
        await pace.wait(len(rows))
    return releaser.result


class Releaser:
    """Judges rows again, for one caller, who is named in the audit log with `words`."""

    def __init__(
        self,
        connection: Connection,
        words: str,
        closed_by: str,
        protocols: Mapping[str, TrackerProtocol],
        retention: Retention,
        *,
        forced: bool = False,
        tell: Tell | None = None,
        trying: Trying | None = None,
        also: Callable[[Released], Awaitable[None]] | None = None,
    ) -> None:
        """`also`: is told what a transaction did, within it."""
        self._connection = connection
        self._words = words
        self._closed_by = closed_by
        self._protocols = protocols
        self._retention = retention
        self._forced = forced
        self._tell = tell
        self._also = also
        self.trying = trying or Trying(__version__)
        self.result = Released()

    async def settle(self, rows: Sequence[Row], frames: Mapping[int, Row]) -> None:
        """Release what may go, in one transaction, or in several if the database rejects a value."""
        for tries_left in reversed(range(limits.WRITE_TRIES_MAX)):
            devices = await quarantine.devices_of(self._connection, rows)
            verdicts = self._judge(rows, frames, devices)
            # In a transaction already: it is a trial.
            trial = self._connection.is_in_transaction()
            await ensure_partitions(self._connection, verdicts.months, trial=trial)
            try:
                await self._write(verdicts, devices)
            except ChangedMeanwhile:
                continue
            except Exception as error:
                match classify(error):
                    case Fault.MISSING_PARTITION if tries_left:
                        continue
                    case Fault.DATA if len(rows) > 1:
                        middle = len(rows) // 2
                        await self.settle(rows[:middle], frames)
                        await self.settle(rows[middle:], frames)
                    case Fault.DATA if verdicts.items or verdicts.replaced:
                        await self._write(Verdicts(left=[_rejected(rows[0], error)]), devices)
                    case _:
                        raise
            return
        raise EnvironmentFault(
            "registry entries changed all the time while records were released", hint="Try again when that is over."
        )

    def _judge(self, rows: Sequence[Row], frames: Mapping[int, Row], devices: Mapping[int, Device]) -> Verdicts:
        """What triage says of each row now; each frame is decoded once."""
        judged: dict[int, list[FrameRows]] = {}
        verdicts = Verdicts()
        for row in rows:
            frame_id = row["frame_id"]
            if devices[row["device_id"]].is_erased(row["wire_time"], row["received_at"]):
                verdicts.left.append((row["id"], row["reason"], ERASED))
                continue
            if frame_id not in judged:
                judged[frame_id] = self._triage(frames[frame_id], devices[row["device_id"]])
            verdict = _verdict(row, judged[frame_id])
            if isinstance(verdict, ReleaseItem):
                verdicts.items.append(verdict)
            elif isinstance(verdict, Replacement):
                verdicts.replaced.append(verdict)
            else:
                verdicts.left.append(verdict)
        return verdicts

    def _triage(self, kept: Row, device: Device) -> list[FrameRows]:
        """The frame as the rules see it, and then, if forced, without those of policy."""
        frame = FrameEntry(
            received_at_us=(kept["received_at"] - EPOCH) // MICROSECOND,
            protocol=kept["protocol"],
            device_number=device.device_number,
            peer=kept["peer"],
            context=kept["context"],
            raw=kept["raw"],
        )
        protocol = self._protocols.get(frame.protocol)
        return [
            triage(
                kept["seq"], frame, device, protocol,
                retention_days=self._retention.days, kept_from=self._retention.floor(), forced=forced,
            )
            for forced in ([False, True] if self._forced else [False])
        ]  # fmt: skip

    async def _write(self, verdicts: Verdicts, devices: Mapping[int, Device]) -> None:
        """One transaction; what somebody else has closed meanwhile is passed over."""
        async with self._connection.transaction():
            ids = [item.id for item in verdicts.items] + [row_id for row_id, _, _ in verdicts.left]
            ids += [replacement.id for replacement in verdicts.replaced]
            verdicts = verdicts.still_open(await quarantine.lock(self._connection, devices, ids))
            told = await self._told(verdicts)
            stored = await release_rows(
                self._connection, verdicts.items, closed_by=self._closed_by, counts=self.trying.counts
            )
            await self._replace(verdicts.replaced)
            await note_failed(self._connection, verdicts.left, self.trying)
            if verdicts.items or verdicts.replaced:
                detail = {
                    "released": stored,
                    "already_stored": len(verdicts.items) - stored,
                    "replaced": len(verdicts.replaced) or None,
                    "first_id": min(ids),
                    "last_id": max(ids),
                    "forced": self._forced or None,
                }
                await log_action(self._connection, self._closed_by, "quarantine.release", self._words, detail)
            reasons = Counter(reason for _, reason, _ in verdicts.left)
            closed = (stored, len(verdicts.items) - stored, len(verdicts.replaced))
            done = Released(*closed, still_quarantined=len(verdicts.left), reasons=dict(reasons))
            if self._also is not None:
                await self._also(done)
        self.result.add(done)
        if self._tell is not None:
            for outcome in told:
                self._tell(outcome)

    async def _told(self, verdicts: Verdicts) -> list[Outcome]:
        """What becomes of each row, by id, if anybody wants to know."""
        if self._tell is None:
            return []
        stored = await already_stored(self._connection, verdicts.items)
        told = [Outcome(item.id, "already_stored" if item.id in stored else "released") for item in verdicts.items]
        told += [Outcome(replacement.id, "replaced") for replacement in verdicts.replaced]
        told += [Outcome(row_id, "stays", reason, detail) for row_id, reason, detail in verdicts.left]
        return sorted(told, key=lambda outcome: outcome.id)

    async def _replace(self, replaced: Sequence[Replacement]) -> None:
        """Write each frame again, once, and close the rows that it replaces. After the releases of the same batch."""
        frames: dict[int, dict[int, FrameRows]] = {}
        for replacement in replaced:
            frames.setdefault(replacement.journal_id, {})[replacement.rows.seq] = replacement.rows
        for journal_id, by_seq in frames.items():
            await write_again(self._connection, journal_id, list(by_seq.values()))
        await close_replaced(self._connection, [replacement.id for replacement in replaced], closed_by=self._closed_by)


@asynccontextmanager
async def rolled_back(connection: Connection) -> AsyncIterator[None]:
    """Whatever is done within is undone at its end."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        if not connection.is_closed():
            await transaction.rollback()


def _verdict(row: Row, judged: Sequence[FrameRows]) -> ReleaseItem | Replacement | Left:
    """The first judgement that lets the record go, else what the last one has against it."""
    left: Left | None = None
    for rows in judged:
        for signal in rows.signals:
            if (signal.record_no, signal.digest) == (row["record_no"], row["digest"]):
                return ReleaseItem.of(row, rows, signal)
        for quarantined in rows.quarantined:
            if (quarantined.record_no, quarantined.digest) == (row["record_no"], row["digest"]):
                left = (row["id"], quarantined.reason.value, quarantined.detail)
    if left is None and row["reason"] in UNREAD:
        return Replacement(row["id"], row["journal_id"], judged[-1])
    return left or (row["id"], row["reason"], OTHERWISE + row["reason"])


def _rejected(row: Row, error: Exception) -> Left:
    return row["id"], Reason.DATABASE_REJECTED.value, detail_of(f"{sqlstate(error)} {error}")
