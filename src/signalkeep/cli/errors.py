"""`errors`: error types with their limits, and the history of errors of each device."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from signalkeep import limits
from signalkeep.cli.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    LimitOption,
    actor,
    out,
    print_rows,
    with_database,
)
from signalkeep.cli.signals import DeviceOption, SinceOption, time_of
from signalkeep.errors import CallerError
from signalkeep.store import quality
from signalkeep.store.postgres import Connection, Row

app = typer.Typer(help="Error types with limits, and the errors of devices.", no_args_is_help=True)


@app.command()
def types(data: DataOption = None, config_file: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Error types: with so many hits within the window, a device is reported for a check."""
    rows = with_database(data, config_file, quality.error_types, application="signalkeep errors")
    columns = ("code", "description", "hits_max", "window_h", "critical", "rules")
    print_rows(map(dict, rows), columns, as_json=as_json, empty="there are none")


@app.command(name="set")
def set_(
    code: Annotated[int, typer.Argument(metavar="CODE", min=1, max=limits.INTEGER_MAX)],
    description: Annotated[str, typer.Argument(metavar="DESCRIPTION")],
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=1_000_000, help="hits from which on a device is reported")
    ] = 5,
    window: Annotated[int, typer.Option("--window", min=1, max=24, help="hours within which they must fall")] = 24,
    critical: Annotated[bool, typer.Option("--critical", help="a report is an error, not a warning")] = False,
    data: DataOption = None,
    config_file: ConfigOption = None,
) -> None:
    """Add an error type or change one. Rules of yours count for it with `error_type` in the settings."""
    if not description.strip():
        raise CallerError("an error type needs a description", hint='signalkeep errors set 3 "No ignition wire"')

    async def work(connection: Connection) -> None:
        await quality.put_error_type(
            connection, code, description, hits_max=limit, window_h=window, critical=critical, actor=actor()
        )

    with_database(data, config_file, work, application="signalkeep errors")
    out.print(f"error type {code} is {description}: {limit} hits within {window} h", markup=False)


@app.command()
def traces(
    device: DeviceOption = None,
    code: Annotated[
        int | None,
        typer.Option("--code", min=1, max=limits.INTEGER_MAX, help="only of this error type", show_default=False),
    ] = None,
    since: SinceOption = None,
    limit: LimitOption = 50,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """The history of errors, latest first: by default of the last day."""
    now = datetime.now(UTC)
    begins = time_of(since, now) or now - timedelta(days=1)

    async def work(connection: Connection) -> list[Row]:
        return await quality.traces(connection, device=device, code=code, since=begins, limit=limit)

    rows = with_database(data, config_file, work, application="signalkeep errors")
    columns = ("device_number", "error_code", "message_date", "description", "rule")
    print_rows(map(dict, rows), columns, as_json=as_json, empty="no errors there")


@app.command()
def due(limit: LimitOption = 50, data: DataOption = None, config_file: ConfigOption = None,
        as_json: JsonOption = False) -> None:  # fmt: skip
    """Devices that have reached the limit of an error type and are to be checked."""

    async def work(connection: Connection) -> list[Row]:
        found = await quality.findings(connection, limit=100_000)
        return [row for row in found if row["rule"].startswith("ERR-")][:limit]

    rows = with_database(data, config_file, work, application="signalkeep errors")
    shown = [{**row, "day": str(row["day"])} for row in map(dict, rows)]
    print_rows(shown, ("day", "device_number", "rule", "severity", "detail"), as_json=as_json, empty="none")
