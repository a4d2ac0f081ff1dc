"""All that an organizer does again and again: the one list of its jobs, whoever runs them."""

from __future__ import annotations

from collections.abc import Mapping

from signalkeep import limits
from signalkeep.cli.month_jobs import month_jobs
from signalkeep.cli.service_jobs import judging_job, service_jobs
from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.ingest.pace import Pace
from signalkeep.ingest.push_back import push_back
from signalkeep.integrity.devices import DeviceCheck
from signalkeep.integrity.fleet import judge_fleet
from signalkeep.integrity.quality import QualitySweep
from signalkeep.integrity.runner import Job
from signalkeep.integrity.services import SWEEP_RULES
from signalkeep.notify.channels import Channel, channels_of
from signalkeep.notify.outbox import send_waiting
from signalkeep.notify.routing import notify
from signalkeep.protocols.registry import PROTOCOLS
from signalkeep.rulebook import rulebook_of
from signalkeep.store.postgres import Connection
from signalkeep.store.retention import Retention
from signalkeep.store.services import OURS, Seen, note


def jobs_of(settings: Settings, clock: Clock, channels: Mapping[str, Channel] | None = None) -> list[Job]:
    """Every job, by the settings; `channels` if others send over them, too.

    Raises SettingsError for rules that cannot be used.
    """
    jobs = [
        *month_jobs(settings, clock),
        *quality_jobs(settings, clock),
        *device_jobs(settings, clock),
        *service_jobs(settings, clock),
        *push_back_jobs(settings, clock),
        *notify_jobs(settings, clock, channels),
    ]
    return [*jobs, judging_job(settings, jobs)]


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
        named = ", ".join(sorted(done.broken))
        seen = (
            Seen(SWEEP_RULES, "degraded", f"raised errors instead of judging: {named}") if named else Seen(SWEEP_RULES)
        )
        await note(connection, OURS, [seen])
        broken = f", BROKEN RULES: {named}" if named else ""
        return f"{done.signals} new signals, {done.days} days judged, {done.waiting} wait{broken}"

    async def fleet(connection: Connection) -> str:
        return await judge_fleet(connection, book, clock.now())

    return [Job("quality", quality.sweep_every_s, sweep), Job("fleet", limits.FLEET_LOOK_S, fleet)]


def notify_jobs(settings: Settings, clock: Clock, channels: Mapping[str, Channel] | None) -> list[Job]:
    """Whom to tell, and a job for each channel. Without channels nobody is told, but that is decided, too."""

    async def route(connection: Connection) -> str:
        return await notify(connection, settings.notify, clock.now())

    def sender(channel: Channel) -> Job:
        async def send(connection: Connection) -> str:
            return await send_waiting(connection, channel, clock)

        return Job(f"notify {channel.name}", limits.NOTIFY_S, send)

    found = channels_of(settings.notify, clock) if channels is None else channels
    return [Job("notify", limits.NOTIFY_S, route), *map(sender, found.values())]


def device_jobs(settings: Settings, clock: Clock) -> list[Job]:
    """What ails devices."""
    devices = settings.devices
    if not devices.enabled:
        return []
    return [Job("devices", devices.every_s, DeviceCheck(devices, clock).run)]


def push_back_jobs(settings: Settings, clock: Clock) -> list[Job]:
    """What waits in quarantine and may have become storable."""
    given = settings.push_back
    if not given.enabled:
        return []

    async def work(connection: Connection) -> str:
        done = await push_back(
            connection,
            clock=clock,
            protocols=PROTOCOLS,
            retention=Retention.by(settings.ingest, clock),
            attempts_max=given.attempts_max,
            pace=Pace(given.rate_max, clock=clock),
        )
        closed = done.released + done.already_stored + done.replaced
        reasons = ", ".join(f"{reason} {count}" for reason, count in done.reasons.items())
        return f"{closed} records released, {done.still_quarantined} tried in vain" + (
            f": {reasons}" if reasons else ""
        )

    return [Job("push-back", given.every_s, work)]
