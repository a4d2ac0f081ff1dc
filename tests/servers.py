"""The one place that starts servers for tests, and the helpers to wait for them.

A `PostgresServer` is the product's own embedded server in a private directory with a short path, passable for
the account that PostgreSQL drops to when tests run as root. fsync stays on: the product refuses to work
without it. Whatever a test does, `close` ends the processes, by their own handle or by the directory they work in.

It never waits by sleeping for a fixed time: conditions are polled up to a deadline.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

from signalkeep.sections import DatabaseSettings
from signalkeep.store.embedded import EmbeddedPostgres
from signalkeep.store.postgres import EMBEDDED_NAME, Connection, connect
from signalkeep.store.schema import ensure_schema

T = TypeVar("T")
SETTINGS = DatabaseSettings.model_validate({})
TEMPLATE = "signalkeep_template"
POLL_S = 0.02
READY_MADE = "SIGNALKEEP_TESTS_SERVER"
PATIENCE_S = 60.0  # several times what the slowest machine needs: who waits in vain waits long, nobody else does


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a loop and thread of its own, so that any fixture may call it."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def wait_until(predicate: Callable[[], object], deadline_s: float = PATIENCE_S, *, what: str = "") -> None:
    """Poll until the predicate is true; AssertionError after the deadline."""
    end = time.monotonic() + deadline_s
    while not predicate():
        assert time.monotonic() < end, f"not in {deadline_s} s: {what or inspect.getsource(predicate).strip()}"
        time.sleep(POLL_S)


async def wait_until_async(
    predicate: Callable[[], object | Awaitable[object]], deadline_s: float = PATIENCE_S, *, what: str = ""
) -> None:
    """The same on the running loop; the predicate may be a coroutine function."""
    end = time.monotonic() + deadline_s
    while True:
        result = predicate()
        if await result if inspect.isawaitable(result) else result:
            return
        assert time.monotonic() < end, f"not in {deadline_s} s: {what or inspect.getsource(predicate).strip()}"
        await asyncio.sleep(POLL_S)


def free_port() -> int:
    """A TCP port on the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find_system_postgres() -> Path | None:
    """The bin folder of the newest PostgreSQL 14+ that the system has installed, other than ours."""
    found = {
        int(path.parent.name): path
        for path in Path("/usr/lib/postgresql").glob("*/bin")
        if re.fullmatch(r"\d+", path.parent.name) and (path / "initdb").exists() and int(path.parent.name) >= 14
    }
    return found[max(found)] if found else None


def private_directory() -> Path:
    """A directory with a short path that other accounts may pass through; pytest's own are closed to them."""
    directory = Path(tempfile.mkdtemp(prefix="sk-", dir="/tmp"))
    directory.chmod(0o711)
    return directory


def remove_directory(directory: Path) -> None:
    """Kill every PostgreSQL process that works below this directory of ours, then remove it."""
    for process in processes_below(directory):
        process.kill()
    wait_until(lambda: not processes_below(directory), what=f"processes in {directory} end")
    shutil.rmtree(directory)


def processes_below(directory: Path) -> list[psutil.Process]:
    """The living PostgreSQL processes that work somewhere below this directory."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.name().startswith("postgres") and Path(process.cwd()).is_relative_to(directory)
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


class PostgresServer:
    """A throw-away server, which can be stopped, killed and started again on the same data.

    With the variable `READY_MADE` it begins as a copy of that server's data directory, which has the schema already:
    for those who start one process with a server after the other.
    """

    def __init__(self, settings: DatabaseSettings = SETTINGS) -> None:
        self.directory = private_directory()
        ready_made = os.environ.get(READY_MADE)
        if ready_made:
            subprocess.run(["cp", "-a", f"{ready_made}/data", self.directory], check=True)
        self._embedded = EmbeddedPostgres(self.directory / "data", settings=settings)
        self._settings = settings
        self._numbers = itertools.count()
        self._has_template = bool(ready_made)

    @property
    def dsn(self) -> str:
        """Of the server's first database, which is empty."""
        return self._embedded.dsn

    @property
    def pid(self) -> int | None:
        return self._embedded.pid

    async def start(self) -> None:
        await self._embedded.start()

    async def stop(self) -> None:
        await self._embedded.stop()

    def kill(self) -> None:
        """kill -9 of the postmaster. Its backends notice by themselves."""
        assert self.pid is not None, "it is not running"
        os.kill(self.pid, signal.SIGKILL)
        wait_until(lambda: self.pid is None, what="the postmaster ends")

    def close(self) -> None:
        """Stop it and remove everything."""
        run_sync(self.stop())
        remove_directory(self.directory)

    async def create_database(self, *, migrated: bool = True) -> str:
        """A fresh database; its DSN. Copying a template is much faster than migrating each."""
        name = f"test_{next(self._numbers)}"
        if migrated and not self._has_template:
            await self.execute(f"CREATE DATABASE {TEMPLATE}")
            await ensure_schema(self.dsn_of(TEMPLATE), self._settings)
            self._has_template = True
        await self.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE if migrated else 'template0'}")
        return self.dsn_of(name)

    async def drop_database(self, dsn: str) -> None:
        name = dsn.partition("@/")[2].partition("?")[0]
        await self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def dsn_of(self, database: str) -> str:
        return self.dsn.replace(f"@/{EMBEDDED_NAME}?", f"@/{database}?")

    async def execute(self, statement: str) -> None:
        """One statement as superuser in the server's first database, outside of a transaction."""
        async with connected(self.dsn, self._settings) as connection:
            await connection.execute(statement)


@asynccontextmanager
async def connected(dsn: str, settings: DatabaseSettings = SETTINGS) -> AsyncIterator[Connection]:
    """A connection for a while."""
    connection = await connect(dsn, application="tests", settings=settings)
    try:
        yield connection
    finally:
        await connection.close(timeout=10)
