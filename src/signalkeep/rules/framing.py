"""FRM: do messages arrive whole, and do devices hear that they did? From counts alone, as nothing of it is a signal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from signalkeep.model import Reason
from signalkeep.rules.contract import Dimension, Limit, Limits, Rule, Scope, Severity
from signalkeep.rules.days import DayHit, DeviceDay
from signalkeep.rules.fleet import FleetHit, FleetView

FRAMING: Final = (Reason.CHECKSUM, Reason.UNFRAMABLE, Reason.OVERSIZED, Reason.TRUNCATED)


def broken_frames(view: FleetView, limits: Limits) -> Iterator[FleetHit]:
    """FRM-01."""
    for reason in FRAMING:
        refused = view.refused.get(reason, 0)
        tried = view.frames + refused
        if refused >= limits["refused_min"] and refused > limits["share_max"] * tried:
            yield FleetHit(reason.value, f"{refused} of {tried} messages refused: {refused / tried:.1%} {reason.value}")


def sent_again(day: DeviceDay, limits: Limits) -> Iterator[DayHit]:
    """FRM-02."""
    again, records = day.duplicates, day.records
    if again >= limits["duplicates_min"] and again > limits["share_max"] * records:
        yield DayHit((), f"{again} of {records} records had been sent before: {again / max(records, again):.0%}")


RULES: Final = (
    Rule(
        id="FRM-01",
        title="Broken messages",
        dimension=Dimension.VALIDITY,
        severity=Severity.WARNING,
        scope=Scope.FLEET,
        check=broken_frames,
        meaning="More messages than usual were no messages: a wrong checksum or length, or cut off. They were neither "
        "stored nor acknowledged, so devices that keep their records send them again.",
        causes=(
            "a device was given the port of another protocol",
            "programs from the internet try what listens on the port",
            "a proxy or modem between device and gateway changes or cuts the stream",
        ),
        actions=(
            "see which reason grows, and what it means: `signalkeep status` and the page of reasons",
            "compare port and protocol of the devices that were set up last",
            "if it is one carrier, ask it; if it began with our own update, report it",
        ),
        source="makers' protocols: Teltonika CRC-16/IBM and double count, GT06 CRC-ITU; shares: field knowledge",
        limits={
            "share_max": Limit(0.01, "", "more of all messages than this share", most=1.0),
            "refused_min": Limit(20.0, "", "fewer are noise"),
        },
    ),
    Rule(
        id="FRM-02",
        title="Records sent again and again",
        dimension=Dimension.UNIQUENESS,
        severity=Severity.WARNING,
        scope=Scope.DAY,
        check=sent_again,
        meaning="Much of what the device sent on this day had been stored before. Nothing is doubled here, but it pays "
        "for the traffic, and newer records wait behind.",
        causes=(
            "the connection is lost before our answer arrives: weak coverage, or a carrier that cuts idle lines",
            "the device waits for another form or number of the answer",
            "its time-out for answers is shorter than the way there and back",
        ),
        actions=(
            "see how the device is connected: `signalkeep devices show`",
            "set a longer time-out for answers and smaller packets in the device",
            "if it is all devices of one model, compare our answer with the maker's protocol and report it",
        ),
        source="Teltonika: the number of records must be answered, else they come again; shares: field knowledge",
        limits={
            "share_max": Limit(0.2, "", "more of all records than this share", most=1.0),
            "duplicates_min": Limit(20.0, "", "fewer are the usual losses of a radio"),
        },
    ),
)
