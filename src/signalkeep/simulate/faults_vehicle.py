"""Faults of what a vehicle's sensors say: speed, way, fuel, volts, engine, events, and what the unit says of itself.

Each planter changes one value, and leaves alone what it can be compared with: that is how a careful person would
notice. Values of the engine are there only where the unit reads it (`full.FullDrive`). Pure.
"""

from __future__ import annotations

import random
from typing import Any, Final

from signalkeep.simulate.planting import (
    Holds,
    Journey,
    Kind,
    Planter,
    Spot,
    engine_on,
    has_fix,
    in_time,
    moving,
    parked,
    with_value,
)

LARGE_FROM_V: Final = 18.0  # a supply above is one of 24 volts
SENTINELS: Final = (("rpm", 65_535), ("fuel_pct", 255), ("throttle_pct", 255))
CHANGE_KMH: Final = 8.0  # between two records: the engine must have noticed
STARTS_TRIED: Final = 20
UNKNOWN_EVENTS: Final = ("9901", "9917", "9942")


def says(name: str, holds: Holds = in_time, *, least: int = 1, most: int = 8, **others: Any) -> Planter:
    """Some records with this value of an attribute; `others` go with it."""

    def plant(journey: Journey, source: random.Random, magnitude: float) -> Spot | None:
        found = journey.stretch(source, with_value(name, holds) if name != "gnss_jamming" else holds,
                                count=source.randint(least, most))  # fmt: skip
        if found is None:
            return None
        for index in found:
            journey.set(index, **{name: round(magnitude)}, **others)
        return journey.spot(found, round(magnitude))

    return plant


def for_minutes(name: str, holds: Holds, value: Any) -> Planter:
    """For so long (magnitude in seconds), an attribute has this value."""

    def plant(journey: Journey, source: random.Random, seconds: float) -> Spot | None:
        found = _for_s(journey, source, with_value(name, holds), seconds)
        if found is None:
            return None
        for index in found:
            journey.set(index, **{name: value})
        return journey.spot(found, _lasts_s(journey, found))

    return plant


def _for_s(journey: Journey, source: random.Random, holds: Holds, seconds: float) -> range | None:
    """Successive records that last so long, or one interval less where records do not fit exactly."""
    found = journey.stretch(source, holds, lasts_s=seconds)
    if found is None or len(found) == 1 or _lasts_s(journey, found) == seconds:
        return found
    return found[:-1]


def _lasts_s(journey: Journey, found: range) -> float:
    return (journey.records[found[-1]].at - journey.records[found[0]].at).total_seconds()


def speed(journey: Journey, source: random.Random, kmh: float) -> Spot | None:
    """A speed that nothing on wheels has."""
    found = journey.stretch(source, moving(30.0), count=source.randint(1, 2))
    if found is None:
        return None
    for index in found:
        journey.change(index, speed_kmh=float(round(kmh)))
    return journey.spot(found)


def speed_off(journey: Journey, source: random.Random, factor: float) -> Spot | None:
    """For a while the speed does not fit the way."""
    found = journey.stretch(source, moving(45.0, 100.0), count=source.randint(8, 16))
    if found is None:
        return None
    for index in found:
        journey.change(index, speed_kmh=float(round((journey.records[index].signal.speed_kmh or 0.0) * factor)))
    return journey.spot(found)


def wrong_unit(journey: Journey, source: random.Random, factor: float) -> Spot | None:
    """All day the speed is in another unit."""
    del source
    found = range(len(journey.records))
    for index in found:
        journey.change(index, speed_kmh=float(round((journey.records[index].signal.speed_kmh or 0.0) * factor)))
    return journey.spot(found)


def wheels_off(journey: Journey, source: random.Random, kmh: float) -> Spot | None:
    """The wheels' speed is another one than that of the satellites."""
    found = journey.stretch(source, with_value("obd_speed_kmh", moving(40.0)), count=3, lasts_s=source.uniform(70, 200))
    if found is None:
        return None
    sign = source.choice((1, -1)) if kmh < 35 else 1
    for index in found:
        said_kmh = round((journey.records[index].signal.speed_kmh or 0.0) + sign * kmh)
        journey.set(index, obd_speed_kmh=max(0, min(255, said_kmh)))
    return journey.spot(found)


