"""`restore`: puts a backup in the place of the present database, and adds its journals to those on the disk.

Nothing may run on the data directory meanwhile. What was there before is moved aside and named; nothing is deleted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from signalkeep import config
from signalkeep.cli.backup import progress_line
from signalkeep.cli.common import ConfigOption, DataOption, JsonOption, err, out, print_json, run_async
from signalkeep.config import Settings
from signalkeep.errors import AlreadyRunning
from signalkeep.roles import prepare_directories, running_roles
from signalkeep.supervisor import take_lock


def restore(
    backup: Annotated[Path, typer.Argument(help="a backup: a directory signalkeep-...")],
    archive: Annotated[
        Path | None,
        typer.Option(
            "--archive", help="archived journals to take later entries from", show_default="journal.archive_dir"
        ),
    ] = None,
    despite_damage: Annotated[
        bool, typer.Option("--despite-damage", help="take what can be taken of a damaged backup")
    ] = False,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore a backup. The present database is kept aside, journals on the disk stay."""
    from signalkeep.backup import restore as work
    from signalkeep.backup.create import told_as_faults

    settings = config.load(data, config_file)
    prepare_directories(settings)
    with at_rest(settings), progress_line(quiet=as_json) as progress, told_as_faults(f"the restore of {backup}"):
        done = run_async(
            work.restore(
                settings,
                backup,
                archive=archive or settings.journal.archive_dir,
                despite_damage=despite_damage,
                progress=progress,
            )
        )
    if as_json:
        print_json(done)
        return
    out.print(f"restored {done.database} from {done.backup}", markup=False)
    out.print(
        f"journal segments added: {done.segments_placed} from the backup, {done.segments_from_archive} from the archive"
    )
    for path in done.aside:
        out.print(f"the database that was there is kept in {path}", markup=False)
    for path in done.damaged:
        err.print(f"damaged: {path}", markup=False)
    for finding in done.findings:
        err.print(f"{finding.kind}: {finding.subject}: {finding.detail}", markup=False)
    out.print(f"now start it: signalkeep run{config.data_option(settings)}", markup=False)


@contextmanager
def at_rest(settings: Settings) -> Iterator[None]:
    """The data directory for ourselves. Raises AlreadyRunning if a supervisor or a role works on it."""
    lock = take_lock(settings.run_root)
    try:
        left = running_roles(settings.run_root)
        if left:
            named = ", ".join(f"{state.role} (pid {state.pid})" for state in left)
            raise AlreadyRunning(f"still running on {settings.data}: {named}", hint="Stop it first, then try again.")
        yield
    finally:
        os.close(lock)
