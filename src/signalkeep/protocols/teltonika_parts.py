"""What the readers of Teltonika bytes share: a cursor, times, texts. Pure.

Bytes that are too short raise struct.error, here as in `struct` itself; nothing else is ever raised.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECONDS_BELOW: Final = 253_402_300_800_000  # the year 10000


class Cursor:
    """Reads from the front of bytes; raises struct.error where they are too short, as `struct` does."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self.at = at

    @property
    def left(self) -> int:
        return len(self._data) - self.at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise struct.error(f"{count} bytes wanted, {self.left} left")
        self.at += count
        return self._data[self.at - count : self.at]

    def number(self, size_bytes: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size_bytes), "big", signed=signed)

    def float32(self) -> float:
        (value,) = struct.unpack(">f", self.take(4))
        return float(value)


def time_of_ms(since_epoch_ms: int) -> datetime | None:
    """None beyond the year 9999."""
    if since_epoch_ms >= MILLISECONDS_BELOW:
        return None
    return EPOCH + timedelta(milliseconds=since_epoch_ms)


def text(data: bytes) -> str | None:
    """Printable ASCII with line breaks and tabs, without blanks and padding around it; None if it is something else."""
    if not data.isascii():
        return None
    found = data.decode("ascii").strip("\0 \t\r\n")
    return found if all(char.isprintable() or char in "\t\r\n" for char in found) else None
