"""`upgrade-database`: moves the data of the embedded PostgreSQL to the major version that signalkeep runs now."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from signalkeep import config
from signalkeep.cli.backup import progress_line
from signalkeep.cli.common import ConfigOption, DataOption, JsonOption, err, out, print_json, run_async
from signalkeep.cli.restore import at_rest
from signalkeep.errors import CallerError
from signalkeep.roles import prepare_directories


def upgrade_database(
    old_programs: Annotated[
        Path | None,
        typer.Option("--old-programs", help="bin folder of the older PostgreSQL", show_default="found if installed"),
    ] = None,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move the embedded database to a newer PostgreSQL major version. The old one is kept aside."""
    from signalkeep.store.upgrade import upgrade

    settings = config.load(data, config_file)
    if not settings.embedded:
        raise CallerError(
            "database.dsn is set: that server is not ours to upgrade", hint="Upgrade it with its own tools."
        )
    prepare_directories(settings)
    with at_rest(settings), progress_line(quiet=as_json) as progress:
        done = run_async(upgrade(settings.data, settings.database, old_programs=old_programs, progress=progress))
    if as_json:
        print_json(done)
    elif not done.old_major:
        out.print(f"nothing to do: {done.directory} is the directory of PostgreSQL {done.new_major}", markup=False)
    else:
        out.print(f"moved from PostgreSQL {done.old_major} to {done.new_major}: {done.directory}", markup=False)
        for line in done.settings_left_behind:
            err.print(f"not carried over from the old postgresql.conf: {line}", markup=False)
        out.print(f"the old data are kept; when you are content: rm -r {shlex.quote(done.aside)}", markup=False)
        out.print(f"now start it: signalkeep run{config.data_option(settings)}", markup=False)
