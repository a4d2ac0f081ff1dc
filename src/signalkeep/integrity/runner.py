"""One run of one job, whoever says when: the asyncio organizer or Celery.

    how     over a connection of its own, within its time; begin and end are noted in `organizer_job`
    alone   under an advisory lock of the job, so that two runs of it never overlap, whoever starts them and wherever
    fails   a job that raises or takes too long is noted, and tried again at its next time

The lock belongs to the connection that the job works over: it is free as soon as PostgreSQL is done with what a job
that was killed had asked for, and never before; of a process that is frozen, when it was silent for too long. A run
never raises for what a job does.
"""

from __future__ import annotations

import asyncio
import enum
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.errors import SignalkeepError
from signalkeep.store import jobs as stored
from signalkeep.store.postgres import Connection, close_when_silent, connect, dsn_of
from signalkeep.telemetry import get_logger

log = get_logger()


class Job(msgspec.Struct, frozen=True):
    """Work that is done again and again. `work` returns what came of it, in words."""

    name: str
    every_s: float
    work: Callable[[Connection], Awaitable[str]]
    takes_s_max: float = limits.JOB_S_MAX
    silent_s_max: float = limits.JOB_SILENT_S  # between two things that it asks of the database


class Outcome(enum.Enum):
    """What became of a run."""

    NOTED = "noted"  # it ran; how it went stands in organizer_job
    BUSY = "busy"  # it did not run: another run of it has not ended
    NO_DATABASE = "no_database"  # it did not run, or its end could not be noted


class Runner:
    """Runs jobs of one database, any number at a time."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._dsn = dsn_of(settings)

    async def run(self, job: Job) -> Outcome:
        """Do it now, unless it is being done."""
        try:
            connection = await self._connect()
        except SignalkeepError as error:
            log.warning("a job waits for the database", job=job.name, error=error.message)
            return Outcome.NO_DATABASE
        try:
            if not await stored.try_job(connection, job.name):
                return Outcome.BUSY
            await close_when_silent(connection, job.silent_s_max)
            ran_by = f"{socket.gethostname()}:{os.getpid()}"
            began_at = await stored.note_begin(connection, job.name, job.every_s, ran_by)
            began_s = self._clock.monotonic()
            result, failed = await _work(job, connection)
            took_s = self._clock.monotonic() - began_s
            if failed or connection.is_closed() or connection.is_in_transaction():  # who knows what it left there
                connection.terminate()
                connection = await self._connect()
            await stored.note_end(
                connection, job.name, began_at=began_at, seconds=took_s, result=result[:500], failed=failed
            )
            with suppress(Exception):  # the lock is free when PostgreSQL has closed its end, not when we have
                await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)
        except Exception as error:  # the database went away: what the job did stands, or does not
            log.warning("a job's end cannot be noted", job=job.name, error=f"{type(error).__name__}: {error}")
            return Outcome.NO_DATABASE
        finally:
            connection.terminate()
        return Outcome.NOTED

    async def _connect(self) -> Connection:
        return await connect(self._dsn, application="signalkeep organizer", settings=self._settings.database)


async def _work(job: Job, connection: Connection) -> tuple[str, bool]:
    """What came of it, and whether it failed."""
    try:
        async with asyncio.timeout(job.takes_s_max) as limit:
            return await job.work(connection), False
    except Exception as error:
        log.exception("a job failed, it is tried again at its next time", job=job.name)
        if limit.expired():
            return f"cut off, it was not done within {job.takes_s_max:g} s", True
        return f"{type(error).__name__}: {error}", True
