"""KIN and UNI: teleports are in test_judge.py, since they show how the memory moves."""

from __future__ import annotations

from typing import Any

import pytest

from signalkeep.model import Flag
from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.reading import Reading
from tests.rules.support import day_of, ids_of, judge_all, judge_the_day, profile_of, reading

NAN = float("nan")


def drive(count: int, *, every_s: float = 10.0, kmh: float = 54.0, **fields: Any) -> list[Reading]:
    """Straight on at an even speed."""
    return [reading(n * every_s, east_m=n * every_s * kmh / 3.6, **({"speed_kmh": kmh} | fields)) for n in range(count)]


def hits(rule: str, readings: list[Reading], **limits: float) -> list[bool]:
    return [rule in ids_of(one) for one in judge_all(readings, profile_of(rule, **limits))]


def details(rule: str, readings: list[Reading], **limits: float) -> list[str]:
    return [hit.detail for one in judge_all(readings, profile_of(rule, **limits)) for hit in one.hits]


def day_details(rule: str, readings: list[Reading], **limits: float) -> list[str]:
    judged = judge_the_day(day_of(readings), profile_of(rule, **limits))
    return sorted({hit.detail for one in judged.judged for hit in one.hits})


def marked(rule: str, readings: list[Reading]) -> list[int]:
    judged = judge_the_day(day_of(readings), profile_of(rule)).judged
    return [place for place, one in enumerate(judged) if one.flags & BY_ID[rule].mask]


# KIN-01 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("east_m", "after_s", "limits", "hit"),
    [
        (551, 10, {}, False),  # 198 km/h
        (561, 10, {}, True),  # 202 km/h
        (99, 1, {}, False),  # 356 km/h, but noise
        (101, 1, {}, True),
        (561, 10, {"speed_kmh_max": 250.0}, False),
        (99, 1, {"distance_m": 50.0}, True),
    ],
)
def test_teleport(east_m: float, after_s: float, limits: dict[str, float], hit: bool) -> None:
    assert hits("KIN-01", [reading(0), reading(after_s, east_m=east_m)], **limits) == [False, hit]


def test_a_tunnel_is_no_teleport() -> None:
    before, after = drive(3, kmh=90), reading(200, east_m=5000, speed_kmh=90)
    inside = [reading(30 + n * 10, east_m=500, fix_valid=False, speed_kmh=0, satellites=0) for n in range(17)]
    for rule in ("KIN-01", "KIN-02", "KIN-04", "KIN-06"):
        assert not any(hits(rule, [*before, *inside, after])), rule


# KIN-02 -------------------------------------------------------------------------------------------------------------


def test_frozen_hits_with_the_fifth_message_at_one_place_and_doubts_the_position() -> None:
    judged = judge_all([reading(10 * n, speed_kmh=50) for n in range(7)], profile_of("KIN-02"))
    assert [ids_of(one) for one in judged] == [[], [], [], [], ["KIN-02"], ["KIN-02"], ["KIN-02"]]
    assert judged[4].flags == BY_ID["KIN-02"].mask | Flag.DOUBTFUL_POSITION
    assert judged[4].hits[0].detail == "still at 52.520000, 13.405000, but speed 50 km/h"
    assert judged[4].hits[0].since_s == reading(10).time_s


@pytest.mark.parametrize(
    ("fields", "limits", "hit"),
    [
        ({"speed_kmh": 5.0}, {}, False),
        ({"speed_kmh": 5.1}, {}, True),
        ({"speed_kmh": 9.0}, {"speed_kmh": 10.0}, False),
        ({"attributes": {"obd_speed_kmh": 40}}, {}, True),
        ({"attributes": {"obd_speed_kmh": 4}}, {}, False),
        ({"attributes": {"rpm": 2500}}, {}, False),  # engines also run at lights
        ({"speed_kmh": 50.0, "fix_valid": False}, {}, False),
        ({"speed_kmh": 50.0, "latitude": None}, {}, False),
        ({"speed_kmh": None}, {}, False),
        ({"speed_kmh": NAN}, {}, False),
    ],
)
def test_what_proves_motion(fields: dict[str, Any], limits: dict[str, float], hit: bool) -> None:
    assert hits("KIN-02", [reading(10 * n, **fields) for n in range(6)], **limits)[-1] is hit


