"""The organizer: periodic work as supervised asyncio tasks, done by one process of all that run.

    who     whoever holds an advisory lock of PostgreSQL; it is lost with the connection, which PostgreSQL closes when
            the leader hangs, and another takes over
    when    each job by itself, every so often with some jitter, never twice at a time
    how     as `runner` says; a job that fails or takes too long is noted, and tried again at its next time

What a job does must bear being cut off at any moment and being done twice: the lock says who should work, the
transactions of the jobs say what is done. With the database away everything waits and goes on by itself.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.errors import SignalkeepError
from signalkeep.integrity.runner import Job, Outcome, Runner
from signalkeep.retry import Backoff
from signalkeep.store import jobs as stored
from signalkeep.store.postgres import Connection, close_when_silent, connect, dsn_of
from signalkeep.store.schema import ensure_schema
from signalkeep.tasks import end
from signalkeep.telemetry import get_logger
from signalkeep.vitals import Report

__all__ = ["Job", "Organizer"]

log = get_logger()


class Watch(Protocol):
    """Who wants to know whether the database is there, and who works."""

    def leads(self, leads: bool) -> None:
        """This organizer leads from now on; False: another one does."""
        ...

    def away(self) -> None:
        """The database could not be used just now; called at each try."""
        ...

    async def back(self, connection: Connection) -> None:
        """It can be used; called at each new connection, before any job runs."""
        ...


class Organizer:
    """`run` returns when `stop` is set."""

    def __init__(
        self,
        settings: Settings,
        jobs: Sequence[Job],
        *,
        clock: Clock,
        stop: asyncio.Event,
        watch: Watch | None = None,
    ) -> None:
        self._watch = watch
        self._settings = settings
        self._jobs = jobs
        self._stop = stop
        self._dsn = dsn_of(settings)
        self._runner = Runner(settings, clock)
        self._runs = 0
        self.leads = False

    def report(self) -> Report:
        """For health."""
        return Report(handled=self._runs)

    async def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                await ensure_schema(self._dsn, self._settings.database)
                connection = await self._connect()
            except SignalkeepError as error:
                if backoff.worth_a_word:
                    log.error("the database cannot be used", error=error.message, hint=error.hint)
                self._is_away()
                await self._pause(backoff.next_s())
                continue
            backoff.reset()
            on_ready()
            try:
                await self._is_back(connection)
                await self._lead(connection)
            except Exception as error:  # the connection is gone, and the lock with it
                log.warning("the lead is lost, trying to get it again", error=f"{type(error).__name__}: {error}")
                self._is_away()
                await self._pause(backoff.next_s())
            finally:
                self.leads = False
                connection.terminate()

    def _is_away(self) -> None:
        if self._watch is not None:
            self._watch.away()

    async def _is_back(self, connection: Connection) -> None:
        if self._watch is None:
            return
        try:
            async with asyncio.timeout(limits.DATABASE_COMMAND_S_MAX):
                await self._watch.back(connection)
        except Exception as error:  # the jobs matter more; it is told again at the next connection
            log.warning("what happened without the database is not noted", error=f"{type(error).__name__}: {error}")

    async def _connect(self) -> Connection:
        application = f"{stored.LEADER}{socket.gethostname()}"
        return await connect(self._dsn, application=application, settings=self._settings.database)

    async def _lead(self, connection: Connection) -> None:
        """Wait for the lead, then keep every job going as long as we have it."""
        await close_when_silent(connection, limits.LEAD_SILENT_S)
        while not await stored.try_lead(connection):
            if self._watch is not None:
                self._watch.leads(False)
            await self._pause(limits.LEAD_S)
            if self._stop.is_set():
                return
        self.leads = True
        if self._watch is not None:
            self._watch.leads(True)
        log.info("this organizer leads")
        tasks = [asyncio.create_task(self._keep(job), name=job.name) for job in self._jobs]
        try:
            while not self._stop.is_set():
                await self._pause(limits.LEAD_S)
                await connection.fetchval("SELECT 1", timeout=limits.DATABASE_CONNECT_S_MAX)
                for task in tasks:
                    if task.done():
                        task.result()
        finally:
            await asyncio.gather(*map(end, tasks))

    async def _keep(self, job: Job) -> None:
        await self._pause(random.uniform(0, min(limits.JOB_JITTER_S_MAX, job.every_s / 4)))  # noqa: S311 - not a secret
        while not self._stop.is_set():
            outcome = await self._runner.run(job)
            self._runs += 1
            wait_s = job.every_s
            if outcome is not Outcome.NOTED:
                wait_s = min(wait_s, limits.JOB_AGAIN_S)
            await self._pause(wait_s * random.uniform(0.9, 1.1))  # noqa: S311 - not a secret

    async def _pause(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._stop.wait()
        except TimeoutError:
            pass
