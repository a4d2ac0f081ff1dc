"""The reading end of a journal: what is durable, in order, without holes that are not named. Never changes a journal.

What may be taken of a *living* journal is proven by the files alone: a batch is durable once something that was
written after its sync is seen, which is the batch after it, a seal at its end, or a later segment. Of a *dead* one
(nobody holds the writer's lock) the last sound batch may be taken too, but only after we have synced it ourselves: it
may never have left the memory of this machine, and the database must not hold what the disk can still lose.

The first place where nothing sound continues the journal is its end if nothing sound follows: a torn tail, in which
nothing was acknowledged. Else it is damage: the bytes are copied aside, the range is returned as `Lost`, and reading
goes on at the next sound batch header. In a living journal such a place may be a write in progress, so conclusions
are drawn only from observations in this order: does the writer live, which segments exist, what stands here.
"""

from __future__ import annotations

from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from signalkeep.errors import SyncFailed
from signalkeep.journal.evidence import copy_aside
from signalkeep.journal.files import FileSystem
from signalkeep.journal.record import (
    VERSION,
    BatchHeader,
    Entry,
    SegmentHeader,
    UnknownVersion,
    decode_entries,
)
from signalkeep.journal.segments import WRITER_LOCK, Segment, find_journals, header_of, segment_seqs, segments
from signalkeep.limits import BATCH_ENTRIES_MAX, JOURNAL_BLOCK_BYTES

__all__ = ["Chunk", "JournalReader", "Lost", "find_journals", "segments"]

LOOKS_BEFORE_SEARCH: Final = 64  # at a place of a living journal where nothing sound stands; later at powers of two


class Chunk(msgspec.Struct):
    """Consecutive entries; the first has `first_seq`."""

    first_seq: int
    entries: list[Entry]


class Lost(msgspec.Struct):
    """Entries that cannot be read. `why`: corrupt, missing or undecodable; `evidence`: path of the bytes, or ""."""

    first_seq: int
    last_seq: int
    why: str
    evidence: str


class _Step(Enum):
    READY = auto()  # the next batch is
    MOVED = auto()  # the position has changed: look at the new place
    NOTHING = auto()  # nothing can be said from here without a fresh look, or nothing at all for now


