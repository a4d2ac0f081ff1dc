"""A vehicle whose unit also reads the engine: what a `Drive` reports, and values of the engine that go with it.

    Vehicle (Drive, TrackDrive)  ──FullDrive──>  the same signal, with rpm, coolant, fuel, speed of the wheels, ...

Promises: the added values follow from what is true of the vehicle, so they agree with its speed and way: revolutions
belong to a gear, the coolant warms up, fuel goes down with the way, never up. With the engine off its values are
missing, as in life, but for the fuel. All lie on the grid of the encoders. Faults are not made here. Never reads a
clock.
"""

from __future__ import annotations

import math
import random
from datetime import datetime
from typing import Any, Final

from signalkeep.model import Signal
from signalkeep.simulate.receiver import Truth
from signalkeep.simulate.records import Vehicle

AMBIENT_C: Final = 14.0
RUNNING_C: Final = 90.0
WARMS_IN_S: Final = 240.0
COOLS_IN_S: Final = 5400.0
LARGE_FROM_V: Final = 20.0  # a supply of 24 volts is that of a lorry
FUEL_PCT_PER_KM: Final = (0.13, 0.05)  # of a car's tank, of a lorry's
FUEL_PCT_PER_H: Final = (0.9, 0.4)  # with the engine on, wherever it goes
IDLE_RPM: Final = (790, 560)
GEARS_KMH: Final = (15.0, 30.0, 45.0, 60.0, 80.0)  # where the next one is taken
TOP_RPM_PER_KMH: Final = (24.0, 15.0)  # in the highest gear


class FullDrive:
    """The same interface as `Drive`."""

    __slots__ = (
        "_at", "_coolant_c", "_drift_c", "_fuel_pct", "_iccid", "_odometer_m", "_random", "_speed_kmh", "_tyre",
        "_vehicle", "_was_on", "truth",
    )  # fmt: skip

    def __init__(self, vehicle: Vehicle, source: random.Random) -> None:
        self._vehicle = vehicle
        self._random = source
        self._tyre = source.uniform(0.97, 1.02)  # the wheels' speed, as a share of the true one
        self._fuel_pct = source.uniform(65.0, 98.0)
        self._iccid = (8_949_000_000 + source.randrange(10**6), source.randrange(10**9))
        self._coolant_c = AMBIENT_C
        self._drift_c = 0.0
        self._at: datetime | None = None
        self._odometer_m = self._speed_kmh = 0.0
        self._was_on = False
        self.truth: Truth | None = None

    @property
    def iccid(self) -> str:
        """The number of its SIM."""
        return "{}{:09d}".format(*self._iccid)

    def step(self, at: datetime) -> Signal:
        """The signal at `at`, later than every earlier step."""
        signal = self._vehicle.step(at)
        self.truth = truth = self._vehicle.truth
        assert truth is not None
        elapsed_s = (at - self._at).total_seconds() if self._at else 0.0
        if self._at is None:
            self._odometer_m = truth.odometer_m
            self._coolant_c = RUNNING_C if truth.engine_on else AMBIENT_C
        is_large = truth.supply_v > LARGE_FROM_V
        self._burn(truth, elapsed_s, is_large=is_large)
        draw = self._random.random
        attributes = signal.attributes
        attributes["battery_pct"] = 95 + int(5 * draw())
        attributes["iccid_part1"], attributes["iccid_part2"] = self._iccid
        attributes["iccid"] = self.iccid
        attributes["gnss_jamming"] = 0
        attributes["fuel_pct"] = round(self._fuel_pct)
        if signal.fix_valid:
            attributes["hdop"] = round(0.7 + 0.06 * (15 - (signal.satellites or 0)) + 0.2 * draw(), 1)
        if truth.engine_on:
            attributes |= self._engine(truth, elapsed_s, is_large=is_large)
        self._at, self._odometer_m, self._speed_kmh = at, truth.odometer_m, truth.speed_kmh
        self._was_on = truth.engine_on
        return signal

    def _burn(self, truth: Truth, elapsed_s: float, *, is_large: bool) -> None:
        """Fuel and temperature go on."""
        self._drift_c = max(-3.0, min(3.0, self._drift_c + self._random.gauss(0.0, 0.05) * math.sqrt(elapsed_s)))
        goal_c, tau_s = (RUNNING_C + self._drift_c, WARMS_IN_S) if self._was_on else (AMBIENT_C, COOLS_IN_S)
        self._coolant_c += (goal_c - self._coolant_c) * (1 - math.exp(-elapsed_s / tau_s))
        burnt_pct = FUEL_PCT_PER_KM[is_large] * (truth.odometer_m - self._odometer_m) / 1000
        if self._was_on:
            burnt_pct += FUEL_PCT_PER_H[is_large] * elapsed_s / 3600
        self._fuel_pct = max(3.0, self._fuel_pct - burnt_pct)

    def _engine(self, truth: Truth, elapsed_s: float, *, is_large: bool) -> dict[str, Any]:
        """What the engine control says."""
        draw, speed_kmh = self._random.random, truth.speed_kmh
        per_s_kmh = (speed_kmh - self._speed_kmh) / elapsed_s if elapsed_s else 0.0
        effort = 0.08 + 0.004 * speed_kmh + 0.05 * max(0.0, per_s_kmh) + 0.04 * draw()
        idle_rpm = IDLE_RPM[is_large] + int(40 * draw())
        gear = sum(speed_kmh > limit for limit in GEARS_KMH)
        per_kmh = TOP_RPM_PER_KMH[is_large] * (1, 1.2, 1.55, 2.1, 3.2, 6.0)[len(GEARS_KMH) - gear]
        return {
            "rpm": max(idle_rpm, round(speed_kmh * per_kmh + 20 * draw())),
            "obd_speed_kmh": round(min(255.0, speed_kmh * self._tyre)),
            "coolant_c": round(self._coolant_c),
            "engine_load_pct": round(100 * min(1.0, effort)),
            "throttle_pct": round(100 * min(1.0, 0.05 + 0.9 * effort)),
        }
