"""Plausible drives: a vehicle that starts, follows streets, waits at lights, delivers, parks and sleeps at home.

    parked ──> engine on ──> on the way <──> at a light
       ^                          │
       └── engine off <── arrived ┘        out of hours the last way leads to the base, until the morning

Promises: the same random source and start give the same drive, whoever asks how often; with the same times, the same
signals; place, speed, course, odometer, altitude
and ignition are of one piece, since all come from one vehicle on one road; the engine runs before the vehicle moves
and stops after it. `truth` says what was so at the last step. Never reads a clock.
"""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from signalkeep.model import Signal
from signalkeep.simulate.coverage import Coverage
from signalkeep.simulate.motion import Mover
from signalkeep.simulate.receiver import EVENT_CODES, HARD_MS2, EventCodes, Receiver, Truth
from signalkeep.simulate.roads import HOMES, Place, Region, region
from signalkeep.simulate.scenarios import Habits, habits_of

__all__ = ["EVENT_CODES", "Drive", "EventCodes", "Truth"]

ON_THE_WAY_SHARE: Final = 0.85  # of the vehicles, at the start of a fleet within their hours
BEFORE_START_S: Final = (6, 24)  # driven by those before the first record
BEFORE_DRIVING_S: Final = (4.0, 20.0)
BEFORE_ENGINE_OFF_S: Final = (3.0, 12.0)
LATER_THAN_USUAL_S: Final = 5400.0
COLD_AFTER_S: Final = 7200.0  # a receiver that was off for so long needs a while to find its place
COLD_START_S: Final = (15.0, 45.0)
HARD_TRIPS_SHARE: Final = 0.05
HARD_FACTOR: Final = 2.0


class Phase(Enum):
    """What the vehicle is doing."""

    STANDING = auto()  # at a stop, engine on or off
    STARTING = auto()  # the engine runs
    DRIVING = auto()
    WAITING = auto()  # at a light
    ARRIVED = auto()  # the engine still runs


