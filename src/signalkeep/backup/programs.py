"""Runs PostgreSQL's own programs for backups: pg_basebackup, pg_verifybackup, pg_dump, pg_restore.

They run as ourselves and only as clients, so they need no account of their own; what they make belongs to whoever
asked for it. A password travels in the environment, never on a command line, where all users of a machine can read.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from signalkeep import limits
from signalkeep.config import Settings
from signalkeep.errors import EnvironmentFault, SignalkeepError
from signalkeep.store import binaries
from signalkeep.store.binaries import ourselves, server_environment

_SAID_LINES: Final = 15


async def run(
    program: Path,
    *arguments: str | Path,
    environment: dict[str, str] | None = None,
    on_line: Callable[[str], None] = lambda _: None,
) -> str:
    """Run a program to its end; its standard output. Raises EnvironmentFault with what it said.

    `on_line` gets what it says on standard error. It ends with us, also if we are cancelled.
    """
    process = await asyncio.create_subprocess_exec(
        str(program),
        *map(str, arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment or server_environment(),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(limits.BACKUP_S_MAX):
            output, said = await asyncio.gather(process.stdout.read(), _follow(process.stderr, on_line))
            code = await process.wait()
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if code != 0:
        last = "\n".join((output.decode(errors="replace").splitlines() + said)[-_SAID_LINES:])
        raise EnvironmentFault(f"{program.name} failed with exit code {code}:\n{last}", hint="Mend that, then again.")
    return output.decode(errors="replace")


async def _follow(stream: asyncio.StreamReader, on_line: Callable[[str], None]) -> list[str]:
    """Lines as they come, whether they end in a newline or a carriage return; the last of them."""
    said: list[str] = []
    rest = ""
    while data := await stream.read(4096):
        *lines, rest = re.split(r"[\r\n]+", rest + data.decode(errors="replace"))
        for line in filter(None, lines):
            said = [*said[-_SAID_LINES:], line]
            on_line(line)
    return [*said, rest] if rest else said


def client_program(settings: Settings, name: str, *, major: int) -> Path:
    """A client that can talk to a server of this major version: at least as new as it.

    For a DSN, one on the PATH goes first, since it may know TLS. Raises EnvironmentFault if there is none.
    """
    candidates = []
    if not settings.embedded and (found := shutil.which(name)):
        candidates.append(Path(found).resolve().parent if "pg_wrapper" not in os.path.realpath(found) else None)
    try:
        candidates.append(binaries.bin_directory(settings.database))
    except SignalkeepError:
        candidates.append(None)
    candidates += [binaries.find_programs(version) for version in range(major, major + 5)]
    for folder in filter(None, candidates):
        if (folder / name).exists() and _client_major(folder / name) >= major:
            return folder / name
    raise EnvironmentFault(
        f"there is no {name} for PostgreSQL {major} on this machine",
        hint=f"Install the client programs of PostgreSQL {major} or newer (package postgresql-client-{major}).",
    )


def _client_major(program: Path) -> int:
    found = re.search(r"\(PostgreSQL\) (\d+)", ourselves().run(program, "--version").stdout)
    return int(found[1]) if found else 0


def connection_of(dsn: str) -> tuple[str, dict[str, str]]:
    """A DSN that may stand on a command line, and the environment that carries its password."""
    parts = urlsplit(dsn)
    login, at, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    secret = unquote(password) or next((value for key, value in pairs if key == "password"), "")
    query = urlencode([(key, value) for key, value in pairs if key != "password"], safe="/*:")
    shown = f"{parts.scheme}://{user}{at}{hosts}{parts.path}{'?' if query else ''}{query}"
    return shown, {**os.environ, "LC_ALL": "C", **({"PGPASSWORD": secret} if secret else {})}
