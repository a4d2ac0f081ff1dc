"""Several readers of one journal see what each would see alone, in whatever order they read."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalkeep.journal import shelf as module
from signalkeep.journal.reader import Chunk, Lost
from signalkeep.journal.record import FrameEntry
from signalkeep.journal.shelf import Shelf, ShelfReader, last_seq


class Journal:
    """What stands in a journal that grows: chunks and losses, one after the other."""

    def __init__(self, lengths: list[int]) -> None:
        self.items: list[Chunk | Lost] = []
        self.ended = False
        self.readings = 0
        seq = 1
        for length in lengths:
            if length < 0:
                self.items.append(Lost(seq, seq - length - 1, "corrupt", "/evidence"))
            else:
                entries = [FrameEntry(n, "json", str(n), "", {}, b"x" * 50) for n in range(seq, seq + length)]
                self.items.append(Chunk(seq, list(entries)))
            seq = last_seq(self.items[-1]) + 1
        self.visible = 0

    def flat(self, after_seq: int = 0) -> list[int]:
        """Sequence numbers; those that are lost as negative ones."""
        return [n for n in flat(self.items) if abs(n) > after_seq]


def flat(items: list[Chunk | Lost]) -> list[int]:
    found: list[int] = []
    for item in items:
        if isinstance(item, Lost):
            found += [-n for n in range(item.first_seq, item.last_seq + 1)]
        else:
            assert [entry.received_at_us for entry in item.entries if isinstance(entry, FrameEntry)] == list(
                range(item.first_seq, item.first_seq + len(item.entries))
            )
            found += range(item.first_seq, item.first_seq + len(item.entries))
    return found


class Reader:
    """As a `JournalReader`: at most one item at a time, of those that are visible."""

    lanes, refused, journal_id = 64, "", UUID(int=1)

    def __init__(self, journal: Journal) -> None:
        self._journal, self._seq = journal, 0
        self.filled = self.finished = False
        self.durable_seq = 0

    def seek(self, after_seq: int) -> None:
        self._seq, self.finished = after_seq, False

    def read(self, max_entries: int, max_bytes: int) -> list[Chunk | Lost]:
        del max_bytes
        self._journal.readings += 1
        for item in self._journal.items[: self._journal.visible]:
            if last_seq(item) > self._seq:
                rest = module._behind(item, self._seq)
                assert rest is not None
                if isinstance(rest, Chunk):
                    rest = Chunk(rest.first_seq, rest.entries[:max_entries])
                self._seq = last_seq(rest)
                self.durable_seq = max(self.durable_seq, self._seq)
                self.filled = True
                return [rest]
        self.filled = False
        self.finished = self._journal.ended and self._journal.visible == len(self._journal.items)
        return []


def readers(journal: Journal, starts: list[int]) -> list[ShelfReader]:
    def make() -> Any:
        return Reader(journal)

    shelf = Shelf(make)
    made = [ShelfReader(shelf) for _ in starts]
    for reader, start in zip(made, starts, strict=True):
        reader.seek(start)
    return made


@given(st.data())
def test_each_sees_what_it_would_see_alone(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(-3, 9).filter(bool), min_size=1, max_size=12))
    journal = Journal(lengths)
    highest = last_seq(journal.items[-1])
    starts = data.draw(st.lists(st.integers(0, highest), min_size=1, max_size=4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "JOURNAL_SHELF_BYTES", data.draw(st.sampled_from([1, 500, 10_000])))
        made = readers(journal, starts)
        seen: list[list[int]] = [[] for _ in starts]
        for _ in range(data.draw(st.integers(0, 60))):
            who = data.draw(st.integers(0, len(starts) - 1))
            step = data.draw(st.sampled_from(["read", "read", "read", "more", "back"]))
            if step == "more":
                journal.visible = min(journal.visible + 1, len(journal.items))
            elif step == "back":
                starts[who] = data.draw(st.integers(0, highest))
                made[who].seek(starts[who])
                seen[who] = []
            else:
                seen[who] += flat(made[who].read(data.draw(st.integers(1, 20)), 1 << 20))
        journal.visible, journal.ended = len(journal.items), True
        for reader, start, before in zip(made, starts, seen, strict=True):
            for _ in range(200):
                before.extend(flat(reader.read(5, 1 << 20)))
                if reader.finished:
                    break
            assert reader.finished
            assert before == journal.flat(start)


def test_who_is_as_far_as_another_reads_nothing_again() -> None:
    journal = Journal([5] * 20)
    journal.visible = 20
    made = readers(journal, [0] * 8)
    for _ in range(20):
        for reader in made:
            assert len(flat(reader.read(5, 1 << 20))) == 5
    assert journal.readings == 20
    assert made[0].durable_seq == 100
