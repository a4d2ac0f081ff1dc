"""Planted faults: each kind does what it says, where its label says, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any, Final

import pytest

from signalkeep.errors import CallerError
from signalkeep.model import Signal
from signalkeep.protocols.registry import ENCODERS
from signalkeep.simulate.faults import KINDS, Faulty, kinds_of, plant
from signalkeep.simulate.planting import Journey, Made, Planted, metres_between, moving, seconds_between
from tests.quality.drives import MIDNIGHT, clean_day

NUMBER: Final = "356307040000001"
DAYS: Final = 5


@cache
def day(number: int) -> tuple[Made, ...]:
    return tuple(clean_day(f"faults {number}", scenario=("city", "delivery", "long-haul")[number % 3]))


def planted_in(kind: str, number: int) -> tuple[tuple[Made, ...], Faulty]:
    clean = day(number)
    return clean, plant(clean, random.Random(f"{kind} {number}"), [kind], device_number=NUMBER)


class Case:
    """One planted episode with what was there before and after, in the order of true time."""

    def __init__(self, clean: tuple[Made, ...], faulty: Faulty) -> None:
        (self.label,) = faulty.planted
        self.clean = clean
        self.after = sorted(faulty.records, key=lambda made: made.at)
        before = {id(made) for made in clean}
        self.changed = [made for made in self.after if id(made) not in before]
        self.was = {made.at: made for made in clean}

    @property
    def pairs(self) -> list[tuple[Made, Made]]:
        """What the label covers: as it would have been, as it is."""
        times = set(self.label.records)
        return [
            (self.was[made.at], made)
            for made in self.after
            if made.signal.wire_time in times and made.at in self.was
        ]  # fmt: skip

    def all(self, says: Callable[[Signal, Signal], bool]) -> bool:
        return bool(self.pairs) and all(says(before.signal, after.signal) for before, after in self.pairs)

    def say(self, name: str) -> list[Any]:
        return [after.signal.attributes.get(name) for _, after in self.pairs]


def implied_kmh(case: Case) -> float:
    index = next(i for i, made in enumerate(case.after) if made.signal.wire_time == case.label.begins_at)
    one, other = case.after[index - 1], case.after[index]
    return metres_between(one.signal, other.signal) / seconds_between(one, other) * 3.6


def off_s(case: Case) -> set[float]:
    return {
        round((after.signal.wire_time - before.signal.wire_time).total_seconds())
        for before, after in case.pairs
        if after.signal.wire_time and before.signal.wire_time
    }


def per_hour(case: Case) -> int:
    end = case.label.begins_at + timedelta(hours=1)
    return sum(case.label.begins_at <= made.at < end for made in case.after)


def overtaken(case: Case) -> bool:
    by_leaving = sorted(case.after, key=lambda made: made.leaves_at)
    marked = set(case.label.records)
    newest = None
    behind = set()
    for made in by_leaving:
        if newest and made.at < newest:
            behind.add(made.signal.wire_time)
        newest = made.at if newest is None else max(newest, made.at)
    return marked <= behind


def drops(case: Case, name: str) -> list[float]:
    """How a value differs from what it would have been, over the labelled records."""
    return [after.signal.attributes[name] - before.signal.attributes[name] for before, after in case.pairs]


def place(signal: Signal) -> tuple[float | None, float | None]:
    return signal.latitude, signal.longitude


def held(case: Case) -> bool:
    return len({place(after.signal) for _, after in case.pairs}) == 1


def taken_along(case: Case) -> bool:
    """The unit slept, woke elsewhere, and everything after it is shifted alike."""
    asleep = [made for made in case.clean if case.label.begins_at < made.at < case.label.ends_at]
    shifts = [metres_between(case.was[made.at].signal, made.signal) for made in case.after
              if made.at >= case.label.ends_at]  # fmt: skip
    return bool(asleep) and not any(made.at in {one.at for one in asleep} for made in case.after) and min(shifts) > 1000


EVIDENCE: Final[dict[str, Callable[[Case], Any]]] = {
    "teleport": lambda c: implied_kmh(c) == pytest.approx(c.label.magnitude, rel=0.5),
    "frozen": lambda c: held(c) and c.label.magnitude == len(c.pairs) - 1 and c.all(
        lambda b, a: (a.speed_kmh or 0) > 5),
    "swapped": lambda c: c.all(lambda b, a: place(a) == (b.longitude, b.latitude)),
    "sign_flip": lambda c: c.all(lambda b, a: place(a) != place(b) and [abs(x or 0) for x in place(a)] == [
        abs(x or 0) for x in place(b)]),
    "null_island": lambda c: c.all(lambda b, a: a.fix_valid and max(abs(x or 0) for x in place(a)) < 0.01),
    "factory_default": lambda c: c.all(lambda b, a: a.fix_valid and place(a) == (37.3875111, -121.97232)),
    "off_globe": lambda c: c.all(lambda b, a: abs(a.latitude or 0) > 90 or abs(a.longitude or 0) > 180),
    "missing_position": lambda c: c.all(lambda b, a: a.fix_valid and place(a) == (None, None)),
    "few_satellites": lambda c: c.all(lambda b, a: a.satellites == c.label.magnitude and a.fix_valid),
    "high_hdop": lambda c: set(c.say("hdop")) == {c.label.magnitude},
    "altitude_range": lambda c: c.all(lambda b, a: a.altitude_m == c.label.magnitude),
    "course_range": lambda c: c.all(lambda b, a: a.course_deg == c.label.magnitude),
    "no_fix": lambda c: held(c) and c.all(lambda b, a: not a.fix_valid and a.satellites == 0),
    "parked_drift": lambda c: not held(c) and c.all(
        lambda b, a: metres_between(b, a) == pytest.approx(c.label.magnitude, rel=0.65)),
    "cloned": lambda c: sum(metres_between(one.signal, two.signal) > 30_000
                            for one, two in pairwise(c.after)) == 2 * c.label.magnitude,
    "future_clock": lambda c: off_s(c) == {round(c.label.magnitude)},
    "past_clock": lambda c: max(off_s(c)) / -86_400 == pytest.approx(c.label.magnitude, rel=0.01),
    "week_rollover": lambda c: off_s(c) == {-7168 * 86_400 * c.label.magnitude},
    "time_zone": lambda c: {abs(off) for off in off_s(c)} == {round(3600 * c.label.magnitude)},
    "time_unit": lambda c: c.all(lambda b, a: a.wire_time is not None and a.wire_time.year == 1970),
    "same_time": lambda c: all(made.signal != c.was[made.at].signal and metres_between(
        made.signal, c.was[made.at].signal) == pytest.approx(
            c.label.magnitude, rel=0.01, abs=0.1) for made in c.changed),
    "out_of_order": overtaken,
    "late_record": lambda c: [seconds_between(m, m._replace(at=m.leaves_at)) for m in c.changed] == [
        pytest.approx(c.label.magnitude, abs=0.01)],
    "flood": lambda c: per_hour(c) == c.label.magnitude,
    "gap": lambda c: not any(c.label.begins_at < made.at < c.label.ends_at for made in c.after) and any(
        c.label.begins_at < made.at < c.label.ends_at for made in c.clean),
    "acceleration": lambda c: len(c.changed) == 1 and any(
        two is c.changed[0] and seconds_between(one, two) == 1.0
        and abs((two.signal.speed_kmh or 0) - (one.signal.speed_kmh or 0)) / 3.6
        == pytest.approx(c.label.magnitude, abs=0.001) for one, two in pairwise(c.after)),
    "speed_range": lambda c: c.all(lambda b, a: a.speed_kmh == round(c.label.magnitude)),
    "speed_mismatch": lambda c: c.all(lambda b, a: a.speed_kmh == round((b.speed_kmh or 0) * c.label.magnitude)),
    "wrong_unit": lambda c: c.all(lambda b, a: abs((a.speed_kmh or 0) - (b.speed_kmh or 0) * c.label.magnitude) < 1),
    "gps_obd_speed": lambda c: c.all(lambda b, a: abs(
        abs(a.attributes["obd_speed_kmh"] - (a.speed_kmh or 0)) - c.label.magnitude) <= 1),
    "odometer_decrease": lambda c: odometer_step(c) == pytest.approx(-c.label.magnitude, abs=1),
    "odometer_jump": lambda c: drops(c, "odometer_m") == [pytest.approx(c.label.magnitude, abs=1)],
    "fuel_jump": lambda c: {abs(drop) for drop in drops(c, "fuel_pct")} <= {
        int(c.label.magnitude), int(c.label.magnitude) + 1, round(c.label.magnitude)},
    "fuel_drain": lambda c: set(drops(c, "fuel_pct")) == {-c.label.magnitude},
    "fuel_stuck": lambda c: len(set(c.say("fuel_pct"))) == 1 and (
        c.say("odometer_m")[-1] - c.say("odometer_m")[0]) / 1000 == pytest.approx(c.label.magnitude, abs=0.01),
    "low_voltage": lambda c: {round(v / c.label.magnitude) for v in c.say("power_v")} in ({1}, {2}),
    "over_voltage": lambda c: {round(v / c.label.magnitude) for v in c.say("power_v")} in ({1}, {2}),
    "unplugged": lambda c: max(c.say("power_v")) < 2.1 and c.say("battery_v")[-1] < c.say("battery_v")[0],
    "low_battery": lambda c: set(c.say("battery_pct")) == {c.label.magnitude},
    "ignition_off_moving": lambda c: c.all(lambda b, a: (a.speed_kmh or 0) >= 20 and "rpm" in a.attributes
                                           and a.attributes["ignition"] is False),
    "tow": lambda c: c.all(lambda b, a: (a.speed_kmh or 0) >= 20 and "rpm" not in a.attributes
                           and a.attributes["ignition"] is False),
    "rpm_zero": lambda c: set(c.say("rpm")) == {0} and c.all(lambda b, a: (a.speed_kmh or 0) > 10),
    "coolant_range": lambda c: set(c.say("coolant_c")) == {c.label.magnitude},
    "rpm_range": lambda c: set(c.say("rpm")) == {c.label.magnitude},
    "percent_range": lambda c: set(c.say("engine_load_pct")) == {c.label.magnitude},
    "constant_sensor": lambda c: len(set(c.say("rpm"))) == 1 and len(c.pairs) > c.label.magnitude,
    "jamming": lambda c: set(c.say("gnss_jamming")) == {c.label.magnitude},
    "weak_signal": lambda c: set(c.say("gsm_rssi")) <= {0, 1} and len(c.pairs) / len(c.clean) == pytest.approx(
        c.label.magnitude, abs=0.05),
    "sim_changed": lambda c: c.all(lambda b, a: a.attributes["iccid"] != b.attributes["iccid"]),
    "unknown_event": lambda c: c.all(lambda b, a: (a.event_code or "") > "9000"),
    "sentinel": lambda c: c.all(lambda b, a: any(
        a.attributes[name] in (255, 65_535) for name in ("rpm", "fuel_pct", "throttle_pct"))),
    "lost_attribute": lambda c: len(c.pairs) == len(c.clean) and set(c.say("fuel_pct")) == {None},
    "new_attribute": lambda c: None not in c.say("io9999"),
    "tunnel": lambda c: held(c) and c.all(lambda b, a: not a.fix_valid and (b.speed_kmh or 0) >= 30),
    "cold_start": lambda c: 5 <= len(c.pairs) <= 7 and not c.pairs[0][1].signal.fix_valid and metres_between(
        c.pairs[-3][0].signal, c.pairs[-3][1].signal) == pytest.approx(c.label.magnitude, abs=0.5),
    "backlog": lambda c: c.all(lambda b, a: a is b) and [m.at for m in sorted(c.after, key=lambda m: m.leaves_at)] == [
        m.at for m in c.after],
    "ferry": taken_along,
    "tow_asleep": taken_along,
}  # fmt: skip


def odometer_step(case: Case) -> float:
    index = next(i for i, made in enumerate(case.after) if made.signal.wire_time == case.label.begins_at)
    before, after = (case.after[i].signal.attributes["odometer_m"] for i in (index - 1, index))
    return float(after - before)


def cases(kind: str) -> list[Case]:
    found = [planted_in(kind, number) for number in range(DAYS)]
    return [Case(clean, faulty) for clean, faulty in found if faulty.planted]


def test_every_kind_has_its_evidence() -> None:
    assert EVIDENCE.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_does_what_it_says(kind: str) -> None:
    found = cases(kind)
    assert found, "no drive has a place for it"
    for case in found:
        assert EVIDENCE[kind](case), case.label


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_covers_all_that_was_changed(kind: str) -> None:
    for case in cases(kind):
        label, lasts = case.label, KINDS[kind].lasts
        assert label.kind == kind
        assert label.device_number == NUMBER
        assert label.look_alike is KINDS[kind].look_alike
        assert label.begins_at <= label.ends_at
        assert label.happened_from <= label.happened_to
        assert ("clock" in kind or kind in {"week_rollover", "time_zone", "time_unit"}) is (
            (label.begins_at, label.ends_at) != (label.happened_from, label.happened_to)
        )
        said = {made.signal.wire_time for made in case.after}
        assert set(label.records) <= said
        assert bool(label.records) is (kind != "gap")
        for made in case.changed:
            time = made.signal.wire_time
            assert time is not None
            assert time in label.records or (lasts and made.at >= label.begins_at), made


@pytest.mark.parametrize("kind", KINDS)
def test_magnitudes_lie_on_the_side_that_the_label_says(kind: str) -> None:
    ranges = {True: KINDS[kind].above, None: KINDS[kind].near, False: KINDS[kind].below}
    for case in cases(kind):
        slack = 0.1 * abs(case.label.magnitude) + (30 if KINDS[kind].unit == "s" else 1)  # s: records are so far apart
        assert kind == "past_clock" or any(
            least - slack <= case.label.magnitude <= most + slack for least, most in ranges[case.label.above]
        ), case.label  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_planted_can_be_sent(kind: str) -> None:
    for case in cases(kind)[:1]:
        for made in case.changed[:20]:
            for encoder in ENCODERS.values():
                assert encoder.encode_frame(NUMBER, [made.signal])


def test_the_clean_drive_is_left_alone() -> None:
    clean = [clean_day("untouched", hours=12.0), clean_day("untouched", hours=12.0)]
    faulty = plant(clean[0], random.Random(1), [kind for kind in KINDS if not KINDS[kind].whole], device_number=NUMBER)
    assert len(faulty.planted) > 10
    assert clean[0] == clean[1]


def test_without_kinds_nothing_changes() -> None:
    faulty = plant(day(1), random.Random(1), [], device_number=NUMBER)
    assert sorted(faulty.records, key=lambda made: made.at) == list(day(1))
    assert not faulty.planted
    assert not faulty.no_place


def test_the_same_seed_plants_the_same() -> None:
    kinds = ["teleport", "frozen", "gap", "late_record", "ferry", "cloned"]
    one, again, other = (plant(day(2), random.Random(seed), kinds, device_number=NUMBER) for seed in (1, 1, 2))
    assert one == again
    assert one.planted != other.planted


def test_episodes_keep_apart() -> None:
    kinds = [name for name, kind in KINDS.items() if not (kind.whole or kind.lasts or "clock" in name)]
    for number in range(DAYS):
        faulty = plant(day(number), random.Random(number), kinds, device_number=NUMBER)
        plain = [one for one in faulty.planted if one.begins_at >= MIDNIGHT]
        spans = sorted((one.begins_at, one.ends_at) for one in plain)
        assert len(spans) > 8
        assert all(end < begin for (_, end), (begin, _) in pairwise(spans))


def test_a_fault_that_a_unit_has_all_day_is_its_only_one() -> None:
    faulty = plant(day(0), random.Random(1), ["teleport", "time_zone"], device_number=NUMBER)
    assert [one.kind for one in faulty.planted] == ["time_zone"]
    assert faulty.no_place == ["teleport"]


def test_a_drive_without_room_gets_nothing() -> None:
    short = day(0)[:5]
    faulty = plant(short, random.Random(1), ["teleport", "flood", "gap"], device_number=NUMBER)
    assert faulty.planted == []
    assert sorted(faulty.no_place) == ["flood", "gap", "teleport"]
    assert faulty.records == list(short)
    assert plant([], random.Random(1), ["time_zone"], device_number=NUMBER).no_place == ["time_zone"]


def test_a_stretch_is_successive_and_long_enough() -> None:
    journey, source = Journey(day(2)), random.Random(1)
    for _ in range(50):
        found = journey.stretch(source, moving(20.0), count=4, lasts_s=90.0)
        assert found is not None
        records = journey.records[found.start : found.stop]
        assert all((made.signal.speed_kmh or 0) >= 20 for made in records)
        assert len(records) >= 4
        assert seconds_between(records[0], records[-1]) >= 90


def test_nothing_is_planted_near_another_fault() -> None:
    journey, source = Journey(day(2)), random.Random(1)
    first, last = journey.records[0].at, journey.records[-1].at
    journey.take(first, last - timedelta(hours=2))
    found = journey.stretch(source, lambda _: True)
    assert found is not None
    assert journey.records[found[0]].at > last - timedelta(hours=2)


def test_kinds_are_named_in_a_list() -> None:
    assert kinds_of("teleport, gap") == ("teleport", "gap")
    assert kinds_of("all") == tuple(KINDS)
    for wrong in ("", "teleport,tornado", "all,gap"):
        with pytest.raises(CallerError, match="no such kind"):
            kinds_of(wrong)


def test_labels_say_times_as_the_unit_does() -> None:
    label: Planted = planted_in("week_rollover", 1)[1].planted[0]
    assert label.begins_at < datetime(2007, 1, 1, tzinfo=UTC)
