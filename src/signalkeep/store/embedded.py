"""The embedded PostgreSQL: a server of our own, as a direct child, in the data directory.

    <data>/postgres/18/           its data, one directory for each major version, made whole or not at all
    <data>/postgres/socket/       its door (0700); under /tmp when the path is too long for a socket
    <data>/postgres/server-18-*/  a copy of the programs, where the server's account cannot reach the wheel's
    <data>/postgres/lock          held by whoever runs the server; the kernel frees it when that process dies
    <data>/log/postgres.log       what it says

It promises to start again by itself after anything that leaves the files readable: a killed supervisor (its
orphaned server is stopped first), stale or empty pid files, an initdb cut short, an exchange of directories that
was interrupted, a long crash recovery. It trusts whoever may open its socket directory: its account, and root, and
listens on no network address unless `database.listen` says so (`access.py`). It never starts a second server on the
same data, never changes a directory above the data directory, and never touches the data of another major version.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import math
import os
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Final

from signalkeep import limits
from signalkeep.config import default_data_directory
from signalkeep.errors import AlreadyRunning, DatabaseUnavailable, EnvironmentFault
from signalkeep.sections import DatabaseSettings
from signalkeep.store import access, binaries, leftovers, swap
from signalkeep.store.binaries import Account
from signalkeep.store.cluster import SAID_LINES, make_cluster
from signalkeep.store.durable import sync_path
from signalkeep.store.postgres import (
    EMBEDDED_NAME,
    connect,
    embedded_dsn,
    socket_directory,
    sqlstate,
)

_POLL_S: Final = 0.05
_LOG_TAIL_BYTES: Final = 8192
_STARTING_UP: Final = "57P03"
_UNFINISHED: Final = (".initdb-*", ".server-*", ".restore-*", ".upgrade-*")


class EmbeddedPostgres:
    """One server on one data directory. Call `start` again after it has ended."""

    def __init__(self, data: Path, *, settings: DatabaseSettings) -> None:
        self._data = data.absolute()
        self._settings = settings
        self._root = self._data / "postgres"
        self._log = self._data / "log" / "postgres.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._lock: IO[bytes] | None = None

    @property
    def dsn(self) -> str:
        return embedded_dsn(self._data)

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    async def start(self) -> None:
        """Make the server if there is none, start it and wait until it answers.

        Raises AlreadyRunning if another process runs it, EnvironmentFault with the end of its log if it will
        not start.
        """
        assert self.pid is None, "stop it first"
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        account = await asyncio.to_thread(self._prepare)
        await self._clear_unfinished()
        programs, directory = await asyncio.to_thread(self._locate, account)
        await leftovers.stop_orphans(directory)
        if not (directory / "PG_VERSION").exists():
            await asyncio.to_thread(self._initialise, programs, directory, account)
        sockets = self._make_socket_directory(account)
        door = access.prepare(self._data, self._settings, programs, directory, account)
        leftovers.remove_stale_lock_files(directory, sockets / f"{access.socket_name(door)}.lock")
        access.link_socket(sockets, door)
        log_start = self._spawn(programs, directory, sockets, account, access.arguments(door))
        await self._until_ready(log_start)
        await self._ensure_database()
        if door is not None:
            await access.admit_readers(self.dsn, self._settings, door)

    async def wait(self) -> int:
        """Wait until the server has ended; its exit status, negative for a signal.

        uvloop cannot start a child as another user, so the loop does not know of this one and looks after it.
        """
        assert self._child is not None, "start it first"
        child = self._child
        await leftovers.eventually(lambda: child.poll() is not None, math.inf)
        return child.wait()

    async def stop(self) -> None:
        """Stop the server: fast, then at once, then by force. Gives up the data directory."""
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            if self._child is None or self._child.poll() is not None:
                break
            self._child.send_signal(number)
            await leftovers.eventually(self._ended, limits.POSTGRES_STOP_S_MAX)
        self._child = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _ended(self) -> bool:
        return self._child is None or self._child.poll() is not None

    # Directories

    @contextlib.asynccontextmanager
    async def at_rest(self) -> AsyncIterator[Account]:
        """Hold the data directory while no server works in it, for whoever exchanges what it holds.

        Raises AlreadyRunning if another process runs it.
        """
        try:
            account = await asyncio.to_thread(self._prepare)
            await self._clear_unfinished()
            for directory in swap.clusters(self._root):
                await leftovers.stop_orphans(directory)
            yield account
        finally:
            await self.stop()

    def _prepare(self) -> Account:
        """Choose the account, make directories that it can pass, take the lock, finish an exchange."""
        if self._root.is_dir():
            self._take_lock()
            swap.finish(self._root)
        existing = next(iter(reversed(swap.clusters(self._root))), None)
        account = binaries.choose_account(self._settings, existing)
        binaries.make_passable(self._data, account)
        binaries.make_passable(self._root, account)
        self._log.parent.mkdir(exist_ok=True, mode=0o700)
        self._take_lock()
        return account

    async def _clear_unfinished(self) -> None:
        """What a killed start, restore or upgrade has left, servers that still work in it among them."""
        for pattern in _UNFINISHED:
            for unfinished in self._root.glob(pattern):
                for directory in (unfinished / "data", *swap.clusters(unfinished / "postgres")):
                    await leftovers.stop_orphans(directory)
                await asyncio.to_thread(shutil.rmtree, unfinished, ignore_errors=True)

    def _locate(self, account: Account) -> tuple[Path, Path]:
        """The programs to run and the data directory for them."""
        programs = binaries.reachable_bin_directory(self._settings, account, self._root)
        return programs, self._choose_directory(binaries.major_version(programs, account))

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = os.fdopen(os.open(self._root / "lock", os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise AlreadyRunning(
                f"another process runs the PostgreSQL of {self._data}",
                hint="Stop the other `signalkeep run`, or give this one another data directory with --data.",
            ) from None
        self._lock = lock

    def _choose_directory(self, major: int) -> Path:
        """The data directory of this major version; a new one only if there are no data of another."""
        directory = self._root / str(major)
        others = [path for path in swap.clusters(self._root) if path != directory]
        if others and not (directory / "PG_VERSION").exists():
            raise _other_major(self._data, others[-1], major)
        return directory

    def _make_socket_directory(self, account: Account) -> Path:
        directory = socket_directory(self._data)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
            if account.switch:
                os.chown(directory, account.uid, account.gid)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid or found.st_mode & 0o077:
            raise EnvironmentFault(
                f"{directory} is not a directory of {account.name} alone (owner uid {found.st_uid}, "
                f"mode {stat.S_IMODE(found.st_mode):o})",
                hint=f"If you know whose it is: chown {account.name} {directory} && chmod 700 {directory}",
            )
        return directory

    def _initialise(self, programs: Path, directory: Path, account: Account) -> None:
        """initdb into a directory beside it, then one rename: there is never half a server."""
        work = Path(tempfile.mkdtemp(prefix=".initdb-", dir=self._root))
        try:
            make_cluster(programs, work, account).rename(directory)
            sync_path(self._root)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    # The server process

    def _spawn(self, programs: Path, directory: Path, sockets: Path, account: Account, listening: list[str]) -> int:
        """Start the server as our direct child; returns where its part of the log begins.

        A session of its own keeps the terminal's Ctrl-C from it: the supervisor stops it last, when nobody
        needs it any more.
        """
        if self._log.exists() and self._log.stat().st_size > limits.POSTGRES_LOG_BYTES_MAX:
            self._log.replace(self._log.with_suffix(".log.1"))
        quoted = str(sockets).replace('"', '""')
        with os.fdopen(os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
            start = log.seek(0, os.SEEK_END)
            self._child = subprocess.Popen(
                [
                    str(programs / "postgres"),
                    *("-D", str(directory)),
                    *listening,
                    *("-c", f'unix_socket_directories="{quoted}"', "-c", "unix_socket_permissions=0700"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=binaries.server_environment(),
                start_new_session=True,
                **account.popen_arguments(),
            )
        return start

    async def _until_ready(self, log_start: int) -> None:
        """Wait until it really answers. Silence is bounded; a recovery that says so takes what it takes."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.POSTGRES_START_S_MAX
        dsn = _maintenance_dsn(self.dsn)
        while True:
            if self._child is None or self._child.poll() is not None:
                raise EnvironmentFault(f"PostgreSQL ended while it started:\n{self._log_tail(log_start)}")
            try:
                connection = await connect(dsn, application="signalkeep start", settings=self._settings)
            except DatabaseUnavailable as error:
                if error.__cause__ is not None and sqlstate(error.__cause__) == _STARTING_UP:
                    deadline = loop.time() + limits.POSTGRES_START_S_MAX
                elif loop.time() >= deadline:
                    raise EnvironmentFault(
                        f"PostgreSQL does not answer: {error.message}\n{self._log_tail(log_start)}"
                    ) from error
                await asyncio.sleep(_POLL_S)
            else:
                await connection.close()
                return

    async def _ensure_database(self) -> None:
        connection = await connect(_maintenance_dsn(self.dsn), application="signalkeep start", settings=self._settings)
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", EMBEDDED_NAME):
                await connection.execute(f"CREATE DATABASE {EMBEDDED_NAME}")
        finally:
            await connection.close()

    def _log_tail(self, start: int) -> str:
        with self._log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(start, end - _LOG_TAIL_BYTES))
            text = log.read().decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-SAID_LINES:]) or f"(nothing in {self._log})"


def _other_major(data: Path, present: Path, major: int) -> EnvironmentFault:
    """The refusal to pass over data of another major version, with the one command that moves them."""
    found = int(present.name)
    message = f"{present.parent} holds the data of PostgreSQL {found}; the programs are of {major}"
    if found > major:
        return EnvironmentFault(
            message,
            hint=f"PostgreSQL does not go back: set database.bin_dir to the bin folder of a PostgreSQL {found}, "
            "or install the signalkeep that made them.",
        )
    option = "" if data == default_data_directory() else f" --data {shlex.quote(str(data))}"
    old = "" if binaries.find_programs(found) else f" --old-programs /path/of/postgresql-{found}/bin"
    return EnvironmentFault(
        message,
        hint=f"Move them over, the old ones are kept: signalkeep upgrade-database{old}{option}\nOr go on with "
        f"{found}: set database.bin_dir to the bin folder of a PostgreSQL {found}.",
    )


def _maintenance_dsn(dsn: str) -> str:
    """The same server's database `postgres`, which is there before ours is."""
    return dsn.replace(f"@/{EMBEDDED_NAME}?", "@/postgres?", 1)
