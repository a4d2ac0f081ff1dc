"""FLT: what a fleet shows as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.contract import Scope
from signalkeep.rules.fleet import Doubtful, FleetView, Group
from signalkeep.rules.judge import defaults
from tests.rules.support import LATITUDE, LONGITUDE, NOON_S

QUIET = FleetView(hour_s=NOON_S, signals=1000)


def hits(rule: str, view: FleetView, **limits: float) -> list[tuple[str, str]]:
    found = BY_ID[rule]
    return [(hit.subject, hit.detail) for hit in found.check(view, defaults(found) | limits)]


def view_of(**fields: Any) -> FleetView:
    return msgspec.structs.replace(QUIET, **fields)


@pytest.mark.parametrize("rule", ["FLT-01", "FLT-02", "FLT-03"])
def test_a_fleet_of_which_nothing_is_known_is_well(rule: str) -> None:
    assert hits(rule, QUIET) == []
    assert BY_ID[rule].scope is Scope.FLEET
    assert BY_ID[rule].bit is None


# FLT-01 -------------------------------------------------------------------------------------------------------------

USUAL = Group(
    protocol="teltonika", model="FMB920", signals=1000, hits=15, quarantined=0,
    past_signals=100_000, past_hits=1500, past_quarantined=100,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "limits", "detail"),
    [
        ({}, {}, None),
        ({"hits": 45}, {}, None),
        ({"hits": 46}, {}, "4.6 % of 1000 marked, usually 1.5 %"),
        ({"hits": 46}, {"factor": 4.0}, None),
        ({"past_hits": 0, "hits": 15}, {}, None),  # three times half a per cent
        ({"past_hits": 0, "hits": 16}, {}, "1.6 % of 1000 marked, usually 0.0 %"),
        ({"past_hits": 0, "hits": 16}, {"share_min": 0.01}, None),
        ({"signals": 100, "hits": 9}, {}, None),
        ({"signals": 100, "hits": 10}, {}, "10.0 % of 100 marked, usually 1.5 %"),
        ({"signals": 100, "hits": 9}, {"hits_min": 5.0}, "9.0 % of 100 marked, usually 1.5 %"),
        ({"signals": 99, "hits": 99}, {}, None),
        ({"signals": 99, "hits": 99}, {"records_min": 50.0}, "100.0 % of 99 marked, usually 1.5 %"),
        ({"past_signals": 10, "past_hits": 0, "past_quarantined": 0, "hits": 900}, {}, None),  # a new model
        ({"signals": 0, "hits": 0, "quarantined": 500}, {}, "100.0 % of 500 in quarantine, usually 0.1 %"),
    ],
)
def test_regression(changes: dict[str, int], limits: dict[str, float], detail: str | None) -> None:
    found = hits("FLT-01", view_of(groups=[msgspec.structs.replace(USUAL, **changes)]), **limits)
    assert found == ([] if detail is None else [("teltonika FMB920", detail)])


def test_each_model_is_judged_alone_and_says_all_that_is_wrong() -> None:
    bad = msgspec.structs.replace(USUAL, model="FMC130", hits=500, quarantined=1000)
    assert hits("FLT-01", view_of(groups=[USUAL, bad])) == [
        (
            "teltonika FMC130",
            "50.0 % of 1000 marked, usually 1.5 %; 50.0 % of 2000 in quarantine, usually 0.1 %",
        )
    ]


# FLT-02 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signals", "usual", "limits", "begins"),
    [
        (450, (1000, 900), {}, None),
        (449, (1000, 900), {}, "too few: 449 signals in the hour, 900 to 1000 in the same hour of 2 weeks"),
        (0, (1000, 900, 1100), {}, "too few: 0 signals in the hour, 900 to 1100 in the same hour of 3 weeks"),
        (2000, (1000, 900), {}, None),
        (2001, (1000, 900), {}, "too many: 2001 signals in the hour, 900 to 1000 in the same hour of 2 weeks"),
        (449, (1000, 900), {"low": 0.4}, None),
        (2001, (1000, 900), {"high": 3.0}, None),
        (0, (1000,), {}, None),
        (0, (1000,), {"weeks_min": 1.0}, "too few: 0 signals in the hour, 1000 to 1000 in the same hour of 1 weeks"),
        (0, (99, 90), {}, None),
        (0, (99, 90), {"signals_min": 50.0}, "too few: 0 signals in the hour, 90 to 99 in the same hour of 2 weeks"),
        (120, (1000, 10), {}, None),  # a holiday was among the weeks
        (0, (), {}, None),
    ],
)
def test_volume(signals: int, usual: tuple[int, ...], limits: dict[str, float], begins: str | None) -> None:
    found = hits("FLT-02", view_of(signals=signals, usual=usual), **limits)
    assert found == ([] if begins is None else [("volume", begins)])


# FLT-03 -------------------------------------------------------------------------------------------------------------


def doubtful(
    devices: int, *, latitude: float = LATITUDE, longitude: float = LONGITUDE, **fields: Any
) -> list[Doubtful]:
    sound: dict[str, Any] = {"longitude": longitude, "count": 5, "jammed": False} | fields
    return [Doubtful(device_number=f"{latitude}-{n}", latitude=latitude + n * 0.001, **sound) for n in range(devices)]


@pytest.mark.parametrize(
    ("devices", "active", "limits", "detail"),
    [
        (5, 100, {}, None),
        (6, 100, {}, "6 devices with doubted positions within 30 km"),
        (6, 600, {}, None),  # 1 % of the fleet may have a bad hour
        (7, 600, {}, "7 devices with doubted positions within 30 km"),
        (6, 600, {"share": 0.005}, "6 devices with doubted positions within 30 km"),
        (6, 100, {"devices": 8.0}, None),
        (6, 10_000, {}, None),
    ],
)
def test_area(devices: int, active: int, limits: dict[str, float], detail: str | None) -> None:
    found = hits("FLT-03", view_of(doubtful=doubtful(devices), active_devices=active), **limits)
    assert found == ([] if detail is None else [("52.52, 13.40", detail)])


def test_devices_that_report_jamming_need_no_share_of_the_fleet() -> None:
    jammed = doubtful(6, jammed=True)
    assert hits("FLT-03", view_of(doubtful=jammed, active_devices=10_000))[0][1] == (
        "6 devices with doubted positions within 30 km, 6 of them report jamming"
    )
    assert hits("FLT-03", view_of(doubtful=jammed[:5], active_devices=10_000)) == []


def test_a_device_with_a_single_odd_position_is_left_out() -> None:
    assert hits("FLT-03", view_of(doubtful=doubtful(20, count=2))) == []
    assert hits("FLT-03", view_of(doubtful=doubtful(9, count=2)), positions_min=2.0)


def test_what_is_spread_over_the_country_is_no_area() -> None:
    spread = [one for n in range(20) for one in doubtful(1, latitude=LATITUDE + n * 0.5)]
    assert hits("FLT-03", view_of(doubtful=spread)) == []
    assert hits("FLT-03", view_of(doubtful=spread), cell_km=2000.0)


def test_two_areas_are_two_hits_and_no_device_counts_twice() -> None:
    both = [*doubtful(8), *doubtful(12, latitude=48.1, longitude=11.5)]
    found = hits("FLT-03", view_of(doubtful=both))
    assert [detail.split(" ")[0] for _, detail in found] == ["12", "8"]


@pytest.mark.parametrize(
    "at",
    [
        lambda n: {"latitude": 52.0, "longitude": 179.98 + n * 0.005 - 360 * (179.98 + n * 0.005 > 180)},
        lambda n: {"latitude": 89.99, "longitude": n * 40.0 - 180},
        lambda n: {"latitude": -0.02 + n * 0.005, "longitude": -0.02 + n * 0.005},
    ],
    ids=["date line", "pole", "where equator and meridian meet"],
)
def test_clusters_across_the_borders_of_the_map(at: Callable[[int], dict[str, float]]) -> None:
    cluster = [Doubtful(device_number=str(n), count=5, jammed=False, **at(n)) for n in range(9)]
    assert hits("FLT-03", view_of(doubtful=cluster))[0][1].startswith("9 devices")
