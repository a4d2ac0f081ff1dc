"""Scores: what each dimension counts, when there is none, and that one broken dimension shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.contract import Answer, Dimension, Rule, Scope, Severity
from signalkeep.rules.days import DayHit
from signalkeep.rules.reading import Reading
from signalkeep.rules.scores import ENOUGH, INTERVALS_MAX, Share, overall, reports_due, shares
from tests.rules.support import day_of, judge_the_day, profile_of, reading

SHARES = st.dictionaries(
    st.sampled_from(Dimension),
    st.integers(0, 200).flatmap(lambda of: st.builds(Share, st.just(of), st.integers(0, of))),
)


def hot(one: Reading, _: Any) -> Answer:
    """Nothing to say without a temperature; above 90 is a hit."""
    celsius = one.number("coolant_c")
    return None if celsius is None else "hot" if celsius > 90 else False


def rule(rule_id: str, dimension: Dimension, severity: Severity = Severity.WARNING, **fields: Any) -> Rule:
    what: dict[str, Any] = {"bit": None, "spoils_position": False, "check": hot, "limits": {}}
    return msgspec.structs.replace(
        BY_ID["POS-01"], id=rule_id, dimension=dimension, severity=severity, **(what | fields)
    )


def with_heat(*celsius: float | None) -> list[Reading]:
    return [
        reading(60 * place, attributes={} if value is None else {"coolant_c": value})
        for place, value in enumerate(celsius)
    ]


def share_of(dimension: Dimension, readings: list[Reading], *rules: Rule, **fields: Any) -> Share:
    day = day_of(readings, **fields)
    return shares(day, judge_the_day(day, profile_of(*rules)))[dimension]


# What counts --------------------------------------------------------------------------------------------------------


def test_only_what_could_be_looked_at_counts() -> None:
    asked = rule("TST-01", Dimension.VALIDITY)
    assert share_of(Dimension.VALIDITY, with_heat(80, None, 95, None, 70), asked) == Share(3, 2)
    assert share_of(Dimension.CONSISTENCY, with_heat(80, None, 95), asked) == Share(0, 0)


def test_a_signal_that_two_rules_mark_is_bad_once() -> None:
    pair = [rule("TST-01", Dimension.VALIDITY), rule("TST-02", Dimension.VALIDITY, Severity.ERROR)]
    assert share_of(Dimension.VALIDITY, with_heat(80, 95), *pair) == Share(2, 1)


def test_what_is_only_worth_knowing_costs_nothing() -> None:
    asked = rule("TST-01", Dimension.VALIDITY, Severity.INFO)
    assert share_of(Dimension.VALIDITY, with_heat(80, 95), asked) == Share(2, 2)


def test_what_a_rule_of_days_marks_was_looked_at() -> None:
    asked = rule("TST-01", Dimension.TIMELINESS, scope=Scope.DAY, check=lambda _, __: [DayHit([0, 2], "late")])
    assert share_of(Dimension.TIMELINESS, with_heat(None, None, None), asked) == Share(2, 0)


def test_unique_are_signals_of_signals_and_re_sends() -> None:
    assert share_of(Dimension.UNIQUENESS, with_heat(1, 2, 3), rule("TST-01", Dimension.VALIDITY)) == Share(3, 3)
    clashing = rule("TST-01", Dimension.UNIQUENESS)
    assert share_of(Dimension.UNIQUENESS, with_heat(1, 95, 3, None), clashing, duplicates=6) == Share(10, 3)


# Reports that were due ----------------------------------------------------------------------------------------------


def moving(*times_s: float, **attributes: Any) -> list[Reading]:
    return [reading(at_s, speed_kmh=50.0, attributes=dict(attributes)) for at_s in times_s]


@pytest.mark.parametrize(
    ("times_s", "expected_s", "due"),
    [
        ((0, 60, 120, 180), 60.0, (3, 3)),
        ((0, 60, 240, 300), 60.0, (5, 3)),  # two are missing
        ((0, 60, 85, 120), 60.0, (3, 3)),  # more often than due is as good
        ((0, 89, 180), 60.0, (3, 2)),
        ((0, 10**6), 60.0, (INTERVALS_MAX, 1)),
        ((0, 60, 120), None, (0, 0)),  # too few to know what is usual
        ((0,), 60.0, (0, 0)),
        ((), 60.0, (0, 0)),
        ((0, 0, 0), 0.0, (0, 0)),
    ],
)
def test_reports_due(times_s: Sequence[float], expected_s: float | None, due: tuple[int, int]) -> None:
    assert reports_due(day_of(moving(*times_s), expected_interval_s=expected_s)) == due


def test_where_nothing_is_expected_the_usual_interval_of_the_day_is() -> None:
    times_s = [30.0 * place for place in range(ENOUGH + 1)]
    assert reports_due(day_of(moving(*times_s))) == (ENOUGH, ENOUGH)
    assert reports_due(day_of(moving(*times_s, times_s[-1] + 300))) == (ENOUGH + 10, ENOUGH + 1)
    assert reports_due(day_of(moving(*[0.0] * 30))) == (0, 0), "all at one moment: that is no interval"


def test_nothing_is_due_while_the_vehicle_is_not_used() -> None:
    assert reports_due(day_of(moving(0, 60, 3600, ignition=False), expected_interval_s=60.0)) == (0, 0)
    stands = [reading(at_s, speed_kmh=speed) for at_s, speed in ((0, 5.0), (600, None), (1200, 0.0))]
    assert reports_due(day_of(stands, expected_interval_s=60.0)) == (0, 0)
    idle = [reading(at_s, attributes={"ignition": 1}) for at_s in (0, 120)]
    assert reports_due(day_of(idle, expected_interval_s=60.0)) == (2, 1), "standing with the ignition on is use"
    parked = [*moving(0, 60, ignition=True), *moving(120, 7200, ignition=False)]
    assert reports_due(day_of(parked, expected_interval_s=60.0)) == (2, 2), "the drive ended with the last report"


def test_readings_without_a_time_are_left_out() -> None:
    lost = [*moving(0, 60), reading(90, time_s=None, speed_kmh=50.0)]
    assert reports_due(day_of(lost, expected_interval_s=60.0)) == (1, 1)


def test_completeness_is_what_came_and_had_what_it_must_have() -> None:
    asked = rule(
        "TST-01", Dimension.COMPLETENESS, check=lambda one, _: "no rpm" if "rpm" not in one.attributes else False
    )
    came = [*moving(0, 60, rpm=800), *moving(240, 300)]
    assert share_of(Dimension.COMPLETENESS, came, asked, expected_interval_s=60.0) == Share(5, 1)
    bare = moving(0, 60)
    assert share_of(Dimension.COMPLETENESS, bare, asked, expected_interval_s=60.0) == Share(1, 0), "never below 0"
    assert share_of(Dimension.COMPLETENESS, bare, asked) == Share(0, 0), "nothing was due"


# Values -------------------------------------------------------------------------------------------------------------


def test_too_little_is_no_score() -> None:
    assert Share(ENOUGH - 1, ENOUGH - 1).value is None
    assert Share(ENOUGH, 15).value == 0.75
    assert Share(ENOUGH, 0).value == 0.0
    assert Share().value is None


@pytest.mark.parametrize(
    ("values", "score"),
    [
        ({}, None),
        ({Dimension.VALIDITY: Share(ENOUGH - 1, 0)}, None),
        ({Dimension.VALIDITY: Share(100, 80)}, 0.8),
        ({Dimension.VALIDITY: Share(100, 100), Dimension.ACCURACY: Share(100, 0)}, 0.2),
        ({Dimension.VALIDITY: Share(100, 100), Dimension.ACCURACY: Share(5, 0)}, 1.0),
        ({one: Share(100, 50 if one is Dimension.ACCURACY else 100) for one in Dimension}, 0.6 * 0.5 + 0.4 * 5.5 / 6),
    ],
)
def test_overall_leans_on_the_worst(values: dict[Dimension, Share], score: float | None) -> None:
    assert overall(values) == (None if score is None else pytest.approx(score))


@given(SHARES)
def test_overall_lies_between_the_worst_and_the_mean(values: dict[Dimension, Share]) -> None:
    known = [share.value for share in values.values() if share.value is not None]
    found = overall(values)
    if not known:
        assert found is None
    else:
        assert found is not None
        assert min(known) - 1e-9 <= found <= sum(known) / len(known) + 1e-9
