"""FRM rules: broken messages over all devices, records that one device sends again and again."""

from __future__ import annotations

import pytest

from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.fleet import FleetHit, FleetView
from signalkeep.rules.judge import defaults
from tests.rules.support import NOON_S, day_of, judge_the_day, profile_of


def broken(refused: dict[str, int], frames: int, **limits: float) -> list[FleetHit]:
    rule = BY_ID["FRM-01"]
    return list(rule.check(FleetView(NOON_S, 0, refused=refused, frames=frames), defaults(rule) | limits))


def test_each_reason_is_named_with_its_share() -> None:
    hits = broken({"checksum": 300, "truncated": 40, "unknown_cap": 5000}, 9700)
    assert hits == [FleetHit("checksum", "300 of 10000 messages refused: 3.0% checksum")]


@pytest.mark.parametrize(
    ("refused", "frames", "limits", "hits"),
    [
        (20, 1979, {}, True),
        (20, 1980, {}, False),  # 1 % exactly
        (19, 0, {}, False),
        (20, 0, {}, True),
        (100, 9000, {"share_max": 0.05}, False),
        (5, 100, {"refused_min": 5.0}, True),
        (0, 0, {"refused_min": 0.0}, False),
    ],
)
def test_when_refusals_are_too_many(refused: int, frames: int, limits: dict[str, float], hits: bool) -> None:
    assert [hit.subject for hit in broken({"unframable": refused}, frames, **limits)] == ["unframable"] * hits


@pytest.mark.parametrize("reason", ["unknown_refused", "connection_limit", "retired_device", "time_out"])
def test_what_was_refused_for_another_reason_is_not_broken(reason: str) -> None:
    assert broken({reason: 5000}, 10) == []


def again(duplicates: int, records: int, **limits: float) -> list[str]:
    day = day_of([], records=records, duplicates=duplicates)
    judged = judge_the_day(day, profile_of("FRM-02", **limits))
    assert all(hit.rule.id == "FRM-02" for hit in judged.unplaced)
    return [hit.detail for hit in judged.unplaced]


def test_records_sent_again() -> None:
    assert again(400, 1000) == ["400 of 1000 records had been sent before: 40%"]


@pytest.mark.parametrize(
    ("duplicates", "records", "limits", "hits"),
    [
        (200, 1000, {}, False),
        (201, 1000, {}, True),
        (19, 40, {}, False),
        (20, 40, {}, True),
        (0, 0, {}, False),  # not known
        (15, 1000, {}, False),  # a packet after a time without coverage
        (300, 1000, {"share_max": 0.5}, False),
        (10, 40, {"duplicates_min": 10.0}, True),
    ],
)
def test_when_they_are_too_many(duplicates: int, records: int, limits: dict[str, float], hits: bool) -> None:
    assert bool(again(duplicates, records, **limits)) is hits
