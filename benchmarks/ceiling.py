"""The ceiling of a run: the very rows that it stored, merged by one client with COPY and ON CONFLICT, and nothing else.

No journal, no decoding, no ledger, no second check: rows that lie ready in memory, batches of 10,000, a table with the
same columns, indexes and partitions in a database of its own on the same server.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import asyncpg

BATCH = 10_000
FILL_S_MAX = 600.0
SHIFT = timedelta(minutes=1)  # makes rows new that are there already
COLUMNS = (
    "device_id, wire_time, digest, device_time, received_at, fix_valid, latitude, longitude, altitude_m, speed_kmh, "
    "course_deg, satellites, event_code, attributes, flags, protocol, journal_id, seq, record_no"
)
NAMES = COLUMNS.split(", ")


async def measure(core: asyncpg.Connection[Any], rows: int, full: int) -> dict[str, float]:
    """Rows a second into an empty table, and into one that holds `full` rows."""
    records = [tuple(row) for row in await core.fetch(f"SELECT {COLUMNS} FROM signal LIMIT {rows}")]  # noqa: S608 - constants
    await core.execute(
        "CREATE SCHEMA ceiling;"
        "CREATE TABLE ceiling.signal (LIKE public.signal INCLUDING ALL) PARTITION BY RANGE (wire_time);"
        "CREATE TEMP TABLE incoming (LIKE ceiling.signal INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
    )
    try:
        for day in {row[1].date().replace(day=1) for row in records}:
            await core.execute(
                f"CREATE TABLE ceiling.signal_{day:%Y_%m} PARTITION OF ceiling.signal FOR VALUES "
                f"FROM ('{day} 00:00+00') TO ('{day} 00:00+00'::timestamptz + interval '1 month')"
            )
        empty = await _merge(core, records)
        await core.execute(
            f"INSERT INTO ceiling.signal SELECT * FROM public.signal LIMIT {full} ON CONFLICT DO NOTHING",  # noqa: S608 - a number
            timeout=FILL_S_MAX,
        )
        later = [(row[0], row[1] + SHIFT, *row[2:]) for row in records]
        return {"empty_rows_per_s": empty, "full_rows_per_s": await _merge(core, later), "rows": float(len(records))}
    finally:
        await core.execute("DROP SCHEMA ceiling CASCADE; DROP TABLE incoming")


async def _merge(core: asyncpg.Connection[Any], records: list[tuple[Any, ...]]) -> float:
    began = time.perf_counter()
    for first in range(0, len(records), BATCH):
        async with core.transaction():
            await core.copy_records_to_table("incoming", records=records[first : first + BATCH], columns=NAMES)
            await core.execute("INSERT INTO ceiling.signal SELECT * FROM incoming ON CONFLICT DO NOTHING")
    return len(records) / (time.perf_counter() - began)
