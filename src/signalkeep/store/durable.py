"""Files that must survive a power failure: written whole or not at all, and synced before anybody relies on them.

The journal has a file system of its own, which tests can crash; this is for what is done once in a while: backups,
notes, whole directories that change places.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

PIECE_BYTES: Final = 1 << 20


def sync_path(path: Path) -> None:
    """fsync a file or a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """fsync everything below a directory, then the directory itself."""
    for path in [*root.rglob("*"), root]:
        if not path.is_symlink():
            sync_path(path)


def write_whole(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a file at once: after a crash there is the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_path(path.parent)


def copy_durably(source: Path, target: Path, length: int | None = None) -> str:
    """Copy the first `length` bytes of a file, or all, to a new one, synced; the SHA-256 of what was copied.

    The copy keeps the time of the last change: retention goes by it.
    """
    digest = hashlib.sha256()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with source.open("rb") as read, os.fdopen(descriptor, "wb") as written:
        rest = source.stat().st_size if length is None else length
        while rest > 0 and (piece := read.read(min(PIECE_BYTES, rest))):
            digest.update(piece)
            written.write(piece)
            rest -= len(piece)
        written.flush()
        facts = os.fstat(read.fileno())
        os.utime(written.fileno(), ns=(facts.st_atime_ns, facts.st_mtime_ns))
        os.fsync(written.fileno())
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_bytes(root: Path) -> int:
    """What the files below a directory hold."""
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())
