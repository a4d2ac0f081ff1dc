"""Notes in the data directory that one command leaves for another: the last backup, and a restore that was done.

    <data>/backups.json     the last backup that was made whole; `last_backup` reads it
    <data>/restored.json    written when a backup's database is put in place; ingest turns it into findings, then
                            removes it

A note that cannot be read counts as none: nothing that must not be lost stands in one.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from signalkeep.config import Settings
from signalkeep.store.durable import sync_path, write_whole

N = TypeVar("N")


class LastBackup(msgspec.Struct, frozen=True):
    """The last successful `signalkeep backup` of a data directory."""

    at: datetime  # its snapshot of the database was begun then (UTC)
    path: str  # its directory
    bytes: int  # of all its files


class RestoreFinding(msgspec.Struct, frozen=True):
    """What ingest is to report about a restore."""

    kind: str
    subject: str
    detail: str


class Restored(msgspec.Struct, frozen=True):
    """A restore that has been done."""

    backup: str
    findings: list[RestoreFinding]


def last_backup(settings: Settings) -> LastBackup | None:
    """The last backup that was made whole, None if there is none or its note cannot be read."""
    return _read(settings.data / "backups.json", LastBackup)


def note_backup(settings: Settings, backup: LastBackup) -> None:
    write_whole(settings.data / "backups.json", msgspec.json.encode(backup))


def restored(data: Path) -> Restored | None:
    """The restore that nobody has reported yet."""
    return _read(data / "restored.json", Restored)


def note_restored(data: Path, note: Restored) -> None:
    write_whole(data / "restored.json", msgspec.json.encode(note))


def forget_restored(data: Path) -> None:
    """It is reported: the note goes."""
    (data / "restored.json").unlink(missing_ok=True)
    sync_path(data)


def _read(path: Path, kind: type[N]) -> N | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None