@pytest.mark.parametrize(("metres", "hit"), [(13, False), (15, True)])
def test_an_odometer_proves_motion(metres: int, hit: bool) -> None:
    moving = [reading(10 * n, attributes={"odometer_m": 80_000_000 + metres * n}) for n in range(7)]
    assert hits("KIN-02", moving)[-1] is hit
    if hit:
        assert "speed by odometer 5 km/h" in details("KIN-02", moving)[0]


def test_a_place_that_moves_a_little_is_not_frozen() -> None:
    assert not any(hits("KIN-02", [reading(10 * n, east_m=0.2 * n, speed_kmh=50) for n in range(9)]))


def test_several_records_of_one_second_share_a_fix() -> None:
    assert not any(hits("KIN-02", [reading(0.3 * n, speed_kmh=50) for n in range(6)]))


def test_standing_for_hours_is_not_frozen() -> None:
    assert not any(hits("KIN-02", [reading(60 * n, attributes={"odometer_m": 80_000_000}) for n in range(200)]))


# KIN-03 -------------------------------------------------------------------------------------------------------------


def parked(places_m: list[float], **fields: Any) -> list[Reading]:
    sound: dict[str, Any] = {"attributes": {"ignition": False}}
    return [reading(600 * n, east_m=metres, **(sound | fields)) for n, metres in enumerate(places_m)]


@pytest.mark.parametrize(
    ("places_m", "places"),
    [
        ([0, 49, 0], []),
        ([0, 51, 0], [1]),
        ([0, 20, 120, 180, 90, 10, 0, 70, 0], [2, 3, 4, 7]),
        ([0, 5000, 5010, 5000, 5005], []),  # carried away while the unit slept
        ([0, 120, 120, 120], []),
        ([0, 5000, 0], []),  # a jump, which is KIN-01's
    ],
)
def test_drift_while_parked_comes_back(places_m: list[float], places: list[int]) -> None:
    assert marked("KIN-03", parked(places_m)) == places


def test_drift_says_how_far() -> None:
    assert day_details("KIN-03", parked([0, 80, 180, 0])) == ["parked, but up to 180 m away and back"]
    assert day_details("KIN-03", parked([0, 80, 180, 0]), distance_m=200.0) == []
    assert day_details("KIN-03", parked([0, 1200, 0]), distance_m_max=1500.0)


def test_the_start_of_the_engine_shows_where_the_vehicle_had_stood_all_the_time() -> None:
    start = reading(7200, attributes={"ignition": True})
    assert marked("KIN-03", [*parked([0, 80, 90]), start]) == [1, 2]
    pulls_away = reading(7200, east_m=20, speed_kmh=14.0, attributes={"ignition": True})
    assert marked("KIN-03", [*parked([0, 80, 90]), pulls_away]) == [1, 2]
    seen_later = reading(7200, east_m=70, speed_kmh=30.0, attributes={"ignition": True})
    assert marked("KIN-03", [*parked([0, 80, 90]), seen_later]) == []  # nobody knows


@pytest.mark.parametrize(
    "fields",
    [
        {"attributes": {}},
        {"attributes": {"ignition": True}},
        {"speed_kmh": 30.0},  # a tow, there and back
        {"fix_valid": False},
        {"time_s": None},
    ],
)
def test_other_moves_are_no_drift(fields: dict[str, Any]) -> None:
    assert marked("KIN-03", parked([0, 200, 0], **fields)) == []


@pytest.mark.parametrize(("driven_m", "places"), [(49, [1]), (51, [])])
def test_a_trip_that_nobody_saw_shows_in_the_odometer(driven_m: int, places: list[int]) -> None:
    stops = parked([0, 120, 0])
    for n, stop in enumerate(stops):
        stop.attributes = {"ignition": False, "odometer_m": 80_000_000 + n * driven_m / 2}
    assert marked("KIN-03", stops) == places


def test_two_parkings_are_not_one() -> None:
    trip = [reading(100 + n, fix_valid=False, attributes={"ignition": True}) for n in range(5)]
    away = [reading(700 + n, east_m=300, attributes={"ignition": False}) for n in range(3)]
    back = [reading(900 + n, attributes={"ignition": False}) for n in range(3)]
    home_trip = [reading(800, east_m=300, speed_kmh=20, attributes={"ignition": True})]
    assert marked("KIN-03", [*parked([0]), *trip, *away, *home_trip, *back]) == []


