"""What every command shares: its options, how it reaches settings and database, how it prints lists and errors.

A command never shows a traceback for something that a person can mend: `SignalkeepError` carries the message and
the hint, `main` prints both. Lists go to standard output, everything else to standard error.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from signalkeep import config, limits, telemetry
from signalkeep.errors import CallerError, SignalkeepError
from signalkeep.store.postgres import Connection, connect, dsn_of
from signalkeep.store.queries import plain_faults
from signalkeep.store.schema import HEAD, ensure_schema, schema_version
from signalkeep.tasks import end

T = TypeVar("T")

DataOption: TypeAlias = Annotated[
    Path | None, typer.Option("--data", help="data directory", envvar="SIGNALKEEP_DATA", show_default=False)
]
ConfigOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--config", help="settings file", envvar="SIGNALKEEP_CONFIG", show_default=False),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="print JSON")]
LimitOption: TypeAlias = Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="rows at most")]

PIPE_COLUMNS = 240  # a table that goes into a file or a pipe is not folded to a terminal's width

out = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def complete_protocol(incomplete: str) -> list[str]:
    """For shell completion."""
    from signalkeep.protocols.registry import PROTOCOLS

    return [name for name in sorted(PROTOCOLS) if name.startswith(incomplete)]


def print_json(value: Any) -> None:
    """One JSON document on standard output; datetimes in ISO 8601."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def shown(value: Any) -> str:
    """A cell of a table as text."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        text = value.astimezone(UTC).isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "")
        return text.removesuffix(".000")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}"
    text = msgspec.json.encode(value).decode() if isinstance(value, (dict, list)) else str(value)
    return text if text.isprintable() else ascii(text)[1:-1]  # a device's text must not steer the terminal


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """A list of rows as a table, or as JSON; `empty` is what to say to a person when there are none."""
    found = [dict(row) for row in rows]
    if as_json:
        print_json(found)
        return
    if not found:
        err.print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in found:
        table.add_row(*(shown(row[column]).replace("[", "\\[") for column in columns))
    out.print(table)


def exit_code_of(error: SignalkeepError) -> int:
    """Say what is wrong and what to do about it, for people or as a line of JSON; the exit code that belongs to it."""
    if telemetry.only_json():
        telemetry.get_logger().error(error.message, hint=error.hint)
    else:
        err.print(f"error: {error.message}", markup=False)
        if error.hint:
            err.print(f"what to do: {error.hint}", markup=False)
    return 2 if isinstance(error, CallerError) else 1


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop that all of signalkeep runs on."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def run_until_interrupted(work: Coroutine[Any, Any, None]) -> None:
    """The same for work without an end of its own: Ctrl-C, or SIGTERM, ends it, quietly and for certain."""

    async def body() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        working, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            stopped.cancel()
            await end(working)

    run_async(body())


def with_database(
    data: Path | None,
    config_file: Path | None,
    work: Callable[[Connection], Awaitable[T]],
    *,
    application: str,
) -> T:
    """Load the settings, connect to the database they name, do `work`, close. For one-shot commands."""
    settings = config.load(data, config_file)

    async def body() -> T:
        dsn = dsn_of(settings)
        connection = await connect(dsn, application=application, settings=settings.database)
        try:
            with plain_faults(connection):
                if await schema_version(connection) != HEAD:  # the first command may come before the first ingest
                    await ensure_schema(dsn, settings.database)
                return await work(connection)
        finally:
            await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)

    return run_async(body())


def actor() -> str:
    """Who is doing this, for the audit log: the operating system's user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no entry for our number, as in some containers
        return f"uid {os.getuid()}"
