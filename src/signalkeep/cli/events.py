"""`events list` and `events add`: what event codes mean, as one word for all protocols."""

from __future__ import annotations

from typing import Annotated

import typer

from signalkeep.cli.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    actor,
    err,
    out,
    print_json,
    print_rows,
    with_database,
)
from signalkeep.errors import CallerError
from signalkeep.protocols.registry import PROTOCOLS
from signalkeep.store import events
from signalkeep.store.postgres import Connection, Row

app = typer.Typer(help="What event codes mean.", no_args_is_help=True)


@app.command(name="list")
def list_(
    protocol: Annotated[str | None, typer.Option("--protocol", help="only of this one", show_default=False)] = None,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Event codes of each protocol, with their names."""

    async def work(connection: Connection) -> list[Row]:
        return await events.formats(connection, protocol)

    rows = with_database(data, config_file, work, application="signalkeep events")
    columns = ("protocol", "code", "name", "end_name", "description")
    print_rows(map(dict, rows), columns, as_json=as_json, empty="no event code has a name there")


@app.command()
def add(
    protocol: Annotated[str, typer.Argument(metavar="PROTOCOL")],
    code: Annotated[str, typer.Argument(metavar="CODE", help="as signals have it in event_code")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="such as ignition_on")],
    description: Annotated[
        str | None, typer.Option("--description", help="what the maker or you call it", show_default=False)
    ] = None,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what an event code means. Again: change it. It counts for what is stored already, too."""
    if protocol not in PROTOCOLS:
        raise CallerError(f"there is no protocol {protocol!r}", hint=f"There are {', '.join(sorted(PROTOCOLS))}.")

    async def work(connection: Connection) -> str | None:
        return await events.put(connection, protocol, code, name=name, description=description, actor=actor())

    was = with_database(data, config_file, work, application="signalkeep events")
    if as_json:
        print_json({"protocol": protocol, "code": code, "name": name, "was": was})
        return
    out.print(f"{protocol} {code} is {name}" + (f", it was {was}" if was not in {None, name} else ""), markup=False)
    if name not in events.WORDS:
        err.print(f"{name} is a word of your own; the usual ones are in docs/data-model.md", markup=False)
