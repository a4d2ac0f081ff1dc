"""What ails devices: which rule speaks of which trouble, and from when on people must know. Pure tables.

A rule says something about signals; a trouble is what somebody has to mend at a device. Every rule has its line here,
also those that speak of no device, each with the reason: a test holds that none is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from signalkeep.rules.contract import Limit


class Trouble(StrEnum):
    """Kinds of troubles; the same words as those of incidents."""

    SILENT = "silent"
    NO_FIX = "no_fix"
    RESTART_LOOP = "restart_loop"
    POWER_LOW = "power_low"
    POWER_CUT = "power_cut"
    CLONED = "cloned"
    WRONG_CLOCK = "wrong_clock"
    IDENTITY_CHANGED = "identity_changed"
    FLOOD = "flood"
    JAMMING = "jamming"
    ERROR_LIMIT = "error_limit"
    POSITION_FAULTS = "position_faults"


class Heard(StrEnum):
    """How it is known that a finding is of now: what comes late must alarm nobody."""

    LIVE = "live"  # its hits that came in time and in order, by the time that the device says
    ARRIVAL = "arrival"  # by the time of arrival, because the device's own is what is wrong
    DAY = "day"  # it is about the day as a whole, in the order of arrival


class Line(msgspec.Struct, frozen=True):
    """What a rule's findings mean for the device; None: nothing that somebody mends there."""

    trouble: Trouble | None
    why: str
    heard: Heard = Heard.LIVE


_PLACE: Final = "a receiver or an antenna that gives wrong places again and again is broken"
_VEHICLE: Final = "about the vehicle and its wiring: the device reports what it is given"
_DATA: Final = "about the data, and how they are read: no visit to the device mends it"
_INFO: Final = "worth knowing, no fault"

LINES: Final[Mapping[str, Line]] = {
    "FRM-01": Line(None, "of the whole fleet: nobody knows which device sent a broken message"),
    "FRM-02": Line(None, "costs traffic, loses nothing, and is often the fault of answers that come late"),
    "ID-01": Line(None, _INFO),
    "ID-02": Line(None, "nobody has registered it: it has no customer who could mend it"),
    "ID-03": Line(Trouble.CLONED, "two devices use its number"),
    "ID-04": Line(Trouble.IDENTITY_CHANGED, "somebody has changed something, or stolen it"),
    "SCH-01": Line(None, _DATA),
    "SCH-02": Line(None, _INFO),
    "SCH-03": Line(None, "counted for an error type: its limit is what reports the device"),
    "SCH-04": Line(None, _DATA),
    "TIM-01": Line(Trouble.WRONG_CLOCK, "its times are sent in another unit", Heard.ARRIVAL),
    "TIM-02": Line(Trouble.WRONG_CLOCK, "its clock is ahead", Heard.ARRIVAL),
    "TIM-03": Line(None, "an old memory as often as a wrong clock: TIM-04 and TIM-05 know the clocks"),
    "TIM-04": Line(Trouble.WRONG_CLOCK, "the receiver's week counter turned over", Heard.ARRIVAL),
    "TIM-05": Line(Trouble.WRONG_CLOCK, "its clock is set to another time zone", Heard.ARRIVAL),
    "TIM-06": Line(None, _DATA),
    "TIM-07": Line(None, _INFO),
    "TIM-08": Line(None, "a gap that ended; one that lasts is silence, which is looked at by itself"),
    "TIM-09": Line(None, _INFO),
    "TIM-10": Line(Trouble.FLOOD, "an input that flickers, or an interval that was set wrong"),
    "POS-01": Line(Trouble.POSITION_FAULTS, _PLACE),
    "POS-02": Line(Trouble.POSITION_FAULTS, _PLACE),
    "POS-03": Line(None, _INFO),
    "POS-04": Line(Trouble.POSITION_FAULTS, _PLACE),
    "POS-05": Line(Trouble.POSITION_FAULTS, _PLACE),
    "POS-06": Line(None, "the position is usable; its error type reports the device when it is often"),
    "POS-07": Line(Trouble.POSITION_FAULTS, _PLACE),
    "POS-08": Line(Trouble.POSITION_FAULTS, _PLACE),
    "POS-09": Line(None, "about the vehicle: it drives where it should not"),
    "POS-10": Line(Trouble.POSITION_FAULTS, _PLACE),
    "POS-11": Line(None, _DATA),
    "KIN-01": Line(Trouble.POSITION_FAULTS, _PLACE),
    "KIN-02": Line(Trouble.POSITION_FAULTS, _PLACE),
    "KIN-03": Line(None, _INFO),
    "KIN-04": Line(None, _DATA),
    "KIN-05": Line(None, _DATA),
    "KIN-06": Line(None, _DATA),
    "KIN-07": Line(None, _VEHICLE),
    "UNI-01": Line(None, _DATA),
    "VEH-01": Line(None, _VEHICLE),
    "VEH-02": Line(None, _VEHICLE),
    "VEH-03": Line(None, _VEHICLE),
    "VEH-04": Line(Trouble.POWER_LOW, "the supply will not carry the device much longer"),
    "VEH-05": Line(Trouble.POWER_LOW, "only worth knowing of a signal; a battery that stays low is to be changed"),
    "VEH-06": Line(None, _VEHICLE),
    "VEH-07": Line(None, _VEHICLE),
    "VEH-08": Line(None, _VEHICLE),
    "VEH-09": Line(None, _VEHICLE),
    "DEV-01": Line(Trouble.NO_FIX, "it moved for an hour and did not know where"),
    "DEV-02": Line(Trouble.JAMMING, "somebody disturbs it"),
    "DEV-03": Line(Trouble.POWER_CUT, "it lives on its battery, for hours at most"),
    "DEV-04": Line(
        Trouble.RESTART_LOOP, "only worth knowing of a signal; a whole day of it is to be mended", Heard.DAY
    ),
    "FLT-01": Line(None, "of a model: shared faults are told as such"),
    "FLT-02": Line(None, "of the whole fleet"),
    "FLT-03": Line(None, "of an area: shared faults are told as such"),
}
ERROR_LIMIT: Final = "ERR-"  # findings of error types whose limit was reached: ERR-1, ERR-2, ...


