"""The NMEA reader against gpsd: `python -m tests.quality.answers DIR` compares it with the answers beside gpsd's logs.

Each NAME.log has a NAME.log.chk with what gpsd makes of it. Compared are places at the same times, leaving aside whole
turns of the week counter, which gpsd corrects by the date on which it was built.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from signalkeep.tracks import nmea

TURN_S: Final = 1024 * 7 * 86_400
NEAR_DEG: Final = 2e-5
READINGS_MIN: Final = 5

Places: TypeAlias = dict[float, tuple[float, float]]
"""By the time within a turn of the week counter."""


class Agreement(NamedTuple):
    """How many places gpsd gives for a log, and how many of them the reader gives too."""

    name: str
    expected: int
    same: int


def expected(path: Path) -> Places:
    """What gpsd says."""
    found: Places = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.startswith("{"):
            continue
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if answer.get("class") == "TPV" and answer.get("mode", 0) >= 2 and {"time", "lat", "lon"} <= answer.keys():
            found[within_turn(datetime.fromisoformat(answer["time"]).timestamp())] = (answer["lat"], answer["lon"])
    return found


def given(path: Path) -> Places:
    """What the reader says; nothing for logs in other languages."""
    readings = nmea.readings(path).readings
    if len(readings) < READINGS_MIN:
        return {}
    return {
        within_turn(one.time_s): (one.latitude, one.longitude)
        for one in readings
        if one.fix_valid and one.time_s is not None and one.latitude is not None and one.longitude is not None
    }


def within_turn(time_s: float) -> float:
    return round(time_s % TURN_S, 2)


def compared(folder: Path) -> list[Agreement]:
    """Every log that is NMEA."""
    found = []
    for path in sorted(folder.rglob("*.log")):
        answers = path.with_name(f"{path.name}.chk")
        ours = given(path)
        if ours and answers.exists():
            theirs = expected(answers)
            same = sum(
                all(abs(ours[time_s][axis] - place[axis]) <= NEAR_DEG for axis in (0, 1))
                for time_s, place in theirs.items()
                if time_s in ours
            )
            found.append(Agreement(path.name, len(theirs), same))
    return found


def main() -> None:
    found = compared(Path(sys.argv[1]))
    for one in found:
        if one.same < one.expected:
            print(f"{one.name}: {one.same} of {one.expected}")
    print(f"{len(found)} logs: {sum(one.same for one in found)} of {sum(one.expected for one in found)} places agree")


if __name__ == "__main__":
    main()
