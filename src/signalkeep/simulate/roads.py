"""A road network for each home town, made on the fly: streets, arterials, a ring, roads to other towns.

    town     a grid of streets, turned and jittered; every fifth line is an arterial, some minor streets are missing
    ring     a motorway around the home town, met by its four gates, the outer ends of its main arterials
    links    from the ring to the gate of each other town: motorways, and country roads that wind

Nothing is stored but the towns: where a crossing lies and whether a street exists follows from a hash of its
place, so all vehicles of a region drive on the same roads. Promises: the same region and the same random source
give the same route; a route is a finite sequence of points that begins where the vehicle stands; planning costs a
few microseconds for each crossing, when it is asked for. Never reads a clock or a map: the countries are real, the
roads are not.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

METRES_PER_DEGREE: Final = 111_195.0
ARTERIAL_EVERY: Final = 5  # lines of a grid
CROSSINGS_PER_LEG_MAX: Final = 400  # far more than any leg has: a bound for the loop
MISSING_SHARE: Final = 0.2  # of the minor streets of one direction
RED_SHARE: Final = 0.45  # of the arrivals at a light
RED_S: Final = (4.0, 45.0)
STREET_BEND_M: Final = 20.0  # the length on which a corner is taken
RAMP_BEND_M: Final = 40.0
STREET_KMH, ARTERIAL_KMH, RAMP_KMH = 30.0, 50.0, 60.0
RING_KMH, COUNTRY_KMH, MOTORWAY_KMH = 100.0, 90.0, 130.0
RING_STEP_M: Final = 150.0
OTHER_TOWNS: Final = 6
DIRECTIONS: Final = ((1, 0), (0, 1), (-1, 0), (0, -1))


class Home(NamedTuple):
    """A place far from coasts, so that no made-up road runs through the sea."""

    name: str
    latitude: float
    longitude: float
    altitude_m: float


HOMES: Final = (
    Home("Berlin", 52.5200, 13.4050, 40.0),
    Home("Vienna", 48.2082, 16.3738, 180.0),
    Home("Madrid", 40.4168, -3.7038, 650.0),
    Home("Prague", 50.0755, 14.4378, 230.0),
    Home("Warsaw", 52.2297, 21.0122, 105.0),
    Home("Canberra", -35.2809, 149.1300, 580.0),
    Home("Belo Horizonte", -19.9208, -43.9378, 850.0),
    Home("Denver", 39.7392, -104.9903, 1600.0),
    Home("Nairobi", -1.2921, 36.8219, 1680.0),
    Home("Delhi", 28.6139, 77.2090, 220.0),
)


class Waypoint(NamedTuple):
    """A point of a route, in metres east and north of the region's centre."""

    x_m: float
    y_m: float
    limit_kmh: float  # on the way to this point
    bend_m: float  # the length on which a change of direction is taken here
    wait_s: float = 0.0  # at a red light; 0: pass


class Town(NamedTuple):
    """A grid of streets around a centre."""

    x_m: float
    y_m: float
    cosine: float  # of the angle by which the grid is turned
    sine: float
    blocks: int  # from the centre to the edge; a multiple of ARTERIAL_EVERY
    block_m: float
    seed: int
    bearing: float  # of the town from the region's centre, in radians
    is_motorway: bool  # the link to the ring


class Place(NamedTuple):
    """A crossing: which town, and the lines that meet."""

    town: int
    i: int
    j: int


def mixed(seed: int, i: int, j: int) -> int:
    """32 well-mixed bits."""
    value = (seed ^ i * 0x9E3779B1 ^ j * 0x85EBCA77) & 0xFFFFFFFF
    value = (value ^ value >> 15) * 0x2C1B3C6D & 0xFFFFFFFF
    value = (value ^ value >> 12) * 0x297A2D39 & 0xFFFFFFFF
    return value ^ value >> 15


def share(bits: int) -> float:
    """16 bits as a number from 0 to below 1."""
    return (bits & 0xFFFF) / 0x10000


