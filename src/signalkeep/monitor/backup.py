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
    path: str = ""


def last_backup(data: Path) -> Backup | None:
    try:
        found = msgspec.json.decode((data / "backups.json").read_bytes(), type=Backup)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if found.time.tzinfo else msgspec.structs.replace(found, time=found.time.replace(tzinfo=UTC))
