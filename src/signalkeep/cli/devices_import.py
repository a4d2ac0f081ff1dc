"""`devices import`: a whole list of devices with their vehicles and customers, all of it or nothing.

Every row is checked before any is written, and each that is wrong is named with its line and column. Read again, the
same file changes nothing. What the devices have sent so far is released from quarantine, as `devices add` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from signalkeep import config
from signalkeep.cli.common import ConfigOption, DataOption, JsonOption, actor, err, out, print_json, with_database
from signalkeep.cli.devices import PROGRESS_ROWS, release_progress, released_words
from signalkeep.cli.devices_file import COLUMNS, read_devices
from signalkeep.config import Settings
from signalkeep.errors import CallerError
from signalkeep.ingest.release import Released, release
from signalkeep.model import Reason
from signalkeep.protocols.registry import PROTOCOLS
from signalkeep.store.bulk import Fault, Imported, Refused, Wanted, import_devices
from signalkeep.store.postgres import Connection
from signalkeep.store.quarantine import Selection
from signalkeep.store.retention import Retention

FAULTS_SHOWN = 50


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help=f"columns: {', '.join(COLUMNS)}")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="try everything, and change nothing")] = False,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register the devices of a list, with their vehicles and customers; all rows or none. An empty cell leaves a
    value as it is. A second time it changes nothing."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CallerError(f"{file} cannot be read: {error.strerror}", hint="Give the path of a CSV file.") from error
    rows, faults = read_devices(content)
    if faults:
        _refuse(file, sorted(faults), as_json=as_json)
    settings = config.load(data, config_file)
    said_steps = len(rows) >= PROGRESS_ROWS

    async def work(connection: Connection) -> tuple[Imported, Released] | Refused:
        try:
            done = await import_devices(
                connection,
                rows,
                actor=actor(),
                dry_run=dry_run,
                progress=lambda step: err.print(f"{len(rows)} rows: {step} ...") if said_steps else None,
            )
        except Refused as refused:
            return refused
        return done, Released() if dry_run else await _release(connection, done.waiting, settings)

    result = with_database(data, config_file, work, application="signalkeep devices")
    if isinstance(result, Refused):
        _refuse(file, result.faults, as_json=as_json)
        return
    _show(*result, rows, dry_run=dry_run, as_json=as_json)


async def _release(connection: Connection, numbers: Sequence[str], settings: Settings) -> Released:
    """What waited for these devices; the sum over all."""
    total = Released()
    for number in numbers:
        released = await release(
            connection,
            Selection(device_number=number, reason=Reason.UNKNOWN_DEVICE),
            forced=False,
            closed_by=actor(),
            protocols=PROTOCOLS,
            retention=Retention.by(settings.ingest),
            progress=release_progress(),
        )
        total.add(released)
    return total


def _refuse(file: Path, faults: Sequence[Fault], *, as_json: bool) -> None:
    """Name what is wrong, and end."""
    if as_json:
        print_json({"ok": False, "faults": msgspec.to_builtins(faults)})
        raise typer.Exit(2)
    lines = [
        f"  line {fault.line}{f', {fault.column}' if fault.column else ''}: {fault.fault}"
        for fault in faults[:FAULTS_SHOWN]
    ]
    if len(faults) > FAULTS_SHOWN:
        lines.append(f"  and {len(faults) - FAULTS_SHOWN} more")
    raise CallerError(
        f"nothing was changed: {file} cannot be taken as it is:\n" + "\n".join(lines),
        hint="Mend these lines and read the file again; --dry-run tries without changing anything.",
    )


def _show(done: Imported, released: Released, rows: Sequence[Wanted], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        values: dict[str, Any] = msgspec.to_builtins(done)
        print_json({"ok": True, "dry_run": dry_run, **values, "released": msgspec.to_builtins(released)})
        return
    counts = [
        (done.registered, "registered"),
        (done.changed, "changed"),
        (done.customers, "customers added"),
        (done.vehicles, "vehicles added"),
        (done.vehicles_changed, "vehicles changed"),
        (done.assigned, "put into a vehicle"),
    ]
    said = ", ".join(f"{count} {what}" for count, what in counts if count) or "nothing to change"
    out.print(f"{len(rows)} devices: {said}{'; this was a trial, nothing was changed' if dry_run else ''}")
    if words := released_words(released):
        out.print(words, markup=False)
    if dry_run and done.waiting:
        out.print(f"records of {len(done.waiting)} devices would be released from quarantine")
