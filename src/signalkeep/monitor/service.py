"""The monitor: a process that looks at a core and answers `/livez`, `/readyz` and `/metrics`.

It depends on nothing that it watches: with the database away, a role hung or its file half written it answers all the
same, and within a bounded time. It changes no journal, and never stops or starts a process; in the database it writes
what it sees of this machine, beside everything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.journal.files import FileSystem
from signalkeep.monitor.beats import BeatWriter
from signalkeep.monitor.database import DatabaseWatch
from signalkeep.monitor.health import live, page, passed, ready
from signalkeep.monitor.journals import JournalWatch
from signalkeep.monitor.look import Looker
from signalkeep.monitor.metrics import exposition
from signalkeep.monitor.picture import JournalFacts, Picture
from signalkeep.monitor.server import Answer, HttpServer
from signalkeep.tasks import end
from signalkeep.telemetry import get_logger
from signalkeep.vitals import Report

PAGES = b"signalkeep monitor: /livez, /readyz (with ?verbose), /metrics\n"

log = get_logger()


class MonitorService:
    """One monitor process. `run` returns when `stop` is set."""

    def __init__(self, settings: Settings, *, fs: FileSystem, clock: Clock, stop: asyncio.Event) -> None:
        self._settings = settings
        self._stop = stop
        self._looker = Looker(settings, clock)
        self._journals = JournalWatch(settings, fs, clock)
        self._database = DatabaseWatch(settings, clock)
        self._journal: JournalFacts | None = None
        self._journal_fault = "not looked at yet"
        self._looking: asyncio.Future[Picture] | None = None
        self._server = HttpServer(self.answer)
        self._beats = BeatWriter(settings, clock, self._database, self._picture)
        self._answered = 0

    def report(self) -> Report:
        return Report(handled=self._answered)

    async def run(self, on_ready: Callable[[int], None]) -> None:
        """`on_ready` gets the port. Raises EnvironmentFault if there is none to be had."""
        port = await self._server.start(self._settings.monitor.host, self._settings.monitor.port)
        tasks = [
            asyncio.create_task(self._database.run(), name="database"),
            asyncio.create_task(self._watch_journals(), name="journals"),
            asyncio.create_task(self._beats.run(), name="beats"),
        ]
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            on_ready(port)
            done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                task.result()
        finally:
            self._server.close()
            await asyncio.gather(*map(end, [stop, *tasks]))

    async def answer(self, path: str, query: str) -> Answer:
        """A page."""
        self._answered += 1
        if path == "/":
            return Answer(200, PAGES)
        if path not in {"/livez", "/readyz", "/metrics"}:
            return Answer(404, PAGES)
        try:
            async with asyncio.timeout(limits.PROBE_S_MAX):
                picture = await asyncio.shield(self._picture())
        except TimeoutError:
            return Answer(503, b"[-]disk failed: the data directory cannot be read in time\n")
        if path == "/metrics":
            return Answer(200, exposition(picture), CONTENT_TYPE_PLAIN_0_0_4)
        checks = (live if path == "/livez" else ready)(picture)
        verbose = "verbose" in query.split("&") or query.startswith("verbose=")
        return Answer(200 if passed(checks) else 503, page(path[1:], checks, verbose=verbose).encode())

    def _picture(self) -> asyncio.Future[Picture]:
        """One look at a time, whoever asks: requests that come meanwhile share it."""
        if self._looking is None or self._looking.done():
            look = asyncio.to_thread(self._looker.picture, self._journal, self._journal_fault, self._database.facts)
            self._looking = asyncio.ensure_future(look)
        return self._looking

    async def _watch_journals(self) -> None:
        while True:
            try:
                self._journal = await asyncio.to_thread(self._look_at_journals)
            except OSError as error:
                self._note_journal_fault(f"{self._settings.journal_root} cannot be read: {error.strerror or error}")
            except Exception as error:
                log.exception("journals cannot be looked at")
                self._note_journal_fault(f"the journals cannot be looked at: {type(error).__name__}")
            await asyncio.sleep(limits.PROBE_S)

    def _look_at_journals(self) -> JournalFacts:
        vitals = [one for one in self._looker.vitals().values() if one.lives]
        return self._journals.look(vitals, self._database.facts.cursors)

    def _note_journal_fault(self, why: str) -> None:
        self._journal, self._journal_fault = None, why
