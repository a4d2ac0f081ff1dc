"""All devices together, for rules that no single device can answer: our own faults, and those of an area. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec


class FleetHit(msgspec.Struct, frozen=True):
    """What a FLEET rule found: of whom (a model, a cell, an hour), and why."""

    subject: str
    detail: str


class Group(msgspec.Struct, frozen=True):
    """Signals of one protocol and model in the window and in the seven days before it."""

    protocol: str
    model: str
    signals: int
    hits: int  # of these, marked by any rule of validity or consistency
    quarantined: int
    past_signals: int
    past_hits: int
    past_quarantined: int


class Doubtful(msgspec.Struct, frozen=True):
    """A device with doubted positions in the window, and where it last was for sure."""

    device_number: str
    latitude: float
    longitude: float
    count: int
    jammed: bool  # it says so itself


class FleetView(msgspec.Struct, frozen=True):
    """What FLEET rules see: the last whole hour, and what is usual."""

    hour_s: float  # the hour's beginning, seconds since 1970
    signals: int  # received in it
    usual: Sequence[int] = ()  # received in the same hour of the week, in the weeks before, newest first
    groups: Sequence[Group] = ()
    doubtful: Sequence[Doubtful] = ()
    active_devices: int = 0
    refused: Mapping[str, int] = {}  # by reason, since the last look
    frames: int = 0  # ingested since the last look
    unknown: Sequence[tuple[str, int]] = ()  # devices that nobody registered, with their records in quarantine