def odometer(sign: int) -> Planter:
    """From here on the odometer is off by so many metres."""

    def plant(journey: Journey, source: random.Random, metres: float) -> Spot | None:
        found = journey.stretch(source, with_value("odometer_m", has_fix), count=2)
        if found is None:
            return None
        records, first = journey.records, found[1]
        passed_m = records[first].signal.attributes["odometer_m"] - records[found[0]].signal.attributes["odometer_m"]
        off_m = sign * round(metres) - (passed_m if sign < 0 else 0)
        for index in range(first, len(records)):
            said = records[index].signal.attributes.get("odometer_m")
            if said is not None:
                journey.set(index, odometer_m=max(0, said + off_m))
        return journey.spot([first], metres)

    return plant


def fuel_noise(journey: Journey, source: random.Random, percent: float) -> Spot | None:
    """The fuel leaps on the way, and comes back."""
    found = journey.stretch(source, with_value("fuel_pct", moving(20.0)), count=source.randint(1, 2))
    if found is None:
        return None
    sign = -1 if journey.records[found[0]].signal.attributes["fuel_pct"] >= percent else 1
    for index in found:
        journey.set(index, fuel_pct=round(journey.records[index].signal.attributes["fuel_pct"] + sign * percent))
    return journey.spot(found)


def drained(journey: Journey, source: random.Random, percent: float) -> Spot | None:
    """Fuel is taken from a parked vehicle."""
    found = journey.stretch(source, with_value("fuel_pct", parked), count=3)
    if found is None or journey.records[found[0]].signal.attributes["fuel_pct"] < percent:
        return None
    for index in range(found[1], len(journey.records)):
        left = journey.records[index].signal.attributes.get("fuel_pct")
        if left is not None:
            journey.set(index, fuel_pct=max(0, left - round(percent)))
    return journey.spot(found[1:], round(percent))


def stuck_fuel(journey: Journey, source: random.Random, kilometres: float) -> Spot | None:
    """The fuel stays the same for so long a way."""
    records = journey.records
    starts = [index for index in range(3, len(records)) if moving(5.0)(records[index])]
    for begin in source.sample(starts, min(STARTS_TRIED, len(starts))):
        held = records[begin].signal.attributes
        for end in range(begin + 1, len(records) - 3):
            if not journey.is_free(records[end].at):
                break
            way_m = records[end].signal.attributes["odometer_m"] - held["odometer_m"]
            if way_m >= kilometres * 1000:
                for index in range(begin, end + 1):
                    journey.set(index, fuel_pct=held["fuel_pct"])
                return journey.spot(range(begin, end + 1), way_m / 1000)
    return None


def supply(holds: Holds, lasts_s: float) -> Planter:
    """The vehicle's supply has this voltage; twice as much where it has 24 volts."""

    def plant(journey: Journey, source: random.Random, volts: float) -> Spot | None:
        found = journey.stretch(source, with_value("power_v", holds), count=4, lasts_s=lasts_s)
        if found is None:
            return None
        is_large = journey.records[found[0]].signal.attributes["power_v"] > LARGE_FROM_V
        for index in found:
            said_v = volts * (2 if is_large else 1) + source.uniform(-0.03, 0.03)
            journey.set(index, power_v=round(max(0.0, said_v), 3))
        return journey.spot(found)

    return plant


def unplugged(journey: Journey, source: random.Random, volts: float) -> Spot | None:
    """The supply is gone, and the unit lives on its own battery, which goes down."""
    found = journey.stretch(source, parked, count=4, lasts_s=1200.0)
    if found is None:
        return None
    for number, index in enumerate(found):
        level = max(3.4, 4.05 - 0.03 * number)
        journey.set(
            index, power_v=round(volts + source.uniform(0, 0.05), 3), battery_v=round(level, 3),
            battery_pct=round(100 * (level - 3.3) / 0.8),
        )  # fmt: skip
    return journey.spot(found)


def unlit(*, towed: bool) -> Planter:
    """The ignition is off although the vehicle moves; `towed`: the engine is really off."""

    def plant(journey: Journey, source: random.Random, seconds: float) -> Spot | None:
        found = _for_s(journey, source, moving(20.0, 200.0), seconds)
        if found is None:
            return None
        gone: dict[str, Any] = {}
        if towed:
            gone = dict.fromkeys(("rpm", "obd_speed_kmh", "engine_load_pct", "throttle_pct", "coolant_c"))
        for index in found:
            journey.set(index, ignition=False, **gone)
        return journey.spot(found, _lasts_s(journey, found))

    return plant


