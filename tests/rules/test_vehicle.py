"""VEH-01, 02, 03, 06 and 07: odometer, fuel, ignition and revolutions against the reading before."""

from __future__ import annotations

from typing import Any

import pytest

from signalkeep.rules.reading import Reading
from tests.rules.support import ids_of, judge_all, profile_of, reading

NAN = float("nan")


def details(rule: str, readings: list[Reading], **limits: float) -> list[str]:
    return [hit.detail for one in judge_all(readings, profile_of(rule, **limits)) for hit in one.hits]


def hits(rule: str, readings: list[Reading], **limits: float) -> list[bool]:
    return [rule in ids_of(one) for one in judge_all(readings, profile_of(rule, **limits))]


# VEH-01, VEH-02 -----------------------------------------------------------------------------------------------------


def odometers(*metres: Any, every_s: float = 10.0, east_m: float = 0.0) -> list[Reading]:
    return [reading(n * every_s, east_m=n * east_m, attributes={"odometer_m": m}) for n, m in enumerate(metres)]


@pytest.mark.parametrize(
    ("metres", "limits", "hit"),
    [
        ((80_000_000, 80_000_000), {}, False),
        ((80_000_000, 79_999_999), {}, True),
        ((80_000_000, 79_999_950), {"fall_m": 50.0}, False),
        ((80_000_000, 79_999_949), {"fall_m": 50.0}, True),
        ((80_000_000, 999), {}, False),  # begun anew
        ((80_000_000, 1000), {}, True),
        ((80_000_000, 0), {"reset_m": 0.0}, True),
        ((80_000_000, None), {}, False),
        ((None, 80_000_000), {}, False),
        ((80_000_000, "79000000"), {}, False),
        (("90000000", 80_000_000), {}, False),
        ((80_000_000, NAN), {}, False),
        ((10**400, 80_000_000), {}, False),
    ],
)
def test_odometer_decrease(metres: tuple[Any, ...], limits: dict[str, float], hit: bool) -> None:
    assert hits("VEH-01", odometers(*metres), **limits) == [False, hit]


def test_an_odometer_that_was_set_back_is_one_hit() -> None:
    found = details("VEH-01", odometers(80_000_000, 52_000_000, 52_000_100, 52_000_200))
    assert found == ["odometer from 80000.000 to 52000.000 km"]


def test_records_of_the_same_time_have_no_order() -> None:
    same = [reading(0, attributes={"odometer_m": m}) for m in (80_000_100, 80_000_000)]
    assert not any(hits("VEH-01", same))
    assert not any(hits("VEH-02", [reading(0, attributes={"odometer_m": m}) for m in (0, 80_000_000)]))


@pytest.mark.parametrize(
    ("counted_m", "east_m", "every_s", "limits", "hit"),
    [
        (1000, 0, 10, {}, False),  # counts whole kilometres
        (1129, 100, 10, {}, False),
        (1131, 100, 10, {}, True),
        (1131, 100, 10, {"share": 1.4}, False),
        (1129, 100, 10, {"slack_m": 900.0}, True),
        (2000, 0, 61, {}, False),  # there and back
        (2000, 0, 61, {"step_s_max": 90.0}, True),
        (14_300, 0, 240, {}, False),  # 200 km/h, and the slack
        (14_400, 0, 240, {}, True),
        (14_300, 0, 240, {"speed_kmh_max": 130.0}, True),
        (40_000, 20_000, 7200, {}, False),  # a drive without network whose records were lost
    ],
)
def test_odometer_jump(counted_m: int, east_m: float, every_s: float, limits: dict[str, float], hit: bool) -> None:
    pair = odometers(80_000_000, 80_000_000 + counted_m, every_s=every_s, east_m=east_m)
    assert hits("VEH-02", pair, **limits) == [False, hit]


def test_odometer_jump_says_how_far() -> None:
    assert details("VEH-02", odometers(80_000_000, 80_001_500, east_m=100)) == [
        "1.5 km by odometer, 0.1 km by position, in 10 s"
    ]
    assert details("VEH-02", odometers(80_000_000, 80_020_000)) == ["20.0 km by odometer in 10 s"]


def test_an_odometer_from_before_a_tunnel_is_not_held_against_the_positions_behind_it() -> None:
    before, inside = odometers(80_000_000)[0], reading(30, fix_valid=False, attributes={"odometer_m": 80_000_000})
    first = reading(100, east_m=2500)  # without odometer
    after = reading(110, east_m=2750, attributes={"odometer_m": 80_002_800})
    assert not any(hits("VEH-02", [before, inside, first, after]))


