"""Roads: the same for everybody, connected, without teleports; and how they are driven along."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalkeep.simulate.motion import Mover
from signalkeep.simulate.roads import (
    CROSSINGS_PER_LEG_MAX,
    HOMES,
    Place,
    Region,
    Waypoint,
    crossing,
    exists,
    region,
)

seeds = st.integers(0, 10_000)


def ways(roads: Region, source: random.Random, *, towns: bool) -> tuple[Place, Place, list[Waypoint]]:
    start = roads.anywhere(source, source.randrange(len(roads.towns)) if towns else 0)
    goal = roads.anywhere(source, source.randrange(len(roads.towns)) if towns else start.town)
    return start, goal, list(roads.route(source, start, goal))


@given(seed=seeds, home=st.integers(0, len(HOMES) - 1), towns=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_route_leads_from_here_to_there_without_a_leap(seed: int, home: int, towns: bool) -> None:
    roads = region(home, seed % 5)
    start, goal, way = ways(roads, random.Random(seed), towns=towns)
    points = [roads.point(start), *((point.x_m, point.y_m) for point in way)]
    assert points[-1] == roads.point(goal)
    assert len(way) < 2500
    for (x_m, y_m), (to_x_m, to_y_m) in pairwise(points):
        assert math.hypot(to_x_m - x_m, to_y_m - y_m) < 1100
    assert all(20 < point.limit_kmh <= 130 for point in way)


@pytest.mark.parametrize("home", range(len(HOMES)))
def test_everybody_arrives(home: int) -> None:
    """A driver who looks no farther than the next crossing is never caught, and makes no great detours."""
    roads, source = region(home, 3), random.Random(home)
    for _ in range(400):
        town = source.randrange(len(roads.towns))
        start, goal = roads.anywhere(source, town), roads.anywhere(source, town)
        way = list(roads.route(source, start, goal))
        assert len(way) < CROSSINGS_PER_LEG_MAX / 3
        assert not way or (way[-1].x_m, way[-1].y_m) == roads.point(goal)


@given(seed=seeds)
@settings(max_examples=30)
def test_a_route_in_town_uses_only_streets_that_exist(seed: int) -> None:
    roads = region(0, 1)
    town = roads.towns[0]
    where = {crossing(town, i, j): (i, j) for i in range(-25, 26) for j in range(-25, 26)}
    start, _, way = ways(roads, random.Random(seed), towns=False)
    path = [(start.i, start.j), *(where[point.x_m, point.y_m] for point in way)]
    for (i, j), (to_i, to_j) in pairwise(path):
        assert abs(i - to_i) + abs(j - to_j) == 1
        assert exists(town, i, j, to_i - i, to_j - j)
        assert exists(town, to_i, to_j, i - to_i, j - to_j), "streets go both ways"


def test_the_seed_makes_the_roads() -> None:
    assert Region(HOMES[0], 1).towns == Region(HOMES[0], 1).towns
    assert Region(HOMES[0], 1).towns != Region(HOMES[0], 2).towns
    assert region(0, 1) is region(0, 1)


@pytest.mark.parametrize("home", range(len(HOMES)))
def test_the_plane_keeps_distances(home: int) -> None:
    roads = region(home, 1)
    for x_m, y_m in ((0.0, 0.0), (30_000.0, 5_000.0), (-45_000.0, -45_000.0)):
        latitude, longitude = roads.degrees(x_m, y_m)
        _, further = roads.degrees(x_m + 100, y_m)
        assert (further - longitude) * 111_195 * math.cos(math.radians(latitude)) == pytest.approx(100, rel=1e-3)


def test_a_mover_stops_exactly_where_it_waits_and_at_the_end() -> None:
    way = [Waypoint(0, 300, 50, 20), Waypoint(0, 500, 50, 20, wait_s=7), Waypoint(400, 500, 50, 20)]
    mover = Mover(0, 0, 0)
    mover.follow(iter(way))
    waits, speeds = [], []
    for _ in range(200):
        wait_s = mover.tick(1.0, 40.0, 1.7, 2.2)
        speeds.append(mover.speed_ms)
        if wait_s:
            waits.append((mover.x_m, mover.y_m, wait_s))
        if mover.is_there:
            break
    assert waits == [(0, 500, 7)]
    assert (mover.x_m, mover.y_m, mover.speed_ms) == (400, 500, 0)
    assert mover.odometer_m == pytest.approx(900)
    assert max(speeds) == pytest.approx(50 / 3.6)


def test_a_mover_is_slow_in_a_bend_and_before_a_lower_limit() -> None:
    mover = Mover(0, 0, 0)
    mover.follow(iter([Waypoint(0, 400, 100, 20), Waypoint(400, 400, 30, 20)]))
    at_bend = math.inf
    while not mover.is_there:
        before = mover.y_m
        mover.tick(1.0, 60.0, 2.0, 2.0)
        if before < 400 == mover.y_m:
            at_bend = mover.speed_ms
        assert mover.y_m < 390 or mover.speed_ms < 35 / 3.6
    assert at_bend < 8


def test_a_way_to_where_it_is_already_is_over_at_once() -> None:
    mover = Mover(1, 2, 3)
    mover.follow(iter([]))
    assert mover.tick(1.0, 40.0, 1.7, 2.2) == 0
    assert mover.is_there
    assert (mover.x_m, mover.y_m, mover.odometer_m) == (1, 2, 3)
