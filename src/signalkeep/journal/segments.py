"""Names of journals and segments, and one segment opened for reading. Never changes a file.

    <root>/<journal uuid, 32 hex digits>/writer.lock         held by the writer for its life
                                         <first seq>.seg     16 digits; every one has a sound header, durable
                                         next.tmp            prepared by the writer, nobody else looks at it
    <root>/<...>.new, <root>/<...>.old                       a journal being made, one being removed

What the disk refuses to give again and again (EIO) reads as zeros, block by block: to the reader it is damage like any
other.
"""

from __future__ import annotations

import errno
import re
from itertools import count
from pathlib import Path
from typing import Final
from uuid import UUID

from signalkeep.journal.files import FileSystem
from signalkeep.journal.record import (
    BATCH_HEADER_BYTES,
    BATCH_MAGIC,
    BatchHeader,
    SegmentHeader,
    UnknownVersion,
    body_is_sound,
    unpack_batch_header,
    unpack_segment_header,
)
from signalkeep.limits import JOURNAL_BLOCK_BYTES, MIB

WRITER_LOCK: Final = "writer.lock"
NEXT_SEGMENT: Final = "next.tmp"
NEW_SUFFIX: Final = ".new"
OLD_SUFFIX: Final = ".old"
_JOURNAL_NAME: Final = re.compile(r"[0-9a-f]{32}")
_SEGMENT_NAME: Final = re.compile(r"([0-9]{16})\.seg")
_SCAN_BYTES: Final = 1 * MIB
READS_OF_BAD_BLOCKS: Final = 3


def segment_name(first_seq: int) -> str:
    return f"{first_seq:016d}.seg"


def find_journals(fs: FileSystem, root: Path) -> list[Path]:
    """Every journal directory under `root`, whether its gateway lives or not."""
    return [root / name for name in sorted(names_in(fs, root)) if _JOURNAL_NAME.fullmatch(name)]


def segment_seqs(fs: FileSystem, directory: Path) -> list[int]:
    """The first sequence numbers of the segments in a journal, ascending."""
    matches = (_SEGMENT_NAME.fullmatch(name) for name in names_in(fs, directory))
    return sorted(int(match[1]) for match in matches if match)


def segments(fs: FileSystem, directory: Path) -> list[tuple[int, Path, int]]:
    """First sequence number, path and size in bytes of each segment, ascending."""
    found = []
    for first_seq in segment_seqs(fs, directory):
        path = directory / segment_name(first_seq)
        try:
            found.append((first_seq, path, fs.size(path)))
        except FileNotFoundError:
            continue  # removed since we listed it
    return found


def header_of(fs: FileSystem, directory: Path, first_seq: int) -> SegmentHeader | UnknownVersion | None:
    """The header of a segment, and no file left open."""
    segment = Segment(fs, directory, first_seq)
    segment.close()
    return segment.header


def names_in(fs: FileSystem, directory: Path) -> list[str]:
    """What is in a directory; nothing if there is none."""
    try:
        return fs.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


class Segment:
    """A segment file as a reader sees it; opened when first read from, until `close`.

    `header`: None if both copies are damaged or are another file's; then the salt is unknown, nothing in it can be
    believed, and what `batch_at` gives are mere claims.
    Raises FileNotFoundError from any method once the file is gone.
    """

    def __init__(self, fs: FileSystem, directory: Path, first_seq: int) -> None:
        self.first_seq = first_seq
        self.path = directory / segment_name(first_seq)
        self._fs = fs
        self._file: int | None = None
        self.read_header()

    def read_header(self) -> None:
        """Look at the header, for the first time or anew."""
        header = unpack_segment_header(self.read(0, JOURNAL_BLOCK_BYTES))
        if isinstance(header, SegmentHeader) and (
            header.first_seq != self.first_seq or header.journal_id != UUID(self.path.parent.name)
        ):
            header = None
        self.header: SegmentHeader | UnknownVersion | None = header
        self._seed = header.seed if isinstance(header, SegmentHeader) else None

    def close(self) -> None:
        if self._file is not None:
            self._fs.close(self._file)
            self._file = None

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file; fewer at its end."""
        if self._file is None:
            self._file = self._fs.open_read(self.path)
        for _ in range(READS_OF_BAD_BLOCKS):  # an error that passes must not be taken for damage
            try:
                return self._fs.pread(self._file, length, offset)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
        if length <= JOURNAL_BLOCK_BYTES:
            return bytes(length)
        starts = range(offset, offset + length, JOURNAL_BLOCK_BYTES)
        return b"".join(self.read(at, min(JOURNAL_BLOCK_BYTES, offset + length - at)) for at in starts)

    def sync(self) -> None:
        """Make durable what can be read. Raises SyncFailed."""
        if self._file is None:
            self._file = self._fs.open_read(self.path)
        self._fs.datasync(self._file)

    def batch_at(self, offset: int) -> BatchHeader | None:
        """The sound batch header or seal that stands there. Its body may still be damaged."""
        return unpack_batch_header(self.read(offset, BATCH_HEADER_BYTES), offset=offset, seed=self._seed)

    def body(self, batch: BatchHeader) -> bytes | None:
        """The body of a batch, None if it is not what was written."""
        assert self._seed is not None
        body = self.read(batch.offset + BATCH_HEADER_BYTES, batch.body_bytes)
        return body if body_is_sound(batch, body, self._seed) else None

    def search(self, offset: int, above_seq: int) -> BatchHeader | None:
        """The first sound batch header or seal from `offset` on with a first seq above the given one."""
        for start in count(offset, _SCAN_BYTES):
            piece = self.read(start, _SCAN_BYTES)
            for at in range(0, len(piece), JOURNAL_BLOCK_BYTES):
                if not piece.startswith(BATCH_MAGIC, at):
                    continue
                header = piece[at : at + BATCH_HEADER_BYTES]
                found = unpack_batch_header(header, offset=start + at, seed=self._seed)
                if found is not None and found.first_seq > above_seq:
                    return found
            if len(piece) < _SCAN_BYTES:
                break
        return None

    def used_end(self, offset: int) -> int:
        """Where the zeros begin that go on to the end of the file, in whole blocks; `offset` if there all is zero."""
        end = offset
        for start in count(offset, _SCAN_BYTES):
            piece = self.read(start, _SCAN_BYTES)
            used = len(piece.rstrip(b"\0"))
            if used:
                blocks = -(-used // JOURNAL_BLOCK_BYTES)
                end = start + min(blocks * JOURNAL_BLOCK_BYTES, len(piece))
            if len(piece) < _SCAN_BYTES:
                break
        return end
