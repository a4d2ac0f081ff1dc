"""The records of one unit: when each is due, and what it says. Made when they are wanted, in their order.

Promises: record number k of a unit depends on the plan, the seed and the start alone, never on when it is made or
sent; no two records of a unit have the same time, also where its clock jumps back. Never reads a clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from signalkeep.model import Signal
from signalkeep.simulate.coverage import DeviceClock
from signalkeep.simulate.receiver import Truth

MILLISECOND: Final = timedelta(milliseconds=1)


class Vehicle(Protocol):
    """What moves and reports: a drive on made-up roads, or along a track."""

    truth: Truth | None

    def step(self, at: datetime) -> Signal:
        """The signal at `at`, later than every earlier step; `truth` is then what was so."""
        ...


class Schedule(Protocol):
    """When records are due."""

    def due_s(self, order: int) -> float:
        """In seconds from the fleet's start; orders count from 1, times never fall."""
        ...


class Records(Protocol):
    """What a unit has to say."""

    def make(self, due_s: float) -> Signal:
        """The next record, due at this time."""
        ...


class Evenly(NamedTuple):
    """At a fixed interval."""

    offset_s: float  # of the first record, so that a fleet starts staggered
    interval_s: float

    def due_s(self, order: int) -> float:
        return self.offset_s + (order - 1) * self.interval_s


class Recorder:
    """Makes a unit's signals. `wire_time` is what its own clock says, `truth.at` of the vehicle is when it was."""

    __slots__ = ("_clock", "_last_ms", "_make_vehicle", "_newest_ms", "_recent_ms", "_start", "vehicle")

    def __init__(self, make_vehicle: Callable[[], Vehicle], clock: DeviceClock, start: datetime) -> None:
        self._make_vehicle = make_vehicle
        self.vehicle: Vehicle | None = None  # made with the first record: a large fleet starts at once
        self._clock = clock
        self._start = start
        self._last_ms = -1  # true times, from the start
        self._newest_ms: int | None = None  # the latest that the unit's own clock ever said
        self._recent_ms: deque[int] = deque()  # what it said, as far as it can jump back

    def make(self, due_s: float) -> Signal:
        """The next record."""
        if self.vehicle is None:
            self.vehicle = self._make_vehicle()
        self._last_ms = max(round(due_s * 1000), self._last_ms + 1)
        signal = self.vehicle.step(self._start + self._last_ms * MILLISECOND)
        said_ms = self._unique(self._last_ms + round(self._clock.error_s(self._last_ms / 1000) * 1000))
        if said_ms != self._last_ms:
            signal.wire_time = signal.device_time = self._start + said_ms * MILLISECOND
        return signal

    def _unique(self, said_ms: int) -> int:
        newest_ms, recent_ms = self._newest_ms, self._recent_ms
        if newest_ms is not None and said_ms <= newest_ms:
            if self._clock.jump_s > 0:
                while said_ms in recent_ms:
                    said_ms += 1
            else:
                said_ms = newest_ms + 1
        self._newest_ms = said_ms if newest_ms is None else max(said_ms, newest_ms)
        if self._clock.jump_s > 0:
            recent_ms.append(said_ms)
            earliest_ms = self._last_ms + self._clock.wrong_s * 1000
            while recent_ms and recent_ms[0] < earliest_ms:
                recent_ms.popleft()
        return said_ms
