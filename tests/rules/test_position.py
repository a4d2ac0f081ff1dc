"""POS rules that look at one reading: where each begins to hit, what it says, and what must stay clean."""

from __future__ import annotations

from typing import Any

import pytest

from signalkeep.model import Flag
from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.contract import Caution
from tests.rules.asking import ask, assert_hit
from tests.rules.support import ids_of, judge_all, profile_of, reading

NAN, INF = float("nan"), float("inf")
NOWHERE: dict[str, Any] = {"latitude": None, "longitude": None, "fix_valid": False}

HITS: list[tuple[str, dict[str, Any], bool, tuple[str, ...]]] = [
    ("POS-01", {"latitude": 152.7, "longitude": 13.4}, True, ("152.7", "13.4")),
    ("POS-02", {"latitude": 0.0, "longitude": 0.0}, True, ("latitude 0, longitude 0",)),
    ("POS-02", {"latitude": 0.0, "longitude": 0.0, "fix_valid": False}, True, ("latitude 0",)),
    ("POS-03", {"fix_valid": False}, True, ("not valid",)),
    ("POS-03", {"attributes": {"position_source": "cell"}}, True, ("cell towers",)),
    ("POS-03", {"attributes": {"position_source": "wifi"}}, True, ("wireless",)),
    ("POS-03", {"attributes": {"position_source": "dead_reckoning"}}, False, ("sensors",)),
    ("POS-03", {"attributes": {"gnss_status": 2}}, True, ("no fix",)),
    ("POS-04", {"satellites": 3}, False, ("3 satellites",)),
    ("POS-04", {"satellites": 1}, False, ("1 satellite",)),
    ("POS-04", {"satellites": 0}, True, ("0 satellites",)),
    ("POS-05", {"attributes": {"hdop": 3.4}}, False, ("3.4",)),
    ("POS-05", {"attributes": {"hdop": 12}}, True, ("12",)),
    ("POS-05", {"attributes": {"hdop": 99.9}}, True, ("99.9", "scale")),
    ("POS-06", {"attributes": {"accuracy_m": 1200}}, False, ("1200 m",)),
    ("POS-11", {"altitude_m": 12_000.0}, False, ("altitude 12000 m",)),
    ("POS-11", {"course_deg": 511.0}, False, ("course 511",)),
    ("POS-11", {"altitude_m": -32768.0, "course_deg": -1.0}, False, ("-32768", "-1")),
]


@pytest.mark.parametrize(("rule_id", "fields", "doubted", "words"), HITS)
def test_a_hit_has_its_bit_and_says_the_numbers(
    rule_id: str, fields: dict[str, Any], doubted: bool, words: tuple[str, ...]
) -> None:
    (judged,) = judge_all([reading(0, **fields)], profile_of(rule_id))
    assert_hit(judged, rule_id, *words, doubted=doubted)


