"""Records, gaps and clocks: decided by seed and time alone, and never two records with one time."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalkeep.errors import CallerError
from signalkeep.simulate.coverage import Coverage, DeviceClock, Gap, clock_of
from signalkeep.simulate.drive import EVENT_CODES, Drive
from signalkeep.simulate.records import Evenly, Recorder
from signalkeep.simulate.scenarios import CITY, LONG_HAUL, SCENARIOS, habits_of

START = datetime(2024, 5, 6, 10, 8, 9, tzinfo=UTC)


def recorder(clock: DeviceClock) -> Recorder:
    return Recorder(lambda: Drive(random.Random(1), START, EVENT_CODES["teltonika"]), clock, START)


def gaps_until(coverage: Coverage, end_s: int) -> list[Gap]:
    found: list[Gap] = []
    for second in range(end_s):
        gap = coverage.gap(float(second))
        if gap and (not found or found[-1] != gap):
            found.append(gap)
    return found


def test_gaps_come_as_often_and_last_as_long_as_the_scenario_says() -> None:
    gaps = [gap for seed in range(60) for gap in gaps_until(Coverage(str(seed), LONG_HAUL), 20_000)]
    per_unit = len(gaps) / 60
    assert 4 < per_unit < 8.5
    assert {gap.open_sky for gap in gaps} == {True, False}
    assert all(15 <= gap.end_s - gap.start_s <= 2400 for gap in gaps)


def test_gaps_follow_from_the_name() -> None:
    one, again, other = (gaps_until(Coverage(name, CITY), 20_000) for name in ("a", "a", "b"))
    assert one == again != other
    assert gaps_until(Coverage("a", CITY, has_gaps=False), 20_000) == []


@given(
    drift=st.floats(-5000, 5000),
    every_s=st.floats(20, 300),
    interval_s=st.floats(0.001, 5.0),
    wrong_s=st.sampled_from([0.0, -3600.0]),
)
@settings(max_examples=60, deadline=None)
def test_no_two_records_have_the_same_time(drift: float, every_s: float, interval_s: float, wrong_s: float) -> None:
    clock = DeviceClock(wrong_s, drift, every_s, every_s / 3)
    made = recorder(clock)
    times = [made.make(number * interval_s).wire_time for number in range(400)]
    assert len(set(times)) == len(times)
    assert all(time is not None and time.microsecond % 1000 == 0 for time in times)


def test_after_a_jump_times_that_were_said_before_are_passed_over() -> None:
    made = recorder(DeviceClock(0.0, 8640.0, 11.0, 5.5))  # says every 11 ms, and jumps back by a hundred of them
    times = [made.make(number * 0.01).wire_time for number in range(3000)]
    assert len(set(times)) == len(times)
    assert times != sorted(time for time in times if time is not None)


def test_a_clock_that_is_fast_jumps_back_when_it_is_set() -> None:
    made = recorder(DeviceClock(0.0, 8640.0, 100.0, 50.0))  # a tenth of a second for each second
    said = []
    for second in range(100):
        signal = made.make(second + 0.25)
        assert signal.wire_time is not None
        assert signal.wire_time == signal.device_time
        assert made.vehicle is not None
        assert made.vehicle.truth is not None
        said.append((signal.wire_time - made.vehicle.truth.at).total_seconds())
    assert said[49] == pytest.approx(10, abs=0.2)
    assert said[50] == pytest.approx(0, abs=0.2)
    assert max(said) - min(said) > 9


def test_clocks_of_a_fleet() -> None:
    clocks = [clock_of(random.Random(seed), drifts=True, wrong_share=0.1) for seed in range(400)]
    assert len({clock.drift_s_per_day for clock in clocks}) > 390
    assert max(abs(clock.drift_s_per_day) for clock in clocks) <= 30
    wrong = [clock for clock in clocks if clock.wrong_s]
    assert 20 < len(wrong) < 70
    assert all(clock.wrong_s < 0 for clock in wrong)
    assert all(clock.jump_s == 0 for clock in [clock_of(random.Random(1), drifts=False, wrong_share=0.0)])


def test_records_at_one_moment_are_a_millisecond_apart() -> None:
    made = recorder(DeviceClock(0.0, 0.0, 86400.0, 0.0))
    times = [made.make(1.0).wire_time for _ in range(3)]
    assert times == [START + timedelta(milliseconds=1000 + number) for number in range(3)]


def test_an_even_schedule() -> None:
    schedule = Evenly(0.5, 2.0)
    assert [schedule.due_s(order) for order in (1, 2, 3)] == [0.5, 2.5, 4.5]


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios_draw_their_kinds(name: str) -> None:
    drawn = {habits_of(name, number / 100).name for number in range(100)}
    assert drawn == {habits.name for _, habits in SCENARIOS[name]}


def test_an_unknown_scenario_is_refused() -> None:
    with pytest.raises(CallerError, match="no such scenario"):
        habits_of("rally", 0.5)
