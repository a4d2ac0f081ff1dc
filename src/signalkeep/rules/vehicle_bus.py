"""VEH-08 and VEH-09: values of the engine control that cannot be, and values that never change.

Values that are no numbers say nothing here. What is never there is not missed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple

from signalkeep.rules.contract import Answer, Dimension, Limit, Limits, Rule, Scope, Severity
from signalkeep.rules.days import DayHit, DeviceDay
from signalkeep.rules.motion_days import between_m, has_place
from signalkeep.rules.reading import Reading, number_of

BATTERY_DRIVEN: Final = ("hybrid_battery_pct", "hybrid_v", "vehicle_battery_pct")  # only of these vehicles
FUEL_TYPE: Final = "fuel_type"
ELECTRIC_TYPES: Final = frozenset({8, *range(15, 23)})  # SAE J1979, PID 0x51: electric, hybrid, both fuels

PERCENT: Final = (0.0, 100.0)
BY_DEFINITION: Final[Mapping[str, tuple[float, float]]] = {
    "coolant_c": (-40.0, 215.0),
    "rpm": (0.0, 16_383.75),
    "obd_speed_kmh": (0.0, 255.0),
    "engine_load_pct": PERCENT,
    "throttle_pct": PERCENT,
    "fuel_pct": PERCENT,
    "maf_gps": (0.0, 655.35),
    "timing_advance_deg": (-64.0, 63.5),
    "intake_temp_c": (-40.0, 215.0),
}
DEFINED: Final = tuple(BY_DEFINITION.items())
NAMES: Final = frozenset(BY_DEFINITION)

BY_SPEED: Final = ("obd_speed_kmh", "rpm", "engine_load_pct", "map_kpa", "maf_gps")
BY_WAY: Final = {
    "odometer_m": "odometer_km",
    "can_odometer_m": "odometer_km",
    "fuel_pct": "fuel_km",
    "fuel_l": "fuel_km",
}
STEP_S_MAX: Final = 180.0  # over longer ones a unit slept, or had no network: by ferry or on a tow nothing is driven


def drives_electric(attributes: Mapping[str, Any]) -> bool:
    """Whether they name a battery that drives, or such a fuel."""
    if any(attributes.get(name) is not None for name in BATTERY_DRIVEN):
        return True
    kind = attributes.get(FUEL_TYPE)
    return type(kind) is int and kind in ELECTRIC_TYPES


def ranges(reading: Reading, limits: Limits) -> Answer:
    """VEH-08."""
    attributes = reading.attributes
    if NAMES.isdisjoint(attributes):
        return None
    numbers = 0
    for name, (least, most) in DEFINED:
        value = attributes.get(name)
        if type(value) is not int and type(value) is not float:
            continue
        numbers += 1
        if not least <= value <= most and number_of(value) is not None:
            return f"{name} {value:g}: {least:g} to {most:g} is all that there is"
    if not numbers:
        return None
    coolant_c, rpm = number_of(attributes.get("coolant_c")), number_of(attributes.get("rpm"))
    if coolant_c is not None and coolant_c > limits["coolant_c_max"]:
        return f"coolant_c {coolant_c:g}: the engine would boil"
    if rpm is not None and rpm > limits["rpm_max"]:
        return f"rpm {rpm:g}: no such engine"
    return False


class Constant(NamedTuple):
    """A sensor that showed one value while what drives it went on."""

    places: list[int]  # of its readings
    driven_at: list[float]  # at each of them: changes of speed, or kilometres, since the first
    value: float

    @property
    def driven(self) -> float:
        return self.driven_at[-1]

    def sure(self, least: float) -> list[int]:
        """From where on it is sure. What lies before may be a vehicle that stood all night."""
        return self.places[bisect_left(self.driven_at, least) :]


def constant(day: DeviceDay, limits: Limits) -> Iterable[DayHit]:
    """VEH-09."""
    readings = day.readings
    present = frozenset[str]().union(*(reading.attributes for reading in readings))
    electric = any(drives_electric(reading.attributes) for reading in readings)
    for name in BY_SPEED:
        if name not in present:
            continue
        for run in constant_by_speed(readings, name, limits["change_kmh"]):
            resting = name != "obd_speed_kmh" and (electric or run.value == 0)  # an engine at rest is VEH-07's
            if run.driven >= limits["changes_min"] and not resting:
                detail = f"{name} stayed {run.value:g} over {run.driven:.0f} changes of speed"
                yield DayHit(run.sure(limits["changes_min"]), detail)
    if present.isdisjoint(BY_WAY):
        return
    way_km = way_by_place(readings)
    for name, limit in BY_WAY.items():
        if name not in present:
            continue
        is_fuel = limit == "fuel_km"
        for run in constant_by_way(readings, name, way_km):
            full = is_fuel and (electric or (name == "fuel_pct" and run.value >= limits["full_pct"]))
            if run.driven > limits[limit] and not full:
                yield DayHit(run.sure(limits[limit]), f"{name} stayed {run.value:g} over {run.driven:.1f} km")


def constant_by_speed(readings: Sequence[Reading], name: str, change_kmh: float) -> Iterator[Constant]:
    """Runs of one value, with the changes of speed that it was there to follow."""
    for places, value in _runs(readings, name):
        changes, counted_kmh = 0, None
        changes_at: list[float] = []
        for place in places:
            speed_kmh = readings[place].speed_kmh if readings[place].fix_valid else None
            if speed_kmh is not None and counted_kmh is None:
                counted_kmh = speed_kmh
            elif speed_kmh is not None and counted_kmh is not None and abs(speed_kmh - counted_kmh) >= change_kmh:
                changes, counted_kmh = changes + 1, speed_kmh
            changes_at.append(changes)
        yield Constant(places, changes_at, value)


def constant_by_way(readings: Sequence[Reading], name: str, way_km: Sequence[float]) -> Iterator[Constant]:
    """Runs of one value, with the way driven in them."""
    for places, value in _runs(readings, name):
        yield Constant(places, [way_km[place] - way_km[places[0]] for place in places], value)


def way_by_place(readings: Sequence[Reading]) -> list[float]:
    """Kilometres driven from the day's beginning, at each reading: no more than its speeds allow, and no long steps."""
    metres = [0.0] * len(readings)
    with_place = [place for place, reading in enumerate(readings) if has_place(reading)]
    for before, after in pairwise(with_place):
        elapsed_s = (readings[after].time_s or 0.0) - (readings[before].time_s or 0.0)
        fastest_kmh = max(readings[before].speed_kmh or 0.0, readings[after].speed_kmh or 0.0)
        if elapsed_s <= STEP_S_MAX and fastest_kmh > 0:
            metres[after] = min(between_m(readings[before], readings[after]), fastest_kmh / 3.6 * elapsed_s)
    return [total_m / 1000 for total_m in accumulate(metres)]


