"""All that an organizer does again and again: the one list of its jobs, whoever runs them."""

from __future__ import annotations

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.integrity.fleet import judge_fleet
from signalkeep.integrity.quality import QualitySweep
from signalkeep.integrity.runner import Job
from signalkeep.rulebook import rulebook_of
from signalkeep.store.postgres import Connection


def jobs_of(settings: Settings, clock: Clock) -> list[Job]:
    """Every job, by the settings. Raises SettingsError for rules that cannot be used."""
    return [*quality_jobs(settings, clock)]


def quality_jobs(settings: Settings, clock: Clock) -> list[Job]:
    """The quality of each device and of the whole fleet."""
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
