"""What reading a file of any format gives: readings with their lines, and what could not be read.

A recording is evidence, so a reader is as tolerant as it can be: a line that makes no sense is skipped and counted
under its number, what stands around it is kept, and values that no vehicle has are left for rules to find. (The
simulator, which must drive along a track, refuses such files: `simulate.track_files`.) Bounded: bytes, readings, and
how many skipped lines are remembered. The arrival of a reading is the time it says, unless the file knows better.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from signalkeep import limits
from signalkeep.errors import CallerError
from signalkeep.rules.reading import Reading

CELL_CHARS_MAX: Final = 40  # of a bad value, shown to people


class Skipped(NamedTuple):
    """A line that could not be read, and why."""

    line: int
    why: str


class Recording:
    """What a file holds. `lines[k]` is where `readings[k]` begins; lines count from 1."""

    __slots__ = ("lines", "readings", "skipped", "skipped_count")

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.lines: list[int] = []
        self.skipped: list[Skipped] = []  # the first of them
        self.skipped_count = 0

    def add(self, line: int, reading: Reading) -> None:
        """Raises CallerError above the limit."""
        if len(self.readings) >= limits.TRACK_POINTS_MAX:
            raise CallerError(
                f"line {line}: more than {limits.TRACK_POINTS_MAX} points", hint="Thin the track out, or cut it."
            )
        self.readings.append(reading)
        self.lines.append(line)

    def skip(self, line: int, why: str) -> None:
        """This line says nothing that can be used."""
        self.skipped_count += 1
        if len(self.skipped) < limits.TRACK_SKIPPED_LINES_MAX:
            self.skipped.append(Skipped(line, why))

    def arrived_s(self, time_s: float | None) -> float:
        """When a reading arrived, where the file does not say: at its own time, or with the one before."""
        if time_s is not None:
            return time_s
        return self.readings[-1].received_s if self.readings else 0.0


class BadValueError(ValueError):
    """A text that is not what its place asks for; the message is for people."""


def number(name: str, text: str | None) -> float | None:
    """A finite number, None for an empty text. Raises BadValueError."""
    if text is None or not text.strip():
        return None
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise BadValueError(f"{name} is {text.strip()[:CELL_CHARS_MAX]!r}")
    return found


def seconds_of(text: str | None) -> float | None:
    """Seconds since 1970 of a time in ISO 8601, UTC where it has no zone. Raises BadValueError."""
    if text is None or not text.strip():
        return None
    try:
        found = datetime.fromisoformat(text.strip())
        return (found.replace(tzinfo=UTC) if found.tzinfo is None else found).timestamp()
    except (ValueError, OverflowError) as error:
        raise BadValueError(f"the time is {text.strip()[:CELL_CHARS_MAX]!r}") from error


def content_of(path: Path) -> bytes:
    """The whole file. Raises CallerError for one that is too large or cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(limits.TRACK_BYTES_MAX + 1)
    except OSError as error:
        raise CallerError(
            f"{path}: {error.strerror}", hint="Give a file with a recorded track that this user may read."
        ) from error
    if len(data) > limits.TRACK_BYTES_MAX:
        raise CallerError(
            f"{path}: larger than {limits.TRACK_BYTES_MAX // limits.MIB} MiB", hint="Cut the track into parts."
        )
    return data
