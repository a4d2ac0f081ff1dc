"""`retention show`: the months of signals that are there, how large each is, and when it goes.

What drops them is the organizer (`ingest.retention_days` with `ingest.drop_months`); nothing is dropped here.
"""

from __future__ import annotations

from typing import Any

import msgspec
import typer

from signalkeep import config
from signalkeep.cli.common import ConfigOption, DataOption, JsonOption, err, print_rows, shown, with_database
from signalkeep.clock import SYSTEM_CLOCK
from signalkeep.store.postgres import Connection
from signalkeep.store.retention import KeptMonth, overview

MEBIBYTE = 1024 * 1024

app = typer.Typer(help="How long signals are kept.", no_args_is_help=True)


@app.callback()
def _retention() -> None:
    """A group of its own, so that `show` is named."""


@app.command()
def show(data: DataOption = None, config_file: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Each month of signals, about how many it has, and when it goes: at the first look of the organizer after that."""
    ingest = config.load(data, config_file).ingest

    async def work(connection: Connection) -> list[KeptMonth]:
        return await overview(connection, ingest.retention_days if ingest.drop_months else 0)

    months = with_database(data, config_file, work, application="signalkeep retention")
    rows = [msgspec.structs.asdict(month) if as_json else _line(month) for month in months]
    print_rows(rows, ("month", "signals", "MiB", "goes"), as_json=as_json, empty="no signal is stored yet")
    if not as_json and not ingest.drop_months:
        err.print("nothing is ever dropped: ingest.drop_months is off", highlight=False)


def _line(month: KeptMonth) -> dict[str, Any]:
    now = SYSTEM_CLOCK.now()
    goes = "never" if month.goes_at is None else "now" if month.goes_at <= now else f"after {shown(month.goes_at)}"
    size = f"{month.bytes / MEBIBYTE:,.1f}"
    return {"month": month.month, "signals": f"about {month.signals:,}", "MiB": size, "goes": goes}
