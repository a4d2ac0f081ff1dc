"""Rows in a test's database, made the way the product makes them: real frames, triage, and the writer's transaction."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from signalkeep.ingest.triage import EPOCH, triage
from signalkeep.journal.record import FrameEntry
from signalkeep.protocols.contract import TrackerProtocol
from signalkeep.protocols.json_events import JSON
from signalkeep.store import audit, journals, registry
from signalkeep.store.partitions import ensure_partitions
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.rows import CursorMove, IngestBatch, Written
from signalkeep.store.writer import write
from tests.servers import connected, run_sync

NUMBER = "86915304265485"
RECEIVED = datetime(2026, 5, 1, 12, tzinfo=UTC)
PROTOCOLS: Mapping[str, TrackerProtocol] = {"json": JSON}


def event(number: str = NUMBER, minute: int = 0, **values: Any) -> FrameEntry:
    """One event of a device as a frame; its time is `minute` minutes before it was received, unless given."""
    sent_at = (RECEIVED - timedelta(minutes=minute)).isoformat()
    fields = {"device_number": number, "message_date": sent_at, "latitude": 37.98, "longitude": 23.73, **values}
    return frame(json.dumps(fields).encode(), number)


def frame(raw: bytes, number: str = NUMBER) -> FrameEntry:
    """A frame of the json protocol as the journal would have it."""
    received_at_us = (RECEIVED - EPOCH) // timedelta(microseconds=1)
    return FrameEntry(
        received_at_us=received_at_us,
        protocol="json",
        device_number=number,
        peer="192.0.2.1:4711",
        context={},
        raw=raw,
    )


class Feed:
    """A journal whose frames go straight into the database."""

    def __init__(self, journal_id: int, journal: uuid.UUID) -> None:
        self.journal_id = journal_id
        self.uuid = journal
        self.last_seq = 0

    @classmethod
    async def open(cls, connection: Connection, directory: Path = Path("/nowhere")) -> Feed:
        journal = uuid.uuid4()
        return cls(await journals.register(connection, journal, "tests", directory, 1), journal)

    async def write(
        self, connection: Connection, *frames: FrameEntry, protocols: Mapping[str, TrackerProtocol] = PROTOCOLS
    ) -> Written:
        """Ingest these frames in one transaction, or in that of the caller."""
        numbers = {entry.device_number for entry in frames}
        devices = await registry.resolve(connection, numbers, register_unknown=False)
        rows = [
            triage(seq, entry, devices[entry.device_number], protocols.get(entry.protocol))
            for seq, entry in enumerate(frames, self.last_seq + 1)
        ]
        if not connection.is_in_transaction():
            await ensure_partitions(
                connection, {(row.wire_time.year, row.wire_time.month) for one in rows for row in one.signals}
            )
        after_seq, self.last_seq = self.last_seq, self.last_seq + len(frames)
        return await write(
            connection, IngestBatch(self.journal_id, [CursorMove(0, after_seq, self.last_seq, len(rows))], rows)
        )


def fill(dsn: str, *frames: FrameEntry, registered: tuple[str, ...] = ()) -> None:
    """The same from a test that is not asynchronous: register, then ingest."""

    async def work() -> None:
        async with connected(dsn) as connection:
            for number in registered:
                await registry.register(connection, number, actor="tests")
            if frames:
                await (await Feed.open(connection)).write(connection, *frames)

    run_sync(work())


def ask(dsn: str, query: str, *parameters: Any) -> list[Row]:
    """Rows of a query, from a test that is not asynchronous."""

    async def work() -> list[Row]:
        async with connected(dsn) as connection:
            return list(await connection.fetch(query, *parameters))

    return run_sync(work())


async def assert_sums(connection: Connection) -> None:
    """Every sum of the ledger agrees with the rows that are really there."""
    for statement in (
        audit.UNBALANCED,
        audit.SIGNALS_OFF,
        audit.QUARANTINE_OFF,
        audit.COUNTERS_OFF,
        audit.IN_BOTH,
        audit.ERASED_THERE,
    ):
        off = [dict(row) for row in await connection.fetch(statement)]
        assert off == [], f"{statement}\n{off}"
