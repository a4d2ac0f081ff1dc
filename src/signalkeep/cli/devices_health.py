"""`devices health`: what ails devices now, since when, how often, and of which shared fault it is a part."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from signalkeep.cli.common import ConfigOption, DataOption, JsonOption, LimitOption, print_rows, with_database
from signalkeep.errors import CallerError
from signalkeep.store import device_health, queries
from signalkeep.store.postgres import Connection, Row

COLUMNS = ("device_number", "kind", "stage", "since", "hits", "bad_minutes", "good_since", "part_of", "detail")


def health(
    number: Annotated[
        str | None, typer.Argument(metavar="[NUMBER]", help="only this device", show_default=False)
    ] = None,
    limit: LimitOption = 100,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What ails devices now, malfunctions first. The organizer looks once a minute."""

    async def work(connection: Connection) -> list[Row]:
        if number is not None and await queries.device(connection, number) is None:
            raise CallerError(
                f"nobody has registered or heard of device {number}", hint="`signalkeep devices list` shows all."
            )
        return await device_health.ailing(connection, number, limit)

    rows = with_database(data, config_file, work, application="signalkeep devices")
    empty = "nothing ails it" if number is not None else "nothing ails any device"
    print_rows(map(_shown, rows), COLUMNS, as_json=as_json, empty=empty)


def _shown(row: Row) -> dict[str, Any]:
    return {**row, "bad_minutes": round(row["bad_minutes"], 1)}
