"""From what is true of a vehicle to what its unit reports: the receiver, the wiring, the events.

    Truth  ──Receiver──>  Signal

Promises: every value lies on a grid that the encoders keep (1e-7 degrees, whole km/h, metres and degrees,
thousandths of a volt), so what was sent can be compared exactly with what was stored. Without a fix the last place
is reported, with no satellites. Faults are not made here: a `Truth` and its signal stay side by side, so whoever
plants some can say what would have been right. Never reads a clock.
"""

from __future__ import annotations

import random
from datetime import datetime
from typing import Any, Final, NamedTuple

from signalkeep.model import Signal
from signalkeep.simulate.coverage import Gap

FIX_LOST_EVERY_S: Final = 7200.0  # of driving, on average, besides tunnels and cold starts
FIX_LOST_S: Final = (8.0, 40.0)
SATELLITES: Final = (6, 15)
HARD_MS2: Final = 2.9
OTHER_EVENTS_SHARE: Final = 0.01  # of the records


class EventCodes(NamedTuple):
    """What a maker calls the events that a drive has."""

    ignition_on: str
    ignition_off: str
    acceleration: str
    braking: str
    others: tuple[str, ...]  # sprinkled in now and then


EVENT_CODES: Final[dict[str, EventCodes]] = {
    "teltonika": EventCodes("239", "239", "253", "253", ("240",)),
    "json": EventCodes("7000", "7003", "7001", "7002", ("4002",)),
}
GREEN_DRIVING: Final = "253"
HARD_ALARMS: Final = {1: "hard_acceleration", 2: "hard_braking"}


class Truth(NamedTuple):
    """What is true of a vehicle at one moment, whatever its unit says."""

    at: datetime
    latitude: float
    longitude: float
    altitude_m: float
    speed_kmh: float
    course_deg: float
    odometer_m: float
    engine_on: bool
    supply_v: float
    hard: int = 0  # since the moment before: 1 accelerated hard, 2 braked hard
    no_fix: bool = False  # the receiver has only just been switched on
    gap: Gap | None = None  # without network
    may_lose_fix: bool = True  # for a while, under trees and between houses


class Receiver:
    """The unit's senses. `report` is called in the order of time."""

    __slots__ = ("_at", "_codes", "_engine_on", "_lost_until_s", "_place", "_random", "_satellites")

    def __init__(self, source: random.Random, codes: EventCodes, *, engine_on: bool) -> None:
        self._random = source
        self._codes = codes
        self._engine_on = engine_on
        self._at: datetime | None = None
        self._lost_until_s = 0.0  # how much longer there is no fix
        self._satellites = source.randint(*SATELLITES)
        self._place: tuple[float, float, float, float] | None = None  # last known, as reported

    def report(self, truth: Truth) -> Signal:
        """What the unit notes at this moment."""
        draw = self._random.random
        has_fix = self._has_fix(truth)
        if has_fix or self._place is None:
            self._place = (
                round(truth.latitude, 7),
                round(truth.longitude, 7),
                float(round(truth.altitude_m)),
                float(round(truth.course_deg) % 360),
            )
        latitude, longitude, altitude_m, course_deg = self._place
        speed_kmh = round(truth.speed_kmh)
        attributes: dict[str, Any] = {
            "ignition": truth.engine_on,
            "motion": speed_kmh > 0,
            "power_v": round(truth.supply_v + 0.2 * (draw() - 0.5), 3),
            "battery_v": round(4.05 + 0.06 * draw(), 3),
            "odometer_m": round(truth.odometer_m),
            "gsm_rssi": 0 if truth.gap else 2 + int(4 * draw()),
        }
        return Signal(
            wire_time=truth.at,
            device_time=truth.at,
            fix_valid=has_fix,
            latitude=latitude,
            longitude=longitude,
            altitude_m=altitude_m,
            speed_kmh=float(speed_kmh) if has_fix else 0.0,
            course_deg=course_deg,
            satellites=self._satellites if has_fix else 0,
            event_code=self._event(truth, attributes),
            attributes=attributes,
        )

    def _has_fix(self, truth: Truth) -> bool:
        """Also moves on what the number of satellites and a lost fix depend on."""
        elapsed_s = (truth.at - self._at).total_seconds() if self._at else 0.0
        self._at = truth.at
        source, gap = self._random, truth.gap
        least, most = SATELLITES
        self._satellites = max(least, min(most, self._satellites + int(3 * source.random()) - 1))
        self._lost_until_s -= elapsed_s
        if (
            truth.may_lose_fix
            and truth.speed_kmh > 0
            and source.random() < elapsed_s / FIX_LOST_EVERY_S
            and self._lost_until_s <= 0
        ):
            self._lost_until_s = source.uniform(*FIX_LOST_S)
        covered = gap is not None and not gap.open_sky and (gap.is_short or truth.speed_kmh == 0)
        return not (truth.no_fix or covered or self._lost_until_s > 0)

    def _event(self, truth: Truth, attributes: dict[str, Any]) -> str | None:
        codes = self._codes
        if truth.engine_on is not self._engine_on:
            self._engine_on = truth.engine_on
            return codes.ignition_on if truth.engine_on else codes.ignition_off
        if truth.hard:
            code = codes.acceleration if truth.hard == 1 else codes.braking
            if code == GREEN_DRIVING:  # the code does not say which: an element does
                attributes["green_driving_type"] = truth.hard
            attributes["alarm"] = HARD_ALARMS[truth.hard]
            return code
        if self._random.random() < OTHER_EVENTS_SHARE:
            return self._random.choice(codes.others)
        return None
