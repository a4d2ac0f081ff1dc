"""The relay process: every journal under the data directory, sent to the broker; and stored signals to applications."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from signalkeep import limits
from signalkeep.broker.announcer import Announcer
from signalkeep.broker.publisher import Publisher
from signalkeep.broker.relay import RelayDriver
from signalkeep.broker.stats import RelayStats
from signalkeep.broker.stream import Sender
from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.drivers.driver import Driver
from signalkeep.drivers.service import DriverService
from signalkeep.errors import SignalkeepError
from signalkeep.journal.files import FileSystem
from signalkeep.journal.reader import JournalReader
from signalkeep.tasks import end
from signalkeep.vitals import RelayNumbers, Report


class Broker(Sender, Protocol):
    """What a relay needs of a broker; `publisher.Publisher` is one."""

    blocked: bool

    @property
    def connected(self) -> bool: ...

    async def connect(self) -> object:
        """Return when there is a connection. Raises SignalkeepError, soon."""

    async def close(self) -> None: ...


class RelayService(DriverService):
    """`run` returns when `stop` is set; it raises only for our own mistakes."""

    application = "signalkeep relay"

    def __init__(
        self,
        settings: Settings,
        *,
        fs: FileSystem,
        clock: Clock,
        stop: asyncio.Event,
        broker: Broker | None = None,
    ) -> None:
        super().__init__(settings, fs=fs, clock=clock, stop=stop)
        self.stats = RelayStats()
        self._broker: Broker = broker or Publisher(settings.broker)
        self._database_ready = asyncio.Event()

    def report(self) -> Report:
        """For metrics and health."""
        drivers = [driver for driver, _ in self._drivers.values() if isinstance(driver, RelayDriver)]
        window_bytes = sum(driver.window_bytes for driver in drivers)
        stats = self.stats
        return Report(
            handled=stats.messages,
            waits=window_bytes > 0,
            numbers=RelayNumbers(
                messages=stats.messages,
                message_bytes=stats.bytes,
                entries=stats.entries,
                failures=stats.failures,
                went_back=dict(stats.went_back),
                announced=stats.announced,
                confirm_time=stats.confirm_time,
                window_bytes=window_bytes,
                connected=self._broker.connected,
                blocked=self._broker.blocked,
                driving=self.driving,
                positions=self.positions(),
            ),
        )

    async def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """`on_ready`: database and broker are as they must be."""
        tasks = [asyncio.create_task(self._keep_connected(on_ready), name="broker")]
        if self._settings.broker.publish_signals:
            announcer = Announcer(self._settings, connect=self.database.connect, stats=self.stats)
            tasks.append(asyncio.create_task(announcer.run(self._stop), name="announcer"))
        try:
            await super().run(self._database_ready.set)
        finally:
            await asyncio.gather(*map(end, tasks))
            await self._broker.close()

    async def _keep_connected(self, on_ready: Callable[[], None]) -> None:
        """Also while there is nothing to send: an unsafe broker is found at the start, and not when it is needed."""
        ready = False
        while True:
            try:
                await self._broker.connect()
            except SignalkeepError:
                pass  # the publisher says so
            else:
                if not ready:
                    await self._database_ready.wait()
                    on_ready()
                    ready = True
            await asyncio.sleep(limits.JOURNAL_SCAN_S)

    def _make_driver(self, reader: JournalReader) -> Driver:
        broker = self._settings.broker
        return RelayDriver(
            reader,
            make_reader=lambda: JournalReader(self._fs, reader.directory, evidence_root=self._settings.evidence_root),
            sender=self._broker,
            queues=broker.queues,
            window_bytes=broker.window_bytes,
            stats=self.stats,
            connect=self.database.connect,
            host=self._host,
            clock=self._clock,
            stop=self._stop,
        )
