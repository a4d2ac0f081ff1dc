"""What it takes to plant faults into a drive: its records, places where a fault fits, labels that say what is wrong.

A `Journey` is a copy of a unit's records that is changed step by step; the records it was made of stay as they are.
No two faults come near each other, so that what a judge says can be traced to one of them. Promises: values stay on
the grid that encoders keep (1e-7 degrees, whole km/h); the same records and random source give the same faults. Pure.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from signalkeep.model import Signal
from signalkeep.simulate.roads import METRES_PER_DEGREE

EDGE_RECORDS: Final = 3  # at either end of a drive stay sound: a judge needs something to compare with
MARGIN_S_MAX: Final = 600.0  # between two faults
MARGIN_SHARE: Final = 0.05  # of the drive, where that is less
IN_TIME_S: Final = 60.0

Bounds: TypeAlias = tuple[float, float]
"""From, to."""


class Made(NamedTuple):
    """A record of a unit: when it was made in truth, what it says, and when it leaves at the earliest."""

    at: datetime
    signal: Signal
    leaves_at: datetime


class Planted(msgspec.Struct, frozen=True, kw_only=True):
    """The label of one episode. Times as the unit's own clock says them, so they can be found in what was stored."""

    device_number: str
    kind: str
    begins_at: datetime
    ends_at: datetime
    happened_from: datetime  # in truth; another time where the clock is what is wrong
    happened_to: datetime
    records: tuple[datetime, ...]  # wire times of the records that carry it; none where records are missing
    magnitude: float  # in the unit of the kind
    look_alike: bool  # only looks like a fault
    above: bool | None  # a careful person would call it wrong; None: could be said either way


class Spot(NamedTuple):
    """Where an episode was put."""

    begins_at: datetime  # as the unit says
    ends_at: datetime
    happened_from: datetime  # in truth
    happened_to: datetime
    records: tuple[datetime, ...]
    magnitude: float | None = None  # where it is not the one that was asked for


Holds: TypeAlias = Callable[[Made], bool]
Planter: TypeAlias = "Callable[[Journey, random.Random, float], Spot | None]"
"""Puts an episode of this magnitude somewhere; None: there is no place for it."""


class Kind(NamedTuple):
    """A kind of fault with its magnitudes. Each level has ranges, one of which is drawn; none: it has no such level."""

    name: str
    meaning: str  # one clause, for people
    unit: str  # of the magnitude
    plant: Planter
    above: tuple[Bounds, ...] = ()  # plainly wrong
    near: tuple[Bounds, ...] = ()  # could be said either way
    below: tuple[Bounds, ...] = ()  # nothing that anybody should be told of
    look_alike: bool = False  # then its only level is `below`
    whole: bool = False  # a unit has it all day, and no other
    lasts: bool = False  # it changes all that comes after it, so it is planted first


