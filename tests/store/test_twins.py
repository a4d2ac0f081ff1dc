"""Twins in quarantine: the same record again makes no second row, and is counted as a duplicate."""

from __future__ import annotations

from signalkeep.store.postgres import Connection
from tests.builders import Feed, event


async def test_a_quarantined_record_that_comes_again_is_a_duplicate(connection: Connection) -> None:
    feed = await Feed.open(connection)
    for _ in range(3):
        await feed.write(connection, event("nobody knows me"))
    assert await connection.fetchval("SELECT count(*) FROM quarantine") == 1
    ledger = await connection.fetchrow("SELECT sum(quarantined) AS kept, sum(duplicate) AS doubled FROM ledger")
    assert ledger is not None
    assert tuple(ledger) == (1, 2)
