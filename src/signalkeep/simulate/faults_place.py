"""Faults of the position: it is elsewhere, it is none, it stands still, or the receiver itself has doubts.

Each planter changes what a record says of its place and quality, and nothing else. Magnitudes straddle what tools and
makers call wrong; where a fault has no degrees (a swap is a swap) there is only the level above. Pure.
"""

from __future__ import annotations

import math
import random
from typing import Any, Final

from signalkeep.simulate.planting import (
    Holds,
    Journey,
    Kind,
    Made,
    Planter,
    Spot,
    away,
    has_fix,
    moving,
    parked,
    seconds_between,
)

TRUE_MOVING_KMH: Final = 5.0
STARTS_TRIED: Final = 20
FACTORY: Final = (37.3875111, -121.97232)  # in the example of SiRF's command to set a receiver up
CLONE_AWAY_M: Final = (40_000.0, 400_000.0)


def teleport(journey: Journey, source: random.Random, implied_kmh: float) -> Spot | None:
    """One record at right angles to the way, so far off that getting there would have taken this speed."""
    found = journey.stretch(source, lambda made: has_fix(made) and (made.signal.speed_kmh or 0) < 70, count=3)
    if found is None:
        return None
    index = found[1]
    step_s = seconds_between(journey.records[index - 1], journey.records[index])
    signal = journey.records[index].signal
    side_rad = math.radians((signal.course_deg or 0.0) + source.choice((90, -90)))
    off_m = implied_kmh / 3.6 * step_s
    journey.change(index, **away(signal, north_m=off_m * math.cos(side_rad), east_m=off_m * math.sin(side_rad)))
    return journey.spot([index])


def frozen(journey: Journey, source: random.Random, repeats: float) -> Spot | None:
    """The place is held while the vehicle drives on."""
    count = round(repeats)
    found = journey.stretch(source, moving(15.0), count=count + 1)
    if found is None:
        return None
    held = journey.records[found[0]].signal
    for index in found[1:]:
        journey.change(index, latitude=held.latitude, longitude=held.longitude, altitude_m=held.altitude_m)
    return journey.spot(found, count)


def everywhere(change: str) -> Planter:
    """The place of some records is turned into another one."""

    def plant(journey: Journey, source: random.Random, magnitude: float) -> Spot | None:
        found = journey.stretch(source, has_fix, count=round(magnitude))
        if found is None:
            return None
        signs = source.choice(((-1, 1), (1, -1), (-1, -1)))
        for index in found:
            journey.change(index, **_elsewhere(change, journey.records[index], signs, source))
        return journey.spot(found, len(found))

    return plant


def _elsewhere(change: str, made: Made, signs: tuple[int, int], source: random.Random) -> dict[str, Any]:
    latitude, longitude = made.signal.latitude, made.signal.longitude
    assert latitude is not None
    assert longitude is not None
    match change:
        case "swapped":
            return {"latitude": longitude, "longitude": latitude}
        case "sign":
            return {"latitude": signs[0] * latitude, "longitude": signs[1] * longitude}
        case "none":
            return {"latitude": None, "longitude": None}
        case "null":
            return {"latitude": round(source.uniform(0, 0.004), 7), "longitude": round(source.uniform(0, 0.004), 7)}
        case "factory":
            return {"latitude": FACTORY[0], "longitude": FACTORY[1]}
        case _:
            off = source.choice(("latitude", "longitude"))
            least = 91.0 if off == "latitude" else 181.0
            return {off: round(source.uniform(least, 210.0) * source.choice((1, -1)), 7)}


def doubted(name: str, holds: Holds = has_fix, *, is_column: bool = False, decimals: int = 0) -> Planter:
    """Some records with this value, in the column or the attribute of that name."""

    def plant(journey: Journey, source: random.Random, magnitude: float) -> Spot | None:
        found = journey.stretch(source, holds, count=source.randint(3, 20))
        if found is None:
            return None
        value: float = round(magnitude, decimals) if decimals else round(magnitude)
        for index in found:
            if is_column:
                journey.change(index, **{name: float(value) if name != "satellites" else value})
            else:
                journey.set(index, **{name: value})
        return journey.spot(found, value)

    return plant


def no_fix(journey: Journey, source: random.Random, minutes: float) -> Spot | None:
    """No fix for so many minutes of driving; the last place is reported, as units do."""
    records = journey.records
    starts = [index for index in range(3, len(records)) if moving(TRUE_MOVING_KMH)(records[index])]
    for begin in source.sample(starts, min(STARTS_TRIED, len(starts))):
        moved_s = 0.0
        for end in range(begin + 1, len(records) - 3):
            if not journey.is_free(records[end].at):
                break
            if (records[end - 1].signal.speed_kmh or 0) > TRUE_MOVING_KMH:
                moved_s += seconds_between(records[end - 1], records[end])
            if moved_s >= minutes * 60:
                return lose_fix(journey, range(begin, end + 1), moved_s / 60)
    return None


