"""How many bytes a record takes, wherever it is kept or sent: the figures of docs/scaling.md.

    python -m benchmarks.sizes [--records 500000] [--place DIR]

Teltonika codec 8 Extended, 20 elements a record, 1,000 devices whose records come in turn, one or ten a packet. What is
counted: the packet, the journal (to the last byte that is not zero), a message of 64 frames for the broker, the rows of
`signal` with their indexes, and the write-ahead log of all that storing them writes. Then the journal again, behind a
gateway whose devices send one record a packet at a steady rate: a batch that is synced fills whole blocks of the disk,
so a packet that comes alone takes more.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from benchmarks.gateway_process import start_gateway
from benchmarks.packets import Packet
from benchmarks.report import table
from benchmarks.stages import DEVICES, fill_journal, run_load
from signalkeep import telemetry
from signalkeep.clock import SystemClock
from signalkeep.config import Settings
from signalkeep.ingest.service import IngestService
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.ranges import LaneRange, encode_range
from signalkeep.journal.record import Entry, FrameEntry
from signalkeep.sections import DatabaseSettings, LogSettings
from signalkeep.store.embedded import EmbeddedPostgres
from signalkeep.store.postgres import Connection, connect
from signalkeep.store.schema import ensure_schema

FRAMES_A_MESSAGE = 64
INGEST_S_MAX = 600.0
GATEWAY_STOP_S_MAX = 30.0
RATE_S = 10.0
RATES = (10, 100, 1_000, 5_000)  # packets a second
# A partitioned table has no size of its own: the sum over its partitions.
SIZES = """
SELECT sum(pg_total_relation_size(relid)) AS whole, sum(pg_relation_size(relid)) AS heap
FROM pg_partition_tree('signal') WHERE isleaf
"""

LOGGED = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8"  # bytes since the server was made


def message_bytes(records: int) -> float:
    """Of a message for the broker, for each record in it."""
    now_us = time.time_ns() // 1000
    packet = Packet(records, 20, start_ms=now_us // 1000, seed=1)
    entries: list[tuple[int, Entry]] = [
        (seq, FrameEntry(now_us + seq, "teltonika", "356307040000008", "203.0.113.7:50123", {}, packet.next()))
        for seq in range(1, FRAMES_A_MESSAGE + 1)
    ]
    lanes = list(range(8))
    message = LaneRange(uuid4(), 64, lanes, 1, 0, FRAMES_A_MESSAGE, entries, [])
    return len(encode_range(message)) / FRAMES_A_MESSAGE / records


def journal_bytes(root: Path) -> int:
    """Up to the last byte that is not zero: segments are made full of zeros ahead of time."""
    return sum(len(path.read_bytes().rstrip(b"\0")) for path in root.glob("*/*.seg"))


def journal_at_rate(place: Path, rate: int) -> float:
    """Bytes of the journal for each packet, behind a gateway that gets as many a second."""
    directory = Path(tempfile.mkdtemp(prefix="sk-bench-", dir=place))
    process, ports = start_gateway(directory / "data")
    try:
        load = run_load(ports["teltonika"], connections=min(DEVICES, rate), records=1, seconds=RATE_S, rate=rate)
        process.terminate()
        process.wait(GATEWAY_STOP_S_MAX)
        packets: float = load["packets"]
        return journal_bytes(directory / "data" / "journal") / packets
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


async def stored(data: Path, records: int) -> None:
    """Ingest all that the journal holds. Raises TimeoutError."""
    settings = Settings(data=data, unknown_devices="register")
    telemetry.configure(LogSettings(level="error"), "benchmark")
    stop = asyncio.Event()
    service = IngestService(settings, fs=LocalFileSystem(), clock=SystemClock(), stop=stop)
    running = asyncio.create_task(service.run())
    try:
        async with asyncio.timeout(INGEST_S_MAX):
            while service.stats.written.stored < records and not running.done():
                await asyncio.sleep(0.1)
    finally:
        stop.set()
        await running


async def measure(data: Path, records: int, per_packet: int) -> list[float]:
    """Bytes for each record: packet, journal, message, table, indexes, write-ahead log."""
    for directory in (data, data / "journal"):
        directory.mkdir()
        directory.chmod(0o711)
    await fill_journal(data / "journal", records // per_packet, per_packet)
    packet = len(Packet(per_packet, 20, start_ms=0, seed=1).next()) / per_packet
    settings = DatabaseSettings.model_validate({})
    postgres = EmbeddedPostgres(data, settings=settings)
    await postgres.start()
    try:
        await ensure_schema(postgres.dsn, settings)
        connection = await connect(postgres.dsn, application="benchmark", settings=settings)
        before = await connection.fetchval(LOGGED)
        await stored(data, records)
        found = await sizes(connection, records, before)
        await connection.close()
    finally:
        await postgres.stop()
    return [packet, journal_bytes(data / "journal") / records, message_bytes(per_packet), *found]


async def sizes(connection: Connection, records: int, logged_before: float) -> list[float]:
    log_bytes = await connection.fetchval(LOGGED) - logged_before
    rows = await connection.fetchval("SELECT count(*) FROM signal")
    assert rows == records, f"{rows} of {records} rows"
    size = await connection.fetchrow(SIZES)
    assert size is not None
    return [float(size["heap"]) / rows, float(size["whole"] - size["heap"]) / rows, log_bytes / rows]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--place", type=Path, default=Path(tempfile.gettempdir()), help="a place on the disk to use")
    given = parser.parse_args()
    lines = []
    for per_packet in (10, 1):
        directory = Path(tempfile.mkdtemp(prefix="sk-bench-", dir=given.place))
        directory.chmod(0o711)
        try:
            found = asyncio.run(measure(directory / "data", given.records, per_packet))
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        lines.append((f"{per_packet} a packet", *(f"{value:.0f}" for value in found)))
    head = ("bytes a record", "packet", "journal", "broker's message", "table", "its indexes", "write-ahead log")
    sys.stdout.write("\n".join(table(head, lines)) + "\n")
    rates = [(f"{rate:,}", f"{journal_at_rate(given.place, rate):,.0f}") for rate in RATES]
    sys.stdout.write("\n".join(table(("packets/s at one gateway", "journal, bytes a packet"), rates)) + "\n")


if __name__ == "__main__":
    main()
