"""POS rules that compare with the last good point: exchanged axes, wrong hemispheres, default points."""

from __future__ import annotations

from typing import Any

import pytest

from signalkeep.model import Flag
from signalkeep.rules.places import DEFAULT_POINTS
from signalkeep.rules.reading import Reading
from tests.rules.asking import assert_hit, hit_places
from tests.rules.support import LATITUDE, LONGITUDE, ids_of, judge_all, profile_of, reading

WHERE = ("POS-01", "POS-07", "POS-08", "POS-10", "KIN-01")


def turned(
    at_s: float, *, east_m: float = 0.0, exchange: bool = False, latitude_by: int = 1, longitude_by: int = 1
) -> Reading:
    """A reading of where the device is, with its axes exchanged or signs turned."""
    one = reading(at_s, east_m=east_m)
    assert one.latitude is not None
    assert one.longitude is not None
    one.latitude, one.longitude = one.latitude * latitude_by, one.longitude * longitude_by
    if exchange:
        one.latitude, one.longitude = one.longitude, one.latitude
    return one


def test_exchanged_axes() -> None:
    drive = [reading(0), turned(10, east_m=200, exchange=True), reading(20, east_m=400)]
    judged = judge_all(drive, profile_of(*WHERE))
    assert_hit(judged[1], "POS-07", "13.408", "52.52", "exchanged", "0.2 km", doubted=True)
    assert [ids_of(one) for one in judged] == [[], ["POS-07"], []]


def test_exchanged_axes_are_named_off_the_globe_too() -> None:
    beijing = [reading(0, latitude=39.9, longitude=116.4), reading(10, latitude=116.4, longitude=39.9)]
    judged = judge_all(beijing, profile_of(*WHERE))
    assert ids_of(judged[1]) == ["POS-01", "POS-07"]
    assert "exchanged it would be 0 km" in judged[1].hits[1].detail


@pytest.mark.parametrize(
    ("latitude_by", "longitude_by", "word"), [(1, -1, "longitude's"), (-1, 1, "latitude's"), (-1, -1, "both")]
)
def test_wrong_hemispheres(latitude_by: int, longitude_by: int, word: str) -> None:
    wrong = turned(10, east_m=200, latitude_by=latitude_by, longitude_by=longitude_by)
    judged = judge_all([reading(0), wrong, reading(20, east_m=400)], profile_of(*WHERE))
    assert_hit(judged[1], "POS-08", word, "0.2 km", doubted=True)
    assert [ids_of(one) for one in judged] == [[], ["POS-08"], []]


def test_the_jump_of_traccar_issue_3739() -> None:
    """11,078 km, of which turning the sign of longitude leaves 83 m."""
    before = reading(0, latitude=20.0, longitude=-58.0)
    after = reading(30, latitude=20.0, longitude=58.0008)
    judged = judge_all([before, after], profile_of(*WHERE))
    assert ids_of(judged[1]) == ["POS-08"]


@pytest.mark.parametrize("mistake", [{"exchange": True}, {"longitude_by": -1}])
def test_a_device_that_goes_on_so_is_not_believed(mistake: dict[str, Any]) -> None:
    """Three points that agree are accepted after a jump, but not after this."""
    wrong = [turned(30 * n, east_m=400 * n, **mistake) for n in range(1, 60)]
    judged = judge_all([reading(0), *wrong], profile_of(*WHERE))
    assert all(len(one.hits) == 1 and one.hits[0].rule.id in ("POS-07", "POS-08") for one in judged[1:])


@pytest.mark.parametrize(
    ("away_m", "limits", "hit"),
    [
        (4900, {}, True),
        (5700, {}, False),  # in 10 s, at most 200 km/h and no more than the 5 km
        (900, {"near_m": 800}, False),
        (5700, {"near_m": 6000}, True),
    ],
)
def test_how_near_the_mended_position_must_be(away_m: float, limits: dict[str, float], hit: bool) -> None:
    mistakes: dict[str, dict[str, Any]] = {"POS-07": {"exchange": True}, "POS-08": {"longitude_by": -1}}
    for rule_id, mistake in mistakes.items():
        wrong = turned(10, east_m=away_m, **mistake)
        judged = judge_all([reading(0), wrong], profile_of(rule_id, **limits))
        assert (ids_of(judged[1]) == [rule_id]) is hit


