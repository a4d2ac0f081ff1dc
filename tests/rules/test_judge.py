"""How rules are applied: order, the last good point, re-anchoring, durations, rules that raise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from signalkeep.model import Flag
from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.contract import Caution, Scope
from signalkeep.rules.judge import Judge, Profile, defaults
from signalkeep.rules.reading import Recent
from tests.rules.support import day_of, ids_of, judge_all, judge_the_day, profile_of, reading

TELEPORT = BY_ID["KIN-01"]
ATTRIBUTES = (
    "alarm", "battery_pct", "battery_v", "can_odometer_m", "charging", "coolant_c", "engine_load_pct", "fuel_l",
    "fuel_pct", "fuel_type", "gnss_jamming", "gnss_status", "gsm_rssi", "hdop", "hybrid_battery_pct", "hybrid_v",
    "ignition", "intake_temp_c", "jamming", "maf_gps", "map_kpa", "motion", "obd_speed_kmh", "odometer_m", "power_v",
    "rpm", "throttle_pct", "timing_advance_deg", "unplugged", "vehicle_battery_pct",
)  # fmt: skip


def test_a_jump_and_back_marks_the_one_point() -> None:
    judged = judge_all([reading(0), reading(10, east_m=9000), reading(20, east_m=100)], profile_of("KIN-01"))
    assert [ids_of(one) for one in judged] == [[], ["KIN-01"], []]
    assert judged[1].flags == TELEPORT.mask | Flag.DOUBTFUL_POSITION
    assert judged[1].hits[0].detail == "9 km in 10 s: 3240 km/h"


def test_a_new_place_is_accepted_when_three_points_in_a_row_agree() -> None:
    """A ferry, a tow: else a filter rejects for ever."""
    away = [reading(10 * n, east_m=90_000 + 50 * n) for n in range(1, 6)]
    judged = judge_all([reading(0), *away], profile_of("KIN-01"))
    assert [ids_of(one) for one in judged] == [[], ["KIN-01"], ["KIN-01"], [], [], []]


def test_places_that_do_not_agree_are_never_accepted() -> None:
    wild = [reading(10 * n, east_m=90_000 * n) for n in range(1, 6)]
    assert all(ids_of(one) for one in judge_all([reading(0), *wild], profile_of("KIN-01"))[1:])


def test_what_comes_late_is_compared_with_nothing_and_moves_nothing() -> None:
    late = reading(-600, east_m=90_000)
    judged = judge_all([reading(0), late, reading(10, east_m=100)], profile_of("KIN-01"))
    assert [ids_of(one) for one in judged] == [[], [], []]
    assert late.behind_s == 600


def test_a_clock_ahead_of_ours_moves_nothing() -> None:
    ahead = reading(3600, received_s=reading(20).received_s)
    recent = Recent()
    for one in (reading(0), ahead):
        Judge().judge(one, recent, profile_of("KIN-01"))
    assert recent.newest_s == reading(0).time_s


def test_the_memory_knows_since_when_the_engine_has_idled() -> None:
    judge, recent, profile = Judge(), Recent(), profile_of("POS-01")
    seen = []
    for one in (
        reading(0, attributes={"ignition": True}), reading(10), reading(20, speed_kmh=6.0),
        reading(30, fix_valid=False, attributes={"ignition": True}), reading(40, attributes={"ignition": 1}),
        reading(50, attributes={"ignition": True}), reading(4000, attributes={"ignition": True}),
        reading(4010, attributes={"ignition": False}),
    ):  # fmt: skip
        judge.judge(one, recent, profile)
        seen.append(None if recent.idle_since_s is None else recent.idle_since_s - (reading(0).time_s or 0.0))
    assert seen == [0, 0, None, None, 40, 40, 4000, None]


def test_a_hit_is_live_only_if_it_came_in_time_and_in_order() -> None:
    off = {"latitude": 91.0}
    in_time, late = reading(0, **off), reading(10, received_s=reading(1000).time_s, **off)
    judged = judge_all([in_time, late, reading(5, **off)], profile_of("POS-01"))
    assert [one.hits[0].live for one in judged] == [True, False, False]


def test_a_condition_with_a_duration_hits_when_it_has_lasted() -> None:
    rule = msgspec.structs.replace(
        TELEPORT, id="TST-01", scope=Scope.RECENT, check=lambda r, _, __: "fast" if r.speed_kmh > 90 else False,
        in_a_row=3, for_s=15.0, spoils_position=False, reanchors=False,
    )  # fmt: skip
    speeds = [95, 95, 95, 95, 80, 95, 95]
    judged = judge_all([reading(10 * n, speed_kmh=speed) for n, speed in enumerate(speeds)], profile_of(rule))
    assert [bool(one.hits) for one in judged] == [False, False, True, True, False, False, False]
    assert judged[3].hits[0].since_s == reading(0).time_s


def test_a_rule_that_looks_at_one_reading_knows_how_far_it_is_behind() -> None:
    rule = msgspec.structs.replace(
        BY_ID["POS-01"], id="TST-03", check=lambda one, _: f"{one.behind_s:g}" if one.behind_s else False
    )
    judged = judge_all([reading(0), reading(-7), reading(10)], profile_of(rule))
    assert [[hit.detail for hit in one.hits] for one in judged] == [[], ["7"], []]


def test_a_hit_that_only_asks_for_caution_leaves_the_position_good() -> None:
    """Though its rule spoils positions else."""
    rule = msgspec.structs.replace(
        BY_ID["POS-01"], id="TST-04", check=lambda one, _: Caution("weak") if one.satellites == 3 else "none"
    )
    recent, profile = Recent(), profile_of(rule)
    weak, none = (Judge().judge(reading(n, satellites=3 - n), recent, profile) for n in (0, 1))
    assert (weak.flags, none.flags) == (rule.mask, rule.mask | Flag.DOUBTFUL_POSITION)
    assert type(weak.hits[0].detail) is str
    assert recent.good is not None
    assert recent.good.time_s == reading(0).time_s


def test_caution_of_one_rule_does_not_keep_another_from_being_accepted_at_a_new_place() -> None:
    weak = msgspec.structs.replace(BY_ID["POS-01"], id="TST-05", scope=Scope.RECENT, check=lambda *_: Caution("weak"))
    away = [reading(10 * n, east_m=90_000 + 50 * n) for n in range(1, 5)]
    judged = judge_all([reading(0), *away], profile_of(weak, "KIN-01"))
    assert [ids_of(one)[1:] for one in judged] == [[], ["KIN-01"], ["KIN-01"], [], []]


def interval_after(steps: Sequence[float], **attributes: object) -> float | None:
    recent, at_s = Recent(), 0.0
    profile = profile_of(msgspec.structs.replace(TELEPORT, tracks=("ignition",)))
    for step_s in [0.0, *steps]:
        at_s += step_s
        Judge().judge(reading(at_s, attributes=dict(attributes)), recent, profile)
    return recent.interval_s


def test_the_usual_interval_follows_slowly_and_forgives_a_gap() -> None:
    assert interval_after([]) is None
    assert interval_after([30]) == 30
    assert interval_after([30] * 5 + [7200]) == 30 + (120 - 30) / 8
    assert 590 < (interval_after([30] + [600] * 40) or 0) <= 600


def test_readings_of_one_time_and_of_a_vehicle_at_rest_do_not_count_for_the_usual_interval() -> None:
    assert interval_after([30, 0, 30]) == 30
    assert interval_after([3600] * 3, ignition=False) is None
    assert interval_after([60] * 3, ignition=True) == 60


def test_a_rule_that_raises_costs_its_answer_and_nothing_else() -> None:
    broken = msgspec.structs.replace(BY_ID["POS-01"], id="TST-02", check=lambda _, __: 1 / 0)
    judge = Judge()
    profile = Profile([(broken, {}), (TELEPORT, defaults(TELEPORT))])
    recent = Recent()
    judged = [judge.judge(one, recent, profile) for one in (reading(0), reading(10, east_m=9000))]
    assert ids_of(judged[1]) == ["KIN-01"]
    assert judge.broken == {"TST-02": 2}
    assert judge.first_errors == {"TST-02": "ZeroDivisionError: division by zero"}


def test_nothing_a_device_can_send_breaks_a_rule() -> None:
    nan, inf = float("nan"), float("inf")
    strange = [
        reading(0, latitude=nan, longitude=inf), reading(1, latitude=None), reading(2, time_s=None),
        reading(3, speed_kmh=nan, altitude_m=inf, course_deg=-inf), reading(3, satellites=-1),
        reading(4, attributes={"hdop": "much", "odometer_m": None, "rpm": [1], "fuel_pct": {}, "ignition": "yes"}),
        reading(5, attributes={"hdop": nan, "accuracy_m": -inf, "gnss_status": [], "position_source": ["cell"]}),
        reading(6, attributes={"iccid": ["one"], "vin": {}, "firmware": 1, "model": nan, "ignition": [1]}),
        reading(7, attributes={"iccid": 3, "vin": "x", "firmware": [], "model": nan, "temp1_c": 10**60}),
        reading(7, latitude=nan, speed_kmh=inf), reading(8, time_s=None, wire_s=nan), reading(-nan, received_s=nan),
        reading(9000, wire_s=inf, time_s=None), reading(9000, received_s=inf, event_code="", event_known=False),
    ]  # fmt: skip
    values: list[Any] = ["0", None, [1], {}, True, nan, inf, -inf, 10**400, -1, 0, 1, 0.5, 1e300]
    for at_s, value in enumerate(values, 5):
        speed_kmh = value if isinstance(value, float) else 30.0
        strange.append(reading(at_s, speed_kmh=speed_kmh, attributes=dict.fromkeys(ATTRIBUTES, value)))
    judge_all(strange, profile_of())
    judge_all(reversed(strange), profile_of())
    judge_the_day(day_of(strange), profile_of())
