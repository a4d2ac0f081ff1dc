"""SCH rules: required fields, attributes that come and go, event codes, values that are none."""

from __future__ import annotations

from typing import Any

import pytest

from signalkeep.rules.days import Past
from signalkeep.rules.reading import Reading
from signalkeep.rules.schema import NAMES_SHOWN_MAX, SENTINELS
from tests.rules.asking import ask, assert_hit
from tests.rules.support import day_of, ids_of, judge_all, judge_the_day, profile_of, reading

NOWHERE: dict[str, Any] = {"latitude": None, "longitude": None, "fix_valid": False, "satellites": 0}


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"time_s": None, "wire_s": None}, "no time"),
        ({"longitude": None}, "latitude without longitude"),
        ({"latitude": None}, "longitude without latitude"),
        (NOWHERE | {"fix_valid": True}, "a fix without a position"),
        (NOWHERE | {"satellites": 4}, "no position from 4 satellites"),
        (NOWHERE | {"speed_kmh": 54.0}, "no position at 54 km/h"),
        (NOWHERE | {"time_s": None, "wire_s": None, "satellites": 8}, "no time, no position from 8"),
    ],
)
def test_what_is_missing(fields: dict[str, Any], word: str) -> None:
    (judged,) = judge_all([reading(0, **fields)], profile_of("SCH-01"))
    assert_hit(judged, "SCH-01", word)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        NOWHERE,  # explicitly no fix: a tunnel, a start
        NOWHERE | {"satellites": None, "speed_kmh": None},  # a message without a position
        NOWHERE | {"satellites": 3, "speed_kmh": 5.0},
        {"fix_valid": False, "satellites": 0},
        {"time_s": None, "wire_s": 0.0},  # there is a time, if a wrong one
        {"latitude": 95.0},
    ],
)
def test_nothing_is_missing(fields: dict[str, Any]) -> None:
    assert ask("SCH-01", reading(0, **fields)) is False


def test_the_limits_of_a_missing_position() -> None:
    moving, seeing = reading(0, **NOWHERE | {"speed_kmh": 8.0}), reading(0, **NOWHERE | {"satellites": 5})
    assert ask("SCH-01", moving)
    assert ask("SCH-01", moving, speed_kmh=10) is False
    assert ask("SCH-01", seeing, satellites_min=6) is False


def drive(count: int = 60, **attributes: Any) -> list[Reading]:
    return [reading(10 * n, speed_kmh=40.0, attributes=dict(attributes)) for n in range(count)]


USUAL = Past(days=7, signals=1000, present={"ignition": 1000, "power_v": 951, "rpm": 950, "alarm": 3})
MODEL = frozenset({"ignition", "power_v", "rpm", "alarm"})


def schema_changes(readings: list[Reading], past: Past = USUAL, **limits: float) -> list[str]:
    day = day_of(readings, past=past, model_attributes=MODEL)
    judged = judge_the_day(day, profile_of("SCH-02", **limits))
    assert all(hit.rule.id == "SCH-02" for hit in judged.unplaced)
    assert all(not one.hits for one in judged.judged)
    return [hit.detail for hit in judged.unplaced]


def test_new_and_vanished_attributes_are_named() -> None:
    assert schema_changes(drive(ignition=True, io800=12, power_v=12.0)) == ["new: io800"]
    assert schema_changes(drive(ignition=True, io800=12)) == ["new: io800", "gone: power_v"]


def test_what_not_nearly_every_signal_had_may_be_missing() -> None:
    assert schema_changes(drive(ignition=True, power_v=12.0)) == []
    gone = schema_changes(drive(ignition=True, power_v=12.0), share_min=0.9)
    assert gone == ["gone: rpm"]


def test_one_signal_that_has_it_is_enough() -> None:
    day = drive(ignition=True)
    day[30].attributes["power_v"] = 12.0
    assert schema_changes(day) == []


def test_a_vehicle_at_rest_says_less() -> None:
    """A Sunday at the depot."""
    parked = [reading(600 * n, attributes={"ignition": False}) for n in range(60)]
    assert schema_changes(parked) == []


@pytest.mark.parametrize(("count", "gone"), [(49, []), (50, ["gone: power_v"])])
def test_few_signals_say_nothing_of_what_is_gone(count: int, gone: list[str]) -> None:
    assert schema_changes(drive(count, ignition=True)) == gone
    assert schema_changes(drive(count), Past(days=7, signals=1000, present={"power_v": 1000})) == gone  # by speed


