"""Replay: frames that were ingested before are read from their journals once more, and decoded as they are read now.

Read is what was received in a time, up to the cursors and never beyond: what lies there is ingest's. For each batch of
frames, what waits of them in quarantine is released first, then each record is held against what is stored
(`replay_batch`), in one transaction with the replay's own place and counts. The cursors are never touched. Cut off at
any moment, it goes on where it was, and a second replay of the same time doubles nothing.

A value that the database rejects is found by halving the batch, left out and named; its neighbours are written.
A trial does all of this and rolls each batch back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from signalkeep import limits
from signalkeep.errors import EnvironmentFault
from signalkeep.ingest.pace import Pace
from signalkeep.ingest.release import Released, Releaser, rolled_back
from signalkeep.ingest.replay_batch import POLICY, BatchWriter, Key, Known, Read
from signalkeep.ingest.triage import EPOCH, triage
from signalkeep.journal.files import FileSystem
from signalkeep.journal.lanes import lane_of_entry
from signalkeep.journal.reader import JournalReader, Lost
from signalkeep.journal.record import FrameEntry
from signalkeep.protocols.contract import TrackerProtocol
from signalkeep.store import journals, quarantine, registry
from signalkeep.store import replay as stored
from signalkeep.store.partitions import Month, ensure_partitions, missing_months
from signalkeep.store.postgres import Connection, Fault, classify
from signalkeep.store.quarantine import ChangedMeanwhile, Selection
from signalkeep.store.replay import Counts, Part, Replay
from signalkeep.store.retention import Retention
from signalkeep.store.rows import Device

MICROSECOND: Final = timedelta(microseconds=1)
FRAMES_AT_A_TIME: Final = 16  # decoded before others on the event loop have their turn

Numbered = tuple[int, FrameEntry]


class Replayed(msgspec.Struct):
    """What came of a replay since it was begun, or taken up again."""

    counts: Counts = msgspec.field(default_factory=Counts)
    lost: int = 0  # entries that the files do not have any more, or that cannot be read
    named: list[str] = msgspec.field(default_factory=list)  # some of what was refused or lost, in words


class Replayer:
    """One replay over one connection. Nobody else uses the connection meanwhile."""

    def __init__(
        self,
        connection: Connection,
        replay: Replay,
        *,
        actor: str,
        fs: FileSystem,
        evidence_root: Path,
        protocols: Mapping[str, TrackerProtocol],
        retention: Retention,
        pace: Pace | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._connection = connection
        self._replay = replay
        self._actor = actor
        self._fs = fs
        self._evidence_root = evidence_root
        self._protocols = protocols
        self._retention = retention
        self._pace = pace or Pace(None)
        self._progress = progress
        self._entries = 0
        wanted = replay.wanted
        self._since_us, self._until_us = ((at - EPOCH) // MICROSECOND for at in (wanted.since, wanted.until))
        self._trial = replay.id is None
        self.result = Replayed()

    async def run(self) -> Replayed:
        """Everything that is left of it; a trial changes nothing. Raises what the environment raises."""
        for part in self._replay.parts:
            await self._journal(part)
        if not self._trial:
            await stored.end(self._connection, self._replay, actor=self._actor)
        return self.result

    async def _journal(self, part: Part) -> None:
        reader = JournalReader(self._fs, part.directory, evidence_root=self._evidence_root)
        reader.seek(part.seq)
        known = Known(part.journal_id)
        while part.seq < part.last_seq:
            items = reader.read(limits.INGEST_BATCH_FRAMES_MAX, limits.INGEST_BATCH_BYTES_MAX)
            # Asked for each time: an entry is ours only if the database has it now.
            cursors = await journals.cursors(self._connection, part.journal_id)
            frames: list[Numbered] = []
            lost, last_seq = 0, part.seq
            for item in items:
                if item.first_seq > part.last_seq:
                    break
                if isinstance(item, Lost):
                    last_seq = min(item.last_seq, part.last_seq)
                    lost += last_seq - item.first_seq + 1
                    self._name(f"entries {item.first_seq}..{last_seq} of journal {part.journal_id} are {item.why}")
                    continue
                for seq, entry in enumerate(item.entries, item.first_seq):
                    if seq > part.last_seq:
                        break
                    last_seq = seq
                    if isinstance(entry, FrameEntry) and self._is_meant(entry) and seq <= _cursor(entry, cursors):
                        frames.append((seq, entry))
            if last_seq == part.seq:  # the files end before the cursor
                last_seq, lost = part.last_seq, part.last_seq - part.seq
                self._name(
                    f"entries {part.seq + 1}..{last_seq} of journal {part.journal_id} are no longer in its files"
                )
            await self._pieces(part, known, frames, last_seq, lost)

    def _is_meant(self, entry: FrameEntry) -> bool:
        wanted = self._replay.wanted.device_number
        in_time = self._since_us <= entry.received_at_us < self._until_us
        return in_time and (wanted is None or entry.device_number == wanted)

    async def _pieces(self, part: Part, known: Known, frames: list[Numbered], last_seq: int, lost: int) -> None:
        """In transactions of bounded size, not faster than the pace."""
        size = self._pace.piece(limits.REPLAY_BATCH_FRAMES)
        pieces = [frames[start : start + size] for start in range(0, len(frames), size)] or [[]]
        for piece in pieces:
            last = piece is pieces[-1]
            async with self._undone():
                records = await self._settle(
                    part, known, piece, last_seq if last else piece[-1][0], lost if last else 0
                )
            self._progress(self._entries)
            await self._pace.wait(records)
        self.result.lost += lost
        self.result.named += known.refused
        known.refused.clear()

    def _undone(self) -> AbstractAsyncContextManager[None]:
        return rolled_back(self._connection) if self._trial else nullcontext()

    async def _settle(
        self, part: Part, known: Known, frames: Sequence[Numbered], last_seq: int, lost: int, *, carefully: bool = False
    ) -> int:
        """Deal with (part.seq, last_seq] in one transaction, or in several if the database rejects a value. Returns
        how many records there were."""
        for tries_left in reversed(range(limits.WRITE_TRIES_MAX)):
            devices = await self._devices(frames)
            read = await self._read(frames, devices)
            await self._release(part, read)
            expired = await self._make_months(part, read)
            try:
                unwritable = await self._find_unwritable(known, read, expired, devices) if carefully else set()
                counts = await self._write(part, known, read, expired, devices, unwritable, last_seq, lost)
            except ChangedMeanwhile:
                continue
            except Exception as error:
                match classify(error):
                    case Fault.MISSING_PARTITION if tries_left:
                        continue
                    case Fault.DATA if len(frames) > 1:
                        middle = len(frames) // 2
                        first, rest = frames[:middle], frames[middle:]
                        records = await self._settle(part, known, first, first[-1][0], 0)
                        return records + await self._settle(part, known, rest, last_seq, lost)
                    case Fault.DATA if frames and not carefully:
                        return await self._settle(part, known, frames, last_seq, lost, carefully=True)
                    case _:
                        raise
            self.result.counts.add(counts)
            self._entries += last_seq - part.seq
            part.seq = last_seq
            return counts.records
        raise EnvironmentFault(
            "registry entries changed all the time during the replay", hint="Resume it when that is over."
        )

    async def _write(
        self,
        part: Part,
        known: Known,
        read: Sequence[Read],
        expired: set[tuple[int, Month]],
        devices: Mapping[int, Device],
        unwritable: set[Key],
        last_seq: int,
        lost: int,
    ) -> Counts:
        """The one transaction: rows, ledger, and how far the replay has come."""
        batch = BatchWriter(self._connection, known, expired)
        async with self._connection.transaction():
            await stored.move(self._connection, self._replay, part, last_seq, lost)
            if read:
                await quarantine.lock(self._connection, devices, [])
                await batch.write(read, unwritable)
            await stored.note(self._connection, self._replay, batch.counts)
        batch.commit()
        return batch.counts

    async def _find_unwritable(
        self, known: Known, read: Sequence[Read], expired: set[tuple[int, Month]], devices: Mapping[int, Device]
    ) -> set[Key]:
        """Of a single frame: which of its records the database rejects, each tried alone and rolled back."""
        (frame,) = read
        found: set[Key] = set()
        for key in frame.keys:
            try:
                async with rolled_back(self._connection):
                    await quarantine.lock(self._connection, devices, [])
                    await BatchWriter(self._connection, known, expired).write(read, frame.keys - {key})
            except Exception as error:
                if classify(error) is not Fault.DATA:
                    raise
                found.add(key)
        return found

    async def _devices(self, frames: Sequence[Numbered]) -> dict[int, Device]:
        numbers = {entry.device_number for _, entry in frames}
        if not numbers:
            return {}
        found = await registry.resolve(self._connection, numbers, register_unknown=False)
        return {device.id: device for device in found.values()}

    async def _read(self, frames: Sequence[Numbered], devices: Mapping[int, Device]) -> list[Read]:
        by_number = {device.device_number: device for device in devices.values()}
        read = []
        for number, (seq, entry) in enumerate(frames):
            if number % FRAMES_AT_A_TIME == 0:
                await asyncio.sleep(0)
            judge = partial(
                triage,
                seq,
                entry,
                by_number[entry.device_number],
                self._protocols.get(entry.protocol),
                retention_days=self._retention.days,
            )
            rows = judge()
            policy = any(row.reason in POLICY for row in rows.quarantined)
            read.append(Read(rows, judge(forced=True) if policy else rows))
        return read

    async def _release(self, part: Part, read: Sequence[Read]) -> None:
        """What waits of these frames, or is a record of theirs that waits elsewhere, as a release does it."""
        if not read:
            return
        keys = set().union(*(one.keys for one in read))
        columns = list(zip(*keys, strict=True)) or [(), (), ()]
        seqs = [one.rows.seq for one in read]
        found = await self._connection.fetch(stored.OPEN_OF, part.journal_id, seqs, *columns)
        words = f"replay {self._replay.id}"
        releaser = Releaser(
            self._connection,
            words,
            self._actor,
            self._protocols,
            self._retention,
            also=self._note_released,
        )
        ids = sorted(row["id"] for row in found)
        for start in range(0, len(ids), limits.QUARANTINE_RELEASE_BATCH):
            selection = Selection(ids=tuple(ids[start : start + limits.QUARANTINE_RELEASE_BATCH]))
            async for rows in quarantine.pages(self._connection, selection):
                await releaser.settle(rows, await quarantine.frames_of(self._connection, rows))

    async def _note_released(self, done: Released) -> None:
        counts = Counts(released=done.released + done.already_stored, replaced=done.replaced)
        await stored.note(self._connection, self._replay, counts)
        self.result.counts.add(counts)

    async def _make_months(self, part: Part, read: Sequence[Read]) -> set[tuple[int, Month]]:
        """Make the months that rows may need; returns those that went with the retention, by device."""
        wanted: dict[int, set[Month]] = {}
        for one in read:
            months = wanted.setdefault(one.rows.device.id, set())
            months.update((row.wire_time.year, row.wire_time.month) for row in one.forced.signals)
        missing = await missing_months(self._connection, set().union(*wanted.values()))
        if not missing:
            return set()
        rows = await self._connection.fetch(stored.EXPIRED, part.journal_id, list(wanted))
        gone = {row["device_id"] for row in rows}
        expired = {(device_id, month) for device_id in gone for month in wanted[device_id] & missing}
        needed = set().union(*(months for device_id, months in wanted.items() if device_id not in gone))
        await ensure_partitions(self._connection, needed & missing, trial=self._trial)
        return expired

    def _name(self, words: str) -> None:
        if len(self.result.named) < limits.REPLAY_NAMED_MAX:
            self.result.named.append(words)


def _cursor(entry: FrameEntry, cursors: Sequence[int]) -> int:
    return cursors[lane_of_entry(entry, len(cursors))]
