"""DEV: antenna, jamming, tampering, network."""

from __future__ import annotations

from typing import Any

import pytest

from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.days import DayJudged
from signalkeep.rules.reading import Reading
from tests.rules.support import day_of, judge_all, judge_the_day, profile_of, reading

NAN = float("nan")


def day_judged(rule: str, readings: list[Reading], **limits: float) -> DayJudged:
    return judge_the_day(day_of(readings), profile_of(rule, **limits))


def day_details(rule: str, readings: list[Reading], **limits: float) -> list[str]:
    judged = day_judged(rule, readings, **limits)
    return sorted({hit.detail for one in judged.judged for hit in one.hits} | {hit.detail for hit in judged.unplaced})


def details(rule: str, readings: list[Reading], **limits: float) -> list[str]:
    return [hit.detail for one in judge_all(readings, profile_of(rule, **limits)) for hit in one.hits]


# DEV-01 -------------------------------------------------------------------------------------------------------------


def blind(minutes: float, attributes: dict[str, Any] | None = None, **fields: Any) -> list[Reading]:
    """A reading with a fix, then one a minute without."""
    sound = {"fix_valid": False, "satellites": 0} | fields
    shown = {"ignition": True, "motion": True} if attributes is None else attributes
    return [reading(0), *(reading(60 * n, attributes=dict(shown), **sound) for n in range(1, int(minutes) + 1))]


def test_an_hour_of_motion_without_a_fix() -> None:
    assert day_details("DEV-01", blind(59)) == []
    assert day_details("DEV-01", blind(60)) == ["moved for 60 min without a fix"]
    assert day_details("DEV-01", blind(45), blind_min=40.0) == ["moved for 45 min without a fix"]
    judged = day_judged("DEV-01", blind(61)).judged
    assert [bool(one.flags & BY_ID["DEV-01"].mask) for one in judged] == [False] + [True] * 61


def test_the_hour_may_come_in_pieces() -> None:
    pieces = []
    for begins_s in (0, 7200, 14_400):
        pieces.append(reading(begins_s))
        pieces += [reading(begins_s + 60 * n, fix_valid=False, attributes={"motion": True}) for n in range(1, 22)]
    assert day_details("DEV-01", pieces) == ["moved for 63 min without a fix"]


@pytest.mark.parametrize(
    ("attributes", "fields", "hit"),
    [
        ({"motion": True}, {}, True),
        ({"obd_speed_kmh": 50}, {}, True),
        ({"obd_speed_kmh": 5}, {}, False),
        ({"ignition": True}, {}, False),  # in a garage with the engine on
        ({"ignition": False, "motion": True}, {}, False),  # in the belly of a ferry, which trembles
        ({"motion": True, "gnss_status": 3}, {}, False),
        ({"motion": True, "gnss_status": 2}, {}, True),
        ({"motion": True}, {"fix_valid": True}, False),
        ({"motion": True}, {"time_s": None}, False),
        ({"motion": "yes", "obd_speed_kmh": NAN}, {}, False),
    ],
)
def test_what_counts_as_motion_without_a_fix(attributes: dict[str, Any], fields: dict[str, Any], hit: bool) -> None:
    assert bool(day_details("DEV-01", blind(70, attributes, **fields))) is hit


def test_limits_of_the_antenna() -> None:
    assert day_details("DEV-01", blind(70, {"obd_speed_kmh": 50}), speed_kmh=60.0) == []
    silence = [reading(0), reading(7200, fix_valid=False, attributes={"motion": True})]
    assert day_details("DEV-01", silence) == []
    assert day_details("DEV-01", silence, step_s_max=7200.0) == ["moved for 120 min without a fix"]


def test_tunnels_and_a_cold_start_are_clean() -> None:
    day = [reading(600 * n, fix_valid=n % 3 > 0, attributes={"motion": True}) for n in range(12)]
    assert day_details("DEV-01", day) == []


@pytest.mark.parametrize("attributes", [{"gnss_status": 5}, {"alarm": "gps_antenna_cut"}])
def test_the_device_knows_that_its_antenna_is_broken(attributes: dict[str, Any]) -> None:
    judged = day_judged("DEV-01", [reading(0), reading(10, attributes=attributes), reading(20)]).judged
    assert [len(one.hits) for one in judged] == [0, 1, 0]
    assert judged[1].hits[0].detail == "the device says that its antenna is cut or shorted"


# DEV-02 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "limits", "detail"),
    [
        ({"gnss_jamming": 0}, {}, None),
        ({"gnss_jamming": 1}, {}, "satellite signals are jammed: level 1"),
        ({"gnss_jamming": 2}, {"level_min": 2.0}, "satellite signals are jammed: level 2"),
        ({"gnss_jamming": 1}, {"level_min": 2.0}, None),
        ({"jamming": 1}, {}, "the mobile network is jammed: level 1"),
        ({"jamming": True}, {}, "the mobile network is jammed: level 1"),
        ({"jamming": 0, "gnss_jamming": 0}, {}, None),
        ({"alarm": "jamming"}, {}, "alarm: jamming"),
        ({"alarm": "sos"}, {}, None),
        ({"gnss_jamming": "1"}, {}, None),
        ({"gnss_jamming": NAN}, {}, None),
        ({}, {}, None),
    ],
)
def test_jamming(attributes: dict[str, Any], limits: dict[str, float], detail: str | None) -> None:
    judged = judge_all([reading(0, attributes=attributes)], profile_of("DEV-02", **limits))[0]
    assert [hit.detail for hit in judged.hits] == ([] if detail is None else [detail])
    assert judged.flags == (0 if detail is None else BY_ID["DEV-02"].mask)


