"""What a look at all devices costs: seconds, memory, and how long it keeps the event loop from other jobs.

    python -m benchmarks.bench --only devices

Each scene is looked at twice by a process of its own: first with everything new, then with nothing new, which is what
happens once a minute. The aims are 10 seconds and 150 MiB for 100,000 devices.
"""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from signalkeep.clock import SystemClock
from signalkeep.integrity.devices import DeviceCheck
from signalkeep.sections import DatabaseSettings
from signalkeep.sections.devices import DevicesSettings
from signalkeep.store.embedded import EmbeddedPostgres
from signalkeep.store.partitions import ensure_partitions
from signalkeep.store.postgres import Connection, connect
from signalkeep.store.schema import ensure_schema

DEVICES: Final = 100_000
TICK_S: Final = 0.005
LOOK_S_MAX: Final = 600.0

# Active devices that report every minute, of a hundred models, all over a continent, each with a signal.
FILL: Final = (
    "SELECT setseed(0.5)",
    "INSERT INTO journal (uuid, host, directory, lanes) VALUES (gen_random_uuid(), 'h', 'd', 1)",
    """
    INSERT INTO device (device_number, status, model, expected_interval_s, created_at, registered_at)
    SELECT (350000000000000 + n)::text, 'active', 'model ' || n % 97, 60, now() - interval '1 year', now()
    FROM generate_series(1, {devices}) n
    """,
    """
    INSERT INTO device_state (device_id, last_received_at, device_time, stored_to, stored, latitude, longitude)
    SELECT id, now(), now(), now(), 1000, 36 + 20 * random(), -9 + 40 * random() FROM device
    """,
    """
    INSERT INTO signal (device_id, wire_time, digest, device_time, received_at, fix_valid, latitude, longitude,
        attributes, protocol, journal_id, seq, record_no)
    SELECT device_id, stored_to, device_id, stored_to, stored_to, true, latitude, longitude,
        jsonb_build_object('ignition', true, 'power_v', 12.4), 'teltonika', 1, device_id, 0
    FROM device_state
    """,
)

# Two devices in a hundred with a finding, and as many that have little to say about it: rules that are no trouble.
SOME_AIL: Final = """
INSERT INTO finding (kind, subject, detail, count, device_id, day, severity, state, begins_at, ends_at, live, live_hits,
    live_at)
SELECT k.kind, 'device ' || id, 'as found', 7, id, (now() AT TIME ZONE 'UTC')::date, 'warning', 'detected',
       now() - interval '1 minute', now(), true, 7, now()
FROM device CROSS JOIN (VALUES ('VEH-04'), ('KIN-06')) AS k (kind) WHERE id % 50 = 0
"""
SILENT: Final = """
UPDATE device_state SET last_received_at = now() - interval '1 hour' - {spread} WHERE device_id % 100 < {percent}
"""
SCENES: Final[dict[str, tuple[str, ...]]] = {
    "2 % ail": (SOME_AIL,),
    "and 30 % fall silent at once": (SILENT.format(percent=30, spread="interval '0 s'"),),
    "20 % silent by themselves, for up to 20 days": (
        "DELETE FROM device_trouble",
        "UPDATE device_state SET last_received_at = now()",
        SILENT.format(percent=20, spread="device_id * interval '17 s'"),
    ),
    "80 % parked for hours": (
        "DELETE FROM device_trouble",
        """UPDATE signal SET attributes = '{"ignition": false}' WHERE device_id % 5 > 0""",
        "UPDATE device_state SET last_received_at = now() - interval '3 hours' * (device_id % 5 > 0)::int",
    ),
}


def run(place: Path, say: Callable[[str], None], devices: int = DEVICES) -> list[dict[str, Any]]:
    """Each scene: what its two looks cost."""
    directory = Path(tempfile.mkdtemp(prefix="sk-bench-", dir=place))
    directory.chmod(0o711)
    try:
        return asyncio.run(_run(directory / "data", say, devices))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _run(data: Path, say: Callable[[str], None], devices: int) -> list[dict[str, Any]]:
    settings = DatabaseSettings.model_validate({})
    postgres = EmbeddedPostgres(data, settings=settings)
    await postgres.start()
    try:
        await ensure_schema(postgres.dsn, settings)
        return await look_at_scenes(postgres.dsn, say, devices)
    finally:
        await postgres.stop()


async def look_at_scenes(dsn: str, say: Callable[[str], None], devices: int) -> list[dict[str, Any]]:
    """In a database that is empty."""
    connection = await connect(dsn, application="benchmark", settings=DatabaseSettings.model_validate({}))
    try:
        now = datetime.now(UTC)
        await ensure_partitions(connection, [(now.year, now.month)])
        for statement in FILL:
            await connection.execute(statement.format(devices=devices))
        await _settle(connection)
        found = []
        for scene, statements in SCENES.items():
            say(f"{devices:,} devices: {scene} ...")
            for statement in statements:
                await connection.execute(statement)
            await _settle(connection)
            looks = await asyncio.to_thread(_in_a_process, dsn)
            found += [{"scene": scene, "devices": devices, **look} for look in looks]
        return found
    finally:
        await connection.close()


async def _settle(connection: Connection) -> None:
    """As autovacuum does by and by."""
    for table in ("device", "device_state", "signal", "finding", "device_trouble", "incident"):
        await connection.execute(f"VACUUM ANALYZE {table}")


def _in_a_process(dsn: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.devices", dsn]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LOOK_S_MAX)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


async def look_twice(dsn: str) -> list[dict[str, Any]]:
    """Seconds, peak memory of this process, and the longest time for which nothing else could run."""
    connection = await connect(dsn, application="benchmark", settings=DatabaseSettings.model_validate({}))
    check, found = DeviceCheck(DevicesSettings(), SystemClock()), []
    try:
        for name in ("first", "again"):
            began, used = time.perf_counter(), time.process_time()
            ticker = asyncio.create_task(_longest_pause_s())
            said = await check.run(connection)
            taken, used = time.perf_counter() - began, time.process_time() - used
            ticker.cancel()
            with suppress(asyncio.CancelledError):
                await ticker
            peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            found.append(
                {"look": name, "s": taken, "cpu_s": used, "peak_mib": peak_mib, "pause_s": _pauses.pop(), "said": said}
            )
    finally:
        await connection.close()
    return found


_pauses: list[float] = []


async def _longest_pause_s() -> None:
    longest_s, before = 0.0, time.perf_counter()
    try:
        while True:
            await asyncio.sleep(TICK_S)
            now = time.perf_counter()
            longest_s, before = max(longest_s, now - before - TICK_S), now
    finally:
        _pauses.append(max(longest_s, time.perf_counter() - before - TICK_S))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(look_twice(sys.argv[1]))) + "\n")
