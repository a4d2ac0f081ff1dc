"""A small HTTP server for a few pages that are read often: GET and HEAD, one answer for each connection.

It is bounded in everything: connections at a time, bytes and time of a request, time to take the answer. A slow or
hostile client costs one of a few places for a few seconds, no thread, and never a device anything. It asks for no
password and has no secrets to tell; it listens on the loopback unless told otherwise.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import msgspec

from signalkeep import limits
from signalkeep.errors import AlreadyRunning, EnvironmentFault

TEXT: Final = "text/plain; charset=utf-8"
REASONS: Final = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip


class Answer(msgspec.Struct, frozen=True):
    """What to send back."""

    status: int
    body: bytes
    content_type: str = TEXT


Page: TypeAlias = Callable[[str, str], Awaitable[Answer]]  # gets the path and the query


class HttpServer:
    """`page` answers; whatever it raises is a 500 without details."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._open = 0
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """The port. Raises EnvironmentFault."""
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=limits.HTTP_REQUEST_BYTES_MAX)
        except OSError as error:
            raise port_error(host, port, error) from error
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open > limits.HTTP_CONNECTIONS_MAX:
                return
            head_only, answer = await self._answer(reader)
            async with asyncio.timeout(limits.HTTP_REQUEST_S_MAX):
                writer.write(_encoded(answer, head_only=head_only))
                await writer.drain()
                writer.write_eof()
                await reader.read(limits.HTTP_REQUEST_BYTES_MAX)  # till the client has seen it: a reset could outrun it
        except (OSError, RuntimeError):
            pass  # the client went away, or takes too long
        finally:
            self._open -= 1
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[bool, Answer]:
        try:
            async with asyncio.timeout(limits.HTTP_REQUEST_S_MAX):
                head = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            return False, Answer(408, b"the request took too long\n")
        except asyncio.LimitOverrunError:
            return False, Answer(431, b"the request is too long\n")
        except asyncio.IncompleteReadError:
            return False, Answer(400, b"not a whole request\n")
        words = head.partition(b"\r\n")[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1.") or not words[1].startswith(b"/"):
            return False, Answer(400, b"not an HTTP request\n")
        method, target, _ = (word.decode("latin-1") for word in words)
        if method not in {"GET", "HEAD"}:
            return False, Answer(405, b"only GET and HEAD\n")
        path, _, query = target.partition("?")
        try:
            return method == "HEAD", await self._page(path, query)
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler({"message": "a page failed", "exception": error})
            return method == "HEAD", Answer(500, b"a mistake of ours; the log says more\n")


def _encoded(answer: Answer, *, head_only: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} {REASONS[answer.status]}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if answer.status == 405:
        lines.append("Allow: GET, HEAD")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head if head_only else head + answer.body


def probe_port(host: str, port: int) -> None:
    """Raise EnvironmentFault if the port cannot be had; AlreadyRunning if somebody else has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise port_error(host, port, error) from error


def port_error(host: str, port: int, error: OSError) -> EnvironmentFault:
    """What to tell a person about a port that the monitor cannot have."""
    place = f"{host} port {port} (monitor)"
    setting = "set another with SIGNALKEEP_MONITOR__PORT=NUMBER or monitor.port in the settings file (0: any free one)"
    if isinstance(error, PermissionError):
        return EnvironmentFault(f"not allowed to listen on {place}", hint=f"Use a port above 1023: {setting}.")
    if "in use" in str(error).lower():
        return AlreadyRunning(
            f"{place} is in use by another program", hint=f"Is signalkeep running already? Else {setting}."
        )
    return EnvironmentFault(f"cannot listen on {place}: {error.strerror or error}", hint="Check monitor.host.")
