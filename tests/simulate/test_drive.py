"""Drives: reproducible, on the grid of the encoders, of a piece with themselves, and on roads."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalkeep.model import Signal
from signalkeep.simulate.coverage import Coverage
from signalkeep.simulate.drive import EVENT_CODES, Drive, Truth
from signalkeep.simulate.roads import HOMES, METRES_PER_DEGREE, region
from signalkeep.simulate.scenarios import CITY, DELIVERY, LONG_HAUL, Habits

START = datetime(2024, 5, 6, 10, 8, 9, tzinfo=UTC)
BERLIN = region(0, 1)


def vehicle(seed: int, protocol: str = "teltonika", habits: Habits | None = None, *, has_gaps: bool = False) -> Drive:
    coverage = Coverage(str(seed), habits or CITY, has_gaps=has_gaps)
    return Drive(random.Random(seed), START, EVENT_CODES[protocol], habits=habits, roads=BERLIN, coverage=coverage)


def drive(
    seed: int, gaps_s: Sequence[float], protocol: str = "teltonika", habits: Habits | None = None
) -> list[Signal]:
    one, at, signals = vehicle(seed, protocol, habits), START, []
    for gap_s in gaps_s:
        at += timedelta(milliseconds=round(gap_s * 1000))
        signals.append(one.step(at))
    return signals


def truths(seed: int, habits: Habits, count: int, gap_s: float = 1.0, *, has_gaps: bool = False) -> list[Truth]:
    one, found = vehicle(seed, habits=habits, has_gaps=has_gaps), []
    for number in range(1, count + 1):
        one.step(START + timedelta(seconds=number * gap_s))
        assert one.truth is not None
        found.append(one.truth)
    return found


def metres_between(one: Signal | Truth, other: Signal | Truth) -> float:
    assert one.latitude is not None
    assert one.longitude is not None
    assert other.latitude is not None
    assert other.longitude is not None
    north = (other.latitude - one.latitude) * METRES_PER_DEGREE
    east = (other.longitude - one.longitude) * METRES_PER_DEGREE * math.cos(math.radians(one.latitude))
    return math.hypot(north, east)


gaps = st.lists(st.floats(0.001, 120.0), min_size=2, max_size=60)
kinds = st.sampled_from([CITY, DELIVERY, LONG_HAUL])


@given(seed=st.integers(0, 10_000), gaps_s=gaps)
@settings(max_examples=40)
def test_the_seed_decides_everything(seed: int, gaps_s: list[float]) -> None:
    assert drive(seed, gaps_s) == drive(seed, gaps_s)


@given(seed=st.integers(0, 10_000), gaps_s=st.lists(st.integers(1, 40), min_size=2, max_size=30))
@settings(max_examples=40)
def test_where_a_vehicle_is_does_not_depend_on_who_looks_when(seed: int, gaps_s: list[int]) -> None:
    often, seldom = vehicle(seed), vehicle(seed)
    for second in range(1, sum(gaps_s) + 1):
        often.step(START + timedelta(seconds=second))
    for index in range(len(gaps_s)):
        seldom.step(START + timedelta(seconds=sum(gaps_s[: index + 1])))
    assert often.truth is not None
    assert seldom.truth is not None
    assert often.truth._replace(hard=0) == seldom.truth._replace(hard=0)


@given(seed=st.integers(0, 10_000), gaps_s=gaps)
@settings(max_examples=40)
def test_values_lie_on_the_grid_of_the_encoders(seed: int, gaps_s: list[float]) -> None:
    for signal in drive(seed, gaps_s):
        assert signal.latitude == round(signal.latitude or 0, 7)
        assert signal.longitude == round(signal.longitude or 0, 7)
        for value in (signal.speed_kmh, signal.course_deg, signal.altitude_m):
            assert value is not None
            assert value == int(value)
        assert 0 <= (signal.course_deg or 0) < 360
        assert signal.wire_time == signal.device_time
        assert signal.fix_valid
        assert (signal.satellites or 0) > 0


@given(seed=st.integers(0, 10_000), habits=kinds, gap_s=st.sampled_from([0.1, 0.5, 1.0]))
@settings(max_examples=40, deadline=None)
def test_speed_position_and_odometer_agree(seed: int, habits: Habits, gap_s: float) -> None:
    for before, after in pairwise(truths(seed, habits, 300, gap_s)):
        moved_m, metres = metres_between(before, after), after.odometer_m - before.odometer_m
        mean_kmh = (before.speed_kmh + after.speed_kmh) / 2
        assert metres - moved_m + 0.03 * metres >= -0.01, "the way is no shorter than the straight line"
        assert moved_m >= metres * 0.5 - 0.7, "nor much longer, but around a corner"
        assert abs(metres - mean_kmh / 3.6 * gap_s) <= 0.8 + 0.5 * gap_s, "but for the second of a stop"
        assert after.engine_on or after.speed_kmh == 0


@given(seed=st.integers(0, 10_000), habits=kinds)
@settings(max_examples=30, deadline=None)
def test_speeds_keep_limits_of_physics(seed: int, habits: Habits) -> None:
    for before, after in pairwise(truths(seed, habits, 600)):
        change_ms2 = (after.speed_kmh - before.speed_kmh) / 3.6
        assert -3.5 * habits.braking_ms2 <= change_ms2 <= 2.1 * habits.acceleration_ms2
        assert after.speed_kmh <= min(140, habits.speed_kmh_max * 1.001)
        turn = abs((after.course_deg - before.course_deg + 180) % 360 - 180)
        if turn > 60 and before.speed_kmh > 0:
            assert min(before.speed_kmh, after.speed_kmh) < 40, "corners are taken slowly"


@pytest.mark.parametrize(
    ("protocol", "codes"),
    [("json", {"7000", "7003", "7001", "7002", "4002", None}), ("teltonika", {"239", "253", "240", None})],
)
def test_a_day_has_stops_drives_and_events(protocol: str, codes: set[str | None]) -> None:
    days = [drive(seed, [10.0] * 8640, protocol, CITY) for seed in range(3)]
    assert {signal.event_code for signals in days for signal in signals} == codes
    signals = days[0]
    assert {signal.attributes["ignition"] for signal in signals} == {True, False}
    on, off = EVENT_CODES[protocol][:2]
    for before, after in pairwise(signals):
        if before.attributes["ignition"] is not after.attributes["ignition"]:
            assert after.event_code == (on if after.attributes["ignition"] else off)
    assert sum(metres_between(*pair) for pair in pairwise(signals)) > 30_000
    power = {signal.attributes["ignition"]: signal.attributes["power_v"] for signal in signals}
    assert power[True] > 13.5 > power[False]


@pytest.mark.parametrize("habits", [CITY, DELIVERY, LONG_HAUL])
def test_only_who_drives_hard_reports_it(habits: Habits) -> None:
    calm, hard = 0, 0
    for seed in range(30):
        one = vehicle(seed, habits=habits)
        for number in range(1, 1500):
            drives_hard = one._hard_trip
            one.step(START + timedelta(seconds=number))
            assert one.truth is not None
            if drives_hard:
                hard += one.truth.hard > 0
            else:
                calm += one.truth.hard > 0
    assert calm == 0
    assert hard > 0 or habits is LONG_HAUL


def test_the_engine_runs_before_the_vehicle_moves_and_after_it_stops() -> None:
    found = truths(11, DELIVERY, 7200)
    changes = [
        (index, after)
        for index, (before, after) in enumerate(pairwise(found))
        if before.engine_on is not after.engine_on
    ]
    assert len(changes) > 4
    for index, after in changes:
        around = found[max(0, index - 2) : index + 4]
        assert all(truth.speed_kmh == 0 for truth in around), after


def test_it_waits_at_lights_with_the_engine_on() -> None:
    found = truths(3, CITY, 3600)
    stands = [truth for truth in found if truth.engine_on and truth.speed_kmh == 0]
    drives = [truth for truth in found if truth.speed_kmh > 0]
    assert len(stands) > 60
    assert len(drives) > 600


def test_the_night_is_spent_at_the_base() -> None:
    signals = drive(5, [60.0] * 1440, habits=DELIVERY)
    night = [signal for signal in signals if signal.device_time and (signal.device_time.hour + 13.4 / 15) % 24 >= 22]
    assert len({(signal.latitude, signal.longitude) for signal in night}) == 1
    assert not any(signal.attributes["ignition"] for signal in night)


def test_long_haul_goes_to_other_towns_and_a_lorry_keeps_its_limit() -> None:
    found = truths(2, LONG_HAUL, 4 * 3600)
    home = HOMES[0]
    away = max(abs(truth.latitude - home.latitude) * METRES_PER_DEGREE for truth in found)
    assert away > 8000 or max(abs(truth.longitude - home.longitude) for truth in found) > 0.15
    assert 80 < max(truth.speed_kmh for truth in found) < 90


def test_without_satellites_the_last_place_is_reported() -> None:
    """In gaps without sky, after a cold start, and now and then; never at a speed."""
    lost = 0
    for seed in range(6):
        one = vehicle(seed, habits=CITY, has_gaps=True)
        last: Signal | None = None
        for number in range(1, 4000):
            signal = one.step(START + timedelta(seconds=number * 5))
            if not signal.fix_valid:
                lost += 1
                assert (signal.satellites, signal.speed_kmh) == (0, 0.0)
                if last is not None:
                    assert (signal.latitude, signal.longitude) == (last.latitude, last.longitude)
            if one.truth is not None and one.truth.gap:
                assert signal.attributes["gsm_rssi"] == 0
            last = signal
    assert lost > 100