@pytest.mark.parametrize(("attributes", "answer"), [({}, None), ({"jamming": 0}, False), ({"power_v": 12.6}, None)])
def test_a_device_that_cannot_tell_is_not_counted(attributes: dict[str, Any], answer: bool | None) -> None:
    assert BY_ID["DEV-02"].check(reading(0, attributes=attributes), {"level_min": 1.0}) is answer


# DEV-03 -------------------------------------------------------------------------------------------------------------


def supplied(*volts: Any) -> list[Reading]:
    return [reading(10 * n, attributes={"power_v": volt}) for n, volt in enumerate(volts)]


@pytest.mark.parametrize(
    ("volts", "limits", "detail"),
    [
        ((12.6, 0.0, 0.0), {}, ["supply from 12.6 to 0.0 V"]),  # once
        ((25.2, 1.0), {}, ["supply from 25.2 to 1.0 V"]),
        ((12.6, 1.9), {}, ["supply from 12.6 to 1.9 V"]),  # open wires show a volt or two
        ((9.0, 4.0), {}, ["supply from 9.0 to 4.0 V"]),
        ((12.6, 4.1), {}, []),
        ((12.6, 5.5, 14.1), {}, []),  # a starter
        ((8.9, 0.0), {}, []),
        ((0.0, 0.0), {}, []),  # never had one
        ((12.6, 3.0), {"gone_v": 1.0}, []),
        ((5.0, 0.0), {"supplied_v": 4.0}, ["supply from 5.0 to 0.0 V"]),
        ((12.6, None), {}, []),
        ((12.6, "0"), {}, []),
        ((NAN, 0.0), {}, []),
    ],
)
def test_the_supply_goes(volts: tuple[Any, ...], limits: dict[str, float], detail: list[str]) -> None:
    assert details("DEV-03", supplied(*volts), **limits) == detail


@pytest.mark.parametrize(
    ("attributes", "detail"),
    [
        ({"unplugged": 1}, ["the device says that it was unplugged"]),
        ({"unplugged": True}, ["the device says that it was unplugged"]),
        ({"unplugged": 0}, []),
        ({"alarm": "power_cut"}, ["alarm: power_cut"]),
        ({"alarm": "tampering"}, ["alarm: tampering"]),
        ({"alarm": "removing"}, ["alarm: removing"]),
        ({"alarm": "power_restored"}, []),
        ({"alarm": ["power_cut"]}, []),
        ({}, []),
    ],
)
def test_the_device_says_that_it_was_unplugged(attributes: dict[str, Any], detail: list[str]) -> None:
    judged = judge_all([reading(0, attributes=attributes)], profile_of("DEV-03"))[0]
    assert [hit.detail for hit in judged.hits] == detail
    assert judged.flags == (BY_ID["DEV-03"].mask if detail else 0)


# DEV-04 -------------------------------------------------------------------------------------------------------------


def heard(levels: list[Any]) -> list[Reading]:
    return [reading(60 * n, attributes={"gsm_rssi": level}) for n, level in enumerate(levels)]


@pytest.mark.parametrize(
    ("connections", "hours", "limits", "detail"),
    [
        (30, 3, {}, []),
        (31, 3, {}, ["31 connections in 3 h with data: 10 an hour"]),
        (138, 3, {}, ["138 connections in 3 h with data: 46 an hour"]),
        (138, 3, {"connections_per_h": 50.0}, []),
        (0, 3, {}, []),  # not known
        (500, 0, {}, []),
    ],
)
def test_restart_loop(connections: int, hours: int, limits: dict[str, float], detail: list[str]) -> None:
    sent = [reading(3600 * hour + 600 * n) for hour in range(hours) for n in range(5)]
    judged = judge_the_day(day_of(sent, connections=connections), profile_of("DEV-04", **limits))
    assert [hit.detail for hit in judged.unplaced] == detail
    assert not any(one.flags for one in judged.judged)


@pytest.mark.parametrize(
    ("levels", "limits", "detail"),
    [
        ([1] * 20, {}, ["weak network in 20 of 20 readings: 100 %"]),
        ([1] * 19, {}, []),
        ([1] * 12, {"readings_min": 10.0}, ["weak network in 12 of 12 readings: 100 %"]),
        ([0, 1, 4, 5] * 10, {}, []),  # just half
        ([0, 1, 1, 5] * 10, {}, ["weak network in 30 of 40 readings: 75 %"]),
        ([0, 1, 1, 5] * 10, {"share": 0.8}, []),
        ([2] * 30, {}, []),
        ([2] * 30, {"level_max": 2.0}, ["weak network in 30 of 30 readings: 100 %"]),
        ([-71] * 30, {}, []),  # another scale: dBm
        ([1] * 29 + [22], {}, []),  # another scale: 0 to 31
        (["1", None, NAN, [1]] * 10, {}, []),
    ],
)
def test_weak_network(levels: list[Any], limits: dict[str, float], detail: list[str]) -> None:
    assert day_details("DEV-04", heard(levels), **limits) == detail
