"""ID rules: the form of a number, devices nobody knows, one number in two places, parts that were changed."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import pytest

from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.fleet import FleetHit, FleetView
from signalkeep.rules.judge import defaults
from signalkeep.rules.reading import Reading
from tests.rules.asking import assert_hit, hit_places
from tests.rules.support import NOON_S, day_of, judge_all, judge_the_day, profile_of, reading


def form_of(device_number: str) -> list[str]:
    judged = judge_the_day(day_of([], device_number=device_number), profile_of("ID-01"))
    assert all(hit.rule.id == "ID-01" for hit in judged.unplaced)
    return [hit.detail for hit in judged.unplaced]


@pytest.mark.parametrize(
    "device_number",
    [
        "356307042441013", "490154203237518", "352093081452251",  # from makers' documents and the standard
        "4901542032375186",  # with the software version, so without a check digit
        "027043946607", "86915304265485", "1234567890", "van-7", "", "A1B2C3D4E5F6G7H",
    ],
)  # fmt: skip
def test_numbers_in_order_or_of_another_kind(device_number: str) -> None:
    assert form_of(device_number) == []


@pytest.mark.parametrize(
    ("device_number", "word"),
    [
        ("356307042441014", "ends with 4, where an IMEI would have 3"),
        ("356307042440113", "ends with 3"),  # two digits exchanged
        ("123456789012345", "ends with 5, where an IMEI would have 7"),
        ("35630704244101O", "not only digits"),
        ("356307042441 013", "not only digits"),
        ("000000000000000", "one digit all over"),
        ("1111111111111111", "one digit all over"),
    ],
)
def test_numbers_that_look_mistyped_or_made_up(device_number: str, word: str) -> None:
    (detail,) = form_of(device_number)
    assert word in detail
    assert device_number in detail


def test_devices_that_nobody_registered() -> None:
    rule = BY_ID["ID-02"]
    view = FleetView(NOON_S, 0, unknown=(("A1", 1), ("B2", 40)))
    assert list(rule.check(view, defaults(rule))) == [
        FleetHit("A1", "1 record waits in quarantine"),
        FleetHit("B2", "40 records wait in quarantine"),
    ]
    assert [hit.subject for hit in rule.check(view, {"records_min": 2.0})] == ["B2"]
    assert list(rule.check(FleetView(NOON_S, 0), defaults(rule))) == []


def alternating(pattern: str, *, apart_m: float = 50_000, every_s: float = 30) -> list[Reading]:
    """A drive of 10 m/s that is at A or so far east of it, at B; C and D are other places, X has no fix."""
    east_m = {"A": 0.0, "B": apart_m, "C": 3 * apart_m, "D": -2 * apart_m, "X": 9 * apart_m}
    return [
        reading(every_s * n, north_m=10 * every_s * n, east_m=east_m[place], fix_valid=place != "X")
        for n, place in enumerate(pattern)
    ]


def jumps(readings: list[Reading], **limits: float) -> list[tuple[list[int], str]]:
    judged = judge_the_day(day_of(readings), profile_of("ID-03", **limits))
    assert judged.unplaced == []
    places = hit_places(judged.judged, "ID-03")
    details = dict.fromkeys(hit.detail for one in judged.judged for hit in one.hits)
    assert all(one.flags == 0 for one in judged.judged)
    return [(places, detail) for detail in details]


def test_one_number_in_two_places() -> None:
    ((places, detail),) = jumps(alternating("AAABABBA"))
    assert places == [3, 4, 5, 7]
    assert detail.startswith("4 times from one place to another, 49.98 km apart")
    assert "52.5" in detail


@pytest.mark.parametrize(
    ("pattern", "limits", "hits"),
    [
        ("AAABABAA", {}, True),
        ("AAABBBAAABBB", {}, True),
        ("AABAAAAAA", {}, False),  # a spike
        ("AABBBBBBB", {}, False),  # a move
        ("AABAACAADA", {}, False),  # spikes to different places
        ("ABCDABCD", {}, False),
        ("AXAXAXAX", {}, False),  # what has no fix is nowhere
        ("AABAAAAAA", {"alternations": 2}, True),
        ("AAABABBA", {"alternations": 5}, False),
        ("AAABABBA", {"speed_kmh_max": 7000}, False),
        ("AAABABBA", {"distance_m": 60_000}, False),
        ("AAABABBA", {"window_s": 59}, False),
        ("AAABABBA", {"times_nearer": 200}, False),
    ],
)
def test_how_often_and_how_far(pattern: str, limits: dict[str, float], hits: bool) -> None:
    assert bool(jumps(alternating(pattern), **limits)) is hits


@pytest.mark.parametrize(("apart_m", "hits"), [(1600, False), (1750, True)])
def test_the_speed_that_is_no_travel(apart_m: float, hits: bool) -> None:
    """In 30 s, 200 km/h are 1667 m."""
    assert bool(jumps(alternating("AABABABA", apart_m=apart_m), times_nearer=2)) is hits


def test_who_really_goes_to_and_fro_is_clean() -> None:
    """A shuttle on a ferry and through a tunnel, seen only at both ends."""
    assert jumps(alternating("ABABABAB", apart_m=12_000, every_s=900)) == []


def test_a_clock_ahead_does_not_make_two_devices_of_one() -> None:
    """Readings of two hours later among those of now; without that they would look like a second place."""
    drive = [reading(30 * n, east_m=500 * n) for n in range(300)]
    for place in (20, 22, 24, 26):
        drive[place].time_s = reading(30 * place + 7200 + 10).time_s
    assert jumps(drive) == []
    for place in (20, 22, 24, 26):
        drive[place].received_s += 7200
    assert jumps(drive)


def test_two_floods_of_jumps_are_two_hits() -> None:
    morning, evening = alternating("AABABAA"), alternating("AABABAA")
    for one in evening:
        assert one.time_s is not None
        one.time_s += 5 * 3600
        one.received_s += 5 * 3600
    judged = judge_the_day(day_of(morning + evening), profile_of("ID-03"))
    assert len({one.hits[0].since_s for one in judged.judged if one.hits}) == 2


def test_a_day_without_positions_has_nothing_to_say() -> None:
    nowhere = [reading(n, latitude=None, longitude=None, fix_valid=False) for n in range(9)]
    assert jumps([*nowhere, reading(10, time_s=None), reading(11, latitude=99.0)]) == []


def test_another_sim_card_is_named_once() -> None:
    cards = ["894901", "894901", "894902", "894902"]
    judged = judge_all([reading(n, attributes={"iccid": card}) for n, card in enumerate(cards)], profile_of("ID-04"))
    assert hit_places(judged, "ID-04") == [2]
    assert_hit(judged[2], "ID-04", "iccid was 894901, is 894902")


@pytest.mark.parametrize("name", ["iccid", "vin", "firmware", "model", "iccid_part1", "iccid_part2"])
def test_every_part_is_looked_at(name: str) -> None:
    values = cycle(["one", "two"])
    judged = judge_all([reading(n, attributes={name: next(values)}) for n in range(3)], profile_of("ID-04"))
    assert hit_places(judged, "ID-04") == [1, 2]


def test_several_parts_at_once_and_signals_without_them() -> None:
    before, after = {"vin": "W1", "firmware": "03.27"}, {"vin": "W2", "firmware": "03.28"}
    plan: list[dict[str, Any]] = [before, {}, {"rpm": 800}, after, {"vin": ""}, after, {"vin": None}]
    judged = judge_all([reading(n, attributes=dict(one)) for n, one in enumerate(plan)], profile_of("ID-04"))
    assert hit_places(judged, "ID-04") == [3]
    assert judged[3].hits[0].detail == "vin was W1, is W2; firmware was 03.27, is 03.28"
