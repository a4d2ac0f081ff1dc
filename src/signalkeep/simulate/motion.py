"""How a vehicle moves along a route: within limits of speed, acceleration and braking, slow in bends, exact at stops.

Time goes in ticks of one second, whatever the times at which somebody looks. Promises: a stop is reached with the
vehicle standing exactly there; a bend is taken no faster than its radius allows; the distance covered is the mean of
the speeds times a second, but for the last fraction of a metre before a stop. Pure: the route is handed in.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from signalkeep.simulate.roads import Waypoint

SIDEWAYS_MS2: Final = 2.4  # what drivers put up with in a bend
BEND_SPEED_MIN_MS: Final = 2.5
LOOK_AHEAD_M: Final = 40.0  # beyond the way that braking takes
AT_STOP_M: Final = 0.1  # more would be a jolt: a stop from walking speed within a second
TINY_M: Final = 0.01


class Stretch(NamedTuple):
    """A straight piece of the way, to a waypoint."""

    x_m: float
    y_m: float
    length_m: float
    course_rad: float  # from north, clockwise
    limit_ms: float
    pass_ms: float  # speed at its end: that of the bend there, 0 at a stop
    wait_s: float  # at its end


class Mover:
    """Place, speed and way of one vehicle. `follow` a route, then `tick` until it `is_there`."""

    __slots__ = (
        "_known_m", "_last", "_left_m", "_route", "_stretches", "course_rad", "odometer_m", "speed_ms", "x_m", "y_m",
    )  # fmt: skip

    def __init__(self, x_m: float, y_m: float, odometer_m: float) -> None:
        self.x_m, self.y_m = x_m, y_m
        self.odometer_m = odometer_m
        self.course_rad = 0.0
        self.speed_ms = 0.0
        self._route: Iterator[Waypoint] | None = None
        self._stretches: deque[Stretch] = deque()
        self._left_m = 0.0  # of the first stretch
        self._known_m = 0.0  # of all stretches together
        self._last: tuple[Waypoint, float, float] | None = None  # the point behind the last stretch: length and course

    def follow(self, route: Iterator[Waypoint]) -> None:
        """Take a way that begins here."""
        assert self.is_there
        self._route = route
        self._left_m = self._known_m = 0.0
        self._last = None

    @property
    def is_there(self) -> bool:
        """There is no way left."""
        return self._route is None and not self._stretches and self._last is None

    def tick(self, pace: float, limit_ms: float, acceleration_ms2: float, braking_ms2: float) -> float:
        """One second. `pace`: the driver's share of the limits. How long to wait at the place reached, in seconds."""
        allowed_ms = self._allowed_ms(pace, limit_ms, braking_ms2)
        before_ms = self.speed_ms
        after_ms = min(allowed_ms, before_ms + acceleration_ms2)
        after_ms = max(after_ms, before_ms - 1.5 * braking_ms2, 0.0)
        left_m = (before_ms + after_ms) / 2
        self.speed_ms = after_ms
        return self._go(left_m)

    def _allowed_ms(self, pace: float, limit_ms: float, braking_ms2: float) -> float:
        """The most that this second may end with, so that everything ahead can still be met."""
        speed_ms = self.speed_ms
        self._extend(speed_ms * speed_ms / (2 * braking_ms2) + speed_ms + LOOK_AHEAD_M)
        if not self._stretches:
            return 0.0
        first = self._stretches[0]
        allowed_ms = min(first.limit_ms * pace, limit_ms)
        ahead_m = self._left_m - first.length_m
        for stretch in self._stretches:
            ahead_m += stretch.length_m
            # (v + v') / 2 is covered now, then braking from v' to the speed there must fit into what is left.
            room = stretch.pass_ms**2 + braking_ms2 * (2 * ahead_m - speed_ms)
            most_ms = (math.sqrt(braking_ms2**2 + 4 * room) - braking_ms2) / 2 if room > 0 else 0.0
            allowed_ms = min(allowed_ms, most_ms)
        return allowed_ms

    def _go(self, metres: float) -> float:
        """Along the stretches; stops where one ends at which to wait."""
        while self._stretches:
            first = self._stretches[0]
            if metres < self._left_m and not (first.pass_ms == 0 and self._left_m - metres < AT_STOP_M):
                self._left_m -= metres
                self._known_m -= metres
                self.odometer_m += metres
                self.course_rad = first.course_rad
                self.x_m = first.x_m - self._left_m * math.sin(first.course_rad)
                self.y_m = first.y_m - self._left_m * math.cos(first.course_rad)
                return 0.0
            self.odometer_m += self._left_m
            metres = max(0.0, metres - self._left_m)
            self._known_m -= self._left_m
            self.x_m, self.y_m, self.course_rad = first.x_m, first.y_m, first.course_rad
            self._stretches.popleft()
            if not self._stretches:
                self._extend(LOOK_AHEAD_M)
            self._left_m = self._stretches[0].length_m if self._stretches else 0.0
            if first.pass_ms == 0:
                self.speed_ms = 0.0
                return first.wait_s
        self.speed_ms = 0.0
        return 0.0

    def _extend(self, metres: float) -> None:
        """Look as far ahead as this. A stretch is known when the point behind its end is."""
        while self._known_m < metres and (self._route is not None or self._last is not None):
            following = next(self._route, None) if self._route is not None else None
            if following is None:
                self._route = None
            added = self._add(following)
            if added is not None:
                if not self._stretches:
                    self._left_m = added.length_m
                self._stretches.append(added)
                self._known_m += added.length_m

    def _add(self, following: Waypoint | None) -> Stretch | None:
        """The stretch to the last point, now that the next is known; None where that one is the same place."""
        last = self._last
        x_m, y_m = (last[0].x_m, last[0].y_m) if last else (self.x_m, self.y_m)
        if following is None:
            self._last = None
            return self._stretch(last, 0.0) if last else None
        length_m = math.hypot(following.x_m - x_m, following.y_m - y_m)
        if length_m < TINY_M:
            return None
        course_rad = math.atan2(following.x_m - x_m, following.y_m - y_m)
        self._last = (following, length_m, course_rad)
        if last is None:
            return None
        point, before_m, before_rad = last
        if point.wait_s:
            return self._stretch(last, 0.0)
        turn_rad = abs((course_rad - before_rad + math.pi) % math.tau - math.pi)
        tangent = math.tan(min(turn_rad, 3.0) / 2)
        radius_m = min(point.bend_m, before_m, length_m) / (2 * tangent) if tangent > 1e-6 else math.inf
        bend_ms = max(BEND_SPEED_MIN_MS, math.sqrt(SIDEWAYS_MS2 * radius_m))
        return self._stretch(last, min(bend_ms, following.limit_kmh / 3.6))

    @staticmethod
    def _stretch(last: tuple[Waypoint, float, float], pass_ms: float) -> Stretch:
        point, length_m, course_rad = last
        return Stretch(point.x_m, point.y_m, length_m, course_rad, point.limit_kmh / 3.6, pass_ms, point.wait_s)