class Region:
    """The roads around one home. Shared by all of its vehicles; never changes."""

    def __init__(self, home: Home, seed: int) -> None:
        self.home = home
        source = random.Random(f"{seed} {home.name}")  # noqa: S311 - reproducible roads, not a secret
        self._phases = [source.uniform(0.0, math.tau) for _ in range(3)]
        turned = source.uniform(0.0, math.tau)
        first = Town(0, 0, math.cos(turned), math.sin(turned), 25, 140.0, source.getrandbits(32), 0.0, True)
        self.towns = [first]
        self.ring_m = first.blocks * first.block_m + 700.0
        for number in range(OTHER_TOWNS):
            bearing = math.tau * (number + source.uniform(-0.3, 0.3)) / OTHER_TOWNS
            away_m = self.ring_m + source.uniform(8_000.0, 45_000.0)
            turned = source.uniform(0.0, math.tau)
            town = Town(
                x_m=away_m * math.cos(bearing),
                y_m=away_m * math.sin(bearing),
                cosine=math.cos(turned),
                sine=math.sin(turned),
                blocks=ARTERIAL_EVERY * source.randint(1, 3),
                block_m=source.uniform(100.0, 150.0),
                seed=source.getrandbits(32),
                bearing=bearing,
                is_motorway=number % 2 == 0,
            )
            self.towns.append(town)

    def degrees(self, x_m: float, y_m: float) -> tuple[float, float]:
        """Latitude and longitude of a point of the plane (sinusoidal: distances along both axes are kept)."""
        latitude = self.home.latitude + y_m / METRES_PER_DEGREE
        return latitude, self.home.longitude + x_m / (METRES_PER_DEGREE * math.cos(math.radians(latitude)))

    def altitude_m(self, x_m: float, y_m: float) -> float:
        """Gentle hills."""
        one, two, three = self._phases
        hills_m = 22 * math.sin(x_m / 2900 + one) + 18 * math.sin(y_m / 3700 + two) + 8 * math.sin((x_m + y_m) / 1300)
        return self.home.altitude_m + hills_m + 4 * math.sin((x_m - y_m) / 700 + three)

    def anywhere(self, source: random.Random, town: int) -> Place:
        """A crossing of a town, more often near its centre."""
        blocks = self.towns[town].blocks
        return Place(town, *(round(source.triangular(-blocks, blocks, 0)) for _ in range(2)))

    def near(self, source: random.Random, place: Place, metres: tuple[float, float]) -> Place:
        """A crossing of the same town at about this distance."""
        town = self.towns[place.town]
        angle = source.uniform(0.0, math.tau)
        lines = source.uniform(*metres) / town.block_m
        i, j = round(place.i + lines * math.cos(angle)), round(place.j + lines * math.sin(angle))
        edge = town.blocks
        return Place(place.town, max(-edge, min(edge, i)), max(-edge, min(edge, j)))

    def point(self, place: Place) -> tuple[float, float]:
        """Where a crossing lies."""
        return crossing(self.towns[place.town], place.i, place.j)

    def route(self, source: random.Random, start: Place, goal: Place) -> Iterator[Waypoint]:
        """The way from one crossing to another; made as it is asked for. Empty where they are the same."""
        if start.town == goal.town:
            yield from streets(self.towns[start.town], source, start, goal)
            return
        leaving, arriving = self._gate(start.town, goal.town), self._gate(goal.town, start.town)
        yield from streets(self.towns[start.town], source, start, Place(start.town, *leaving))
        if start.town != 0:
            yield from self._link(start.town, leaving, inwards=True)
        begin = self._bearing_at_ring(start, leaving)
        end = self._bearing_at_ring(goal, arriving)
        yield from self._ring(begin, end)
        if goal.town != 0:
            yield from self._link(goal.town, arriving, inwards=False)
        else:
            yield Waypoint(*crossing(self.towns[0], *arriving), RAMP_KMH, STREET_BEND_M)
        yield from streets(self.towns[goal.town], source, Place(goal.town, *arriving), goal)

    def ring(self) -> Iterator[Waypoint]:
        """All around."""
        yield from self._ring(0.0, math.pi)
        yield from self._ring(math.pi, math.tau)

    def link(self, number: int) -> Iterator[Waypoint]:
        """The road from the ring to a town."""
        return self._link(number, self._gate(number, 0), inwards=False)

    def _gate(self, number: int, other: int) -> tuple[int, int]:
        """Of a town, on the way to or from another: the home town looks there, all others look to the ring."""
        bearing = self.towns[other].bearing if number == 0 else self.towns[number].bearing + math.pi
        return gate_to(self.towns[number], bearing)

    def _bearing_at_ring(self, place: Place, gate: tuple[int, int]) -> float:
        """Where a way enters or leaves the ring."""
        if place.town != 0:
            return self.towns[place.town].bearing
        x_m, y_m = crossing(self.towns[0], *gate)
        return math.atan2(y_m, x_m)

    def _ring(self, begin: float, end: float) -> Iterator[Waypoint]:
        """Along the ring, the shorter way round."""
        turn = (end - begin + math.pi) % math.tau - math.pi
        steps = max(1, round(abs(turn) * self.ring_m / RING_STEP_M))
        for number in range(steps + 1):
            angle = begin + turn * number / steps
            is_ramp = number in (0, steps)
            yield Waypoint(*self._ring_point(angle), *((RAMP_KMH, RAMP_BEND_M) if is_ramp else (RING_KMH, RING_STEP_M)))

    def _ring_point(self, angle: float) -> tuple[float, float]:
        radius_m = self.ring_m * (1 + 0.03 * math.sin(3 * angle + self._phases[0]))
        return radius_m * math.cos(angle), radius_m * math.sin(angle)

    def _link(self, number: int, gate: tuple[int, int], *, inwards: bool) -> Iterator[Waypoint]:
        """The road between the ring and a town: it swings out to both sides, a country road more so."""
        town = self.towns[number]
        ends = [self._ring_point(town.bearing), crossing(town, *gate)]
        (x_m, y_m), (to_x_m, to_y_m) = ends
        length_m = math.hypot(to_x_m - x_m, to_y_m - y_m)
        east, north = (to_x_m - x_m) / length_m, (to_y_m - y_m) / length_m
        step_m, limit_kmh = (200.0, MOTORWAY_KMH) if town.is_motorway else (70.0, COUNTRY_KMH)
        steps = max(2, round(length_m / step_m))
        numbers = range(steps - 1, -1, -1) if inwards else range(1, steps + 1)
        phase = share(town.seed) * math.tau
        for at in numbers:
            along_m = length_m * at / steps
            aside_m = min(1.0, along_m / 1800, (length_m - along_m) / 1800) * (
                700 * math.sin(along_m / 4300 + phase) + 150 * math.sin(along_m / 1270 + 2 * phase)
                if town.is_motorway
                else 450 * math.sin(along_m / 2900 + phase)
                + 140 * math.sin(along_m / 730 + 2 * phase)
                + 40 * math.sin(along_m / 210 + 3 * phase)
                + 12 * math.sin(along_m / 55)
            )
            yield Waypoint(
                x_m + east * along_m - north * aside_m, y_m + north * along_m + east * aside_m, limit_kmh, step_m
            )


