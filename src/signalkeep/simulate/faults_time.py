"""Faults of time and order: clocks that are wrong, records that come late, twice, in the wrong order, too often, never.

Times are changed as the unit would say them; when a record leaves is changed only where that is the fault. Pure.
"""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from signalkeep.simulate.planting import (
    Holds,
    Journey,
    Kind,
    Spot,
    away,
    engine_on,
    has_fix,
    in_time,
    metres_between,
    moving,
    parked,
    seconds_between,
    standing,
)
from signalkeep.simulate.roads import METRES_PER_DEGREE

DAY_S: Final = 86_400.0
WEEK_COUNTER_S: Final = 1024 * 7 * DAY_S
CLOCK_STARTS: Final = (  # what clocks say that have lost their power
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1980, 1, 6, tzinfo=UTC),
    datetime(2000, 1, 1, tzinfo=UTC),
)
RESET_SHARE: Final = 0.5  # of the clocks that are years behind
SMALL_S: Final = 100.0  # clocks that are ahead by less are planted where it makes no jump of the position
ZONE_H: Final = 0.25  # a time zone is a multiple of it


def clock_ahead(journey: Journey, source: random.Random, seconds: float) -> Spot | None:
    """The clock is ahead for a while."""
    holds: Holds = standing if seconds < SMALL_S else in_time
    return _wrong_clock(journey, source, seconds, holds)


def clock_behind(journey: Journey, source: random.Random, days: float) -> Spot | None:
    """The clock is behind, or begins anew where clocks begin."""
    if days >= 50 and source.random() < RESET_SHARE:
        found = journey.stretch(source, in_time, count=source.randint(5, 30))
        if found is None:
            return None
        first, begins = journey.records[found[0]].at, source.choice(CLOCK_STARTS)
        for index in found:
            journey.say_time(index, begins + timedelta(seconds=90) + (journey.records[index].at - first))
        return journey.spot(found, (first - begins).total_seconds() / DAY_S)
    return _wrong_clock(journey, source, -days * DAY_S, in_time, days)


def week_rollover(journey: Journey, source: random.Random, turns: float) -> Spot | None:
    """The satellites' week counter has turned over."""
    return _wrong_clock(journey, source, -round(turns) * WEEK_COUNTER_S, in_time, round(turns))


def _wrong_clock(
    journey: Journey, source: random.Random, ahead_s: float, holds: Holds, magnitude: float | None = None
) -> Spot | None:
    found = journey.stretch(source, holds, count=source.randint(5, 30))
    if found is None:
        return None
    for index in found:
        journey.shift_clock(index, ahead_s)
    return journey.spot(found, magnitude)


def time_zone(journey: Journey, source: random.Random, hours: float) -> Spot | None:
    """All times are off by the same: the unit does not speak UTC. A small offset is that of a slow network."""
    found = range(len(journey.records))
    if hours >= ZONE_H:
        hours = round(hours / ZONE_H) * ZONE_H
        ahead_h = hours * source.choice((1, -1))
    else:
        ahead_h = -hours
    for index in found:
        journey.shift_clock(index, ahead_h * 3600)
    return journey.spot(found, hours)


def time_unit(journey: Journey, source: random.Random, records: float) -> Spot | None:
    """Seconds are sent where milliseconds belong: a time in January 1970."""
    found = journey.stretch(source, in_time, count=round(records))
    if found is None:
        return None
    for index in found:
        time = journey.records[index].signal.wire_time
        assert time is not None
        journey.say_time(index, datetime.fromtimestamp(round(time.timestamp() / 1000, 3), UTC))
    return journey.spot(found, len(found))


def same_time(journey: Journey, source: random.Random, metres: float) -> Spot | None:
    """Two records with one time that contradict each other; or a second one for an event, which is nothing strange."""
    found = journey.stretch(source, has_fix, count=source.randint(1, 5))
    if found is None:
        return None
    for passed, index in enumerate(found):
        made = journey.records[index + passed]
        turn_rad = source.uniform(0, math.tau)
        place = away(made.signal, north_m=metres * math.cos(turn_rad), east_m=metres * math.sin(turn_rad))
        volts = round(made.signal.attributes.get("battery_v", 4.0) - 0.031, 3)
        attributes = made.signal.attributes | {"battery_v": volts}
        other = msgspec.structs.replace(made.signal, attributes=attributes, event_code=None, **place)
        journey.records.insert(index + passed + 1, made._replace(signal=other))
    return journey.spot(range(found.start, found.stop + len(found)))


def _leaves_before(journey: Journey, holds: Holds, seconds: float) -> Holds:
    """Records that can be held back for so long without leaving after the drive's end."""
    latest = journey.records[-1].at - timedelta(seconds=seconds)
    return lambda made: made.at <= latest and holds(made)


def overtaken(journey: Journey, source: random.Random, seconds: float) -> Spot | None:
    """Records are held back, and newer ones come first; still within minutes."""
    holds = _leaves_before(journey, moving(0.0), 2 * seconds)
    found = journey.stretch(source, holds, count=source.randint(4, 8), lasts_s=seconds)
    if found is None:
        return None
    late = range(found[0], found[0] + min(3, len(found) - 1))
    for index in late:
        journey.delay(index, seconds + seconds_between(journey.records[index], journey.records[late[-1]]))
    return _until_end(journey, late, found)


