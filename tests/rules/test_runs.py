"""Rules over a recording: days one after the other, with what was remembered; hits say which reading."""

from __future__ import annotations

from typing import Any

import msgspec

from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.contract import Dimension, Limits, Rule, Scope
from signalkeep.rules.days import DayHit, DeviceDay
from signalkeep.rules.judge import Judge, Profile
from signalkeep.rules.reading import Reading
from signalkeep.rules.runs import RunResult, run
from signalkeep.rules.scores import Share
from tests.rules.support import MIDNIGHT_S, profile_of, reading

DAY_S = 86_400
TELEPORT = BY_ID["KIN-01"]


def judged(readings: list[Reading], profile: Profile | None = None, **options: Any) -> RunResult:
    judge = Judge()
    found = run(judge, profile or profile_of(TELEPORT), readings, **options)
    assert not judge.broken
    return found


def hits(result: RunResult) -> list[tuple[str, int | None]]:
    return [(one.hit.rule.id, one.place) for one in result.found]


def of_days(check: Any) -> Rule:
    return msgspec.structs.replace(
        BY_ID["POS-01"], id="TST-01", scope=Scope.DAY, check=check, limits={}, spoils_position=False
    )


def test_a_hit_names_the_place_in_the_order_in_which_readings_were_given() -> None:
    given = [reading(20, east_m=100), reading(0), reading(10, east_m=9000)]
    result = judged(given)
    assert (result.readings, result.days) == (3, 1)
    assert hits(result) == [("KIN-01", 2)]


def test_readings_that_look_the_same_are_still_two() -> None:
    bad = {"latitude": 95.0}
    assert hits(judged([reading(0, **bad), reading(0, **bad)], profile_of("POS-01"))) == [("POS-01", 0), ("POS-01", 1)]


def test_what_was_remembered_goes_over_midnight() -> None:
    """Each day for itself would know nothing of a jump in the night."""
    late, early = reading(12 * 3600 - 10), reading(12 * 3600 + 10, east_m=9000)
    result = judged([late, early])
    assert result.days == 2
    assert hits(result) == [("KIN-01", 1)]


def test_a_rule_of_days_sees_each_day_by_itself() -> None:
    seen: list[DeviceDay] = []

    def mark_the_last(day: DeviceDay, _: Limits) -> list[DayHit]:
        seen.append(day)
        return [DayHit([len(day.readings) - 1], "the last")]

    given = [reading(DAY_S), reading(0), reading(DAY_S + 60)]
    result = judged(
        given, profile_of(of_days(mark_the_last)), device_number="1", model="FMB920", expected_interval_s=60.0
    )
    assert [(day.begins_s, len(day.readings)) for day in seen] == [(MIDNIGHT_S, 1), (MIDNIGHT_S + DAY_S, 2)]
    assert {(day.device_number, day.model, day.expected_interval_s) for day in seen} == {("1", "FMB920", 60.0)}
    assert hits(result) == [("TST-01", 1), ("TST-01", 2)]


def test_a_hit_of_no_reading_has_no_place() -> None:
    assert hits(judged([reading(0)], profile_of(of_days(lambda *_: [DayHit((), "all of it")])))) == [("TST-01", None)]


def test_without_a_time_a_reading_belongs_to_the_day_on_which_it_came() -> None:
    result = judged([reading(0, time_s=None, latitude=95.0), reading(60)], profile_of("POS-01"))
    assert result.days == 1
    assert hits(result) == [("POS-01", 0)]


def test_a_day_is_one_day_though_some_of_its_readings_have_no_time() -> None:
    given = [reading(DAY_S), reading(10, time_s=None), reading(0), reading(DAY_S + 10, time_s=None)]
    result = judged(given, profile_of(of_days(lambda day, _: [DayHit((), f"{len(day.readings)} readings")])))
    assert result.days == 2
    assert [one.hit.detail for one in result.found] == ["2 readings", "2 readings"]


def test_shares_are_summed_over_days() -> None:
    profile = profile_of("POS-01")
    result = judged([reading(0), reading(60, latitude=95.0), reading(DAY_S)], profile)
    assert set(result.shares) == set(Dimension)
    assert result.shares[Dimension.VALIDITY] == Share(3, 2)
    assert result.shares[Dimension.UNIQUENESS] == Share(3, 3)


def test_an_empty_recording() -> None:
    result = judged([])
    assert (result.readings, result.days, result.found) == (0, 0, [])
    assert result.shares == {dimension: Share() for dimension in Dimension}


def test_two_runs_share_nothing() -> None:
    judged([reading(0, latitude=95.0)], profile_of("POS-01"))
    assert judged([reading(0)], profile_of("POS-01")).found == []
