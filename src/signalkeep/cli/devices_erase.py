"""`devices erase`: what a device has sent up to a moment goes for good, and stays away whatever is sent or replayed.

It is noted in `erasures.jsonl` of the data directory before it begins, so that it is repeated by itself in a database
that is restored from an older backup. It never asks twice, and never begins without a yes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from signalkeep import config
from signalkeep.cli.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    actor,
    err,
    out,
    print_json,
    shown,
    with_database,
)
from signalkeep.cli.devices import PROGRESS_ROWS, records_words
from signalkeep.cli.devices_edit import NumberArgument
from signalkeep.cli.signals import time_of
from signalkeep.errors import CallerError
from signalkeep.store import erasure
from signalkeep.store.erasure import Erased
from signalkeep.store.postgres import Connection
from signalkeep.store.registry import check_number


def erase(
    number: NumberArgument,
    before: Annotated[
        str | None,
        typer.Option("--before", metavar="TIME", help="what was sent or received up to here; now", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a device's signals, and what of it waits in quarantine, for good. Its entry stays; see `retire`."""
    check_number(number)
    now = datetime.now(UTC)
    up_to = time_of(before, now) or now
    if up_to > now:
        raise CallerError("that is in the future", hint="What is not there yet cannot be erased; see `devices retire`.")
    settings = config.load(data, config_file)
    if not yes and not _confirmed(number, up_to):
        err.print("nothing was erased")
        raise typer.Exit(1)

    async def work(connection: Connection) -> Erased:
        return await erasure.erase(
            connection, number, up_to, log=settings.erasures_file, actor=actor(), progress=_progress()
        )

    done = with_database(data, config_file, work, application="signalkeep devices")
    if as_json:
        print_json(msgspec.to_builtins(done))
        return
    out.print(
        f"erased {done.signals} signals and {records_words(done.quarantined)} in quarantine of {number} up to "
        f"{shown(done.erased_to)}; nothing brings them back",
        markup=False,
    )
    hours = settings.journal.replay_window_h
    err.print(f"The journal's files hold the raw messages until they are {hours:g} h old; backups are yours to age.")


def _confirmed(number: str, up_to: datetime) -> bool:
    what = f"everything that device {number} sent up to {shown(up_to)} UTC"
    if not sys.stdin.isatty():
        raise CallerError(f"this would erase {what}", hint="Add --yes if that is meant. It cannot be undone.")
    return typer.confirm(f"Erase {what}? It cannot be undone.", err=True)


def _progress() -> Callable[[int], None]:
    said = 0

    def progress(rows: int) -> None:
        nonlocal said
        if rows - said >= PROGRESS_ROWS:
            said = rows
            err.print(f"{rows} rows erased ...")

    return progress
