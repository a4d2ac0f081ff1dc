"""The organizer's jobs about ourselves: services, what is watched, the canary, findings of storage, the audit."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import datetime

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.ingest.triage import record_keys
from signalkeep.integrity import services, storage
from signalkeep.integrity.audit import Audit
from signalkeep.integrity.canary import Canary
from signalkeep.integrity.organizer import Job
from signalkeep.integrity.sums import audit_if_due
from signalkeep.integrity.watch import look_at
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.record import FrameEntry
from signalkeep.protocols.registry import PROTOCOLS
from signalkeep.sections.services import WatchSettings
from signalkeep.store.postgres import Connection
from signalkeep.store.services import OURS, note


def service_jobs(settings: Settings, clock: Clock) -> list[Job]:
    """All but the one that judges what these and the monitors found."""
    jobs = [Job("storage", limits.STORAGE_LOOK_S, storage.look)]
    jobs += [_watch(watch, settings, clock) for watch in settings.services.watch]
    if settings.services.canary.enabled:
        jobs.append(_canary(settings, clock))
    if settings.audit.every_s:
        jobs.append(_audit(settings))
    return jobs


def judging_job(settings: Settings, jobs: Sequence[Job]) -> Job:
    """Makes incidents of what is wrong, with these jobs among the rest."""
    named = [services.watch_name(watch.name) for watch in settings.services.watch]
    if settings.services.canary.enabled:
        named.append(services.CANARY)
    if settings.quality.enabled:
        named.append(services.SWEEP_RULES)

    async def look(connection: Connection) -> str:
        return await services.look(connection, settings.services, jobs, named)

    return Job("services", settings.services.every_s, look)


def _watch(watch: WatchSettings, settings: Settings, clock: Clock) -> Job:
    async def look(connection: Connection) -> str:
        seen = await look_at(watch, settings, clock)
        await note(connection, OURS, [seen])
        return seen.why or "it answers"

    return Job(seen_name(watch), watch.every_s, look)


def seen_name(watch: WatchSettings) -> str:
    """A job and a row have the same name."""
    return services.watch_name(watch.name)


def _canary(settings: Settings, clock: Clock) -> Job:
    canary = Canary(settings, clock)

    async def fly(connection: Connection) -> str:
        seen = await canary.fly(connection)
        await note(connection, OURS, [seen])
        return seen.why or f"there after {seen.took_s or 0.0:.1f} s"

    return Job(services.CANARY, settings.services.canary.every_s, fly)


def _audit(settings: Settings) -> Job:
    host, every_s = socket.gethostname(), settings.audit.every_s

    async def audit(connection: Connection) -> str:
        work = Audit(
            connection,
            fs=LocalFileSystem(),
            host=host,
            evidence_root=settings.evidence_root,
            record_keys=_record_keys,
        )
        return await audit_if_due(connection, work, host, every_s)

    takes_s_max = limits.AUDIT_JOB_S_MAX  # most of it in the files of journals, without a word to the database
    return Job("audit", min(every_s, limits.AUDIT_LOOK_S), audit, takes_s_max, silent_s_max=takes_s_max)


def _record_keys(frame: FrameEntry) -> list[tuple[datetime, int]]:
    return record_keys(frame, PROTOCOLS.get(frame.protocol))