def line_of(rule: str) -> Line | None:
    """Of a finding's kind; None for what says nothing of a device, such as a rule that users added."""
    if rule.startswith(ERROR_LIMIT):
        return _REACHED
    line = LINES.get(rule)
    return line if line is not None and line.trouble is not None else None


_REACHED: Final = Line(Trouble.ERROR_LIMIT, "its error type says how often is too often")

_HITS: Final = "with so many hits within the window it is a malfunction"
_MINUTES: Final = "with so many bad minutes within the window it is a malfunction"
_RECORDS: Final = "so many records without a hit, and"
_GOOD_MINUTES: Final = "so many minutes without one: then it is over"
MORE_THAN_A_DAY: Final = 7 * 24.0


def _usual(hits: float = 5, minutes: float = 60, records: float = 10, good_minutes: float = 30) -> dict[str, Limit]:
    return {
        "hits": Limit(hits, "", _HITS, least=1.0),
        "minutes": Limit(minutes, "min", _MINUTES, least=1.0),
        "window_h": Limit(24.0, "h", "the window", least=1.0, most=MORE_THAN_A_DAY),
        "good_records": Limit(records, "", _RECORDS),
        "good_minutes": Limit(good_minutes, "min", _GOOD_MINUTES),
    }


def _at_once(records: float = 10, good_minutes: float = 30) -> dict[str, Limit]:
    """One hit is a malfunction."""
    found = _usual(1, records=records, good_minutes=good_minutes)
    del found["minutes"]
    return found


LIMITS: Final[Mapping[Trouble, Mapping[str, Limit]]] = {
    # A device that is back has said all there is to say; what it kept comes by itself.
    Trouble.SILENT: {
        "after_s": Limit(600.0, "s", "never silent before", least=1.0),
        "intervals": Limit(3.0, "", "silent after so many of its expected intervals", least=1.0),
        "unknown_s": Limit(86_400.0, "s", "silent after, without an expected interval", least=1.0),
        "parked_s": Limit(86_400.0, "s", "silent after, where its last signal says that it is parked", least=1.0),
        "good_records": Limit(2.0, "", _RECORDS),
        "good_minutes": Limit(10.0, "min", _GOOD_MINUTES),
    },
    Trouble.NO_FIX: {"after_s": Limit(3600.0, "s", "without a good position, though reports come", least=60.0)}
    | _usual(),
    Trouble.RESTART_LOOP: _at_once(),  # the rule has counted a whole day
    Trouble.POWER_LOW: _usual(),
    # The device says it once; then it may live on its battery for hours.
    Trouble.POWER_CUT: _at_once(good_minutes=240.0),
    Trouble.CLONED: _at_once(),  # the rule has seen it going to and fro
    Trouble.WRONG_CLOCK: _usual(),
    Trouble.IDENTITY_CHANGED: _at_once(good_minutes=1440.0),  # it happens once; a day is what people need to see it
    Trouble.FLOOD: _usual(),
    Trouble.JAMMING: _usual(),
    Trouble.ERROR_LIMIT: _at_once(),  # the error type has the limit
    # Between high houses every receiver errs now and then.
    Trouble.POSITION_FAULTS: _usual(hits=50),
}


def defaults(trouble: Trouble) -> dict[str, float]:
    """The limits of a trouble where nothing is set."""
    return {name: limit.default for name, limit in LIMITS[trouble].items()}