def late(journey: Journey, source: random.Random, seconds: float) -> Spot | None:
    """A single record comes long after those around it."""
    found = journey.stretch(source, _leaves_before(journey, in_time, seconds), count=3)
    if found is None:
        return None
    journey.delay(found[1], seconds)
    return journey.spot([found[1]])


def _until_end(journey: Journey, marked: range, found: range) -> Spot:
    """Only some of a stretch carry the fault, but it needs the others too."""
    spot = journey.spot(marked)
    journey.take(journey.records[found[0]].at, journey.records[found[-1]].at)
    return spot


def flood(journey: Journey, source: random.Random, per_hour: float) -> Spot | None:
    """A parked unit sends far too much for an hour."""
    found = journey.stretch(source, parked, lasts_s=3600.0)
    if found is None:
        return None
    first = journey.records[found[0]]
    found = range(found.start, next(i for i in found if seconds_between(first, journey.records[i]) >= 3600))
    known = {journey.records[index].at for index in found}
    stop, extra = found.stop, max(0, round(per_hour) - len(found))
    before = found[0]
    for number in range(extra):
        at = first.at + timedelta(milliseconds=round(3_600_000 * (number + 0.5) / extra))
        while before + 1 < stop and journey.records[before + 1].at <= at:
            before += 1
        while at in known:
            at += timedelta(milliseconds=1)
        made = journey.records[before]
        signal = msgspec.structs.replace(made.signal, wire_time=at, device_time=at, event_code=None)
        journey.records.insert(before + 1, made._replace(at=at, signal=signal, leaves_at=max(at, made.leaves_at)))
        before, stop = before + 1, stop + 1
    return journey.spot(range(found.start, stop), len(found) + extra)


def gap(journey: Journey, source: random.Random, seconds: float) -> Spot | None:
    """No records for a while, with the ignition on."""
    found = journey.stretch(source, engine_on, count=3, lasts_s=seconds)
    if found is None:
        return None
    first, last = journey.records[found[0]], journey.records[found[-1]]
    journey.take(first.at, last.at)
    journey.remove(range(found.start + 1, found.stop - 1))
    return Spot(first.at, last.at, first.at, last.at, (), seconds_between(first, last))


def glitch(journey: Journey, source: random.Random, metres_per_s2: float) -> Spot | None:
    """A record one second after another, with a speed that no vehicle gains or loses in that time."""
    found = journey.stretch(source, moving(35.0, 110.0), count=2)
    if found is None:
        return None
    before, after = (journey.records[index] for index in found[:2])
    share = 1.0 / seconds_between(before, after)
    if share > 0.5:
        return None
    change_kmh = metres_per_s2 * 3.6
    speed_kmh = before.signal.speed_kmh or 0.0
    said_kmh = float(round(speed_kmh + change_kmh * (-1 if change_kmh < speed_kmh else 1)))
    at = before.at + timedelta(seconds=1)
    way_m = metres_between(before.signal, after.signal) * share
    assert before.signal.latitude is not None
    assert after.signal.latitude is not None
    north_m = (after.signal.latitude - before.signal.latitude) * share * METRES_PER_DEGREE
    east_m = max(0.0, way_m**2 - north_m**2) ** 0.5
    if (after.signal.longitude or 0.0) < (before.signal.longitude or 0.0):
        east_m = -east_m
    fields = away(before.signal, north_m=north_m, east_m=east_m)
    signal = msgspec.structs.replace(
        before.signal, wire_time=at, device_time=at, speed_kmh=said_kmh, event_code=None, **fields
    )
    journey.records.insert(found[0] + 1, before._replace(at=at, signal=signal, leaves_at=max(at, before.leaves_at)))
    return journey.spot([found[0] + 1], abs(said_kmh - speed_kmh) / 3.6)


KINDS: Final = (
    Kind(
        "future_clock", "a clock that is ahead", "s", clock_ahead,
        above=((200, 40_000),), near=((50, 75),), below=((3, 25),),
    ),
    Kind(
        "past_clock", "a clock that is long behind, or begins anew", "days", clock_behind,
        above=((60, 400),), near=((25, 35),),
    ),
    Kind("week_rollover", "a clock that is behind by 1024 weeks", "turns", week_rollover, above=((1, 1), (2, 2))),
    Kind(
        "time_zone", "all times are local times", "h", time_zone,
        above=((1, 11),), below=((0.01, 0.035),), whole=True,
    ),
    Kind("time_unit", "seconds where milliseconds belong", "records", time_unit, above=((1, 20),)),
    Kind(
        "same_time", "two records with one time that contradict each other", "m apart", same_time,
        above=((200, 4000),), near=((12, 80),), below=((0, 2),),
    ),
    Kind("out_of_order", "newer records come first", "s", overtaken, above=((40, 200),)),
    Kind(
        "late_record", "a single record comes late", "s", late,
        above=((450, 7200),), near=((260, 340),), below=((60, 200),),
    ),
    Kind(
        "flood", "far too many records", "records an hour", flood,
        above=((1500, 4000),), near=((900, 1100),), below=((300, 700),),
    ),
    Kind(
        "gap", "no records with the ignition on", "s", gap,
        above=((600, 1800),), near=((270, 340),), below=((60, 150),),
    ),
    Kind(
        "acceleration", "a speed that cannot be reached so fast", "m/s²", glitch,
        above=((14, 24),), near=((9, 11),), below=((3, 6.5),),
    ),
)  # fmt: skip
