"""The process that empties journals: finds every one under the data directory and keeps a driver on each.

A journal is found whether its gateway lives or not. Finished ones are looked at again every minute: a restored
database has cursors that moved back, and their journals are driven again. A journal that the database knows and that
is no longer on the disk is named with the range that is missing. What a driver does with the entries, and what it is
made of, is for the subclass to say.
"""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.drivers.database import Database
from signalkeep.drivers.driver import Driver
from signalkeep.drivers.retention import Retention
from signalkeep.errors import SignalkeepError
from signalkeep.journal.files import FileSystem
from signalkeep.journal.reader import JournalReader, find_journals
from signalkeep.store import journals
from signalkeep.telemetry import get_logger

log = get_logger()


class DriverService(ABC):
    """Supervises the drivers of one process. `run` returns when `stop` is set; it raises only for our own mistakes."""

    application = "signalkeep"

    def __init__(self, settings: Settings, *, fs: FileSystem, clock: Clock, stop: asyncio.Event) -> None:
        self._settings = settings
        self._fs = fs
        self._clock = clock
        self._stop = stop
        self.database = Database(settings, application=self.application)
        self._host = socket.gethostname()
        self._drivers: dict[Path, tuple[Driver, asyncio.Task[None]]] = {}
        self._finished: dict[Path, tuple[UUID, int]] = {}
        self._elsewhere: dict[Path, float] = {}  # driven by another process: when to ask again
        self._retention = Retention(settings, fs=fs, clock=clock)
        self._disk_answers = True

    @abstractmethod
    def _make_driver(self, reader: JournalReader) -> Driver:
        """What a journal that was found is driven by."""

    @property
    def driving(self) -> int:
        """Journals that have not ended, or are not in the database yet."""
        return len(self._drivers)

    def positions(self) -> dict[str, int]:
        """Up to where the database is known to have each journal, by the hexadecimal digits of its uuid."""
        ended = {uuid.hex: position for uuid, position in self._finished.values()}
        driven = {driver.journal_id.hex: driver.position for driver, _ in self._drivers.values()}
        return ended | driven

    async def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Scan, drive, and look after the whole; until told to stop. `on_ready`: the database answers as it must."""
        self.database.on_ready = on_ready
        look_at = self._clock.monotonic()
        try:
            while not self._stop.is_set():
                if self._clock.monotonic() >= look_at:
                    looked = await self._look_after()
                    look_at = self._clock.monotonic() + (limits.CURSOR_REREAD_S if looked else limits.LOOK_AGAIN_S)
                self._start_drivers()
                await self._wait_for_drivers()
        finally:
            self._stop.set()
            await self.database.close()
            await asyncio.gather(*(task for _, task in self._drivers.values()))

    def _start_drivers(self) -> None:
        now = self._clock.monotonic()
        self._elsewhere = {directory: again_at for directory, again_at in self._elsewhere.items() if again_at > now}
        try:
            self._start_missing_drivers()
        except OSError as error:  # the next scan comes soon
            if self._disk_answers:
                log.warning("journals cannot be looked for", path=error.filename, error=error.strerror)
            self._disk_answers = False
        else:
            self._disk_answers = True

    def _start_missing_drivers(self) -> None:
        for directory in find_journals(self._fs, self._settings.journal_root):
            taken = directory in self._drivers or directory in self._finished or directory in self._elsewhere
            if taken or len(self._drivers) >= limits.DRIVERS_MAX:
                continue
            driver = self._make_driver(JournalReader(self._fs, directory, evidence_root=self._settings.evidence_root))
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

    async def _look_after(self) -> bool:
        """Once a minute: cursors that moved back, journals that vanished, segments that may go. False: not now."""
        try:
            connection = await self.database.connect()
        except SignalkeepError:
            return False  # the drivers say so already
        try:
            expected = await journals.expected(connection, self._host)
            cursors = {journal.uuid: journal.seq for journal in expected}
            for directory, (uuid, position) in list(self._finished.items()):
                if cursors.get(uuid, -1) < position:
                    del self._finished[directory]
            found = set(find_journals(self._fs, self._settings.journal_root))
            self._finished = {place: known for place, known in self._finished.items() if place in found}
            for journal in expected:
                if journal.directory not in found and journal.directory.parent == self._settings.journal_root:
                    detail = journals.vanished(
                        journal.directory, seq=journal.seq, durable_seq=journal.durable_seq, ended=journal.ended
                    )
                    await journals.add_finding(connection, "journal_vanished", f"journal {journal.id}", detail)
            for directory in await self._retention.tidy(connection, expected):
                self._finished.pop(directory, None)
        except Exception as error:
            log.warning("housekeeping failed, trying again", error=f"{type(error).__name__}: {error}")
            return False
        else:
            return True
        finally:
            await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)
