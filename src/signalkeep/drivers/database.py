"""The connection of a process that empties journals: to a database of our schema that forgets no erasure.

Before anything is driven over a connection, erasures that a restored database does not know are made again, and a
restore that was done while nobody ran becomes findings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from signalkeep import limits
from signalkeep.config import Settings
from signalkeep.errors import DatabaseUnavailable, SignalkeepError
from signalkeep.store import journals, notes
from signalkeep.store.erasure import finish_erasures, restore_floors
from signalkeep.store.postgres import Connection, close_when_silent, connect, dsn_of
from signalkeep.store.schema import ensure_schema
from signalkeep.telemetry import get_logger

log = get_logger()


class Database:
    """Makes connections for one process. `on_ready` is called whenever one works. Close it at the end."""

    def __init__(self, settings: Settings, *, application: str) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        self._settings = settings
        self._application = application
        self._dsn = dsn_of(settings)
        self._erasing: asyncio.Task[None] | None = None
        self._schema_ready = False

    async def connect(self) -> Connection:
        """Raises SignalkeepError if there is none to be had now."""
        if not self._schema_ready:
            await ensure_schema(self._dsn, self._settings.database)
            self._schema_ready = True
        try:
            connection = await connect(self._dsn, application=self._application, settings=self._settings.database)
        except SignalkeepError:
            self._schema_ready = False  # what comes back may be another, older database
            raise
        await close_when_silent(connection, limits.TRANSACTION_SILENT_S, only_in_transaction=True)
        await self._restore_floors(connection)
        await self._report_restore(connection)
        self.on_ready()
        return connection

    async def close(self) -> None:
        """Deleting that goes on beside is taken up again at the next start."""
        if self._erasing is not None:
            self._erasing.cancel()
            await asyncio.wait([self._erasing])

    def _finish_erasures(self) -> None:
        """Deletion may take long; it goes on beside everything else."""
        if self._erasing is None or self._erasing.done():
            self._erasing = asyncio.create_task(self._erase_again(), name="erasures")

    async def _erase_again(self) -> None:
        try:
            connection = await self.connect()
            try:
                for erased in await finish_erasures(connection):
                    log.warning("erased again", **msgspec.to_builtins(erased))
            finally:
                await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)
        except Exception as error:
            log.warning("erasure failed, trying again", error=f"{type(error).__name__}: {error}")

    async def _restore_floors(self, connection: Connection) -> None:
        """First of all: what a restored database has forgotten to have erased must not be driven into it again."""
        try:
            unfinished = await restore_floors(connection, self._settings.erasures_file)
        except Exception as error:
            connection.terminate()
            raise DatabaseUnavailable(f"erasures cannot be looked up: {type(error).__name__}: {error}") from error
        if unfinished:
            self._finish_erasures()

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