def stuck(name: str) -> Planter:
    """A sensor that stays where it was while the speed, which drives it, changes so often."""

    def plant(journey: Journey, source: random.Random, changes: float) -> Spot | None:
        records = journey.records
        starts = [index for index in range(3, len(records)) if with_value(name, moving(5.0))(records[index])]
        for begin in source.sample(starts, min(STARTS_TRIED, len(starts))):
            changed = 0
            for end in range(begin + 1, len(records) - 3):
                if not journey.is_free(records[end].at):
                    break
                before_kmh, after_kmh = (records[at].signal.speed_kmh or 0.0 for at in (end - 1, end))
                changed += abs(after_kmh - before_kmh) >= CHANGE_KMH and name in records[end].signal.attributes
                if changed >= changes:
                    return _hold(journey, name, [at for at in range(begin, end + 1)
                                                 if name in records[at].signal.attributes], changed)  # fmt: skip
        return None

    return plant


def _hold(journey: Journey, name: str, indexes: list[int], magnitude: float) -> Spot:
    """The value of the first of these records in all of them."""
    held = journey.records[indexes[0]].signal.attributes[name]
    for index in indexes:
        journey.set(index, **{name: held})
    return journey.spot(indexes, magnitude)


def weak_signal(journey: Journey, source: random.Random, share: float) -> Spot | None:
    """In so many of the records there is hardly any network, all over the day."""
    found = [index for index in range(len(journey.records)) if source.random() < share]
    if not found:
        return None
    for index in found:
        journey.set(index, gsm_rssi=source.choice((0, 1, 1)))
    return journey.spot(found)


def sim_changed(journey: Journey, source: random.Random, digits: float) -> Spot | None:
    """From here on another SIM is in the unit."""
    del digits
    found = journey.stretch(source, with_value("iccid", in_time), count=2)
    if found is None:
        return None
    parts = (8_949_000_000 + source.randrange(10**6), source.randrange(10**9))
    for index in range(found[1], len(journey.records)):
        number = "{}{:09d}".format(*parts)
        journey.set(index, iccid=number, iccid_part1=parts[0], iccid_part2=parts[1])
    return journey.spot([found[1]])


def unknown_event(journey: Journey, source: random.Random, records: float) -> Spot | None:
    """An event code that stands in no table."""
    found = journey.stretch(source, in_time, count=round(records))
    if found is None:
        return None
    code = source.choice(UNKNOWN_EVENTS)
    for index in found:
        journey.change(index, event_code=code)
    return journey.spot(found, len(found))


def sentinel(journey: Journey, source: random.Random, records: float) -> Spot | None:
    """A value that means "none" is taken for one."""
    name, value = source.choice(SENTINELS)
    found = journey.stretch(source, with_value(name, engine_on), count=round(records))
    if found is None:
        return None
    for index in found:
        journey.set(index, **{name: value})
    return journey.spot(found, len(found))


def lost_attribute(journey: Journey, source: random.Random, share: float) -> Spot | None:
    """All day an attribute is missing that was always there."""
    del source
    found = range(len(journey.records))
    for index in found:
        journey.set(index, fuel_pct=None)
    return journey.spot(found, share)


def new_attribute(journey: Journey, source: random.Random, records: float) -> Spot | None:
    """An attribute that no such unit has sent before."""
    found = journey.stretch(source, in_time, count=round(records))
    if found is None:
        return None
    for index in found:
        journey.set(index, io9999=source.randrange(200))
    return journey.spot(found, len(found))


