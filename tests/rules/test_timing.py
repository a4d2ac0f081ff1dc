"""TIM rules for signals that come twice, late, out of order, too often or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.clocks import DAY_S, ROLLOVER_S
from signalkeep.rules.judge import Judge, defaults
from signalkeep.rules.reading import Reading, Recent
from tests.rules.asking import ask, assert_hit, hit_places
from tests.rules.support import NOON_S, day_of, ids_of, judge_all, judge_the_day, profile_of, reading


def second(**fields: Any) -> list[Reading]:
    """A drive in which the second reading has a twin."""
    return [reading(0), reading(10, east_m=100, speed_kmh=36.0), reading(10, **fields), reading(20, east_m=200)]


def test_two_positions_of_one_time() -> None:
    judged = judge_all(second(east_m=400), profile_of("TIM-06"))
    assert [ids_of(one) for one in judged] == [[], [], ["TIM-06"], []]
    assert_hit(judged[2], "TIM-06", "a second position of the same time, 300 m away")


def test_two_speeds_of_one_time() -> None:
    judged = judge_all(second(east_m=100, speed_kmh=72.0), profile_of("TIM-06"))
    assert_hit(judged[2], "TIM-06", "a second speed of the same time: 36 and 72 km/h")


@pytest.mark.parametrize(
    ("fields", "limits", "hits"),
    [
        ({"east_m": 149}, {"speed_kmh": 50.0}, False),
        ({"east_m": 151}, {"speed_kmh": 50.0}, True),
        ({"east_m": 151}, {"speed_kmh": 50.0, "distance_m": 60.0}, False),
        ({"east_m": 100, "speed_kmh": 56.0}, {}, False),
        ({"east_m": 100, "speed_kmh": 57.0}, {}, True),
        ({"east_m": 100, "speed_kmh": 57.0}, {"speed_kmh": 30.0}, False),
        ({"east_m": 100, "speed_kmh": 36.0, "event_code": "240"}, {}, False),  # an event of the same moment
        ({"east_m": 100, "speed_kmh": None}, {}, False),
        ({"east_m": 900, "fix_valid": False}, {}, False),
        ({"latitude": None, "longitude": None, "fix_valid": False}, {}, False),
    ],
)
def test_how_different_twins_must_be(fields: dict[str, Any], limits: dict[str, float], hits: bool) -> None:
    assert bool(judge_all(second(**fields), profile_of("TIM-06", **limits))[2].hits) is hits


def test_twins_are_counted_as_looked_at_only_where_they_can_be_compared() -> None:
    rule, recent = BY_ID["TIM-06"], Recent()
    answers = []
    for one in [reading(0, fix_valid=False), reading(0), reading(10), reading(10)]:
        Judge().judge(one, recent, profile_of("TIM-06"))
        answers.append(rule.check(one, recent, defaults(rule)))
    assert answers == [False, None, False, False]


def test_out_of_order() -> None:
    judged = judge_all([reading(0), reading(100), reading(70), reading(110)], profile_of("TIM-07"))
    assert [ids_of(one) for one in judged] == [[], [], ["TIM-07"], []]
    assert_hit(judged[2], "TIM-07", "30 s older")
    assert not judged[2].hits[0].live


def test_out_of_order_is_seen_in_a_sweep_as_well() -> None:
    """There the readings are sorted: what is known is how they arrived."""
    day = day_of([reading(0), reading(100), reading(70), reading(110)])
    assert hit_places(judge_the_day(day, profile_of("TIM-07")).judged, "TIM-07") == [1]
    assert day.readings[1].time_s == reading(70).time_s


def test_the_limit_of_order() -> None:
    behind = reading(0, behind_s=30.0)
    assert ask("TIM-07", behind)
    assert ask("TIM-07", behind, behind_s=30) is False
    assert ask("TIM-07", reading(0, behind_s=1.0)) is False  # receivers give fractions of a second
    assert ask("TIM-07", reading(0)) is False
    assert ask("TIM-07", reading(0, time_s=None, behind_s=30.0)) is None


def drive(*steps: tuple[float, bool | None]) -> list[Reading]:
    """Readings that follow each other after so many seconds, with the ignition on, off, or not told."""
    readings, at_s = [], 0.0
    for step_s, ignition in steps:
        at_s += step_s
        readings.append(reading(at_s, attributes={} if ignition is None else {"ignition": ignition}))
    return readings


ON, OFF = True, False
USUAL: tuple[tuple[float, bool | None], ...] = tuple((30.0, ON) for _ in range(10))


def test_a_gap_marks_the_signal_behind_it() -> None:
    judged = judge_all(drive(*USUAL, (1800, ON), (30, ON)), profile_of("TIM-08"))
    assert hit_places(judged, "TIM-08") == [10]
    assert_hit(judged[10], "TIM-08", "nothing for 30 min with the ignition on, where every 30 s is usual")


@pytest.mark.parametrize(
    ("steps", "limits", "hits"),
    [
        ((*USUAL, (300, ON)), {}, False),
        ((*USUAL, (301, ON)), {}, True),
        ((*USUAL, (301, OFF)), {}, True),  # it was switched off at the end: that is its event
        ((*USUAL, (30, OFF), (40_000, ON)), {}, False),  # at rest
        ((*USUAL, (30, OFF), (3600, OFF), (3600, OFF), (30, ON), (10, ON)), {}, False),  # heartbeats at rest
        ((*USUAL, (30, OFF), (3600, OFF), (3600, OFF), (30, ON), (400, ON)), {}, True),  # which teach nothing
        ((*USUAL, (200, ON)), {"gap_s_min": 150.0}, True),
        ((*USUAL, (301, ON)), {"gap_s_min": 600.0}, False),
        ((*USUAL, (301, ON)), {"times_usual": 20.0}, False),
        (tuple((600.0, ON) for _ in range(10)), {}, False),  # it reports every ten minutes
        ((*((600.0, ON) for _ in range(5)), (1800, ON)), {}, False),
        ((*((600.0, ON) for _ in range(5)), (1801, ON)), {}, True),
        (((0, ON), (900, ON)), {}, False),  # nothing is usual yet
        (tuple((3600.0, None) for _ in range(9)), {}, False),  # it does not tell its ignition
    ],
)
def test_what_is_a_gap(steps: tuple[tuple[float, bool | None], ...], limits: dict[str, float], hits: bool) -> None:
    judged = judge_all(drive(*steps), profile_of("TIM-08", **limits))
    assert bool(hit_places(judged, "TIM-08")) is hits
    assert hit_places(judged, "TIM-08") in ([], [len(judged) - 1])


def test_a_device_that_is_set_to_report_less_often_is_believed_soon() -> None:
    judged = judge_all(drive(*USUAL, *((900.0, ON) for _ in range(40))), profile_of("TIM-08"))
    marked = hit_places(judged, "TIM-08")
    assert 0 < len(marked) < 15
    assert marked == list(range(10, 10 + len(marked)))


def test_a_backlog_leaves_no_gap() -> None:
    """Arrived late, in order, with its own times; and a tunnel is a gap in fixes, not in signals."""
    backlog = [reading(30 * n, received_s=NOON_S + 9000, attributes={"ignition": True}) for n in range(200)]
    tunnel = [reading(6000 + 30 * n, fix_valid=n % 9 > 5, attributes={"ignition": True}) for n in range(40)]
    judged = judge_all([*backlog, *tunnel], profile_of("TIM-06", "TIM-07", "TIM-08"))
    assert all(not one.hits for one in judged)


def test_a_gap_needs_what_came_before() -> None:
    rule = BY_ID["TIM-08"]
    assert rule.check(reading(0), Recent(), defaults(rule)) is None


def test_late_although_in_contact() -> None:
    late = reading(0, received_s=NOON_S + 1200)
    judged = judge_all([*every(10, 120, 1), late], profile_of("TIM-09"))
    assert not any(one.hits for one in judged[:-1])
    assert_hit(judged[-1], "TIM-09", "20 min after it happened", "min after it the device was in contact")


@pytest.mark.parametrize(
    ("delay_s", "withheld_s", "limits", "hits"),
    [
        (300, 300, {}, False),
        (301, 300, {}, False),
        (301, 301, {}, True),
        (3000, 0, {}, False),  # a backlog
        (3000, None, {}, False),
        (301, 301, {"late_s": 1800.0}, False),
        (30 * DAY_S, DAY_S, {}, True),
        (30 * DAY_S + 1, DAY_S, {}, False),  # then it is no delay
        (2 * DAY_S, DAY_S, {"old_s": DAY_S}, False),
        (ROLLOVER_S, ROLLOVER_S, {}, False),
        (-3600, 0, {}, False),
    ],
)
def test_how_late_is_late(delay_s: float, withheld_s: float | None, limits: dict[str, float], hits: bool) -> None:
    answer = ask("TIM-09", reading(0, received_s=NOON_S + delay_s, withheld_s=withheld_s), **limits)
    assert answer if hits else answer is False


def test_without_a_time_nothing_is_late() -> None:
    assert ask("TIM-09", reading(0, time_s=None)) is None


def every(step_s: float, count: int, begin_s: float = 0.0, **fields: Any) -> list[Reading]:
    return [reading(begin_s + step_s * n, **fields) for n in range(count)]


def floods(readings: list[Reading], **limits: float) -> tuple[list[int], list[str]]:
    judged = judge_the_day(day_of(readings), profile_of("TIM-10", **limits)).judged
    return hit_places(judged, "TIM-10"), [hit.detail for one in judged for hit in one.hits if hit.at_s == hit.since_s]


def test_a_flood_marks_all_of_it_once() -> None:
    calm = every(30, 100, -4000)
    places, details = floods([*calm, *every(1, 1500, 5000), *every(30, 100, 20_000)])
    assert places == list(range(100, 1600))
    assert details == ["up to 1500 signals within an hour"]


def test_signals_around_a_flood_are_not_marked() -> None:
    """They lie within the same hour, but follow each other as they should."""
    before, after = every(30, 40, -1200), every(30, 40, 1500)
    places, details = floods([*before, *every(1, 1200, 60), *after])
    assert places == list(range(40, 1240))
    assert details == ["up to 1270 signals within an hour"]


def test_two_floods_are_two_hits() -> None:
    places, details = floods([*every(1, 1200, -20_000), *every(60, 30, 0), *every(1, 1100, 20_000)])
    assert len(places) == 2300
    assert details == ["up to 1200 signals within an hour", "up to 1100 signals within an hour"]


@pytest.mark.parametrize(
    ("readings", "limits", "hits"),
    [
        (every(3, 1000), {}, False),
        (every(3, 1001), {}, True),
        (every(3.6, 2000), {}, False),  # 1000 in each hour
        (every(10, 4000, -30_000), {}, False),
        (every(3, 1001), {"signals_per_hour": 1200.0}, False),
        (every(30, 100), {"signals_per_hour": 60.0}, True),
        (every(0, 1001), {}, True),  # the clock stands still
        (every(1, 1001, time_s=None), {}, True),  # by time of arrival where there is no other
        ([], {}, False),
    ],
)
def test_how_many_are_a_flood(readings: list[Reading], limits: dict[str, float], hits: bool) -> None:
    assert bool(floods(readings, **limits)[0]) is hits


def test_a_backlog_that_arrives_at_once_is_no_flood() -> None:
    assert floods(every(10, 3000, -30_000, received_s=NOON_S + 100)) == ([], [])


def test_a_day_of_one_signal_a_second_is_one_flood() -> None:
    places, details = floods(every(1, 20_000, -10_000))
    assert len(places) == 20_000
    assert details == ["up to 3600 signals within an hour"]