@pytest.mark.parametrize("metres", [None, "80002000", NAN])
def test_odometer_jump_needs_numbers(metres: Any) -> None:
    assert not any(hits("VEH-02", odometers(80_000_000, metres)))
    assert not any(hits("VEH-02", odometers(metres, 80_000_000)))


# VEH-03 -------------------------------------------------------------------------------------------------------------


def levels(*values: Any, every_s: float = 30.0, name: str = "fuel_pct", **fields: Any) -> list[Reading]:
    return [reading(n * every_s, attributes={name: value}, **fields) for n, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "fields", "limits", "detail"),
    [
        ((60, 49), {"speed_kmh": 70.0}, {}, "noise: from 60 to 49 % in 30 s while moving"),
        ((60, 50), {"speed_kmh": 70.0}, {}, None),
        ((60, 71), {"speed_kmh": 70.0}, {}, "noise: from 60 to 71 % in 30 s while moving"),
        ((60, 49), {"speed_kmh": 70.0, "every_s": 60}, {}, None),
        (
            (60, 49),
            {"speed_kmh": 70.0, "every_s": 60},
            {"noise_s": 90.0},
            "noise: from 60 to 49 % in 60 s while moving",
        ),
        ((60, 49), {}, {}, "drained: from 60 to 49 % in 30 s, standing"),
        ((20, 90), {"every_s": 600}, {}, "filled: from 20 to 90 % in 600 s, standing"),
        ((60, 50), {}, {}, None),
        ((60, 49), {}, {"jump_pct": 15.0}, None),
        ((60, 49), {"speed_kmh": 7.0}, {"speed_kmh": 8.0}, "drained: from 60 to 49 % in 30 s, standing"),
        ((200, 179), {"name": "fuel_l"}, {}, "drained: from 200 to 179 l in 30 s, standing"),
        ((200, 180), {"name": "fuel_l"}, {}, None),
        ((200, 190), {"name": "fuel_l"}, {"jump_l": 6.0}, "drained: from 200 to 190 l in 30 s, standing"),
        ((60, 0, 60), {}, {}, None),  # the engine control sleeps
        ((60, None), {}, {}, None),
        ((60, "20"), {}, {}, None),
        ((60, NAN), {}, {}, None),
        ((60, 20), {"speed_kmh": None}, {}, None),
    ],
)
def test_fuel(values: tuple[Any, ...], fields: dict[str, Any], limits: dict[str, float], detail: str | None) -> None:
    assert details("VEH-03", levels(*values, **fields), **limits) == ([] if detail is None else [detail])


def test_fuel_used_on_a_way_that_nobody_saw_was_not_taken() -> None:
    away = [reading(0, attributes={"fuel_pct": 60}), reading(7200, east_m=201, attributes={"fuel_pct": 40})]
    near = [reading(0, attributes={"fuel_pct": 60}), reading(7200, east_m=199, attributes={"fuel_pct": 40})]
    assert hits("VEH-03", away) == [False, False]
    assert hits("VEH-03", near) == [False, True]
    assert hits("VEH-03", away, parked_m=300.0) == [False, True]


def test_a_refill_that_shows_only_on_the_way_is_no_noise() -> None:
    """The engine control tells no level while the ignition is off."""
    before = reading(0, attributes={"fuel_pct": 20})
    after = reading(20, east_m=50, speed_kmh=30.0, attributes={"fuel_pct": 90})
    assert not any(hits("VEH-03", [before, after]))


# VEH-06 -------------------------------------------------------------------------------------------------------------


def towed(count: int = 10, *, kmh: float = 30.0, **fields: Any) -> list[Reading]:
    sound: dict[str, Any] = {"speed_kmh": kmh, "attributes": {"ignition": False}}
    return [reading(10 * n, east_m=10 * n * kmh / 3.6, **(sound | fields)) for n in range(count)]


def test_a_tow_is_found_after_a_minute() -> None:
    found = judge_all(towed(), profile_of("VEH-06"))
    assert [bool(one.hits) for one in found] == [False] * 7 + [True] * 3
    assert found[7].hits[0].since_s == reading(10).time_s
    assert found[7].hits[0].detail == "ignition off, but 30 km/h, and 83 m in 10 s"


@pytest.mark.parametrize(
    ("fields", "limits", "hit"),
    [
        ({"kmh": 6.1}, {}, True),
        ({"kmh": 5.9}, {}, False),  # less than 100 m in a minute
        ({"kmh": 5.9}, {"implied_kmh": 5.5}, True),
        ({"speed_kmh": 5.0}, {}, False),
        ({"speed_kmh": 5.0}, {"speed_kmh": 4.0}, True),
        ({"attributes": {"ignition": True}}, {}, False),
        ({"attributes": {"ignition": 0}}, {}, True),
        ({"attributes": {"ignition": "off"}}, {}, False),
        ({"attributes": {}}, {}, False),
        ({"speed_kmh": None}, {}, False),
        ({"fix_valid": False}, {}, False),
    ],
)
def test_motion_with_the_ignition_off(fields: dict[str, Any], limits: dict[str, float], hit: bool) -> None:
    assert hits("VEH-06", towed(**fields), **limits)[-1] is hit


