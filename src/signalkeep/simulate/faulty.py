"""A fleet whose units are faulty: their records made ahead, with faults planted, and the file that says where.

Faults need the whole drive: some places for them show only afterwards, and late records change the order. So all
records of a run are made before it begins, which bounds how many there may be (`limits.SIMULATED_FAULTY_RECORDS_MAX`).
Promises: which unit gets which kinds follows from the seed alone; the kinds that were asked for take turns over the
fleet, so that each comes as often as the others.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from signalkeep.errors import EnvironmentFault
from signalkeep.model import Signal
from signalkeep.simulate.faults import KINDS
from signalkeep.simulate.planting import Made, Planted
from signalkeep.simulate.records import Recorder, Schedule


class Prepared:
    """Records that are there already: when they leave, and what they say."""

    def __init__(self, records: Sequence[Made], start: datetime) -> None:
        self._due_s = [(made.leaves_at - start).total_seconds() for made in records]
        self._signals = [made.signal for made in records]
        self._made = 0

    def due_s(self, order: int) -> float:
        """As `Schedule`; behind the last one there is none."""
        return self._due_s[order - 1] if order <= len(self._due_s) else math.inf

    def make(self, due_s: float) -> Signal:
        """As `Recorder`."""
        assert due_s == self._due_s[self._made], "records are taken in their order"
        self._made += 1
        return self._signals[self._made - 1]


def made_ahead(recorder: Recorder, schedule: Schedule, start: datetime, until_s: float) -> list[Made]:
    """All records of a run as a sound unit makes them."""
    made: list[Made] = []
    while (due_s := schedule.due_s(len(made) + 1)) < until_s:
        at = start + timedelta(seconds=due_s)
        made.append(Made(at, recorder.make(due_s), at))
    return made


def kinds_for(index: int, kinds: Sequence[str], per_unit: float, seed: int) -> list[str]:
    """What a unit gets. A fault that it has all day is its only one, so those go to units of their own."""
    chance = random.Random(f"{seed} {index} faults").random()  # noqa: S311 - reproducible faults, not a secret
    count = int(per_unit) + (chance < per_unit % 1)
    if not count:
        return []
    turns = list(kinds)
    random.Random(f"{seed} kinds").shuffle(turns)  # noqa: S311 - as above
    whole = [name for name in turns if KINDS[name].whole]
    rest = [name for name in turns if not KINDS[name].whole]
    together = math.ceil(per_unit)
    units = len(whole) + math.ceil(len(rest) / together)  # that it takes for all kinds to have had a turn
    rounds, place = divmod(index, units)
    if place < len(whole):
        return [whole[place]]
    first = (rounds * (units - len(whole)) + place - len(whole)) * together
    return [rest[(first + number) % len(rest)] for number in range(count)]


def write_truth(path: Path, planted: Iterable[Planted]) -> None:
    """The labels, one JSON object a line. Raises EnvironmentFault."""
    try:
        path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in planted))
    except OSError as error:
        raise EnvironmentFault(f"{path}: {error.strerror}", hint="Choose another place for --truth.") from error


def read_truth(path: Path) -> list[Planted]:
    """The labels of a file. Raises msgspec.DecodeError on a broken line."""
    return [msgspec.json.decode(line, type=Planted) for line in path.read_bytes().splitlines()]
