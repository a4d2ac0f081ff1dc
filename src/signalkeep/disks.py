"""File systems: which one holds a path, and whether a sync on it can be believed.

It reads what the kernel says in /proc and /sys. What a kernel does not say is left out, not guessed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec
import psutil

VOLATILE: Final = {"tmpfs", "ramfs", "devtmpfs"}
NETWORK: Final = {
    "nfs", "nfs3", "nfs4", "cifs", "smb3", "smbfs", "afpfs", "webdav", "9p", "ceph", "glusterfs", "lustre",
}  # fmt: skip
NO_BARRIERS: Final = {"nobarrier", "barrier=0"}  # the drive's cache is not flushed: a sync is none
SYS_BLOCK: Final = Path("/sys/dev/block")


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


def danger_of(mount: Mount) -> str:
    """Why what is synced there may be lost all the same, and what to do; "" if it may not."""
    kind = mount.fstype.lower()
    if kind in VOLATILE:
        return "It is memory, lost with the power. Put the data on a disk."
    if kind in NETWORK or kind.startswith("fuse."):
        return "It does not promise that a sync is one. Put the data on a local disk."
    if NO_BARRIERS & set(mount.options):
        return "A sync does not reach the disk. Mount it without nobarrier or barrier=0."
    return ""
