"""What the tests of backups share: settings, a journal brought into a database, a backup made."""

from __future__ import annotations

import asyncio
from pathlib import Path

from signalkeep.backup.create import create
from signalkeep.clock import SystemClock
from signalkeep.config import Settings, load
from signalkeep.ingest.service import IngestService
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.record import FrameEntry
from signalkeep.journal.writer import JournalWriter
from signalkeep.roles import prepare_directories
from signalkeep.store.embedded import EmbeddedPostgres
from tests.servers import SETTINGS, connected, wait_until_async

FS = LocalFileSystem()


def settings_of(data: Path, dsn: str) -> Settings:
    environment = {"SIGNALKEEP_DATABASE__DSN": dsn, "SIGNALKEEP_UNKNOWN_DEVICES": "register"}
    made = load(data, environ={name: value for name, value in environment.items() if value})
    prepare_directories(made)
    return made


async def ingest(settings: Settings, numbers: range, *, wait_for: int) -> None:
    """Write a journal and bring it into the database, a few records in each transaction."""
    writer = JournalWriter.create(FS, settings.journal_root, clock=SystemClock())
    for number in numbers:
        raw = b'{"device_number": "1", "message_date": "2026-05-01T10:%02d:%02dZ"}' % divmod(number, 60)
        writer.append(FrameEntry(1_777_640_400_000_000 + number, "json", "1", "127.0.0.1:1", {}, raw))
    await writer.close()
    await run_ingest(settings, wait_for=wait_for)


async def run_ingest(settings: Settings, *, wait_for: int) -> None:
    stop = asyncio.Event()
    few = settings.ingest.model_copy(update={"batch_frames": 5})
    service = IngestService(settings.model_copy(update={"ingest": few}), fs=FS, clock=SystemClock(), stop=stop)
    task = asyncio.create_task(service.run())
    async with connected(settings.database.dsn or EmbeddedPostgres(settings.data, settings=SETTINGS).dsn) as watching:

        async def there() -> bool:
            try:
                return bool(await watching.fetchval("SELECT count(*) FROM signal") >= wait_for)
            except Exception:
                return False

        await wait_until_async(there)
    stop.set()
    await task


async def make(settings: Settings, place: Path) -> Path:
    made = await create(settings, place, host="here", settings_file=None, keep=None, progress=lambda _: None)
    return Path(made.path)
