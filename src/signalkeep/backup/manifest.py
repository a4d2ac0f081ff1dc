"""What a backup is: a directory with a manifest that names every file in it, with size and SHA-256.

    signalkeep-20260501T120000Z/
        manifest.json           this; manifest.json.sha256 beside it is for `sha256sum -c`
        database/               a whole data directory of PostgreSQL (kind `base`), or signalkeep.dump (kind `dump`)
        journal/<uuid>/*.seg    the journals as they were after the database was copied
        settings/               the settings file, if there was one

`verify` reads every byte and names what is not as it was written. Nothing here changes a backup.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final, Literal
from uuid import UUID

import msgspec

from signalkeep.errors import CallerError, EnvironmentFault
from signalkeep.store.durable import sha256_of, write_whole

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
DATABASE: Final = "database"
DUMP_NAME: Final = "signalkeep.dump"
PREFIX: Final = "signalkeep-"
_NAME: Final = re.compile(r"signalkeep-\d{8}T\d{6}Z")


class FileSum(msgspec.Struct, frozen=True):
    """A file by its path in the backup."""

    path: str
    bytes: int
    sha256: str


class JournalPart(msgspec.Struct, frozen=True):
    """A journal that the database knew or that lay on the disk."""

    uuid: UUID
    cursor: int  # entries up to here are certainly in the database of this backup
    durable_seq: int  # the copy holds entries up to here
    alive: bool = False  # its gateway was writing: later entries may exist
    segments: list[str] = []  # msgspec copies it; empty: its files had gone before the backup
    elsewhere: str = ""  # the host whose disk holds it, if not this one: then it is not in this backup


class DatabasePart(msgspec.Struct, frozen=True):
    """The database. `system_id`: which cluster this was, for a base backup."""

    kind: Literal["base", "dump"]
    version: str
    major: int
    schema: str
    empty_directories: list[str] = []  # below database/; msgspec copies it


class Manifest(msgspec.Struct, frozen=True):
    """Everything about a backup. `made_at`: when it began; later entries are in it only by chance."""

    format: int
    signalkeep: str
    made_at: datetime
    finished_at: datetime
    host: str
    database: DatabasePart
    journals: list[JournalPart]
    settings_file: str
    files: list[FileSum]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


class Damage(msgspec.Struct, frozen=True):
    """A file that is not what the manifest says."""

    path: str
    what: str


def name_of(moment: datetime) -> str:
    """The directory name of a backup."""
    return f"{PREFIX}{moment:%Y%m%dT%H%M%SZ}"


def write(directory: Path, manifest: Manifest) -> None:
    """Write the manifest and its checksum."""
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    write_whole(directory / MANIFEST, data)
    line = f"{hashlib.sha256(data).hexdigest()}  {MANIFEST}\n"
    write_whole(directory / f"{MANIFEST}.sha256", line.encode())


def read(directory: Path) -> Manifest:
    """The manifest of a backup. Raises CallerError if this is none, EnvironmentFault if it is damaged."""
    try:
        data = (directory / MANIFEST).read_bytes()
        noted = (directory / f"{MANIFEST}.sha256").read_text(encoding="ascii", errors="replace").split(" ")[0]
    except FileNotFoundError:
        raise CallerError(
            f"{directory} is not a backup of signalkeep: it has no {MANIFEST} with its checksum",
            hint="Name a directory signalkeep-YYYYMMDDTHHMMSSZ; `signalkeep backup list DIRECTORY` shows them.",
        ) from None
    except OSError as error:
        raise EnvironmentFault(f"{directory} cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != noted:
        raise EnvironmentFault(
            f"{directory / MANIFEST} is damaged: it does not agree with its checksum", hint="Use another backup."
        )
    found = msgspec.json.decode(data).get("format")
    if found != FORMAT:
        raise CallerError(
            f"{directory} has format {found}, this signalkeep reads {FORMAT}",
            hint="It was made by a newer signalkeep: install that version or a later one.",
        )
    return msgspec.json.decode(data, type=Manifest)


def verify(directory: Path, manifest: Manifest, progress: Callable[[int], None] = lambda _: None) -> list[Damage]:
    """Read every file; what is missing, shorter or other than it was written. `progress` gets the bytes read."""
    return list(_damages(directory, manifest, progress))


def _damages(directory: Path, manifest: Manifest, progress: Callable[[int], None]) -> Iterator[Damage]:
    for file in manifest.files:
        path = directory / file.path
        try:
            size = path.stat().st_size
            if size != file.bytes:
                yield Damage(file.path, f"has {size} bytes instead of {file.bytes}")
            elif sha256_of(path) != file.sha256:
                yield Damage(file.path, "its content is not what was written")
        except FileNotFoundError:
            yield Damage(file.path, "is missing")
        except OSError as error:
            yield Damage(file.path, f"cannot be read: {error.strerror}")
        progress(file.bytes)


def backups_in(place: Path) -> list[tuple[Path, Manifest]]:
    """The whole backups of ours in a directory, oldest first. What cannot be read as one is left out."""
    found = []
    try:
        candidates = sorted(path for path in place.iterdir() if _NAME.fullmatch(path.name))
    except OSError as error:
        raise CallerError(f"{place} cannot be read: {error.strerror}", hint="Name the directory of backups.") from error
    for path in candidates:
        try:
            found.append((path, read(path)))
        except (CallerError, EnvironmentFault):
            continue
    return found
