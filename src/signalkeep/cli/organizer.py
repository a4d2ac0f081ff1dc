"""`organizer`: the role that does what has to be done again and again; `organizer status`: what became of it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import typer

from signalkeep import config, limits
from signalkeep.cli.common import ConfigOption, DataOption, JsonOption, err, print_rows, run_async, with_database
from signalkeep.cli.roles import InstanceOption, ParentOption, living, prepare
from signalkeep.clock import SystemClock
from signalkeep.errors import SettingsError
from signalkeep.roles import lower_priority, stop_on_signals
from signalkeep.store import jobs
from signalkeep.store.postgres import Connection, Row

app = typer.Typer(help="Periodic work: quality of devices and of the fleet, messages about incidents.")


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
    """Each job with its last run, how long it took, what came of it, and when it is due again; and who leads."""
    from signalkeep.cli.jobs import jobs_of

    settings = config.load(data, config_file)
    every = {job.name: job.every_s for job in jobs_of(settings, SystemClock())}

    async def look(connection: Connection) -> tuple[list[Row], str | None]:
        return await jobs.jobs(connection), await jobs.leader(connection)

    rows, leader = with_database(data, config_file, look, application="signalkeep organizer")
    noted = {row["name"]: row for row in rows}
    shown = [_shown(name, every_s, noted.get(name)) for name, every_s in sorted(every.items())]
    columns = ("name", "every_s", "began_at", "seconds", "runs", "failures", "next_at", "overdue", "ran_by", "result")
    print_rows(shown, columns, as_json=as_json, empty="by its settings, an organizer has nothing to do")
    if as_json:
        return
    if settings.organizer.runner == "celery":
        err.print("Celery runs the jobs")
    else:
        err.print(f"led by {leader}" if leader else "no organizer leads: none runs, or none reaches the database")


def _shown(name: str, every_s: float, row: Row | None) -> dict[str, Any]:
    """A job as `status` shows it. Whether a run that began still lives, PostgreSQL knows: it holds the job's lock."""
    if row is None:
        never = dict.fromkeys(("began_at", "ended_at", "seconds", "next_at", "ran_by"))
        return {"name": name, "every_s": every_s, **never, "runs": 0, "failures": 0, "failed_in_a_row": 0,
                "overdue": False, "result": "has not run yet"}  # fmt: skip
    result = row["result"]
    if row["runs_now"]:
        result = f"runs, began {row['began_ago_s']:.0f} s ago"
    elif row["ended_at"] is None:
        result = f"began {row['began_ago_s']:.0f} s ago and did not end: it was cut off"
    kept = {key: value for key, value in row.items() if key not in {"runs_now", "began_ago_s"}}
    return {**kept, "seconds": round(row["seconds"], 1), "result": result}
