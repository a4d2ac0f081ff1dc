"""The words of signalkeep as types. Values only: no I/O, no behaviour beyond what a value can know of itself.

frame      one framed message of a device, raw bytes
record     the smallest unit that a device re-sends; a frame has 0..n
signal     a record, decoded
quarantine where a record goes that may not become a signal, with its raw bytes and a `Reason`
All times are aware datetimes in UTC.
"""

from __future__ import annotations

from datetime import datetime
from enum import IntFlag, StrEnum
from typing import Any, TypeAlias

import msgspec

Context: TypeAlias = dict[str, str]
"""What a decoder needs from the conversation, beyond the frame's own bytes."""


CANARY_MODEL = "signalkeep canary"
"""`device.model` of a device that is ours, and says nothing of the fleet: rules and figures leave it out."""


class Reason(StrEnum):
    """Why something was refused or quarantined. One list for database, API, metrics and docs/reasons.md."""

    # refused on the wire: never journalled, never acknowledged, counted
    CHECKSUM = "checksum"
    UNFRAMABLE = "unframable"
    OVERSIZED = "oversized"
    TRUNCATED = "truncated"
    BAD_IDENTITY = "bad_identity"
    NO_IDENTITY = "no_identity"
    UNKNOWN_REFUSED = "unknown_refused"
    UNKNOWN_CAP = "unknown_cap"
    REGISTRY_UNAVAILABLE = "registry_unavailable"
    RETIRED_DEVICE = "retired_device"
    CONNECTION_LIMIT = "connection_limit"
    ADDRESS_LIMIT = "address_limit"
    TIME_OUT = "time_out"
    UNREAD_ANSWERS = "unread_answers"
    TLS_FAILED = "tls_failed"
    PROXY_HEADER = "proxy_header"
    GATEWAY_ERROR = "gateway_error"
    # quarantined: journalled, acknowledged, kept with its raw bytes
    UNKNOWN_DEVICE = "unknown_device"
    NO_DEVICE_NUMBER = "no_device_number"
    BAD_FORMAT = "bad_format"
    BAD_VALUE = "bad_value"
    COUNT_MISMATCH = "count_mismatch"
    UNSUPPORTED = "unsupported"
    FUTURE = "future"
    EXPIRED = "expired"
    DECODER_ERROR = "decoder_error"
    DATABASE_REJECTED = "database_rejected"


class Flag(IntFlag):
    """Bits of `signal.flags` that are no rule's; from bit 8 on each rule has its own (`signalkeep rules list`)."""

    WEAK_KEY = 1  # no usable clock: received_at stands in for the wire time, re-sends are not recognised
    FORCED = 2  # released from quarantine by a person although the reason still held
    DOUBTFUL_POSITION = 4  # a rule says that the device was not there, or may not have been
    PERSON_GOOD = 8  # a person has looked and calls it good, whatever rules say
    PERSON_BAD = 16  # a person has looked and calls it bad


class DeviceStatus(StrEnum):
    """`unknown`: has sent something, nobody registered it. `retired`: its history stays, new data are refused."""

    UNKNOWN = "unknown"
    ACTIVE = "active"
    RETIRED = "retired"


class DeviceSettings(msgspec.Struct, frozen=True):
    """What the registry says of a device that a decoder may use."""

    time_zone: str = ""  # IANA name; read for times that are sent without a zone; empty means UTC
    model: str = ""


class Signal(msgspec.Struct, kw_only=True, gc=False):
    """A decoded record. Units are in the names; attributes use the standard names of docs/attributes.md."""

    wire_time: datetime | None  # the time as sent, read as UTC, never reinterpreted; None: none that can be read
    device_time: datetime | None  # our best reading of when it happened
    fix_valid: bool = False
    latitude: float | None = None  # WGS84, north positive
    longitude: float | None = None  # east positive
    altitude_m: float | None = None
    speed_kmh: float | None = None
    course_deg: float | None = None
    satellites: int | None = None
    event_code: str | None = None
    attributes: dict[str, Any] = msgspec.field(default_factory=dict)


class Decoded(msgspec.Struct, gc=False):
    """A record that became a signal. `raw_record`: its bytes without what changes on a re-send (the record key)."""

    signal: Signal
    raw_record: bytes


class Undecodable(msgspec.Struct):
    """A record that did not. `wire_time` if that much could be read."""

    reason: Reason
    detail: str  # for people: what was found where
    raw_record: bytes
    wire_time: datetime | None = None


Outcome: TypeAlias = Decoded | Undecodable
