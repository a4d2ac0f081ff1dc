"""What every role process does alike: say that it is there, notice that it should stop, and go.

A role writes `<data>/run/<role>-<n>.json` when it is ready and removes it at a clean end; a file whose process is gone
counts for nothing. A role that was started by a supervisor holds the read end of a pipe: when the supervisor dies,
however it dies, the pipe closes and the role stops cleanly, so that no orphan keeps a port.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

from signalkeep import disks
from signalkeep.config import Settings
from signalkeep.errors import EnvironmentFault, UnsafeDisk
from signalkeep.telemetry import get_logger

AUTOGROUP: Final = Path("/proc/self/autogroup")

log = get_logger()


class RoleState(msgspec.Struct, kw_only=True):
    """A running role, as `status` shows it."""

    role: str
    instance: int
    pid: int
    started_at: datetime
    ports: dict[str, int] = msgspec.field(default_factory=dict)
    detail: dict[str, Any] = msgspec.field(default_factory=dict)


class RoleFile:
    """The announcement of this process."""

    def __init__(self, run_root: Path, role: str, instance: int) -> None:
        self._path = run_root / f"{role}-{instance}.json"
        self._state = RoleState(role=role, instance=instance, pid=os.getpid(), started_at=datetime.now(UTC))

    def ready(self, *, ports: dict[str, int] | None = None, **detail: Any) -> None:
        """Say that the role works."""
        self._state.ports, self._state.detail = ports or {}, detail
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(msgspec.json.encode(self._state))
        temporary.replace(self._path)

    def gone(self) -> None:
        """Take the announcement back."""
        self._path.unlink(missing_ok=True)


def running_roles(run_root: Path) -> list[RoleState]:
    """The roles that live now."""
    roles = []
    for path in sorted(run_root.glob("*-*.json")):
        try:
            state = msgspec.json.decode(path.read_bytes(), type=RoleState)
        except (OSError, msgspec.DecodeError):
            continue
        if process_lives(state.pid, state.started_at):
            roles.append(state)
    return roles


def process_lives(pid: int, announced_at: datetime) -> bool:
    """The process is there and is not a later one that got the same pid."""
    try:
        process = psutil.Process(pid)
        return process.create_time() <= announced_at.timestamp() + 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def stop_on_signals(stop: asyncio.Event, parent_fd: int | None) -> None:
    """Set `stop` at SIGTERM, SIGINT, SIGHUP, and when the supervisor's end of the pipe closes. The log says which.

    Further signals change nothing: the orderly stop goes on. A SIGHUP ignored from the start (`nohup`) stays ignored.
    """
    loop = asyncio.get_running_loop()

    def stop_for(reason: str) -> None:
        if not stop.is_set():
            log.info("stopping", reason=reason, pid=os.getpid())
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stop_for, number.name)
    if parent_fd is not None:

        def parent_gone() -> None:
            loop.remove_reader(parent_fd)
            stop_for("the supervisor has ended")

        loop.add_reader(parent_fd, parent_gone)


def lower_priority(by: int) -> None:
    """Let other processes go first where processors are short.

    Linux may group processes by session, as our roles have one each, and then goes by the priority of the group.
    """
    os.nice(by)
    if os.getsid(0) != os.getpid():
        return  # it is not ours alone
    with suppress(OSError):  # only Linux has it, and not always
        AUTOGROUP.write_text(str(by), encoding="ascii")


def prepare_directories(settings: Settings) -> None:
    """Make the data directory and what roles share in it. Raises EnvironmentFault if that is not possible.

    The data directory itself lets others pass through (0711): as root, PostgreSQL runs as another user. Everything of
    ours in it is closed to them.
    """
    try:
        if not settings.data.exists():
            _make_durable(settings.data)
            settings.data.chmod(0o711)
        for directory in (settings.journal_root, settings.evidence_root, settings.run_root):
            directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(
            f"the data directory {settings.data} cannot be used: {error.strerror or error}",
            hint="Choose another with --data, or make it writable for this user.",
        ) from error


def refuse_unsafe_disk(settings: Settings) -> None:
    """Raises UnsafeDisk if what is synced to the journal may be lost all the same. The journal's directory exists."""
    mount = disks.mount_of(settings.journal_root)
    danger = disks.danger_of(mount)
    if danger and not settings.journal.allow_unsafe:
        raise UnsafeDisk(
            f"the journal would be on {mount.fstype} at {mount.mountpoint}: what is acknowledged could be lost",
            hint=f"{danger} Only for tests: journal.allow_unsafe = true.",
        )


def _make_durable(directory: Path) -> None:
    """Make a directory with its parents, each name synced: the journal's own syncs begin below it."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        parent = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
