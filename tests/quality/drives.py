"""Sound days of vehicles, as units report them: dense on the way, now and then while parked. Seeded, without a network.

What is not ideal about them is what is not ideal about life: times without network, after which records come late and
in order; tunnels, cold starts and lost fixes; a position that wanders by some metres, and by some tens of metres
between houses; a speed that is a little off. None of it is a fault.
"""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from signalkeep.model import Signal
from signalkeep.simulate.coverage import Coverage
from signalkeep.simulate.drive import EVENT_CODES, Drive
from signalkeep.simulate.full import FullDrive
from signalkeep.simulate.planting import IN_TIME_S, Made, Planted, away
from signalkeep.simulate.roads import HOMES, region
from signalkeep.simulate.scenarios import habits_of

MIDNIGHT: Final = datetime(2026, 5, 6, tzinfo=UTC)  # a Wednesday
INTERVALS_S: Final = (10, 15, 30)
PARKED_S: Final = 300
BETWEEN_ARRIVALS_S: Final = 0.05  # of a backlog
WANDERS_M: Final = 3.5  # standard deviation of a position, north and east
WANDERS_IN_S: Final = 90.0  # so long a receiver stays wrong in the same way
REFLECTION_EVERY_S: Final = 1200.0  # on the way
REFLECTION_M: Final = (12.0, 35.0)
REFLECTION_S: Final = 25.0
SPEED_OFF_KMH: Final = 0.7
ALTITUDE_OFF_M: Final = 4.0


class Noise:
    """What a good receiver adds to the truth."""

    def __init__(self, source: random.Random) -> None:
        self._random = source
        self._error = [source.gauss(0.0, WANDERS_M), source.gauss(0.0, WANDERS_M)]  # north, east
        self._held: dict[str, Any] = {}  # the last place it said

    def blur(self, signal: Signal, elapsed_s: float) -> Signal:
        """The same with the errors of this moment; without a fix, the place that was said last."""
        source = self._random
        stays = math.exp(-elapsed_s / WANDERS_IN_S)
        spread_m = WANDERS_M * math.sqrt(1 - stays**2)
        self._error = [stays * error + source.gauss(0.0, spread_m) for error in self._error]
        if not signal.fix_valid:
            return msgspec.structs.replace(signal, **self._held)
        north_m, east_m = self._error
        speed_kmh = signal.speed_kmh or 0.0
        if speed_kmh:
            if source.random() < elapsed_s / REFLECTION_EVERY_S:
                far_m, turn_rad = source.uniform(*REFLECTION_M), source.uniform(0, math.tau)
                north_m, east_m = north_m + far_m * math.cos(turn_rad), east_m + far_m * math.sin(turn_rad)
                self._error = [
                    north_m * math.exp(-elapsed_s / REFLECTION_S),
                    east_m * math.exp(-elapsed_s / REFLECTION_S),
                ]
            speed_kmh = float(max(0, round(speed_kmh + source.gauss(0.0, SPEED_OFF_KMH))))
        altitude_m = float(round((signal.altitude_m or 0.0) + source.gauss(0.0, ALTITUDE_OFF_M)))
        self._held = {**away(signal, north_m=north_m, east_m=east_m), "altitude_m": altitude_m}
        return msgspec.structs.replace(signal, speed_kmh=speed_kmh, **self._held)


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
    noise = Noise(random.Random(f"{name} noise"))
    records: list[Made] = []
    kept_s, free_s = float("-inf"), 0.0
    for number in range(1, int(hours * 3600 / every_s)):
        elapsed_s = float(number * every_s)
        at = MIDNIGHT + timedelta(seconds=elapsed_s)
        signal = noise.blur(vehicle.step(at), every_s)
        if not (signal.attributes["ignition"] or signal.event_code or elapsed_s - kept_s >= PARKED_S):
            continue
        kept_s = elapsed_s
        gap = ahead.gap(elapsed_s)
        leaves_s = max(elapsed_s if gap is None else gap.end_s, free_s)
        free_s = leaves_s + BETWEEN_ARRIVALS_S
        records.append(Made(at, signal, MIDNIGHT + timedelta(seconds=leaves_s)))
    return records


def backlogs(number: str, records: list[Made]) -> list[Planted]:
    """Labels for the times without network that a sound day has."""
    found: list[Planted] = []
    run: list[Made] = []
    for made in [*records, None]:
        if made is not None and (made.leaves_at - made.at).total_seconds() > IN_TIME_S:
            run.append(made)
        elif run:
            begin, end = run[0].at, run[-1].at
            found.append(
                Planted(
                    device_number=number, kind="backlog", begins_at=begin, ends_at=end, happened_from=begin,
                    happened_to=end, records=tuple(one.at for one in run),
                    magnitude=(end - begin).total_seconds() / 60, look_alike=True, above=False,
                )
            )  # fmt: skip
            run = []
    return found
