"""Where a worker's messages come from. Workers know no broker; what brings them messages has this shape."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

ASIDE_QUEUE = -1
"""The number of the queue with messages that found no other way."""


class Delivery(msgspec.Struct):
    """One message. It comes again until it was acknowledged."""

    queue: int
    queue_name: str
    body: bytes
    times: int  # it was delivered before, as far as the broker counts
    token: Any = None  # the source's own
    sender: str = ""  # what it says of itself
    returned: bool = False  # it was in another queue before, and was given back too often


class Source(Protocol):
    """Keeps itself connected: what fails is tried again by it, and said in the log."""

    @property
    def connected(self) -> bool: ...

    async def take(self, queues: set[int]) -> None:
        """Receive from these queues and no others; what is in hand of others is handed back."""

    async def receive(self, *, max_messages: int, max_bytes: int, wait_s: float) -> list[Delivery]:
        """What has come, oldest first in every queue; [] if nothing has within that time."""

    async def done(self, deliveries: list[Delivery]) -> None:
        """Acknowledge these, with all that came before them from the same queue. Never raises for a lost connection:
        what it could not say comes again, and the cursors know it."""

    async def close(self) -> None:
        """Hand everything back."""
