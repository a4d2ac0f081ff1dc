"""Storing signals the fast way and the sure way gives the same rows, whatever the mark says."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signalkeep.store import journals, registry, signals
from signalkeep.store.partitions import ensure_partitions
from signalkeep.store.postgres import Connection, JsonText
from signalkeep.store.signals import SignalValues
from tests.builders import RECEIVED

pytestmark = pytest.mark.servers


def row(device_id: int, second: int, digest: int, journal_id: int = 1) -> SignalValues:
    when = RECEIVED + timedelta(seconds=second)
    return SignalValues(
        device_id, when, digest, when, when, True, 1.5, 2.5, 3.0, 4.0, 5.0, 6, None,
        JsonText(b'{"power_v":12.5}'), 0, "toy", journal_id, second + 1, 0,
    )  # fmt: skip


async def prepare(connection: Connection) -> int:
    """A device and a journal with the number 1, and the month."""
    await registry.resolve(connection, ["a", "b"], register_unknown=True)
    await ensure_partitions(connection, [(RECEIVED.year, RECEIVED.month)])
    return await journals.register(connection, uuid4(), "here", Path("/nowhere"), 1)


async def stored(
    connection: Connection, values: list[SignalValues], marks: dict[int, datetime | None]
) -> dict[tuple[int, int], tuple[int, int]]:
    async with connection.transaction():
        found = await signals.store(connection, values, marks)
    return {key: (gained.rows, gained.key_xor) for key, gained in found.items() if gained.rows}


async def keys(connection: Connection) -> list[tuple[int, int]]:
    rows = await connection.fetch("SELECT device_id, digest FROM signal ORDER BY device_id, digest")
    return [(found["device_id"], found["digest"]) for found in rows]


async def test_beyond_the_mark_and_before_it(connection: Connection) -> None:
    await prepare(connection)
    mark = RECEIVED + timedelta(seconds=10)
    first = [row(1, 5, 1), row(1, 11, 2), row(1, 12, 3), row(2, 1, 4)]
    assert await stored(connection, first, {1: mark, 2: None}) == {(1, 1): (3, 1 ^ 2 ^ 3), (2, 1): (1, 4)}
    again = [row(1, 5, 1), row(1, 12, 3), row(1, 13, 5)]
    assert await stored(connection, again, {1: RECEIVED + timedelta(seconds=12)}) == {(1, 1): (1, 5)}
    assert await keys(connection) == [(1, 1), (1, 2), (1, 3), (1, 5), (2, 4)]
    assert await connection.fetchval("SELECT attributes->>'power_v' FROM signal WHERE digest = 5") == "12.5"
    assert await connection.fetchval("SELECT count(*) FROM signal WHERE xid < pg_snapshot_xmin(pg_current_snapshot())")


async def test_a_record_twice_in_one_batch_is_one_row(connection: Connection) -> None:
    await prepare(connection)
    assert await stored(connection, [row(1, 1, 7), row(1, 1, 7), row(1, 2, 8)], {1: None}) == {(1, 1): (2, 7 ^ 8)}
    assert await keys(connection) == [(1, 7), (1, 8)]


async def test_the_same_bytes_at_another_time_are_another_record(connection: Connection) -> None:
    """Records without a clock get received_at as their time: equal digests, and both must stay."""
    await prepare(connection)
    assert await stored(connection, [row(1, 1, 7), row(1, 2, 7), row(2, 1, 7)], {1: None, 2: None}) == {
        (1, 1): (2, 0),
        (2, 1): (1, 7),
    }


async def test_a_mark_that_is_wrong_costs_time_and_no_row(connection: Connection) -> None:
    """Rows that somebody has put there by hand, beyond the mark."""
    await prepare(connection)
    await stored(connection, [row(1, 50, 1)], {})
    assert await stored(connection, [row(1, 49, 2), row(1, 50, 1), row(1, 51, 3)], {1: None}) == {(1, 1): (2, 2 ^ 3)}
    assert await keys(connection) == [(1, 1), (1, 2), (1, 3)]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 2), st.integers(0, 6), st.integers(1, 5)), min_size=1, max_size=8), max_size=5
    )
)
async def test_any_batches_give_each_key_once_and_counts_that_add_up(
    connection: Connection, batches: list[list[tuple[int, int, int]]]
) -> None:
    await prepare(connection)
    await connection.execute("TRUNCATE signal")
    marks: dict[int, datetime | None] = {1: None, 2: None}
    total, key_xor = 0, 0
    for batch in batches:
        values = [row(*of) for of in batch]
        for gained, xor in (await stored(connection, values, marks)).values():
            total, key_xor = total + gained, key_xor ^ xor
        for device_id, latest in signals.latest(values).items():
            mark = marks[device_id]
            marks[device_id] = latest if mark is None else max(mark, latest)
    wanted = {of for batch in batches for of in batch}
    assert total == len(wanted) == len(await keys(connection))
    assert key_xor == (await connection.fetchval("SELECT coalesce(bit_xor(digest), 0) FROM signal"))
