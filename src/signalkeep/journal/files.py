"""The file system as the journal needs it, and nothing more; passed in, so that tests can crash it at every operation.

Contract of every implementation: calls raise OSError as the operating system does, except that a sync which reports
any error raises SyncFailed. A failed sync is never tried again: the kernel may have marked the pages clean, and the
second call would report success with the data gone.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from signalkeep.errors import SyncFailed

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600


class FileSystem(Protocol):
    """Files are numbers, as in the operating system."""

    def mkdir(self, path: Path) -> None: ...

    def rmdir(self, path: Path) -> None: ...

    def listdir(self, path: Path) -> list[str]:
        """The names in a directory, in no order."""
        ...

    def rename(self, old: Path, new: Path) -> None: ...

    def link(self, path: Path, new: Path) -> None:
        """Give a file a second name on the same file system."""
        ...

    def unlink(self, path: Path) -> None: ...

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable. Raises SyncFailed."""
        ...

    def open_new(self, path: Path) -> int:
        """Create a file that does not exist yet, for writing and reading."""
        ...

    def open_read(self, path: Path) -> int: ...

    def close(self, file: int) -> None: ...

    def allocate(self, file: int, length: int) -> None:
        """Give a new file its size and its space; it reads as zeros."""
        ...

    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
        """Write some of the data, at least one byte; returns how many."""
        ...

    def pread(self, file: int, length: int, offset: int) -> bytes:
        """Read; short only at the end of the file."""
        ...

    def truncate(self, file: int, length: int) -> None: ...

    def datasync(self, file: int) -> None:
        """Make the content durable, and what is needed to read it. Raises SyncFailed."""
        ...

    def sync(self, file: int) -> None:
        """The same with all that describes the file. Raises SyncFailed."""
        ...

    def size(self, path: Path) -> int: ...

    def modified_at(self, path: Path) -> float:
        """When the content last changed, in seconds since 1970."""
        ...

    def free_bytes(self, path: Path) -> int:
        """Space that this process may still use on the file system of `path`."""
        ...

    def lock(self, path: Path) -> int:
        """Create the file if need be and hold it exclusively until it is closed or the process dies.

        Raises BlockingIOError if another holds it.
        """
        ...

    def locked(self, path: Path) -> bool:
        """Whether somebody holds it; a file that does not exist is held by nobody."""
        ...


def write_all(fs: FileSystem, file: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of the data, however little the system takes at a time. Raises OSError."""
    rest = memoryview(data)
    while rest:
        written = fs.pwrite(file, rest, offset)
        offset, rest = offset + written, rest[written:]


class LocalFileSystem:
    """The file systems of this machine."""

    def mkdir(self, path: Path) -> None:
        path.mkdir(mode=DIRECTORY_MODE)

    def rmdir(self, path: Path) -> None:
        path.rmdir()

    def listdir(self, path: Path) -> list[str]:
        return os.listdir(path)  # noqa: PTH208 - names are all we want, a Path for each costs far more

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def link(self, path: Path, new: Path) -> None:
        os.link(path, new)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def sync_directory(self, path: Path) -> None:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _synced(_flush, directory)
        finally:
            os.close(directory)

    def open_new(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)

    def open_read(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY)

    def close(self, file: int) -> None:
        os.close(file)

    def allocate(self, file: int, length: int) -> None:
        if sys.platform == "darwin":
            os.ftruncate(file, length)  # no call that also reserves the space
        else:
            os.posix_fallocate(file, 0, length)

    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
        return os.pwrite(file, data, offset)

    def pread(self, file: int, length: int, offset: int) -> bytes:
        data = os.pread(file, length, offset)
        while 0 < len(data) < length:
            more = os.pread(file, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def truncate(self, file: int, length: int) -> None:
        os.ftruncate(file, length)

    def datasync(self, file: int) -> None:
        _synced(_flush if sys.platform == "darwin" else os.fdatasync, file)

    def sync(self, file: int) -> None:
        _synced(_flush, file)

    def size(self, path: Path) -> int:
        return path.stat().st_size

    def modified_at(self, path: Path) -> float:
        return path.stat().st_mtime

    def free_bytes(self, path: Path) -> int:
        facts = os.statvfs(path)
        return facts.f_bavail * facts.f_frsize

    def lock(self, path: Path) -> int:
        file = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            raise
        return file

    def locked(self, path: Path) -> bool:
        try:
            file = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: readers do not hinder each other
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False


def _flush(file: int) -> None:
    if sys.platform == "darwin":
        fcntl.fcntl(file, fcntl.F_FULLFSYNC)  # fsync stops at the drive's cache there
    else:
        os.fsync(file)


def _synced(sync: Callable[[int], None], file: int) -> None:
    """The one place where a failed sync becomes what it is."""
    try:
        sync(file)
    except OSError as error:
        raise SyncFailed(
            f"a sync of the journal failed: {error.strerror or error}",
            hint="Look at the kernel log and the health of the disk; unacknowledged data will be sent again.",
        ) from error
