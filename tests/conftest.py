"""Fixtures that every test may use. Servers come from `tests/servers.py`, one of each in a worker process."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from signalkeep.errors import EnvironmentFault
from signalkeep.store.postgres import Connection
from tests.erlang import find_rabbitmq
from tests.servers import PostgresServer, connected, private_directory, remove_directory, run_sync

# Tests start hundreds of processes, and each would compile all of signalkeep anew if nobody kept the outcome.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Every process that a test starts, it ends: what is left at the end is ended here, and is a failure."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    children = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    _, left = psutil.wait_procs(children, timeout=5)
    named = [" ".join(child.cmdline()) or child.name() for child in left if child.is_running()]
    for child in left:
        child.kill()
    assert not named, f"tests left processes behind: {named}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running server. Without one, tests are skipped; under CI that is a failure."""
    server = PostgresServer()
    try:
        try:
            run_sync(server.start())
        except EnvironmentFault as fault:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(f"NO POSTGRESQL, NOT TESTED: {fault.message}")
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def rabbitmq() -> None:
    """For tests that start nodes. Without RabbitMQ they are skipped; under CI that is a failure."""
    try:
        find_rabbitmq()
    except EnvironmentFault as fault:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"NO RABBITMQ, NOT TESTED: {fault.message}")


@pytest.fixture
def dsn(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh database with the schema."""
    created = run_sync(postgres_server.create_database())
    yield created
    run_sync(postgres_server.drop_database(created))


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[Connection]:
    """A connection to `dsn`."""
    async with connected(dsn) as opened:
        yield opened


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """An empty directory that a server of another account can reach; its servers are killed at the end."""
    directory = private_directory()
    yield directory
    remove_directory(directory)