class Drive:
    """One vehicle. `step` moves it to a later time and reports."""

    __slots__ = (
        "_base", "_before", "_coverage", "_engine_on", "_goal", "_habits", "_hard", "_hard_trip", "_mover",
        "_no_fix_until_s", "_off_since_s", "_pace", "_phase", "_place", "_random", "_receiver", "_region", "_start",
        "_tick_s", "_until_s", "truth",
    )  # fmt: skip

    def __init__(
        self,
        source: random.Random,
        start: datetime,
        codes: EventCodes,
        *,
        habits: Habits | None = None,
        roads: Region | None = None,
        coverage: Coverage | None = None,
    ) -> None:
        self._random = source
        self._start = start
        self._habits = habits or habits_of("mixed", source.random())
        self._region = roads or region(source.randrange(len(HOMES)), 1)
        self._coverage = coverage or Coverage("", self._habits, has_gaps=False)
        self._pace = source.uniform(0.9, 1.06)
        self._base: Place = self._region.anywhere(source, 0)
        self._goal = self._place = self._region.anywhere(source, 0) if self._is_working(0.0) else self._base
        self._mover = Mover(*self._region.point(self._place), source.uniform(1e6, 2e8))
        self._engine_on = False
        self._hard = 0
        self._hard_trip = False
        self._phase = Phase.STANDING
        self._off_since_s = self._no_fix_until_s = 0.0
        self._until_s = source.uniform(0.0, self._habits.stands_s[1])
        self._tick_s = 0
        self._before = (self._mover.x_m, self._mover.y_m, self._mover.odometer_m, 0.0)
        if not self._is_working(0.0):
            self._until_s = self._morning_s(0.0)
        elif source.random() < ON_THE_WAY_SHARE:
            self._tick_s = -source.randint(*BEFORE_START_S)
            self._depart()
            self._until_s = self._tick_s
            self._advance(0)
        own = random.Random(source.getrandbits(64))  # noqa: S311 - where it drives does not depend on who asks when
        self._receiver = Receiver(own, codes, engine_on=self._engine_on)
        self.truth: Truth | None = None

    def step(self, at: datetime) -> Signal:
        """The signal at `at`, which must be later than the start and every earlier step."""
        elapsed_s = (at - self._start).total_seconds()
        assert self.truth is None or at > self.truth.at, "time must go on"
        self._advance(math.ceil(elapsed_s))
        self.truth = self._truth(at, elapsed_s)
        self._hard = 0
        return self._receiver.report(self.truth)

    def _truth(self, at: datetime, elapsed_s: float) -> Truth:
        """Between the last two ticks."""
        mover = self._mover
        x_m, y_m, odometer_m, speed_ms = self._before
        part = 1.0 - (self._tick_s - elapsed_s)
        both_ms = speed_ms + mover.speed_ms
        # With even acceleration the way goes with the square of the time.
        way = (2 * speed_ms * part + (mover.speed_ms - speed_ms) * part**2) / both_ms if both_ms else part
        x_m, y_m = x_m + (mover.x_m - x_m) * way, y_m + (mover.y_m - y_m) * way
        latitude, longitude = self._region.degrees(x_m, y_m)
        return Truth(
            at=at,
            latitude=latitude,
            longitude=longitude,
            altitude_m=self._region.altitude_m(x_m, y_m),
            speed_kmh=(speed_ms + (mover.speed_ms - speed_ms) * part) * 3.6,
            course_deg=math.degrees(mover.course_rad) % 360,
            odometer_m=odometer_m + (mover.odometer_m - odometer_m) * way,
            engine_on=self._engine_on,
            supply_v=self._habits.supply_v[0 if self._engine_on else 1],
            hard=self._hard,
            no_fix=elapsed_s < self._no_fix_until_s and self._coverage.has_gaps,
            gap=self._coverage.gap(elapsed_s),
            may_lose_fix=self._coverage.has_gaps,
        )

    def _advance(self, tick_s: int) -> None:
        """Up to this tick."""
        habits, mover = self._habits, self._mover
        while self._tick_s < tick_s:
            if self._phase is not Phase.DRIVING:
                self._tick_s = max(self._tick_s + 1, min(tick_s, math.ceil(self._until_s)))
                self._before = (mover.x_m, mover.y_m, mover.odometer_m, 0.0)
                if self._tick_s >= self._until_s:
                    self._next_phase()
                continue
            self._tick_s += 1
            before_ms = mover.speed_ms
            self._before = (mover.x_m, mover.y_m, mover.odometer_m, before_ms)
            factor = HARD_FACTOR if self._hard_trip else 1.0
            wait_s = mover.tick(
                self._pace, habits.speed_kmh_max / 3.6, habits.acceleration_ms2 * factor, habits.braking_ms2 * factor
            )
            if abs(mover.speed_ms - before_ms) > HARD_MS2:
                self._hard = 1 if mover.speed_ms > before_ms else 2
            if wait_s:
                self._phase, self._until_s = Phase.WAITING, self._tick_s + wait_s
            elif mover.speed_ms == 0 and mover.is_there:
                self._place = self._goal
                self._phase = Phase.ARRIVED
                self._until_s = self._tick_s + self._random.uniform(*BEFORE_ENGINE_OFF_S)

    def _next_phase(self) -> None:
        match self._phase:
            case Phase.STANDING:
                self._depart()
            case Phase.ARRIVED:
                self._stand()
            case _:
                self._phase = Phase.DRIVING

    def _depart(self) -> None:
        """Choose where to go, and start the engine."""
        source, habits, roads = self._random, self._habits, self._region
        if not self._is_working(self._tick_s):
            self._goal = self._base
        elif source.random() < habits.elsewhere_share:
            self._goal = roads.anywhere(source, source.randrange(len(roads.towns)))
        else:
            self._goal = roads.near(source, self._place, habits.trip_m)
        if not self._engine_on and self._tick_s - self._off_since_s > COLD_AFTER_S:
            self._no_fix_until_s = self._tick_s + source.uniform(*COLD_START_S)
        self._engine_on = True
        self._hard_trip = source.random() < HARD_TRIPS_SHARE
        self._mover.follow(roads.route(source, self._place, self._goal))
        self._phase = Phase.STARTING
        self._until_s = self._tick_s + source.uniform(*BEFORE_DRIVING_S)

    def _stand(self) -> None:
        """For a stop, or for the night."""
        source, habits = self._random, self._habits
        self._phase = Phase.STANDING
        if self._place == self._base and not self._is_working(self._tick_s):
            self._engine_on = False
            self._until_s = self._morning_s(self._tick_s)
        else:
            self._engine_on = source.random() >= habits.engine_off_share
            self._until_s = self._tick_s + source.uniform(*habits.stands_s)
        self._off_since_s = self._tick_s

    def _hour(self, elapsed_s: float) -> float:
        """Of the day, by the sun."""
        at = self._start + timedelta(seconds=elapsed_s)
        return (at.hour + at.minute / 60 + self._region.home.longitude / 15) % 24

    def _is_working(self, elapsed_s: float) -> bool:
        begin_h, end_h = self._habits.works_h
        return begin_h <= self._hour(elapsed_s) < end_h

    def _morning_s(self, elapsed_s: float) -> float:
        """When work begins again."""
        wait_h = (self._habits.works_h[0] - self._hour(elapsed_s)) % 24
        return elapsed_s + wait_h * 3600 + self._random.uniform(60.0, LATER_THAN_USUAL_S)