@lru_cache(maxsize=64)
def region(home: int, seed: int) -> Region:
    """The region around a home, by its number. The same object for all of its vehicles."""
    return Region(HOMES[home], seed)


def crossing(town: Town, i: int, j: int) -> tuple[float, float]:
    """Where two lines of a grid meet."""
    bits = mixed(town.seed, i, j)
    east = i + (0.06 if i % ARTERIAL_EVERY == 0 else 0.4) * (share(bits) - 0.5)
    north = j + (0.06 if j % ARTERIAL_EVERY == 0 else 0.4) * (share(bits >> 16) - 0.5)
    return (
        town.x_m + town.block_m * (east * town.cosine - north * town.sine),
        town.y_m + town.block_m * (east * town.sine + north * town.cosine),
    )


def gate_to(town: Town, bearing: float) -> tuple[int, int]:
    """The gate that looks best in a direction."""
    east, north = math.cos(bearing), math.sin(bearing)
    along, across = east * town.cosine + north * town.sine, north * town.cosine - east * town.sine
    if abs(along) >= abs(across):
        return (town.blocks if along > 0 else -town.blocks), 0
    return 0, (town.blocks if across > 0 else -town.blocks)


def exists(town: Town, i: int, j: int, east: int, north: int) -> bool:
    """Whether a street leads from a crossing in a direction.

    Arterials and all streets of one direction are whole: every crossing can be reached, and nobody is caught in a
    blind alley.
    """
    to_i, to_j = i + east, j + north
    if max(abs(to_i), abs(to_j)) > town.blocks:
        return False
    if not east or j % ARTERIAL_EVERY == 0:
        return True
    return share(mixed(town.seed ^ 0x5BD1, min(i, to_i), j)) >= MISSING_SHARE


def streets(town: Town, source: random.Random, start: Place, goal: Place) -> Iterator[Waypoint]:
    """Crossing by crossing towards the goal: straight on and along arterials rather than by small corners."""
    i, j, came = start.i, start.j, (0, 0)
    for _ in range(CROSSINGS_PER_LEG_MAX):
        if i == goal.i and j == goal.j:
            return
        best, best_worth = (-came[0], -came[1]), -math.inf
        for east, north in DIRECTIONS:
            if (east, north) == (-came[0], -came[1]) or not exists(town, i, j, east, north):
                continue
            nearer = abs(goal.i - i) - abs(goal.i - i - east) + abs(goal.j - j) - abs(goal.j - j - north)
            is_arterial = (j if east else i) % ARTERIAL_EVERY == 0
            worth = nearer + 0.5 * is_arterial + 0.3 * ((east, north) == came) + 0.3 * source.random()
            if worth > best_worth:
                best, best_worth = (east, north), worth
        came = best
        i, j = i + best[0], j + best[1]
        is_arterial = (j if best[0] else i) % ARTERIAL_EVERY == 0
        waits = has_light(town, i, j) and source.random() < RED_SHARE and (i, j) != (goal.i, goal.j)
        yield Waypoint(
            *crossing(town, i, j),
            ARTERIAL_KMH if is_arterial else STREET_KMH,
            STREET_BEND_M,
            source.uniform(*RED_S) if waits else 0.0,
        )


def has_light(town: Town, i: int, j: int) -> bool:
    """Where arterials cross each other, and at one in five of their crossings with streets."""
    arterials = (i % ARTERIAL_EVERY == 0) + (j % ARTERIAL_EVERY == 0)
    return arterials == 2 or (arterials == 1 and mixed(town.seed, j, i) % 5 == 0)
