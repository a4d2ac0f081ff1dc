"""CSV with a header: one reading a row.

    time,latitude,longitude[,altitude_m][,speed_kmh][,course_deg][,satellites][,fix_valid][,event_code][,received_at]
    2026-05-01T08:00:00Z,52.52,13.405,34,48,90,9,true,,2026-05-01T08:00:02Z

Columns in any order; `device_time` may stand for `time`. Any other column is an attribute under its own name, as a
number, true or false, or text (docs/attributes.md has the names that rules know); an empty cell is none. Times are ISO
8601, UTC where they have no zone.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Final

from signalkeep import limits
from signalkeep.errors import CallerError
from signalkeep.rules.reading import Reading
from signalkeep.tracks.contract import CELL_CHARS_MAX, BadValueError, Recording, content_of, number, seconds_of

NEEDED: Final = ("time", "latitude", "longitude")
COLUMNS: Final = (
    *NEEDED, "altitude_m", "speed_kmh", "course_deg", "satellites", "fix_valid", "event_code", "received_at",
)  # fmt: skip
SAME: Final = {"device_time": "time"}
YES: Final = frozenset({"true", "t", "yes", "1"})
NO: Final = frozenset({"false", "f", "no", "0"})
WORDS: Final = {"true": True, "false": False}


def readings(path: Path) -> Recording:
    """The rows of a file. Raises CallerError for one that cannot be read, or whose header lacks what is needed."""
    return of_bytes(content_of(path), path.name)


def of_bytes(data: bytes, name: str = "the file") -> Recording:
    """The same of its content."""
    recording = Recording()
    rows = csv.reader(data.decode("utf-8-sig", errors="replace").splitlines())
    header = _header(rows, name)
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            recording.skip(rows.line_num, str(error))
            continue
        if row is None:
            return recording
        if not any(cell.strip() for cell in row):
            continue
        try:
            reading = _reading(header, row, recording)
        except BadValueError as error:
            recording.skip(rows.line_num, str(error))
        else:
            recording.add(rows.line_num, reading)


def _header(rows: Any, name: str) -> list[str]:
    try:
        header = [SAME.get(cell.strip(), cell.strip()) for cell in next(rows, [])]
    except csv.Error as error:
        raise CallerError(f"{name}, line 1: {error}") from error
    missing = [column for column in NEEDED if column not in header]
    twice = sorted({column for column in header if header.count(column) > 1})
    if missing or twice or len(header) > limits.ATTRIBUTES_PER_SIGNAL_MAX:
        what = f"no column {', '.join(missing)}" if missing else f"columns twice: {', '.join(twice)[:100]}"
        raise CallerError(
            f"{name}, line 1: {what if missing or twice else 'too many columns'}",
            hint=f"The first line names the columns: {','.join(NEEDED)}, and if you have them "
            f"{','.join(COLUMNS[len(NEEDED) :])}; others become attributes.",
        )
    return header


def _reading(header: list[str], row: list[str], recording: Recording) -> Reading:
    if len(row) != len(header):
        raise BadValueError(f"{len(row)} cells under {len(header)} columns")
    cells = dict(zip(header, (cell.strip() for cell in row), strict=True))
    time_s = seconds_of(cells["time"])
    received_s = seconds_of(cells.get("received_at"))
    latitude, longitude = number("latitude", cells["latitude"]), number("longitude", cells["longitude"])
    satellites = number("satellites", cells.get("satellites"))
    valid = cells.get("fix_valid", "").lower()
    if valid and valid not in YES | NO:
        raise BadValueError(f"fix_valid is {valid[:CELL_CHARS_MAX]!r}")
    has_place = latitude is not None and longitude is not None
    return Reading(
        time_s=time_s,
        wire_s=time_s,
        received_s=recording.arrived_s(time_s) if received_s is None else received_s,
        fix_valid=valid in YES if valid else has_place,
        latitude=latitude,
        longitude=longitude,
        altitude_m=number("altitude_m", cells.get("altitude_m")),
        speed_kmh=number("speed_kmh", cells.get("speed_kmh")),
        course_deg=number("course_deg", cells.get("course_deg")),
        satellites=None if satellites is None else round(satellites),
        event_code=cells.get("event_code") or None,
        attributes={name: _value(cell) for name, cell in cells.items() if cell and name not in COLUMNS},
        protocol="csv",
    )


def _value(cell: str) -> Any:
    """A number where it is one, true or false, else the text."""
    if cell.lower() in WORDS:
        return WORDS[cell.lower()]
    digits = cell.removeprefix("-")
    if digits.isdecimal() and digits.isascii() and (digits == "0" or not digits.startswith("0")) and len(digits) < 16:
        return int(cell)
    try:
        return number("", cell) if not digits.isdecimal() else cell  # a long number is a name, like that of a SIM
    except BadValueError:
        return cell