def lose_fix(journey: Journey, indexes: range, magnitude: float) -> Spot:
    """These records have no fix, and say where the last one was."""
    held = journey.records[indexes[0] - 1].signal
    for index in indexes:
        journey.change(
            index, fix_valid=False, satellites=0, speed_kmh=0.0,
            latitude=held.latitude, longitude=held.longitude, altitude_m=held.altitude_m, course_deg=held.course_deg,
        )  # fmt: skip
        journey.set(index, hdop=None)
    return journey.spot(indexes, magnitude)


def parked_drift(journey: Journey, source: random.Random, radius_m: float) -> Spot | None:
    """A parked vehicle seems to wander around."""
    found = journey.stretch(source, parked, count=6, lasts_s=1800.0)
    if found is None:
        return None
    turn_rad = source.uniform(0, math.tau)
    for number, index in enumerate(found):
        out_m = radius_m * (1.0 if number == 1 else source.uniform(0.4, 1.0))
        turn_rad += source.uniform(0.5, 2.0)
        place = away(
            journey.records[index].signal, north_m=out_m * math.cos(turn_rad), east_m=out_m * math.sin(turn_rad)
        )
        journey.change(index, **place)
    return journey.spot(found)


def cloned(journey: Journey, source: random.Random, alternations: float) -> Spot | None:
    """A second unit with the same number reports from elsewhere, in turn with this one."""
    found = journey.stretch(source, has_fix, count=round(alternations) + 1)
    if found is None:
        return None
    away_m, turn_rad = source.uniform(*CLONE_AWAY_M), source.uniform(0, math.tau)
    others = []
    for index in found[:-1]:
        made = journey.records[index]
        between = (journey.records[index + 1].at - made.at) / 2
        north_m, east_m = away_m * math.cos(turn_rad), away_m * math.sin(turn_rad)
        others.append((index, made._replace(at=made.at + between, leaves_at=made.leaves_at + between), north_m, east_m))
    for passed, (index, made, north_m, east_m) in enumerate(others):
        at = index + 1 + passed
        journey.records.insert(at, made)
        journey.change(at, **away(made.signal, north_m=north_m, east_m=east_m), event_code=None)
        assert made.signal.wire_time is not None
        journey.shift_clock(at, seconds_between(journey.records[at - 1], made))
    return journey.spot(range(found.start, found.stop + len(others)), len(others))


KINDS: Final = (
    Kind(
        "teleport", "one position far off the way, and back", "km/h to get there", teleport,
        above=((400, 5000),), near=((150, 260),), below=((75, 120),),
    ),
    Kind(
        "frozen", "the position is held while the vehicle drives on", "repeats", frozen,
        above=((12, 40),), near=((4, 6),), below=((1, 2),),
    ),
    Kind("swapped", "latitude and longitude are swapped", "records", everywhere("swapped"), above=((3, 30),)),
    Kind("sign_flip", "a sign of the position is lost", "records", everywhere("sign"), above=((1, 20),)),
    Kind("null_island", "a position at 0, 0 that claims a fix", "records", everywhere("null"), above=((1, 20),)),
    Kind(
        "factory_default", "the place where the maker tests receivers", "records", everywhere("factory"),
        above=((1, 20),),
    ),
    Kind("off_globe", "a position that is none", "records", everywhere("off"), above=((1, 10),)),
    Kind("missing_position", "a fix without a position", "records", everywhere("none"), above=((1, 10),)),
    Kind(
        "few_satellites", "a fix from too few satellites", "satellites", doubted("satellites", is_column=True),
        above=((1, 2),), near=((3, 4),), below=((5, 6),),
    ),
    Kind(
        "high_hdop", "satellites that stand badly", "HDOP", doubted("hdop", decimals=1),
        above=((4, 20),), near=((1.9, 2.6),), below=((1.4, 1.7),),
    ),
    Kind(
        "altitude_range", "an altitude where nobody drives", "m", doubted("altitude_m", is_column=True),
        above=((12_000, 30_000), (-4000, -1000)), near=((8000, 9500), (-600, -420)),
    ),
    Kind(
        "course_range", "a course beyond the full circle", "degrees", doubted("course_deg", is_column=True),
        above=((362, 720),), below=((350, 360),),
    ),
    Kind(
        "no_fix", "the vehicle drives without a fix", "minutes of driving", no_fix,
        above=((80, 150),), near=((50, 70),), below=((5, 30),),
    ),
    Kind(
        "parked_drift", "a parked vehicle seems to wander", "m", parked_drift,
        above=((90, 400),), near=((20, 60),), below=((3, 9),),
    ),
    Kind(
        "cloned", "two units use one number, at two places in turn", "alternations", cloned,
        above=((8, 40),), near=((2, 3),),
    ),
)  # fmt: skip
