"""`make bench`: how fast each stage is, how fast the whole, next to the ceiling of the same run; all in one run.

    python -m benchmarks.bench [--seconds 60] [--place DIR] [--only decode,ingest] [--save]
    python -m benchmarks.bench --only broker      what RabbitMQ between gateway and ingest costs; three minutes
    python -m benchmarks.bench --only rules       what rules of quality cost; four minutes
    python -m benchmarks.bench --only devices     what a look at 100,000 devices costs; two minutes

Everything runs on this machine at the same time: load, gateway, ingest and PostgreSQL share its cores, as they do for a
user on one machine. Compare ratios, not figures of different machines. `--save` writes the results, with the machine
in general terms, to benchmarks/results/. Takes a quarter of an hour; nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ceiling, devices, end_to_end, judging, machine, relaying, report, stages, through_broker
from benchmarks.core import Core
from signalkeep import __version__
from signalkeep.simulate.fleet import FIRST_NUMBER, device_numbers

CONNECTIONS = 1000
IDLE_CONNECTIONS = 10_000
CEILING_ROWS = 200_000
FULL_ROWS = 1_000_000
INGESTED = 200_000
FLAT_OUT_S = 10.0
KEPT_UP = 0.85  # of the capacity: what is asked for a minute, so that no backlog grows
RESULTS = Path(__file__).parent / "results"
STAGES = ("decode", "journal", "gateway", "idle", "ingest", "relay", "rules", "devices", "end_to_end", "broker")


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
            "relay": partial(relaying.relay, place, records, INGESTED // records),
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
    """For each size of packet: flat out to find the capacity, which fills the table; then, at what can be kept up,
    beside a million rows and, on a fresh core, on an empty table; and half of that for latencies."""
    runs: list[end_to_end.Run] = []
    ceilings: dict[str, float] = {}
    for records in (10, 1):

        def run(core: Core, label: str, for_s: float, rate: float = 0.0, records: int = records) -> end_to_end.Run:
            say(f"{label}, {records} a packet ...")
            made = end_to_end.run(
                core,
                f"{label}, {records} a packet",
                connections=CONNECTIONS,
                records=records,
                seconds=for_s,
                rate=rate,
            )
            runs.append(made)
            return made

        with _core(place) as core:
            capacity = run(core, "flat out", FLAT_OUT_S).committed_per_s
            while _rows(core) < FULL_ROWS:
                say(f"filling up to {FULL_ROWS:,} rows ...")
                end_to_end.run(core, "fill", connections=CONNECTIONS, records=10, seconds=FLAT_OUT_S)
            kept_up = capacity * KEPT_UP
            run(core, "beside a million rows", seconds, kept_up)
            run(core, "half of it", seconds / 2, kept_up / 2)
            if not ceilings:
                say("the ceiling: the same rows merged by one client ...")
                ceilings = asyncio.run(_ceiling(core))
        with _core(place) as core:
            run(core, "on an empty table", seconds, kept_up)
    return {"runs": [asdict(one) for one in runs], "ceiling": ceilings}


@contextmanager
def _core(place: Path) -> Iterator[Core]:
    """A fresh one that knows the devices of the load."""
    with Core(place) as core:
        core.register(device_numbers(FIRST_NUMBER, CONNECTIONS))
        yield core


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that what was started is ended
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - began:5.0f} s] {text}\n")

    parts = [name for name in STAGES if name in only]
    result: dict[str, Any] = {
        "signalkeep": __version__,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python -m benchmarks.bench --seconds {given.seconds:g}{_option(parts)}",
        "machine": machine.describe(given.place),
        "stages": run_stages(only, given.place, given.seconds, say),
    }
    if "rules" in only:
        result["rules"] = judging.run(given.place, say)
    if "devices" in only:
        result["devices"] = devices.run(given.place, say)
    if "end_to_end" in only:
        result["end_to_end"] = run_end_to_end(given.place, given.seconds, say)
    if "broker" in only:
        result["broker"] = through_broker.run(given.place, say)
    text = report.text(result)
    sys.stdout.write(text)
    if given.save:
        _save(result, text, parts)
    made = [one for part in ("end_to_end", "broker") for one in result.get(part, {}).get("runs", ())]
    if any(one["backlog_at_the_end"] for one in made):
        sys.exit("records were acknowledged that are not in the database")


def _option(parts: list[str]) -> str:
    """Of the command line, unless it is everything."""
    return "" if parts == list(STAGES) else f" --only {','.join(parts)}"


def _save(result: dict[str, Any], text: str, parts: list[str]) -> None:
    """A run of some parts gets a name of its own, so that it never replaces a whole one."""
    RESULTS.mkdir(exist_ok=True)
    only = "" if parts == list(STAGES) else f"-{'-'.join(parts)}"
    name = f"{datetime.now(UTC):%Y-%m-%d}-{result['machine']['cores']}-cores{only}"
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
