"""`backup`: makes a backup of database and journals while everything runs; `list` and `verify` look at those there are.

`signalkeep backup DIRECTORY` is short for `signalkeep backup create DIRECTORY`. Progress goes to standard error, and
only to a terminal; exit code 1 if there is no whole backup in the end, or `verify` finds damage.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from signalkeep import config, limits
from signalkeep.cli.common import ConfigOption, DataOption, JsonOption, err, out, print_json, print_rows, run_async


class _CreatesByDefault(TyperGroup):
    """A first word that is no subcommand is the directory of a new backup."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in {"-h", "--help"}:
            args = ["create", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_CreatesByDefault,
    help="Back up database and journals while everything runs: signalkeep backup DIRECTORY",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@contextmanager
def progress_line(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """One line on the terminal that says what is being done now."""
    if quiet or not err.is_terminal:
        yield lambda _: None
        return
    with err.status("...") as line:
        yield line.update


@app.command()
def create(
    directory: Annotated[Path, typer.Argument(help="where backups lie: each gets a directory of its own there")],
    keep: Annotated[
        int | None,
        typer.Option("--keep", min=1, help="then remove all but this many of the newest", show_default=False),
    ] = None,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a backup. It appears when it is whole and checked, or not at all."""
    from signalkeep.backup import create as work

    settings = config.load(data, config_file)
    with progress_line(quiet=as_json) as progress:
        made = run_async(
            work.create(
                settings,
                directory,
                host=socket.gethostname(),
                settings_file=config.settings_file(settings.data, config_file, os.environ),
                keep=keep,
                progress=progress,
            )
        )
    if as_json:
        print_json(made)
        return
    size = f"{made.bytes / limits.MIB:.1f} MiB"
    copied = "1 journal" if made.journals == 1 else f"{made.journals} journals"
    out.print(f"backup {made.path}: {made.database}, {copied}, {size}", markup=False)
    for path in made.removed:
        out.print(f"removed {path}", markup=False)
    if made.not_included:
        err.print(f"not included: journals on other hosts: {', '.join(made.not_included)}", markup=False)


@app.command("list")
def list_backups(
    directory: Annotated[Path, typer.Argument(help="where backups lie")], as_json: JsonOption = False
) -> None:
    """The backups in a directory, oldest first."""
    from signalkeep.backup import manifest

    rows = [
        {
            "backup": str(path),
            "made_at": found.made_at,
            "size_mib": round(found.bytes / limits.MIB, 1),
            "database": f"{found.database.kind} {found.database.version}",
            "schema": found.database.schema,
            "journals": sum(1 for part in found.journals if part.segments),
            "signalkeep": found.signalkeep,
        }
        for path, found in manifest.backups_in(directory)
    ]
    columns = ("backup", "made_at", "size_mib", "database", "schema", "journals", "signalkeep")
    print_rows(rows, columns, as_json=as_json, empty=f"no backup in {directory}")


@app.command()
def verify(
    backup: Annotated[Path, typer.Argument(help="a backup: a directory signalkeep-...")], as_json: JsonOption = False
) -> None:
    """Read every byte of a backup; name what is not as it was written. Exit code 1 if anything is."""
    from signalkeep.backup import manifest

    found = manifest.read(backup)
    with progress_line(quiet=as_json) as progress:
        progress(f"reading {found.bytes / limits.MIB:.0f} MiB")
        damages = manifest.verify(backup, found)
    if as_json:
        print_json({"backup": str(backup), "ok": not damages, "damages": damages})
    else:
        for damage in damages:
            out.print(f"{damage.path} {damage.what}", markup=False)
        whole = f"{len(found.files)} files are as they were written"
        out.print(f"{len(damages)} of {len(found.files)} files are damaged" if damages else whole, markup=False)
    if damages:
        raise typer.Exit(1)
