"""Sample conversations for the contract suite: from each protocol's encoder, and by hand where that is not enough.

A protocol without an encoder must have an entry in EXTRA.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from signalkeep.model import Signal
from signalkeep.protocols.registry import ENCODERS
from signalkeep.simulate.drive import EVENT_CODES, Drive

DEVICE_NUMBER: Final = "356307040000005"
START: Final = datetime(2024, 2, 29, 23, 59, 50, tzinfo=UTC)

EXTRA: Final[dict[str, list[bytes]]] = {
    "json": [
        b'\xef\xbb\xbf{"device_number": 1, "message_date": "2020/02/05 12:18:28", "latitude": "37.9"}\r\n'
        b'junk\n{"device_number": "2"}{abc}\n{"cut": "here\n{"device_number": "2", "list": [{"a": "\\"}"}]}',
        b'{"message_date": 1580904000123, "note": "\xc3\xa4"}  {"device_number": "3", "latitude": []}\n[1]',
    ]
}

# A stream with one frame of about the given size, where the encoder's records would give many small ones.
LONG_FRAME: Final[dict[str, Callable[[int], bytes]]] = {
    "json": lambda size: (
        b'{"device_number":"1","note":"' + b"\\n" * (size // 4) + b'","x":[' + b"1," * (size // 4) + b"1]}"
    ),
}
RECORD_BYTES_ABOUT: Final = 80


def drive_of(name: str, count: int, seed: int = 1) -> list[Signal]:
    """Records of a vehicle that drives, on the grid that every encoder keeps."""
    drive = Drive(random.Random(seed), START, EVENT_CODES[name])
    return [drive.step(START + timedelta(milliseconds=5210 * (index + 1))) for index in range(count)]


def conversations(name: str) -> list[bytes]:
    """Whole streams as a device of this protocol would send them."""
    streams = list(EXTRA.get(name, []))
    encoder = ENCODERS.get(name)
    if encoder is not None:
        login = encoder.encode_login(DEVICE_NUMBER)
        signals = drive_of(name, 6)
        first, second = (
            encoder.encode_frame(DEVICE_NUMBER, signals[:1]),
            encoder.encode_frame(DEVICE_NUMBER, signals[1:]),
        )
        streams += [login + first, login + second + first]
    assert streams, f"no sample of {name}: write an encoder, or give samples by hand"
    return streams


def long_stream(name: str, size_bytes: int) -> bytes:
    """A stream whose last frame has about this size."""
    if name in LONG_FRAME:
        return LONG_FRAME[name](size_bytes)
    encoder = ENCODERS[name]
    signals = drive_of(name, size_bytes // RECORD_BYTES_ABOUT)
    return encoder.encode_login(DEVICE_NUMBER) + encoder.encode_frame(DEVICE_NUMBER, signals)
