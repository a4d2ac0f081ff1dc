"""The rules on recordings of real receivers, in which nothing was planted: what they say there must stand to reason.

The recordings are other people's (scripts/real_tracks.sh fetches some), and are never part of the project; what came of
them is, with names and counts only.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final

import msgspec
from rich.table import Table

from signalkeep.errors import CallerError
from signalkeep.rules.days import DeviceDay, in_order, judge_day
from signalkeep.rules.judge import Judge
from signalkeep.rules.reading import Reading, Recent
from signalkeep.tracks.files import READERS, readings
from tests.quality.judging import DAY_S, DEFAULTS
from tests.quality.score import ONE_ALARM_S

READINGS_MIN: Final = 5  # shorter recordings are tests of parsers
EXAMPLES_MAX: Final = 3


class TrackResult(msgspec.Struct, frozen=True):
    """What the rules say of one recording."""

    name: str
    readings: int
    skipped_lines: int
    hours: float
    alarms: dict[str, int]  # by rule; hits that lie close together are one
    hits: dict[str, int]
    examples: list[str]  # rule, line, detail


def judged_tracks(folder: Path) -> list[TrackResult]:
    """Every recording in a folder and those within, in the order of their names."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix.lower() in READERS:
            try:
                one = judged_track(path, str(path.relative_to(folder)))
            except CallerError:
                continue  # a file of another kind under a name that we read
            if one.readings >= READINGS_MIN:
                found.append(one)
    return found


def judged_track(path: Path, name: str) -> TrackResult:
    recording = readings(path)
    line_of = {id(one): line for one, line in zip(recording.readings, recording.lines, strict=True)}
    days: dict[float, list[Reading]] = {}
    for one in recording.readings:
        said_s = one.received_s if one.time_s is None else one.time_s
        days.setdefault(said_s // DAY_S * DAY_S, []).append(one)
    judge, recent = Judge(), Recent()
    hits: Counter[str] = Counter()
    alarms: Counter[str] = Counter()
    last_s: dict[str, float] = {}
    examples: list[str] = []
    for begins_s in sorted(days):
        day = DeviceDay(device_number=name, model="", begins_s=begins_s, readings=in_order(days[begins_s]))
        judged = judge_day(judge, DEFAULTS, day, recent)
        placed = [(hit, line_of[id(day.readings[place])])
                  for place, one in enumerate(judged.judged) for hit in one.hits]  # fmt: skip
        for hit, line in [*placed, *((hit, 0) for hit in judged.unplaced)]:
            rule = hit.rule.id
            hits[rule] += 1
            if rule not in last_s or abs(hit.at_s - last_s[rule]) > ONE_ALARM_S:
                alarms[rule] += 1
                if alarms[rule] <= EXAMPLES_MAX:
                    examples.append(f"{rule}, line {line}: {hit.detail}" if line else f"{rule}: {hit.detail}")
            last_s[rule] = hit.at_s
    assert not judge.broken, judge.first_errors
    times_s = [one.time_s for one in recording.readings if one.time_s is not None]
    return TrackResult(
        name=name,
        readings=len(recording.readings),
        skipped_lines=recording.skipped_count,
        hours=round((max(times_s) - min(times_s)) / 3600, 3) if times_s else 0.0,
        alarms=dict(sorted(alarms.items())),
        hits=dict(sorted(hits.items())),
        examples=examples,
    )


def tracks_table(tracks: list[TrackResult]) -> Table:
    """Recordings with alarms; the last line sums up."""
    shown = Table(box=None, pad_edge=False)
    for name in ("recording", "readings", "hours", "alarms"):
        shown.add_column(name, justify="right" if name in {"readings", "hours"} else "left")
    for one in tracks:
        if one.alarms:
            said = ", ".join(f"{rule} {count}" for rule, count in one.alarms.items())
            shown.add_row(one.name, str(one.readings), f"{one.hours:g}", said)
    quiet = sum(not one.alarms for one in tracks)
    total = sum(one.readings for one in tracks)
    shown.add_row(f"{len(tracks)} recordings, {quiet} without an alarm", str(total), "", "")
    return shown
