"""Damaged bytes are copied aside before the reader goes on, so that people can look at them later.

A copy is named by journal, segment, place and content. The same bytes are copied once, however often they are met and
wherever a crash interrupts us; an unfinished copy has another name and is overwritten by the next one. If there is no
room for it, the reader goes on all the same: the journal itself still holds the bytes for the replay window.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from signalkeep.errors import SyncFailed
from signalkeep.journal.files import FileSystem, write_all
from signalkeep.journal.segments import Segment
from signalkeep.limits import MIB

PIECE_BYTES = 1 * MIB


def copy_aside(fs: FileSystem, segment: Segment, start: int, end: int, root: Path) -> str:
    """Copy bytes of a segment to a file under `root`; returns its path, "" if it could not be made."""
    crc = 0
    for piece in _pieces(segment, start, end):
        crc = zlib.crc32(piece, crc)
    journal = segment.path.parent.name
    target = root / f"{journal}-{segment.first_seq:016d}-{start:08x}-{crc:08x}.bin"
    try:
        if target.name not in _names(fs, root):
            _copy(fs, segment, start, end, target)
    except (OSError, SyncFailed):
        return ""
    return str(target)


def _names(fs: FileSystem, root: Path) -> list[str]:
    try:
        return fs.listdir(root)
    except FileNotFoundError:
        fs.mkdir(root)
        return []


def _copy(fs: FileSystem, segment: Segment, start: int, end: int, target: Path) -> None:
    unfinished = target.with_suffix(".tmp")
    if unfinished.name in fs.listdir(target.parent):
        fs.unlink(unfinished)
    file = fs.open_new(unfinished)
    try:
        for number, piece in enumerate(_pieces(segment, start, end)):
            write_all(fs, file, piece, number * PIECE_BYTES)
        fs.sync(file)
    finally:
        fs.close(file)
    fs.rename(unfinished, target)
    fs.sync_directory(target.parent)


def _pieces(segment: Segment, start: int, end: int) -> Iterator[bytes]:
    for at in range(start, end, PIECE_BYTES):
        yield segment.read(at, min(PIECE_BYTES, end - at))
