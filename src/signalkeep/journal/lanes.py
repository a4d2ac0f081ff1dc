"""Lanes: a journal's frames are split by device, and each lane has a cursor of its own.

Within a lane frames are ingested in order, so what the database has of a lane is always a prefix of it. `fit` says
what a worker does whose range begins elsewhere than at the cursor: it cuts what is already there and never writes
beyond a hole. Pure.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from hashlib import blake2b

from signalkeep.journal.record import Entry, TallyEntry


class Fit(Enum):
    """How a range (first .. last) lies to a cursor."""

    NEW = "begins at the cursor, or overlaps it: write what lies beyond the cursor"
    DONE = "ends at or before the cursor: nothing to write"
    HOLE = "begins beyond the cursor: writing it would skip entries"


@lru_cache(maxsize=100_000)
def lane_of(device_number: str, lanes: int) -> int:
    """The lane of a device; the same on every machine and for ever."""
    if lanes == 1:
        return 0
    return int.from_bytes(blake2b(device_number.encode(), digest_size=8).digest(), "big") % lanes


def lane_of_entry(entry: Entry, lanes: int) -> int:
    """What speaks of a device goes where its frames go; tallies of refusals go to lane 0."""
    return 0 if isinstance(entry, TallyEntry) else lane_of(entry.device_number, lanes)


def lanes_of(queue: int, queues: int, lanes: int) -> range:
    """The group of lanes of a journal that shares a queue; without lanes of its own, a queue has none."""
    return range(queue, lanes, queues)


def fit(first_seq: int, last_seq: int, cursor: int) -> Fit:
    """How the entries first_seq..last_seq lie to a cursor that has everything up to itself."""
    assert first_seq <= last_seq
    if last_seq <= cursor:
        return Fit.DONE
    return Fit.HOLE if first_seq > cursor + 1 else Fit.NEW
