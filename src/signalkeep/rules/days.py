"""A whole day of one device, for rules that need a window, and how all rules are applied to it. Pure.

A day is what the device says happened between midnight and midnight UTC, in the order of device time, whenever it
arrived. Readings without a usable clock come last, by their time of arrival.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from signalkeep import limits
from signalkeep.rules.judge import Applied, Hit, Judge, Judged, Profile, is_live, marks_of, storable
from signalkeep.rules.reading import Contact, Reading, Recent


class DayHit(msgspec.Struct, frozen=True):
    """What a DAY rule found: the readings that it marks (places in `DeviceDay.readings`; may be empty), and why."""

    places: Sequence[int]
    detail: str


class Past(msgspec.Struct, frozen=True):
    """The days before, summed up."""

    days: int = 0  # with readings, of the last seven
    signals: int = 0
    present: dict[str, int] = {}  # attribute: signals that had it


class DeviceDay(msgspec.Struct):
    """What DAY rules see. `readings` in the order of device time; the memory stands where the day begins."""

    device_number: str
    model: str
    begins_s: float  # midnight
    readings: list[Reading]
    expected_interval_s: float | None = None
    past: Past = Past()
    model_attributes: frozenset[str] | None = None  # that signals of the same model have ever had; None: not known
    records: int = 0  # ingested on that day by time of arrival, with re-sends; 0: not known
    duplicates: int = 0  # of these, re-sends of what was stored
    connections: int = 0  # on which it identified itself on that day; 0: not known


class DayJudged(msgspec.Struct):
    """What all rules say of a day: for each reading its flags and hits, and hits that mark no reading."""

    judged: list[Judged]
    unplaced: list[Hit]


def in_order(readings: list[Reading]) -> list[Reading]:
    """Sort by device time, and note how far each came behind what had arrived before it, and how long it was withheld.

    They are given in the order of arrival. Sorting is stable: what has the same time stays in the order of arrival.
    """
    newest_s: float | None = None
    contact = Contact()
    for reading in readings:
        reading.withheld_s = contact.withheld_s(reading)
        time_s = reading.time_s
        if time_s is None:
            continue
        if newest_s is not None and time_s < newest_s:
            reading.behind_s = newest_s - time_s
        elif time_s <= reading.received_s + limits.POSITION_FUTURE_S_MAX:
            newest_s = time_s
    return sorted(readings, key=lambda one: (one.time_s is None, one.time_s or one.received_s))


def judge_day(judge: Judge, profile: Profile, day: DeviceDay, recent: Recent) -> DayJudged:
    """Every rule's answer. `recent`: the device's memory where the day begins; it moves to the day's end."""
    judged = [judge.judge(reading, recent, profile) for reading in day.readings]
    unplaced: list[Hit] = []
    for one in profile.days:
        try:
            found = list(one.check(day, one.limits))
            for place in (place for hit in found for place in hit.places):
                if not 0 <= place < len(judged):
                    raise IndexError(f"it marks reading {place} of {len(judged)}")
        except Exception as error:
            judge.note_broken(one.rule, error)
            continue
        for hit in found:
            _place(one, hit, day, judged, unplaced)
    return DayJudged(judged, unplaced)


def _place(one: Applied, hit: DayHit, day: DeviceDay, judged: list[Judged], unplaced: list[Hit]) -> None:
    marks = marks_of(one.rule, hit.detail)
    times = [day.readings[place].time_s or day.readings[place].received_s for place in hit.places]
    if not times:
        unplaced.append(Hit(one.rule, day.begins_s, day.begins_s, storable(hit.detail), False, 0))
        return
    for place, at_s in zip(hit.places, times, strict=True):
        before, live = judged[place], is_live(day.readings[place])
        hits = (*before.hits, Hit(one.rule, times[0], at_s, storable(hit.detail), live, marks))
        judged[place] = Judged(before.flags | marks, hits, before.asked)