EDGES: list[tuple[str, dict[str, Any], bool]] = [
    ("POS-01", {"latitude": 90.0, "longitude": 180.0}, False),
    ("POS-01", {"latitude": -90.0, "longitude": -180.0}, False),
    ("POS-01", {"latitude": 90.000_001}, True),
    ("POS-01", {"longitude": -180.000_001}, True),
    ("POS-01", {"latitude": NAN}, True),
    ("POS-01", {"longitude": INF}, True),
    ("POS-02", {"latitude": 0.0099, "longitude": -0.0099}, True),
    ("POS-02", {"latitude": 0.01, "longitude": 0.0}, False),
    ("POS-02", {"latitude": 0.0, "longitude": 32.6}, False),  # Uganda
    ("POS-02", {"latitude": 51.5, "longitude": 0.0}, False),  # Greenwich
    ("POS-03", {"attributes": {"gnss_status": 1, "position_source": "gnss"}}, False),
    ("POS-03", {"attributes": {"gnss_status": 3}}, False),  # asleep at a stop, where the last fix is still right
    ("POS-04", {"satellites": 4}, False),
    ("POS-05", {"attributes": {"hdop": 2.0}}, False),
    ("POS-05", {"attributes": {"hdop": 2.1}}, True),
    ("POS-05", {"attributes": {"hdop": -1}}, True),
    ("POS-05", {"attributes": {"hdop": NAN}}, True),
    ("POS-06", {"attributes": {"accuracy_m": 100}}, False),
    ("POS-06", {"attributes": {"accuracy_m": 100.5}}, True),
    ("POS-06", {"attributes": {"accuracy_m": -1}}, True),
    ("POS-06", {"attributes": {"accuracy_m": NAN}}, True),
    ("POS-11", {"altitude_m": -500.0}, False),
    ("POS-11", {"altitude_m": -501.0}, True),
    ("POS-11", {"altitude_m": 9000.0, "course_deg": None}, False),
    ("POS-11", {"altitude_m": 9001.0, "course_deg": None}, True),
    ("POS-11", {"altitude_m": NAN}, True),
    ("POS-11", {"course_deg": 360.0, "altitude_m": None}, False),
    ("POS-11", {"course_deg": 360.5, "altitude_m": None}, True),
]


@pytest.mark.parametrize(("rule_id", "fields", "hits"), EDGES)
def test_where_a_rule_begins_to_hit(rule_id: str, fields: dict[str, Any], hits: bool) -> None:
    answer = ask(rule_id, reading(0, **fields))
    assert answer if hits else answer is False


@pytest.mark.parametrize(
    ("rule_id", "fields"),
    [
        ("POS-01", {"latitude": None}),
        ("POS-02", {"longitude": None}),
        ("POS-03", NOWHERE),
        ("POS-04", {"satellites": None}),
        ("POS-05", {}),
        ("POS-05", {"attributes": {"hdop": 0}}),  # sent where there is no value
        ("POS-05", {"attributes": {"hdop": "much"}}),
        ("POS-05", {"attributes": {"hdop": True}}),
        ("POS-06", {}),
        ("POS-06", {"attributes": {"accuracy_m": [3]}}),
        ("POS-09", {}),
        ("POS-11", {"altitude_m": None, "course_deg": None}),
    ],
)
def test_without_the_value_there_is_nothing_to_say(rule_id: str, fields: dict[str, Any]) -> None:
    assert ask(rule_id, reading(0, **fields)) is None


@pytest.mark.parametrize(
    ("rule_id", "fields", "limits", "hits"),
    [
        ("POS-02", {"latitude": 0.5, "longitude": 0.5}, {"degrees": 0.6}, True),
        ("POS-04", {"satellites": 5}, {"satellites_min": 6}, True),
        ("POS-04", {"satellites": 3}, {"satellites_min": 3}, False),
        ("POS-05", {"attributes": {"hdop": 3}}, {"hdop_max": 4}, False),
        ("POS-06", {"attributes": {"accuracy_m": 30}}, {"accuracy_m_max": 25}, True),
        ("POS-11", {"altitude_m": 400.0}, {"altitude_m_max": 300}, True),
        ("POS-11", {"altitude_m": -600.0}, {"altitude_m_min": -700}, False),
        ("POS-11", {"course_deg": 400.0}, {"course_deg_max": 511}, False),
    ],
)
def test_limits_can_be_set(rule_id: str, fields: dict[str, Any], limits: dict[str, float], hits: bool) -> None:
    answer = ask(rule_id, reading(0, **fields), **limits)
    assert answer if hits else answer is False


