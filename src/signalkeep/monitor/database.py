"""Asks PostgreSQL every few seconds whether it answers, how fast, its schema, and up to where it has each journal.

One connection, kept; every wait is bounded. A fault is remembered in words without a password, never raised: the
database may be away for days.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import msgspec

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.errors import SignalkeepError
from signalkeep.monitor.picture import DatabaseFacts
from signalkeep.store import journals, queries
from signalkeep.store.postgres import Connection, connect, dsn_of
from signalkeep.store.schema import HEAD, schema_version


class DatabaseWatch:
    """`facts`: what the last look found."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._connection: Connection | None = None
        self.facts = DatabaseFacts()
        self.write_fault = ""  # of who writes there for the monitor

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(limits.PROBE_S)
        finally:
            self._drop()

    async def look(self) -> None:
        try:
            async with asyncio.timeout(limits.PROBE_S_MAX):
                self.facts = await self._ask()
        except SignalkeepError as error:
            self._away(error.message)
        except TimeoutError:
            self._away(f"PostgreSQL has not answered for {limits.PROBE_S_MAX:.0f} s")
        except Exception as error:
            self._away(f"PostgreSQL cannot be asked: {type(error).__name__}")

    async def _ask(self) -> DatabaseFacts:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(
                dsn_of(self._settings), application="signalkeep monitor", settings=self._settings.database
            )
        started_s = self._clock.monotonic()
        await queries.server_version(self._connection)
        round_trip_s = self._clock.monotonic() - started_s
        schema = await schema_version(self._connection)
        cursors = self.facts.cursors
        if schema == HEAD:
            expected = await journals.expected(self._connection, socket.gethostname())
            cursors = {journal.uuid.hex: journal.seq for journal in expected}
        return DatabaseFacts(
            up=True, why="", round_trip_s=round_trip_s, schema=schema, cursors=cursors, write_fault=self.write_fault
        )

    def _away(self, why: str) -> None:
        self._drop()
        self.facts = msgspec.structs.replace(self.facts, up=False, why=why, round_trip_s=None)

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                self._connection.terminate()
            self._connection = None
