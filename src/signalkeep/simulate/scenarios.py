"""Who drives: kinds of vehicles with their habits, and the mixtures of them that a fleet can be made of.

Values only, found by looking at real fleets' days; each number is a default that no option changes, so that a
scenario's name says everything.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias, TypeVar

from signalkeep.errors import CallerError

T = TypeVar("T")
Bounds: TypeAlias = tuple[float, float]
"""From, to."""


class GapKind(NamedTuple):
    """Why a unit has no network for a while."""

    weight: float
    lasts_s: Bounds
    open_sky: bool  # it still has a fix; without, it has none in a short gap, or while it stands


TUNNEL: Final = GapKind(3.0, (15.0, 60.0), False)
GARAGE: Final = GapKind(1.0, (120.0, 900.0), False)
BUILT_UP: Final = GapKind(2.0, (30.0, 180.0), True)
RURAL: Final = GapKind(5.0, (120.0, 720.0), True)
FERRY: Final = GapKind(1.0, (900.0, 2400.0), True)


class Habits(NamedTuple):
    """One kind of vehicle."""

    name: str
    trip_m: Bounds  # to the next stop, as the crow flies
    elsewhere_share: float  # of the trips, go to another town
    stands_s: Bounds  # at a stop
    engine_off_share: float  # of the stops
    works_h: Bounds  # of the day, by the sun
    speed_kmh_max: float
    acceleration_ms2: float
    braking_ms2: float
    supply_v: tuple[float, float]  # with the engine on, off
    gap_every_s: float  # on average
    gap_kinds: tuple[GapKind, ...]


CITY: Final = Habits(
    "city", (600.0, 5000.0), 0.05, (180.0, 3600.0), 1.0, (6.0, 23.0), 150.0, 1.7, 2.2, (14.1, 12.6),
    2400.0, (TUNNEL, GARAGE, BUILT_UP),
)  # fmt: skip
DELIVERY: Final = Habits(
    "delivery", (200.0, 1500.0), 0.02, (45.0, 300.0), 0.7, (6.5, 19.0), 120.0, 1.5, 2.0, (14.1, 12.6),
    2400.0, (GARAGE, BUILT_UP),
)  # fmt: skip
LONG_HAUL: Final = Habits(
    "long-haul", (2000.0, 6000.0), 0.85, (900.0, 5400.0), 0.8, (4.0, 22.0), 89.0, 0.8, 1.3, (27.9, 25.2),
    2400.0, (TUNNEL, RURAL, FERRY),
)  # fmt: skip

SCENARIOS: Final[dict[str, tuple[tuple[float, Habits], ...]]] = {
    "mixed": ((5.0, CITY), (3.0, DELIVERY), (2.0, LONG_HAUL)),
    "city": ((1.0, CITY),),
    "delivery": ((1.0, DELIVERY),),
    "long-haul": ((1.0, LONG_HAUL),),
}


def habits_of(scenario: str, draw: float) -> Habits:
    """The kind of vehicle that a number from 0 to below 1 draws. Raises CallerError for an unknown scenario."""
    kinds = SCENARIOS.get(scenario)
    if kinds is None:
        raise CallerError(f"{scenario}: no such scenario", hint=f"There are {', '.join(SCENARIOS)}.")
    return weighed(kinds, draw)


def weighed(kinds: tuple[tuple[float, T], ...], draw: float) -> T:
    """One of several, by their weights."""
    left = draw * sum(weight for weight, _ in kinds)
    for weight, kind in kinds:
        left -= weight
        if left < 0:
            return kind
    return kinds[-1][1]
