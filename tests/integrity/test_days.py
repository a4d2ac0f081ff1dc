"""Judging a day without a database: flags that change, what people say, limits of error types, counters, states."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest

from signalkeep import limits
from signalkeep.integrity.days import Known, judge_rows
from signalkeep.model import Flag
from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.contract import Dimension, Rule, Scope, Severity
from signalkeep.rules.days import DayHit, DeviceDay
from signalkeep.rules.judge import Judge
from signalkeep.store.sweep import FoundRow, JudgedDay
from tests.rules.support import profile_of

DAY = date(2026, 5, 1)
BEGINS = datetime(2026, 5, 1, tzinfo=UTC)
NOON = BEGINS + timedelta(hours=12)
TELEPORT, OFF_GLOBE = BY_ID["KIN-01"], BY_ID["POS-01"]
HOT = msgspec.structs.replace(
    OFF_GLOBE, id="TST-01", severity=Severity.WARNING, bit=9, spoils_position=False, error_type=2, limits={},
    check=lambda one, _: "hot" if one.attributes.get("hot") else False,
)  # fmt: skip
NOTED = msgspec.structs.replace(HOT, id="TST-02", severity=Severity.INFO, bit=10, error_type=None)


def row(minute: float, **fields: Any) -> dict[str, Any]:
    """A stored signal so many minutes after noon."""
    at = NOON + timedelta(minutes=minute)
    what: dict[str, Any] = {
        "wire_time": at, "device_time": at, "received_at": at + timedelta(seconds=2), "digest": int(minute * 100),
        "fix_valid": True, "latitude": 37.98, "longitude": 23.73, "altitude_m": None, "speed_kmh": 0.0,
        "course_deg": None, "satellites": 9, "event_code": None, "attributes": {}, "flags": 0, "protocol": "json",
        "journal_id": 1, "seq": int(minute * 100) + 1, "record_no": 0,
    }  # fmt: skip
    return what | fields


def hot(minute: float, **fields: Any) -> dict[str, Any]:
    return row(minute, attributes={"hot": True}, **fields)


def mark(
    begins: datetime, ends: datetime | None = None, verdict: str = "good", rule: str | None = None
) -> dict[str, Any]:
    return {"begins_at": begins, "ends_at": ends or begins, "verdict": verdict, "rule": rule}


def judge(
    rows: Sequence[dict[str, Any]], *rules: Rule, waiting: dict[str, Any] | None = None, **known: Any
) -> JudgedDay:
    day: dict[str, Any] = {
        "device_number": "1", "model": "", "day": DAY, "expected_interval_s": None, "created_at": BEGINS,
        "duplicate": 0, "connections": 0,
    }  # fmt: skip
    asked = Judge()
    found = judge_rows(
        asked, profile_of(*(rules or (HOT,))), day | (waiting or {}), rows,  # type: ignore[arg-type]  # rows as mappings
        Known(**({"now": NOON + timedelta(hours=6)} | known)),
    )  # fmt: skip
    assert not asked.broken, asked.first_errors
    return found


def flags(found: JudgedDay) -> dict[float, int]:
    """Minute and new flags of the rows that change."""
    return {(wire_time - NOON) / timedelta(minutes=1): flags for wire_time, _, flags in found.flags}


def states(found: JudgedDay) -> dict[str, str]:
    return {one.kind: one.state for one in found.findings}


def finding(found: JudgedDay, kind: str) -> FoundRow:
    (one,) = (one for one in found.findings if one.kind == kind)
    return one


# Flags --------------------------------------------------------------------------------------------------------------


def test_only_rows_that_change_are_written() -> None:
    found = judge([row(1), hot(2), hot(3, flags=HOT.mask), row(4, flags=HOT.mask)])
    assert flags(found) == {2: HOT.mask, 4: 0}


def test_flags_that_are_no_rules_stay() -> None:
    kept = Flag.WEAK_KEY | Flag.FORCED
    found = judge([hot(1, flags=kept), row(2, flags=kept | Flag.DOUBTFUL_POSITION | Flag.PERSON_BAD | 1 << 40)])
    assert flags(found) == {1: kept | HOT.mask, 2: kept}


def test_rows_are_judged_in_the_order_of_device_time_with_what_came_before_the_day() -> None:
    before = [row(-1000, latitude=37.98)]
    found = judge([row(2, latitude=37.99), row(1, latitude=42.0)], TELEPORT, before=[row(0.9)])
    assert flags(found) == {1: TELEPORT.mask | Flag.DOUBTFUL_POSITION}
    assert flags(judge([row(1, latitude=42.0)], TELEPORT, before=before)) == {}


def test_codes_of_protocols_that_have_names_are_looked_up() -> None:
    rule = msgspec.structs.replace(HOT, check=lambda one, _: None if one.event_known is None else f"{one.event_known}")
    codes = frozenset({("json", "7000")})
    rows = [row(1, event_code="7000"), row(2, event_code="1"), row(3), row(4, event_code="1", protocol="teltonika")]
    found = judge(rows, rule, codes=codes)
    assert set(flags(found)) == {1, 2}
    assert finding(found, "TST-01").detail == "False"


# Findings -----------------------------------------------------------------------------------------------------------


def test_a_finding_sums_up_the_hits() -> None:
    found = finding(judge([hot(1), row(2), hot(3, latitude=38.0), row(4)]), "TST-01")
    assert (found.count, found.detail, found.severity, found.state, found.version) == (
        2,
        "hot",
        "warning",
        "confirmed",
        1,
    )
    assert (found.begins_at, found.ends_at) == (NOON + timedelta(minutes=1), NOON + timedelta(minutes=3))
    first, last = msgspec.json.decode(found.first_sample.text), msgspec.json.decode(found.last_sample.text)
    assert (first["seq"], last["seq"], last["latitude"]) == (101, 301, 38.0)
    assert found.live_hits


def test_enough_good_signals_clear_it() -> None:
    good = [row(10 + n) for n in range(limits.CLEAR_AFTER_SIGNALS)]
    assert states(judge([hot(1), *good])) == {"TST-01": "cleared"}
    assert states(judge([hot(1), *good[1:]])) == {"TST-01": "confirmed"}
    assert judge([hot(1), *good]).clears_earlier
    assert not judge([hot(1), *good[1:]]).clears_earlier
    assert judge([row(1, attributes={"hot": True}), *good[1:]], NOTED).clears_earlier is True, "what is only noted"


def test_a_hit_that_marks_no_signal_is_never_cleared_by_signals() -> None:
    rule = msgspec.structs.replace(HOT, scope=Scope.DAY, check=lambda *_: [DayHit((), "a gap")])
    found = judge([row(n) for n in range(limits.CLEAR_AFTER_SIGNALS + 5)], rule)
    assert states(found) == {"TST-01": "confirmed"}
    assert finding(found, "TST-01").begins_at == BEGINS
    assert msgspec.json.decode(finding(found, "TST-01").first_sample.text) == {"detail": "a gap"}


def test_a_day_of_which_nothing_is_left() -> None:
    found = judge([])
    assert (found.signals, found.findings, found.flags, found.overall) == (0, [], [], None)


# What people say ----------------------------------------------------------------------------------------------------

AT_2 = NOON + timedelta(minutes=2)
WHOLE = (BEGINS, BEGINS + timedelta(days=1))


@pytest.mark.parametrize(
    ("marks", "of_2", "hits"),
    [
        ([], HOT.mask, 2),
        ([mark(AT_2)], Flag.PERSON_GOOD, 1),
        ([mark(AT_2, rule="TST-01")], Flag.PERSON_GOOD, 1),
        ([mark(AT_2, rule="KIN-01")], Flag.PERSON_GOOD | HOT.mask, 2),
        ([mark(AT_2, verdict="bad")], Flag.PERSON_BAD | HOT.mask, 2),
        ([mark(AT_2), mark(AT_2, verdict="bad")], Flag.PERSON_BAD | HOT.mask, 2),
        ([mark(AT_2, verdict="bad"), mark(AT_2)], Flag.PERSON_GOOD, 1),
        ([mark(AT_2, rule="KIN-01"), mark(AT_2, rule="TST-01")], Flag.PERSON_GOOD, 1),
        ([mark(AT_2), mark(AT_2, rule="KIN-01")], Flag.PERSON_GOOD, 1),
        ([mark(AT_2 + timedelta(seconds=1), AT_2 + timedelta(hours=1))], HOT.mask, 1),
        ([mark(BEGINS, AT_2 - timedelta(seconds=1))], HOT.mask, 1),
    ],
)  # fmt: skip
def test_marks_of_people(marks: list[dict[str, Any]], of_2: int, hits: int) -> None:
    """The latest mark holds; what it overrules is no hit any more."""
    rows = [hot(2), hot(1 if any(one["ends_at"] < AT_2 for one in marks) else 3)]
    found = judge(rows, marks=marks)
    assert flags(found)[2] == of_2
    assert finding(found, "TST-01").count == hits
    assert found.hits == {"TST-01": hits}


def test_a_mark_of_a_signal_without_a_clock_is_of_when_it_was_received() -> None:
    lost = hot(1, device_time=None)
    assert flags(judge([lost], marks=[mark(lost["received_at"])])) == {1: Flag.PERSON_GOOD}


def test_what_is_overruled_costs_no_score() -> None:
    rows = [hot(n) for n in range(30)]
    place = list(Dimension).index(HOT.dimension) * 2
    assert list(judge(rows).shares[place : place + 2]) == [30, 0]
    assert list(judge(rows, marks=[mark(*WHOLE)]).shares[place : place + 2]) == [30, 30]


@pytest.mark.parametrize(
    ("marks", "state"),
    [
        ([mark(*WHOLE)], "dismissed"),
        ([mark(*WHOLE, rule="TST-01")], "dismissed"),
        ([mark(*WHOLE, rule="KIN-01")], "confirmed"),
        ([mark(BEGINS, BEGINS + timedelta(hours=23))], "confirmed"),
        ([mark(*WHOLE, verdict="bad")], "confirmed"),
        ([mark(*WHOLE), mark(*WHOLE, verdict="bad")], "confirmed"),
        ([mark(*WHOLE, verdict="bad"), mark(BEGINS - timedelta(days=3), NOON + timedelta(days=3))], "dismissed"),
    ],
)
def test_a_whole_day_can_be_dismissed_also_where_no_signal_is_marked(marks: list[dict[str, Any]], state: str) -> None:
    rule = msgspec.structs.replace(HOT, scope=Scope.DAY, check=lambda *_: [DayHit((), "a gap")])
    assert states(judge([row(1)], rule, marks=marks)) == {"TST-01": state}


# Error types --------------------------------------------------------------------------------------------------------

KIND = {"code": 2, "description": "Too hot", "hits_max": 3, "window_h": 1, "critical": False}


def reported(minutes: Sequence[float], **known: Any) -> FoundRow | None:
    found = judge([hot(minute) for minute in minutes], **({"error_types": [KIND]} | known))
    return next((one for one in found.findings if one.kind == "ERR-2"), None)


def test_the_limit_within_the_window() -> None:
    assert reported([0, 30]) is None
    assert reported([0, 30, 61]) is None, "never three within an hour"
    found = reported([0, 30, 60])
    assert found is not None
    assert found.detail == "Too hot: 3 hits within 1 h, the limit is 3"
    assert (found.count, found.severity, found.state) == (3, "warning", "confirmed")
    assert (found.begins_at, found.ends_at) == (NOON, NOON + timedelta(minutes=60))


def test_of_all_windows_the_fullest_is_told() -> None:
    found = reported([0, 30, 60, 200, 201, 202, 203, 400, 401, 402])
    assert found is not None
    assert (found.count, found.begins_at, found.ends_at) == (
        4, NOON + timedelta(minutes=200), NOON + timedelta(minutes=203),
    )  # fmt: skip


def test_hits_of_the_evening_before_count_but_a_window_ends_on_this_day() -> None:
    midnight_s = BEGINS.timestamp()
    evening = [(2, midnight_s - 600), (2, midnight_s - 300), (1, midnight_s - 200)]
    found = reported([-719], error_hits=evening)
    assert found is not None
    assert (found.count, found.begins_at) == (3, BEGINS - timedelta(seconds=600))
    assert reported([0], error_hits=evening) is None, "twelve hours later"
    full = [(2, midnight_s - 60 * n) for n in range(1, 9)]
    assert reported([0], error_hits=full) is None, "that was yesterday's"
    assert reported([], error_hits=full) is None


def test_a_critical_one_is_an_error_and_other_types_do_not_count() -> None:
    found = reported([0, 1, 2], error_types=[{**KIND, "critical": True}])
    assert found is not None
    assert found.severity == "error"
    assert reported([0, 1, 2], error_types=[{**KIND, "code": 1}]) is None
    assert reported([0, 1, 2], error_types=[]) is None


def test_a_report_can_be_dismissed_and_hits_that_are_overruled_do_not_count() -> None:
    dismissed = reported([0, 1, 2], marks=[mark(*WHOLE, rule="ERR-2")])
    assert dismissed is not None
    assert dismissed.state == "dismissed"
    assert reported([0, 1, 2], marks=[mark(NOON + timedelta(minutes=1))]) is None


# Counters -----------------------------------------------------------------------------------------------------------


def score(day: date, duplicate_to: int, connections_to: int = 0, **fields: Any) -> dict[str, Any]:
    what = {"day": day, "duplicate_to": duplicate_to, "connections_to": connections_to, "signals": 0, "attributes": {}}
    return what | fields


def counted(scores: Sequence[dict[str, Any]], **fields: Any) -> tuple[int, int, int, int]:
    """Re-sends and connections of the day as rules see them, and the counters as they are noted."""
    seen: list[DeviceDay] = []

    def look(day: DeviceDay, _: object) -> list[DayHit]:
        seen.append(day)
        return []

    known = {name: fields.pop(name) for name in ("now",) if name in fields}
    rule = msgspec.structs.replace(HOT, scope=Scope.DAY, check=look)
    found = judge([row(1), row(2)], rule, waiting=fields, scores=scores, **known)
    (day,) = seen
    assert day.records == 2 + day.duplicates
    return day.duplicates, day.connections, found.duplicate_to, found.connections_to


LONG_AGO = BEGINS - timedelta(days=90)
YESTERDAY, DAY_BEFORE = DAY - timedelta(days=1), DAY - timedelta(days=2)


@pytest.mark.parametrize(
    ("scores", "created_at", "found"),
    [
        ([], BEGINS + timedelta(hours=3), (100, 7, 100, 7)),  # its first day
        ([], LONG_AGO, (0, 0, 100, 7)),  # nobody knows where the counters stood yesterday
        ([score(YESTERDAY, 90, 5)], LONG_AGO, (10, 2, 100, 7)),
        ([score(DAY_BEFORE, 90, 5)], LONG_AGO, (10, 2, 100, 7)),
        ([score(DAY, 95, 6), score(YESTERDAY, 90, 5)], LONG_AGO, (10, 2, 100, 7)),  # more came on the day
        ([score(YESTERDAY, 120, 9)], LONG_AGO, (0, 0, 100, 7)),  # they never count backwards
    ],
)
def test_counters_of_today(scores: list[dict[str, Any]], created_at: datetime, found: tuple[int, ...]) -> None:
    assert counted(scores, created_at=created_at, duplicate=100, connections=7) == found


def test_counters_of_an_old_day_that_is_judged_again_stay_as_they_were() -> None:
    now = NOON + timedelta(days=5)
    before = [score(DAY, 95, 6), score(YESTERDAY, 90, 5)]
    assert counted(before, created_at=LONG_AGO, duplicate=500, connections=70, now=now) == (5, 1, 95, 6)
    assert counted(before[1:], created_at=LONG_AGO, duplicate=500, connections=70, now=now) == (0, 0, 90, 5)
    assert counted([], created_at=LONG_AGO, duplicate=500, connections=70, now=now) == (0, 0, 500, 70)


def test_counters_of_yesterday_are_still_counted_today() -> None:
    now = NOON + timedelta(days=1)
    assert counted([score(YESTERDAY, 90, 5)], created_at=LONG_AGO, duplicate=100, connections=7, now=now) == (
        10,
        2,
        100,
        7,
    )


def test_the_days_before_are_summed_up() -> None:
    seen: list[DeviceDay] = []

    def look(day: DeviceDay, _: object) -> list[DayHit]:
        seen.append(day)
        return []

    rule = msgspec.structs.replace(HOT, scope=Scope.DAY, check=look)
    scores = [
        score(DAY, 0, signals=500, attributes={"rpm": 500}), score(YESTERDAY, 0, signals=10, attributes={"rpm": 8}),
        score(DAY - timedelta(days=7), 0, signals=20, attributes={"rpm": 2, "fuel": 1}),
        score(DAY - timedelta(days=8), 0, signals=999, attributes={"rpm": 999}),
    ]  # fmt: skip
    judge([row(1)], rule, scores=scores, model_attributes=frozenset({"rpm"}), waiting={"expected_interval_s": 60})
    (day,) = seen
    assert (day.past.days, day.past.signals, day.past.present) == (2, 30, {"rpm": 10, "fuel": 1})
    assert (day.expected_interval_s, day.begins_s) == (60, BEGINS.timestamp())
    assert day.model_attributes == frozenset({"rpm"})


def test_attributes_are_counted() -> None:
    found = judge([row(1, attributes={"rpm": 1, "fuel": None}), row(2, attributes={"rpm": 2}, protocol="teltonika")])
    assert found.attributes == {"rpm": 2, "fuel": 1}
    assert set(found.seen) == {("json", "rpm"), ("json", "fuel"), ("teltonika", "rpm")}
    assert found.signals == 2
