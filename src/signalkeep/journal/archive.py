"""An archive keeps the segments that the journal no longer needs: <archive>/<journal uuid>/<segment>.

A segment is in the archive for good, under its name and synced, before anybody may unlink it from the journal: a crash
in between leaves it in both places, never in none. The archive is never made by us, only what lies below it: a disk
that is not mounted must not silently become a directory. An archived journal is read like any other.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from signalkeep.errors import EnvironmentFault, SyncFailed
from signalkeep.journal.files import FileSystem, write_all
from signalkeep.journal.segments import names_in
from signalkeep.limits import MIB

_PIECE_BYTES = 1 * MIB
_UNFINISHED = ".tmp"  # no reader looks at it


def keep(fs: FileSystem, archive: Path, segment: Path) -> None:
    """Put a segment that is not written any more into the archive, unless it is there.

    Raises EnvironmentFault, and leaves the journal as it is, if the archive does not take it.
    """
    try:
        _keep(fs, archive, segment)
    except (OSError, SyncFailed) as error:
        reason = error.message if isinstance(error, SyncFailed) else error.strerror or str(error)
        raise EnvironmentFault(
            f"journal.archive_dir: {archive} does not take {segment.parent.name}/{segment.name}: {reason}",
            hint="It stays in the journal until the archive is there and has room.",
        ) from error


def _keep(fs: FileSystem, archive: Path, segment: Path) -> None:
    fs.listdir(archive)  # it must be there
    directory = archive / segment.parent.name
    target, unfinished = directory / segment.name, directory / f"{segment.name}{_UNFINISHED}"
    with suppress(FileExistsError):
        fs.mkdir(directory)
        fs.sync_directory(archive)
    names = names_in(fs, directory)
    if target.name in names and fs.size(target) == fs.size(segment):
        fs.sync_directory(directory)  # a crash may have come between its name and this
        return
    if unfinished.name in names:
        fs.unlink(unfinished)
    try:
        fs.link(segment, unfinished)
        _sync(fs, unfinished)
    except OSError:  # another file system, or one without links
        _copy(fs, segment, unfinished)
    fs.rename(unfinished, target)
    fs.sync_directory(directory)


def _sync(fs: FileSystem, path: Path) -> None:
    """What is not acknowledged, such as a last seal, may never have been synced."""
    file = fs.open_read(path)
    try:
        fs.sync(file)
    finally:
        fs.close(file)


def _copy(fs: FileSystem, source: Path, target: Path) -> None:
    read = fs.open_read(source)
    try:
        written = fs.open_new(target)
        try:
            at = 0
            while piece := fs.pread(read, _PIECE_BYTES, at):
                write_all(fs, written, piece, at)
                at += len(piece)
            fs.sync(written)
        finally:
            fs.close(written)
    except OSError:
        with suppress(OSError):
            fs.unlink(target)  # a full disk should not stay fuller for it
        raise
    finally:
        fs.close(read)
