"""A day: its order, how far what came late is behind, and where hits of DAY rules are placed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalkeep.model import Flag
from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.contract import Caution, Limit, Limits, Rule, Scope
from signalkeep.rules.days import DayHit, DeviceDay, in_order, judge_day
from signalkeep.rules.judge import Judge, Profile, defaults
from signalkeep.rules.reading import Reading, Recent
from tests.rules.support import MIDNIGHT_S, NOON_S, day_of, ids_of, judge_the_day, profile_of, reading

TELEPORT = BY_ID["KIN-01"]


def times(readings: Iterable[Reading]) -> list[float | None]:
    return [None if one.time_s is None else one.time_s - NOON_S for one in readings]


def of_days(rule_id: str, *hits: DayHit, **fields: Any) -> Rule:
    what: dict[str, Any] = {
        "id": rule_id, "scope": Scope.DAY, "check": lambda _, __: iter(hits), "bit": 9, "spoils_position": False,
        "limits": {},
    }  # fmt: skip
    return msgspec.structs.replace(BY_ID["POS-01"], **(what | fields))


# Order --------------------------------------------------------------------------------------------------------------


def test_the_order_is_that_of_device_time_and_what_came_late_knows_by_how_much() -> None:
    arrived = [reading(at_s, received_s=NOON_S + 900) for at_s in (0, 60, 30, 90, 10)]
    ordered = in_order(arrived)
    assert times(ordered) == [0, 10, 30, 60, 90]
    assert [one.behind_s for one in ordered] == [0, 80, 30, 0, 0]


def test_of_the_same_time_what_arrived_first_is_first() -> None:
    first, second = reading(0, speed_kmh=1.0), reading(0, speed_kmh=2.0)
    assert in_order([first, second]) == [first, second]
    assert in_order([second, first]) == [second, first]
    assert second.behind_s == first.behind_s == 0


def test_without_a_clock_they_come_last_by_arrival() -> None:
    lost = [reading(5, time_s=None), reading(2, time_s=None)]
    ordered = in_order([lost[0], reading(100), lost[1], reading(0)])
    assert times(ordered) == [0, 100, None, None]
    assert ordered[2:] == [lost[1], lost[0]]
    assert [one.behind_s for one in ordered] == [100, 0, 0, 0]


def test_a_clock_ahead_of_ours_puts_nothing_behind() -> None:
    ahead = reading(7200, received_s=NOON_S + 5)
    ordered = in_order([reading(0), ahead, reading(60), reading(30)])
    assert times(ordered) == [0, 30, 60, 7200]
    assert [one.behind_s for one in ordered] == [0, 30, 0, 0]


@given(st.lists(st.tuples(st.none() | st.integers(0, 50), st.integers(0, 90)), max_size=12))
def test_order_loses_nothing_and_depends_on_times_alone(given_times: list[tuple[int | None, int]]) -> None:
    arrived = [
        reading(0, time_s=None if at_s is None else NOON_S + at_s, received_s=NOON_S + received_s)
        for at_s, received_s in given_times
    ]
    ordered = in_order(arrived)
    assert sorted(map(id, ordered)) == sorted(map(id, arrived))
    known = [one.time_s for one in ordered if one.time_s is not None]
    assert known == sorted(known)
    assert all(one.time_s is None for one in ordered[len(known) :])
    assert all(one.behind_s >= 0 for one in ordered)


# Judging ------------------------------------------------------------------------------------------------------------


def test_every_reading_is_judged_in_its_place() -> None:
    """In the order of arrival the second would be a jump; in its place it is on the way."""
    arrived = [reading(0), reading(600, east_m=20_000), reading(300, east_m=10_000)]
    judged = judge_the_day(day_of(arrived), profile_of(TELEPORT))
    assert [ids_of(one) for one in judged.judged] == [[], [], []]


def test_the_memory_stands_where_the_day_begins_and_ends_where_it_ends() -> None:
    recent, profile = Recent(), profile_of(TELEPORT)
    Judge().judge(reading(-60), recent, profile)
    judged = judge_day(Judge(), profile, day_of([reading(0, east_m=9000), reading(60, east_m=100)]), recent)
    assert [ids_of(one) for one in judged.judged] == [["KIN-01"], []]
    assert recent.newest_s == NOON_S + 60


def test_a_hit_of_a_day_rule_marks_its_readings_and_keeps_what_others_found() -> None:
    rule = of_days("TST-01", DayHit([1, 2], "drifts"))
    judged = judge_the_day(day_of([reading(0), reading(10, east_m=9000), reading(20)]), profile_of(TELEPORT, rule))
    assert [ids_of(one) for one in judged.judged] == [[], ["KIN-01", "TST-01"], ["TST-01"]]
    assert [one.flags for one in judged.judged] == [0, TELEPORT.mask | Flag.DOUBTFUL_POSITION | rule.mask, rule.mask]
    assert judged.unplaced == []
    first, second = judged.judged[1].hits[1], judged.judged[2].hits[0]
    assert (first.since_s, first.at_s, second.since_s, second.at_s) == (
        NOON_S + 10,
        NOON_S + 10,
        NOON_S + 10,
        NOON_S + 20,
    )
    assert first.live
    assert second.live


def test_a_hit_of_a_day_rule_on_what_came_late_alarms_nobody() -> None:
    late = reading(10, received_s=NOON_S + 4000)
    judged = judge_the_day(day_of([reading(0), late]), profile_of(of_days("TST-01", DayHit([0, 1], "drifts")))).judged
    assert [one.hits[0].live for one in judged] == [True, False]


def test_a_day_rule_can_doubt_positions_or_ask_for_caution() -> None:
    doubted = of_days("TST-01", DayHit([0], "elsewhere"), DayHit([1], Caution("weak")), spoils_position=True)
    judged = judge_the_day(day_of([reading(0), reading(10)]), profile_of(doubted)).judged
    assert [one.flags for one in judged] == [doubted.mask | Flag.DOUBTFUL_POSITION, doubted.mask]


def test_a_hit_that_marks_no_reading_is_of_the_whole_day() -> None:
    judged = judge_the_day(day_of([reading(0)]), profile_of(of_days("TST-01", DayHit((), "nothing came"))))
    assert judged.judged[0].hits == ()
    (hit,) = judged.unplaced
    assert (hit.detail, hit.since_s, hit.at_s, hit.flags, hit.live) == (
        "nothing came",
        MIDNIGHT_S,
        MIDNIGHT_S,
        0,
        False,
    )


def test_a_reading_without_a_time_is_hit_when_it_was_received() -> None:
    judged = judge_the_day(day_of([reading(5, time_s=None)]), profile_of(of_days("TST-01", DayHit([0], "lost"))))
    assert judged.judged[0].hits[0].at_s == NOON_S + 7


def test_a_day_rule_gets_the_whole_day_and_its_limits() -> None:
    seen: list[tuple[int, float]] = []

    def check(day: DeviceDay, limits: Limits) -> list[DayHit]:
        seen.append((len(day.readings), limits["distance_m"]))
        return []

    rule = of_days("TST-01", check=check, limits={"distance_m": Limit(50.0, "m", "how far")})
    judge_the_day(day_of([reading(0), reading(10)]), profile_of(rule, distance_m=70.0))
    assert seen == [(2, 70.0)]


@pytest.mark.parametrize("breaks", ["at once", "half way"])
def test_a_day_rule_that_raises_costs_its_answer_and_nothing_else(breaks: str) -> None:
    def check(_: DeviceDay, __: Limits) -> Iterable[DayHit]:
        if breaks == "half way":
            yield DayHit([0], "found before it broke")
        raise ZeroDivisionError("oh")

    broken, sound = of_days("TST-01", check=check), of_days("TST-02", DayHit([1], "found"), bit=10)
    judge, profile = Judge(), Profile((rule, defaults(rule)) for rule in (broken, sound))
    judged = judge_day(judge, profile, day_of([reading(0), reading(10)]), Recent())
    assert [ids_of(one) for one in judged.judged] == [[], ["TST-02"]]
    assert judge.broken == {"TST-01": 1}
    assert judge.first_errors == {"TST-01": "ZeroDivisionError: oh"}


@pytest.mark.parametrize("places", [[2], [0, 2], [-1], ["x"]])
def test_a_day_rule_that_marks_what_is_not_there_is_broken(places: Any) -> None:
    judge = Judge()
    rule = of_days("TST-01", DayHit(places, "beyond"))
    judged = judge_day(judge, profile_of(rule), day_of([reading(0), reading(10)]), Recent())
    assert [one.hits for one in judged.judged] == [(), ()]
    assert list(judge.broken) == ["TST-01"]


def test_an_empty_day() -> None:
    judged = judge_the_day(day_of([]), profile_of(of_days("TST-01", DayHit((), "nothing came"))))
    assert judged.judged == []
    assert [hit.rule.id for hit in judged.unplaced] == ["TST-01"]
