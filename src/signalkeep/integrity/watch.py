"""Looks at a service of others: does it take a connection, answer a request, or a question in SQL?

One look has one deadline, over everything, and gives words, never an error. Nothing of a password is in the words.
Nothing is kept between looks.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from signalkeep import __version__, limits
from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.errors import SignalkeepError
from signalkeep.integrity.services import watch_name
from signalkeep.sections.services import WatchSettings
from signalkeep.store.postgres import dsn_of
from signalkeep.store.services import Seen
from signalkeep.store.watched import ask

PORTS: Final = {"http": 80, "https": 443}


async def look_at(watch: WatchSettings, settings: Settings, clock: Clock) -> Seen:
    """How it is now, with how long it took."""
    started_s = clock.monotonic()
    try:
        async with asyncio.timeout(watch.timeout_s):
            why = await _fault(watch, settings)
    except TimeoutError:
        why = f"no answer within {watch.timeout_s:g} s"
    except SignalkeepError as error:
        why = error.message
    except (OSError, EOFError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if why:
        return Seen(watch_name(watch.name), "down", why)
    return Seen(watch_name(watch.name), took_s=clock.monotonic() - started_s)


async def _fault(watch: WatchSettings, settings: Settings) -> str:
    """What is wrong with it; '' if nothing is."""
    if watch.tcp:
        host, _, port = watch.tcp.rpartition(":")
        await _close((await asyncio.open_connection(host.strip("[]"), int(port)))[1])
        return ""
    if watch.http:
        status = await _status_of(watch.http)
        return "" if status == watch.status else f"it answers with {status}, not with {watch.status}"
    return await ask(watch.resolved_dsn() or dsn_of(settings), watch.sql, settings.database)


async def _status_of(url: str) -> int:
    """The status that a GET is answered with; no redirect is followed, and the body is not read."""
    parts = urlsplit(url)
    context = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or PORTS[parts.scheme]
    reader, writer = await asyncio.open_connection(
        parts.hostname, port, ssl=context, limit=limits.WATCH_ANSWER_BYTES_MAX
    )
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        place = parts.netloc.rpartition("@")[2]
        lines = [f"GET {target} HTTP/1.1", f"Host: {place}", f"User-Agent: signalkeep/{__version__}", "Accept: */*"]
        if parts.username is not None:
            lines.append(f"Authorization: Basic {_login(parts.username, parts.password or '')}")
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode("ascii"))
        await writer.drain()
        first = (await reader.readuntil(b"\n")).split()
    except asyncio.LimitOverrunError:
        raise ValueError("what answers there does not speak HTTP") from None
    finally:
        await _close(writer)
    if len(first) < 2 or not first[0].startswith(b"HTTP/") or not first[1].isdigit():
        raise ValueError("what answers there does not speak HTTP")
    return int(first[1])


def _login(user: str, password: str) -> str:
    from base64 import b64encode
    from urllib.parse import unquote

    return b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode("ascii")


async def _close(writer: asyncio.StreamWriter) -> None:
    """The other side may take as long as it likes: nothing is waited for."""
    with suppress(Exception):
        writer.transport.abort()
