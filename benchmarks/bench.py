"""`make bench`: how fast each stage is, how fast the whole, next to the ceiling of the same run; all in one run.

    python -m benchmarks.bench [--seconds 60] [--place DIR] [--only decode,ingest] [--save]

Everything runs on this machine at the same time: load, gateway, ingest and PostgreSQL share its cores, as they do for a
user on one machine. Compare ratios, not figures of different machines. `--save` writes the results, with the machine
in general terms, to benchmarks/results/. Takes about ten minutes; nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ceiling, end_to_end, machine, report, stages
from benchmarks.core import Core
from signalkeep import __version__
from signalkeep.simulate.fleet import FIRST_NUMBER, device_numbers

CONNECTIONS = 1000
IDLE_CONNECTIONS = 10_000
CEILING_ROWS = 200_000
FULL_ROWS = 1_000_000
INGESTED = 200_000
RESULTS = Path(__file__).parent / "results"
STAGES = ("decode", "journal", "gateway", "idle", "ingest", "end_to_end")


def run_stages(only: set[str], place: Path, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Each stage alone, for packets of 10 records and of 1."""
    found: dict[str, Any] = {}
    for records in (10, 1):
        key = f"{records} a packet"
        measures: dict[str, Callable[[], dict[str, float]]] = {
            "decode": partial(stages.decode, records),
            "journal": partial(stages.journal, place, records),
            "gateway": partial(stages.gateway, place, records, min(seconds, 10)),
            "ingest": partial(stages.ingest, place, records, INGESTED // records),
        }
        for name, measure in measures.items():
            if name in only:
                say(f"{name}, {key} ...")
                found.setdefault(name, {})[key] = measure()
    if "idle" in only:
        say(f"{IDLE_CONNECTIONS} idle connections ...")
        found["idle"] = {f"{IDLE_CONNECTIONS} connections": stages.idle(place, IDLE_CONNECTIONS)}
    return found


def run_end_to_end(place: Path, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Two cores, one for each size of packet: empty, then with a million rows, then at half the rate for latencies."""
    runs: list[end_to_end.Run] = []
    ceilings: dict[str, float] = {}
    for records in (10, 1):
        with Core(place) as core:
            core.register(device_numbers(FIRST_NUMBER, CONNECTIONS))

            def run(label: str, rate: float = 0.0, records: int = records, core: Core = core) -> end_to_end.Run:
                label = f"{label}, {records} a packet"
                say(f"{label} ...")
                made = end_to_end.run(core, label, connections=CONNECTIONS, records=records, seconds=seconds, rate=rate)
                runs.append(made)
                return made

            empty = run("empty table")
            while _rows(core) < FULL_ROWS:
                say(f"filling up to {FULL_ROWS:,} rows ...")
                end_to_end.run(core, "fill", connections=CONNECTIONS, records=10, seconds=min(seconds, 20))
            run("a million rows")
            sustained = run("steady", rate=empty.committed_per_s * 0.9)
            run("half the rate", rate=sustained.committed_per_s * 0.5)
            if not ceilings:
                say("the ceiling: the same rows merged by one client ...")
                ceilings = asyncio.run(_ceiling(core))
    return {"runs": [asdict(one) for one in runs], "ceiling": ceilings}


def _rows(core: Core) -> int:
    async def count() -> int:
        connection = await core.connect()
        try:
            found: int = await connection.fetchval("SELECT count(*) FROM signal")
            return found
        finally:
            await connection.close()

    return asyncio.run(count())


async def _ceiling(core: Core) -> dict[str, float]:
    connection = await core.connect()
    try:
        return await ceiling.measure(connection, CEILING_ROWS, FULL_ROWS)
    finally:
        await connection.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run from socket to row")
    parser.add_argument(
        "--place", type=Path, default=Path(tempfile.gettempdir()), help="a directory on the disk to use"
    )
    parser.add_argument("--only", default=",".join(STAGES), help=f"some of {', '.join(STAGES)}")
    parser.add_argument("--save", action="store_true", help="write to benchmarks/results/")
    given = parser.parse_args()
    only = set(given.only.split(","))
    if unknown := only - set(STAGES):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - began:5.0f} s] {text}\n")

    result: dict[str, Any] = {
        "signalkeep": __version__,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python -m benchmarks.bench --seconds {given.seconds:g}",
        "machine": machine.describe(given.place),
        "stages": run_stages(only, given.place, given.seconds, say),
    }
    if "end_to_end" in only:
        result["end_to_end"] = run_end_to_end(given.place, given.seconds, say)
    text = report.text(result)
    sys.stdout.write(text)
    if given.save:
        RESULTS.mkdir(exist_ok=True)
        name = f"{datetime.now(UTC):%Y-%m-%d}-{result['machine']['cores']}-cores"
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    if any(one["backlog_at_the_end"] for one in result.get("end_to_end", {}).get("runs", ())):
        sys.exit("records were acknowledged that are not in the database")


if __name__ == "__main__":
    main()
