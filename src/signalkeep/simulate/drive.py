"""Plausible drives: a vehicle that is parked, drives, turns, waits at lights, and reports itself as signals.

Promises: the same random source, start and times give the same signals; every value lies on a grid that
the encoders keep (1e-7 degrees, whole km/h, metres and degrees, thousandths of a volt), so what was sent
can be compared exactly with what was stored; positions, speeds and odometer agree with each other. Never
reads a clock.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from signalkeep.model import Signal

START_POINTS: Final = (
    (52.5200, 13.4050),
    (48.2082, 16.3738),
    (53.3498, -6.2603),
    (40.4168, -3.7038),
    (50.0755, 14.4378),
    (-33.8688, 151.2093),
    (-23.5505, -46.6333),
    (41.8781, -87.6298),
    (-1.2921, 36.8219),
    (35.6762, 139.6503),
)
METRES_PER_DEGREE: Final = 111_195.0
ROAM_DEGREES_MAX: Final = 0.25  # beyond it the vehicle turns for home
SPEEDS_KMH: Final = (30.0, 50.0, 50.0, 70.0, 90.0, 120.0)
ACCELERATION_KMH_PER_S: Final = 6.0
PARKED_S: Final = (60.0, 900.0)
WAITING_S: Final = (5.0, 60.0)
CRUISING_S: Final = (20.0, 240.0)
PARKS_SHARE: Final = 0.2  # of the stops, end with the ignition off


@dataclass(frozen=True)
class EventCodes:
    """What a maker calls the events that a drive has."""

    ignition_on: str
    ignition_off: str
    others: tuple[str, ...]  # sprinkled in now and then


EVENT_CODES: Final[dict[str, EventCodes]] = {
    "teltonika": EventCodes("239", "239", ("240", "255", "253")),
    "json": EventCodes("7000", "7001", ("7002", "7003", "4002")),
}
OTHER_EVENTS_SHARE: Final = 0.02  # of the records


class Drive:
    """One vehicle. `step` moves it to a later time and reports."""

    def __init__(self, source: random.Random, start: datetime, codes: EventCodes) -> None:
        self._random = source
        self._codes = codes
        self._at = start
        self._home = source.choice(START_POINTS)
        self._latitude = self._home[0] + source.uniform(-0.05, 0.05)
        self._longitude = self._home[1] + source.uniform(-0.05, 0.05)
        self._altitude_m = source.uniform(5.0, 400.0)
        self._course_deg = source.uniform(0.0, 360.0)
        self._speed_kmh = 0.0
        self._wanted_kmh = source.choice(SPEEDS_KMH)
        self._odometer_m = source.uniform(1e6, 2e8)
        self._parks = False  # the ignition goes off once the vehicle stands
        self._ignition = True
        self._phase_left_s = source.uniform(*CRUISING_S)

    def step(self, at: datetime) -> Signal:
        """The signal at `at`, which must be later than the start and every earlier step."""
        elapsed_s = (at - self._at).total_seconds()
        assert elapsed_s > 0, "time must go on"
        self._at = at
        was_on = self._ignition
        self._phase_left_s -= elapsed_s
        if self._phase_left_s <= 0:
            self._next_phase()
        self._move(elapsed_s)
        self._ignition = not (self._parks and self._speed_kmh == 0)
        return self._report(at, ignition_changed=was_on is not self._ignition)

    def _next_phase(self) -> None:
        source = self._random
        if self._wanted_kmh > 0:  # comes to a stop: at a light, or for good
            self._wanted_kmh = 0.0
            self._parks = source.random() < PARKS_SHARE
            self._phase_left_s = source.uniform(*(PARKED_S if self._parks else WAITING_S))
        else:
            self._wanted_kmh = source.choice(SPEEDS_KMH)
            self._parks = False
            self._phase_left_s = source.uniform(*CRUISING_S)

    def _move(self, elapsed_s: float) -> None:
        """Change the speed as far as time allows, then go along the heading at the mean of both speeds."""
        source = self._random
        target_kmh = self._wanted_kmh * source.uniform(0.9, 1.05)
        reach_kmh = ACCELERATION_KMH_PER_S * elapsed_s
        before_kmh = self._speed_kmh
        self._speed_kmh += max(-reach_kmh, min(reach_kmh, target_kmh - before_kmh))
        if before_kmh + self._speed_kmh < 1.0:
            return
        self._turn(elapsed_s)
        metres = (before_kmh + self._speed_kmh) / 2 / 3.6 * elapsed_s
        heading = math.radians(self._course_deg)
        self._latitude += metres * math.cos(heading) / METRES_PER_DEGREE
        self._longitude += metres * math.sin(heading) / METRES_PER_DEGREE / math.cos(math.radians(self._latitude))
        self._odometer_m += metres
        self._altitude_m = min(2000.0, max(0.0, self._altitude_m + source.gauss(0.0, 0.5)))

    def _turn(self, elapsed_s: float) -> None:
        """Bends all the time, corners at times, and back towards home from too far away."""
        source = self._random
        north, east = self._home[0] - self._latitude, self._home[1] - self._longitude
        if max(abs(north), abs(east)) > ROAM_DEGREES_MAX:
            homewards = math.degrees(math.atan2(east * math.cos(math.radians(self._latitude)), north))
            self._course_deg = homewards + source.gauss(0.0, 10.0)
        elif source.random() < min(0.5, elapsed_s / 40):
            self._course_deg += source.choice((-90.0, 90.0)) + source.gauss(0.0, 5.0)
        else:
            self._course_deg += source.gauss(0.0, 3.0)
        self._course_deg %= 360.0

    def _report(self, at: datetime, *, ignition_changed: bool) -> Signal:
        source = self._random
        speed_kmh = round(self._speed_kmh)
        attributes: dict[str, Any] = {
            "ignition": self._ignition,
            "motion": speed_kmh > 0,
            "power_v": round(source.gauss(14.1 if self._ignition else 12.6, 0.05), 3),
            "battery_v": round(source.gauss(4.05, 0.02), 3),
            "odometer_m": round(self._odometer_m),
            "gsm_rssi": source.randint(1, 5),
        }
        event_code = None
        if ignition_changed:
            event_code = self._codes.ignition_on if self._ignition else self._codes.ignition_off
        elif source.random() < OTHER_EVENTS_SHARE:
            event_code = source.choice(self._codes.others)
        return Signal(
            wire_time=at,
            device_time=at,
            fix_valid=True,
            latitude=round(self._latitude, 7),
            longitude=round(self._longitude, 7),
            altitude_m=float(round(self._altitude_m)),
            speed_kmh=float(speed_kmh),
            course_deg=float(round(self._course_deg) % 360),
            satellites=source.randint(6, 14),
            event_code=event_code,
            attributes=attributes,
        )
