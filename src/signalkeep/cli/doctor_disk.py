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

from signalkeep import disks, limits
from signalkeep.config import Settings
from signalkeep.disks import Mount

Outcome = Literal["ok", "warn", "fail"]

SYNC_BYTES: Final = 4096


class Check(msgspec.Struct, frozen=True):
    """One thing looked at: what was found, and what to do unless it is well."""

    check: str
    result: Outcome
    found: str
    advice: str = ""


def check_file_system(name: str, place: Path, mount: Mount) -> Check:
    """Whether a sync on it can be believed."""
    found = f"{mount.fstype} at {mount.mountpoint}, below {place}"
    if mount.write_cache:
        found += f"; the drive's write cache: {mount.write_cache}"
    danger = disks.danger_of(mount)
    if danger:
        return Check(name, "fail", found, danger)
    if mount.fstype.lower() == "overlay":
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
