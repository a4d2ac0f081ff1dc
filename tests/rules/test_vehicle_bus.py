"""VEH-08 and VEH-09: engine values that cannot be, and those that never change."""

from __future__ import annotations

from typing import Any

import pytest

from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.reading import Reading
from tests.rules.support import day_of, judge_all, judge_the_day, profile_of, reading

NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("coolant_c", -40, 130), ("rpm", 0, 8000), ("obd_speed_kmh", 0, 255), ("engine_load_pct", 0, 100),
        ("throttle_pct", 0, 100), ("fuel_pct", 0, 100), ("maf_gps", 0, 655.35), ("timing_advance_deg", -64, 63.5),
        ("intake_temp_c", -40, 215),
    ],
)  # fmt: skip
def test_ranges(name: str, least: float, most: float) -> None:
    for value, hit in ((least, 0), (most, 0), (least - 0.5, 1), (most + 0.5, 1)):
        judged = judge_all([reading(0, attributes={"ignition": True, name: value})], profile_of("VEH-08"))[0]
        assert len(judged.hits) == hit, value
        assert judged.flags == (BY_ID["VEH-08"].mask if hit else 0)
        if hit:
            assert judged.hits[0].detail.startswith(f"{name} {value:g}: ")


@pytest.mark.parametrize(
    ("attributes", "limits", "detail"),
    [
        ({"coolant_c": 131}, {}, "coolant_c 131: the engine would boil"),
        ({"coolant_c": 216}, {}, "coolant_c 216: -40 to 215 is all that there is"),
        ({"coolant_c": 121}, {"coolant_c_max": 120.0}, "coolant_c 121: the engine would boil"),
        ({"rpm": 8001}, {}, "rpm 8001: no such engine"),
        ({"rpm": 9000}, {"rpm_max": 12_000.0}, None),
        ({"rpm": 800, "coolant_c": 90, "fuel_pct": 101}, {}, "fuel_pct 101: 0 to 100 is all that there is"),
        ({"rpm": "9000", "coolant_c": [200], "fuel_pct": None, "throttle_pct": NAN, "maf_gps": True}, {}, None),
        ({"temp1_c": 999}, {}, None),
        ({}, {}, None),
    ],
)
def test_what_is_said_of_ranges(attributes: dict[str, Any], limits: dict[str, float], detail: str | None) -> None:
    judged = judge_all([reading(0, attributes=attributes)], profile_of("VEH-08", **limits))[0]
    assert [hit.detail for hit in judged.hits] == ([] if detail is None else [detail])


@pytest.mark.parametrize(("attributes", "answer"), [({}, None), ({"rpm": "1"}, None), ({"rpm": 1}, False)])
def test_what_cannot_be_judged_is_not_called_good(attributes: dict[str, Any], answer: bool | None) -> None:
    rule = BY_ID["VEH-08"]
    assert rule.check(reading(0, attributes=attributes), {"coolant_c_max": 130.0, "rpm_max": 8000.0}) is answer


# VEH-09 -------------------------------------------------------------------------------------------------------------


def swinging(count: int, attributes: dict[str, Any], **fields: Any) -> list[Reading]:
    """Speeds of 30 and 40 km/h in turn: count - 1 changes."""
    return [
        reading(10 * n, east_m=100 * n, attributes=dict(attributes), **({"speed_kmh": 30.0 + n % 2 * 10} | fields))
        for n in range(count)
    ]


def far(km: float, name: str, value: Any, more: dict[str, Any] | None = None, **fields: Any) -> list[Reading]:
    """At an even speed, a reading each half kilometre."""
    return [
        reading(20 * n, east_m=500 * n, attributes={name: value} | (more or {}), **({"speed_kmh": 90.0} | fields))
        for n in range(int(km * 2) + 1)
    ]


def found(readings: list[Reading], **limits: float) -> list[str]:
    judged = judge_the_day(day_of(readings), profile_of("VEH-09", **limits)).judged
    return sorted({hit.detail for one in judged for hit in one.hits})


@pytest.mark.parametrize("name", ["obd_speed_kmh", "rpm", "engine_load_pct", "map_kpa", "maf_gps"])
def test_constant_over_changes_of_speed(name: str) -> None:
    assert found(swinging(50, {name: 45})) == []
    assert found(swinging(51, {name: 45})) == [f"{name} stayed 45 over 50 changes of speed"]
    assert found(swinging(21, {name: 45}), changes_min=20.0) == [f"{name} stayed 45 over 20 changes of speed"]
    assert found(swinging(51, {name: 45}), change_kmh=11.0) == []


