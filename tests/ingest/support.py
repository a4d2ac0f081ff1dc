"""What the tests of ingest share: journals with numbered messages in them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from signalkeep.clock import SystemClock
from signalkeep.config import Settings
from signalkeep.ingest.service import IngestService
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.record import FrameEntry
from signalkeep.journal.writer import JournalWriter
from signalkeep.store.postgres import Connection

FS = LocalFileSystem()
RECEIVED_US = int(datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp() * 1_000_000)


def event(number: int, device: str = "1") -> FrameEntry:
    raw = b'{"device_number": "%s", "message_date": "2026-05-01T10:%02d:%02dZ"}' % (
        device.encode(),
        *divmod(number, 60),
    )
    return FrameEntry(RECEIVED_US, "json", device, "127.0.0.1:1", {}, raw)


async def write_journal(
    root: Path, numbers: range, *, segment_bytes: int = 1 << 20, close: bool = True
) -> JournalWriter:
    writer = JournalWriter.create(FS, root, clock=SystemClock(), segment_bytes=segment_bytes)
    for number in numbers:
        writer.append(event(number))
    if close:
        await writer.close()
    return writer


class HandClock:
    """Stands still unless it is moved."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    def move(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


async def rows(connection: Connection) -> int:
    count: int = await connection.fetchval("SELECT count(*) FROM signal")
    return count


class Service:
    """An ingest service running in the background."""

    def __init__(self, settings: Settings) -> None:
        self._stop = asyncio.Event()
        self.ready = asyncio.Event()
        service = IngestService(settings, fs=FS, clock=SystemClock(), stop=self._stop)
        self._task = asyncio.create_task(service.run(self.ready.set))

    async def end(self) -> None:
        self._stop.set()
        await self._task
