"""What each stage does alone, on one core: decode, journal, gateway, ingest. Figures only, no judgement.

decode     pure: frames to signals
journal    real files, real syncs: entries a second, and what one sync takes
gateway    real sockets into a real journal, without a database; load on the other core
ingest     a journal that is full already, into an empty database; PostgreSQL on the other core
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.gateway_process import start_gateway
from benchmarks.packets import Packet
from benchmarks.usage import cpu_s_of
from signalkeep.clock import SystemClock
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.record import FrameEntry
from signalkeep.journal.writer import JournalWriter
from signalkeep.model import DeviceSettings
from signalkeep.protocols.teltonika import TELTONIKA
from signalkeep.sections import DatabaseSettings
from signalkeep.simulate.fleet import FIRST_NUMBER, device_numbers
from signalkeep.store.embedded import EmbeddedPostgres
from signalkeep.store.postgres import connect

DEVICES = 1000
DECODED = 50_000
REPEATS = 5
WAITING_MAX_BYTES = 8 << 20
INGEST_S_MAX = 300.0
MIB = 1 << 20


def decode(records: int) -> dict[str, float]:
    """Records a second, the best of several runs: what the code can do, not what disturbed it."""
    packet = Packet(records, 20, start_ms=time.time_ns() // 1_000_000, seed=1)
    frames = [packet.next() for _ in range(DECODED // records)]
    settings, best = DeviceSettings(), float("inf")
    gc.disable()
    try:
        for _ in range(REPEATS):
            began = time.process_time()
            for frame in frames:
                TELTONIKA.decode(frame, "", {}, settings)
            best = min(best, time.process_time() - began)
    finally:
        gc.enable()
    return {"records_per_s": len(frames) * records / best, "us_per_record": best / len(frames) / records * 1e6}


async def fill_journal(
    root: Path, entries: int, records: int, *, lanes: int = 1, devices: int = DEVICES
) -> dict[str, float]:
    """Append frames of many devices as fast as the disk takes them; every one is durable at the end."""
    now_ms = time.time_ns() // 1_000_000
    numbers = device_numbers(FIRST_NUMBER, devices)
    packets = [Packet(records, 20, start_ms=now_ms, seed=seed) for seed in range(devices)]
    writer = JournalWriter.create(LocalFileSystem(), root, clock=SystemClock(), lanes=lanes)
    running = asyncio.create_task(writer.run())
    began, used = time.perf_counter(), time.process_time()
    for number in range(entries):
        device = number % devices
        raw = packets[device].next()
        writer.append(FrameEntry(now_ms * 1000, "teltonika", numbers[device], "127.0.0.1:5027", {}, raw))
        while writer.pending_bytes > WAITING_MAX_BYTES:
            await asyncio.sleep(0)
    await writer.close()
    await running
    taken, used = time.perf_counter() - began, time.process_time() - used
    return {
        "entries_per_s": entries / taken,
        "records_per_s": entries * records / taken,
        "cpu_us": used / entries * 1e6,
    }


def journal(place: Path, records: int) -> dict[str, float]:
    """Entries a second through the group commit; and a single append with its sync."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        root = Path(directory) / "journal"
        root.mkdir()
        found = asyncio.run(fill_journal(root, 200_000 // records, records))
        return {**found, "sync_ms": _one_sync_ms(Path(directory) / "sync")}


def _one_sync_ms(file: Path) -> float:
    """The median of 4 KiB written and synced."""
    taken = []
    with file.open("wb", buffering=0) as opened:
        opened.write(bytes(4 << 20))
        os.fsync(opened.fileno())
        for number in range(200):
            began = time.perf_counter()
            os.pwrite(opened.fileno(), b"x" * 4096, number * 4096)
            getattr(os, "fdatasync", os.fsync)(opened.fileno())
            taken.append(time.perf_counter() - began)
    return sorted(taken)[len(taken) // 2] * 1000


def run_load(port: int, **options: float) -> dict[str, Any]:
    """The load generator as a process of its own; what it printed."""
    command = [sys.executable, "-m", "benchmarks.load", "--port", str(port)]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def gateway_alone(place: Path) -> Iterator[tuple[int, psutil.Process]]:
    """Its port and its process."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        process, ports = start_gateway(Path(directory) / "data", GATEWAY__CONNECTIONS_PER_ADDRESS_MAX="16000")
        try:
            yield ports["teltonika"], psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


def gateway(place: Path, records: int, seconds: float) -> dict[str, float]:
    """As fast as 1,000 connections are answered; and what one record costs the gateway's core."""
    with gateway_alone(place) as (port, process):
        used = sum(process.cpu_times()[:2])
        load = run_load(port, connections=DEVICES, records=records, seconds=seconds)
        used = sum(process.cpu_times()[:2]) - used
    return {
        "records_per_s": load["per_s"],
        "cpu_us_per_packet": used / max(1, load["packets"]) * 1e6,
        "cpu_us_per_record": used / max(1, load["acknowledged"]) * 1e6,
    }


def idle(place: Path, connections: int) -> dict[str, float]:
    """Memory of the gateway with connections that have logged in and say nothing."""
    with gateway_alone(place) as (port, process):
        run_load(port, connections=100, records=1, seconds=1, rate=100)
        before = process.memory_info().rss
        peak = before
        command = [sys.executable, "-m", "benchmarks.load", "--port", str(port)]
        command += ["--connections", "1", "--idle", str(connections), "--records", "1", "--rate", "1", "--seconds", "5"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
            while child.poll() is None:
                peak = max(peak, process.memory_info().rss)
                time.sleep(0.1)
        if child.returncode:
            raise SystemExit(f"{' '.join(command)} failed")
    return {"added_mib": (peak - before) / MIB, "kib_each": (peak - before) / connections / 1024}


@asynccontextmanager
async def ingested(
    data: Path, records: int, entries: int, *, rules: bool, devices: int = DEVICES
) -> AsyncIterator[tuple[EmbeddedPostgres, dict[str, float]]]:
    """A database into which a full journal was drained, and what was measured meanwhile. `rules`: of quality, asked."""
    settings = DatabaseSettings.model_validate({})
    for directory in (data, data / "journal"):
        directory.mkdir()
        directory.chmod(0o711)
    await fill_journal(data / "journal", entries, records, devices=devices)
    postgres = EmbeddedPostgres(data, settings=settings)
    await postgres.start()
    try:
        assert postgres.pid is not None
        environment = os.environ | {"SIGNALKEEP_DATA": str(data), "SIGNALKEEP_UNKNOWN_DEVICES": "register"}
        environment |= {"SIGNALKEEP_LOG__LEVEL": "error", "SIGNALKEEP_QUALITY__ENABLED": str(rules).lower()}
        command = [sys.executable, "-m", "signalkeep", "ingest", "--instance", "0"]
        child = await asyncio.create_subprocess_exec(*command, env=environment)
        try:
            measured = await _watch_ingest(postgres, psutil.Process(child.pid), settings, entries * records)
        finally:
            child.terminate()
            await child.wait()
        yield postgres, measured
    finally:
        await postgres.stop()


async def _watch_ingest(
    postgres: EmbeddedPostgres, ingest: psutil.Process, settings: DatabaseSettings, records: int
) -> dict[str, float]:
    connection = await connect(postgres.dsn, application="benchmark", settings=settings)
    server = psutil.Process(postgres.pid)
    began, done, used = 0.0, 0, (0.0, 0.0)
    first = 0
    deadline = time.monotonic() + INGEST_S_MAX
    try:
        while done < records and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
            if await connection.fetchval("SELECT to_regclass('ledger')") is None:
                continue
            done = await connection.fetchval("SELECT coalesce(sum(stored), 0)::bigint FROM ledger")
            if done and not began:  # the clock starts with the first rows: starting up is another matter
                began, first, used = (
                    time.perf_counter(),
                    done,
                    (cpu_s_with_children(ingest), cpu_s_with_children(server)),
                )
        taken = time.perf_counter() - began
        cpu_us = [
            (after - before) / max(1, done - first) * 1e6
            for before, after in zip(used, (cpu_s_with_children(ingest), cpu_s_with_children(server)), strict=True)
        ]
        return {
            "records_per_s": (done - first) / taken,
            "ingest_cpu_us": cpu_us[0],
            "postgres_cpu_us": cpu_us[1],
            "ingest_mib": ingest.memory_info().rss / MIB,
        }
    finally:
        await connection.close()


def cpu_s_with_children(process: psutil.Process) -> float:
    """Of a process and of all that it has started, what has ended included."""
    total = cpu_s_of(process, ended_children=True)
    for child in process.children(recursive=True):
        try:
            total += cpu_s_of(child)
        except psutil.Error:
            continue
    return total


def ingest(place: Path, records: int, entries: int, *, rules: bool = True) -> dict[str, float]:
    """Drain a full journal."""
    directory = Path(tempfile.mkdtemp(prefix="sk-bench-", dir=place))
    directory.chmod(0o711)

    async def drain() -> dict[str, float]:
        async with ingested(directory / "data", records, entries, rules=rules) as (_, measured):
            return measured

    try:
        return asyncio.run(drain())
    finally:
        shutil.rmtree(directory, ignore_errors=True)