@pytest.mark.parametrize("past", [Past(), Past(days=2, signals=900, present={"power_v": 900}), Past(7, 49)])
def test_a_short_past_says_nothing_of_what_is_usual(past: Past) -> None:
    assert schema_changes(drive(ignition=True), past) == []


def test_what_a_model_sends_that_nobody_knows_is_not_new() -> None:
    for known in (None, frozenset[str]()):
        day = day_of(drive(ignition=True, io800=1), model_attributes=known)
        assert judge_the_day(day, profile_of("SCH-02")).unplaced == []


def test_a_long_list_is_cut() -> None:
    many: dict[str, Any] = {f"io{n}": 1 for n in range(100, 140)}
    (new,) = schema_changes(drive(ignition=True, power_v=12.0, **many))
    assert new.endswith(f"and {40 - NAMES_SHOWN_MAX} more")


def test_unknown_event_codes() -> None:
    known, unknown, none = (
        reading(n, event_code=code, event_known=is_known)
        for n, (code, is_known) in enumerate([("7000", True), ("4711", False), (None, None)])
    )
    judged = judge_all([known, unknown, none], profile_of("SCH-03"))
    assert [ids_of(one) for one in judged] == [[], ["SCH-03"], []]
    assert_hit(judged[1], "SCH-03", "4711", "teltonika")
    assert ask("SCH-03", none) is None
    assert ask("SCH-03", known) is False


@pytest.mark.parametrize(
    ("attributes", "word"),
    [
        ({"rpm": 65535}, "rpm is 65535, which stands for no value"),
        ({"rpm": 8191.875}, "8191.875"),
        ({"coolant_c": 215}, "215"),
        ({"coolant_c": -999}, "-999"),
        ({"fuel_pct": 102.0}, "102"),
        ({"odometer_m": 4294967295}, "4294967295"),
        ({"odometer_m": 21474836475}, "21474836475"),
        ({"power_v": 65.535}, "65.535"),
        ({"battery_pct": -1}, "-1"),
        ({"obd_speed_kmh": 255}, "255"),
        ({"temp1_c": -127.0}, "-127"),
        ({"rpm": "NO DATA"}, "rpm is 'NO DATA', not a number"),
        ({"rpm": "x" * 1000}, "..., not a number"),
        ({"fuel_l": [3]}, "[3], not a number"),
        ({"fuel_l": True}, "True, not a number"),
        ({"ignition": "yes"}, "ignition is 'yes', not true or false"),
        ({"ignition": 3}, "3, not true or false"),
        ({"rpm": 65535, "speed": 3, "fuel_pct": 255}, "rpm is 65535, which stands for no value; fuel_pct is 255"),
    ],
)
def test_values_that_are_none(attributes: dict[str, Any], word: str) -> None:
    (judged,) = judge_all([reading(0, attributes=attributes)], profile_of("SCH-04"))
    assert_hit(judged, "SCH-04", word)


@pytest.mark.parametrize(
    "attributes",
    [
        {"rpm": 0, "coolant_c": -40, "fuel_pct": 100, "odometer_m": 65535, "power_v": 0.0, "obd_speed_kmh": 254},
        {"rpm": 850.5, "coolant_c": 95, "fuel_pct": 0, "odometer_m": 0, "battery_pct": 100, "engine_load_pct": 102},
        {"ignition": True, "motion": False, "charging": 1, "door": 0},
        {"odometer_m": None, "rpm": 800},
    ],
)
def test_values_that_are_values(attributes: dict[str, Any]) -> None:
    assert ask("SCH-04", reading(0, attributes=attributes)) is False


@pytest.mark.parametrize("attributes", [{}, {"io300": 65535, "cells": [[1]], "dtcs": [], "vin": "W0L"}, {"rpm": None}])
def test_attributes_of_which_nothing_is_known(attributes: dict[str, Any]) -> None:
    assert ask("SCH-04", reading(0, attributes=attributes)) is None


def test_every_sentinel_is_found() -> None:
    for name, sentinels in SENTINELS.items():
        for value in sentinels:
            assert ask("SCH-04", reading(0, attributes={name: value})), (name, value)
