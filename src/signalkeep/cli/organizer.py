"""`organizer`: the role that does what has to be done again and again; `organizer status`: what became of it."""

from __future__ import annotations

import asyncio
import socket

import typer

from signalkeep import limits
from signalkeep.cli.common import ConfigOption, DataOption, JsonOption, print_rows, run_async, with_database
from signalkeep.cli.roles import InstanceOption, ParentOption, living, prepare
from signalkeep.clock import SystemClock
from signalkeep.errors import SettingsError
from signalkeep.roles import lower_priority, stop_on_signals
from signalkeep.store import jobs

app = typer.Typer(help="Periodic work: quality of devices and of the fleet.")


@app.callback(invoke_without_command=True)
def organizer(
    context: typer.Context,
    data: DataOption = None,
    config_file: ConfigOption = None,
    instance: InstanceOption = None,
    parent_fd: ParentOption = None,
) -> None:
    """Do what has to be done again and again. Of all organizers of a database one works, the others wait."""
    if context.invoked_subcommand is not None:
        return
    from signalkeep.cli.jobs import jobs_of
    from signalkeep.integrity.organizer import Organizer
    from signalkeep.notify.channels import channels_of
    from signalkeep.notify.emergency import Emergency

    settings = prepare(data, config_file, "organizer")
    if settings.organizer.runner == "celery":
        raise SettingsError(
            "the jobs are run by Celery, not by this role",
            hint="Start `celery -A signalkeep.cli.celery_app worker` and `... beat`, or leave out organizer.runner.",
        )
    clock = SystemClock()
    channels = channels_of(settings.notify, clock)
    work = jobs_of(settings, clock, channels)
    lower_priority(limits.INGEST_NICE)

    async def body() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop, parent_fd)
        emergency = Emergency(
            settings.run_root, settings.notify, channels, clock=clock, host=socket.gethostname()
        )  # fmt: skip
        service = Organizer(settings, work, clock=clock, stop=stop, watch=emergency)
        async with living(settings, "organizer", instance, service.report) as file:
            try:
                await service.run(on_ready=file.ready)
            finally:
                await emergency.close()

    run_async(body())


@app.command()
def status(data: DataOption = None, config_file: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Each job with its last run, how long it took, and what came of it."""
    rows = with_database(data, config_file, jobs.jobs, application="signalkeep organizer")
    columns = ("name", "every_s", "began_at", "seconds", "runs", "failures", "result")
    shown = [
        {**row, "seconds": round(row["seconds"], 1), "result": "runs" if row["ended_at"] is None else row["result"]}
        for row in map(dict, rows)
    ]
    print_rows(shown, columns, as_json=as_json, empty="no organizer has run yet")
