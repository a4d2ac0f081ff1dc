"""Sound days of vehicles, as units report them: dense on the way, now and then while parked. Seeded, without a network.

What is not ideal about them is what is not ideal about life: times without network, after which records come late and
in order; tunnels, cold starts and lost fixes. None of it is a fault.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Final

from signalkeep.simulate.coverage import Coverage
from signalkeep.simulate.drive import EVENT_CODES, Drive
from signalkeep.simulate.full import FullDrive
from signalkeep.simulate.planting import Made
from signalkeep.simulate.roads import HOMES, region
from signalkeep.simulate.scenarios import habits_of

MIDNIGHT: Final = datetime(2026, 5, 6, tzinfo=UTC)  # a Wednesday
INTERVALS_S: Final = (10, 15, 30)
PARKED_S: Final = 300
BETWEEN_ARRIVALS_S: Final = 0.05  # of a backlog


def clean_day(
    name: str, *, hours: float = 24.0, scenario: str = "mixed", has_gaps: bool = True, interval_s: int | None = None
) -> list[Made]:
    """The records of one unit, in the order in which they were made."""
    source = random.Random(f"{name} day")
    habits = habits_of(scenario, source.random())
    coverage, ahead = (Coverage(name, habits, has_gaps=has_gaps) for _ in range(2))
    roads = region(source.randrange(len(HOMES)), 1)
    drive = Drive(source, MIDNIGHT, EVENT_CODES["teltonika"], habits=habits, roads=roads, coverage=coverage)
    vehicle = FullDrive(drive, random.Random(f"{name} engine"))
    every_s = interval_s or source.choice(INTERVALS_S)
    records: list[Made] = []
    kept_s, free_s = float("-inf"), 0.0
    for number in range(1, int(hours * 3600 / every_s)):
        elapsed_s = float(number * every_s)
        at = MIDNIGHT + timedelta(seconds=elapsed_s)
        signal = vehicle.step(at)
        if not (signal.attributes["ignition"] or signal.event_code or elapsed_s - kept_s >= PARKED_S):
            continue
        kept_s = elapsed_s
        gap = ahead.gap(elapsed_s)
        leaves_s = max(elapsed_s if gap is None else gap.end_s, free_s)
        free_s = leaves_s + BETWEEN_ARRIVALS_S
        records.append(Made(at, signal, MIDNIGHT + timedelta(seconds=leaves_s)))
    return records
