"""How much is durable and not in the database yet, over all journals on this disk, and how old the oldest of it is.

How far a living journal is comes from its gateway, how far a dead one is from its files, once. What the database has
comes from the database itself, and from ingest in between. If neither has said so, the lag is unknown, not zero.
Blocking: it runs in a thread. It changes no journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.journal.files import FileSystem
from signalkeep.journal.reader import Chunk, JournalReader, find_journals, segments
from signalkeep.journal.record import Entry, FrameEntry
from signalkeep.limits import INGEST_BATCH_BYTES_MAX, INGEST_BATCH_FRAMES_MAX
from signalkeep.monitor.picture import JournalFacts
from signalkeep.vitals import GatewayNumbers, IngestNumbers, RelayNumbers, Vitals

MICROSECONDS: Final = 1_000_000


class JournalWatch:
    """Remembers between looks what cannot change: how far dead journals are, and when an entry was received."""

    def __init__(self, settings: Settings, fs: FileSystem, clock: Clock) -> None:
        self._root = settings.journal_root
        self._evidence_root = settings.evidence_root
        self._fs = fs
        self._clock = clock
        self._ended: dict[str, int] = {}
        self._received: dict[str, tuple[int, float | None]] = {}  # of the first entry behind a cursor

    def look(self, vitals: Iterable[Vitals], cursors: Mapping[str, int] | None) -> JournalFacts:
        """Raises OSError if the disk cannot be asked."""
        driven: dict[str, int] = {}
        written: dict[str, int] = {}
        for one in vitals:
            if isinstance(one.numbers, GatewayNumbers):
                written[one.numbers.journal] = one.numbers.durable_seq
            elif isinstance(one.numbers, IngestNumbers | RelayNumbers):
                driven |= one.numbers.positions
        directories = find_journals(self._fs, self._root)
        sizes = [size for directory in directories for _, _, size in segments(self._fs, directory)]
        durable: dict[str, int] = {}
        lags: list[int | None] = []
        ages: list[float] = []
        for directory in directories:
            name = directory.name
            cursor = _cursor(name, driven, cursors)
            durable[name] = written[name] if name in written else self._durable(directory, cursor or 0)
            lags.append(None if cursor is None else max(0, durable[name] - cursor))
            if lags[-1]:
                ages.append(self._age_s(directory, cursor or 0))
        self._forget(durable)
        known = [lag for lag in lags if lag is not None]
        complete = len(known) == len(lags)
        return JournalFacts(
            journals=len(directories),
            segments=len(sizes),
            used_bytes=sum(sizes),
            free_bytes=self._fs.free_bytes(self._root),
            durable_entries=sum(durable.values()),
            lag_entries=sum(known) if complete else None,
            lag_max_entries=max(known, default=0) if complete else None,
            oldest_age_s=max(ages, default=0.0) if complete else None,
        )

    def _durable(self, directory: Path, cursor: int) -> int:
        """Of a journal whose gateway says nothing: dead, or not yet beating."""
        if directory.name in self._ended:
            return self._ended[directory.name]
        reader = self._reader(directory)
        files = segments(self._fs, directory)
        reader.seek(max(files[-1][0] - 1 if files else 0, cursor))
        while reader.read(INGEST_BATCH_FRAMES_MAX, INGEST_BATCH_BYTES_MAX):
            pass
        if reader.finished:
            self._ended[directory.name] = reader.durable_seq
        return reader.durable_seq

    def _age_s(self, directory: Path, cursor: int) -> float:
        """Of the first entry behind the cursor; 0 while it cannot be read."""
        seen = self._received.get(directory.name)
        if seen is None or seen[0] != cursor or seen[1] is None:
            reader = self._reader(directory)
            reader.seek(cursor)
            first = next(iter(reader.read(1, 1)), None)
            seen = (cursor, _received_s(first.entries[0]) if isinstance(first, Chunk) else None)
            self._received[directory.name] = seen
        return 0.0 if seen[1] is None else max(0.0, self._clock.now().timestamp() - seen[1])

    def _reader(self, directory: Path) -> JournalReader:
        return JournalReader(self._fs, directory, evidence_root=self._evidence_root)

    def _forget(self, present: Mapping[str, int]) -> None:
        self._ended = {name: seq for name, seq in self._ended.items() if name in present}
        self._received = {name: seen for name, seen in self._received.items() if name in present}


def _cursor(name: str, driven: Mapping[str, int], cursors: Mapping[str, int] | None) -> int | None:
    """Up to where the database has a journal; one that it does not name is new to it."""
    if cursors is None:
        return driven.get(name)
    return max(cursors.get(name, 0), driven.get(name, 0))


def _received_s(entry: Entry) -> float:
    return (entry.received_at_us if isinstance(entry, FrameEntry) else entry.at_us) / MICROSECONDS
