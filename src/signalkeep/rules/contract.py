"""What a rule is. A rule only says something about a signal: it never changes, hides or deletes one.

    scope     needs                                              is asked
    SIGNAL    the reading alone                                  at ingest and in sweeps, of every signal
    RECENT    the reading and what is remembered of its device   at ingest and in sweeps, in the order of device time
    DAY       all readings of a device on one day                in sweeps
    FLEET     summaries of all devices                           in sweeps

A check of a SIGNAL or RECENT rule answers one of three things: None, it cannot say anything (the reading has no such
value); False, all is well; or a text, for people: what was found, with the numbers. A rule with `in_a_row` or `for_s`
is a condition with a duration: only when the check has said so that often and for so long is it a hit. A DAY rule
gives the readings that it marks, a FLEET rule what it has to say of whom. All are pure functions: the same readings
and limits give the same answer, today and in a year.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    from signalkeep.rules.days import DayHit, DeviceDay
    from signalkeep.rules.fleet import FleetHit, FleetView
    from signalkeep.rules.reading import Reading, Recent
    from signalkeep.rules.screen import Ranges

FIRST_BIT: Final = 8  # of `signal.flags`; below are those of `model.Flag`
OWN_FIRST_BIT: Final = 53  # of rules that users add
LAST_BIT: Final = 62  # the sign stays out of it


class Dimension(StrEnum):
    """What a rule is about; each has a score of its own."""

    COMPLETENESS = "completeness"  # is everything there that should be?
    TIMELINESS = "timeliness"  # did it come in time, and is its time right?
    VALIDITY = "validity"  # is it of the right form and range?
    CONSISTENCY = "consistency"  # do the values agree with each other?
    ACCURACY = "accuracy"  # is the position where the vehicle was?
    UNIQUENESS = "uniqueness"  # is it there once?


class Severity(StrEnum):
    """How much a hit matters."""

    INFO = "info"  # worth knowing, the signal is usable
    WARNING = "warning"  # use the signal with care, or look at the device
    ERROR = "error"  # the value or the device cannot be trusted


class Scope(StrEnum):
    """What a check is given; see the table above."""

    SIGNAL = "signal"
    RECENT = "recent"
    DAY = "day"
    FLEET = "fleet"


class Limit(msgspec.Struct, frozen=True):
    """A threshold of a rule: its default, and what may be set instead."""

    default: float
    unit: str  # "km/h", "s", "" for a plain number
    meaning: str  # one clause, for people
    least: float = 0.0
    most: float = float("inf")


class Caution(str):
    """The text of a hit that leaves the position usable, of a rule whose other hits spoil it: weak, but a position."""

    __slots__ = ()


Limits: TypeAlias = Mapping[str, float]
"""The values of a rule's limits, by name."""

Answer: TypeAlias = str | Literal[False] | None
SignalCheck: TypeAlias = "Callable[[Reading, Limits], Answer]"
RecentCheck: TypeAlias = "Callable[[Reading, Recent, Limits], Answer]"
DayCheck: TypeAlias = "Callable[[DeviceDay, Limits], Iterable[DayHit]]"
FleetCheck: TypeAlias = "Callable[[FleetView, Limits], Iterable[FleetHit]]"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule with all that people need to know of it. `version` grows when the same signal may get another answer."""

    id: str  # FAM-NN, never used again for something else
    title: str  # a few words
    dimension: Dimension
    severity: Severity
    scope: Scope
    check: Callable[..., Any]  # of the type that belongs to the scope
    meaning: str  # what a hit says, and why it matters
    causes: tuple[str, ...]  # common ones, most likely first
    actions: tuple[str, ...]  # what to do, first things first
    source: str  # where the default comes from
    limits: Mapping[str, Limit] = {}
    in_a_row: int = 1  # so many readings
    for_s: float = 0.0  # and for so long, from the first of them
    bit: int | None = None  # of signal.flags; None: it marks no signals
    spoils_position: bool = False  # where it hits, the position does not count as good, unless it says `Caution`
    reanchors: bool = False  # ... until a few points in a row agree with each other; needs a limit speed_kmh_max
    quiet: Callable[[Limits], Ranges] | None = None  # ranges without a hit
    needs: frozenset[str] = frozenset()  # attributes: where a signal has none of them, it is not asked; empty: always
    tracks: tuple[str, ...] = ()  # attributes whose last value it compares with (`Recent.known`)
    version: int = 1
    error_type: int | None = None  # of the talk's table error_type

    @property
    def mask(self) -> int:
        """Its bit of `signal.flags`, 0 if it has none."""
        return 0 if self.bit is None else 1 << self.bit

    def spoils(self, detail: str) -> bool:
        """Whether a hit with this text says that the position must not be used."""
        return self.spoils_position and not isinstance(detail, Caution)
