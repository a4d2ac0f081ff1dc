"""`psql` and `migrate`: the right database, the right program, no password where others can read it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from signalkeep.cli.psql import without_password
from signalkeep.store.schema import HEAD
from tests.servers import PostgresServer, connected, free_port

pytestmark = pytest.mark.servers

PROGRAM = """
import typer
from signalkeep.cli.migrate import migrate
from signalkeep.cli.psql import psql
app = typer.Typer()
app.command()(migrate)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(psql)
app()
"""


def signalkeep(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def data_of(server: PostgresServer) -> Path:
    return server.directory / "data"


@pytest.mark.parametrize("separator", [[], ["--"]])
def test_psql_opens_the_embedded_server_and_gets_the_arguments(
    postgres_server: PostgresServer, separator: list[str]
) -> None:
    statement = "SELECT current_user || '/' || current_database()"
    found = signalkeep("psql", "--data", data_of(postgres_server), *separator, "-At", "-c", statement, PGPORT="1")
    assert (found.returncode, found.stdout) == (0, "signalkeep/signalkeep\n"), found.stderr
    wrong = signalkeep("psql", "--data", data_of(postgres_server), *separator, "-c", "SELEC")
    assert wrong.returncode == 1


def test_psql_opens_a_dsn(dsn: str, short_directory: Path) -> None:
    found = signalkeep(
        *("psql", "--data", short_directory, "-Atc", "SELECT version_num FROM alembic_version"),
        SIGNALKEEP_DATABASE__DSN=dsn,
    )
    assert (found.returncode, found.stdout) == (0, f"{HEAD}\n"), found.stderr


def test_psql_of_a_server_that_is_not_running(short_directory: Path) -> None:
    found = signalkeep("psql", "--data", short_directory)
    assert found.returncode != 0
    assert "is not running" in found.stderr


def test_the_password_leaves_the_address() -> None:
    assert without_password("postgresql://me:s%40c@h:1/x?a=b") == ("postgresql://me@h:1/x?a=b", "s@c")
    assert without_password("postgresql://me@h/x") == ("postgresql://me@h/x", "")
    assert without_password("postgresql:///x") == ("postgresql:///x", "")


async def test_migrate_makes_the_schema_and_says_so(postgres_server: PostgresServer, short_directory: Path) -> None:
    empty = await postgres_server.create_database(migrated=False)
    for said in (f"is now at version {HEAD}", f"is already at version {HEAD}"):
        found = signalkeep("migrate", "--data", short_directory, SIGNALKEEP_DATABASE__DSN=empty)
        assert (found.returncode, found.stdout) == (0, "")
        assert said in found.stderr
    async with connected(empty) as connection:
        assert await connection.fetchval("SELECT count(*) FROM device") == 0


def test_migrate_without_a_server(short_directory: Path) -> None:
    dsn = f"postgresql://me:hunter2@127.0.0.1:{free_port()}/x"
    found = signalkeep("migrate", "--data", short_directory, SIGNALKEEP_DATABASE__DSN=dsn)
    assert found.returncode != 0
