"""Measures the rules: `python -m tests.quality.measure` plants faults into sound days and sees what the rules find.

Prints recall and precision of each rule with its default limits, and how often sound vehicles are accused. With
--tracks DIR it also runs the rules over recordings of real receivers, in which nothing was planted. The same seed and
count give the same figures.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.judge import Judge
from signalkeep.simulate.faults import KINDS, plant
from signalkeep.simulate.faulty import kinds_for
from signalkeep.simulate.plan import FIRST_NUMBER, device_numbers
from tests.quality.drives import INTERVALS_S, backlogs, clean_day
from tests.quality.explains import EXPLAINS, REPEATS_THE_DEVICE
from tests.quality.judging import JUDGED_ALONE, judged_drive, past_of
from tests.quality.real import TrackResult, judged_tracks, tracks_table
from tests.quality.score import JudgedDrive, Tally, score

DOCS: Final = Path(__file__).resolve().parent.parent.parent / "docs" / "quality"
SAVED: Final = DOCS / "measured.json"
TRACKS_SAVED: Final = DOCS / "tracks.json"
COUNT: Final = 200
SOUND_EVERY: Final = 4  # one of so many days stays without faults
PER_DAY: Final = 6.0


class RuleResult(msgspec.Struct, frozen=True):
    """A line of the table."""

    rule: str
    title: str
    episodes: int
    found: int
    recall: float | None
    right_alarms: int
    false_alarms: int
    precision: float | None
    false_on_look_alikes: int
    false_below: int
    false_alarms_per_sound_day: float
    missed: dict[str, int]
    false_at: dict[str, int]


class Result(msgspec.Struct, frozen=True):
    """What was measured, and how."""

    command: str
    seed: int
    days: int
    sound_days: int
    signals: int
    episodes: int
    look_alikes: int
    rules: list[RuleResult]
    not_measured: list[str]  # rules that no planted fault belongs to
    broken: dict[str, int]  # checks that raised, by rule


def drives(count: int, seed: int, judge: Judge) -> Iterator[JudgedDrive]:
    """Sound and faulty days, judged."""
    faulty_days = 0
    for index, number in enumerate(device_numbers(FIRST_NUMBER, count)):
        interval_s = INTERVALS_S[index % len(INTERVALS_S)]
        clean = clean_day(f"{seed} {number}", interval_s=interval_s)
        kinds: list[str] = []
        if index % SOUND_EVERY:
            kinds = kinds_for(faulty_days, tuple(KINDS), PER_DAY, seed)
            faulty_days += 1
        faulty = plant(clean, random.Random(f"{seed} {number} faults"), kinds, device_number=number)
        planted = [*faulty.planted, *backlogs(number, clean)]
        yield judged_drive(number, faulty.records, planted, past=past_of(clean), interval_s=interval_s, judge=judge)


def is_sound(drive: JudgedDrive) -> bool:
    """Nothing in it is a fault. It may have been without network for a while, as vehicles are."""
    return all(one.look_alike for one in drive.planted)


def measure(count: int, seed: int) -> Result:
    judge = Judge()
    done = list(drives(count, seed, judge))
    sound = [drive for drive in done if is_sound(drive)]
    rules = [rule.id for rule in JUDGED_ALONE if rule.id not in REPEATS_THE_DEVICE]
    tallies = score(done, rules, EXPLAINS)
    accused = score(sound, rules, EXPLAINS)
    planted = [one for drive in done for one in drive.planted]
    measured = {rule for explains in EXPLAINS.values() for rule in explains.must}
    return Result(
        command=f"python -m tests.quality.measure --count {count} --seed {seed}",
        seed=seed,
        days=len(done),
        sound_days=len(sound),
        signals=sum(len(drive.times_s) for drive in done),
        episodes=sum(not one.look_alike for one in planted),
        look_alikes=sum(one.look_alike for one in planted),
        rules=[_line(tallies[rule], accused[rule], len(sound)) for rule in rules],
        not_measured=sorted(BY_ID.keys() - measured),
        broken=dict(judge.broken),
    )


def _line(tally: Tally, accused: Tally, sound_days: int) -> RuleResult:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 4)

    return RuleResult(
        rule=tally.rule,
        title=BY_ID[tally.rule].title,
        episodes=tally.episodes,
        found=tally.found,
        recall=rounded(tally.recall),
        right_alarms=tally.right,
        false_alarms=tally.false,
        precision=rounded(tally.precision),
        false_on_look_alikes=tally.false_on_look_alikes,
        false_below=tally.false_below,
        false_alarms_per_sound_day=round(accused.false / sound_days, 4) if sound_days else 0.0,
        missed={kind: count for kind, count in sorted(tally.missed.items()) if count},
        false_at={kind or "no fault": count for kind, count in sorted(tally.false_at.items()) if count},
    )


def table(result: Result) -> Table:
    """For people."""
    shown = Table(box=None, pad_edge=False, title=None)
    for name in ("rule", "found", "recall", "false", "precision", "look-alikes", "sound day", "where"):
        shown.add_column(name, justify="left" if name in {"rule", "where"} else "right", no_wrap=name != "where")
    for one in result.rules:
        where = [f"missed {kind} {count}" for kind, count in one.missed.items()]
        where += [f"false at {kind} {count}" for kind, count in one.false_at.items()]
        shown.add_row(
            one.rule, f"{one.found}/{one.episodes}" if one.episodes else "",
            share(one.recall), str(one.false_alarms or ""), share(one.precision),
            str(one.false_on_look_alikes or ""), f"{one.false_alarms_per_sound_day:.3f}", ", ".join(where),
        )  # fmt: skip
    return shown


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.quality.measure", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help="device-days")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tracks", type=Path, help="a folder with recordings (.gpx, .log, .nmea, .csv), also within")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--save", action="store_true", help=f"write {SAVED.name} (and {TRACKS_SAVED.name}) anew")
    options = parser.parse_args(arguments)
    result = measure(options.count, options.seed)
    tracks = judged_tracks(options.tracks) if options.tracks else []
    if options.json:
        both: dict[str, Result | list[TrackResult]] = {"planted": result, "tracks": tracks}
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(both), indent=1) + b"\n")
    else:
        console = Console()
        console.print(table(result))
        console.print(
            f"{result.days} device-days, {result.sound_days} of them sound; {result.signals:,} signals; "
            f"{result.episodes} faults and {result.look_alikes} look-alikes planted",
            f"not measured: {', '.join(result.not_measured) or 'none'}", sep="\n",
        )  # fmt: skip
        if tracks:
            console.print(tracks_table(tracks))
    if options.save:
        DOCS.mkdir(exist_ok=True)
        SAVED.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
        if tracks:
            TRACKS_SAVED.write_bytes(msgspec.json.format(msgspec.json.encode(tracks), indent=1) + b"\n")
    if result.broken:
        print(f"checks that raised: {result.broken}", file=sys.stderr)
    return 1 if result.broken else 0


if __name__ == "__main__":
    sys.exit(main())
