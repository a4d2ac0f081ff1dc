"""Along a recorded track: vehicles follow it in loops, each from another place on it.

A track whose ends lie apart is driven there and back. Where the recording stands still for long, the engine is off.
Promises: at the track's own times a vehicle is where the track says, to a centimetre; between them on the straight
line; speeds that the recording lacks follow from its places and times. Files are read in `track_files`. Pure.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Final, NamedTuple

from signalkeep.model import Signal
from signalkeep.simulate.coverage import Coverage
from signalkeep.simulate.receiver import EventCodes, Receiver, Truth
from signalkeep.simulate.roads import METRES_PER_DEGREE

CLOSED_M: Final = 250.0  # a track whose ends are no farther apart is a loop,
CLOSED_SHARE: Final = 0.2  # if it is much longer than that
PARKED_S: Final = 180.0
PARKED_M: Final = 60.0
CLOSING_KMH: Final = 30.0
SUPPLY_V: Final = (14.1, 12.6)
SPEED_KMH_MAX: Final = 0xFFFF  # the most that a unit reports


class TrackPoint(NamedTuple):
    """One place of a recording."""

    at_s: float  # from its beginning
    latitude: float
    longitude: float
    altitude_m: float
    speed_kmh: float | None = None
    course_deg: float | None = None


class Track:
    """A recording, ready to be driven. Shared by all vehicles; never changes."""

    def __init__(self, points: Sequence[TrackPoint]) -> None:
        assert len(points) > 1, "a track has two points at least"
        self.points = list(points)
        apart_m = metres_between(points[-1], points[0])
        way_m = sum(metres_between(before, after) for before, after in pairwise(points))
        self.is_loop = apart_m <= min(CLOSED_M, CLOSED_SHARE * way_m)
        if self.is_loop and apart_m > 0:
            self.points.append(points[0]._replace(at_s=points[-1].at_s + max(1.0, apart_m / CLOSING_KMH * 3.6)))
        self.distances_m = [0.0]
        for before, after in pairwise(self.points):
            self.distances_m.append(self.distances_m[-1] + metres_between(before, after))
        self.at_s = [point.at_s for point in self.points]
        self.length_s = self.at_s[-1]
        self.period_s = self.length_s if self.is_loop else 2 * self.length_s
        back_s = [] if self.is_loop else [2 * self.length_s - at_s for at_s in self.at_s[-2:0:-1]]
        self.times_s = [*self.at_s[: -1 if self.is_loop else None], *back_s]  # of one whole period

    def at(self, time_s: float) -> tuple[int, float, bool]:
        """Which stretch, how much of it is covered (0 to 1), and whether on the way back."""
        within_s = time_s % self.period_s
        is_back = within_s > self.length_s
        if is_back:
            within_s = self.period_s - within_s
        index = min(max(0, bisect_right(self.at_s, within_s) - 1), len(self.points) - 2)
        begin_s, end_s = self.at_s[index], self.at_s[index + 1]
        return index, (within_s - begin_s) / (end_s - begin_s), is_back

    def distance_m(self, time_s: float) -> float:
        """Covered since the beginning, over all laps."""
        laps = time_s // self.period_s
        index, part, is_back = self.at(time_s)
        begin_m, end_m = self.distances_m[index], self.distances_m[index + 1]
        total_m, along_m = self.distances_m[-1], begin_m + (end_m - begin_m) * part
        return laps * total_m * (1 if self.is_loop else 2) + (2 * total_m - along_m if is_back else along_m)

    def speed_kmh(self, index: int, part: float) -> float:
        """As recorded, in between in proportion; else that of the stretch."""
        before, after = self.points[index], self.points[index + 1]
        if before.speed_kmh is not None and after.speed_kmh is not None:
            return before.speed_kmh + (after.speed_kmh - before.speed_kmh) * part
        return (self.distances_m[index + 1] - self.distances_m[index]) / (after.at_s - before.at_s) * 3.6

    def course_deg(self, index: int, part: float) -> float:
        """As recorded at the nearer point; else that of the stretch."""
        before, after = self.points[index], self.points[index + 1]
        recorded = before.course_deg if part < 0.5 else after.course_deg
        if recorded is not None:
            return recorded
        while index > 0 and self.distances_m[index + 1] == self.distances_m[index]:  # it stands: as it came
            index -= 1
            before, after = self.points[index], self.points[index + 1]
        east = (after.longitude - before.longitude) * math.cos(math.radians(before.latitude))
        return math.degrees(math.atan2(east, after.latitude - before.latitude)) % 360

    def is_parked(self, index: int) -> bool:
        """Whether the recording stands still for long on this stretch."""
        lasts_s = self.at_s[index + 1] - self.at_s[index]
        return lasts_s >= PARKED_S and self.distances_m[index + 1] - self.distances_m[index] <= PARKED_M


class TrackPart(NamedTuple):
    """One vehicle's way along a track; also the schedule of its records, where those come at the track's times."""

    track: Track
    share: float  # of the track's period, where it begins
    speed_factor: float
    as_recorded: bool

    def due_s(self, order: int) -> float:
        first, times_s = self._first, self.track.times_s
        laps, index = divmod(first + order - 1, len(times_s))
        passed_s = laps * self.track.period_s + times_s[index] - times_s[first]
        return self._offset_s + passed_s / self.speed_factor

    def track_s(self, elapsed_s: float) -> float:
        """Where in time a vehicle is on the track."""
        begin_s = self.track.times_s[self._first] if self.as_recorded else self.share * self.track.period_s
        return begin_s + max(0.0, elapsed_s - self._offset_s) * self.speed_factor

    @property
    def _first(self) -> int:
        return int(self.share * len(self.track.times_s))

    @property
    def _offset_s(self) -> float:
        """So that vehicles do not all speak at once."""
        if not self.as_recorded:
            return 0.0
        return self.share * self.track.period_s / len(self.track.times_s) / self.speed_factor


class TrackDrive:
    """One vehicle on a track; the same interface as `Drive`."""

    __slots__ = ("_coverage", "_odometer_m", "_part", "_receiver", "_start", "truth")

    def __init__(
        self, part: TrackPart, source: random.Random, start: datetime, codes: EventCodes, coverage: Coverage
    ) -> None:
        self._part = part
        self._start = start
        self._coverage = coverage
        self._odometer_m = source.uniform(1e6, 2e8)
        index, _, _ = part.track.at(part.track_s(0.0))
        self._receiver = Receiver(source, codes, engine_on=not part.track.is_parked(index))
        self.truth: Truth | None = None

    def step(self, at: datetime) -> Signal:
        """The signal at `at`, which must be later than every earlier step."""
        track, part = self._part.track, self._part
        elapsed_s = (at - self._start).total_seconds()
        time_s = part.track_s(elapsed_s)
        index, share, is_back = track.at(time_s)
        before, after = track.points[index], track.points[index + 1]
        engine_on = not track.is_parked(index)
        speed_kmh = track.speed_kmh(index, share) * part.speed_factor if engine_on else 0.0
        self.truth = Truth(
            at=at,
            latitude=before.latitude + (after.latitude - before.latitude) * share,
            longitude=before.longitude + (after.longitude - before.longitude) * share,
            altitude_m=before.altitude_m + (after.altitude_m - before.altitude_m) * share,
            speed_kmh=min(speed_kmh, SPEED_KMH_MAX),
            course_deg=(track.course_deg(index, share) + (180 if is_back else 0)) % 360,
            odometer_m=self._odometer_m + track.distance_m(time_s) - track.distance_m(part.track_s(0.0)),
            engine_on=engine_on,
            supply_v=SUPPLY_V[0 if engine_on else 1],
            gap=self._coverage.gap(elapsed_s),
            may_lose_fix=self._coverage.has_gaps,
        )
        return self._receiver.report(self.truth)


def metres_between(one: TrackPoint, other: TrackPoint) -> float:
    """Great enough for tracks: on a plane."""
    north = (other.latitude - one.latitude) * METRES_PER_DEGREE
    middle = math.radians((one.latitude + other.latitude) / 2)
    return math.hypot(north, (other.longitude - one.longitude) * METRES_PER_DEGREE * math.cos(middle))
