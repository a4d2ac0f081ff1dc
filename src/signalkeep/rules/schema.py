"""SCH: does a signal have what it should have, in the form that it should have?

Nothing is set right here: a value that means "none" stays as it was sent, and the rule says that it is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import nextafter
from typing import Any, Final

from signalkeep.rules.contract import Answer, Dimension, Limit, Limits, Rule, Scope, Severity
from signalkeep.rules.days import DayHit, DeviceDay
from signalkeep.rules.reading import Reading
from signalkeep.rules.screen import INF, Range

NAMES_SHOWN_MAX: Final = 8
TEXT_SHOWN_MAX: Final = 20


def required(reading: Reading, limits: Limits) -> Answer:
    """SCH-01. No position is in order where the device does not claim a fix, and nothing else says that it had one."""
    missing = []
    if reading.time_s is None and reading.wire_s is None:
        missing.append("no time")
    if reading.latitude is None or reading.longitude is None:
        if reading.latitude is not None or reading.longitude is not None:
            missing.append("latitude without longitude" if reading.longitude is None else "longitude without latitude")
        elif reading.fix_valid:
            missing.append("a fix without a position")
        elif (reading.speed_kmh or 0) > limits["speed_kmh"]:
            missing.append(f"no position at {reading.speed_kmh:g} km/h")
        elif (reading.satellites or 0) >= limits["satellites_min"]:
            missing.append(f"no position from {reading.satellites} satellites")
    return ", ".join(missing) if missing else False


def changed_attributes(day: DeviceDay, limits: Limits) -> Iterator[DayHit]:
    """SCH-02."""
    today = set[str]().union(*(reading.attributes for reading in day.readings))
    known = day.model_attributes
    if known:
        new = today - known - day.past.present.keys()
        if new:
            yield DayHit((), f"new: {_listed(new)}")
    past = day.past
    if past.days < limits["days_min"] or past.signals < limits["signals_min"]:
        return
    if sum(map(_is_on_the_road, day.readings)) < limits["signals_min"]:
        return  # a vehicle at rest says less, and that is no change
    usual = {name for name, count in past.present.items() if count > limits["share_min"] * past.signals}
    gone = usual - today
    if gone:
        yield DayHit((), f"gone: {_listed(gone)}")


def _is_on_the_road(reading: Reading) -> bool:
    ignition = reading.truth("ignition")
    return ignition if ignition is not None else (reading.speed_kmh or 0) > 0


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - NAMES_SHOWN_MAX
    return ", ".join(ordered[:NAMES_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def unknown_event(reading: Reading, _: Limits) -> Answer:
    """SCH-03."""
    known = reading.event_known
    if known is None:
        return None
    return False if known else f"event code {reading.event_code} of protocol {reading.protocol} has no meaning here"


# What means "no value" or "error", by attribute, as it comes out after scaling. Only numbers that cannot be meant:
# J1939 keeps the highest ones of each size for it (all bits set: not available; one less in the first byte: error),
# others send the highest or lowest of the type, or -999.
_COMMON: Final = frozenset({-999, -9999, -32768, 65535, 2147483647, -2147483648, 4294967295, 2**64 - 1})
_PER_CENT: Final = _COMMON | {255, 102, 101.6, 127.5}  # 255 * 0.4, 254 * 0.4, 255 / 2
_DEGREES: Final = _COMMON | {215, 214, 1774.96875, -273, -127}  # a byte less 40, two bytes / 32 less 273
_VOLTS: Final = (_COMMON | {65.535, 655.35, 6553.5, 3276.75}) - {-32768}
_TRUTH: Final[frozenset[float]] = frozenset()  # true or false, also as 1 or 0: there is no number for none
_AS_TRUTH: Final[frozenset[float]] = frozenset({0, 1})

SENTINELS: Final[dict[str, frozenset[float]]] = {
    "rpm": _COMMON | {8191.875, 16383.75, 16383},
    "obd_speed_kmh": _COMMON | {255, 255.99609375},
    "coolant_c": _DEGREES,
    "intake_temp_c": _DEGREES,
    "ambient_c": _DEGREES,
    "oil_c": _DEGREES | {255},
    "temp1_c": _DEGREES - {215, 214},
    "temp2_c": _DEGREES - {215, 214},
    "temp3_c": _DEGREES - {215, 214},
    "temp4_c": _DEGREES - {215, 214},
    "fuel_pct": _PER_CENT,
    "engine_load_pct": _PER_CENT - {102, 101.6, 127.5},  # a J1939 engine may give more than its nominal torque
    "throttle_pct": _PER_CENT,
    "battery_pct": _COMMON | {255, -1},
    "fuel_l": _COMMON | {6553.5, 429496729.5},
    "fuel_used_l": _COMMON | {2147483647.5, 429496729.5},
    "fuel_rate_lph": _COMMON | {3276.75, 3212.75, 655.35, 6553.5},
    "odometer_m": _COMMON - {65535} | {21474836475, 536870911875, 4294967295000},
    "trip_m": _COMMON - {65535} | {536870911875, 21474836475, 4294967295000},
    "engine_hours_s": _COMMON - {65535} | {257698037700, 773094113100, 15461882262000},
    "maf_gps": _COMMON | {655.35},
    "power_v": _VOLTS,
    "battery_v": _VOLTS,
    **dict.fromkeys(("ignition", "motion", "charging", "blocked", "armed", "door"), _TRUTH),
}


def _sound_range(sentinels: frozenset[float]) -> Range | frozenset[float]:
    """Around 1, up to the next numbers that stand for none."""
    if not sentinels:
        return _AS_TRUTH
    below = max((value for value in sentinels if value < 1), default=-INF)
    above = min((value for value in sentinels if value > 1), default=INF)
    return nextafter(below, INF), nextafter(above, -INF)


SOUND: Final = {name: _sound_range(sentinels) for name, sentinels in SENTINELS.items()}


def no_value(reading: Reading, _: Limits) -> Answer:
    """SCH-04. Numbers that are not finite need no look: ingest does not let them become signals."""
    find, looked_at, found = SENTINELS.get, False, ""
    for name, value in reading.attributes.items():
        sentinels = find(name)
        if sentinels is None:
            continue
        kind = type(value)
        if kind is float or kind is int:
            if value not in sentinels and (sentinels or value in _AS_TRUTH):
                looked_at = True
                continue
        elif kind is bool and not sentinels:
            looked_at = True
            continue
        elif value is None:
            continue
        found = f"{found}; {_described(name, value)}" if found else _described(name, value)
    return found or (False if looked_at else None)


def _described(name: str, value: Any) -> str:
    sentinels = SENTINELS[name]
    if type(value) in (int, float) and sentinels:
        return f"{name} is {value!r}, which stands for no value"
    shown = repr(value)
    expected = "a number" if sentinels else "true or false"
    return f"{name} is {shown[:TEXT_SHOWN_MAX]}{'...' if len(shown) > TEXT_SHOWN_MAX else ''}, not {expected}"


RULES: Final = (
    Rule(
        id="SCH-01",
        title="Required field missing",
        dimension=Dimension.COMPLETENESS,
        severity=Severity.ERROR,
        scope=Scope.SIGNAL,
        check=required,
        quiet=lambda _: {},
        meaning="The signal has no time, or half a position, or none although the device had a fix. To send no "
        "position without a fix is in order.",
        causes=(
            "the decoder does not know this message of this firmware",
            "an integrator's program leaves a field out or names it otherwise",
        ),
        actions=(
            "compare the raw bytes with the maker's protocol: `signalkeep decode`",
            "if an integrator sends the data, have them send what is missing",
        ),
        source="definition; four satellites are the least for a fix in space",
        limits={
            "satellites_min": Limit(4.0, "", "with so many there should be a position"),
            "speed_kmh": Limit(5.0, "km/h", "who measures a higher speed should know the position"),
        },
        bit=8,
    ),
    Rule(
        id="SCH-02",
        title="New or vanished attribute",
        dimension=Dimension.CONSISTENCY,
        severity=Severity.INFO,
        scope=Scope.DAY,
        check=changed_attributes,
        meaning="The device sends something that no device of its model has sent before, or has stopped sending what "
        "nearly all of its signals had. Reports that need the value change without a word.",
        causes=(
            "a firmware update or another configuration",
            "a sensor or the connection to the vehicle's bus has failed",
            "the device is of another model than the registry says: numbers of elements differ between them",
        ),
        actions=(
            "ask who configures the devices whether this was meant",
            "compare model and firmware with the registry: `signalkeep devices show`",
            "if a sensor is gone, have the installer check its wiring",
        ),
        source="Elementary's test of schema changes; Teltonika: supply voltage is element 66 or 800, by platform",
        limits={
            "share_min": Limit(0.95, "", "of the signals before had it", most=1.0),
            "days_min": Limit(3.0, "days", "fewer days before say nothing of what is usual", most=7.0),
            "signals_min": Limit(50.0, "", "before, and today with the ignition on"),
        },
    ),
    Rule(
        id="SCH-03",
        title="Unknown event code",
        dimension=Dimension.VALIDITY,
        severity=Severity.WARNING,
        scope=Scope.SIGNAL,
        check=unknown_event,
        quiet=lambda _: {},
        meaning="The device reports an event that the table of event codes does not have, so nobody is told what has "
        "happened.",
        causes=(
            "a new firmware, or a function that was switched on in the device",
            "a code that your own devices use and that was not added yet",
        ),
        actions=(
            "look the code up in the maker's protocol",
            "say what it means: `signalkeep events add`",
        ),
        source="definition; the talk's error type 2",
        bit=9,
        error_type=2,
    ),
    Rule(
        id="SCH-04",
        title="No value, or of the wrong type",
        dimension=Dimension.VALIDITY,
        severity=Severity.WARNING,
        scope=Scope.SIGNAL,
        check=no_value,
        quiet=lambda _: SOUND,
        needs=frozenset(SENTINELS),
        meaning="An attribute carries the number that stands for no value, or text where a number belongs. Read as a "
        "value it spoils sums and averages.",
        causes=(
            "the vehicle's bus does not give this value, and the device passes on what it got instead",
            "the sensor is not connected",
            "an integrator's program sends numbers as text",
        ),
        actions=(
            "if it is all devices of one model, switch the element off in their configuration",
            "if it is one device, have the installer check sensor and wiring",
            "if an integrator sends the data, have them leave such values out",
        ),
        source="SAE J1939-71: ranges for not available and error; DS18B20; field knowledge",
        bit=10,
    ),
)
