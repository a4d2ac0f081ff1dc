"""What can be wrong: every kind of incident, with the words for people. docs/incidents.md is made of it.

A kind belongs to one check (`source`), which alone opens and clears incidents of it. Pure.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec


class Scope(StrEnum):
    """What an incident is about, and so who is told: customers of devices and groups, admins of the rest."""

    DEVICE = "device"
    GROUP = "group"  # many devices at once: an area, a model, the whole fleet
    SERVICE = "service"
    STORAGE = "storage"


class Grade(StrEnum):
    """How much it matters. What people are told first, and what a page shows in red."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Stage(StrEnum):
    """In the words of the ELD rules: seen, and often or long enough to tell people."""

    DIAGNOSTIC = "diagnostic"
    MALFUNCTION = "malfunction"


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of incident. `title` goes before its subject: "silent: device 350..."."""

    name: str
    source: str  # the check
    scope: Scope
    severity: Grade
    title: str
    meaning: str
    what_to_do: str


DEVICE_KINDS: Final = (
    Kind(
        name="silent",
        source="devices",
        scope=Scope.DEVICE,
        severity=Grade.WARNING,
        title="silent",
        meaning="The device has not been heard of for several times as long as it should be.",
        what_to_do="Ask where the vehicle is. Look at the device's power, its SIM card and the network there.",
    ),
)
SERVICE_KINDS: Final = (
    Kind(
        name="canary_lost",
        source="services",
        scope=Scope.SERVICE,
        severity=Grade.ERROR,
        title="the canary's signal does not arrive",
        meaning="A signal that was sent through the gateway's own port is not a row within its deadline.",
        what_to_do="`signalkeep status` and /readyz say which part does not move; devices wait for it, too.",
    ),
)
STORAGE_KINDS: Final[tuple[Kind, ...]] = ()
NOTIFY_KINDS: Final[tuple[Kind, ...]] = (
    Kind(
        name="channel_failing",
        source="notify",
        scope=Scope.SERVICE,
        severity=Grade.ERROR,
        title="messages do not get through",
        meaning="A channel has failed several times in a row, or hangs. What it should carry waits; the others go on.",
        what_to_do="`signalkeep notify test CHANNEL` says what is wrong. Look at its address, password and server.",
    ),
    Kind(
        name="database_away",
        source="database",
        scope=Scope.SERVICE,
        severity=Grade.ERROR,
        title="the database is away",
        meaning="PostgreSQL could not be used. Devices are acknowledged meanwhile; what they send waits.",
        what_to_do="Look at the server, its disk and its log; `signalkeep doctor` looks closer.",
    ),
)

KINDS: Final[dict[str, Kind]] = {
    kind.name: kind for kind in (*DEVICE_KINDS, *SERVICE_KINDS, *STORAGE_KINDS, *NOTIFY_KINDS)
}
