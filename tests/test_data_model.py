"""The queries of docs/data-model.md, run by a reader against a fleet; what the page lists is what there is.

A block of SQL below the comment `<!-- executed -->` must run; below `<!-- executed: rows -->` it must give rows, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from signalkeep.ingest.triage import EPOCH
from signalkeep.journal.record import FrameEntry
from signalkeep.store import assignments, fleet, registry
from signalkeep.store.events import WORDS
from signalkeep.store.postgres import Connection
from signalkeep.store.readers import READER
from tests.builders import Feed, event
from tests.servers import PostgresServer, connected, run_sync

PAGE: Final = (Path(__file__).resolve().parent.parent / "docs" / "data-model.md").read_text(encoding="utf-8")
BLOCK: Final = re.compile(
    r"^([^\n]+)\n\n<!-- executed(: rows)? -->\n```sql\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL
)
QUERIES: Final = [(title, bool(rows), sql) for title, rows, sql in BLOCK.findall(PAGE)]
MAY: Final = datetime(2026, 5, 1, 8, tzinfo=UTC)


def sent(number: str, minute: int, late: timedelta = timedelta(seconds=2), **values: Any) -> FrameEntry:
    at = MAY + timedelta(minutes=minute)
    frame = event(number, message_date=at.isoformat(), **values)
    received_at_us = (at + late - EPOCH) // timedelta(microseconds=1)
    return msgspec.structs.replace(frame, received_at_us=received_at_us)


async def fill(connection: Connection) -> None:
    """Two vehicles of a customer, a day of driving, and some of everything that the queries look for."""
    await fleet.add_customer(connection, "Acme", actor="tests")
    for number, vehicle in (("1", "van 7"), ("2", "van 8")):
        await registry.register(connection, number, actor="tests")
        await fleet.add_vehicle(connection, vehicle, customer="Acme", plate=vehicle.upper(), actor="tests")
        await assignments.assign(connection, number, vehicle, actor="tests")
    frames = []
    for minute in range(120):
        code = {0: "7000", 30: "7002", 31: "7001", 119: "7003"}.get(minute)
        for number in ("1", "2"):
            values: dict[str, Any] = {"speed_kmh": 60 + minute, "odometer_m": 1000 * minute}
            values |= {"event_code": code} if code else {}
            frames.append(sent(number, minute, latitude=37 + minute / 1000, **values))
    frames += [sent("1", 200, timedelta(hours=3)), sent("1", 201, event_code="4002"), sent("1", 202, latitude="north")]
    frames += [sent("unregistered", 1)]
    await (await Feed.open(connection)).write(connection, *frames)


@pytest.fixture(scope="module")
def filled(postgres_server: PostgresServer) -> Iterator[str]:
    dsn = run_sync(postgres_server.create_database())

    async def work() -> None:
        async with connected(dsn) as connection:
            await fill(connection)

    run_sync(work())
    yield dsn
    run_sync(postgres_server.drop_database(dsn))


def test_there_are_queries() -> None:
    assert len(QUERIES) >= 12
    assert len(QUERIES) == PAGE.count("```sql"), "a query that nobody runs"


@pytest.mark.servers
@pytest.mark.parametrize(("title", "with_rows", "sql"), QUERIES, ids=[title for title, _, _ in QUERIES])
async def test_every_query_of_the_page_runs_for_a_reader(filled: str, title: str, with_rows: bool, sql: str) -> None:
    async with connected(filled) as connection:
        await connection.execute(f"SET ROLE {READER}")
        rows = await connection.fetch(sql)
    assert rows or not with_rows, f"no rows: {title}"


def test_the_page_lists_the_words_of_events() -> None:
    section = PAGE.partition("\n## Event names\n")[2].partition("`signalkeep events list`")[0]
    assert tuple(re.findall(r"`(\w+)`", section)[1:]) == WORDS


@pytest.mark.servers
async def test_the_page_names_every_table_and_view(connection: Connection) -> None:
    names = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')"
    )
    missing = [row["relname"] for row in names if f"`{row['relname']}`" not in PAGE]
    assert not missing, f"docs/data-model.md does not name {missing}"
