"""TIM: is a signal's time right, did it come in time and in order? `clocks` has the rules for clocks that are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from signalkeep import limits as bounds
from signalkeep.rules import clocks
from signalkeep.rules.clocks import in_words
from signalkeep.rules.contract import Answer, Dimension, Limit, Limits, Rule, Scope, Severity
from signalkeep.rules.days import DayHit, DeviceDay
from signalkeep.rules.reading import IN_TIME_S, Reading, Recent
from signalkeep.rules.screen import INF

HOUR_S: Final = 3600.0


def same_time_other_content(reading: Reading, recent: Recent, limits: Limits) -> Answer:
    """TIM-06. Records that are the same to the byte never come here: ingest drops them and counts."""
    if not recent.same_time:
        return False
    last = recent.last
    if last is None or last.time_s != reading.time_s or not reading.on_globe or not reading.fix_valid:
        return None
    away_m = last.distance_m(reading)
    if away_m > limits["distance_m"]:
        return f"a second position of the same time, {away_m:.0f} m away"
    before, now = last.speed_kmh, reading.speed_kmh
    if before is not None and now is not None and abs(now - before) > limits["speed_kmh"]:
        return f"a second speed of the same time: {before:g} and {now:g} km/h"
    return False


def out_of_order(reading: Reading, limits: Limits) -> Answer:
    """TIM-07."""
    if reading.time_s is None:
        return None
    behind_s = reading.behind_s
    return f"{in_words(behind_s)} older than what had come before it" if behind_s > limits["behind_s"] else False


def gap(reading: Reading, recent: Recent, limits: Limits) -> Answer:
    """TIM-08. Only from a reading with the ignition on: a unit at rest may be silent for as long as it likes."""
    newest_s, usual_s = recent.newest_s, recent.interval_s
    known = recent.known.get("ignition")
    if newest_s is None or usual_s is None or known is None or reading.time_s is None:
        return None
    gap_s = reading.time_s - newest_s
    if gap_s <= limits["gap_s_min"] or gap_s <= limits["times_usual"] * usual_s or known[1] != 1:
        return False
    return f"nothing for {in_words(gap_s)} with the ignition on, where every {in_words(usual_s)} is usual"


def latency(reading: Reading, limits: Limits) -> Answer:
    """TIM-09. A backlog comes as soon as there is network again: that is what a memory is for."""
    if reading.time_s is None:
        return None
    delay_s, withheld_s = reading.received_s - reading.time_s, reading.withheld_s or 0.0
    if delay_s <= limits["late_s"] or withheld_s <= limits["late_s"] or delay_s > limits["old_s"]:
        return False
    return f"arrived {in_words(delay_s)} after it happened; {in_words(withheld_s)} after it the device was in contact"


def flood(day: DeviceDay, limits: Limits) -> Iterator[DayHit]:
    """TIM-10. By device time: a backlog that arrives at once is none."""
    times = [reading.received_s if reading.time_s is None else reading.time_s for reading in day.readings]
    order = sorted(range(len(times)), key=times.__getitem__)
    in_order = [times[place] for place in order]
    begin = until = most = first = 0  # the hours of one flood, as places in the order of time
    for last, time_s in enumerate(in_order):
        while time_s - in_order[first] >= HOUR_S:
            first += 1
        if last - first + 1 <= limits["signals_per_hour"]:
            continue
        if first >= until:
            yield from _flooded(order, in_order, begin, until, most, limits)
            begin, most = first, 0
        until, most = last + 1, max(most, last - first + 1)
    yield from _flooded(order, in_order, begin, until, most, limits)


def _flooded(
    order: list[int], times: list[float], begin: int, until: int, most: int, limits: Limits
) -> Iterator[DayHit]:
    """Of the hours that have too many, those signals are marked that follow each other too fast."""
    dense_s = HOUR_S / limits["signals_per_hour"]
    marked = [
        order[at]
        for at in range(begin, until)
        if (at > 0 and times[at] - times[at - 1] <= dense_s)
        or (at + 1 < len(times) and times[at + 1] - times[at] <= dense_s)
    ]
    if marked:
        yield DayHit(tuple(marked), f"up to {most} signals within an hour")


RULES: Final = (
    *clocks.RULES,
    Rule(
        id="TIM-06",
        title="Two signals of one time",
        dimension=Dimension.UNIQUENESS,
        severity=Severity.WARNING,
        scope=Scope.RECENT,
        check=same_time_other_content,
        quiet=lambda _: {},
        meaning="Two different signals have the same time, with positions or speeds that cannot both be true. Both are "
        "kept; which one is right, nobody knows.",
        causes=(
            "the receiver's clock stands still while the vehicle goes on",
            "two devices use the same number",
            "the device sends several events of one second with positions that it has not yet renewed",
        ),
        actions=(
            "look at both signals and their neighbours: `signalkeep signals list`",
            "with two places in turn, see ID-03",
            "if it is all devices of one model, report it to the maker",
        ),
        source="Movebank and Nuonic; ThingsBoard overwrites the first; distances: field knowledge",
        limits={
            "distance_m": Limit(50.0, "m", "positions as far apart are two; at 1 s a vehicle may move by 40 m"),
            "speed_kmh": Limit(20.0, "km/h", "speeds as far apart are two"),
        },
        bit=27,
    ),
    Rule(
        id="TIM-07",
        title="Out of order",
        dimension=Dimension.TIMELINESS,
        severity=Severity.INFO,
        scope=Scope.SIGNAL,
        check=out_of_order,
        quiet=lambda _: {},
        meaning="The signal is older than one that had arrived before. It is stored in its place; it never becomes the "
        "latest position and alarms nobody.",
        causes=(
            "after a time without coverage the device sends the newest first",
            "datagrams overtook each other",
            "the device's clock was set back",
        ),
        actions=(
            "nothing, if it follows times without coverage",
            "else have the device send the oldest first, if it can be set",
        ),
        source="GTFS-realtime validator E018; 1 s: recordings of real receivers",
        limits={"behind_s": Limit(1.0, "s", "older by more than this; receivers give fractions of a second")},
        bit=28,
    ),
    Rule(
        id="TIM-08",
        title="Gap",
        dimension=Dimension.COMPLETENESS,
        severity=Severity.WARNING,
        scope=Scope.RECENT,
        check=gap,
        meaning="The device was silent for much longer than usual although the ignition was on, and what happened in "
        "between was not sent later. The signal behind the gap is marked.",
        causes=(
            "the unit had no power: a loose plug, or somebody pulled it",
            "its memory was full after a long time without coverage",
            "it restarted, or its firmware hung",
        ),
        actions=(
            "see whether what is missing still comes: a backlog closes the gap",
            "look for DEV-03 and VEH-04 around the gap: then it is the power",
            "if it repeats in one vehicle, have the installer check plug and fuse",
        ),
        source="5 minutes: Navixy and Wialon; three times the usual: field knowledge",
        limits={
            "times_usual": Limit(3.0, "", "so many times the usual interval", least=1.0),
            "gap_s_min": Limit(300.0, "s", "shorter is no gap"),
        },
        bit=29,
        tracks=("ignition",),
    ),
    Rule(
        id="TIM-09",
        title="Late without need",
        dimension=Dimension.TIMELINESS,
        severity=Severity.INFO,
        scope=Scope.SIGNAL,
        check=latency,
        quiet=lambda limits: {"delay_s": (-INF, limits["late_s"])},
        meaning="The signal arrived long after it happened, although the device had been in contact and up to date "
        "meanwhile. It is sound and counts in every report, but it alarms nobody any more. A backlog after a time "
        "without coverage is none of these.",
        causes=(
            "the device held the record back: its firmware forgets records, and finds them when it starts anew",
            "a record of low priority that waited behind others",
            "its clock was behind for a moment",
        ),
        actions=(
            "nothing, if it is rare",
            "see whether the device started anew before it: DEV-04",
            "if it is many devices of one model, report it to the maker",
        ),
        source="300 s: Geoservice's contract",
        limits={
            "late_s": Limit(
                bounds.QUALITY_LIVE_S_MAX,
                "s",
                "later than this, and in contact so long after it happened",
                least=IN_TIME_S,
            ),
            "old_s": Limit(clocks.OLD_S, "s", "later than this it is the clock or an old memory, see TIM-03"),
        },
        bit=30,
    ),
    Rule(
        id="TIM-10",
        title="Flood",
        dimension=Dimension.UNIQUENESS,
        severity=Severity.WARNING,
        scope=Scope.DAY,
        check=flood,
        meaning="The device made far more signals within an hour than a vehicle needs. It costs traffic and storage, "
        "and hides what matters.",
        causes=(
            "an event that is stuck: a loose contact at an input, a sensor at its threshold",
            "an interval of a second or less that was set for a test",
        ),
        actions=(
            "see which event code repeats: `signalkeep signals list`",
            "have the installer check that input, or set a pause between events of a kind",
            "if one signal a second is meant, raise the limit for these devices",
        ),
        source="1000 an hour: Wialon",
        limits={"signals_per_hour": Limit(1000.0, "", "more than so many within an hour", least=1.0)},
        bit=31,
    ),
)
