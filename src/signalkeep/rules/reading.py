"""What rules see: a signal as plain numbers, and the little that is remembered of its device. Values, pure.

Times are seconds since 1970 (UTC) as floats, so that rules subtract instead of juggling datetimes. A device's memory
is small on purpose: an ingest process holds one for every device that it has heard of.
"""

from __future__ import annotations

from datetime import datetime
from math import inf
from typing import Any, Final

import msgspec

from signalkeep.model import Signal
from signalkeep.rules.geo import distance_m

IN_TIME_S: Final = 60.0  # what arrives this soon shows that the device is in contact and has nothing to catch up with
BURST_S: Final = 60.0  # late readings that follow each other as closely are one backlog
NUMBER_MAX: Final = 1e15  # beyond it numbers mean nothing, and integers may not fit into a float


def number_of(value: Any) -> float | None:
    """A value that can be reckoned with; None for anything else, also for NaN and what is larger than any measure."""
    kind = type(value)
    return value if (kind is float or kind is int) and -NUMBER_MAX < value < NUMBER_MAX else None


class Reading(msgspec.Struct, kw_only=True, gc=False):
    """A signal as rules see it. Names and units as in `model.Signal`."""

    time_s: float | None  # device_time; None: no usable clock
    received_s: float
    wire_s: float | None = None  # as sent; differs from time_s only where a protocol sends local time
    fix_valid: bool = False
    latitude: float | None = None
    longitude: float | None = None
    altitude_m: float | None = None
    speed_kmh: float | None = None
    course_deg: float | None = None
    satellites: int | None = None
    event_code: str | None = None
    attributes: dict[str, Any] = msgspec.field(default_factory=dict)
    protocol: str = ""
    event_known: bool | None = None  # whether table event_format has the code; None: no code, or not looked up
    behind_s: float = 0.0  # older by so much than what had arrived before it; 0: in order
    withheld_s: float | None = (
        None  # so long after it happened the device was in contact, see `Contact`; None: not known
    )
    on_globe: bool = False  # there is a position, and it is one; filled in by the judge

    @classmethod
    def of(cls, signal: Signal, device_time: datetime | None, received_s: float, protocol: str) -> Reading:
        """From a decoded record; `device_time` as it is stored."""
        return cls(
            time_s=None if device_time is None else device_time.timestamp(),
            received_s=received_s,
            wire_s=None if signal.wire_time is None else signal.wire_time.timestamp(),
            fix_valid=signal.fix_valid,
            latitude=signal.latitude,
            longitude=signal.longitude,
            altitude_m=signal.altitude_m,
            speed_kmh=signal.speed_kmh,
            course_deg=signal.course_deg,
            satellites=signal.satellites,
            event_code=signal.event_code,
            attributes=signal.attributes,
            protocol=protocol,
        )

    @property
    def delay_s(self) -> float | None:
        """From happening to arrival; negative: a clock ahead of ours."""
        return None if self.time_s is None else self.received_s - self.time_s

    def number(self, name: str) -> float | None:
        """An attribute that is a number; None for anything else (true and false are none, nor is what is endless)."""
        return number_of(self.attributes.get(name))

    def truth(self, name: str) -> bool | None:
        """An attribute that is true or false, also as 1 or 0."""
        value = self.attributes.get(name)
        return bool(value) if type(value) is bool or (type(value) is int and value in (0, 1)) else None


class Point(msgspec.Struct, gc=False):
    """Where and when a device was."""

    time_s: float
    latitude: float
    longitude: float
    speed_kmh: float | None

    def distance_m(self, reading: Reading) -> float:
        """To the position of a reading that has one."""
        assert reading.latitude is not None
        assert reading.longitude is not None
        return distance_m(self.latitude, self.longitude, reading.latitude, reading.longitude)


class Contact(msgspec.Struct, gc=False):
    """When a device was heard in time. Moved in the order of arrival, by late readings too.

    After a time without network some devices send the newest first, and between what is late comes what is new. So
    what is heard within a backlog, or just before it, does not count for it.
    """

    newest_s: float = -inf  # newest arrival in time
    minute_s: float = -inf  # first arrival in time of the minute or so in which the newest lies
    before_s: float = -inf  # the last arrival in time before that one
    late_s: float = -inf  # newest arrival of a late reading
    heard_s: float = -inf  # last contact before the backlog which that belongs to

    def withheld_s(self, reading: Reading) -> float:
        """How long after it had happened the device was in contact without sending it; 0: it was not, or not late."""
        received_s, time_s = reading.received_s, reading.time_s
        if time_s is None:
            return 0.0
        if received_s - time_s <= IN_TIME_S:
            if received_s - self.minute_s > BURST_S:
                self.before_s, self.minute_s = self.newest_s, received_s
            self.newest_s = received_s
            return 0.0
        if received_s - self.late_s > BURST_S:
            self.heard_s = self.minute_s if received_s - self.minute_s > BURST_S else self.before_s
        self.late_s = received_s
        return max(0.0, self.heard_s - time_s)


class Run(msgspec.Struct, gc=False):
    """How long a condition has held without a break."""

    count: int
    since_s: float


class Recent:
    """What is remembered of a device, in device time. Moved by the judge alone; rules only read it.

    `last` is the newest reading with a position on the globe, `good` the newest whose position no rule doubts.
    `step_s`, `step_m` and `implied_kmh` say how the reading that is being judged lies to `good`: they are None where
    there is no good point before it, where it has no position, or where its own position is doubted.
    """

    __slots__ = (
        "candidate", "candidates", "contact", "good", "idle_since_s", "implied_kmh", "interval_s", "known", "last",
        "model", "newest_s", "profile", "runs", "same_time", "step_m", "step_s",
    )  # fmt: skip

    def __init__(self, model: str = "", profile: Any = None) -> None:
        self.model = model
        self.profile = profile  # the judge's: which rules with which limits
        self.contact = Contact()  # unlike all else, in the order of arrival
        self.newest_s: float | None = None  # time of the newest reading
        self.interval_s: float | None = None  # usual, between readings while the ignition is not known to be off
        self.idle_since_s: float | None = None  # since when the ignition has been on without motion
        self.last: Point | None = None
        self.good: Point | None = None
        self.candidate: Point | None = None  # where a device may have jumped to
        self.candidates = 0  # points in a row that agree with it
        self.known: dict[str, tuple[float, Any]] = {}  # time and value of attributes that rules track
        self.runs: dict[int, Run] | None = None  # by the rule's place in the profile; None: none
        self.same_time = False  # the reading that is being judged has the time of the newest
        self.step_s: float | None = None
        self.step_m: float | None = None
        self.implied_kmh: float | None = None

    def known_number(self, name: str) -> tuple[float, float] | None:
        """Time and value of a tracked attribute, if the value is a number."""
        known = self.known.get(name)
        if known is None:
            return None
        value = known[1]
        kind = type(value)
        return known if (kind is float or kind is int) and -NUMBER_MAX < value < NUMBER_MAX else None
