"""The record key: what makes a re-sent record recognisable, for as long as the data are kept.

    key = (device, wire_time, digest)

digest: 64 bits of BLAKE2b over the protocol's name and the record's own bytes without what changes on a re-send. How
a protocol slices these bytes is frozen by golden tests. wire_time depends on the bytes alone, so neither a new decoder
nor a changed time zone moves a record's identity. Pure; never looks at a clock.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Final

import msgspec

from signalkeep import limits

FIRST_USABLE_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)  # before it, a device's clock was never set
FUTURE_MAX: Final = timedelta(seconds=limits.FUTURE_S_MAX)


class RecordKey(msgspec.Struct, frozen=True, gc=False):
    """Identity of a record within its device."""

    wire_time: datetime  # as sent; received_at where the sent one cannot be used
    digest: int  # signed 64 bits, as PostgreSQL's bigint
    weak: bool  # no usable clock: received_at stands in, so a re-send is a different record
    future: bool  # weak because the clock is too far ahead: belongs into quarantine


def digest(protocol: str, raw_record: bytes) -> int:
    """64 bits of BLAKE2b over protocol and record bytes, as a signed integer."""
    hashed = blake2b(raw_record, digest_size=8, person=protocol.encode())  # a name of at most 16 bytes
    return int.from_bytes(hashed.digest(), "big", signed=True)


def record_key(protocol: str, raw_record: bytes, wire_time: datetime | None, received_at: datetime) -> RecordKey:
    """The key of a record. `wire_time`: as decoded from the bytes, None if there is none."""
    value = digest(protocol, raw_record)
    if wire_time is None or wire_time < FIRST_USABLE_TIME:
        return RecordKey(received_at, value, weak=True, future=False)
    if wire_time - received_at > FUTURE_MAX:
        return RecordKey(received_at, value, weak=True, future=True)
    return RecordKey(wire_time, value, weak=False, future=False)
