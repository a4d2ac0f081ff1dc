"""What each way of storing rows of `signal` costs, and each check and index: the figures behind decision 0005.

    python -m benchmarks.storing [--rows 200000] [--place DIR]

One client, batches of 5,000, an embedded PostgreSQL of its own that syncs. The table is `signal` as it is, then with an
index on device_time, then with foreign keys besides. Prints rows a second, and processor microseconds of a row in the
client and in the server.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from benchmarks.report import table
from benchmarks.stages import cpu_s_with_children
from signalkeep.sections import DatabaseSettings
from signalkeep.store import sql
from signalkeep.store.embedded import EmbeddedPostgres
from signalkeep.store.partitions import ensure_partitions
from signalkeep.store.postgres import Connection, JsonText, connect
from signalkeep.store.schema import ensure_schema
from signalkeep.store.signals import COLUMNS

BATCH = 5_000
DEVICES = 500
ATTRIBUTES = (
    b'{"ignition":true,"motion":true,"gsm_rssi":4,"gnss_status":1,"data_mode":1,"sleep_mode":0,"pdop":1.1,"hdop":0.8,'
    b'"power_v":13.9,"battery_v":4.05,"odometer_m":1000000,"trip_m":42,"in1":true,"in2":false,"adc1_v":0.05,"rpm":1500,'
    b'"coolant_c":88,"fuel_pct":60,"obd_speed_kmh":50,"engine_load_pct":40}'
)
Rows = list[tuple[Any, ...]]
Way = Callable[[Connection, Rows], Awaitable[object]]


async def from_arrays(connection: Connection, rows: Rows) -> object:
    return await connection.fetch(sql.INSERT_SIGNALS, *zip(*rows, strict=True))


async def copied(connection: Connection, rows: Rows) -> object:
    return await connection.copy_records_to_table("signal", records=rows, columns=COLUMNS)


async def merged(connection: Connection, rows: Rows) -> object:
    await connection.execute(
        "CREATE TEMP TABLE IF NOT EXISTS incoming (LIKE signal INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
    )
    await connection.copy_records_to_table("incoming", records=rows, columns=COLUMNS)
    return await connection.execute("INSERT INTO signal SELECT * FROM incoming ON CONFLICT DO NOTHING")


WAYS: dict[str, Way] = {"INSERT from arrays": from_arrays, "COPY and merge": merged, "COPY": copied}
STEPS = {
    "as it is": "SELECT",
    "with an index on device_time": "CREATE INDEX ON signal (device_id, device_time DESC)",
    "and with foreign keys": "ALTER TABLE signal ADD FOREIGN KEY (device_id) REFERENCES device,"
    " ADD FOREIGN KEY (journal_id) REFERENCES journal",
}


def rows_of(count: int) -> Rows:
    """Rows of many devices, in the order of time."""
    source, start, text = random.Random(1), datetime(2026, 11, 1, tzinfo=UTC), JsonText(ATTRIBUTES)  # noqa: S311 - no secret
    made = []
    for number in range(count):
        at, place = start + timedelta(milliseconds=number * 5), (52.5 + source.random(), 13.4 + source.random())
        made.append(
            (1 + number % DEVICES, at, source.getrandbits(63), at, at + timedelta(seconds=1), True, *place, 100.0, 50.0,
             90.0, 9, None, text, 0, "teltonika", 1, number // 10 + 1, number % 10)
        )  # fmt: skip
    return made


async def measure(data: Path, count: int) -> list[tuple[str, ...]]:
    settings = DatabaseSettings.model_validate({})
    postgres = EmbeddedPostgres(data, settings=settings)
    await postgres.start()
    try:
        await ensure_schema(postgres.dsn, settings)
        connection = await connect(postgres.dsn, application="benchmark", settings=settings)
        await connection.execute(
            f"INSERT INTO device (device_number) SELECT g FROM generate_series(1, {DEVICES}) g;"  # noqa: S608 - a number
            "INSERT INTO journal (uuid, host, directory, lanes) VALUES (gen_random_uuid(), 'h', 'd', 1)"
        )
        await ensure_partitions(connection, [(2026, 11)])
        rows, server = rows_of(count), psutil.Process(postgres.pid)
        lines: list[tuple[str, ...]] = []
        for step, change in STEPS.items():
            await connection.execute(change)
            for name, way in WAYS.items():
                await connection.execute("TRUNCATE signal")
                lines.append((step, name, *await _run(connection, server, way, rows)))
        await connection.close()
        return lines
    finally:
        await postgres.stop()


async def _run(connection: Connection, server: psutil.Process, way: Way, rows: Rows) -> tuple[str, str, str]:
    began, client, there = time.perf_counter(), time.process_time(), cpu_s_with_children(server)
    for first in range(0, len(rows), BATCH):
        async with connection.transaction():
            await way(connection, rows[first : first + BATCH])
    taken, client = time.perf_counter() - began, time.process_time() - client
    there = cpu_s_with_children(server) - there
    each = 1e6 / len(rows)
    return f"{len(rows) / taken:,.0f}", f"{client * each:.1f}", f"{there * each:.1f}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--place", type=Path, default=Path(tempfile.gettempdir()), help="a place on the disk to use")
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="sk-bench-", dir=given.place))
    directory.chmod(0o711)
    try:
        lines = asyncio.run(measure(directory / "data", given.rows))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    sys.stdout.write("\n".join(table(("signal", "way", "rows/s", "client us", "server us"), lines)) + "\n")


if __name__ == "__main__":
    main()