# KIN-04 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kmh", "sent_kmh", "every_s", "limits", "hit"),
    [
        (30.0, 49.0, 10, {}, False),
        (30.0, 51.0, 10, {}, True),
        (80.0, 119.0, 10, {}, False),  # half of the smaller passes
        (80.0, 121.0, 10, {}, True),
        (40.0, 0.0, 10, {}, True),
        (30.0, 51.0, 10, {"difference_kmh": 25.0}, False),
        (80.0, 119.0, 10, {"share": 0.4}, True),
        (10.0, 54.0, 45, {}, False),  # a km/h per second passes: it may have waited at a light
        (10.0, 56.0, 45, {}, True),
        (30.0, 61.0, 60, {"change_kmh_per_s": 0.5}, True),
        (30.0, 90.0, 4, {}, False),
        (30.0, 90.0, 4, {"step_s_min": 3.0}, True),
        (30.0, 160.0, 121, {}, False),
        (30.0, 160.0, 121, {"step_s_max": 130.0}, True),
    ],
)
def test_speed_against_way(kmh: float, sent_kmh: float, every_s: float, limits: dict[str, float], hit: bool) -> None:
    found = hits("KIN-04", drive(4, kmh=kmh, every_s=every_s, speed_kmh=sent_kmh), **limits)
    assert found == [False, False, False, hit]


def test_speed_against_way_says_both() -> None:
    assert details("KIN-04", drive(4, speed_kmh=100.0)) == ["100 km/h sent, but 150 m in 10 s: 54 km/h"]


@pytest.mark.parametrize("speed_kmh", [None, NAN])
def test_speed_against_way_needs_a_speed(speed_kmh: float | None) -> None:
    assert not any(hits("KIN-04", drive(6, speed_kmh=speed_kmh)))


def test_a_stop_at_a_light_between_two_points_is_no_mismatch() -> None:
    """Reports once a minute that happen to be made in standing, or in driving, though half of each minute was both."""
    assert not any(hits("KIN-04", drive(9, every_s=60, kmh=25, speed_kmh=0.0)))
    assert not any(hits("KIN-04", drive(9, every_s=60, kmh=22, speed_kmh=50.0)))
    speeds = (50.0, 0.0)
    stop_and_go = [reading(30 * n, east_m=210 * n, speed_kmh=speeds[n % 2]) for n in range(9)]
    assert not any(hits("KIN-04", stop_and_go))


# KIN-05, KIN-06 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("speed_kmh", "limits", "detail"),
    [
        (None, {}, []),
        (0.0, {}, []),
        (250.0, {}, []),
        (250.5, {}, ["250.5 km/h"]),
        (-1.0, {}, ["-1 km/h"]),
        (NAN, {}, ["nan km/h"]),
        (131.0, {"speed_kmh_max": 130.0}, ["131 km/h"]),
        (280.0, {"speed_kmh_max": 300.0}, []),
    ],
)
def test_speed_range(speed_kmh: float | None, limits: dict[str, float], detail: list[str]) -> None:
    assert details("KIN-05", [reading(0, speed_kmh=speed_kmh)], **limits) == detail


@pytest.mark.parametrize(
    ("before_kmh", "after_kmh", "after_s", "limits", "detail"),
    [
        (20.0, 55.0, 1, {}, []),  # 9.7 m/s²
        (20.0, 57.0, 1, {}, ["from 20 to 57 km/h in 1.0 s: +10 m/s²"]),
        (90.0, 0.0, 2, {}, ["from 90 to 0 km/h in 2.0 s: -12 m/s²"]),
        (90.0, 0.0, 3, {}, []),
        (90.0, 0.0, 3, {"acceleration_ms2_max": 8.0}, ["from 90 to 0 km/h in 3.0 s: -8 m/s²"]),
        (50.0, 52.0, 0.05, {}, []),  # two records of one second
        (50.0, 60.0, 0.2, {"step_s_min": 0.2}, ["from 50 to 60 km/h in 0.2 s: +14 m/s²"]),
        (None, 90.0, 1, {}, []),
        (90.0, None, 1, {}, []),
        (NAN, 90.0, 1, {}, []),
    ],
)
def test_acceleration(
    before_kmh: float | None, after_kmh: float | None, after_s: float, limits: dict[str, float], detail: list[str]
) -> None:
    pair = [reading(0, speed_kmh=before_kmh), reading(after_s, speed_kmh=after_kmh)]
    assert details("KIN-06", pair, **limits) == detail


def test_a_lost_fix_is_no_braking() -> None:
    lost = [reading(0, speed_kmh=90), reading(1, speed_kmh=0, fix_valid=False), reading(60, speed_kmh=90)]
    assert details("KIN-06", lost) == []