def test_the_mended_position_must_be_many_times_nearer() -> None:
    """Next to Greenwich a sign changes little: a step to the other side may be a jump like any other."""
    london = reading(0, latitude=51.5, longitude=-0.05)
    other_side = reading(10, latitude=51.5, longitude=0.06)
    assert ids_of(judge_all([london, other_side], profile_of("POS-08"))[1]) == ["POS-08"]
    judged = judge_all([london, other_side], profile_of("POS-08", times_nearer=20))
    assert judged[1].hits == ()


def test_a_speed_that_is_possible_is_no_mistake() -> None:
    """Across the equator and Greenwich, by plane if the limit allows it."""
    across = [reading(0, latitude=0.02, longitude=-0.02), reading(300, latitude=-0.02, longitude=0.02)]
    assert judge_all(across, profile_of("POS-07", "POS-08"))[1].hits == ()
    assert ids_of(judge_all(across, profile_of("POS-08", speed_kmh_max=50))[1]) == ["POS-08"]


def test_a_jump_to_some_other_place_is_left_to_the_rule_for_jumps() -> None:
    judged = judge_all([reading(0), reading(10, east_m=900_000)], profile_of(*WHERE))
    assert ids_of(judged[1]) == ["KIN-01"]


@pytest.mark.parametrize("rule_id", ["POS-07", "POS-08", "POS-10"])
def test_nothing_to_say_without_a_good_point_or_a_position(rule_id: str) -> None:
    first = turned(0, exchange=True)
    nowhere = reading(10, latitude=None, longitude=None, fix_valid=False)
    no_fix = turned(20, exchange=True)
    no_fix.fix_valid = False
    judged = judge_all([first, nowhere, no_fix], profile_of(rule_id))
    assert hit_places(judged, rule_id) == []


def test_a_tunnel_a_ferry_and_a_tow_are_clean() -> None:
    tunnel = [reading(0), reading(120, east_m=2600)]
    ferry = [reading(4000, east_m=60_000), reading(4010, east_m=60_100)]
    tow = [reading(40_000, east_m=400_000), reading(40_060, east_m=400_000)]
    assert all(not one.hits for one in judge_all([*tunnel, *ferry, *tow], profile_of(*WHERE)))


@pytest.mark.parametrize("point", DEFAULT_POINTS)
def test_default_points(point: tuple[float, float, str]) -> None:
    latitude, longitude, name = point
    at_default = reading(40, latitude=latitude + 0.0005, longitude=longitude)
    judged = judge_all([reading(0), at_default, reading(80, east_m=50)], profile_of("POS-10", "KIN-01"))
    assert_hit(judged[1], "POS-10", name, "km from the last good point", doubted=True)
    assert judged[2].hits == ()


def test_who_is_really_near_a_default_point_is_clean() -> None:
    latitude, longitude, _ = DEFAULT_POINTS[0]
    drive = [reading(60 * n, latitude=latitude + 0.01 * (10 - n), longitude=longitude) for n in range(11)]
    assert all(not one.hits for one in judge_all(drive, profile_of("POS-10")))


@pytest.mark.parametrize(
    ("north_m", "limits", "hit"),
    [(290, {}, True), (310, {}, False), (900, {"near_m": 1000}, True), (0, {"away_m": 30_000_000}, False)],
)
def test_the_limits_of_default_points(north_m: float, limits: dict[str, float], hit: bool) -> None:
    latitude, longitude, _ = DEFAULT_POINTS[1]
    at_default = reading(40, latitude=latitude + north_m / 111_195, longitude=longitude)
    judged = judge_all([reading(0), at_default], profile_of("POS-10", **limits))
    assert (ids_of(judged[1]) == ["POS-10"]) is hit


def test_the_way_must_be_long_to_be_a_default_point() -> None:
    latitude, longitude, _ = DEFAULT_POINTS[2]
    for away_m, hit in ((49_000, False), (51_000, True)):
        before = reading(0, latitude=latitude + away_m / 111_195, longitude=longitude)
        judged = judge_all([before, reading(3600, latitude=latitude, longitude=longitude)], profile_of("POS-10"))
        assert bool(judged[1].flags & Flag.DOUBTFUL_POSITION) is hit


def test_the_place_of_these_tests_tells_the_mistakes_apart() -> None:
    assert abs(LATITUDE - LONGITUDE) > 10
    assert min(LATITUDE, LONGITUDE) > 10
