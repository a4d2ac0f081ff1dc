"""How long a reading was withheld: in every order in which devices send what they kept."""

from __future__ import annotations

from signalkeep.rules.judge import Judge
from signalkeep.rules.reading import Reading, Recent
from tests.rules.asking import hit_places
from tests.rules.support import NOON_S, day_of, judge_all, judge_the_day, profile_of, reading

LATE = "TIM-09"
BACK_S = 7200.0  # when there is network again after noon


def every(step_s: float, begin_s: float, end_s: float) -> list[Reading]:
    """In time: heard two seconds after they happened."""
    return [reading(begin_s + step_s * n) for n in range(int((end_s - begin_s) / step_s))]


def kept(begin_s: float, end_s: float, from_s: float = BACK_S, apart_s: float = 0.1) -> list[Reading]:
    """What was kept without network arrives one after the other from `from_s` on."""
    return [
        reading(begin_s + 30 * n, received_s=NOON_S + from_s + apart_s * n) for n in range(int((end_s - begin_s) / 30))
    ]


def late(readings: list[Reading]) -> list[int]:
    """Places in the order of arrival; a sweep, which has them sorted, must say the same of the same."""
    readings = sorted(readings, key=lambda one: one.received_s)
    places = hit_places(judge_all(readings, profile_of(LATE)), LATE)
    for one in readings:
        one.withheld_s, one.behind_s = None, 0.0
    day = day_of(readings)
    swept = {id(day.readings[place]) for place in hit_places(judge_the_day(day, profile_of(LATE)).judged, LATE)}
    assert swept == {id(readings[place]) for place in places}
    return places


def test_a_backlog_is_what_a_memory_is_for() -> None:
    assert late([*every(30, -3600, 0), *kept(0, BACK_S), *every(30, BACK_S + 60, BACK_S + 3600)]) == []


def test_also_where_the_newest_comes_first() -> None:
    """Contact begins with what is new; what was kept follows, between more that is new."""
    slowly = kept(0, BACK_S, BACK_S + 20, 7.0)
    assert late([*every(30, -3600, 0), *every(10, BACK_S, BACK_S + 3600), *slowly]) == []


def test_also_where_network_comes_and_goes() -> None:
    """Half of what was kept came in the first minutes, the rest much later: it never was up to date between."""
    assert late([*every(30, -3600, 0), *kept(0, 3600, 4000), *kept(3600, BACK_S, BACK_S)]) == []


def test_also_where_records_are_gathered_and_sent_together() -> None:
    assert (
        late([one for begin_s in range(0, 36_000, 1800) for one in kept(begin_s, begin_s + 1800, begin_s + 1800)]) == []
    )


def test_a_record_that_was_held_back() -> None:
    held = reading(1000, received_s=NOON_S + 3000)
    readings = sorted([*every(10, 0, 5000), held], key=lambda one: one.received_s)
    assert late(readings) == [readings.index(held)]
    assert held.withheld_s is not None
    assert 1900 <= held.withheld_s <= 2000


def test_several_that_were_held_back_together() -> None:
    assert len(late([*every(10, 0, 9000), *kept(1000, 1900, 3000, 30.0)])) == 30


def test_of_a_device_that_was_never_heard_in_time_nothing_is_known() -> None:
    """Its clock may be behind."""
    assert late([reading(300 * n, received_s=NOON_S + 300 * n + 28_800) for n in range(50)]) == []


def test_without_a_clock_it_is_no_contact() -> None:
    lost = [reading(0, time_s=None, received_s=NOON_S + 10 * n) for n in range(1, 300)]
    assert late([reading(-5), *lost, reading(0, received_s=NOON_S + 3000)]) == []


def test_what_is_known_of_it_is_left_alone() -> None:
    one = reading(0, withheld_s=42.0)
    Judge().judge(one, Recent(), profile_of(LATE))
    assert one.withheld_s == 42.0
