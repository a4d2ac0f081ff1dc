"""What an earlier run of the embedded server has left behind, and how to be rid of it without losing a row.

The caller holds the lock of the data directory, so no other supervisor lives: every server process that still
works there is an orphan. It is known by its working directory, which for every PostgreSQL process is its data
directory; a pid in a file proves nothing, since pids are used again.

A pid file is removed only when no PostgreSQL process works in the directory, and only where PostgreSQL itself
would give up over it: it is empty or damaged, or its pid now belongs to a process of somebody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import psutil

from signalkeep import limits
from signalkeep.errors import EnvironmentFault

_POLL_S: Final = 0.05
_QUIT_S_MAX: Final = 10.0  # PostgreSQL itself kills what has not obeyed a SIGQUIT after 5 s
_IDENTITY_BYTES_MAX: Final = 4096


async def stop_orphans(directory: Path) -> list[int]:
    """Stop every PostgreSQL process that works in this data directory; returns the pids found.

    A postmaster gets a fast shutdown, then an immediate one; both leave the data consistent, and its backends end
    with it. What is left after that, or was left by a killed postmaster, is told to quit at once, then killed.
    Raises EnvironmentFault if a process survives even that.
    """
    found = server_processes(directory)
    masters = [process for process in found if not _is_backend(process)]
    if not await _stopped(masters, signal.SIGINT, limits.POSTGRES_STOP_S_MAX):
        await _stopped(masters, signal.SIGQUIT, _QUIT_S_MAX)
    for number in (signal.SIGQUIT, signal.SIGKILL):
        if await _stopped(server_processes(directory), number, _QUIT_S_MAX):
            return [process.pid for process in found]
    pids = ", ".join(str(process.pid) for process in server_processes(directory))
    raise EnvironmentFault(
        f"processes of an earlier PostgreSQL cannot be ended and hold {directory}: {pids}",
        hint="They are stuck in the kernel, usually on a disk or network file system that does not answer.",
    )


def server_processes(directory: Path) -> list[psutil.Process]:
    """The PostgreSQL processes whose working directory this is."""
    try:
        wanted = directory.resolve(strict=True)
    except OSError:
        return []
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if not process.name().startswith("postgres") or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if Path(process.cwd()) == wanted:
                found.append(process)
    return found


def remove_stale_lock_files(directory: Path, socket_lock: Path) -> list[Path]:
    """Remove the pid file and the socket's lock file where they would keep PostgreSQL from starting."""
    assert not server_processes(directory), "lock files are judged only when nobody works in the directory"
    removed = []
    for file in (directory / "postmaster.pid", socket_lock):
        if _blocks_a_start(file):
            file.unlink()
            removed.append(file)
    return removed


def _blocks_a_start(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            lines = opened.read(_IDENTITY_BYTES_MAX).split(b"\n")
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        pid = abs(int(lines[0]))  # a single-user server writes it negated
    except ValueError:
        return True
    return pid == 0 or _is_alive(pid)


def _is_alive(pid: int) -> bool:
    """PostgreSQL asks the kernel alone, and takes any process that answers for a server."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _is_backend(process: psutil.Process) -> bool:
    """A postmaster keeps the command line it was started with; every child of it renames itself."""
    try:
        return " ".join(process.cmdline()).startswith("postgres: ")
    except psutil.Error:
        return False


async def _stopped(processes: Iterable[psutil.Process], number: int, patience_s: float) -> bool:
    """Send a signal to each, if any, and wait until all have ended."""
    living = list(processes)
    for process in living:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    return await eventually(lambda: not any(_lives(process) for process in living), patience_s)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def eventually(condition: Callable[[], bool], patience_s: float) -> bool:
    """Whether the condition comes true in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    while not condition():
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True