@pytest.mark.parametrize(
    ("rule_id", "fields", "limits", "usable"),
    [
        ("POS-04", {"satellites": 2}, {}, True),
        ("POS-04", {"satellites": 2}, {"satellites_fix_min": 3}, False),
        ("POS-05", {"attributes": {"hdop": 10}}, {}, True),
        ("POS-05", {"attributes": {"hdop": 10.1}}, {}, False),
        ("POS-05", {"attributes": {"hdop": 7}}, {"hdop_usable_max": 6}, False),
    ],
)
def test_a_weak_fix_stays_usable_up_to_a_second_limit(
    rule_id: str, fields: dict[str, Any], limits: dict[str, float], usable: bool
) -> None:
    answer = ask(rule_id, reading(0, **fields), **limits)
    assert answer
    assert isinstance(answer, Caution) is usable


@pytest.mark.parametrize(
    ("latitude", "longitude", "hits"),
    [(31.2, 121.5, False), (-33.9, 151.2, False), (64.8, -147.7, False), (120.0, 23.7, True), (38.0, 200.0, True)],
)
def test_the_axes_are_not_mixed_up_as_in_the_range_check_of_the_talk(
    latitude: float, longitude: float, hits: bool
) -> None:
    """That one calls a longitude of 120 (Shanghai) broken, and a latitude of 120 fine."""
    (judged,) = judge_all([reading(0, latitude=latitude, longitude=longitude)], profile_of("POS-01"))
    assert bool(judged.hits) is hits


ALONE = ("POS-01", "POS-02", "POS-04", "POS-05", "POS-06", "POS-09", "POS-11")


def test_a_tunnel_says_nothing_of_the_receiver() -> None:
    """The last place, without satellites and with the dilution of a receiver that sees none: POS-03 says what it is."""
    inside: dict[str, Any] = {"fix_valid": False, "satellites": 0, "attributes": {"hdop": 99.9, "accuracy_m": 5000}}
    drive = [reading(0), reading(10, east_m=200), reading(20, east_m=200, **inside), reading(60, east_m=1200)]
    judged = judge_all(drive, profile_of("POS-03", *ALONE))
    assert [ids_of(one) for one in judged] == [[], [], ["POS-03"], []]
    assert BY_ID["POS-03"].error_type is None


def test_a_start_without_a_position_is_clean() -> None:
    start = [reading(n, satellites=0, altitude_m=None, course_deg=None, **NOWHERE) for n in range(5)]
    rough = reading(60, east_m=40, satellites=4, attributes={"hdop": 1.9, "accuracy_m": 45})
    assert all(not one.hits for one in judge_all([*start, rough], profile_of("POS-03", *ALONE)))


def test_what_spoils_a_position_keeps_it_from_being_the_last_good_one() -> None:
    """Else the way back from null island would be called a jump, too."""
    drive = [reading(0), reading(10, latitude=0.0, longitude=0.0), reading(20, east_m=300)]
    judged = judge_all(drive, profile_of("POS-02", "KIN-01"))
    assert [ids_of(one) for one in judged] == [[], ["POS-02"], []]
    assert judged[1].flags & Flag.DOUBTFUL_POSITION


BERLIN = {"latitude": 52.52, "longitude": 13.405, "radius_km": 100.0}


def test_outside_the_area() -> None:
    (judged,) = judge_all([reading(0, north_m=150_000)], profile_of("POS-09", **BERLIN))
    assert_hit(judged, "POS-09", "50 km outside")


@pytest.mark.parametrize(
    ("north_m", "limits", "hits"),
    [
        (101_500, {}, False),
        (101_700, {}, True),
        (99_000, {}, False),
        (101_500, {"outside_m": 1000.0}, True),
        (101_700, {"radius_km": 200.0}, False),
    ],
)
def test_the_edge_of_the_area(north_m: float, limits: dict[str, float], hits: bool) -> None:
    answer = ask("POS-09", reading(0, north_m=north_m), **(BERLIN | limits))
    assert answer if hits else answer is False


@pytest.mark.parametrize("fields", [{"fix_valid": False}, NOWHERE, {"latitude": 91.0}])
def test_the_area_is_asked_only_of_a_fix(fields: dict[str, Any]) -> None:
    assert ask("POS-09", reading(0, **fields), **BERLIN) is None
