"""The one valve of a gateway process: may sockets be read now?

Closed while too much waits for the journal, while the disk is above its high-water mark, and for ever once we stop.
Nothing is refused by it: bytes stay with the devices, unacknowledged, until it opens. Opening has hysteresis, so that a
disk at its mark does not make it flutter.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol

from signalkeep import limits


class Shut(Enum):
    """Why sockets are not read."""

    JOURNAL_BEHIND = "more waits for the journal than may"
    DISK = "the disk is above its high-water mark"
    STOPPING = "the gateway stops"


class Reading(Protocol):
    """A connection as the valve knows it."""

    def intake_changed(self) -> None:
        """The valve opened or closed: pause or resume reading."""
        ...


class Intake:
    """Open unless there is a reason to be shut; tells its connections when that changes."""

    def __init__(self, on_change: Callable[[set[Shut]], None] = lambda _: None) -> None:
        self._reasons: set[Shut] = set()
        self._connections: dict[Reading, None] = {}  # the oldest first
        self._on_change = on_change

    @property
    def open(self) -> bool:
        return not self._reasons

    @property
    def reasons(self) -> set[Shut]:
        return set(self._reasons)

    def join(self, connection: Reading) -> None:
        self._connections[connection] = None

    def leave(self, connection: Reading) -> None:
        self._connections.pop(connection, None)

    def set(self, reason: Shut, shut: bool) -> None:
        """Add or take away a reason to be shut."""
        if shut == (reason in self._reasons):
            return
        was_open = self.open
        (self._reasons.add if shut else self._reasons.remove)(reason)
        if was_open != self.open:
            self._on_change(self.reasons)
            for connection in list(self._connections):
                connection.intake_changed()

    def follow_pending(self, pending_bytes: int) -> None:
        """Shut when too much waits for the journal; open again at half of that."""
        if pending_bytes >= limits.JOURNAL_PENDING_BYTES_MAX:
            self.set(Shut.JOURNAL_BEHIND, True)
        elif pending_bytes <= limits.JOURNAL_PENDING_BYTES_MAX // 2:
            self.set(Shut.JOURNAL_BEHIND, False)

    def follow_disk(self, *, used_bytes: int, cap_bytes: int, free_bytes: int, free_min_bytes: int) -> None:
        """Shut above the cap or below the free space that must remain; open with some room to spare."""
        if used_bytes >= cap_bytes or free_bytes < free_min_bytes:
            self.set(Shut.DISK, True)
        elif (
            used_bytes < cap_bytes * limits.DISK_RESUME_FACTOR
            and free_bytes >= free_min_bytes / limits.DISK_RESUME_FACTOR
        ):
            self.set(Shut.DISK, False)
