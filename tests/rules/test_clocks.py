"""TIM rules for clocks that are wrong: units, the future, long ago, week counters, time zones."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from signalkeep.rules.clocks import DAY_S, ROLLOVER_S, YEAR_2015_S, date_of, in_words
from signalkeep.rules.reading import Reading
from tests.rules.asking import ask, assert_hit, hit_places
from tests.rules.support import MIDNIGHT_S, NOON_S, day_of, judge_all, judge_the_day, profile_of, reading

CLOCKS = ("TIM-01", "TIM-02", "TIM-03", "TIM-04")


def clock(error_s: float, **fields: Any) -> Reading:
    """A reading received at noon whose clock is so far ahead."""
    return reading(error_s, received_s=NOON_S, **fields)


def sent_as(wire_s: float) -> Reading:
    """A time that cannot be used, so that the time of arrival stands in."""
    return reading(0, time_s=None, wire_s=wire_s)


@pytest.mark.parametrize(
    ("wire_s", "words"),
    [
        (NOON_S / 1e3, ("1970-01-21", "seconds, read as milliseconds", "2026-06-20 12:00:00")),
        (NOON_S / 1e6, ("1970-01-01", "seconds, read as microseconds", "2026-06-20")),
        (NOON_S * 1e3, ("milliseconds, read as seconds", "2026-06-20 12:00:00")),
        (NOON_S * 1e6, ("microseconds, read as seconds", "2026-06-20 12:00:00")),
    ],
)
def test_another_unit_is_named_with_the_time_it_would_be(wire_s: float, words: tuple[str, ...]) -> None:
    (judged,) = judge_all([sent_as(wire_s)], profile_of("TIM-01"))
    assert_hit(judged, "TIM-01", *words)


@pytest.mark.parametrize(
    ("wire_s", "limits", "hits"),
    [
        ((NOON_S - 29 * DAY_S) / 1e3, {}, True),
        ((NOON_S - 31 * DAY_S) / 1e3, {}, False),
        ((NOON_S - 31 * DAY_S) / 1e3, {"within_s": 32 * DAY_S}, True),
        (0.0, {}, False),  # a clock that was never set
        (315_964_800.0, {}, False),  # 1980, where the satellites' time begins
        (NOON_S - ROLLOVER_S, {}, False),
        (NOON_S, {}, False),
        (float("nan"), {}, False),
        (float("inf"), {}, False),
    ],
)
def test_what_is_another_unit(wire_s: float, limits: dict[str, float], hits: bool) -> None:
    answer = ask("TIM-01", sent_as(wire_s), **limits)
    assert answer if hits else answer is False


@pytest.mark.parametrize("rule_id", CLOCKS)
def test_without_a_time_there_is_nothing_to_say(rule_id: str) -> None:
    assert ask(rule_id, reading(0, time_s=None, wire_s=None)) is None


@pytest.mark.parametrize("rule_id", CLOCKS)
@pytest.mark.parametrize("delay_s", [-60, 0, 2, 3600, 29 * DAY_S])
def test_clocks_that_are_right_are_clean_also_with_a_backlog(rule_id: str, delay_s: float) -> None:
    assert ask(rule_id, clock(-delay_s)) is False


def test_ahead_of_its_arrival() -> None:
    drift, failed = judge_all([clock(90), clock(720)], profile_of("TIM-02"))
    assert_hit(drift, "TIM-02", "90 s ahead")
    assert "wrong" not in drift.hits[0].detail
    assert_hit(failed, "TIM-02", "12 min ahead of its arrival: the clock is wrong")


@pytest.mark.parametrize(
    ("ahead_s", "limits", "hits"),
    [(60, {}, False), (61, {}, True), (61, {"ahead_s": 120.0}, False), (31, {"ahead_s": 30.0}, True)],
)
def test_how_far_ahead_is_too_far(ahead_s: float, limits: dict[str, float], hits: bool) -> None:
    answer = ask("TIM-02", clock(ahead_s), **limits)
    assert answer if hits else answer is False


@pytest.mark.parametrize(("ahead_s", "malfunction_s", "wrong"), [(600, 600, False), (601, 600, True), (90, 80, True)])
def test_from_where_on_the_clock_has_failed(ahead_s: float, malfunction_s: float, wrong: bool) -> None:
    answer = ask("TIM-02", clock(ahead_s), malfunction_s=malfunction_s)
    assert answer
    assert ("wrong" in answer) is wrong


def test_a_time_beyond_use_counts_as_sent() -> None:
    """Released by a person although it is days ahead; or before 2000."""
    assert "3 d ahead" in str(ask("TIM-02", sent_as(NOON_S + 3 * DAY_S + 2)))
    assert "1970-01-01 00:00:07" in str(ask("TIM-03", sent_as(7.0)))


@pytest.mark.parametrize(
    ("error_s", "limits", "hits"),
    [
        (-30 * DAY_S, {}, False),
        (-30 * DAY_S - 1, {}, True),
        (-40 * DAY_S, {"age_s": 41 * DAY_S}, False),
        (-3600, {"age_s": 1800.0}, True),
        (-5 * DAY_S, {"first_s": NOON_S - 4 * DAY_S}, True),
    ],
)
def test_how_old_is_too_old(error_s: float, limits: dict[str, float], hits: bool) -> None:
    answer = ask("TIM-03", clock(error_s), **limits)
    assert answer if hits else answer is False


@pytest.mark.parametrize(("year_off_s", "hits"), [(-1, True), (0, False)])
def test_before_2015_no_age_is_needed(year_off_s: float, hits: bool) -> None:
    then = reading(0, time_s=YEAR_2015_S + year_off_s, received_s=YEAR_2015_S + 10)
    assert bool(ask("TIM-03", then)) is hits


def test_too_old_says_when() -> None:
    (judged,) = judge_all([clock(-45 * DAY_S)], profile_of("TIM-03"))
    assert_hit(judged, "TIM-03", "2026-05-06 12:00:00", "45 d before its arrival")


def test_the_turn_over_of_traccar_issue_5029() -> None:
    """2003-07-01 20:24:14, received 2023-02-14 19:24:16 in a zone one hour ahead: 7168 days less an hour."""
    received_s = 1_676_402_656.0
    old = reading(0, time_s=1_057_091_054.0, received_s=received_s)
    (judged,) = judge_all([old], profile_of("TIM-04"))
    assert_hit(judged, "TIM-04", "2003-07-01 20:24:14", "1024 weeks later it would be 2023-02-14 20:24:14")


@pytest.mark.parametrize(
    ("behind_s", "limits", "word"),
    [
        (ROLLOVER_S, {}, "1024 weeks"),
        (ROLLOVER_S - DAY_S + 1, {}, "1024 weeks"),
        (ROLLOVER_S + DAY_S - 1, {}, "1024 weeks"),
        (2 * ROLLOVER_S, {}, "2048 weeks"),
        (ROLLOVER_S + 2 * DAY_S, {"within_s": 3 * DAY_S}, "1024 weeks"),
        (ROLLOVER_S - DAY_S, {}, None),
        (ROLLOVER_S + DAY_S, {}, None),
        (1.5 * ROLLOVER_S, {}, None),
        (ROLLOVER_S - 3600, {"within_s": 1800.0}, None),
        (-ROLLOVER_S, {}, None),
    ],
)
def test_whole_rounds_of_the_week_counter(behind_s: float, limits: dict[str, float], word: str | None) -> None:
    answer = ask("TIM-04", clock(-behind_s), **limits)
    assert answer is False if word is None else word in str(answer)


def day_with(delay_s: Callable[[int], float], count: int = 60) -> list[Reading]:
    """A reading every ten minutes from midnight on, each so late."""
    times = [MIDNIGHT_S + 600 * n for n in range(count)]
    return [reading(at - NOON_S, received_s=at + delay_s(n)) for n, at in enumerate(times)]


def zones(readings: list[Reading], **limits: float) -> tuple[list[int], list[str]]:
    day = day_of(sorted(readings, key=lambda one: one.received_s))
    judged = judge_the_day(day, profile_of("TIM-05", **limits))
    assert judged.unplaced == []
    return hit_places(judged.judged, "TIM-05"), list(dict.fromkeys(h.detail for j in judged.judged for h in j.hits))


def test_a_clock_in_another_zone() -> None:
    places, details = zones(day_with(lambda n: -8 * 3600 + 3))
    assert places == list(range(60))
    assert details == ["the clock is 8 h ahead in 60 of 60 signals"]


@pytest.mark.parametrize(
    ("offset_s", "limits", "hits"),
    [
        (5 * 3600, {}, True),
        (-20_700, {}, True),  # Nepal, 5:45
        (1800, {}, True),
        (900, {}, False),
        (900, {"offset_s_min": 900.0}, True),
        (-14 * 3600, {}, True),
        (-14 * 3600 - 900, {}, False),
        (12 * 3600, {}, True),
        (12 * 3600 + 900, {}, False),
        (12 * 3600 + 900, {"behind_s_max": 50_000.0}, True),
        (-9 * 3600, {"ahead_s_max": 8 * 3600.0}, False),
        (3600 + 170, {}, True),
        (3600 + 190, {}, False),
        (3600 + 190, {"within_s": 200.0}, True),
        (0, {}, False),
    ],
)
def test_which_offsets_are_zones(offset_s: float, limits: dict[str, float], hits: bool) -> None:
    assert bool(zones(day_with(lambda n: offset_s), **limits)[0]) is hits


@pytest.mark.parametrize(("count", "limits", "hits"), [(19, {}, False), (20, {}, True), (5, {"signals_min": 5}, True)])
def test_how_many_signals_a_zone_needs(count: int, limits: dict[str, float], hits: bool) -> None:
    assert bool(zones(day_with(lambda n: 7200.0, count), **limits)[0]) is hits


def test_most_of_the_day_must_be_off_by_the_same() -> None:
    """A backlog within a day of another zone is part of it; a day of which less than half is off is not."""
    with_backlog = day_with(lambda n: 7200.0 if n % 3 else 7200.0 + 1000 + 40 * n)
    assert len(zones(with_backlog)[0]) == 40
    assert zones(with_backlog, share_min=0.7) == ([], [])


def until_it_ends(end_s: float, number: int) -> float:
    """The delay of a reading in a time without coverage that begins at midnight."""
    return max(2.0, end_s - 600 * number)


def test_backlogs_are_no_zones() -> None:
    """Whatever the middle of their delays is: they are of all lengths."""
    for hours in (1, 2, 5, 12, 24):
        assert zones(day_with(partial(until_it_ends, hours * 3600))) == ([], [])
    source = random.Random(7)
    assert zones(day_with(lambda n: source.uniform(0, 4 * 3600))) == ([], [])


def test_readings_without_a_clock_are_left_out() -> None:
    day = [*day_with(lambda n: 3600.0, 25), *(reading(n, time_s=None) for n in range(20))]
    judged = judge_the_day(day_of(day), profile_of("TIM-05"))
    assert hit_places(judged.judged, "TIM-05") == list(range(25))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1.5, "1.5 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (172_800, "2 d"),
        (-7200, "-2 h"), (ROLLOVER_S, "7168 d"),
    ],
)  # fmt: skip
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_time_that_no_calendar_has() -> None:
    assert [date_of(time_s) for time_s in (0.0, float("inf"), float("nan"))] == [
        "1970-01-01 00:00:00",
        "inf s",
        "nan s",
    ]
