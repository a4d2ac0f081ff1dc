"""What the tests of the broker share: machines with journals and relays, workers, and what must hold in the end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from signalkeep.broker.consumer import Consumer
from signalkeep.broker.service import RelayService
from signalkeep.clock import SystemClock
from signalkeep.config import Settings, load
from signalkeep.drivers.source import Source
from signalkeep.ingest.service import books_for
from signalkeep.ingest.worker import Worker
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.record import FrameEntry, TallyEntry
from signalkeep.journal.writer import JournalWriter
from signalkeep.limits import LANES_WITH_BROKER
from signalkeep.roles import prepare_directories
from signalkeep.store.postgres import Connection
from tests.ingest.support import RECEIVED_US
from tests.servers import wait_until_async

FS = LocalFileSystem()
DEVICES = 40
PATIENCE_S = 90.0

# Rows of a device that became visible in another order than they were received in.
OUT_OF_ORDER = """
SELECT count(*) FROM (
    SELECT s.seq, lag(s.seq) OVER (PARTITION BY s.device_id, s.journal_id ORDER BY s.xid, s.seq) AS before
    FROM signal s) AS pairs WHERE before > seq
"""


def settings_for(data: Path, dsn: str, url: str, **changes: str) -> Settings:
    """Of one machine. Policies are looked for only where a test says where."""
    environ = {
        "SIGNALKEEP_DATABASE__DSN": dsn,
        "SIGNALKEEP_UNKNOWN_DEVICES": "register",
        "SIGNALKEEP_BROKER__URL": url,
        "SIGNALKEEP_BROKER__MANAGEMENT_URL": "http://127.0.0.1:1",
        **{f"SIGNALKEEP_{name.upper()}": value for name, value in changes.items()},
    }
    made = load(data, environ=environ)
    prepare_directories(made)
    return made


def message(number: int, fleet: str = "unit") -> FrameEntry:
    """A different one for each number up to 10,000 times the devices, of one device of the fleet after the other."""
    device, at = f"{fleet}-{number % DEVICES}", number // DEVICES
    raw = b'{"device_number": "%s", "message_date": "2026-05-01T%02d:%02d:%02dZ"}' % (
        device.encode(), 10 + at // 3600, at // 60 % 60, at % 60,
    )  # fmt: skip
    return FrameEntry(RECEIVED_US, "json", device, "127.0.0.1:1", {}, raw)


class Running:
    """A service in the background."""

    def __init__(self, service: Any, stop: asyncio.Event) -> None:
        self.service = service
        self.ready = asyncio.Event()
        self._stop = stop
        self.task = asyncio.create_task(service.run(self.ready.set))

    async def end(self) -> None:
        self._stop.set()
        await asyncio.wait([self.task], timeout=PATIENCE_S)
        await self.task

    async def die(self) -> None:
        """As a process does that is killed: nothing is finished, nothing is said."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Machine:
    """The host of a gateway: one living journal, and a relay."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.writer = JournalWriter.create(
            FS, settings.journal_root, clock=SystemClock(), segment_bytes=1 << 20, lanes=LANES_WITH_BROKER
        )
        self._writing = asyncio.create_task(self.writer.run())
        self._numbers = itertools.count()
        self.relay: Running | None = None

    def receive(self, count: int) -> None:
        """Messages of all devices in turn, and a tally now and then."""
        for number in itertools.islice(self._numbers, count):
            self.writer.append(message(number, self.settings.data.name))
            if number % 500 == 0:
                self.writer.append(TallyEntry(RECEIVED_US, {"truncated": 1}))

    async def load(self, count: int, *, seconds: float, steps: int = 20) -> None:
        """The same, spread over a time."""
        for _ in range(steps):
            self.receive(count // steps)
            await asyncio.sleep(seconds / steps)

    def start_relay(self) -> RelayService:
        stop = asyncio.Event()
        service = RelayService(self.settings, fs=FS, clock=SystemClock(), stop=stop)
        self.relay = Running(service, stop)
        return service

    async def close_journal(self) -> None:
        """The gateway ends; its relay goes on until the database has everything."""
        await self.writer.close()
        await self._writing


class Site:
    """Everything that a test starts, ended in order at its end."""

    def __init__(self, tmp_path: Path, dsn: str, url: str, connection: Connection) -> None:
        self._path, self._dsn, self.url, self._connection = tmp_path, dsn, url, connection
        self.machines: list[Machine] = []
        self.workers: list[Running] = []

    def settings(self, name: str, **changes: str) -> Settings:
        return settings_for(self._path / name, self._dsn, self.url, **changes)

    def machine(self, **changes: str) -> Machine:
        self.machines.append(Machine(self.settings(f"gateway-{len(self.machines)}", **changes)))
        return self.machines[-1]

    def worker(self, make_source: Callable[[Settings], Source] | None = None, **changes: str) -> Running:
        settings, stop = self.settings(f"worker-{len(self.workers)}", **changes), asyncio.Event()
        source = make_source(settings) if make_source else Consumer(settings.broker)
        worker = Worker(settings, source, make_books=books_for(settings, SystemClock()), clock=SystemClock(), stop=stop)
        self.workers.append(Running(worker, stop))
        return self.workers[-1]

    async def stored(self) -> int:
        count: int = await self._connection.fetchval("SELECT count(*) FROM signal")
        return count

    async def wait_for(self, count: int) -> None:
        async def there() -> bool:
            for part in (*self.workers, *(machine.relay for machine in self.machines if machine.relay)):
                if part.task.done() and not part.task.cancelled():
                    part.task.result()
            return await self.stored() >= count

        await wait_until_async(there, PATIENCE_S, what=f"{count} rows")

    async def check(self, count: int) -> None:
        """Everything once and in order, and the ledger says so too."""
        await self.wait_for(count)
        assert await self.stored() == count
        assert await self._connection.fetchval("SELECT count(DISTINCT (journal_id, seq)) FROM signal") == count
        assert await self._connection.fetchval(OUT_OF_ORDER) == 0
        sums = await self._connection.fetchrow(
            "SELECT sum(records) AS records, sum(stored) AS stored, sum(duplicate + quarantined) AS rest FROM ledger"
        )
        assert sums is not None
        assert tuple(sums) == (count, count, 0)

    async def end(self) -> None:
        for running in (*(machine.relay for machine in self.machines), *self.workers):
            if running is not None and not running.task.done():
                await running.end()
        for machine in self.machines:
            await machine.close_journal()
