"""A receive buffer for framing sessions: bytes come in at the end and are taken from the front.

Promises: every answer depends only on the bytes, never on how they were cut. Of a message that is not complete, a
session needs at most `bytes_max` bytes: asking for more is a mistake. Never looks at what the bytes mean.
"""

from __future__ import annotations


class ReceiveBuffer:
    """What was received and not yet taken. `bytes_max`: the most that one message may have."""

    __slots__ = ("_bytes", "_bytes_max")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes)

    def feed(self, data: bytes) -> None:
        self._bytes += data

    def peek(self, count: int) -> bytes | None:
        """The first `count` bytes, which stay; None if they have not come yet."""
        assert count <= self._bytes_max, "more than a message may have"
        return bytes(self._bytes[:count]) if len(self._bytes) >= count else None

    def head(self, count: int) -> bytes:
        """The first `count` bytes, or as many as there are; they stay."""
        return bytes(self._bytes[:count])

    def take(self, count: int) -> bytes | None:
        """The first `count` bytes, which are gone then; None if they have not come yet."""
        assert count <= self._bytes_max, "more than a message may have"
        if len(self._bytes) < count:
            return None
        taken = bytes(self._bytes[:count])
        del self._bytes[:count]
        return taken

    def discard(self, count: int) -> None:
        """Remove `count` bytes, or as many as there are, from the front."""
        del self._bytes[:count]
