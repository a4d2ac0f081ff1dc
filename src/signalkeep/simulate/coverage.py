"""What stands between a unit and the world: places without network, and a clock that is not quite right.

Promises: both follow from the seed, the device number and the time since the fleet's start alone, so that a unit can
ask what was, and whoever makes its records lazily gets the same answers. Asking costs next to nothing. Never reads a
clock.
"""

from __future__ import annotations

import math
import random
import zlib
from typing import Final, NamedTuple

from signalkeep.simulate.roads import mixed, share
from signalkeep.simulate.scenarios import Habits, weighed

SHORT_GAP_S: Final = 90.0  # without sky, a moving vehicle has no fix in a gap that is no longer
DRIFT_S_PER_DAY: Final = 8.0  # standard deviation over the units
DRIFT_S_PER_DAY_MAX: Final = 30.0
SET_EVERY_S: Final = (3600.0, 21600.0)  # the receiver sets the clock from the satellites
WRONG_BY_S: Final = (3600.0, 7200.0, 18000.0, 25200.0, 7168 * 86400.0)  # zones, and a week counter that turned over


class Gap(NamedTuple):
    """A time without network, in seconds from the fleet's start."""

    start_s: float
    end_s: float
    open_sky: bool

    @property
    def is_short(self) -> bool:
        return self.end_s - self.start_s <= SHORT_GAP_S


NO_GAP: Final = Gap(math.inf, math.inf, True)


class Coverage:
    """The gaps of one unit, looked at in the order of time; going back is not possible."""

    __slots__ = ("_gap", "_habits", "_number", "_seed", "has_gaps")

    def __init__(self, name: str, habits: Habits, *, has_gaps: bool = True) -> None:
        self._seed = zlib.crc32(name.encode())
        self._habits = habits
        self._number = 0
        self.has_gaps = has_gaps
        self._gap = self._after(0.0) if has_gaps else NO_GAP

    def gap(self, elapsed_s: float) -> Gap | None:
        """The gap that a moment falls into."""
        while elapsed_s >= self._gap.end_s:
            self._gap = self._after(self._gap.end_s)
        return self._gap if elapsed_s >= self._gap.start_s else None

    def _after(self, end_s: float) -> Gap:
        self._number += 1
        bits = mixed(self._seed, self._number, 1)
        kind = weighed(tuple((kind.weight, kind) for kind in self._habits.gap_kinds), share(bits))
        start_s = end_s - self._habits.gap_every_s * math.log(1 - share(bits >> 16))  # as chance has it
        least_s, most_s = kind.lasts_s
        lasts_s = least_s + (most_s - least_s) * share(mixed(self._seed, self._number, 2))
        return Gap(start_s, start_s + lasts_s, kind.open_sky)


class DeviceClock(NamedTuple):
    """A clock that drifts until the receiver sets it: the error grows, and jumps back to 0 (or to what is wrong)."""

    wrong_s: float  # by setting, always
    drift_s_per_day: float
    set_every_s: float
    first_set_s: float

    def error_s(self, elapsed_s: float) -> float:
        """How far the clock is ahead."""
        since_set_s = (elapsed_s - self.first_set_s) % self.set_every_s
        return self.wrong_s + self.drift_s_per_day / 86400 * since_set_s

    @property
    def jump_s(self) -> float:
        """How far it jumps back when it is set; below 0 it jumps forward."""
        return self.drift_s_per_day / 86400 * self.set_every_s


def clock_of(source: random.Random, *, drifts: bool, wrong_share: float) -> DeviceClock:
    """A unit's clock. A wrong one is behind: a clock that is far ahead is a fault, to be planted on purpose."""
    drift = max(-DRIFT_S_PER_DAY_MAX, min(DRIFT_S_PER_DAY_MAX, source.gauss(0.0, DRIFT_S_PER_DAY)))
    set_every_s = source.uniform(*SET_EVERY_S)
    first_set_s = source.uniform(0.0, set_every_s)
    wrong_s = -source.choice(WRONG_BY_S) if source.random() < wrong_share else 0.0
    return DeviceClock(wrong_s, drift if drifts else 0.0, set_every_s, first_set_s)
