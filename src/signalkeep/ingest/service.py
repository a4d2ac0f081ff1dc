"""The ingest process: finds every journal under the data directory and keeps a driver on each.

A journal is found whether its gateway lives or not. Finished ones are looked at again every minute: a restored
database has cursors that moved back, and their journals are driven again. A journal that the database knows and that
is no longer on the disk is named with the range that is missing. Erasures that a restored database does not know are
made again before anything is driven.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import msgspec

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.config import Settings, data_option
from signalkeep.errors import SignalkeepError
from signalkeep.ingest.driver import JournalDriver
from signalkeep.ingest.pipeline import Pipeline, Rules
from signalkeep.ingest.report import CountedPipeline, IngestStats, counted_tries
from signalkeep.ingest.retention import Retention
from signalkeep.journal.files import FileSystem
from signalkeep.journal.reader import JournalReader, find_journals
from signalkeep.protocols.registry import PROTOCOLS
from signalkeep.store import journals, notes
from signalkeep.store.erasure import finish_erasures, restore_floors
from signalkeep.store.postgres import Connection, connect, dsn_of
from signalkeep.store.schema import ensure_schema
from signalkeep.telemetry import get_logger
from signalkeep.vitals import Report

log = get_logger()


class IngestService:
    """Supervises the drivers of one process. `run` returns when `stop` is set; it raises only for our own mistakes."""

    def __init__(self, settings: Settings, *, fs: FileSystem, clock: Clock, stop: asyncio.Event) -> None:
        self._settings = settings
        self._fs = fs
        self._clock = clock
        self._stop = stop
        self._dsn = dsn_of(settings)
        self._host = socket.gethostname()
        self._drivers: dict[Path, tuple[JournalDriver, asyncio.Task[None]]] = {}
        self._finished: dict[Path, tuple[UUID, int]] = {}
        self._elsewhere: dict[Path, float] = {}  # driven by another process: when to ask again
        self._retention = Retention(settings, fs=fs, clock=clock)
        self._erasing: asyncio.Task[None] | None = None
        self._schema_ready = False
        self._on_ready: Callable[[], None] = lambda: None
        self.stats = IngestStats()

    def report(self) -> Report:
        """For metrics and health."""
        ended = {uuid.hex: position for uuid, position in self._finished.values()}
        driven = {driver.journal_id.hex: driver.position for driver, _ in self._drivers.values()}
        return self.stats.report(driving=len(driven), positions=ended | driven)

    async def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Scan, drive, and look after the whole; until told to stop. `on_ready`: the database answers as it must."""
        self._on_ready = on_ready
        look_at = self._clock.monotonic()
        try:
            while not self._stop.is_set():
                if self._clock.monotonic() >= look_at:
                    await self._look_after()
                    look_at = self._clock.monotonic() + limits.CURSOR_REREAD_S
                self._start_drivers()
                await self._wait_for_drivers()
        finally:
            self._stop.set()
            if self._erasing is not None:
                self._erasing.cancel()  # taken up again at the next start
                await asyncio.wait([self._erasing])
            await asyncio.gather(*(task for _, task in self._drivers.values()))

    def _start_drivers(self) -> None:
        now = self._clock.monotonic()
        self._elsewhere = {directory: again_at for directory, again_at in self._elsewhere.items() if again_at > now}
        for directory in find_journals(self._fs, self._settings.journal_root):
            taken = directory in self._drivers or directory in self._finished or directory in self._elsewhere
            if taken or len(self._drivers) >= limits.DRIVERS_MAX:
                continue
            reader = JournalReader(self._fs, directory, evidence_root=self._settings.evidence_root)
            driver = JournalDriver(
                reader,
                connect=counted_tries(self._connect, self.stats),
                make_pipeline=self._pipeline,
                host=self._host,
                clock=self._clock,
                batch_frames=self._settings.ingest.batch_frames,
                stop=self._stop,
            )
            task = asyncio.create_task(driver.run(), name=f"driver {directory.name}")
            self._drivers[directory] = (driver, task)

    async def _wait_for_drivers(self) -> None:
        """Until a driver ends, we are to stop, or it is time to scan again."""
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        tasks = [task for _, task in self._drivers.values()]
        try:
            await asyncio.wait([stop, *tasks], timeout=limits.JOURNAL_SCAN_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
        for directory, (driver, task) in list(self._drivers.items()):
            if not task.done():
                continue
            task.result()  # our own mistake: ends the process, the supervisor starts it again
            del self._drivers[directory]
            if driver.busy_elsewhere:
                self._elsewhere[directory] = self._clock.monotonic() + limits.JOURNAL_SCAN_S
            elif not self._stop.is_set():
                self._finished[directory] = (driver.journal_id, driver.position)

    async def _look_after(self) -> None:
        """Once a minute: cursors that moved back, journals that vanished, segments that may go."""
        try:
            connection = await self._connect()
        except SignalkeepError:
            return  # the drivers say so already
        try:
            # First of all: what a restored database has forgotten to have erased must not be driven into it again.
            if await restore_floors(connection, self._settings.erasures_file):
                self._finish_erasures()
            expected = await journals.expected(connection, self._host)
            cursors = {journal.uuid: journal.seq for journal in expected}
            for directory, (uuid, position) in list(self._finished.items()):
                if cursors.get(uuid, -1) < position:
                    del self._finished[directory]
            for journal in expected:
                if not journal.directory.is_dir() and journal.directory.parent == self._settings.journal_root:
                    await journals.add_finding(
                        connection, "journal_vanished", f"journal {journal.id}", vanished_detail(journal)
                    )
            for directory in await self._retention.tidy(connection, expected):
                self._finished.pop(directory, None)
        except Exception as error:
            log.warning("housekeeping failed, trying again", error=f"{type(error).__name__}: {error}")
        finally:
            await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)

    def _finish_erasures(self) -> None:
        """Deletion may take long; it goes on beside everything else."""
        if self._erasing is None or self._erasing.done():
            self._erasing = asyncio.create_task(self._erase_again(), name="erasures")

    async def _erase_again(self) -> None:
        try:
            connection = await self._connect()
            try:
                for erased in await finish_erasures(connection):
                    log.warning("erased again", **msgspec.to_builtins(erased))
            finally:
                await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)
        except Exception as error:
            log.warning("erasure failed, trying again", error=f"{type(error).__name__}: {error}")

    async def _report_restore(self, connection: Connection) -> None:
        """A restore that was done while nobody ran becomes findings: our drivers are new and remember no position."""
        note = notes.restored(self._settings.data)
        if note is None:
            return
        try:
            for finding in note.findings:
                log.warning("database restored", kind=finding.kind, subject=finding.subject, detail=finding.detail)
                await journals.add_finding(connection, finding.kind, finding.subject, finding.detail)
            notes.forget_restored(self._settings.data)
        except Exception as error:  # the note is still there: the next connection reports it
            log.warning("a restore could not be reported", error=f"{type(error).__name__}: {error}")

    async def _connect(self) -> Connection:
        if not self._schema_ready:
            await ensure_schema(self._dsn, self._settings.database)
            self._schema_ready = True
        try:
            connection = await connect(self._dsn, application="signalkeep ingest", settings=self._settings.database)
        except SignalkeepError:
            self._schema_ready = False  # what comes back may be another, older database
            raise
        await self._report_restore(connection)
        self._on_ready()
        return connection

    def _pipeline(self, connection: Connection, journal_id: int, cursors: list[int]) -> Pipeline:
        rules = Rules(
            register_unknown=self._settings.unknown_devices == "register",
            retention_days=self._settings.ingest.retention_days,
            register_line=f"signalkeep devices add {{}}{data_option(self._settings)}",
        )
        pipeline = CountedPipeline(connection, journal_id, cursors, protocols=PROTOCOLS, rules=rules)
        pipeline.stats = self.stats
        return pipeline


def vanished_detail(journal: journals.ExpectedJournal) -> str:
    """What is missing with a journal's directory."""
    if journal.durable_seq > journal.seq:
        return f"{journal.directory} is gone with entries {journal.seq + 1}..{journal.durable_seq} not ingested"
    return f"{journal.directory} is gone; everything in it was ingested, but it cannot be replayed"
