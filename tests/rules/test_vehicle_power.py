"""VEH-04 and VEH-05: supply and backup battery."""

from __future__ import annotations

from typing import Any

import pytest

from signalkeep.rules.reading import Reading
from tests.rules.support import ids_of, judge_all, profile_of, reading


def details(rule: str, readings: list[Reading], **limits: float) -> list[str]:
    return [hit.detail for one in judge_all(readings, profile_of(rule, **limits)) for hit in one.hits]


def powered(volts: Any, *, ignition: Any = False, count: int = 13) -> list[Reading]:
    return [reading(10 * n, attributes={"power_v": volts, "ignition": ignition}) for n in range(count)]


@pytest.mark.parametrize(
    ("volts", "ignition", "limits", "detail"),
    [
        (12.6, False, {}, None),
        (14.2, True, {}, None),
        (12.2, False, {}, None),
        (12.19, False, {}, "12.19 V at rest: low for a battery of 12 V"),
        (12.05, False, {}, "12.05 V at rest: low for a battery of 12 V"),
        (12.04, False, {}, "12.04 V at rest: critical for a battery of 12 V"),
        (12.04, True, {}, None),  # under load
        (12.04, None, {}, None),
        (11.8, True, {}, None),
        (11.79, True, {}, "11.79 V: a flat battery of 12 V"),
        (6.0, False, {}, "6.00 V: a flat battery of 12 V"),
        (5.99, True, {}, "5.99 V: unplugged"),
        (0, True, {}, "0.00 V: unplugged"),
        (16.0, True, {}, None),
        (16.1, True, {}, "16.10 V: too much for a system of 12 V"),
        (18.1, True, {}, "18.10 V: a flat battery of 24 V"),
        (23.59, True, {}, "23.59 V: a flat battery of 24 V"),
        (23.6, True, {}, None),
        (23.9, False, {}, "23.90 V at rest: low for a battery of 24 V"),
        (24.0, False, {}, None),
        (25.2, False, {}, None),
        (28.2, True, {}, None),
        (32.0, True, {}, None),
        (32.1, True, {}, "32.10 V: too much for a system of 24 V"),
        (12.1, False, {"low_12_v": 12.0}, None),
        (12.1, False, {"critical_12_v": 12.15}, "12.10 V at rest: critical for a battery of 12 V"),
        (12.1, True, {"flat_12_v": 12.15}, "12.10 V: a flat battery of 12 V"),
        (14.2, True, {"over_12_v": 14.0}, "14.20 V: too much for a system of 12 V"),
        (7.0, True, {"unplugged_v": 8.0}, "7.00 V: unplugged"),
        (17.0, True, {"system_24_v": 16.5}, "17.00 V: a flat battery of 24 V"),
        (24.1, False, {"low_24_v": 24.2}, "24.10 V at rest: low for a battery of 24 V"),
        (23.7, True, {"flat_24_v": 23.8}, "23.70 V: a flat battery of 24 V"),
        (30.0, True, {"over_24_v": 29.0}, "30.00 V: too much for a system of 24 V"),
        (None, False, {}, None),
        ("12", False, {}, None),
        (float("nan"), False, {}, None),
        (float("inf"), False, {}, None),
    ],
)
def test_supply(volts: Any, ignition: Any, limits: dict[str, float], detail: str | None) -> None:
    found = details("VEH-04", powered(volts, ignition=ignition), **limits)
    assert found == ([] if detail is None else [detail])


def test_two_minutes_must_pass() -> None:
    assert details("VEH-04", powered(11.0, count=12)) == []
    assert len(details("VEH-04", powered(11.0, count=14))) == 2


def test_a_starter_that_draws_the_voltage_down_is_clean() -> None:
    cranking = [reading(n, attributes={"power_v": v, "ignition": True}) for n, v in enumerate([12.6, 5.5, 9.1, 14.1])]
    later = [reading(60 * n, attributes={"power_v": 14.1, "ignition": True}) for n in range(1, 5)]
    assert details("VEH-04", [*cranking, *later]) == []


def test_what_is_wrong_may_change_meanwhile() -> None:
    fading = [reading(30 * n, attributes={"power_v": 11.5 - 1.5 * n}) for n in range(5)]
    assert details("VEH-04", fading) == ["5.50 V: unplugged"]


@pytest.mark.parametrize(
    ("attributes", "limits", "detail"),
    [
        ({"battery_pct": 20}, {}, None),
        ({"battery_pct": 19}, {}, "19 %"),
        ({"battery_pct": 0}, {}, "0 %"),
        ({"battery_pct": 25}, {"battery_pct": 30.0}, "25 %"),
        ({"battery_pct": 80, "battery_v": 3.0}, {}, None),
        ({"battery_v": 4.1}, {}, None),
        ({"battery_v": 3.5}, {}, None),
        ({"battery_v": 3.49}, {}, "3.49 V"),
        ({"battery_v": 3.6}, {"battery_v": 3.7}, "3.60 V"),
        ({"battery_v": 0.2}, {}, None),  # none is fitted
        ({"battery_v": 0.2}, {"none_v": 0.1}, "0.20 V"),
        ({"battery_pct": "10"}, {}, None),
        ({"battery_pct": float("nan")}, {}, None),
        ({}, {}, None),
    ],
)
def test_backup_battery(attributes: dict[str, Any], limits: dict[str, float], detail: str | None) -> None:
    judged = judge_all([reading(0, attributes=attributes)], profile_of("VEH-05", **limits))[0]
    assert [hit.detail for hit in judged.hits] == ([] if detail is None else [detail])
    assert ids_of(judged) == ([] if detail is None else ["VEH-05"])
