"""When the last backup of a data directory succeeded, by the note that making one leaves: `backups.json`.

A note that is missing, unreadable or from another version counts as none: nobody should trust a backup by it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec


class Backup(msgspec.Struct, frozen=True):
    """One that succeeded."""

    time: datetime
    path: str


class _Note(msgspec.Struct):
    """The file, under either name of the time."""

    time: datetime | None = None
    at: datetime | None = None
    path: str = ""


def last_backup(data: Path) -> Backup | None:
    try:
        note = msgspec.json.decode((data / "backups.json").read_bytes(), type=_Note)
    except (OSError, msgspec.MsgspecError):
        return None
    time = note.time or note.at
    if time is None:
        return None
    return Backup(time if time.tzinfo else time.replace(tzinfo=UTC), note.path)
