"""Drives: reproducible, on the grid of the encoders, and of a piece with themselves."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from signalkeep.model import Signal
from signalkeep.simulate.drive import EVENT_CODES, METRES_PER_DEGREE, ROAM_DEGREES_MAX, START_POINTS, Drive

START = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def drive(seed: int, gaps_s: list[float], protocol: str = "teltonika") -> list[Signal]:
    vehicle = Drive(random.Random(seed), START, EVENT_CODES[protocol])
    at, signals = START, []
    for gap_s in gaps_s:
        at += timedelta(milliseconds=round(gap_s * 1000))
        signals.append(vehicle.step(at))
    return signals


def metres_between(one: Signal, other: Signal) -> float:
    assert one.latitude is not None
    assert one.longitude is not None
    assert other.latitude is not None
    assert other.longitude is not None
    north = (other.latitude - one.latitude) * METRES_PER_DEGREE
    east = (other.longitude - one.longitude) * METRES_PER_DEGREE * math.cos(math.radians(one.latitude))
    return math.hypot(north, east)


gaps = st.lists(st.floats(0.001, 120.0), min_size=2, max_size=60)


@given(seed=st.integers(0, 10_000), gaps_s=gaps)
@settings(max_examples=50)
def test_the_seed_decides_everything(seed: int, gaps_s: list[float]) -> None:
    assert drive(seed, gaps_s) == drive(seed, gaps_s)


@given(seed=st.integers(0, 10_000), gaps_s=gaps)
@settings(max_examples=50)
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


@given(seed=st.integers(0, 10_000), gap_s=st.sampled_from([0.1, 1.0, 5.0, 30.0]))
@settings(max_examples=50)
def test_speed_position_and_odometer_agree(seed: int, gap_s: float) -> None:
    signals = drive(seed, [gap_s] * 100)
    for before, after in pairwise(signals):
        moved_m = metres_between(before, after)
        mean_kmh = ((before.speed_kmh or 0) + (after.speed_kmh or 0)) / 2
        assert abs(moved_m - mean_kmh / 3.6 * gap_s) <= 0.6 / 3.6 * gap_s + 0.1 + moved_m * 0.02
        assert abs(after.attributes["odometer_m"] - before.attributes["odometer_m"] - moved_m) < 2 + moved_m * 0.02
        assert after.attributes["motion"] is ((after.speed_kmh or 0) > 0)
        assert after.attributes["ignition"] or after.speed_kmh == 0


def test_a_day_has_stops_drives_and_events_and_stays_in_its_region() -> None:
    signals = drive(7, [10.0] * 8640, protocol="json")
    assert {signal.attributes["ignition"] for signal in signals} == {True, False}
    codes = {signal.event_code for signal in signals}
    assert codes == {None, "7000", "7001", "7002", "7003", "4002"}
    for before, after in pairwise(signals):
        if before.attributes["ignition"] is not after.attributes["ignition"]:
            assert after.event_code == ("7000" if after.attributes["ignition"] else "7001")
    home = min(START_POINTS, key=lambda point: abs(point[0] - (signals[0].latitude or 0)))
    assert all(abs((signal.latitude or 0) - home[0]) < ROAM_DEGREES_MAX + 0.2 for signal in signals)
    assert sum(metres_between(*pair) for pair in pairwise(signals)) > 50_000
