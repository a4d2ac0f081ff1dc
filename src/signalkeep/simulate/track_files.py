"""Recorded tracks from files: GPX, or CSV with a header.

    time,latitude,longitude[,altitude_m][,speed_kmh][,course_deg]       columns in any order
    2026-05-01T08:00:00Z,52.52,13.405,34,48,90

Promises: a file that cannot be driven along is refused as a whole, with its line and what to do; nothing in it is left
out silently. Bounded: file, points. XML that declares a document type is refused unread, since entities can blow up.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

import gpxpy
import gpxpy.gpx

from signalkeep import limits
from signalkeep.errors import CallerError
from signalkeep.simulate.track import Track, TrackPoint

NEEDED: Final = ("time", "latitude", "longitude")
OPTIONAL: Final = ("altitude_m", "speed_kmh", "course_deg")
BOUNDS: Final = {
    "latitude": (-90.0, 90.0),
    "longitude": (-180.0, 180.0),
    "altitude_m": (-1000.0, 30_000.0),
    "speed_kmh": (0.0, 1000.0),
    "course_deg": (0.0, 360.0),
}
POINT: Final = re.compile(r"<(?:\w+:)?trkpt\b")
HEADER_HINT: Final = f"The first line names the columns: {','.join(NEEDED)}, and if you have them {','.join(OPTIONAL)}."
TIMES_HINT: Final = "Times look like 2026-05-01T08:00:00Z, and each is later than the one before it."


class Found(NamedTuple):
    """A point as the file has it."""

    line: int
    time: datetime
    point: TrackPoint  # its time is not yet filled in


def read_track(path: Path) -> Track:
    """The track of a file. Raises CallerError."""
    try:
        if path.stat().st_size > limits.TRACK_BYTES_MAX:
            raise CallerError(
                f"{path}: larger than {limits.TRACK_BYTES_MAX // limits.MIB} MiB", hint="Cut the track into parts."
            )
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise CallerError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CallerError(f"{path}: not UTF-8 text at byte {error.start}", hint="Save it as UTF-8.") from error
    readers = {".gpx": gpx_points, ".csv": csv_points}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise CallerError(f"{path}: neither .gpx nor .csv", hint="Name the file after what it is.")
    return Track(list(timed(path, reader(path, text))))


def timed(path: Path, found: Iterator[Found]) -> Iterator[TrackPoint]:
    """The points with seconds since the first; in order, enough, not too many."""
    first: datetime | None = None
    before: Found | None = None
    count = 0
    for one in found:
        count += 1
        if count > limits.TRACK_POINTS_MAX:
            refuse(path, one.line, f"more than {limits.TRACK_POINTS_MAX} points", "Thin the track out, or cut it.")
        if before is not None and one.time <= before.time:
            refuse(path, one.line, f"{one.time.isoformat()} is not later than {before.time.isoformat()}", TIMES_HINT)
        first, before = first or one.time, one
        yield one.point._replace(at_s=(one.time - first).total_seconds())
    if count < 2:
        raise CallerError(f"{path}: {count} points with a time", hint="A track needs two at least.")


def csv_points(path: Path, text: str) -> Iterator[Found]:
    """The rows of a CSV file."""
    rows = csv.reader(text.splitlines(), strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        unknown = [name for name in header if name not in (*NEEDED, *OPTIONAL)]
        missing = [name for name in NEEDED if name not in header]
        if unknown or missing or len(set(header)) < len(header):
            what = f"unknown columns {unknown}" if unknown else f"missing {missing}" if missing else "a column twice"
            refuse(path, 1, what, HEADER_HINT)
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            line = rows.line_num
            if len(row) != len(header):
                refuse(path, line, f"{len(row)} cells under {len(header)} columns", "Give each row all cells.")
            cells = dict(zip(header, (cell.strip() for cell in row), strict=True))
            numbers = {name: number(path, line, name, cells.get(name, "")) for name in BOUNDS}
            yield Found(line, time_of(path, line, cells["time"]), point_of(path, line, numbers))
    except csv.Error as error:
        refuse(path, rows.line_num, str(error), "Cells are separated by commas.")


def gpx_points(path: Path, text: str) -> Iterator[Found]:
    """All points of all tracks in the order of the file."""
    if "<!doctype" in text.lower() or "<!entity" in text.lower():
        raise CallerError(
            f"{path}: declares a document type, which GPX does not need", hint="Take the <!DOCTYPE ...> out of it."
        )
    try:
        gpx = gpxpy.parse(text)
    except gpxpy.gpx.GPXException as error:  # the message has line and column where the XML is at fault
        raise CallerError(f"{path}: {error}", hint="Is it GPX, and whole?") from error
    lines = point_lines(text)
    for point in (point for track in gpx.tracks for segment in track.segments for point in segment.points):
        line = next(lines, 0)
        if point.time is None:
            refuse(path, line, "a point without a time", "Export the track with times, not a route.")
        speed_kmh = None if point.speed is None else point.speed * 3.6
        numbers = {
            "latitude": point.latitude,
            "longitude": point.longitude,
            "altitude_m": point.elevation,
            "speed_kmh": speed_kmh,
            "course_deg": point.course,
        }
        yield Found(line, point.time.astimezone(UTC), point_of(path, line, numbers))


def point_lines(text: str) -> Iterator[int]:
    """The lines where points begin, which the parser does not keep."""
    line, at = 1, 0
    for found in POINT.finditer(text):
        line += text.count("\n", at, found.start())
        at = found.start()
        yield line


def point_of(path: Path, line: int, numbers: dict[str, float | None]) -> TrackPoint:
    """A point with values within bounds; altitude 0 where there is none."""
    for name, value in numbers.items():
        least, most = BOUNDS[name]
        if value is None and name in NEEDED:
            refuse(path, line, f"no {name}", HEADER_HINT)
        if value is not None and not least <= value <= most:
            refuse(path, line, f"{name} is {value:g}", f"It must lie between {least:g} and {most:g}.")
    return TrackPoint(
        at_s=0.0,
        latitude=numbers["latitude"] or 0.0,
        longitude=numbers["longitude"] or 0.0,
        altitude_m=numbers["altitude_m"] or 0.0,
        speed_kmh=numbers["speed_kmh"],
        course_deg=numbers["course_deg"],
    )


def number(path: Path, line: int, name: str, cell: str) -> float | None:
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        refuse(path, line, f"{name} is {cell[:40]!r}", "Write numbers with a decimal point.")
    return value


def time_of(path: Path, line: int, cell: str) -> datetime:
    """ISO 8601; without a zone it is UTC."""
    try:
        found = datetime.fromisoformat(cell)
    except ValueError:
        refuse(path, line, f"the time is {cell[:40]!r}", TIMES_HINT)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def refuse(path: Path, line: int, what: str, hint: str) -> NoReturn:
    raise CallerError(f"{path}, line {line}: {what}", hint=hint)
