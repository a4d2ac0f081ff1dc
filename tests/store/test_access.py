"""The embedded server's door for reading: one login over TCP, which can read and do nothing else."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from signalkeep import limits
from signalkeep.errors import CallerError, EnvironmentFault
from signalkeep.sections import DatabaseSettings
from signalkeep.store.access import BEGIN, LOGIN, READER, password_file, scram_verifier
from signalkeep.store.embedded import EmbeddedPostgres
from signalkeep.store.postgres import connect
from signalkeep.store.schema import ensure_schema
from tests.servers import connected, find_system_postgres, free_port

pytestmark = pytest.mark.servers


def listening(**more: Any) -> DatabaseSettings:
    return DatabaseSettings.model_validate({"listen": f"127.0.0.1:{free_port()}", **more})


@asynccontextmanager
async def running(data: Path, settings: DatabaseSettings) -> AsyncIterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(data, settings=settings)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def over_tcp(
    settings: DatabaseSettings, user: str, password: str, **more: Any
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    host, _, port = settings.listen.rpartition(":")
    more.setdefault("ssl", False)
    connection = await asyncpg.connect(
        host=host, port=int(port), user=user, password=password, database="signalkeep", timeout=10, **more
    )
    try:
        yield connection
    finally:
        await connection.close(timeout=10)


async def refused(settings: DatabaseSettings, user: str, password: str, **more: Any) -> str:
    with pytest.raises((asyncpg.PostgresError, OSError)) as caught:
        async with over_tcp(settings, user, password, **more):
            pass
    return str(caught.value)


async def test_the_reader_reads_over_tcp_and_nobody_else_comes_in(short_directory: Path) -> None:
    data, settings = short_directory / "data", listening()
    async with running(data, settings) as server:
        file = password_file(data, settings)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert not file.parent.stat().st_mode & 0o077
        password = file.read_text().strip()
        assert len(password) >= 24
        await ensure_schema(server.dsn, settings)
        async with over_tcp(settings, LOGIN, password) as reader:
            assert await reader.fetchval("SELECT count(*) FROM signal") == 0
            assert await reader.fetchval("SHOW statement_timeout") == "5min"
        ours = await connect(
            f"postgresql://{LOGIN}:{password}@{settings.listen}/signalkeep?sslmode=disable",
            application="test", settings=settings,
        )  # fmt: skip
        try:
            assert await ours.fetchval("SHOW tcp_keepalives_idle") == str(limits.KEEPALIVE_IDLE_S), (
                "what a machine had locked when it vanished is free again after minutes, not hours"
            )
        finally:
            await ours.close(timeout=10)
        async with over_tcp(settings, LOGIN, password) as reader:
            for statement in (
                "INSERT INTO customer_of_nobody VALUES (1)",
                "INSERT INTO device (device_number) VALUES ('1')",
                "CREATE TABLE mine (x integer)",
            ):
                with pytest.raises(asyncpg.PostgresError):
                    await reader.execute(statement)
            await reader.execute("SET default_transaction_read_only = off")
            for statement in (
                "INSERT INTO device (device_number) VALUES ('1')",
                "CREATE TABLE mine (x integer)",
                "CREATE TEMPORARY TABLE mine (x integer)",
                "SET ROLE signalkeep",
                "COPY device TO PROGRAM 'cat'",
                "SELECT pg_read_file('postgresql.conf')",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await reader.execute(statement)
        assert "password" in await refused(settings, LOGIN, password + "x")
        assert "password" in await refused(settings, LOGIN, "")
        for stranger in ("signalkeep", READER, "postgres"):
            assert "pg_hba.conf rejects" in await refused(settings, stranger, password)
        async with connected(server.dsn) as connection:
            verifier = await connection.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = $1", LOGIN)
        assert verifier.startswith("SCRAM-SHA-256$")
        assert password not in (data / "log" / "postgres.log").read_text()
    first = password
    async with running(data, settings), over_tcp(settings, LOGIN, first) as reader:
        assert await reader.fetchval("SELECT count(*) FROM device") == 0, "the password stays what it is"


async def test_switched_off_again_the_door_is_gone(short_directory: Path) -> None:
    data, settings = short_directory / "data", listening()
    async with running(data, settings):
        pass
    (hba,) = data.glob("postgres/*/pg_hba.conf")
    assert BEGIN in hba.read_text()
    with hba.open("a") as rules:
        rules.write("# a line of the user's\n")
    plain = DatabaseSettings.model_validate({})
    async with running(data, plain) as server, connected(server.dsn) as connection:
        assert await connection.fetchval("SHOW listen_addresses") == ""
        assert BEGIN not in hba.read_text()
        assert "# a line of the user's" in hba.read_text()
        with pytest.raises(OSError):
            await asyncpg.connect(host="127.0.0.1", port=int(settings.listen.rpartition(":")[2]), timeout=5)
    async with running(data, settings) as server, connected(server.dsn) as connection:
        assert await connection.fetchval("SELECT 1") == 1
        assert hba.read_text().count(BEGIN) == 1


async def test_after_a_kill_it_starts_again_with_the_same_door(short_directory: Path) -> None:
    data, settings = short_directory / "data", listening()
    server = EmbeddedPostgres(data, settings=settings)
    await server.start()
    try:
        assert server.pid is not None
        os.kill(server.pid, 9)
        await server.wait()
        await server.start()
        async with connected(server.dsn) as connection:
            assert await connection.fetchval("SELECT 1") == 1
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (None, 0, "cannot be read"),
        ("", 0o600, "is empty"),
        ("secret\n", 0o604, "everybody"),
        ("grün\n", 0o600, "ASCII"),
    ],
)
async def test_a_password_file_that_will_not_do_is_refused_with_what_to_do(
    short_directory: Path, content: str | None, mode: int, said: str
) -> None:
    file = short_directory / "password"
    if content is not None:
        file.write_text(content)
        file.chmod(mode)
    server = EmbeddedPostgres(short_directory / "data", settings=listening(reader_password_file=file))
    with pytest.raises(CallerError, match=said) as caught:
        await server.start()
    assert caught.value.hint
    assert server.pid is None


async def test_a_taken_port_is_named(short_directory: Path) -> None:
    settings = listening()
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(settings.listen.rpartition(":")[2])))
        other.listen()
        with pytest.raises(EnvironmentFault, match=settings.listen):
            await EmbeddedPostgres(short_directory / "data", settings=settings).start()


def certificate(directory: Path) -> dict[str, Path]:
    """A certificate of our own making."""
    files = {"listen_certificate": directory / "cert.pem", "listen_key": directory / "key.pem"}
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-out", files["listen_certificate"], "-keyout", files["listen_key"]),
        ],
        check=True,
        capture_output=True,
    )
    return files


async def test_tls_where_the_programs_have_it_and_a_clear_word_where_not(short_directory: Path) -> None:
    files = certificate(short_directory)
    with pytest.raises(CallerError, match="no TLS built in"):
        await EmbeddedPostgres(short_directory / "data", settings=listening(**files)).start()
    system = find_system_postgres()
    if system is None:
        pytest.skip("NO POSTGRESQL WITH TLS ON THIS SYSTEM, ITS USE NOT TESTED")
    data, settings = short_directory / "other", listening(**files, bin_dir=system)
    async with running(data, settings):
        password = password_file(data, settings).read_text().strip()
        trusting = ssl.create_default_context(cafile=str(files["listen_certificate"]))
        trusting.check_hostname = False
        async with over_tcp(settings, LOGIN, password, ssl=trusting) as reader:
            assert await reader.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert "rejects" in await refused(settings, LOGIN, password)


def test_the_verifier_is_what_postgresql_makes() -> None:
    """A vector computed with PostgreSQL: password `pencil`, salt of RFC 7677, 4096 rounds."""
    import base64

    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    assert scram_verifier("pencil", salt) == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )
