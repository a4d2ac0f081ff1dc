"""Services of others: up, down, slow, and answering nonsense; each look ends by its deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from signalkeep.clock import SystemClock
from signalkeep.config import Settings, load
from signalkeep.errors import SettingsError
from signalkeep.integrity.watch import look_at
from signalkeep.sections.services import WatchSettings
from signalkeep.store.services import Seen
from tests.servers import free_port

SECRET = "hunter2"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(tmp_path, environ={})


async def seen(settings: Settings, **values: Any) -> Seen:
    return await look_at(WatchSettings(**{"name": "x", "timeout_s": 20, **values}), settings, SystemClock())


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that says this to everybody, or nothing at all; its port, and what it was told."""
    told: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            told.append(await reader.readuntil(b"\r\n\r\n"))
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], told
    finally:
        server.close()


async def test_tcp(settings: Settings) -> None:
    async with answering(b"") as (port, _):
        up = await seen(settings, tcp=f"127.0.0.1:{port}")
    assert (up.name, up.state, up.why) == ("watch x", "up", "")
    assert up.took_s is not None
    down = await seen(settings, tcp=f"127.0.0.1:{port}")
    assert (down.state, down.took_s) == ("down", None)
    assert down.why


@pytest.mark.parametrize(
    ("answer", "status", "state", "said"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", 200, "up", ""),
        (b"HTTP/1.0 204\r\n\r\n", 204, "up", ""),
        (b"HTTP/1.1 503 Away\r\n\r\n", 200, "down", "it answers with 503, not with 200"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", 200, "down", "302"),
        (b"SSH-2.0-OpenSSH\r\n", 200, "down", "does not speak HTTP"),
        (b"x" * 100_000 + b"\n", 200, "down", "does not speak HTTP"),
        (b"", 200, "down", ""),
    ],
)
async def test_http(settings: Settings, answer: bytes, status: int, state: str, said: str) -> None:
    async with answering(answer) as (port, told):
        found = await seen(settings, http=f"http://127.0.0.1:{port}/health?deep=1", status=status)
    assert found.state == state
    assert said in found.why
    assert bool(found.why) == (state == "down")
    assert told[0].startswith(b"GET /health?deep=1 HTTP/1.1\r\n")


async def test_a_login_in_the_url_is_sent_as_one_and_never_said(settings: Settings) -> None:
    async with answering(b"HTTP/1.1 401 No\r\n\r\n") as (port, told):
        found = await seen(settings, http=f"http://me:{SECRET}@127.0.0.1:{port}/")
    assert b"Authorization: Basic bWU6aHVudGVyMg==" in told[0]
    assert SECRET not in found.why


async def test_one_that_takes_a_connection_and_says_nothing_is_down_in_time(settings: Settings) -> None:
    async with answering(None) as (port, _):
        found = await seen(settings, http=f"http://127.0.0.1:{port}/", timeout_s=0.05)
    assert (found.state, found.why) == ("down", "no answer within 0.05 s")


@pytest.mark.servers
@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SELECT true", ""),
        ("SELECT count(*) FROM device", ""),
        ("SELECT 1 < 0", "the query gives False"),
        ("SELECT NULL", "the query gives None"),
        ("SELECT FROM device", "the query gives no row"),
        ("SELECT 1 FROM nothing", 'relation "nothing" does not exist'),
        ("DELETE FROM device RETURNING true", "cannot execute DELETE in a read-only transaction"),
    ],
)
async def test_sql(dsn: str, settings: Settings, sql: str, why: str) -> None:
    found = await seen(settings, sql=sql, dsn=dsn)
    assert (found.state, found.why) == ("down" if why else "up", why)


@pytest.mark.servers
async def test_sql_asks_our_own_database_if_not_told_otherwise(dsn: str, tmp_path: Path) -> None:
    ours = load(tmp_path, environ={"SIGNALKEEP_DATABASE__DSN": dsn})
    assert (await seen(ours, sql="SELECT count(*) > -1 FROM device")).state == "up"


async def test_a_database_that_is_away_is_down_and_its_password_is_not_said(settings: Settings) -> None:
    found = await seen(settings, sql="SELECT 1", dsn=f"postgresql://me:{SECRET}@127.0.0.1:{free_port()}/x")
    assert found.state == "down"
    assert SECRET not in found.why
    missing = await seen(settings, sql="SELECT 1", dsn_file="/nowhere/dsn")
    assert (missing.state, "dsn_file" in missing.why) == ("down", True)


@pytest.mark.parametrize(
    "watch",
    [
        '[{"name": "x"}]',
        '[{"name": "x", "tcp": "a:1", "sql": "SELECT 1"}]',
        '[{"name": "x", "tcp": "a"}]',
        '[{"name": "x", "tcp": "a:0"}]',
        '[{"name": "x", "tcp": "a:70000"}]',
        '[{"name": "x", "http": "ftp://a/"}]',
        '[{"name": "x", "http": "http://a:b/"}]',
        '[{"name": "x", "http": "http://a/ b"}]',
        '[{"name": "x", "tcp": "a:1", "dsn": "postgresql://"}]',
        '[{"name": "x y", "tcp": "a:1"}]',
        '[{"name": "x", "tcp": "a:1"}, {"name": "x", "tcp": "a:2"}]',
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, watch: str) -> None:
    with pytest.raises(SettingsError, match="SERVICES__WATCH"):
        load(tmp_path, environ={"SIGNALKEEP_SERVICES__WATCH": watch})