@pytest.mark.parametrize(
    ("name", "limit_km", "limit"),
    [
        ("odometer_m", 10, "odometer_km"), ("can_odometer_m", 10, "odometer_km"), ("fuel_pct", 50, "fuel_km"),
        ("fuel_l", 50, "fuel_km"),
    ],
)  # fmt: skip
def test_constant_over_kilometres(name: str, limit_km: float, limit: str) -> None:
    assert found(far(limit_km - 0.5, name, 45)) == []
    assert found(far(limit_km + 0.5, name, 45)) == [f"{name} stayed 45 over {limit_km + 0.5:.1f} km"]
    assert found(far(limit_km + 0.5, name, 45), **{limit: limit_km + 1.0}) == []


def test_a_stuck_value_is_marked_from_where_it_is_sure() -> None:
    parked = [reading(-3000 + 10 * n, attributes={"rpm": 1500, "odometer_m": 7}) for n in range(300)]
    drive = far(20, "odometer_m", 7)
    judged = judge_the_day(day_of([*parked, *drive]), profile_of("VEH-09")).judged
    assert [place for place, one in enumerate(judged) if one.flags] == list(range(320, 341))


@pytest.mark.parametrize("step_s", [600, 3600])
def test_a_way_on_which_nothing_is_driven_is_none(step_s: float) -> None:
    """By ferry, on a tow, in a backlog of which most was lost."""
    carried = [reading(step_s * n, east_m=8000 * n, attributes={"odometer_m": 5}) for n in range(5)]
    arrived = far(2, "odometer_m", 5)
    for one in arrived:
        assert one.time_s is not None
        one.time_s += 5 * step_s
    assert found([*carried, *arrived]) == []
    tugged = [reading(10 * n, east_m=100 * n, attributes={"odometer_m": 5}) for n in range(200)]
    assert found(tugged) == []


def test_the_stuck_part_of_a_day_is_marked() -> None:
    moving = [reading(-1000 + 10 * n, attributes={"rpm": 1000 + n}, speed_kmh=30.0 + n % 2 * 10) for n in range(60)]
    judged = judge_the_day(day_of([*moving, *swinging(60, {"rpm": 1500})]), profile_of("VEH-09")).judged
    assert [bool(one.flags) for one in judged] == [False] * 110 + [True] * 10


@pytest.mark.parametrize(
    "readings",
    [
        swinging(90, {"rpm": 0}),  # VEH-07's
        swinging(90, {"rpm": 1500, "hybrid_v": 200.0}),
        swinging(90, {"map_kpa": 101, "fuel_type": 8}),
        swinging(90, {"rpm": 1500}, speed_kmh=90.0),  # at an even speed on a motorway
        swinging(90, {"rpm": 1500}, speed_kmh=None),
        swinging(90, {"rpm": 1500}, fix_valid=False),
        swinging(90, {"coolant_c": 90}),  # a thermostat's work
        swinging(90, {"rpm": "1500"}),
        swinging(90, {}),
        far(80, "fuel_pct", 100),  # gauges of full tanks stand still
        far(80, "fuel_pct", 95),
        far(80, "fuel_pct", 50, {"vehicle_battery_pct": 70}),
        far(80, "fuel_pct", 50, fix_valid=False),
        far(80, "odometer_m", None),
        far(80, "odometer_m", NAN),
    ],
)  # fmt: skip
def test_what_may_stay_the_same(readings: list[Reading]) -> None:
    assert found(readings) == []


def test_a_gauge_that_is_nearly_full_may_be_set_to_count() -> None:
    assert found(far(60, "fuel_pct", 98), full_pct=99.0) == ["fuel_pct stayed 98 over 60.0 km"]


def test_a_value_that_is_seldom_sent_cannot_follow_every_change() -> None:
    seldom = swinging(400, {})
    for n in range(0, 400, 10):
        seldom[n].attributes["rpm"] = 800
    assert found(seldom) == []


def test_a_jump_is_no_way() -> None:
    spikes = [reading(20 * n, east_m=20_000 * (n % 2), attributes={"odometer_m": 5}) for n in range(9)]
    assert found(spikes) == []


def test_electric_engine_speed_that_never_changes_is_still_stuck() -> None:
    assert found(swinging(60, {"obd_speed_kmh": 0, "fuel_type": 8})) == [
        "obd_speed_kmh stayed 0 over 59 changes of speed"
    ]
