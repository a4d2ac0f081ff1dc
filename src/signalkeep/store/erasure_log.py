"""The file that remembers erasures outside of the database: one JSON line for each, on stable storage before it begins.

A database that is restored from a backup older than an erasure knows nothing of it; this file does. Lines are only ever
added. A last line without its end was being written when the machine stopped: that erasure had not begun.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import msgspec


class NotedErasure(msgspec.Struct, frozen=True, kw_only=True):
    """One line."""

    at: datetime
    device_number: str
    erased_to: datetime  # the floor
    actor: str


def append(path: Path, noted: NotedErasure) -> None:
    """Add a line and sync it. Raises OSError if it cannot be made durable: then nothing may be erased."""
    is_new = not path.exists()
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(file).st_size
        cut_short = size > 0 and os.pread(file, 1, size - 1) != b"\n"
        line = (b"\n" if cut_short else b"") + msgspec.json.encode(noted) + b"\n"
        written = os.write(file, line)
        if written != len(line):
            raise OSError(f"only {written} of {len(line)} bytes were written")
        owner = path.parent.stat()
        if is_new and os.geteuid() == 0:
            os.fchown(file, owner.st_uid, owner.st_gid)  # ingest must read it, and may run as another user
        os.fsync(file)
    finally:
        os.close(file)
    if is_new:
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def read(path: Path) -> tuple[dict[str, datetime], list[int]]:
    """The highest floor of each device, and the numbers of lines that cannot be read. No file: nothing was erased."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}, []
    floors: dict[str, datetime] = {}
    unreadable = []
    *lines, unfinished = content.split(b"\n")
    del unfinished
    for number, line in enumerate(lines, 1):
        try:
            noted = msgspec.json.decode(line, type=NotedErasure)
        except msgspec.DecodeError:
            unreadable.append(number)
            continue
        floors[noted.device_number] = max(noted.erased_to, floors.get(noted.device_number, noted.erased_to))
    return floors, unreadable
