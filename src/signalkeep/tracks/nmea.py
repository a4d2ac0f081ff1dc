"""NMEA 0183 as receivers write it: RMC, GGA, GSA and ZDA of any talker (GP, GN, GL, GA, ...), put together.

    $GPRMC   time, fix, place, speed, course, date (two digits of the year)
    $GPGGA   time, fix, place, satellites, HDOP, altitude
    $GPGSA   kind of fix, PDOP and HDOP
    $GPZDA   time and date with the whole year

All sentences with one time of day are one reading; a sentence without a time belongs to the one before. A date holds
until another is said; the time of day going back by more than half a day is midnight. Sentences of other kinds and
comments are passed over; a sentence whose checksum is wrong, missing, or whose fields make no sense is skipped and
counted. Source: NMEA 0183; field by field as in gpsd's page on it.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import Any, Final

from signalkeep.rules.reading import Reading
from signalkeep.tracks.contract import CELL_CHARS_MAX, BadValueError, Recording, content_of, number

SENTENCE: Final = re.compile(rb"\$([A-Z]{2})([A-Z]{3}),([^*\r\n]*)\*([0-9A-Fa-f]{2})\s*\Z")
TIME: Final = re.compile(r"(\d\d)(\d\d)(\d\d(?:\.\d*)?)")
DATE: Final = re.compile(r"(\d\d)(\d\d)(\d\d)")
ANGLE: Final = re.compile(r"(\d{1,3})(\d\d(?:\.\d*)?)")
FIELDS_MIN: Final = {b"RMC": 9, b"GGA": 9, b"GSA": 16, b"ZDA": 4}  # of the kinds that are read
KNOT_KMH: Final = 1.852
CENTURY_FROM: Final = 80  # two digits of a year from here on are of the last century: there was no GPS before 1980
HALF_DAY_S: Final = 43_200.0
ESTIMATED: Final = {"E": "estimated", "M": "manual", "S": "simulated"}  # the mode of RMC
ESTIMATED_QUALITY: Final = {"6": "estimated", "7": "manual", "8": "simulated"}  # the quality of GGA


def readings(path: Path) -> Recording:
    """The readings of a file. Raises CallerError for one that cannot be read at all."""
    return of_bytes(content_of(path))


def of_bytes(data: bytes, name: str = "the file") -> Recording:
    """The same of its content."""
    del name
    reader = _Reader()
    for line, text in enumerate(data.split(b"\n"), 1):
        start = text.find(b"$")
        if start < 0 or text.lstrip().startswith((b"#", b"!")):
            if text.strip() and not text.lstrip().startswith((b"#", b"!")):
                reader.recording.skip(line, "no sentence")
            continue
        try:
            reader.sentence(line, text[start:])
        except BadValueError as error:
            reader.recording.skip(line, str(error))
    reader.flush()
    return reader.recording


class _Reader:
    """Collects what belongs to one moment."""

    def __init__(self) -> None:
        self.recording = Recording()
        self._line = 0  # of the first sentence of the moment
        self._date: date | None = None
        self._of_day_s: float | None = None
        self._fields: dict[str, Any] = {}
        self._attributes: dict[str, Any] = {}

    def sentence(self, line: int, text: bytes) -> None:
        """Raises BadValueError for one that cannot be used."""
        found = SENTENCE.match(text)
        if found is None:
            if text[3:6] in FIELDS_MIN:
                raise BadValueError("no checksum, or broken off")
            return
        _, kind, body, checksum = found.groups()
        if kind not in FIELDS_MIN:
            return
        computed = reduce(lambda total, byte: total ^ byte, text[1 : text.index(b"*")])
        if computed != int(checksum, 16):
            raise BadValueError(f"the checksum is {checksum.decode().upper()}, of what came {computed:02X}")
        fields = body.decode("ascii", errors="replace").split(",")
        if len(fields) < FIELDS_MIN[kind]:
            raise BadValueError(f"{kind.decode()} with {len(fields)} fields")
        match kind:
            case b"RMC":
                self._rmc(line, fields)
            case b"GGA":
                self._gga(line, fields)
            case b"GSA":
                self._gsa(fields)
            case _:
                self._zda(line, fields)

    def flush(self) -> None:
        """The moment is over: a reading, if anything was said of a position."""
        fields, attributes = self._fields, self._attributes
        self._fields, self._attributes = {}, {}
        if "fix_valid" not in fields:
            return
        time_s = self._time_s()
        latitude = fields.get("latitude")
        fields["fix_valid"] = fields["fix_valid"] and latitude is not None
        self.recording.add(
            self._line,
            Reading(
                time_s=time_s, wire_s=time_s, received_s=self.recording.arrived_s(time_s), protocol="nmea",
                attributes=attributes, **fields,
            ),
        )  # fmt: skip

    def _time_s(self) -> float | None:
        if self._date is None or self._of_day_s is None:
            return None
        midnight = datetime(self._date.year, self._date.month, self._date.day, tzinfo=UTC)
        return midnight.timestamp() + self._of_day_s

    def _rmc(self, line: int, fields: list[str]) -> None:
        of_day_s, status = _of_day_s(fields[0]), fields[1]
        place = _place(fields[2:6])
        speed_knots, course_deg = number("speed", fields[6]), number("course", fields[7])
        day = _date(fields[8])
        self._moment(line, of_day_s)
        if day is not None and not _may_be_same(day, self._date):
            self._date = day
        self._say(fix_valid=status == "A", **place)
        if speed_knots is not None:
            self._fields["speed_kmh"] = speed_knots * KNOT_KMH
        if course_deg is not None:
            self._fields["course_deg"] = course_deg
        if len(fields) > 11 and fields[11] in ESTIMATED:
            self._attributes["fix_mode"] = ESTIMATED[fields[11]]

    def _gga(self, line: int, fields: list[str]) -> None:
        of_day_s, place, quality = _of_day_s(fields[0]), _place(fields[1:5]), fields[5]
        satellites, hdop = number("satellites", fields[6]), number("HDOP", fields[7])
        altitude_m = number("altitude", fields[8])
        self._moment(line, of_day_s)
        self._say(fix_valid=quality not in {"", "0"}, **place)
        if satellites is not None:
            self._fields["satellites"] = round(satellites)
        if altitude_m is not None:
            self._fields["altitude_m"] = altitude_m
        if hdop is not None:
            self._attributes.setdefault("hdop", hdop)
        if quality in ESTIMATED_QUALITY:
            self._attributes["fix_mode"] = ESTIMATED_QUALITY[quality]

    def _gsa(self, fields: list[str]) -> None:
        """The last three but for an id of the system are PDOP, HDOP, VDOP, always at the same place."""
        pdop, hdop = number("PDOP", fields[14]), number("HDOP", fields[15])
        if pdop is not None:
            self._attributes["pdop"] = pdop
        if hdop is not None:
            self._attributes["hdop"] = hdop

    def _zda(self, line: int, fields: list[str]) -> None:
        of_day_s = _of_day_s(fields[0])
        if not all(fields[1:4]):
            return
        try:
            day = date(int(fields[3]), int(fields[2]), int(fields[1]))
        except ValueError as error:
            raise BadValueError(f"the date is {'-'.join(fields[1:4])[:CELL_CHARS_MAX]!r}") from error
        self._moment(line, of_day_s)
        self._date = day

    def _moment(self, line: int, of_day_s: float | None) -> None:
        """A sentence with another time of day begins another reading."""
        if of_day_s is None or of_day_s != self._of_day_s:
            self.flush()
            self._line = line
            if of_day_s is not None and self._of_day_s is not None and self._of_day_s - of_day_s > HALF_DAY_S:
                self._date = self._next_day()
            self._of_day_s = of_day_s
        elif not self._fields:
            self._line = line

    def _next_day(self) -> date | None:
        if self._date is None or self._date == date.max:
            return self._date
        return self._date + timedelta(days=1)

    def _say(self, *, fix_valid: bool, **place: float) -> None:
        """If two sentences of a moment disagree on the fix, there is none."""
        self._fields["fix_valid"] = self._fields.get("fix_valid", True) and fix_valid
        self._fields |= place


def _of_day_s(text: str) -> float | None:
    """hhmmss[.s]"""
    if not text:
        return None
    found = TIME.fullmatch(text)
    if found is None or int(found[1]) > 23 or int(found[2]) > 59 or float(found[3]) >= 61:
        raise BadValueError(f"the time of day is {text[:CELL_CHARS_MAX]!r}")
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])


def _date(text: str) -> date | None:
    """ddmmyy"""
    if not text:
        return None
    found = DATE.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        year = int(found[3])
        return date(year + (1900 if year >= CENTURY_FROM else 2000), int(found[2]), int(found[1]))
    except ValueError as error:
        raise BadValueError(f"the date is {text[:CELL_CHARS_MAX]!r}") from error


def _may_be_same(one: date, other: date | None) -> bool:
    """But for the century, which two digits of a year do not say and another sentence may have named."""
    return other is not None and (one.year % 100, one.month, one.day) == (other.year % 100, other.month, other.day)


def _place(fields: list[str]) -> dict[str, float]:
    """Latitude ddmm.mm, N or S, longitude dddmm.mm, E or W; nothing where these are empty."""
    latitude, north_south, longitude, east_west = fields
    if not latitude or not longitude:
        return {}
    return {"latitude": _degrees(latitude, north_south, "NS"), "longitude": _degrees(longitude, east_west, "EW")}


def _degrees(text: str, side: str, sides: str) -> float:
    found = ANGLE.fullmatch(text)
    if found is None or side not in {*sides} or float(found[2]) >= 60:
        raise BadValueError(f"the angle is {f'{text},{side}'[:CELL_CHARS_MAX]!r}")
    degrees = int(found[1]) + float(found[2]) / 60
    return round(degrees if side == sides[0] else -degrees, 7)
