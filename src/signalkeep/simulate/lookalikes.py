"""What only looks like a fault: tunnels, ferries, tows, cold starts, hours without network. A judge must stay calm.

Each is a thing that vehicles do on ordinary days. Labelled so that false alarms on them can be counted. Pure.
"""

from __future__ import annotations

import math
import random
from typing import Final

from signalkeep.simulate.faults_place import lose_fix
from signalkeep.simulate.planting import (
    Journey,
    Kind,
    Planter,
    Spot,
    away,
    engine_on,
    has_fix,
    in_time,
    moving,
    parked,
    seconds_between,
)

ROUGH_SHARES: Final = (1.0, 0.6, 0.25)  # of its first error, while a fix settles
COLD_RECORDS: Final = (2, 4)  # without a fix after a cold start


def tunnel(journey: Journey, source: random.Random, seconds: float) -> Spot | None:
    """No fix for a while at ordinary speed."""
    found = journey.stretch(source, moving(30.0), count=3, lasts_s=seconds)
    return None if found is None else lose_fix(journey, found[1:], seconds)


def cold_start(journey: Journey, source: random.Random, metres: float) -> Spot | None:
    """The engine has just been started: no fix at first, then one that settles within some records."""
    starts = [
        index
        for index in range(3, len(journey.records) - 12)
        if parked(journey.records[index - 1])
        and all(engine_on(journey.records[later]) and has_fix(journey.records[later])
                for later in range(index, index + 8))
        and journey.is_free(journey.records[index].at)
    ]  # fmt: skip
    if not starts:
        return None
    begin, without = source.choice(starts), source.randint(*COLD_RECORDS)
    lose_fix(journey, range(begin, begin + without), metres)
    turn_rad = source.uniform(0, math.tau)
    for number, share in enumerate(ROUGH_SHARES):
        index = begin + without + number
        north_m, east_m = metres * share * math.cos(turn_rad), metres * share * math.sin(turn_rad)
        journey.change(index, **away(journey.records[index].signal, north_m=north_m, east_m=east_m))
    return journey.spot(range(begin, begin + without + len(ROUGH_SHARES)), metres)


def backlog(journey: Journey, source: random.Random, minutes: float) -> Spot | None:
    """No network for a while: all comes afterwards, in its order."""
    found = journey.stretch(source, in_time, count=3, lasts_s=minutes * 60)
    if found is None:
        return None
    end = journey.records[found[-1]].at
    for index in found:
        journey.delay(index, (end - journey.records[index].at).total_seconds() + 1.0 + 0.01 * (index - found[0]))
    return journey.spot(found, minutes)


def carried(*, least_kmh: float, most_kmh: float) -> Planter:
    """While the unit sleeps with the engine off, the vehicle is taken elsewhere, and goes on from there."""

    def plant(journey: Journey, source: random.Random, minutes: float) -> Spot | None:
        found = journey.stretch(source, parked, count=3, lasts_s=minutes * 60)
        if found is None:
            return None
        first, last = journey.records[found[0]], journey.records[found[-1]]
        way_m = seconds_between(first, last) * source.uniform(least_kmh, most_kmh) / 3.6
        turn_rad = source.uniform(0, math.tau)
        for index in range(found[-1], len(journey.records)):
            signal = journey.records[index].signal
            if signal.latitude is not None and signal.longitude is not None:
                place = away(signal, north_m=way_m * math.cos(turn_rad), east_m=way_m * math.sin(turn_rad))
                journey.change(index, **place)
        spot = journey.spot([found[0], found[-1]], seconds_between(first, last) / 60)
        journey.remove(range(found.start + 1, found.stop - 1))
        return spot

    return plant


KINDS: Final = (
    Kind("tunnel", "no fix at ordinary speed", "s", tunnel, below=((30, 180),), look_alike=True),
    Kind("cold_start", "a first fix that has to settle", "m", cold_start, below=((8, 28),), look_alike=True),
    Kind("backlog", "an hour's records at once, in their order", "minutes", backlog, below=((8, 60),), look_alike=True),
    Kind(
        "ferry", "carried over water with the engine off", "minutes", carried(least_kmh=15, most_kmh=35),
        below=((35, 90),), look_alike=True, lasts=True,
    ),
    Kind(
        "tow_asleep", "towed while the unit sleeps", "minutes", carried(least_kmh=2, most_kmh=12),
        below=((45, 120),), look_alike=True, lasts=True,
    ),
)  # fmt: skip