class Journey:
    """A drive that faults are planted in. Indexes count `records`, which are in the order of true time."""

    def __init__(self, records: Iterable[Made]) -> None:
        self.records = sorted(records, key=lambda made: made.at)
        self._taken: list[tuple[datetime, datetime]] = []
        whole_s = (self.records[-1].at - self.records[0].at).total_seconds() if self.records else 0.0
        self._margin = timedelta(seconds=min(MARGIN_S_MAX, MARGIN_SHARE * whole_s))

    # Places

    def stretch(self, source: random.Random, holds: Holds, *, count: int = 1, lasts_s: float = 0.0) -> range | None:
        """At random, successive records that all hold: so many, and from first to last so long at least."""
        records = self.records
        fits = [False] * len(records)
        for index in range(EDGE_RECORDS, len(records) - EDGE_RECORDS):
            fits[index] = holds(records[index]) and self.is_free(records[index].at)
        starts: list[range] = []
        end = 0
        for begin in range(len(records)):
            end = max(end, begin)
            while end < len(records) and fits[end] and not self._is_enough(begin, end, count, lasts_s):
                end += 1
            if end < len(records) and fits[begin] and fits[end]:
                starts.append(range(begin, end + 1))
        return source.choice(starts) if starts else None

    def _is_enough(self, begin: int, end: int, count: int, lasts_s: float) -> bool:
        lasted_s = (self.records[end].at - self.records[begin].at).total_seconds()
        return end - begin + 1 >= count and lasted_s >= lasts_s

    def is_free(self, at: datetime) -> bool:
        """Far enough from every fault."""
        return all(not begin - self._margin <= at <= end + self._margin for begin, end in self._taken)

    @property
    def is_clean(self) -> bool:
        """There are records, and no fault in them yet."""
        return bool(self.records) and not self._taken

    def take(self, first: datetime, last: datetime) -> None:
        """Keep other faults away from here."""
        self._taken.append((first, last))

    # Changes

    def change(self, index: int, **fields: Any) -> None:
        """Other values in a record."""
        made = self.records[index]
        self.records[index] = made._replace(signal=msgspec.structs.replace(made.signal, **fields))

    def set(self, index: int, **attributes: Any) -> None:
        """Other attributes in a record; None takes one out."""
        before = self.records[index].signal.attributes
        merged = {name: value for name, value in (before | attributes).items() if value is not None}
        self.change(index, attributes=merged)

    def shift_clock(self, index: int, seconds: float) -> None:
        """The unit's clock is ahead by so much."""
        signal = self.records[index].signal
        assert signal.wire_time is not None
        self.say_time(index, signal.wire_time + timedelta(milliseconds=round(seconds * 1000)))

    def say_time(self, index: int, time: datetime) -> None:
        """What the unit says the time is."""
        self.change(index, wire_time=time, device_time=time)

    def delay(self, index: int, seconds: float) -> None:
        """The record leaves so long after it was made."""
        made = self.records[index]
        self.records[index] = made._replace(leaves_at=made.at + timedelta(milliseconds=round(seconds * 1000)))

    def remove(self, indexes: range) -> None:
        """These records were never made."""
        del self.records[indexes.start : indexes.stop]

    def insert(self, made: Made) -> None:
        """Another record; indexes behind it change."""
        index = len(self.records)
        while index and self.records[index - 1].at > made.at:
            index -= 1
        self.records.insert(index, made)

    def spot(self, indexes: Iterable[int], magnitude: float | None = None) -> Spot:
        """These records carry the fault; it is kept away from others."""
        made = [self.records[index] for index in indexes]
        self.take(made[0].at, made[-1].at)
        times = tuple(one.signal.wire_time for one in made if one.signal.wire_time is not None)
        return Spot(min(times), max(times), made[0].at, made[-1].at, times, magnitude)


# What records are like


def in_time(made: Made) -> bool:
    """It leaves soon after it was made."""
    return (made.leaves_at - made.at).total_seconds() <= IN_TIME_S


def has_fix(made: Made) -> bool:
    """In time, with a position."""
    return in_time(made) and made.signal.fix_valid and made.signal.latitude is not None


def engine_on(made: Made) -> bool:
    return in_time(made) and made.signal.attributes.get("ignition") is True


def parked(made: Made) -> bool:
    """The engine is off."""
    return has_fix(made) and made.signal.attributes.get("ignition") is False


def standing(made: Made) -> bool:
    """It does not move."""
    return has_fix(made) and not made.signal.speed_kmh


def moving(least_kmh: float, most_kmh: float = math.inf) -> Holds:
    """With a fix, the engine on, and a speed in these bounds."""
    return lambda made: (
        has_fix(made)
        and engine_on(made)
        and made.signal.speed_kmh is not None
        and least_kmh <= made.signal.speed_kmh <= most_kmh
    )


def with_value(name: str, holds: Holds) -> Holds:
    """Records that also have an attribute."""
    return lambda made: name in made.signal.attributes and holds(made)


# Geometry


def away(signal: Signal, *, north_m: float, east_m: float) -> dict[str, float]:
    """Latitude and longitude so far from where a signal says it is."""
    assert signal.latitude is not None
    assert signal.longitude is not None
    east_deg = east_m / (METRES_PER_DEGREE * math.cos(math.radians(signal.latitude)))
    return {
        "latitude": round(signal.latitude + north_m / METRES_PER_DEGREE, 7),
        "longitude": round((signal.longitude + east_deg + 180) % 360 - 180, 7),
    }


def seconds_between(one: Made, other: Made) -> float:
    return (other.at - one.at).total_seconds()


def metres_between(one: Signal, other: Signal) -> float:
    """On a plane, which is exact enough for some kilometres."""
    assert one.latitude is not None
    assert one.longitude is not None
    assert other.latitude is not None
    assert other.longitude is not None
    north_m = (other.latitude - one.latitude) * METRES_PER_DEGREE
    east_m = (other.longitude - one.longitude) * METRES_PER_DEGREE * math.cos(math.radians(one.latitude))
    return math.hypot(north_m, east_m)
