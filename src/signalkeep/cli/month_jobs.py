"""The organizer's jobs of months: those to come are made before they begin, those that are over may go."""

from __future__ import annotations

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.integrity.runner import Job
from signalkeep.store.partitions import ensure_partitions, month_after, month_of
from signalkeep.store.postgres import Connection
from signalkeep.store.retention import drop_months, months_over


def month_jobs(settings: Settings, clock: Clock) -> list[Job]:
    """`months`, and `retention` if that was asked for (`ingest.drop_months`)."""
    ingest = settings.ingest

    async def ahead(connection: Connection) -> str:
        now = month_of(clock.now())
        months = [month_after(now, number) for number in range(limits.MONTHS_AHEAD + 1)]
        made = await ensure_partitions(connection, months, actor="organizer")
        return f"made {', '.join(made)}" if made else "all are there"

    async def retention(connection: Connection) -> str:
        months = await months_over(connection, clock.now(), ingest.retention_days)
        gone, waiting = await drop_months(connection, months, actor="organizer")
        said = [f"{one.month} went with {one.signals} signals" for one in gone]
        said += [f"{month} waits: somebody reads or writes for too long" for month in waiting]
        return ", ".join(said) or "no month is over"

    jobs = [Job("months", limits.MONTHS_LOOK_S, ahead)]
    return [*jobs, Job("retention", limits.MONTHS_LOOK_S, retention)] if ingest.drop_months else jobs
