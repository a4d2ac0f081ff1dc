"""Are we working? The organizer's look at what all monitors wrote, and what only it can see.

    what it sees itself     machines that say nothing any more, its own jobs: written beside the rest, as rows `service`
    what follows            `faults.conditions`: from rows to incidents

It keeps nothing in memory: an organizer that takes over goes on where the other one was. It runs over and over, and
bears being cut off anywhere: rows and incidents are brought to what is, never counted up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from signalkeep import limits
from signalkeep.integrity.faults import conditions
from signalkeep.integrity.organizer import Job
from signalkeep.sections.services import ServicesSettings
from signalkeep.store import jobs as stored
from signalkeep.store import services
from signalkeep.store.incidents import observe
from signalkeep.store.postgres import Connection
from signalkeep.store.services import OURS, LastBeat, Seen, Service

SOURCE = "services"
CANARY = "canary"
SWEEP_RULES = "rules of sweeps"


def watch_name(name: str) -> str:
    """The row of a watched service."""
    return f"watch {name}"


async def look(connection: Connection, settings: ServicesSettings, jobs: Sequence[Job], named: Collection[str]) -> str:
    """Bring incidents to what is. `named`: rows that other jobs of ours write, and go on writing."""
    now = await services.time_of(connection)
    rows, beats = await services.services(connection), await services.beats(connection)
    noted = {row["name"]: dict(row) for row in await stored.jobs(connection)}
    seen = [*hosts_seen(rows, beats, now), *jobs_seen(jobs, noted, now)]
    await services.note(connection, OURS, seen)
    await services.keep_only(connection, [*(one.name for one in seen), *named])
    rows, beats, now = (
        await services.services(connection), await services.beats(connection), await services.time_of(connection),
    )  # fmt: skip
    opened = await services.open_of(connection, SOURCE)
    found = conditions(
        rows, beats, opened, now, bad_s=settings.bad_s, good_s=settings.good_s, canary_s=settings.canary.deadline_s
    )
    observed = await observe(connection, SOURCE, found, now)
    return f"{len(rows)} services, {len(found)} faults: {observed.words()}"


def hosts_seen(rows: Sequence[Service], beats: Sequence[LastBeat], now: datetime) -> list[Seen]:
    """Each machine, by when its monitor wrote last."""
    last: dict[str, datetime] = {}
    for host, at in (*((row.host, row.at) for row in rows), *((beat.host, beat.at) for beat in beats)):
        if host != OURS:
            last[host] = max(at, last.get(host, at))
    return [
        Seen(f"host {host}", "down", f"its monitor wrote last at {at:%Y-%m-%d %H:%M:%S} UTC")
        if (now - at).total_seconds() > limits.HOST_SILENT_S
        else Seen(f"host {host}")
        for host, at in last.items()
    ]


def jobs_seen(jobs: Sequence[Job], noted: Mapping[str, Mapping[str, Any]], now: datetime) -> list[Seen]:
    """Each job of this organizer, by its last runs. One that has not begun yet is no fault: it is about to."""
    return [Seen(f"job {job.name}", *_job(job, noted.get(job.name), now)) for job in jobs]


def _job(job: Job, last: Mapping[str, Any] | None, now: datetime) -> tuple[services.State, str]:
    if last is None:
        return "up", ""
    if last["failed_in_a_row"] >= limits.JOB_FAILURES_NAMED:
        return "degraded", f"failed {last['failed_in_a_row']} times in a row: {last['result']}"
    late_s = (now - last["began_at"]).total_seconds() - 1.1 * job.every_s - job.takes_s_max
    if late_s > limits.JOB_OVERDUE_S:
        return (
            "degraded",
            f"it has begun last at {last['began_at']:%Y-%m-%d %H:%M:%S} UTC, every {job.every_s:g} s is due",
        )
    return "up", ""
