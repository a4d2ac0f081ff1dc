"""KIN-03 and UNI-01: what a single step cannot show, seen over a whole day. Pure.

Both look only at readings with a valid fix on the globe, in the order of device time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import median
from typing import Final, NamedTuple

from signalkeep.rules.contract import Dimension, Limit, Limits, Rule, Scope, Severity
from signalkeep.rules.days import DayHit, DeviceDay
from signalkeep.rules.geo import distance_m
from signalkeep.rules.reading import Reading

RATIOS: Final = (
    (0.278, "metres per second, read as km/h"),
    (0.540, "knots, read as km/h"),
    (0.621, "miles per hour, read as km/h"),
    (1.609, "km/h, read as miles per hour and converted"),
    (1.852, "km/h, read as knots and converted"),
    (3.6, "km/h, read as metres per second and converted"),
)
STEP_S: Final = (5.0, 60.0)  # of which the way is near enough to a straight line
SPEED_KMH_MAX: Final = 1000.0  # 250 km/h, wrong by the largest of the factors; more is no speed at all
EVEN_SHARE: Final = 0.2  # speeds at both ends of a step that differ by less are those of even driving


def has_place(reading: Reading) -> bool:
    return reading.fix_valid and reading.on_globe and reading.time_s is not None


def between_m(before: Reading, after: Reading) -> float:
    """Distance of two readings that have a place."""
    assert before.latitude is not None
    assert before.longitude is not None
    assert after.latitude is not None
    assert after.longitude is not None
    return distance_m(before.latitude, before.longitude, after.latitude, after.longitude)


def parked_drift(day: DeviceDay, limits: Limits) -> Iterable[DayHit]:
    """KIN-03. What does not come back to the parking place was moved: a tow, a ferry, a drive that nobody saw."""
    for parked in parkings(day):
        home, away, farthest_m = day.readings[parked[0]], list[int](), 0.0
        for place in parked[1:]:
            reading = day.readings[place]
            metres = between_m(home, reading)
            if metres > limits["distance_m"]:
                away.append(place)
                farthest_m = max(farthest_m, metres)
                continue
            readings = [home, *(day.readings[one] for one in away), reading]
            if away and farthest_m <= limits["distance_m_max"] and not was_moved(readings, limits):
                yield DayHit(away, f"parked, but up to {farthest_m:.0f} m away and back")
            away, farthest_m = [], 0.0


def was_moved(readings: list[Reading], limits: Limits) -> bool:
    """Whether it says so itself, by its speed or by its odometer: units that report rarely hide short trips."""
    if any(reading.speed_kmh is not None and reading.speed_kmh > limits["speed_kmh"] for reading in readings[1:-1]):
        return True
    began_m, ended_m = readings[0].number("odometer_m"), readings[-1].number("odometer_m")
    return began_m is not None and ended_m is not None and ended_m - began_m > limits["distance_m"]


def parkings(day: DeviceDay) -> Iterator[list[int]]:
    """Readings with a place while the ignition was off without break, and the first behind them."""
    parked: list[int] = []
    for place, reading in enumerate(day.readings):
        ignition = reading.truth("ignition")
        if ignition is None:
            continue
        if not ignition:
            if has_place(reading):
                parked.append(place)
        elif parked:
            yield [*parked, place] if has_place(reading) else parked
            parked = []
    if parked:
        yield parked


class Step(NamedTuple):
    """Even driving from one reading to the next."""

    sent_kmh: float
    implied_kmh: float


def unit_mistake(day: DeviceDay, limits: Limits) -> Iterable[DayHit]:
    """UNI-01. A wrong unit makes every step wrong by the same factor; poor reception does not."""
    steps = list(even_steps(day, limits["speed_kmh_min"]))
    if len(steps) < limits["steps_min"]:
        return
    sent_kmh, implied_kmh = median(step.sent_kmh for step in steps), median(step.implied_kmh for step in steps)
    ratio = sent_kmh / implied_kmh
    tolerance = limits["tolerance"]
    for known, name in RATIOS:
        if abs(ratio / known - 1) > tolerance:
            continue
        alike = sum(abs(step.sent_kmh / step.implied_kmh / known - 1) <= 2 * tolerance for step in steps)
        if alike * 2 < len(steps):
            return
        places = [place for place, reading in enumerate(day.readings) if (reading.speed_kmh or 0.0) > 0]
        detail = f"{sent_kmh:.0f} km/h sent, {implied_kmh:.0f} km/h driven, in the middle of {len(steps)} steps"
        yield DayHit(places, f"{detail}: factor {ratio:.2f}, as of {name}")
        return


def even_steps(day: DeviceDay, speed_kmh_min: float) -> Iterator[Step]:
    """Steps of vehicles that really move, neither speeding up nor slowing down."""
    least_s, most_s = STEP_S
    before: Reading | None = None
    for reading in day.readings:
        if not has_place(reading):
            continue
        last, before = before, reading
        if last is None or not _drives(last) or not _drives(reading):
            continue
        assert last.time_s is not None
        assert reading.time_s is not None
        elapsed_s = reading.time_s - last.time_s
        if not least_s <= elapsed_s <= most_s:
            if elapsed_s < least_s:
                before = last  # steps of a second add up
            continue
        assert last.speed_kmh is not None
        assert reading.speed_kmh is not None
        if abs(reading.speed_kmh - last.speed_kmh) > EVEN_SHARE * max(reading.speed_kmh, last.speed_kmh):
            continue
        implied_kmh = between_m(last, reading) / elapsed_s * 3.6
        if implied_kmh >= speed_kmh_min:
            yield Step((last.speed_kmh + reading.speed_kmh) / 2, implied_kmh)


def _drives(reading: Reading) -> bool:
    return reading.speed_kmh is not None and 0.0 < reading.speed_kmh < SPEED_KMH_MAX


PARKED_DRIFT: Final = Rule(
    id="KIN-03",
    title="Drift while parked",
    dimension=Dimension.ACCURACY,
    severity=Severity.INFO,
    scope=Scope.DAY,
    check=parked_drift,
    meaning="With the ignition off, the position wandered off and came back: the vehicle stood still all the time. "
    "Unfiltered, it adds kilometres and leaves geofences by night.",
    causes=(
        "parked in a garage, a hall or between high buildings",
        "the antenna lies under metal",
    ),
    actions=(
        "nothing, if it happens at one place alone",
        "if it happens everywhere, let the installer check the antenna's place",
        "have the unit hold its position while the ignition is off, where it can",
    ),
    source="30 to 50 m; AWS Location drops moves below 30 m",
    limits={
        "distance_m": Limit(50.0, "m", "so far from the parking place is still there", least=1.0),
        "distance_m_max": Limit(1000.0, "m", "farther off it is no drift, but a jump or a move", least=1.0),
        "speed_kmh": Limit(5.0, "km/h", "faster than this it was moved"),
    },
    bit=34,
)
UNIT_MISTAKE: Final = Rule(
    id="UNI-01",
    title="Speed in the wrong unit",
    dimension=Dimension.CONSISTENCY,
    severity=Severity.ERROR,
    scope=Scope.DAY,
    check=unit_mistake,
    meaning="All day long the speed that was sent differs from the speed between positions by the factor of a known "
    "unit. Every speed of this device is wrong by it.",
    causes=(
        "the firmware sends another unit than its protocol says",
        "the decoder reads the unit of another model",
        "the unit was changed in the device's configuration",
    ),
    actions=(
        "compare a frame with the maker's protocol: `signalkeep decode`",
        "if all devices of the model show it, the decoder or the firmware is to blame; tell us or the maker",
        "if only this one does, have its configuration set right",
    ),
    source="the units' definitions; the same GT06 frame is read as 60 km/h and as 32.4 knots by two public decoders",
    limits={
        "tolerance": Limit(0.06, "", "share by which the factor may be off", least=0.01, most=0.07),
        "steps_min": Limit(20.0, "", "fewer steps of even driving say nothing", least=5.0),
        "speed_kmh_min": Limit(20.0, "km/h", "slower steps, by their way, are left out", least=1.0),
    },
    bit=39,
)
