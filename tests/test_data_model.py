"""The queries of docs/data-model.md, run by a reader against a fleet; what the page lists is what there is.

A block of SQL below the comment `<!-- executed -->` must run; below `<!-- executed: rows -->` it must give rows, too.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from signalkeep.ingest.triage import EPOCH
from signalkeep.journal.record import FrameEntry
from signalkeep.model import Flag
from signalkeep.rules.contract import FIRST_BIT, Dimension
from signalkeep.rules.scores import Share, overall
from signalkeep.store import assignments, fleet, quality, registry
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


@pytest.mark.servers
async def test_good_positions_are_those_that_neither_a_rule_nor_a_person_doubts(connection: Connection) -> None:
    definition = await connection.fetchval("SELECT pg_get_viewdef('signal_good')")
    (mask,) = re.findall(r"flags & \(?(\d+)", definition)
    assert int(mask) == Flag.DOUBTFUL_POSITION | Flag.PERSON_BAD
    await registry.register(connection, "1", actor="tests")
    flags = [0, *(1 << bit for bit in range(63))]
    await (await Feed.open(connection)).write(connection, *(sent("1", minute) for minute in range(len(flags))))
    for minute, one in enumerate(flags):
        await connection.execute(
            "UPDATE signal SET flags = $2 WHERE wire_time = $1", MAY + timedelta(minutes=minute), one
        )
    found = await connection.fetch("SELECT wire_time FROM signal_good ORDER BY 1")
    good = [flags[(row["wire_time"] - MAY) // timedelta(minutes=1)] for row in found]
    assert [one for one in flags if one not in good] == [Flag.DOUBTFUL_POSITION, Flag.PERSON_BAD]


@pytest.mark.servers
async def test_the_bits_that_the_column_explains_are_those_that_there_are(connection: Connection) -> None:
    said = await connection.fetchval(
        "SELECT col_description('signal'::regclass, attnum) FROM pg_attribute"
        " WHERE attrelid = 'signal'::regclass AND attname = 'flags'"
    )
    numbers = re.findall(r"(?:bits: |, )(\d+) ", said)
    assert [int(number) for number in numbers] == [flag.value for flag in Flag]
    assert f"from bit {FIRST_BIT} ({1 << FIRST_BIT}) on" in said


@pytest.mark.servers
async def test_the_database_reckons_scores_as_rules_do(connection: Connection) -> None:
    """On random shares, on none, and around the number from which on there is a score."""
    chosen = random.Random(7)
    table = [[(0, 0)] * 6, [(19, 19)] * 6, [(20, 20)] * 6, [(20, 0), *[(19, 0)] * 5], [(20, 20), *[(100, 0)] * 5]]
    table += [[(of, chosen.randint(0, of)) for of in (chosen.choice((0, 5, 19, 20, 21, 999)) for _ in range(6))]
              for _ in range(200)]  # fmt: skip
    for shares in table:
        found = await connection.fetchval(
            "SELECT signalkeep_overall($1, $2)", [of for of, _ in shares], [good for _, good in shares]
        )
        expected = overall({one: Share(*share) for one, share in zip(Dimension, shares, strict=True)})
        assert found == (None if expected is None else pytest.approx(expected, abs=1e-6)), shares


@pytest.mark.servers
async def test_columns_of_scores_are_the_dimensions_in_their_order(connection: Connection) -> None:
    """A sweep writes shares by their place."""
    names = [f"{dimension}_{what}" for dimension in Dimension for what in ("of", "good")]
    for relation in ("quality_score", "quality_vehicle", "quality_customer"):
        rows = await connection.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attname ~ '_(of|good)$'"
            " ORDER BY attnum",
            relation,
        )
        assert [row["attname"] for row in rows] == names
    assert tuple(Dimension) == quality.DIMENSIONS
