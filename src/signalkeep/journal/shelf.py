"""One reading of a journal for several readers that are about as far as each other.

What was read last stays on the shelf for a while, decoded: who comes to the same place soon after takes it from there.
Who is far behind, or ahead, reads for itself until it comes to what is on the shelf. Each reader sees what a
`JournalReader` of its own would give.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from uuid import UUID

from signalkeep.journal.reader import Chunk, JournalReader, Lost
from signalkeep.journal.record import FrameEntry
from signalkeep.limits import JOURNAL_SHELF_BYTES

ENTRY_BYTES = 80  # of an entry without its raw bytes, about


class Shelf:
    """What was read last: everything in (start_seq, end_seq]."""

    def __init__(self, make_reader: Callable[[], JournalReader]) -> None:
        self.make_reader = make_reader
        self.reader = make_reader()
        self.start_seq = self.end_seq = -1
        self._items: list[Chunk | Lost] = []
        self._first_seqs: list[int] = []
        self._sizes: list[int] = []
        self._bytes = 0

    def covers(self, after_seq: int) -> bool:
        """Whether what follows is here, or is what is read next. The first to ask decides where it begins."""
        if self.end_seq < 0:
            self.reader.seek(after_seq)
            self.start_seq = self.end_seq = after_seq
        return self.start_seq <= after_seq <= self.end_seq

    def read(self, after_seq: int, max_entries: int, max_bytes: int) -> list[Chunk | Lost]:
        """What follows a place that it covers; read from the journal if it is not here. Raises what reading raises."""
        if after_seq == self.end_seq:
            for item in self.reader.read(max_entries, max_bytes):
                self._put(item)
        found: list[Chunk | Lost] = []
        for number in range(max(0, bisect_right(self._first_seqs, after_seq + 1) - 1), len(self._items)):
            rest = _behind(self._items[number], after_seq)
            if rest is not None:
                found.append(rest)
                max_entries -= len(rest.entries) if isinstance(rest, Chunk) else 1
                max_bytes -= self._sizes[number]
            if max_entries <= 0 or max_bytes <= 0:
                break
        self._tidy()
        return found

    def _put(self, item: Chunk | Lost) -> None:
        self._items.append(item)
        self._first_seqs.append(item.first_seq)
        self._sizes.append(_size(item))
        self._bytes += self._sizes[-1]
        self.end_seq = last_seq(item)

    def _tidy(self) -> None:
        gone = 0
        while self._bytes > JOURNAL_SHELF_BYTES and gone < len(self._items) - 1:
            self._bytes -= self._sizes[gone]
            self.start_seq = last_seq(self._items[gone])
            gone += 1
        del self._items[:gone], self._first_seqs[:gone], self._sizes[:gone]


class ShelfReader:
    """A reader of a shelf; the attributes are those of a `JournalReader`."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._alone: JournalReader | None = None  # while the shelf does not have our place
        self._seq = 0
        self.filled = False

    @property
    def journal_id(self) -> UUID:
        return self._shelf.reader.journal_id

    @property
    def lanes(self) -> int:
        return self._shelf.reader.lanes

    @property
    def refused(self) -> str:
        return self._shelf.reader.refused or (self._alone.refused if self._alone else "")

    @property
    def durable_seq(self) -> int:
        return max(self._shelf.reader.durable_seq, self._alone.durable_seq if self._alone else 0)

    @property
    def finished(self) -> bool:
        if self._alone is not None:
            return self._alone.finished
        return self._shelf.reader.finished and self._seq == self._shelf.end_seq

    def seek(self, after_seq: int) -> None:
        """Go to where the next entries have numbers above `after_seq`."""
        self._alone = None
        self._seq = after_seq

    def read(self, max_entries: int, max_bytes: int) -> list[Chunk | Lost]:
        """As `JournalReader.read`; a little more than `max_entries` may come."""
        if self._shelf.covers(self._seq):
            self._alone = None
            found = self._shelf.read(self._seq, max_entries, max_bytes)
        else:
            if self._alone is None:
                self._alone = self._shelf.make_reader()
                self._alone.seek(self._seq)
            found = self._alone.read(max_entries, max_bytes)
        if found:
            self._seq = last_seq(found[-1])
        if self._alone is not None:
            self.filled = self._alone.filled
        else:
            self.filled = self._seq < self._shelf.end_seq or (bool(found) and self._shelf.reader.filled)
        return found


def last_seq(item: Chunk | Lost) -> int:
    """The last sequence number that an item speaks of."""
    return item.last_seq if isinstance(item, Lost) else item.first_seq + len(item.entries) - 1


def _behind(item: Chunk | Lost, after_seq: int) -> Chunk | Lost | None:
    """What of an item lies behind a place."""
    if item.first_seq > after_seq:
        return item
    if last_seq(item) <= after_seq:
        return None
    if isinstance(item, Lost):
        return Lost(after_seq + 1, item.last_seq, item.why, item.evidence)
    return Chunk(after_seq + 1, item.entries[after_seq + 1 - item.first_seq :])


def _size(item: Chunk | Lost) -> int:
    if isinstance(item, Lost):
        return ENTRY_BYTES
    return sum(ENTRY_BYTES + (len(e.raw) if isinstance(e, FrameEntry) else 0) for e in item.entries)
