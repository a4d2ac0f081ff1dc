"""Fleets with faults: records made ahead, kinds in turn, labels in a file."""

from __future__ import annotations

import math
import random
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from signalkeep.errors import EnvironmentFault
from signalkeep.simulate.coverage import DeviceClock
from signalkeep.simulate.drive import EVENT_CODES, Drive
from signalkeep.simulate.faults import KINDS, plant
from signalkeep.simulate.faulty import Prepared, kinds_for, made_ahead, read_truth, write_truth
from signalkeep.simulate.full import FullDrive
from signalkeep.simulate.records import Evenly, Recorder
from tests.quality.drives import clean_day

START = datetime(2026, 5, 6, 10, tzinfo=UTC)
SOUND = DeviceClock(0.0, 0.0, 86_400.0, 0.0)


def recorder() -> Recorder:
    return Recorder(lambda: Drive(random.Random(1), START, EVENT_CODES["teltonika"]), SOUND, START)


def test_records_made_ahead_are_those_that_would_have_been_made() -> None:
    schedule, one, other = Evenly(0.5, 2.0), recorder(), recorder()
    ahead = made_ahead(one, schedule, START, 20.0)
    assert len(ahead) == 10
    assert [made.signal for made in ahead] == [other.make(schedule.due_s(order)) for order in range(1, 11)]
    assert all(made.at == made.leaves_at for made in ahead)


def test_prepared_records_leave_when_they_should() -> None:
    ahead = made_ahead(recorder(), Evenly(0.5, 2.0), START, 20.0)
    prepared = Prepared(ahead, START)
    assert [prepared.due_s(order) for order in (1, 2, 10, 11)] == [0.5, 2.5, 18.5, math.inf]
    assert [prepared.make(prepared.due_s(order)) for order in range(1, 11)] == [made.signal for made in ahead]


def test_kinds_take_turns_over_a_fleet() -> None:
    kinds = [name for name, kind in KINDS.items() if not kind.whole]
    drawn = Counter(kind for index in range(len(kinds)) for kind in kinds_for(index, kinds, 3, 7))
    assert set(drawn) == set(kinds)
    assert set(drawn.values()) == {3}


def test_no_kind_is_left_out_because_another_takes_the_whole_day() -> None:
    for per_unit in (0.5, 1, 2, 6, 2.5):
        drawn = Counter(kind for index in range(600) for kind in kinds_for(index, tuple(KINDS), per_unit, 7))
        assert set(drawn) == set(KINDS)


def test_a_rate_below_one_leaves_units_sound() -> None:
    drawn = [len(kinds_for(index, ["gap", "teleport"], 0.3, 7)) for index in range(400)]
    assert set(drawn) == {0, 1}
    assert 80 < sum(drawn) < 160


def test_who_has_a_fault_all_day_has_no_other() -> None:
    drawn = [kinds_for(index, ["gap", "wrong_unit", "frozen"], 2, 7) for index in range(30)]
    assert drawn.count(["wrong_unit"]) == 15
    assert all(len(kinds) == 2 for kinds in drawn if "wrong_unit" not in kinds)


def test_labels_are_read_as_they_were_written(tmp_path: Path) -> None:
    planted = plant(clean_day("truth", hours=12), random.Random(1), ["gap", "teleport"], device_number="1").planted
    write_truth(tmp_path / "truth", planted)
    assert read_truth(tmp_path / "truth") == planted
    with pytest.raises(EnvironmentFault):
        write_truth(tmp_path, planted)


@pytest.mark.parametrize("scenario", ["city", "long-haul"])
def test_the_engine_agrees_with_the_drive(scenario: str) -> None:
    day = [made.signal for made in clean_day("engine", scenario=scenario, has_gaps=False)]
    on = [one for one in day if one.attributes["ignition"]]
    assert len(on) > 100
    for one in on:
        said, speed_kmh = one.attributes, one.speed_kmh or 0
        assert abs(said["obd_speed_kmh"] - speed_kmh) <= 0.04 * speed_kmh + 4
        assert 500 < said["rpm"] < 5000
        assert said["rpm"] < 900 or speed_kmh > 1
        assert 10 <= said["coolant_c"] <= 98
        assert 0 <= said["engine_load_pct"] <= 100 >= said["throttle_pct"] >= 0
        assert one.attributes["hdop"] < 2
    fuel = [one.attributes["fuel_pct"] for one in day]
    assert fuel == sorted(fuel, reverse=True)
    assert fuel[0] > fuel[-1] > 0
    assert all("rpm" not in one.attributes for one in day if not one.attributes["ignition"])
    assert len({one.attributes["coolant_c"] for one in on}) > 5
    assert len({one.attributes["iccid"] for one in day}) == 1


def test_a_full_drive_changes_nothing_that_was_there() -> None:
    plain = Drive(random.Random(1), START, EVENT_CODES["json"])
    full = FullDrive(Drive(random.Random(1), START, EVENT_CODES["json"]), random.Random(2))
    for second in range(1, 300):
        at = START.replace(minute=second // 60, second=second % 60)
        one, other = plain.step(at), full.step(at)
        assert one.attributes.items() <= other.attributes.items()
        other.attributes = one.attributes
        assert one == other
        assert full.truth == plain.truth
