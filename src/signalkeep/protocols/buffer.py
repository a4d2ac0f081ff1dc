"""A receive buffer for framing sessions: bytes come in at the end and are taken from the front.

Promises: every answer depends only on the bytes, never on how they were cut; a search goes on where the last one
ended, so input byte by byte costs work linear in its length. Of a message that is not complete, a session needs at
most `bytes_max` bytes: asking for more is a mistake, and `full` says that waiting longer is of no use. Never looks at
what the bytes mean.
"""

from __future__ import annotations


class ReceiveBuffer:
    """What was received and not yet taken. `bytes_max`: the most that one message may have."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = bytearray()
        self._delimiter = b""
        self._searched = 0  # no `_delimiter` begins before this offset

    def __len__(self) -> int:
        return len(self._bytes)

    @property
    def full(self) -> bool:
        """There are as many bytes as one message may have."""
        return len(self._bytes) >= self._bytes_max

    def feed(self, data: bytes) -> None:
        self._bytes += data

    def peek(self, count: int) -> bytes | None:
        """The first `count` bytes, which stay; None if they have not come yet."""
        assert count <= self._bytes_max, "more than a message may have"
        return bytes(self._bytes[:count]) if len(self._bytes) >= count else None

    def take(self, count: int) -> bytes | None:
        """The first `count` bytes, which are gone then; None if they have not come yet."""
        taken = self.peek(count)
        if taken is not None:
            self.discard(count)
        return taken

    def find(self, delimiter: bytes) -> int | None:
        """Offset of the first `delimiter` that ends within the first `bytes_max` bytes; None if there is none yet.

        When the buffer is full, none means never.
        """
        if delimiter != self._delimiter:
            self._delimiter, self._searched = delimiter, 0
        found = self._bytes.find(delimiter, self._searched, self._bytes_max)
        if found >= 0:
            self._searched = found
            return found
        self._searched = max(0, min(len(self._bytes), self._bytes_max) - len(delimiter) + 1)
        return None

    def discard(self, count: int) -> None:
        """Remove `count` bytes, or as many as there are, from the front."""
        del self._bytes[:count]
        self._searched = max(0, self._searched - count)
