"""What processes use while something is measured: processor seconds and peak memory, by role.

PostgreSQL is its postmaster with all that it has started, what has ended included; its memory is counted once where
processes share it (PSS). A process that was replaced counts with what it had used at the last look.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import psutil

LOOK_EVERY_S = 0.5
MIB = 1 << 20


def cpu_s_of(process: psutil.Process, *, ended_children: bool = False) -> float:
    """Processor seconds of a process, and of the children that have ended under it."""
    times = process.cpu_times()
    own = float(times.user + times.system)
    return own + float(times.children_user + times.children_system) if ended_children else own


def busy_s() -> float:
    """Processor seconds that this machine has spent on anything, on all cores together."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


@dataclass
class Usage:
    """Of one role."""

    cpu_s: float = 0.0
    peak_mib: float = 0.0


class Sampler:
    """Looks at the processes in a thread of its own. `roles` gives pids by role at every look; they may change."""

    def __init__(self, roles: Callable[[], dict[str, list[int]]]) -> None:
        self._roles = roles
        self._at_start: dict[int, float] = {}
        self._last: dict[tuple[str, int], float] = {}
        self._peak: dict[str, float] = defaultdict(float)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Sampler:
        self._look()
        self._at_start = {pid: cpu_s for (_, pid), cpu_s in self._last.items()}
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def usage(self) -> dict[str, Usage]:
        """Since the start, by role."""
        found: dict[str, Usage] = defaultdict(Usage)
        for (role, pid), cpu_s in self._last.items():
            found[role].cpu_s += cpu_s - self._at_start.get(pid, 0.0)
        for role, peak in self._peak.items():
            found[role].peak_mib = peak / MIB
        return dict(found)

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            self._look()

    def _look(self) -> None:
        for role, pids in self._roles().items():
            processes = []
            for pid in pids:
                try:
                    process = psutil.Process(pid)
                    processes += [process, *(process.children(recursive=True) if role == "postgres" else [])]
                except psutil.Error:
                    continue
            memory = 0.0
            for process in processes:
                try:
                    self._last[role, process.pid] = cpu_s_of(process, ended_children=process.pid in pids)
                    memory += process.memory_full_info().pss if role == "postgres" else process.memory_info().rss
                except psutil.Error:
                    continue
            self._peak[role] = max(self._peak[role], memory)
