"""The control: a receiver as one might write it first, which loses and doubles. The judge must notice.

    python -m tests.faults.control PORT DSN

It takes events of `signalkeep simulate --protocol json` over TCP: what one read returned is one message, the first
event in it; the answer goes out before anything is stored; a list in memory waits for a task that inserts into
PostgreSQL without a unique key, and tries again when that fails, or takes too long, whether it was committed or not.
Nothing here is made worse than that on purpose. Its tables have what the checker reads, and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg

READ_BYTES: Final = 65536
STORE_EVERY_S: Final = 0.5
DATABASE_S_MAX: Final = 1.0

TABLES: Final = """
CREATE TABLE IF NOT EXISTS device (
    id serial PRIMARY KEY, device_number text UNIQUE, erased_to timestamptz, erased_at timestamptz);
CREATE TABLE IF NOT EXISTS signal (
    device_id integer, device_time timestamptz, latitude double precision, longitude double precision,
    speed_kmh double precision, event_code text, journal_id integer, seq bigint, record_no integer);
CREATE TABLE IF NOT EXISTS quarantine (device_id integer, wire_time timestamptz, state text);
"""
INSERT: Final = """
WITH named AS (
    INSERT INTO device (device_number) VALUES ($1)
    ON CONFLICT (device_number) DO UPDATE SET device_number = EXCLUDED.device_number RETURNING id)
INSERT INTO signal SELECT id, $2, $3, $4, $5, $6, $7, $8, 1 FROM named
"""


class Receiver:
    """What was answered, and is not stored yet, lives in `waiting` and nowhere else."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._waiting: list[tuple[Any, ...]] = []
        self._stored = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(
            OSError, ValueError, LookupError, TypeError
        ):  # a message that is no event ends the connection: the device comes again
            while data := await reader.read(READ_BYTES):
                event, _ = json.JSONDecoder().raw_decode(data.decode().lstrip())
                values = values_of(event)
                writer.write(b"1")
                self._waiting.append(values)
        writer.close()

    async def store(self) -> None:
        """For ever."""
        while True:
            with suppress(Exception):  # whatever it was: the event is still in memory, and is tried again
                connection = await asyncpg.connect(self._dsn, timeout=DATABASE_S_MAX, command_timeout=DATABASE_S_MAX)
                try:
                    await connection.execute(TABLES)
                    await self._store_over(connection)
                finally:
                    connection.terminate()
            await asyncio.sleep(STORE_EVERY_S)

    async def _store_over(self, connection: Any) -> None:
        while True:
            while self._waiting:
                await connection.execute(INSERT, *self._waiting[0], os.getpid(), self._stored)
                self._waiting.pop(0)
                self._stored += 1
            await asyncio.sleep(STORE_EVERY_S)


def values_of(event: dict[str, Any]) -> tuple[Any, ...]:
    """What a row keeps of an event."""
    day, _, rest = event["message_date"].partition(" ")
    at = datetime.fromisoformat(f"{day.replace('/', '-')}T{rest}").replace(tzinfo=UTC)
    place = [None if event.get(key) is None else float(event[key]) for key in ("latitude", "longitude", "speed_kmh")]
    return (event["device_number"], at, *place, event.get("event_code"))


async def main() -> None:
    """Until killed."""
    receiver = Receiver(sys.argv[2])
    server = await asyncio.start_server(receiver.talk, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await receiver.store()


if __name__ == "__main__":
    asyncio.run(main())