def _runs(readings: Sequence[Reading], name: str) -> Iterator[tuple[list[int], float]]:
    """Places of readings in a row, of those that have it, with the same number."""
    places: list[int] = []
    held: float | None = None
    for place, reading in enumerate(readings):
        value = reading.number(name)
        if value is None:
            continue
        if held is not None and value != held:
            yield places, held
            places = []
        held = value
        places.append(place)
    if held is not None:
        yield places, held


RANGES: Final = Rule(
    id="VEH-08",
    title="Engine value out of range",
    dimension=Dimension.VALIDITY,
    severity=Severity.WARNING,
    scope=Scope.SIGNAL,
    check=ranges,
    needs=NAMES,
    quiet=lambda limits: {
        **BY_DEFINITION,
        "coolant_c": (-40.0, min(215.0, limits["coolant_c_max"])),
        "rpm": (0.0, min(16_383.75, limits["rpm_max"])),
    },
    meaning="A value of the engine control lies beyond what its code can carry, or beyond what an engine survives: it "
    "was read wrongly, or the sensor is broken.",
    causes=(
        "a code for 'no reading' was taken for a value",
        "the decoder expects another scale than this firmware sends",
        "a broken sensor",
    ),
    actions=(
        "compare the raw bytes with the maker's protocol: `signalkeep decode`",
        "if only this vehicle shows it, have the workshop read its trouble codes",
        "for motorcycles and racing engines raise the limit rpm_max",
    ),
    source="SAE J1979; 130 °C and 8000 rpm: field knowledge",
    limits={
        "coolant_c_max": Limit(130.0, "°C", "hotter, coolant boils under pressure too", most=215.0),
        "rpm_max": Limit(8000.0, "rpm", "faster, no usual engine turns", most=16_383.75),
    },
    bit=47,
)
CONSTANT: Final = Rule(
    id="VEH-09",
    title="Sensor never changes",
    dimension=Dimension.CONSISTENCY,
    severity=Severity.WARNING,
    scope=Scope.DAY,
    check=constant,
    meaning="A value has stayed the same although what moves it went on: engine values over many changes of speed, an "
    "odometer or a fuel gauge over many kilometres. It is stuck and says nothing any more.",
    causes=(
        "the reading of the vehicle's bus has stopped, and the unit repeats the last value",
        "a stuck float or sensor",
        "an input that is configured, but not connected",
    ),
    actions=(
        "let the installer check the connection to the bus or the sensor",
        "if nothing is connected, have the value taken out of the unit's configuration",
        "for large tanks raise the limit fuel_km",
    ),
    source="50 km for fuel: Wialon; 50 changes and 10 km for odometers: field knowledge",
    limits={
        "changes_min": Limit(50.0, "", "so many changes of speed must leave a trace", least=5.0),
        "change_kmh": Limit(5.0, "km/h", "smaller differences are no change of speed", least=1.0),
        "odometer_km": Limit(10.0, "km", "so far an odometer may stay the same", least=1.0),
        "fuel_km": Limit(50.0, "km", "so far a fuel gauge may stay the same", least=1.0),
        "full_pct": Limit(95.0, "%", "from here on gauges of full tanks stand still", most=101.0),
    },
    bit=48,
)
