"""Drill of the disk under the journals: it is full, and then it is not.

While it is full nobody is told that anything is safe; afterwards nobody has to start anything again. The small disk is
an ext4 image on a loop device: a journal on tmpfs is refused. What it cannot see: disks that fail instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.core import Core
from tests.faults.drill import Impossible, Result, end
from tests.faults.fleet import Load, load
from tests.faults.judgement import dsn_of
from tests.faults.victims import GATEWAY, find
from tests.servers import wait_until

IMAGE_BYTES: Final = 48 << 20
SEGMENT_BYTES: Final = 256 * 1024
STILL_S: Final = 1.5  # without a single acknowledgement: the disk is full
FULL_S_MAX: Final = 120.0


def disk_full(seconds: float) -> Result:
    """A ballast file takes what the journal's disk has left, and goes again."""
    result = Result()
    core = Core(unknown_devices="register", journal__segment_bytes=str(SEGMENT_BYTES))
    core.data.mkdir(mode=0o711)
    core.data.chmod(0o711)  # as the product makes it, whatever the umask
    try:
        with small_disk(core.directory / "disk.image", core.data / "journal"):
            try:
                core.start()
                _fill_and_empty(core, seconds, result)
            finally:
                if core.process.poll() is None:
                    core.stop()
    finally:
        core.close()
    return result


def _fill_and_empty(core: Core, seconds: float, result: Result) -> None:
    dsn = dsn_of(core)
    gateway = find(core, GATEWAY)
    ballast = core.data / "journal" / "ballast"
    with load(core) as driving:
        driving.wait_for_progress()
        _fill_until_still(driving, ballast)
        before, began_s = driving.told_safe, time.monotonic()
        while time.monotonic() < began_s + seconds and driving.told_safe == before:
            time.sleep(0.05)  # the outage lasts
        result.told_safe_in_outage = driving.told_safe - before
        if result.told_safe_in_outage:
            result.broken.append(f"{result.told_safe_in_outage} records were acknowledged on a full disk")
        ballast.unlink()
        over_s = time.monotonic()
        result.outage_s = over_s - began_s
        driving.wait_for_progress(20)
        if find(core, GATEWAY) != gateway:
            result.broken.append("the gateway ended on a full disk")
        end(core, dsn, driving, result, over_s=over_s)


def _fill_until_still(driving: Load, ballast: Path) -> None:
    """Take all room, again and again, until segments that had theirs before are full as well."""
    still_since_s, known = time.monotonic(), driving.told_safe

    def is_still() -> bool:
        nonlocal still_since_s, known
        take_all_room(ballast)
        if driving.told_safe != known:
            still_since_s, known = time.monotonic(), driving.told_safe
        return time.monotonic() > still_since_s + STILL_S

    wait_until(is_still, FULL_S_MAX, what="nobody is acknowledged any more on a full disk")


def take_all_room(ballast: Path) -> None:
    """Until the disk gives nothing more."""
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


@contextmanager
def small_disk(image: Path, mounted_at: Path) -> Iterator[None]:
    """An ext4 file system of its own. Raises Impossible where one cannot be mounted."""
    if os.geteuid() != 0:
        raise Impossible("only root can mount a small disk")
    programs = [shutil.which(name) for name in ("mkfs.ext4", "mount", "umount")]
    if None in programs:
        raise Impossible("mkfs.ext4, mount and umount are needed for a small disk")
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    mounted_at.mkdir(mode=0o700)
    _told(["mkfs.ext4", "-q", "-F", str(image)])
    _told(["mount", "-o", "loop", str(image), str(mounted_at)])
    try:
        mounted_at.chmod(0o700)
        yield
    finally:
        wait_until(lambda: _unmounted(mounted_at), 60, what=f"{mounted_at} is unmounted")


def _unmounted(mounted_at: Path) -> bool:
    """Whoever was killed there may take a moment to let go of it."""
    return not mounted_at.is_mount() or not subprocess.run(["umount", str(mounted_at)], check=False).returncode


def _told(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise Impossible(f"{' '.join(command[:3])} ended with {done.returncode}: {done.stderr.strip()}")