KINDS: Final = (
    Kind(
        "speed_range", "a speed beyond all vehicles", "km/h", speed,
        above=((320, 600),), near=((225, 280),),
    ),
    Kind(
        "speed_mismatch", "the speed does not fit the way", "times the true one", speed_off,
        above=((2.0, 2.4), (0.02, 0.2)), near=((1.35, 1.6),), below=((0.9, 1.1),),
    ),
    Kind(
        "wrong_unit", "all day, a speed in knots, miles or metres per second", "times the true one",
        wrong_unit,
        above=((0.54, 0.54), (0.6214, 0.6214), (0.2778, 0.2778), (1.852, 1.852)), below=((0.97, 1.03),), whole=True,
    ),
    Kind(
        "gps_obd_speed", "wheels and satellites disagree on the speed", "km/h", wheels_off,
        above=((18, 60),), near=((8, 12),), below=((2, 5),),
    ),
    Kind(
        "odometer_decrease", "the odometer goes back", "m", odometer(-1),
        above=((1000, 500_000),), near=((2, 60),), lasts=True,
    ),
    Kind(
        "odometer_jump", "the odometer leaps ahead", "m", odometer(1),
        above=((8000, 500_000),), near=((400, 2500),), below=((20, 120),), lasts=True,
    ),
    Kind(
        "fuel_jump", "the fuel leaps on the way", "per cent", fuel_noise,
        above=((18, 55),), near=((8, 13),), below=((2, 5),),
    ),
    Kind(
        "fuel_drain", "fuel is gone from a parked vehicle", "per cent", drained,
        above=((18, 55),), near=((8, 13),), below=((1, 4),), lasts=True,
    ),
    Kind(
        "fuel_stuck", "the fuel stays the same on a long way", "km", stuck_fuel,
        above=((75, 130),), near=((42, 58),), below=((8, 25),),
    ),
    Kind(
        "low_voltage", "an empty vehicle battery", "V of 12", supply(parked, 900.0),
        above=((9.5, 11.4),), near=((11.7, 12.2),), below=((12.35, 12.5),),
    ),
    Kind(
        "over_voltage", "a regulator that fails", "V of 12", supply(engine_on, 120.0),
        above=((17.0, 20.0),), near=((15.6, 16.4),), below=((14.3, 15.0),),
    ),
    Kind("unplugged", "the unit is cut off from the supply", "V", unplugged, above=((0.0, 2.0),)),
    Kind(
        "low_battery", "the unit's own battery is empty", "per cent", says("battery_pct", least=10, most=40),
        above=((2, 12),), near=((17, 23),), below=((35, 70),),
    ),
    Kind(
        "ignition_off_moving", "ignition off on the way", "s", unlit(towed=False),
        above=((150, 500),), near=((45, 80),), below=((5, 25),),
    ),
    Kind("tow", "moved with the engine off", "s", unlit(towed=True), above=((150, 500),), near=((45, 80),)),
    Kind(
        "rpm_zero", "no revolutions on the way", "s", for_minutes("rpm", moving(25.0), 0),
        above=((90, 400),), near=((20, 40),), below=((1, 10),),
    ),
    Kind(
        "coolant_range", "a coolant that boils away", "°C", says("coolant_c", engine_on),
        above=((145, 215),), near=((124, 136),), below=((98, 112),),
    ),
    Kind(
        "rpm_range", "more revolutions than an engine stands", "rpm", says("rpm", engine_on),
        above=((9500, 30_000),), near=((7500, 8500),), below=((4000, 6000),),
    ),
    Kind(
        "percent_range", "more than all of the load", "per cent", says("engine_load_pct", engine_on),
        above=((110, 250),), below=((90, 100),),
    ),
    Kind(
        "constant_sensor", "revolutions that never change", "changes of speed", stuck("rpm"),
        above=((90, 160),), near=((35, 70),), below=((3, 15),),
    ),
    Kind("jamming", "the receiver says it is jammed", "grade", says("gnss_jamming", most=20), above=((1, 2),)),
    Kind(
        "weak_signal", "all day, hardly any mobile network", "share of the records", weak_signal,
        above=((0.9, 1.0),), near=((0.2, 0.8),), below=((0.01, 0.05),), whole=True,
    ),
    Kind("sim_changed", "another SIM", "SIMs", sim_changed, above=((1, 1),), lasts=True),
    Kind("unknown_event", "an event code that stands in no table", "records", unknown_event, above=((1, 5),)),
    Kind("sentinel", "a value that means none", "records", sentinel, above=((1, 10),)),
    Kind("lost_attribute", "all day, an attribute is missing", "share", lost_attribute, above=((1, 1),), whole=True),
    Kind("new_attribute", "an attribute never seen before", "records", new_attribute, above=((1, 20),)),
)  # fmt: skip
