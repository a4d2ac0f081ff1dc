"""From a socket to a committed row: a whole core, a load beside it, and what is in PostgreSQL at the end.

The rate is that of records acknowledged *and* committed: the clock runs from the first packet until the last row is
there. The backlog is what was acknowledged and is not in the database: when the load ends, and at the very end, where
it must be zero. Nothing is assumed: rows are counted in the table itself.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.core import Core
from benchmarks.usage import Sampler, Usage, busy_s

POLL_S = 0.2
DRAIN_S_MAX = 600.0


@dataclass
class Run:
    """One run. Backlogs in records."""

    label: str
    connections: int
    records_per_packet: int
    asked_per_s: float  # 0: as fast as answers come
    rows_before: int
    acknowledged: int
    acknowledged_per_s: float
    committed_per_s: float
    backlog_at_end_of_load: int
    backlog_at_the_end: int
    latency_ms: dict[str, float]
    usage: dict[str, dict[str, float]] = field(default_factory=dict)  # by role: cpu_s, cpu_us per record, peak_mib
    cores_of_others: float = 0.0  # busy meanwhile with what is none of these roles: much of it spoils a run


def run(
    core: Core, label: str, *, connections: int, records: int, seconds: float, rate: float = 0.0, total: int = 0
) -> Run:
    """Load the core, for a time or with so many records in `total`, and wait until everything is in."""
    return asyncio.run(_run(core, label, connections, records, seconds, rate, total))


async def _run(core: Core, label: str, connections: int, records: int, seconds: float, rate: float, total: int) -> Run:
    connection = await core.connect()
    try:
        before = await connection.fetchval("SELECT count(*) FROM signal")
        counted = await connection.fetchval("SELECT coalesce(sum(stored), 0)::bigint FROM ledger")
        command = [sys.executable, "-m", "benchmarks.load", "--port", str(core.ports["teltonika"])]
        command += ["--connections", str(connections), "--records", str(records), "--seconds", str(seconds)]
        command += ["--rate", str(rate), "--total", str(total)]
        began_s, busy_before_s = time.monotonic(), busy_s()
        with Sampler(core.pids) as sampler:
            child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            text, _ = await child.communicate()
            ended_s = time.monotonic()
            if child.returncode:
                raise SystemExit(f"{' '.join(command)} failed")
            load: dict[str, Any] = json.loads(text)
            wanted = load["acknowledged"]
            first = stored = await _stored(connection, counted)
            while stored < wanted and time.monotonic() - ended_s < DRAIN_S_MAX:
                await asyncio.sleep(POLL_S)
                stored = await _stored(connection, counted)
            committed_s = load["seconds"] + (time.monotonic() - ended_s if first < wanted else 0.0)
        took_s, busy_in_all_s = time.monotonic() - began_s, busy_s() - busy_before_s
        rows = await connection.fetchval("SELECT count(*) FROM signal") - before
    finally:
        await connection.close()
    usage = {role: _per_record(used, wanted) for role, used in sampler.usage().items()}
    usage["load"] = _per_record(Usage(load["cpu_s"], load["peak_mib"]), wanted)
    return Run(
        label=label,
        connections=connections,
        records_per_packet=records,
        asked_per_s=rate,
        rows_before=before,
        acknowledged=wanted,
        acknowledged_per_s=load["per_s"],
        committed_per_s=wanted / committed_s,
        backlog_at_end_of_load=wanted - first,
        backlog_at_the_end=wanted - rows,
        latency_ms=load["latency_ms"],
        usage=usage,
        cores_of_others=max(0.0, busy_in_all_s - sum(used["cpu_s"] for used in usage.values())) / took_s,
    )


async def _stored(connection: Any, before: int) -> int:
    found: int = await connection.fetchval("SELECT coalesce(sum(stored), 0)::bigint FROM ledger")
    return found - before


def _per_record(used: Usage, records: int) -> dict[str, float]:
    return {**asdict(used), "cpu_us": used.cpu_s / max(1, records) * 1e6}
