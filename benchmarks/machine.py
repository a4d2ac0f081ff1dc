"""The machine that figures were measured on, in general terms: no names, no addresses."""

from __future__ import annotations

import platform
from pathlib import Path

import psutil

from signalkeep.disks import mount_of

GIB = 1 << 30


def describe(place: Path) -> dict[str, str]:
    """Processor, cores, memory, system, Python, and the file system under the data."""
    return {
        "processor": _processor(),
        "cores": str(psutil.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / GIB:.0f} GiB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}, {platform.machine()}",
        "python": platform.python_version(),
        "file system": mount_of(place).fstype,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