# KIN-07 -------------------------------------------------------------------------------------------------------------


def on_bus(engine_kmh: Any, count: int = 5, **fields: Any) -> list[Reading]:
    return drive(count, attributes={"obd_speed_kmh": engine_kmh}, **fields)


def test_receiver_and_engine_disagree_after_half_a_minute() -> None:
    assert hits("KIN-07", on_bus(65)) == [False, False, False, True, True]
    assert details("KIN-07", on_bus(65))[0] == "receiver 54 km/h, engine control 65 km/h"


@pytest.mark.parametrize(
    ("engine_kmh", "fields", "limits", "hit"),
    [
        (64, {}, {}, False),
        (43, {}, {}, True),
        (65, {}, {"difference_kmh": 12.0}, False),
        (60, {}, {"difference_kmh": 5.0}, True),
        (None, {}, {}, False),
        ("65", {}, {}, False),
        (65, {"speed_kmh": None}, {}, False),
        (65, {"fix_valid": False, "speed_kmh": 0.0}, {}, False),
        (NAN, {}, {}, False),
    ],
)
def test_speed_against_engine(engine_kmh: Any, fields: dict[str, Any], limits: dict[str, float], hit: bool) -> None:
    assert hits("KIN-07", on_bus(engine_kmh, **fields), **limits)[-1] is hit


def test_one_late_value_of_the_bus_is_no_disagreement() -> None:
    late = [reading(60 * n, speed_kmh=80 if n < 3 else 0, attributes={"obd_speed_kmh": 80 if n < 4 else 0})
            for n in range(8)]  # fmt: skip
    assert not any(hits("KIN-07", late))


# UNI-01 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "name"),
    [
        (1.0, None), (0.540, "knots, read as km/h"), (1.852, "km/h, read as knots and converted"),
        (1.609, "km/h, read as miles per hour and converted"), (0.621, "miles per hour, read as km/h"),
        (3.6, "km/h, read as metres per second and converted"), (0.278, "metres per second, read as km/h"),
        (0.57, "knots, read as km/h"), (0.58, None), (0.5, None), (1.2, None), (2.5, None),
    ],
)  # fmt: skip
def test_the_factor_names_the_unit(factor: float, name: str | None) -> None:
    found = day_details("UNI-01", drive(30, kmh=72.0, speed_kmh=72.0 * factor))
    if name is None:
        assert found == []
    else:
        assert found == [
            f"{72 * factor:.0f} km/h sent, 72 km/h driven, in the middle of 29 steps: factor {factor:.2f}, as of {name}"
        ]


def test_all_that_moves_is_marked() -> None:
    stands = [reading(400 + 10 * n, east_m=6000) for n in range(5)]
    assert marked("UNI-01", [*drive(30, kmh=72.0, speed_kmh=38.9), *stands]) == list(range(30))


@pytest.mark.parametrize(
    ("count", "fields", "limits", "hit"),
    [
        (20, {}, {}, False),  # 19 steps
        (21, {}, {}, True),
        (12, {}, {"steps_min": 10.0}, True),
        (30, {"kmh": 19.0, "speed_kmh": 10.26}, {}, False),
        (30, {"kmh": 19.0, "speed_kmh": 10.26}, {"speed_kmh_min": 15.0}, True),
        (30, {"speed_kmh": 30.5}, {}, True),
        (30, {"speed_kmh": 30.5}, {"tolerance": 0.02}, False),
        (30, {"speed_kmh": None}, {}, False),
        (30, {"speed_kmh": NAN}, {}, False),
        (30, {"fix_valid": False}, {}, False),
        (30, {"every_s": 61.0}, {}, False),
        (100, {"every_s": 2.0}, {}, True),  # steps of 6 s
    ],
)
def test_unit_mistake_needs_enough_even_driving(
    count: int, fields: dict[str, Any], limits: dict[str, float], hit: bool
) -> None:
    readings = drive(count, **({"kmh": 54.0, "speed_kmh": 54.0 * 0.54} | fields))
    assert bool(day_details("UNI-01", readings, **limits)) is hit


def test_a_factor_that_wavers_is_no_unit() -> None:
    """Serpentines: the way between points is longer than the line."""
    wavering = [reading(10 * n, east_m=150 * n, speed_kmh=54.0 * (1.2, 1.63, 2.6)[n // 2 % 3]) for n in range(60)]
    assert day_details("UNI-01", wavering) == []