def test_a_ferry_that_the_unit_sleeps_on_is_clean() -> None:
    parked = [reading(600 * n, attributes={"ignition": False}) for n in range(3)]
    across = [reading(3600 + 600 * n, east_m=30_000, attributes={"ignition": False}) for n in range(3)]
    assert not any(hits("VEH-06", [*parked, *across]))


def idle(hours: float, **fields: Any) -> list[Reading]:
    sound: dict[str, Any] = {"attributes": {"ignition": True}}
    return [reading(600 * n, **(sound | fields)) for n in range(int(hours * 6) + 1)]


def test_half_a_day_with_the_ignition_on_and_no_motion() -> None:
    assert not any(hits("VEH-06", idle(12.1)))
    assert details("VEH-06", idle(12.5))[0] == "ignition on without motion for 12.3 h"
    assert any(hits("VEH-06", idle(3), idle_h=2.0))
    assert not any(hits("VEH-06", idle(13, attributes={})))
    assert not any(hits("VEH-06", idle(13, attributes={"ignition": False})))
    assert not any(hits("VEH-06", idle(13, fix_valid=False)))


@pytest.mark.parametrize(
    "between",
    [
        {"speed_kmh": 30.0, "attributes": {"ignition": True}},
        {"attributes": {"ignition": False}},
        {"time_s": reading(6 * 3600 + 3590).time_s, "attributes": {"ignition": True}},  # slept meanwhile
    ],
)
def test_what_ends_idling(between: dict[str, Any]) -> None:
    first, second = idle(6), idle(8)
    late = [reading(8 * 3600 + 600 * n, attributes={"ignition": True}) for n in range(len(second))]
    middle = reading(6.2 * 3600, **between)
    assert not any(hits("VEH-06", [*first, middle, *late]))


# VEH-07 -------------------------------------------------------------------------------------------------------------


def turning(rpm: Any, count: int = 6, *, more: dict[str, Any] | None = None, **fields: Any) -> list[Reading]:
    sound: dict[str, Any] = {"speed_kmh": 50.0, "attributes": {"ignition": True, "rpm": rpm} | (more or {})}
    return [reading(10 * n, east_m=139 * n, **(sound | fields)) for n in range(count)]


def test_an_engine_at_rest_moves_nothing() -> None:
    assert hits("VEH-07", turning(0)) == [False, False, False, True, True, True]
    assert details("VEH-07", turning(0))[0] == "50 km/h with the engine at 0 rpm"


@pytest.mark.parametrize(
    ("rpm", "fields", "limits", "hit"),
    [
        (1, {}, {}, False),
        (0.0, {}, {}, True),
        (0, {"speed_kmh": 10.0}, {}, False),
        (0, {"speed_kmh": 10.5}, {}, True),
        (0, {"speed_kmh": 15.0}, {"speed_kmh": 20.0}, False),
        (0, {"speed_kmh": None}, {}, False),
        (0, {"fix_valid": False}, {}, False),
        (0, {"more": {"ignition": False}}, {}, False),  # towed: VEH-06
        (0, {"more": {"hybrid_battery_pct": 60}}, {}, False),
        (0, {"more": {"fuel_type": 8}}, {}, False),
        (0, {"more": {"fuel_type": 4}}, {}, True),
        (0, {"more": {"fuel_type": [8]}}, {}, True),
        (None, {}, {}, False),
        ("0", {}, {}, False),
        (False, {}, {}, False),
        (NAN, {}, {}, False),
    ],
)
def test_engine_against_motion(rpm: Any, fields: dict[str, Any], limits: dict[str, float], hit: bool) -> None:
    assert hits("VEH-07", turning(rpm, **fields), **limits)[-1] is hit


def test_a_hybrid_that_named_its_battery_once_is_remembered() -> None:
    hybrid = reading(-10, attributes={"hybrid_v": 210.0})
    assert not any(hits("VEH-07", [hybrid, *turning(0)]))


def test_sailing_for_seconds_is_clean() -> None:
    sailing = [*turning(0, 3), reading(30, east_m=417, speed_kmh=50.0, attributes={"rpm": 900})]
    assert not any(hits("VEH-07", sailing))
