"""What ails a device: each kind at its limits, two stages, when it is over, and what alarms nobody."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from signalkeep.kinds import Stage
from signalkeep.rules.health import (
    Ailing,
    DeviceView,
    Found,
    LastSignal,
    TroubleLimits,
    asks_last_signal,
    judge,
    last_signal,
    silent_after_s,
)
from signalkeep.rules.troubles import Trouble, defaults

NOW = 1_793_500_000.0
MINUTE = 60.0
HOUR = 3600.0
LIMITS: dict[Trouble, TroubleLimits] = {trouble: defaults(trouble) for trouble in Trouble}
DRIVES = LastSignal(fix=True)
PARKED = LastSignal(fix=True, parked=True)


def device(**values: Any) -> DeviceView:
    """One that reports every minute and is well."""
    usual = DeviceView(
        1, "1", "FMB920", None, 60, heard_s=NOW, stored=1000, stored_to_s=NOW, position_s=NOW, since_s=NOW - 1e7
    )
    return msgspec.structs.replace(usual, **values)


def found(kind: Trouble = Trouble.POWER_LOW, hits: int = 1, last_s: float = NOW, **values: Any) -> Found:
    return Found(**{
        "trouble": kind, "hits": hits, "begins_s": last_s, "last_s": last_s, "over": False, "detail": "low", **values
    })  # fmt: skip


def one(view: DeviceView, now_s: float = NOW, limits: Any = LIMITS) -> Ailing | None:
    judged = judge(view, limits, now_s)
    assert len(judged) <= 1
    return judged[0] if judged else None


def then(view: DeviceView, now_s: float, **changes: Any) -> tuple[DeviceView, Ailing | None]:
    """The device with its troubles as remembered, looked at again later."""
    before = {ailing.kind: ailing for ailing in judge(view, LIMITS, NOW)}
    later = msgspec.structs.replace(view, before=before, **changes)
    return later, one(later, now_s)


# Silence ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected_s", "last", "after_s"),
    [
        (60, DRIVES, 600),
        (300, DRIVES, 900),
        (300, None, 900),
        (None, DRIVES, 86_400),
        (60, PARKED, 86_400),
        (86_400, PARKED, 3 * 86_400),
    ],
)
def test_how_long_a_device_may_be_silent(expected_s: int | None, last: LastSignal | None, after_s: float) -> None:
    view = device(expected_interval_s=expected_s, last=last)
    assert silent_after_s(view, LIMITS[Trouble.SILENT]) == after_s
    assert one(msgspec.structs.replace(view, heard_s=NOW - after_s)) is None
    ailing = one(msgspec.structs.replace(view, heard_s=NOW - after_s - 1))
    assert ailing is not None
    assert (ailing.kind, ailing.stage, ailing.since_s) == (Trouble.SILENT, Stage.MALFUNCTION, NOW - after_s - 1)
    assert ailing.good_since_s is None


def test_one_that_was_never_heard_of_is_not_silent() -> None:
    assert one(device(heard_s=None, stored_to_s=None, position_s=None)) is None


def test_a_silent_device_is_well_after_records_and_minutes() -> None:
    silent = device(heard_s=NOW - HOUR)
    back, ailing = then(silent, NOW + MINUTE, heard_s=NOW + MINUTE, stored=1001)
    assert ailing is not None
    assert (ailing.good_since_s, ailing.good_from) == (NOW + MINUTE, 1001)
    remembered = msgspec.structs.replace(back, before={Trouble.SILENT: ailing})

    def look(minutes: float, records: int) -> Ailing | None:
        at_s = NOW + minutes * MINUTE
        return one(msgspec.structs.replace(remembered, heard_s=at_s, stored=1001 + records), at_s)

    assert look(12, 1) is not None, "too few records"
    assert look(10, 50) is not None, "too few minutes"
    assert look(11, 2) is None


def test_one_that_falls_silent_again_before_it_was_well_is_still_the_same() -> None:
    back, ailing = then(device(heard_s=NOW - HOUR), NOW + MINUTE, heard_s=NOW + MINUTE, stored=1001)
    assert ailing is not None
    again = one(msgspec.structs.replace(back, before={Trouble.SILENT: ailing}), NOW + HOUR)
    assert again is not None
    assert (again.since_s, again.good_since_s) == (NOW - HOUR, None)


def test_what_lasts_is_not_written_again_and_again() -> None:
    silent = device(heard_s=NOW - HOUR)
    _, later = then(silent, NOW + HOUR)
    assert [later] == judge(silent, LIMITS, NOW)


# No position --------------------------------------------------------------------------------------------------------

BLIND = LastSignal(fix=False)


@pytest.mark.parametrize(
    ("changes", "ails"),
    [
        ({}, True),
        ({"position_s": NOW - HOUR + 1}, False),
        ({"last": DRIVES}, False),
        ({"last": None}, False),
        ({"last": LastSignal(fix=False, parked=True)}, False),
        ({"last": LastSignal(fix=False, receiver_rests=True)}, False),
        ({"position_s": None}, True),
        ({"position_s": None, "since_s": NOW - HOUR + 1}, False),
        ({"stored_to_s": NOW - 2 * HOUR}, False),
        ({"stored_to_s": NOW + 20 * HOUR, "position_s": NOW - 10}, False),
    ],
)
def test_no_position(changes: dict[str, Any], ails: bool) -> None:
    ailing = one(device(**{"last": BLIND, "position_s": NOW - HOUR, **changes}))
    assert (ailing is not None and ailing.kind is Trouble.NO_FIX) is ails


def test_what_rules_say_of_the_antenna_is_the_same_trouble() -> None:
    ailing = one(device(found=(found(Trouble.NO_FIX, hits=60, begins_s=NOW - HOUR),)))
    assert ailing is not None
    assert (ailing.stage, ailing.hits, ailing.bad_s) == (Stage.MALFUNCTION, 60, HOUR)


@pytest.mark.parametrize(
    ("ignition", "motion", "gnss", "parked", "rests"),
    [
        (None, None, None, False, False),
        (0, None, None, True, False),
        (False, True, None, True, False),
        (1, 0, None, False, False),
        (None, False, None, True, False),
        (None, 0, 3, True, True),
        ("off", {}, "?", False, False),
    ],
)
def test_what_the_latest_signal_says(ignition: Any, motion: Any, gnss: Any, parked: bool, rests: bool) -> None:
    assert last_signal(True, ignition, motion, gnss) == LastSignal(True, parked, rests)


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, False),
        ({"heard_s": NOW - 601}, True),
        ({"heard_s": NOW - 86_401}, False),
        ({"heard_s": NOW - HOUR, "expected_interval_s": None}, False),
        ({"position_s": NOW - HOUR}, True),
        ({"heard_s": None}, False),
    ],
)
def test_the_latest_signal_is_asked_only_where_it_decides(changes: dict[str, Any], asked: bool) -> None:
    assert asks_last_signal(device(**changes), LIMITS, NOW) is asked


def heard(**values: Any) -> DeviceView:
    """One that is never silent."""
    return device(heard_s=NOW + 100 * HOUR, **values)


# Hits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "hits", "stage"),
    [
        (Trouble.POWER_LOW, 4, Stage.DIAGNOSTIC),
        (Trouble.POWER_LOW, 5, Stage.MALFUNCTION),
        (Trouble.POSITION_FAULTS, 49, Stage.DIAGNOSTIC),
        (Trouble.POSITION_FAULTS, 50, Stage.MALFUNCTION),
        *((kind, 1, Stage.MALFUNCTION) for kind in (
            Trouble.POWER_CUT, Trouble.CLONED, Trouble.ERROR_LIMIT, Trouble.IDENTITY_CHANGED, Trouble.RESTART_LOOP)),
        *((kind, 1, Stage.DIAGNOSTIC) for kind in (
            Trouble.WRONG_CLOCK, Trouble.FLOOD, Trouble.JAMMING, Trouble.POSITION_FAULTS)),
    ],
)  # fmt: skip
def test_so_many_hits_are_a_malfunction(kind: Trouble, hits: int, stage: Stage) -> None:
    ailing = one(device(found=(found(kind, hits),)))
    assert ailing is not None
    assert (ailing.kind, ailing.stage, ailing.hits) == (kind, stage, hits)


@pytest.mark.parametrize(
    ("span_min", "interval_s", "hits", "bad_min", "stage"),
    [
        (60, 600, 6, 60, Stage.MALFUNCTION),
        (59, 600, 6, 59, Stage.DIAGNOSTIC),
        (600, 600, 6, 60, Stage.MALFUNCTION),
        (600, 600, 5, 50, Stage.DIAGNOSTIC),
        (600, 3600, 6, 60, Stage.MALFUNCTION),
        (600, None, 60, 60, Stage.MALFUNCTION),
    ],
)
def test_so_many_bad_minutes_are_a_malfunction(
    span_min: float, interval_s: int | None, hits: int, bad_min: float, stage: Stage
) -> None:
    """Each hit stands for the time between two reports, ten minutes at most."""
    view = device(expected_interval_s=interval_s, found=(found(hits=hits, begins_s=NOW - span_min * MINUTE),))
    ailing = one(view, limits={Trouble.POWER_LOW: {**LIMITS[Trouble.POWER_LOW], "hits": 1000}})
    assert ailing is not None
    assert (ailing.bad_s, ailing.stage) == (bad_min * MINUTE, stage)


def test_hits_of_several_rules_and_days_count_together() -> None:
    parts = (found(hits=2, last_s=NOW - 20 * HOUR), found(hits=2, last_s=NOW - HOUR), found(hits=1))
    ailing = one(device(found=parts))
    assert ailing is not None
    assert (ailing.hits, ailing.since_s, ailing.stage) == (5, NOW - 20 * HOUR, Stage.MALFUNCTION)


def test_of_a_day_that_began_before_the_window_its_share_counts() -> None:
    part = found(hits=12, begins_s=NOW - 30 * HOUR, last_s=NOW - 18 * HOUR)
    ailing = one(device(found=(part, found())))
    assert ailing is not None
    assert ailing.hits == 6 + 1
    outside = found(hits=9, last_s=NOW - 25 * HOUR)
    only = one(device(found=(outside, found())))
    assert only is not None
    assert only.hits == 1


def test_it_stays_a_malfunction_until_it_is_over_and_what_comes_back_was_not_mended() -> None:
    view = heard(found=(found(hits=5),))
    _, after = then(view, NOW + 29 * MINUTE, stored=1100)
    assert after is not None
    assert (after.stage, after.cleared_s) == (Stage.MALFUNCTION, None)
    _, few = then(view, NOW + 31 * MINUTE, stored=1009)
    assert few is not None
    assert few.cleared_s is None
    later, over = then(view, NOW + 30 * MINUTE, stored=1010)
    assert over is not None
    assert over.cleared_s == NOW + 30 * MINUTE
    remembered = msgspec.structs.replace(later, before={Trouble.POWER_LOW: over})
    assert one(remembered, NOW + 2 * HOUR) == over, "it is remembered, and stays over"
    assert one(msgspec.structs.replace(remembered, found=()), NOW + 25 * HOUR) is None
    new = found(hits=6, begins_s=NOW, last_s=NOW + 5 * HOUR)
    again = one(msgspec.structs.replace(remembered, found=(new,)), NOW + 5 * HOUR)
    assert again is not None
    assert (again.cleared_s, again.since_s, again.stage) == (None, NOW + 5 * HOUR, Stage.MALFUNCTION)


def test_what_the_sweep_calls_over_needs_no_more_records() -> None:
    view = heard(found=(found(hits=5),))
    _, over = then(view, NOW + 31 * MINUTE, found=(found(hits=5, over=True),))
    assert over is not None
    assert over.cleared_s == NOW + 31 * MINUTE


def test_what_was_over_before_anybody_looked_alarms_nobody_and_what_was_not_does() -> None:
    assert one(device(found=(found(hits=9, last_s=NOW - HOUR, over=True),))) is None
    ailing = one(device(found=(found(hits=9, last_s=NOW - HOUR),)))
    assert ailing is not None
    assert ailing.cleared_s is None


def test_what_is_taken_back_is_over_after_its_minutes_and_records() -> None:
    view = heard(found=(found(hits=5),))
    later, ailing = then(view, NOW + 10 * MINUTE, found=(), stored=1010)
    assert ailing is not None
    assert ailing.hits == 5
    assert one(later, NOW + 31 * MINUTE) is None


def test_a_kind_that_is_off_is_forgotten_at_once() -> None:
    view = heard(found=(found(hits=5),))
    before = {Trouble.POWER_LOW: judge(view, LIMITS, NOW)[0]}
    limits = dict(LIMITS)
    del limits[Trouble.POWER_LOW]
    assert judge(msgspec.structs.replace(view, before=before), limits, NOW) == []


def test_a_device_may_ail_in_several_ways() -> None:
    view = device(heard_s=NOW - HOUR, found=(found(Trouble.POWER_CUT, last_s=NOW - HOUR), found(Trouble.JAMMING)))
    assert [ailing.kind for ailing in judge(view, LIMITS, NOW)] == ["jamming", "power_cut", "silent"]