class JournalReader:
    """Reads one journal from a position on. Holds no file open between calls.

    `alive`: the writer holds its lock. `durable_seq`: the highest number known to be durable. `finished`: the writer is
    dead and everything was returned. `filled`: the last read gave all that was asked for, so there may be more now.
    `refused`: why the journal cannot be read by this program although it is sound; it
    is then never finished and nothing of it is called lost, because a newer program can read it.
    """

    def __init__(self, fs: FileSystem, directory: Path, *, evidence_root: Path) -> None:
        self.directory = directory
        self.journal_id = UUID(directory.name)
        self.lanes = 1
        self.durable_seq = 0
        self.alive = True
        self.finished = False
        self.filled = False
        self.refused = ""
        self._fs = fs
        self._evidence_root = evidence_root
        self._failure: SyncFailed | None = None
        self._look()
        self._learn_lanes()
        self.seek(0)

    def seek(self, after_seq: int) -> None:
        """Go to where the next entries have numbers above `after_seq`."""
        self._after_seq = after_seq
        self._expected = after_seq + 1  # at the position: the first number that stands there or is lost
        self._segment: Segment | None = None
        self._offset = 0
        self._chain: int | None = None
        self._stalled = 0
        self._ready: list[tuple[Entry, int]] = []
        self._ready_seq = 0
        self.finished = False

    def exists(self) -> bool:
        """Whether there is anything to read; a journal has a segment from its first moment to its last."""
        return bool(segment_seqs(self._fs, self.directory))

    @property
    def place(self) -> tuple[int, int] | None:
        """First seq of the segment that reading has come to, and how many of its bytes lie behind it.

        Those bytes, and all segments before, never change any more. None: nothing was read.
        """
        return None if self._segment is None else (self._segment.first_seq, self._offset)

    def read(self, max_entries: int, max_bytes: int) -> list[Chunk | Lost]:
        """What is durable now and was not returned yet, at least one entry of it; [] if there is nothing now.

        Raises OSError if the disk cannot be asked; nothing is skipped by that: what was found before is returned first,
        and the next call meets the same place. Raises SyncFailed if a sync fails, and from then on always.
        """
        if self._failure is not None:
            raise self._failure
        found: list[Chunk | Lost] = []
        try:
            while max_entries > 0 and max_bytes > 0 and (self._ready or not self.finished):
                if not self._ready:
                    lost = self._advance()
                    if lost is not None:
                        found.append(lost)
                        max_entries -= 1
                    elif not self._ready:
                        break
                    continue
                chunk, taken_bytes = self._take(max_entries, max_bytes)
                found.append(chunk)
                max_entries -= len(chunk.entries)
                max_bytes -= taken_bytes
            self.filled = max_entries <= 0 or max_bytes <= 0
        except SyncFailed as failure:
            self._failure = failure
            raise
        except OSError:
            if not found:
                raise
        finally:
            if self._segment is not None:
                self._segment.close()
        return found

    def _take(self, max_entries: int, max_bytes: int) -> tuple[Chunk, int]:
        taken_bytes = count = 0
        for _, entry_bytes in self._ready[:max_entries]:
            if count and taken_bytes + entry_bytes > max_bytes:
                break
            taken_bytes += entry_bytes
            count += 1
        chunk = Chunk(self._ready_seq, [entry for entry, _ in self._ready[:count]])
        del self._ready[:count]
        self._ready_seq += count
        return chunk, taken_bytes

    def _advance(self) -> Lost | None:
        """Make the next batch ready, or say what is lost; neither if there is nothing now."""
        fresh = vanished = False
        while True:
            try:
                outcome = self._step()
            except FileNotFoundError:  # unlinked while we were reading it: what follows will show what is missing
                self._leave()
                self._look()
                if vanished:
                    return None
                vanished = True
                continue
            if isinstance(outcome, Lost):
                return outcome
            if outcome is _Step.READY or (outcome is _Step.NOTHING and (fresh or self.finished)):
                return None
            if outcome is _Step.NOTHING:
                self._look()
            fresh = outcome is _Step.NOTHING

    def _look(self) -> None:
        """Observe, in this order: whether the writer lives, which segments there are."""
        self.alive = self.alive and self._fs.locked(self.directory / WRITER_LOCK)
        self._segments = segment_seqs(self._fs, self.directory)
        if self._segments:
            self.durable_seq = max(self.durable_seq, self._segments[-1] - 1)

    def _learn_lanes(self) -> None:
        for first_seq in self._segments:
            with suppress(FileNotFoundError):  # unlinked since we looked: the next one says the same
                header = header_of(self._fs, self.directory, first_seq)
                if isinstance(header, SegmentHeader):
                    self.lanes = header.lanes
                    break

    def _step(self) -> _Step | Lost:
        """One look at the position, after the last `_look`."""
        segment = self._segment
        if segment is None:
            return self._choose_segment()
        following = next((first_seq for first_seq in self._segments if first_seq > segment.first_seq), None)
        if following == self._expected:
            return self._enter(following)
        if not isinstance(segment.header, SegmentHeader):
            return self._without_header(segment, following)
        here = self._batch_here(segment, following)
        if here is not None and here.count:
            vouched = self._vouched(segment, here, following)
            proven = vouched or following is not None
            if vouched is not False and (proven or not self.alive):
                step = self._consume(segment, here, proven=proven)
                if step is not None:
                    return step
        elif here is not None and following is None and self.alive:
            self._stalled = 0
            return _Step.NOTHING  # a seal: the writer has nothing to write
        return self._judge(segment, here, following)

    def _choose_segment(self) -> _Step | Lost:
        if not self._segments:
            self.finished = not self.alive
            return _Step.NOTHING
        first_seq = max((x for x in self._segments if x <= self._expected), default=self._segments[0])
        if first_seq <= self._expected:
            return self._enter(first_seq)
        lost = self._lose(first_seq - 1, "missing", "")
        self._expected = first_seq
        return lost or _Step.MOVED

    def _enter(self, first_seq: int) -> _Step:
        self._leave()
        segment = Segment(self._fs, self.directory, first_seq)
        self._segment = segment
        self._chain = segment.header.crc if isinstance(segment.header, SegmentHeader) else None
        self._offset = JOURNAL_BLOCK_BYTES
        self._expected = first_seq
        self._stalled = 0
        return _Step.MOVED

    def _batch_here(self, segment: Segment, following: int | None) -> BatchHeader | None:
        """The batch or seal at the position, if it continues what we have read."""
        here = segment.batch_at(self._offset)
        if here is None or here.first_seq != self._expected or self._chain not in (None, here.chain):
            return None
        return here if following is None or here.next_seq <= following else None

    def _vouched(self, segment: Segment, batch: BatchHeader, following: int | None) -> bool | None:
        """Whether what was written after the sync of a batch names this very batch; None if there is nothing yet.

        False: another batch was synced at this place, and the disk has lost it.
        """
        if batch.next_seq == following:
            header = header_of(self._fs, self.directory, following)
            return header.previous_chain == batch.crc if isinstance(header, SegmentHeader) else None
        after = segment.batch_at(batch.end)
        return after.chain == batch.crc if after is not None and after.first_seq == batch.next_seq else None

    def _consume(self, segment: Segment, batch: BatchHeader, *, proven: bool) -> _Step | Lost | None:
        """Take the batch at the position; None if its body is not sound."""
        entries: list[tuple[Entry, int]] | None = []
        if batch.next_seq - 1 > self._after_seq or not proven:
            body = segment.body(batch)
            if body is None:
                return None
            if not proven:
                segment.sync()
            entries = decode_entries(body, batch.count)
        lost = None
        if entries is None:
            lost = self._lose(batch.next_seq - 1, "undecodable", self._aside(segment, batch.offset, batch.end))
        else:
            self._ready_seq = max(batch.first_seq, self._after_seq + 1)
            self._ready = entries[self._ready_seq - batch.first_seq :]
        self._after_seq = max(self._after_seq, batch.next_seq - 1)
        self.durable_seq = max(self.durable_seq, batch.next_seq - 1)
        self._move(batch.end, batch.next_seq, batch.crc)
        return lost or (_Step.READY if self._ready else _Step.MOVED)

    def _judge(self, segment: Segment, here: BatchHeader | None, following: int | None) -> _Step | Lost:
        """Nothing can be taken here: is it the end, damage, or a write in progress?"""
        if self.alive and following is None:
            self._stalled += 1
            if self._stalled < LOOKS_BEFORE_SEARCH or self._stalled & (self._stalled - 1):
                return _Step.NOTHING
        later = segment.search(self._offset + JOURNAL_BLOCK_BYTES, self._expected)
        if later is not None:
            again = self._batch_here(segment, following)  # only now it is certain that no write is in progress here
            if again is not None and again.count and self._vouched(segment, again, following) is not False:
                step = self._consume(segment, again, proven=True)
                if step is not None:
                    return step
            lost = self._lose(later.first_seq - 1, "corrupt", self._aside(segment, self._offset, later.offset))
            self._move(later.offset, later.first_seq, None)
            return lost or _Step.MOVED
        if following is not None:
            start = self._offset if here is None or here.count else here.end
            return self._lose_rest(segment, start, following)
        self.finished = not self.alive
        return _Step.NOTHING

    def _without_header(self, segment: Segment, following: int | None) -> _Step | Lost:
        """A segment of which nothing can be believed."""
        if isinstance(segment.header, UnknownVersion):
            self.refused = f"{segment.path} has format {segment.header.version}, this program reads {VERSION}"
            return _Step.NOTHING
        segment.read_header()  # what the disk would not give a moment ago
        if isinstance(segment.header, SegmentHeader):
            self._chain = segment.header.crc
            return _Step.MOVED
        if following is not None:
            return self._lose_rest(segment, 0, following)
        if self.alive:
            return _Step.NOTHING
        last_seq = max(self._expected, _claimed_last_seq(segment))
        lost = self._lose(last_seq, "corrupt", self._aside(segment, 0, segment.used_end(0)))
        self.finished = True
        return lost or _Step.NOTHING

    def _lose_rest(self, segment: Segment, start: int, following: int) -> _Step | Lost:
        """Everything up to the next segment is lost: with bytes that are damaged, or with none."""
        end = segment.used_end(start)
        why = "corrupt" if end > start else "missing"
        lost = self._lose(following - 1, why, self._aside(segment, start, end))
        self._leave()
        self._expected = following
        return lost or _Step.MOVED

    def _leave(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _lose(self, last_seq: int, why: str, evidence: str) -> Lost | None:
        """What to return for a loss from the position to `last_seq`; None if nobody has asked for these entries."""
        first_seq = max(self._expected, self._after_seq + 1)
        if last_seq < first_seq:
            return None
        self._after_seq = last_seq
        self.durable_seq = max(self.durable_seq, last_seq)
        return Lost(first_seq, last_seq, why, evidence)

    def _aside(self, segment: Segment, start: int, end: int) -> str:
        return copy_aside(self._fs, segment, start, end, self._evidence_root) if end > start else ""

    def _move(self, offset: int, expected: int, chain: int | None) -> None:
        self._offset, self._expected, self._chain, self._stalled = offset, expected, chain, 0


def _claimed_last_seq(segment: Segment) -> int:
    """The last number in a segment whose salt is lost, going by what its batch headers say of themselves."""
    offset, seq, chain = JOURNAL_BLOCK_BYTES, segment.first_seq, None
    while True:
        batch = segment.batch_at(offset)
        if batch is None or batch.first_seq != seq or chain not in (None, batch.chain):
            return seq - 1
        if not 0 < batch.count <= BATCH_ENTRIES_MAX:
            return seq - 1
        offset, seq, chain = batch.end, batch.next_seq, batch.crc
