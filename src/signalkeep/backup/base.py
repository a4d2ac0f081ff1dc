"""A copy of the embedded server's files while it works, and the proof that the copy is what the server sent.

pg_basebackup copies, with the write-ahead log that belongs to it. What it made is then held against the manifest that
the server sent along (size and SHA-256 of every file, and of the manifest), and the log is read from its first to its
last needed record by pg_waldump. This is what pg_verifybackup does; the one in the wheel of PostgreSQL 18 does not run,
and this way every file is read only once, for this check and for ours.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from signalkeep.backup import programs
from signalkeep.backup.manifest import DATABASE, DatabasePart, FileSum
from signalkeep.config import Settings
from signalkeep.errors import EnvironmentFault
from signalkeep.store.durable import sha256_of
from signalkeep.store.postgres import EMBEDDED_NAME, socket_directory

_PERCENT: Final = re.compile(r"\((\d+)%\)")
_SERVER_MANIFEST: Final = "backup_manifest"
_CHECKSUM_LINE: Final = b'"Manifest-Checksum"'


class _File(msgspec.Struct, rename={"path": "Path", "hex_path": "Encoded-Path", "bytes": "Size", "sum": "Checksum"}):
    bytes: int
    sum: str
    path: str = ""
    hex_path: str = ""  # of a name that is not UTF-8


class _Range(msgspec.Struct, rename={"timeline": "Timeline", "start": "Start-LSN", "end": "End-LSN"}):
    timeline: int
    start: str
    end: str


class _ServerManifest(msgspec.Struct, rename={"files": "Files", "ranges": "WAL-Ranges", "sum": "Manifest-Checksum"}):
    files: list[_File]
    ranges: list[_Range]
    sum: str


async def take(
    settings: Settings, place: Path, *, version: str, schema: str, progress: Callable[[str], None]
) -> tuple[DatabasePart, list[FileSum]]:
    """Copy the server's files to `place`, which does not exist yet. Raises EnvironmentFault if it is not whole."""
    major = int(version.split(".", maxsplit=1)[0])

    def tell(line: str) -> None:
        if found := _PERCENT.search(line):
            progress(f"database: {found[1]} %")

    await programs.run(
        programs.client_program(settings, "pg_basebackup", major=major),
        *("-h", socket_directory(settings.data), "-p", "5432", "-U", EMBEDDED_NAME, "--no-password", "-D", place),
        *("-Fp", "-X", "stream", "-c", "fast", "--manifest-checksums=SHA256", "--progress"),
        on_line=tell,
    )
    progress("database: checking the copy")
    sums, ranges = check(place)
    for found in ranges:
        await programs.run(
            programs.client_program(settings, "pg_waldump", major=major),
            *("-q", "-p", place / "pg_wal", "-t", str(found.timeline), "-s", found.start, "-e", found.end),
        )
    return DatabasePart("base", version, major, schema, empty_directories(place)), sums


def empty_directories(root: Path) -> list[str]:
    """Directories that PostgreSQL wants to find although nothing is in them."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir() and not any(path.iterdir()))


def check(place: Path) -> tuple[list[FileSum], list[_Range]]:
    """Hold a copy against the server's manifest; every file's sum, and the parts of the log that it needs."""
    data = (place / _SERVER_MANIFEST).read_bytes()
    listed = msgspec.json.decode(data, type=_ServerManifest)
    before, mark, _ = data.rpartition(_CHECKSUM_LINE)
    if not mark or hashlib.sha256(before).hexdigest() != listed.sum:
        raise EnvironmentFault(f"{place / _SERVER_MANIFEST} is damaged", hint="Run the backup again; check the disk.")
    sums = []
    for file in listed.files:
        name = file.path or bytes.fromhex(file.hex_path).decode(errors="surrogateescape")
        path = place / name
        found = FileSum(f"{DATABASE}/{name}", path.stat().st_size, sha256_of(path)) if path.is_file() else None
        if found is None or (found.bytes, found.sha256) != (file.bytes, file.sum):
            raise EnvironmentFault(
                f"{path} is not what the server sent", hint="Run the backup again; check the disk it is written to."
            )
        sums.append(found)
    return sums, listed.ranges
