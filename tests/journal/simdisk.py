"""A simulated file system with a memory (what programs see) and a disk (what a power loss leaves).

Faults it can make: power loss after any operation, with none, all or any subset of what was not synced, cut into
512-byte sectors or torn at any byte, in any order within a file, names and files apart, sizes without data; process
death that leaves memory as it is; errors of any call; a failed sync after which the pages count as clean; short
writes; any change of stored bytes. What it cannot show: bugs of kernels, and drives that lie about flushing.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from enum import Enum, auto
from pathlib import Path
from typing import TypeAlias

from signalkeep.errors import SyncFailed

SECTOR_BYTES = 512


class Crash(Enum):
    """What a power loss leaves of that which was not synced."""

    NONE = auto()
    ALL = auto()
    SECTORS = auto()  # any subset of sectors, sizes and names
    PREFIX = auto()  # what came first, torn anywhere


Write: TypeAlias = tuple[int, bytes]
Resize: TypeAlias = int
Operation: TypeAlias = tuple[str, tuple[object, ...]]


class _File:
    def __init__(self, durable: bytes = b"") -> None:
        self.durable = durable
        self.memory: bytes | bytearray = durable
        self.pending: list[Write | Resize] = []
        self.locked = False
        self.modified_at = 0.0

    def apply(self, change: Write | Resize) -> None:
        self.memory = _changed(bytearray(self.memory), [change])
        self.pending.append(change)

    def flush(self) -> None:
        if self.pending:
            self.durable = bytes(_changed(bytearray(self.durable), self.pending))
            self.pending = []


class _Directory:
    def __init__(self) -> None:
        self.durable: dict[str, _File | _Directory] = {}
        self.memory: dict[str, _File | _Directory] = {}
        self.pending: list[dict[str, _File | _Directory | None]] = []  # each happens whole or not at all

    def apply(self, change: dict[str, _File | _Directory | None]) -> None:
        _rename(self.memory, change)
        self.pending.append(change)

    def flush(self) -> None:
        for change in self.pending:
            _rename(self.durable, change)
        self.pending = []


def _changed(data: bytearray, changes: list[Write | Resize]) -> bytearray:
    for change in changes:
        if isinstance(change, int):
            data = data[:change].ljust(change, b"\0")
        else:
            offset, piece = change
            if len(data) < offset:
                data = data.ljust(offset, b"\0")
            data[offset : offset + len(piece)] = piece
    return data


def _rename(names: dict[str, _File | _Directory], change: dict[str, _File | _Directory | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _error(number: int, path: object = None) -> OSError:
    return OSError(number, os.strerror(number), str(path))


class SimDisk:
    """A FileSystem. `after` runs after each change, `before` before each call; it may raise what the call shall raise.

    `log`: every change, so that it can be done again elsewhere (`replay`).
    """

    def __init__(self) -> None:
        self._root = _Directory()
        self._open: dict[int, _File] = {}
        self._last_file = 2
        self.after: Callable[[str], None] = lambda _: None
        self.before: Callable[[str], None] = lambda _: None
        self.short_writes: random.Random | None = None
        self.log: list[Operation] = []
        self.now: Callable[[], float] = lambda: 0.0
        self.free = 1 << 40

    # What a crash leaves

    @property
    def unsynced(self) -> bool:
        """Whether a power loss could lose anything."""
        return _unsynced(self._root)

    def power_loss(self, rng: random.Random, crash: Crash) -> SimDisk:
        """The disk as it is found afterwards; this one stays as it is."""
        found = SimDisk()
        found._root = _after_power_loss(self._root, rng, crash)
        return found

    def process_death(self) -> SimDisk:
        """What other processes find when the one that wrote is gone; this one stays as it is."""
        found = SimDisk()
        found._root = _copied(self._root)
        return found

    def damage(self, path: Path, change: Callable[[bytes], bytes]) -> None:
        """Change stored bytes behind the back of everybody."""
        file = self._file(path)
        file.durable = file.memory = change(bytes(file.memory))
        file.pending = []

    def content(self, path: Path) -> bytes:
        return bytes(self._file(path).memory)

    def durable_contents(self) -> Iterator[bytes]:
        """What a power loss leaves of each file at the least; what has the latest names first."""
        waiting = [self._root]
        while waiting:
            directory = waiting.pop()
            for _, node in sorted(directory.durable.items(), reverse=True):
                if isinstance(node, _Directory):
                    waiting.append(node)
                else:
                    yield node.durable

    def replay(self, operation: Operation) -> None:
        """Do again what was done on another disk. File numbers are the same as there; others here are larger."""
        name, arguments = operation
        self._last_file = max(self._last_file, 1_000_000)
        if name in ("open_new", "lock"):
            path, number = arguments
            assert isinstance(path, Path)
            assert isinstance(number, int)
            file = self._open_file(name, path)
            self._open[number] = file
        else:
            getattr(self, name)(*arguments)

    # FileSystem: changes

    def mkdir(self, path: Path) -> None:
        self.before("mkdir")
        parent = self._directory(path.parent)
        if path.name in parent.memory:
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        parent.apply({path.name: _Directory()})
        self._done("mkdir", path)

    def rmdir(self, path: Path) -> None:
        self.before("rmdir")
        if self._directory(path).memory:
            raise _error(errno.ENOTEMPTY, path)
        self._directory(path.parent).apply({path.name: None})
        self._done("rmdir", path)

    def rename(self, old: Path, new: Path) -> None:
        self.before("rename")
        assert old.parent == new.parent
        node = self._node(old)
        there = self._directory(new.parent).memory.get(new.name)
        if isinstance(there, _Directory) and there.memory:
            raise _error(errno.ENOTEMPTY, new)
        self._directory(old.parent).apply({old.name: None, new.name: node})
        self._done("rename", old, new)

    def link(self, path: Path, new: Path) -> None:
        self.before("link")
        node = self._file(path)
        if new.name in self._directory(new.parent).memory:
            raise FileExistsError(errno.EEXIST, "exists", str(new))
        self._directory(new.parent).apply({new.name: node})
        self._done("link", path, new)

    def unlink(self, path: Path) -> None:
        self.before("unlink")
        self._file(path)
        self._directory(path.parent).apply({path.name: None})
        self._done("unlink", path)

    def sync_directory(self, path: Path) -> None:
        self._sync("sync_directory", self._directory(path))
        self._done("sync_directory", path)

    def open_new(self, path: Path) -> int:
        self.before("open_new")
        return self._opened("open_new", path)

    def close(self, file: int) -> None:
        self._open.pop(file).locked = False
        self._done("close", file)

    def allocate(self, file: int, length: int) -> None:
        self.before("allocate")
        self._open[file].apply(length)
        self._done("allocate", file, length)

    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
        self.before("pwrite")
        piece = bytes(data)
        if self.short_writes is not None and self.short_writes.random() < 0.5:
            piece = piece[: self.short_writes.randint(1, len(piece))]
        self._open[file].apply((offset, piece))
        self._open[file].modified_at = self.now()
        self._done("pwrite", file, piece, offset)
        return len(piece)

    def truncate(self, file: int, length: int) -> None:
        self.before("truncate")
        self._open[file].apply(length)
        self._done("truncate", file, length)

    def datasync(self, file: int) -> None:
        self._sync("datasync", self._open[file])
        self._done("datasync", file)

    def sync(self, file: int) -> None:
        self._sync("sync", self._open[file])
        self._done("sync", file)

    def lock(self, path: Path) -> int:
        self.before("lock")
        return self._opened("lock", path)

    # FileSystem: questions

    def listdir(self, path: Path) -> list[str]:
        self.before("listdir")
        return list(self._directory(path).memory)

    def open_read(self, path: Path) -> int:
        self.before("open_read")
        return self._numbered(self._file(path))

    def pread(self, file: int, length: int, offset: int) -> bytes:
        self.before("pread")
        return bytes(self._open[file].memory[offset : offset + length])

    def size(self, path: Path) -> int:
        self.before("size")
        return len(self._file(path).memory)

    def modified_at(self, path: Path) -> float:
        return self._file(path).modified_at

    def free_bytes(self, path: Path) -> int:
        return self.free

    def locked(self, path: Path) -> bool:
        self.before("locked")
        try:
            return self._file(path).locked
        except (FileNotFoundError, NotADirectoryError):
            return False

    # Inside

    def _done(self, name: str, *arguments: object) -> None:
        self.log.append((name, arguments))
        self.after(name)

    def _sync(self, name: str, node: _File | _Directory) -> None:
        try:
            self.before(name)
        except OSError as error:
            node.pending = []  # the pages count as clean, and no later sync will write them
            raise SyncFailed("a sync failed") from error
        node.flush()

    def _opened(self, name: str, path: Path) -> int:
        number = self._numbered(self._open_file(name, path))
        self._done(name, path, number)
        return number

    def _numbered(self, file: _File) -> int:
        self._last_file += 1
        self._open[self._last_file] = file
        return self._last_file

    def _open_file(self, name: str, path: Path) -> _File:
        parent = self._directory(path.parent)
        node = parent.memory.get(path.name)
        if name == "open_new" and node is not None:
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        if node is None:
            node = _File()
            parent.apply({path.name: node})
        assert isinstance(node, _File)
        if name == "lock":
            if node.locked:
                raise BlockingIOError(errno.EAGAIN, "locked", str(path))
            node.locked = True
        return node

    def _node(self, path: Path) -> _File | _Directory:
        node: _File | _Directory = self._root
        for name in path.parts[1:]:
            if not isinstance(node, _Directory):
                raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(path))
            if name not in node.memory:
                raise FileNotFoundError(errno.ENOENT, "not found", str(path))
            node = node.memory[name]
        return node

    def _directory(self, path: Path) -> _Directory:
        node = self._node(path)
        if not isinstance(node, _Directory):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(path))
        return node

    def _file(self, path: Path) -> _File:
        node = self._node(path)
        assert isinstance(node, _File)
        return node


def _unsynced(node: _File | _Directory) -> bool:
    if node.pending:
        return True
    return isinstance(node, _Directory) and any(_unsynced(child) for child in node.memory.values())


def _copied(node: _Directory) -> _Directory:
    """With all that is not synced yet, and nodes that only have a name in memory or on the disk."""
    twins: dict[int, _File | _Directory] = {}

    def twin(old: _File | _Directory) -> _File | _Directory:
        if id(old) in twins:
            return twins[id(old)]
        if isinstance(old, _File):
            new = _File(old.durable)
            new.memory = bytes(old.memory)
            new.pending = list(old.pending)
            twins[id(old)] = new
            return new
        copy = _Directory()
        twins[id(old)] = copy
        copy.durable = {name: twin(child) for name, child in old.durable.items()}
        copy.memory = {name: twin(child) for name, child in old.memory.items()}
        copy.pending = [
            {name: child if child is None else twin(child) for name, child in change.items()} for change in old.pending
        ]
        return copy

    copy = twin(node)
    assert isinstance(copy, _Directory)
    return copy


def _after_power_loss(directory: _Directory, rng: random.Random, crash: Crash) -> _Directory:
    names = dict(directory.durable)
    if crash is Crash.ALL:
        names = dict(directory.memory)
    elif crash is Crash.PREFIX:
        for change in directory.pending[: rng.randint(0, len(directory.pending))]:
            _rename(names, change)
    elif crash is Crash.SECTORS:
        for change in directory.pending:
            if rng.random() < 0.5:
                _rename(names, change)
    found = _Directory()
    for name, node in names.items():
        if isinstance(node, _Directory):
            found.durable[name] = _after_power_loss(node, rng, crash)
        else:
            found.durable[name] = _File(_file_after_power_loss(node, rng, crash))
    found.memory = dict(found.durable)
    return found


def _file_after_power_loss(file: _File, rng: random.Random, crash: Crash) -> bytes:
    if not file.pending or crash is Crash.NONE:
        return file.durable
    if crash is Crash.ALL:
        return bytes(_changed(bytearray(file.durable), file.pending))
    pieces: list[Write | Resize] = []
    for change in file.pending:
        pieces += [change] if isinstance(change, int) else _sectors(*change)
    if crash is Crash.PREFIX:
        kept = pieces[: rng.randint(0, len(pieces))]
        if kept and not isinstance(kept[-1], int):
            offset, data = kept[-1]
            kept[-1] = (offset, data[: rng.randint(0, len(data))])
    else:
        share = rng.choice((0.1, 0.5, 0.9))
        kept = [piece for piece in pieces if rng.random() < share]
    return bytes(_changed(bytearray(file.durable), kept))


def _sectors(offset: int, data: bytes) -> list[Write | Resize]:
    cuts = [offset, *range((offset // SECTOR_BYTES + 1) * SECTOR_BYTES, offset + len(data), SECTOR_BYTES)]
    ends = [*cuts[1:], offset + len(data)]
    return [(start, data[start - offset : end - offset]) for start, end in zip(cuts, ends, strict=True)]
