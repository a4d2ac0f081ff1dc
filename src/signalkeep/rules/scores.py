"""What a day was worth: per dimension how much was looked at, and how much of that was good. Pure.

    completeness   reports that were due while the vehicle was used; those that came, with what they must have
    uniqueness     signals and re-sends; signals that no rule of uniqueness marked
    the others     signals of which a rule of the dimension could say anything; those that none of them marked

Rules of severity `info` cost nothing. Where less than ENOUGH could be looked at, there is no score: `unknown` is an
answer. The overall score leans on the worst dimension, so that one that is broken shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Final

import msgspec

from signalkeep.rules.contract import Dimension, Severity
from signalkeep.rules.days import DayJudged, DeviceDay
from signalkeep.rules.judge import asked_bit
from signalkeep.rules.reading import Reading

ENOUGH: Final = 20
WORST_WEIGHT: Final = 0.6
MEAN_WEIGHT: Final = 0.4
IN_USE_KMH: Final = 5.0
INTERVALS_MAX: Final = 2880  # of one gap; more are no longer one report each


class Share(msgspec.Struct, frozen=True):
    """So many looked at, so many of them good."""

    of: int = 0
    good: int = 0

    @property
    def value(self) -> float | None:
        """0 to 1; None: too little to say."""
        return self.good / self.of if self.of >= ENOUGH else None


def shares(day: DeviceDay, judged: DayJudged) -> dict[Dimension, Share]:
    """The numerators and denominators of a day."""
    found: dict[Dimension, Share] = {}
    for dimension in Dimension:
        bit = asked_bit(dimension)
        of = good = 0
        for one in judged.judged:
            bad = any(hit.rule.dimension is dimension and hit.rule.severity is not Severity.INFO for hit in one.hits)
            if bad or one.asked & bit:
                of += 1
                good += 0 if bad else 1
        found[dimension] = Share(of, good)
    unique = found[Dimension.UNIQUENESS]
    signals = len(day.readings)
    found[Dimension.UNIQUENESS] = Share(signals + day.duplicates, signals - (unique.of - unique.good))
    complete = found[Dimension.COMPLETENESS]
    due, came = reports_due(day)
    found[Dimension.COMPLETENESS] = Share(due, max(0, came - (complete.of - complete.good))) if due else Share()
    return found


def reports_due(day: DeviceDay) -> tuple[int, int]:
    """Reports that were due while the vehicle was used, and how many of them came.

    The interval is the one that is expected of the device, else the day's usual one while it is used.
    """
    timed = [(reading.time_s, reading) for reading in day.readings if reading.time_s is not None]
    steps_s = [after_s - before_s for (before_s, before), (after_s, _) in pairwise(timed) if _in_use(before)]
    if not steps_s:
        return 0, 0
    interval_s = day.expected_interval_s or (median(steps_s) if len(steps_s) >= ENOUGH else 0.0)
    if interval_s <= 0:
        return 0, 0
    due = sum(min(INTERVALS_MAX, max(1, round(step_s / interval_s))) for step_s in steps_s)
    return due, len(steps_s)


def _in_use(reading: Reading) -> bool:
    ignition = reading.truth("ignition")
    if ignition is None:
        return (reading.speed_kmh or 0.0) > IN_USE_KMH
    return ignition


def overall(values: Mapping[Dimension, Share]) -> float | None:
    """0 to 1 over the dimensions that are known; None: none is."""
    known: Sequence[float] = [share.value for share in values.values() if share.value is not None]
    return WORST_WEIGHT * min(known) + MEAN_WEIGHT * sum(known) / len(known) if known else None
