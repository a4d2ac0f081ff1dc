"""The quick look at ingest: is everything of a reading in ranges in which rules have nothing to find?

Most signals are sound, and each rule that need not be asked is time for others. A rule may say with `quiet` in which
ranges of which values it cannot hit. A screen holds what all these rules say together; a reading that passes it is
spared them. It never decides anything else: what does not pass is asked every rule, and a sweep, which has the time
and counts what could be looked at, always does. Pure.

Names of values: fields of a reading, its attributes, and
    delay_s        from happening to arrival         wire_delay_s   the same of the time as sent
    off_equator    degrees, without the sign         implied_kmh    from the last good point; step_m likewise
Besides, a reading passes only with a time, in order, with a fix on the globe, and with an event that is known, if any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from signalkeep.rules.reading import Reading, Recent

INF: Final = float("inf")
Range: TypeAlias = tuple[float, float]
Ranges: TypeAlias = Mapping[str, Range | frozenset[float]]
"""Least and most, both included, by name of the value; of attributes that are true or false, these values."""

FIELDS: Final = (
    "time_s", "delay_s", "wire_delay_s", "off_equator", "satellites", "altitude_m", "course_deg", "speed_kmh",
    "implied_kmh", "step_m",
)  # fmt: skip
NEVER: Final[Range] = (INF, -INF)  # any value of it is worth a look


class Screen:
    """The ranges of many rules, and only of those attributes that a reading has."""

    __slots__ = (
        "_altitude", "_attributes", "_choices", "_course", "_delay", "_equator", "_implied", "_satellites", "_speed",
        "_step", "_time", "_wire",
    )  # fmt: skip

    def __init__(self, ranges: Iterable[Ranges], names: Iterable[str]) -> None:
        merged: dict[str, Range] = {}
        choices: dict[str, frozenset[float]] = {}
        for one in ranges:
            for name, sound in one.items():
                if isinstance(sound, frozenset):
                    choices[name] = choices.get(name, sound) & sound
                else:
                    before = merged.get(name, (-INF, INF))
                    merged[name] = (max(before[0], sound[0]), min(before[1], sound[1]))
        fields = {name: merged.pop(name, (-INF, INF)) for name in FIELDS}
        self._time, self._delay, self._wire = fields["time_s"], fields["delay_s"], fields["wire_delay_s"]
        self._equator, self._satellites = fields["off_equator"], fields["satellites"]
        self._altitude, self._course, self._speed = fields["altitude_m"], fields["course_deg"], fields["speed_kmh"]
        self._implied, self._step = fields["implied_kmh"], fields["step_m"]
        self._attributes = tuple((name, *merged[name]) for name in names if name in merged)
        self._choices = tuple((name, choices[name]) for name in names if name in choices)

    def passes(self, reading: Reading) -> bool:
        """Whether what the reading shows by itself is in all ranges."""
        time_s, wire_s, received_s = reading.time_s, reading.wire_s, reading.received_s
        if time_s is None or wire_s is None or reading.behind_s or reading.event_known is False:
            return False
        if not reading.fix_valid or not reading.on_globe:
            return False
        latitude = reading.latitude
        assert latitude is not None
        altitude_m, course_deg = reading.altitude_m, reading.course_deg
        satellites, speed_kmh = reading.satellites, reading.speed_kmh
        if not (
            self._time[0] <= time_s <= self._time[1]
            and self._delay[0] <= received_s - time_s <= self._delay[1]
            and self._wire[0] <= received_s - wire_s <= self._wire[1]
            and self._equator[0] <= abs(latitude) <= self._equator[1]
            and (altitude_m is None or self._altitude[0] <= altitude_m <= self._altitude[1])
            and (course_deg is None or self._course[0] <= course_deg <= self._course[1])
            and (satellites is None or self._satellites[0] <= satellites <= self._satellites[1])
            and (speed_kmh is None or self._speed[0] <= speed_kmh <= self._speed[1])
        ):
            return False
        attributes = reading.attributes
        try:
            for name, least, most in self._attributes:
                value = attributes[name]
                if not least <= value <= most or type(value) is bool:
                    return False
            for name, sound in self._choices:
                if attributes[name] not in sound:
                    return False
        except TypeError:  # a text, a list, nothing: worth a look
            return False
        return True

    def passes_on_the_way(self, recent: Recent) -> bool:
        """Whether the way from the last good point is in all ranges, and nothing is under way that must end."""
        if recent.same_time or recent.runs is not None:
            return False
        implied_kmh, step_m = recent.implied_kmh, recent.step_m
        if implied_kmh is None or step_m is None:
            return False
        return implied_kmh <= self._implied[1] and step_m <= self._step[1]
