"""GPX 1.0 and 1.1: the points of all tracks, in the order of the file.

Read as a stream, so each point knows its line, and XML that breaks off costs only what comes after. Of a point are
taken: place, `time`, `ele`, `speed` (m/s), `course`, `sat`, `fix`, `hdop`, `pdop`, also where extensions name them so.
A document type is refused: GPX has none, and its entities can blow up.

Source: topografix.com, GPX 1.1 schema, wptType.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from xml.parsers import expat

from signalkeep.errors import CallerError
from signalkeep.rules.reading import Reading
from signalkeep.tracks.contract import BadValueError, Recording, content_of, number, seconds_of

POINT: Final = "trkpt"
KEPT: Final = frozenset({"time", "ele", "speed", "course", "sat", "fix", "hdop", "pdop"})
TEXT_CHARS_MAX: Final = 200  # of one value
METRES_PER_S_KMH: Final = 3.6


def readings(path: Path) -> Recording:
    """The points of a file. Raises CallerError for one that cannot be read at all."""
    return of_bytes(content_of(path), path.name)


def of_bytes(data: bytes, name: str = "the file") -> Recording:
    """The same of its content."""
    parser = _Parser(name)
    parser.run(data)
    return parser.recording


class _Parser:
    """Follows the elements of one file."""

    def __init__(self, name: str) -> None:
        self.recording = Recording()
        self._name = name
        self._expat = expat.ParserCreate()
        self._expat.buffer_text = True
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._text
        self._expat.StartDoctypeDeclHandler = self._doctype
        self._line = 0  # of the point that is being read; 0: none is
        self._place: dict[str, str] = {}
        self._values: dict[str, str] = {}
        self._within = ""  # the element whose text is wanted

    def run(self, data: bytes) -> None:
        try:
            self._expat.Parse(data, True)
        except expat.ExpatError as error:
            self.recording.skip(error.lineno, f"{expat.ErrorString(error.code)}: what follows was not read")

    def _doctype(self, *_: Any) -> None:
        raise CallerError(
            f"{self._name}: declares a document type, which GPX does not need",
            hint="Take the <!DOCTYPE ...> out of it.",
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition(":")[2]
        if local == POINT:
            self._line = self._expat.CurrentLineNumber
            self._place, self._values = attributes, {}
        self._within = local if self._line and local in KEPT else ""

    def _text(self, text: str) -> None:
        if self._within:
            self._values[self._within] = (self._values.get(self._within, "") + text)[:TEXT_CHARS_MAX]

    def _end(self, name: str) -> None:
        self._within = ""
        if self._line and name.rpartition(":")[2] == POINT:
            line, self._line = self._line, 0
            try:
                reading = self._reading()
            except BadValueError as error:
                self.recording.skip(line, str(error))
            else:
                self.recording.add(line, reading)

    def _reading(self) -> Reading:
        values = self._values
        latitude, longitude = number("lat", self._place.get("lat")), number("lon", self._place.get("lon"))
        if latitude is None or longitude is None:
            raise BadValueError("a point without lat and lon")
        time_s = seconds_of(values.get("time"))
        speed_ms = number("speed", values.get("speed"))
        satellites = number("sat", values.get("sat"))
        precision = {name: number(name, values.get(name)) for name in ("hdop", "pdop")}
        return Reading(
            time_s=time_s,
            wire_s=time_s,
            received_s=self.recording.arrived_s(time_s),
            fix_valid=values.get("fix", "").strip() != "none",
            latitude=latitude,
            longitude=longitude,
            altitude_m=number("ele", values.get("ele")),
            speed_kmh=None if speed_ms is None else speed_ms * METRES_PER_S_KMH,
            course_deg=number("course", values.get("course")),
            satellites=None if satellites is None else round(satellites),
            attributes={name: value for name, value in precision.items() if value is not None},
            protocol="gpx",
        )
