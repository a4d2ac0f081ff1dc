"""`organizer`: the role that does what has to be done again and again; `organizer status`: what became of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from signalkeep import limits
from signalkeep.cli.common import ConfigOption, DataOption, JsonOption, print_rows, run_async, with_database
from signalkeep.cli.roles import InstanceOption, ParentOption, living, prepare
from signalkeep.clock import Clock, SystemClock
from signalkeep.config import Settings
from signalkeep.roles import lower_priority, stop_on_signals
from signalkeep.store import jobs
from signalkeep.store.postgres import Connection

if TYPE_CHECKING:
    from signalkeep.integrity.organizer import Job

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
    from signalkeep.integrity.organizer import Organizer

    settings = prepare(data, config_file, "organizer")
    work = jobs_of(settings, SystemClock())
    lower_priority(limits.INGEST_NICE)

    async def body() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop, parent_fd)
        service = Organizer(settings, work, clock=SystemClock(), stop=stop)
        async with living(settings, "organizer", instance, service.report) as file:
            await service.run(on_ready=file.ready)

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


def jobs_of(settings: Settings, clock: Clock) -> list[Job]:
    """All that an organizer does. Raises SettingsError for rules that cannot be used."""
    from signalkeep.integrity.fleet import judge_fleet
    from signalkeep.integrity.organizer import Job
    from signalkeep.integrity.quality import QualitySweep
    from signalkeep.rulebook import rulebook_of

    quality = settings.quality
    if not quality.enabled:
        return []
    book = rulebook_of(quality)

    async def sweep(connection: Connection) -> str:
        done = await QualitySweep(
            connection, book, clock, budget_s=quality.sweep_budget_s, sample_days=quality.sample_days
        ).run()
        broken = f", BROKEN RULES: {', '.join(sorted(done.broken))}" if done.broken else ""
        return f"{done.signals} new signals, {done.days} days judged, {done.waiting} wait{broken}"

    async def fleet(connection: Connection) -> str:
        return await judge_fleet(connection, book, clock.now())

    return [Job("quality", quality.sweep_every_s, sweep), Job("fleet", limits.FLEET_LOOK_S, fleet)]
