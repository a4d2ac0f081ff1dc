"""The small HTTP server against clients that are in order, and clients that are not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from signalkeep import limits
from signalkeep.errors import AlreadyRunning, EnvironmentFault
from signalkeep.monitor.server import Answer, HttpServer, probe_port
from tests.servers import wait_until_async


async def page(path: str, query: str) -> Answer:
    if path == "/fails":
        raise ZeroDivisionError("a secret")
    return Answer(200, f"{path}?{query}".encode())


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = HttpServer(page)
    yield await server.start("127.0.0.1", 0)
    server.close()


async def talk(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


async def test_get_and_head(port: int) -> None:
    answer = await talk(port, b"GET /livez?verbose HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 14" in head
    assert b"Connection: close" in head
    assert body == b"/livez?verbose"
    assert await talk(port, b"HEAD /livez?verbose HTTP/1.0\r\n\r\n") == head + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST / HTTP/1.1\r\n\r\n", 405),
        (b"GET / HTTP/9\r\n\r\n", 400),
        (b"GET http://x/ HTTP/1.1\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\xff\x00 / HTTP/1.1\r\n\r\n", 405),
        (b"GET /fails HTTP/1.1\r\n\r\n", 500),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000, 431),
    ],
)
async def test_what_is_no_request_of_ours_is_answered_so(port: int, request_bytes: bytes, status: int) -> None:
    answer = await talk(port, request_bytes)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"secret" not in answer


async def test_a_client_that_stops_in_the_middle_is_let_go(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HT")
    writer.write_eof()
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_a_slow_client_keeps_its_place_for_a_while_only(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_REQUEST_S_MAX", 0.05)
    assert (await talk(port, b"GET / ")).startswith(b"HTTP/1.1 408 ")


async def test_more_clients_than_places_are_turned_away_and_places_come_back(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HTTP_CONNECTIONS_MAX", 2)
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    request = b"GET / HTTP/1.1\r\n\r\n"

    async def answered() -> bool:
        try:
            return (await talk(port, request)).startswith(b"HTTP/1.1 200")
        except ConnectionError:
            return False

    async def refused() -> bool:
        return not await answered()

    await wait_until_async(refused)
    for _, writer in idle:
        writer.close()
    await wait_until_async(answered)


async def test_a_port_that_is_taken_leads_to_the_setting() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        with pytest.raises(AlreadyRunning, match=f"127.0.0.1 port {taken} .monitor. is in use") as probed:
            probe_port("127.0.0.1", taken)
        assert "SIGNALKEEP_MONITOR__PORT" in probed.value.hint
        with pytest.raises(AlreadyRunning, match="in use"):
            await HttpServer(page).start("127.0.0.1", taken)
    probe_port("127.0.0.1", 0)
    with pytest.raises(EnvironmentFault, match=r"198\.51\.100\.1"):
        probe_port("198.51.100.1", 0)
