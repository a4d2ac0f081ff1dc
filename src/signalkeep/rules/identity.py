"""ID: is a device the one that it says, once, and with the parts that it had yesterday?

None of it keeps a device out: a number of another form works as well as an IMEI.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from signalkeep import limits as bounds
from signalkeep.rules.contract import Answer, Dimension, Limit, Limits, Rule, Scope, Severity
from signalkeep.rules.days import DayHit, DeviceDay
from signalkeep.rules.fleet import FleetHit, FleetView
from signalkeep.rules.reading import Point, Reading, Recent

IMEI_DIGITS: Final = 15
IMEI_LENGTHS: Final = (IMEI_DIGITS, IMEI_DIGITS + 1)  # with the software version there is no check digit, but two more
DIGITS_ALIKE_MIN: Final = 12  # with fewer it is a number of another kind
PARTS: Final = ("iccid", "vin", "firmware", "model", "iccid_part1", "iccid_part2")


def imei_form(day: DeviceDay, _: Limits) -> Iterator[DayHit]:
    """ID-01."""
    number = day.device_number
    digits = [int(char) for char in number if char in "0123456789"]
    if len(number) not in IMEI_LENGTHS or len(digits) < DIGITS_ALIKE_MIN:
        return
    if len(digits) < len(number):
        yield DayHit((), f"{number} has {len(number)} characters as an IMEI, but not only digits")
    elif len(set(digits)) == 1:
        yield DayHit((), f"{number} is one digit all over")
    elif len(digits) == IMEI_DIGITS and (check := check_digit(digits[:-1])) != digits[-1]:
        yield DayHit((), f"{number} ends with {digits[-1]}, where an IMEI would have {check}")


def check_digit(digits: list[int]) -> int:
    """The digit that the Luhn formula asks for behind these (3GPP TS 23.003, annex B)."""
    doubled = (digit if place % 2 else digit * 2 for place, digit in enumerate(reversed(digits)))
    return -sum(digit // 10 + digit % 10 for digit in doubled) % 10


def unregistered(view: FleetView, limits: Limits) -> Iterator[FleetHit]:
    """ID-02."""
    for device_number, records in view.unknown:
        if records >= limits["records_min"]:
            yield FleetHit(device_number, f"{records} record{'s wait' if records != 1 else ' waits'} in quarantine")


def in_two_places(day: DeviceDay, limits: Limits) -> Iterator[DayHit]:
    """ID-03."""
    here: Point | None = None
    there: Point | None = None  # where it was before it jumped
    jumps: list[int] = []
    for place, reading in enumerate(day.readings):
        if not _is_sure(reading):
            continue
        if here is None or _is_within_reach(here, reading, limits):
            here = _point(reading)
            continue
        if there is None or not _is_back(there, here, reading, limits):
            yield from _clone(day, jumps, here, there, limits)
            jumps = []
        jumps.append(place)
        here, there = _point(reading), here
    yield from _clone(day, jumps, here, there, limits)


def _is_sure(reading: Reading) -> bool:
    """Whether it says where it was when: a clock that is ahead puts a reading between those of a later hour."""
    if reading.time_s is None or reading.time_s > reading.received_s + bounds.POSITION_FUTURE_S_MAX:
        return False
    return reading.fix_valid and reading.on_globe


def _is_within_reach(point: Point, reading: Reading, limits: Limits) -> bool:
    assert reading.time_s is not None
    away_m = point.distance_m(reading)
    return away_m <= max(limits["distance_m"], limits["speed_kmh_max"] / 3.6 * (reading.time_s - point.time_s))


def _is_back(there: Point, here: Point, reading: Reading, limits: Limits) -> bool:
    """Whether a jump goes on where the device was before the last one, instead of to some third place."""
    assert reading.time_s is not None
    if reading.time_s - there.time_s > limits["window_s"] or not _is_within_reach(there, reading, limits):
        return False
    return there.distance_m(reading) * limits["times_nearer"] <= here.distance_m(reading)


def _clone(
    day: DeviceDay, jumps: list[int], here: Point | None, there: Point | None, limits: Limits
) -> Iterator[DayHit]:
    if len(jumps) < limits["alternations"] or here is None or there is None:
        return
    apart_km = there.distance_m(day.readings[jumps[-1]]) / 1000
    places = " and ".join(f"{point.latitude:.4f}, {point.longitude:.4f}" for point in (there, here))
    yield DayHit(tuple(jumps), f"{len(jumps)} times from one place to another, {apart_km:.4g} km apart: {places}")


def _point(reading: Reading) -> Point:
    assert reading.time_s is not None
    assert reading.latitude is not None
    assert reading.longitude is not None
    return Point(reading.time_s, reading.latitude, reading.longitude, reading.speed_kmh)


def other_part(reading: Reading, recent: Recent, _: Limits) -> Answer:
    """ID-04."""
    get, known = reading.attributes.get, recent.known
    answer: Answer = None
    for name in PARTS:
        value = get(name)
        if value is None or name not in known:
            continue
        before = known[name][1]
        if value == before or not value or not before:
            answer = answer or False
        else:
            change = f"{name} was {before}, is {value}"
            answer = f"{answer}; {change}" if answer else change
    return answer


RULES: Final = (
    Rule(
        id="ID-01",
        title="Device number is no IMEI",
        dimension=Dimension.VALIDITY,
        severity=Severity.INFO,
        scope=Scope.DAY,
        check=imei_form,
        meaning="The device number is as long as an IMEI, but its form or check digit is not that of one. The device "
        "works all the same; the number may have been typed in wrongly, or made up.",
        causes=(
            "a digit was mistyped when the device was set up",
            "the maker or a test rig gave it a number of its own",
            "somebody imitates a device",
        ),
        actions=(
            "compare with the label on the unit",
            "if the number is wrong, have it set right, and register the device anew: `signalkeep devices add`",
        ),
        source="3GPP TS 23.003, annex B",
    ),
    Rule(
        id="ID-02",
        title="Device that nobody registered",
        dimension=Dimension.COMPLETENESS,
        severity=Severity.WARNING,
        scope=Scope.FLEET,
        check=unregistered,
        meaning="A device sends under a number that the registry does not have. Its records are kept in quarantine and "
        "become signals once it is registered.",
        causes=(
            "a new device that was installed before it was registered",
            "a typing error in the registry or in the device",
            "a device of somebody else that was given our address",
        ),
        actions=(
            "look at what it sends: `signalkeep quarantine list`",
            "if it is ours, register it: `signalkeep devices add` releases what waits",
            "else discard its records: `signalkeep quarantine discard`",
        ),
        source="definition",
        limits={"records_min": Limit(1.0, "", "fewer records are not worth a word")},
    ),
    Rule(
        id="ID-03",
        title="One number, two places",
        dimension=Dimension.UNIQUENESS,
        severity=Severity.ERROR,
        scope=Scope.DAY,
        check=in_two_places,
        meaning="The positions of the device alternate between two places, faster than any vehicle travels. Two "
        "devices use its number, so its track, distances and alarms are a mixture of both.",
        causes=(
            "a unit was replaced, and the old one still sends from the workshop",
            "a test rig or simulator with the number of a real device is still on",
            "a cloned device",
        ),
        actions=(
            "find out who has the units: `signalkeep devices show`",
            "have one of them switched off or given a number of its own",
        ),
        source="field knowledge",
        limits={
            "alternations": Limit(3.0, "", "so many times from place to place", least=2.0),
            "speed_kmh_max": Limit(200.0, "km/h", "faster than this is no travel", least=1.0),
            "distance_m": Limit(1000.0, "m", "nearer places are one"),
            "times_nearer": Limit(4.0, "", "it lands so many times nearer to the place before", least=1.0),
            "window_s": Limit(3600.0, "s", "it must be back at a place within this time"),
        },
    ),
    Rule(
        id="ID-04",
        title="Another SIM, firmware, vehicle or model",
        dimension=Dimension.CONSISTENCY,
        severity=Severity.WARNING,
        scope=Scope.RECENT,
        check=other_part,
        needs=frozenset(PARTS),
        meaning="The device names another SIM card, firmware, vehicle or model than before. It was serviced, or "
        "somebody has changed something that should not be changed.",
        causes=(
            "a service: new SIM card, firmware update, or the unit was put into another vehicle",
            "a unit with two SIM cards has changed from one to the other",
            "the SIM card was stolen and is used in another unit, or the unit was swapped",
        ),
        actions=(
            "ask who services the vehicle whether this was meant",
            "if the unit is in another vehicle now, say so: `signalkeep devices assign`",
            "if nobody knows of it, have the carrier block the SIM card",
        ),
        source="field knowledge",
        bit=52,
        tracks=PARTS,
    ),
)
