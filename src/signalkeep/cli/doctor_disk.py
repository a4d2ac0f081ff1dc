"""What `doctor` finds out about disks: file systems, how they are mounted, what is below them, and if a sync works.

It reads what the kernel says in /proc and /sys, and changes nothing: the one file that it writes, to see whether a sync
works, has no name and is gone with the command. What a kernel does not say is left out, not guessed.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Final, Literal

import msgspec
import psutil

from signalkeep import limits
from signalkeep.config import Settings

Outcome = Literal["ok", "warn", "fail"]

VOLATILE: Final = {"tmpfs", "ramfs", "devtmpfs"}
NETWORK: Final = {
    "nfs", "nfs3", "nfs4", "cifs", "smb3", "smbfs", "afpfs", "webdav", "9p", "ceph", "glusterfs", "lustre",
}  # fmt: skip
NO_BARRIERS: Final = {"nobarrier", "barrier=0"}  # the drive's cache is not flushed: a sync is none
SYNC_BYTES: Final = 4096
SYS_BLOCK: Final = Path("/sys/dev/block")


class Check(msgspec.Struct, frozen=True):
    """One thing looked at: what was found, and what to do unless it is well."""

    check: str
    result: Outcome
    found: str
    advice: str = ""


class Mount(msgspec.Struct, frozen=True):
    """The file system that holds a path."""

    mountpoint: str
    fstype: str
    device: str = ""
    options: tuple[str, ...] = ()
    write_cache: str = ""  # "write back", "write through"; "": the kernel does not say

    @property
    def described(self) -> str:
        """As in: disk /dev/sda1 (write cache: write back), file system ext4."""
        cache = f" (write cache: {self.write_cache})" if self.write_cache else ""
        return f"disk {self.device or 'unknown'}{cache}, file system {self.fstype}"


def existing(path: Path) -> Path:
    """The path, or the nearest place above it that exists."""
    while not path.exists():
        path = path.parent
    return path


def mount_of(place: Path) -> Mount:
    """Of all mounts above the path, the one with the longest name."""
    resolved = place.resolve()
    mounts = [mount for mount in psutil.disk_partitions(all=True) if resolved.is_relative_to(mount.mountpoint)]
    if not mounts:
        return Mount("?", "unknown")
    # A later mount on the same point hides an earlier one, and max() would keep the first.
    found = max(reversed(mounts), key=lambda mount: len(Path(mount.mountpoint).parts))
    cache = write_cache_of(place.stat().st_dev)
    return Mount(found.mountpoint, found.fstype, found.device, tuple(found.opts.split(",")), cache)


def write_cache_of(device: int, root: Path = SYS_BLOCK) -> str:
    """Whether the drive keeps writes in a cache of its own, which a sync has to flush."""
    place = (root / f"{os.major(device)}:{os.minor(device)}").resolve()
    for above in (place, place.parent):  # a partition has its disk's queue
        try:
            return (above / "queue" / "write_cache").read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
    return ""


def check_file_system(name: str, place: Path, mount: Mount) -> Check:
    """Whether a sync on it can be believed."""
    found = f"{mount.fstype} at {mount.mountpoint}, below {place}"
    if mount.write_cache:
        found += f"; the drive's write cache: {mount.write_cache}"
    kind = mount.fstype.lower()
    off = sorted(NO_BARRIERS & set(mount.options))
    if kind in VOLATILE:
        return Check(name, "fail", found, "It is memory, lost with the power. Put the data on a disk.")
    if kind in NETWORK or kind.startswith("fuse."):
        return Check(name, "fail", found, "It does not promise that a sync is one. Put the data on a local disk.")
    if off:
        advice = "A sync does not reach the disk. Mount it without this option."
        return Check(name, "fail", f"{found}, mounted with {', '.join(off)}", advice)
    if kind == "overlay":
        return Check(name, "warn", found, "It goes with the container. Mount a volume there.")
    if "data=writeback" in mount.options:
        advice = "What is synced is safe; what is not may show old blocks after a crash. data=ordered is better."
        return Check(name, "warn", f"{found}, mounted with data=writeback", advice)
    return Check(name, "ok", found)


class SyncTest(msgspec.Struct, frozen=True):
    """A few bytes, written and synced. `took_ms` is None if that failed."""

    how: str
    took_ms: float | None
    why: str = ""


def try_sync(place: Path) -> SyncTest:
    how = "fdatasync" if hasattr(os, "fdatasync") else "fsync"
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            os.write(file.fileno(), b"\0" * SYNC_BYTES)
            started = time.perf_counter()
            getattr(os, how)(file.fileno())
            return SyncTest(how, (time.perf_counter() - started) * 1000)
    except OSError as error:
        return SyncTest(how, None, error.strerror or str(error))


def check_sync(place: Path, test: SyncTest) -> Check:
    if test.took_ms is None:
        return Check("sync", "fail", f"writing and syncing in {place}: {test.why}", "Nothing could be acknowledged.")
    found = f"{SYNC_BYTES} bytes on stable storage in {test.took_ms:.1f} ms"
    if "eatmydata" in os.environ.get("LD_PRELOAD", ""):
        return Check("sync", "fail", f"{found}, with eatmydata in LD_PRELOAD", "Syncs are ignored. Start without it.")
    return Check("sync", "ok", found)


def check_space(settings: Settings, free_bytes: int) -> Check:
    journal = settings.journal
    found = f"{free_bytes / limits.GIB:.1f} GiB free"
    if free_bytes < journal.disk_free_bytes:
        return Check(
            "disk space",
            "fail",
            f"{found}, journal.disk_free_bytes wants {journal.disk_free_bytes / limits.GIB:.1f}",
            "Free some: until then nothing is acknowledged.",
        )
    if free_bytes < journal.cap_bytes:
        return Check(
            "disk space",
            "warn",
            f"{found}, the journal may grow to {journal.cap_bytes / limits.GIB:.1f} GiB (journal.cap_bytes)",
            "With the database away for long, the disk fills first. Lower the cap or add space.",
        )
    return Check("disk space", "ok", found)


def check_directory(data: Path, place: Path) -> Check:
    if not place.is_dir():
        return Check("data directory", "fail", f"{place} is not a directory", "Choose another with --data.")
    if not os.access(place, os.W_OK | os.X_OK):
        return Check(
            "data directory", "fail", f"no right to write to {place}", f"Give it to this user: chown USER {place}"
        )
    return Check("data directory", "ok", str(data) if data.exists() else f"{data} will be made at the first start")
