"""Connections of devices: the state follows the latest one, counts each once, and knows only registered devices."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from signalkeep.ingest.pipeline import Pipeline, Rules
from signalkeep.ingest.sessions import refusals_in, sessions_in
from signalkeep.journal.reader import Chunk
from signalkeep.journal.record import Entry, SessionEntry, TallyEntry
from signalkeep.store import journals, registry
from signalkeep.store.postgres import Connection
from signalkeep.store.rows import Sessions
from signalkeep.store.writer import CursorMoved
from tests.builders import NUMBER, PROTOCOLS, event

START = datetime(2026, 5, 1, tzinfo=UTC)


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


def session(kind: str, minute: int, peer: str = "a:1", number: str = NUMBER) -> SessionEntry:
    return SessionEntry(int(at(minute).timestamp()) * 1_000_000, kind, "json", number, peer, "")


def test_what_entries_say_of_each_device() -> None:
    entries: list[Entry] = [
        session("opened", 0, number=""),
        session("identified", 1),
        session("identified", 3, "b:2"),
        session("closed", 4),
        session("contact", 5),
        session("closed", 2, "c:3", number="2"),
        session("closed", 1, number=""),
        TallyEntry(1, {"checksum": 2}),
        TallyEntry(1, {"checksum": 1, "oversized": 1}),
    ]
    assert sessions_in(entries) == {
        NUMBER: Sessions(2, at(3), "b:2", {"a:1": at(4)}),
        "2": Sessions(closed={"c:3": at(2)}),
    }
    assert refusals_in(entries) == {"checksum": 3, "oversized": 1}


class Journal:
    """Feeds entries as a driver does."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.seq = 0

    async def feed(self, *entries: Entry) -> None:
        journal_id = await journals.register(self.connection, UUID(int=1), "here", Path("/nowhere"), 1)
        pipeline = Pipeline(self.connection, journal_id, [self.seq], protocols=PROTOCOLS, rules=Rules())
        await pipeline.ingest([Chunk(self.seq + 1, list(entries))])
        self.seq += len(entries)


@pytest.mark.servers
async def test_the_state_follows_the_latest_connection(connection: Connection) -> None:
    journal = Journal(connection)
    await registry.register(connection, NUMBER, actor="tests")

    async def state() -> tuple[Any, ...]:
        row = await connection.fetchrow(
            "SELECT s.connections, s.connected_at, s.disconnected_at, l.connected "
            "FROM device_state s JOIN signal_latest l ON l.device_id = s.device_id"
        )
        assert row is not None
        return tuple(row)

    assert await state() == (0, None, None, False)
    await journal.feed(session("opened", 0, number=""), session("identified", 1))
    assert await state() == (1, at(1), None, True)
    await journal.feed(session("identified", 2, "b:2"), session("closed", 3))
    assert await state() == (2, at(2), None, True), "the old connection ended after the new one began"
    await journal.feed(session("closed", 4, "b:2"))
    assert await state() == (2, at(2), at(4), False)
    await journal.feed(event(), session("identified", 5, "c:3"), session("closed", 6, "c:3"))
    assert await state() == (3, at(5), at(6), False)
    await journal.feed(session("identified", 3, "late:1"), session("closed", 3, "late:1"))
    assert await state() == (4, at(5), at(6), False), "another gateway's journal comes late"


@pytest.mark.servers
async def test_when_a_gateway_ends_its_connections_end_with_it(connection: Connection) -> None:
    """One that dies says nothing of them. Another one that the device connects to has a journal of its own."""
    journal = Journal(connection)
    await registry.register(connection, NUMBER, actor="tests")
    await journal.feed(session("identified", 1))
    connected = "SELECT connected FROM signal_latest"
    journal_id = await journals.register(connection, UUID(int=1), "here", Path("/nowhere"), 1)
    await journals.note_progress(connection, journal_id, 1, ended=True)
    assert not await connection.fetchval(connected)
    other_id = await journals.register(connection, UUID(int=2), "here", Path("/elsewhere"), 1)
    pipeline = Pipeline(connection, other_id, [0], protocols=PROTOCOLS, rules=Rules())
    await pipeline.ingest([Chunk(1, [session("identified", 2, "b:2")])])
    assert await connection.fetchval(connected)
    await journal.feed(session("identified", 0, "late:1"))
    assert await connection.fetchval(connected), "an earlier connection to the one that has ended says nothing"


@pytest.mark.servers
async def test_devices_without_a_row_get_none_and_nothing_counts_twice(connection: Connection) -> None:
    journal = Journal(connection)
    await journal.feed(session("identified", 1), session("closed", 2))
    assert await connection.fetchval("SELECT count(*) FROM device") == 0
    await journal.feed(event(), session("identified", 3))
    journal.seq = 0
    with pytest.raises(CursorMoved):
        await journal.feed(session("identified", 1), session("closed", 2))
    assert await connection.fetchval("SELECT connections FROM device_state") == 1
