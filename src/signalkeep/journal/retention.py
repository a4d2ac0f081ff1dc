"""Takes away what is no longer needed: single segments, whole journals, and what a crash left of either.

When something may go is the caller's to decide. Segments go from the oldest on, so that what remains has no hole. A
journal is renamed first and then taken apart: whatever a crash leaves of it is no journal any more, and the next
removal, or the next journal made under the same root, finishes the work.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from signalkeep.journal.files import FileSystem
from signalkeep.journal.segments import NEW_SUFFIX, OLD_SUFFIX, WRITER_LOCK, names_in, segment_name, segment_seqs


def unlink_before(fs: FileSystem, directory: Path, seq: int) -> list[Path]:
    """Remove the segments that hold only entries up to `seq`, but never the last one; returns their paths."""
    removed = []
    for first_seq, next_first_seq in pairwise(segment_seqs(fs, directory)):
        if next_first_seq > seq + 1:
            break
        path = directory / segment_name(first_seq)
        with suppress(FileNotFoundError):  # another process does the same
            fs.unlink(path)
        removed.append(path)
    if removed:
        fs.sync_directory(directory)
    return removed


def remove_journal(fs: FileSystem, directory: Path) -> None:
    """Remove a journal whose writer has ended and whose entries nobody needs. One that is gone already is no error."""
    assert not fs.locked(directory / WRITER_LOCK), "a journal that is being written"
    with suppress(FileNotFoundError):
        fs.rename(directory, directory.with_name(directory.name + OLD_SUFFIX))
        fs.sync_directory(directory.parent)
    sweep(fs, directory.parent)


def sweep(fs: FileSystem, root: Path) -> None:
    """Finish what a crash has interrupted: journals half removed, and journals half made."""
    for name in names_in(fs, root):
        if name.endswith(OLD_SUFFIX):
            _take_apart(fs, root / name)
        elif name.endswith(NEW_SUFFIX) and names_in(fs, root / name):  # an empty one may be about to be locked
            try:
                lock = fs.lock(root / name / WRITER_LOCK)
            except OSError:
                continue  # its maker lives
            try:
                _take_apart(fs, root / name)
            finally:
                fs.close(lock)


def _take_apart(fs: FileSystem, directory: Path) -> None:
    """Remove a directory of ours. What fails now is tried again by the next sweep."""
    with suppress(OSError):
        for name in sorted(names_in(fs, directory)):
            fs.unlink(directory / name)
        fs.rmdir(directory)
