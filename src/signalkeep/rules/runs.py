"""Rules over a whole recording, from a file or from what is stored: days one after the other, nothing written. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import msgspec

from signalkeep.rules.contract import Dimension
from signalkeep.rules.days import DeviceDay, Past, in_order, judge_day
from signalkeep.rules.judge import Hit, Judge, Profile
from signalkeep.rules.reading import Reading, Recent
from signalkeep.rules.scores import Share, shares

DAY_S = 86_400


class Found(msgspec.Struct):
    """A hit; `place`: of the reading in the recording, None if it marks none."""

    hit: Hit
    place: int | None


class RunResult(msgspec.Struct):
    """What rules found in a recording."""

    readings: int = 0
    days: int = 0
    found: list[Found] = []
    shares: dict[Dimension, Share] = {}


def run(
    judge: Judge,
    profile: Profile,
    readings: Sequence[Reading],
    *,
    device_number: str = "",
    model: str = "",
    expected_interval_s: float | None = None,
) -> RunResult:
    """Judge a recording, given in the order of arrival."""
    places = {id(reading): place for place, reading in enumerate(readings)}
    recent = Recent(model, profile)
    result = RunResult(len(readings), shares={dimension: Share() for dimension in Dimension})
    past = Past()
    for day, group in groupby(sorted(in_order(list(readings)), key=_day), key=_day):
        one = DeviceDay(
            device_number, model, float(day * DAY_S), list(group), expected_interval_s=expected_interval_s, past=past
        )
        judged = judge_day(judge, profile, one, recent)
        result.days += 1
        for reading, said in zip(one.readings, judged.judged, strict=True):
            result.found += [Found(hit, places[id(reading)]) for hit in said.hits]
        result.found += [Found(hit, None) for hit in judged.unplaced]
        for dimension, share in shares(one, judged).items():
            before = result.shares[dimension]
            result.shares[dimension] = Share(before.of + share.of, before.good + share.good)
    return result


def _day(reading: Reading) -> int:
    return int((reading.received_s if reading.time_s is None else reading.time_s) // DAY_S)
