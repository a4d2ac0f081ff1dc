"""What rules of quality cost: each rule, ingest with and without them, the memory of many devices, a sweep.

Figures only, no judgement; what is compared runs in turns, so that other work on the machine meets both alike.

rules     pure: microseconds of each SIGNAL and RECENT rule for a record of the benchmark's packets, and of all together
ingest    the stage `ingest` with and without, in turns; ratios of speed and of processor time, the median of the pairs
memory    what is remembered of 100,000 devices, in a process of its own
sweep     signals that one sweep judges in a second, read from and written to a database
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec
import psutil

from benchmarks import stages
from benchmarks.core import Core
from benchmarks.packets import Packet
from signalkeep.clock import SystemClock
from signalkeep.integrity.quality import QualitySweep
from signalkeep.model import Decoded, DeviceSettings, Signal
from signalkeep.protocols.teltonika import TELTONIKA
from signalkeep.rulebook import Rulebook
from signalkeep.rules.contract import Scope
from signalkeep.rules.judge import Judge
from signalkeep.rules.reading import Reading, Recent
from signalkeep.sections import DatabaseSettings, QualitySettings
from signalkeep.simulate.fleet import FIRST_NUMBER, device_numbers
from signalkeep.store import registry
from signalkeep.store.partitions import ensure_partitions
from signalkeep.store.postgres import JsonText, connect, embedded_dsn

RECORDS: Final = 20_000
REPEATS: Final = 3
PAIRS: Final = 3
INGESTED: Final = 100_000
DEVICES: Final = 100_000
READINGS_EACH: Final = 15
SWEPT_DEVICES: Final = 200
SWEPT_SIGNALS: Final = 500
SWEEP_S_MAX: Final = 600.0
DELAY_S: Final = 1.0
MIB: Final = 1 << 20

# A day of each device that drives north at 54 km/h; straight into the table, since only the sweep is measured.
FILL: Final = """
INSERT INTO signal (device_id, wire_time, digest, device_time, received_at, fix_valid, latitude, longitude, altitude_m,
    speed_kmh, course_deg, satellites, attributes, protocol, journal_id, seq, record_no)
SELECT d, t, d::bigint * 1000000 + n, t, t + interval '1 s', true, 48 + n * 0.00135, 13, 34, 54, 0, 11,
       $4::jsonb || jsonb_build_object('odometer_m', n * 150), 'teltonika', 1, n, 0
FROM unnest($1::int[]) AS d, generate_series(1, $3::int) AS n,
     LATERAL (SELECT $2::timestamptz + n * interval '10 s' AS t) AS at
"""


def signals(count: int) -> list[Signal]:
    """Of one device that drives."""
    packet = Packet(10, 20, start_ms=time.time_ns() // 1_000_000, seed=1)
    found: list[Signal] = []
    while len(found) < count:
        for outcome in TELTONIKA.decode(packet.next(), "", {}, DeviceSettings()):
            assert isinstance(outcome, Decoded)
            found.append(outcome.signal)
    return found[:count]


def reading_of(signal: Signal) -> Reading:
    assert signal.device_time is not None
    return Reading.of(signal, signal.device_time, signal.device_time.timestamp() + DELAY_S, "teltonika")


def rules() -> dict[str, dict[str, float]]:
    """Microseconds a record, the best of several runs."""
    profile = Rulebook(QualitySettings()).profile("", "")
    made = signals(RECORDS)
    found: dict[str, dict[str, float]] = {}

    def note(name: str, run: Callable[[], object]) -> None:
        best = float("inf")
        for _ in range(REPEATS):
            began = time.process_time()
            run()
            best = min(best, time.process_time() - began)
        found[name] = {"us_per_record": best / RECORDS * 1e6}

    gc.disable()
    try:
        readings = [reading_of(signal) for signal in made]

        def judge(quick: bool) -> None:
            one, recent = Judge(quick=quick), Recent("", profile)
            for reading in readings:
                one.judge(reading, recent, profile)

        note("all rules, at ingest", lambda: judge(quick=True))
        note("all rules, in a sweep", lambda: judge(quick=False))
        recent, judging = Recent("", profile), Judge()
        for reading in readings[: RECORDS // 2]:
            judging.judge(reading, recent, profile)
        costs = []
        for one in (*profile.alone, *profile.recent):
            check, limits = one.check, one.limits
            began = time.process_time()
            if one.rule.scope is Scope.SIGNAL:
                for reading in readings:
                    check(reading, limits)
            else:
                for reading in readings:
                    check(reading, recent, limits)
            costs.append(((time.process_time() - began) / RECORDS * 1e6, one.rule.id))
    finally:
        gc.enable()
    for cost, rule_id in sorted(costs, reverse=True):
        found[rule_id] = {"us_per_record": cost}
    return found


def ingest(place: Path, records: int) -> dict[str, float]:
    """With rules against without, in turns: other work on the machine meets both alike."""
    by_clock, by_cpu, with_us, without_us = [], [], [], []
    for _ in range(PAIRS):
        pair = {}
        for enabled in ("false", "true"):
            os.environ["SIGNALKEEP_QUALITY__ENABLED"] = enabled
            try:
                pair[enabled] = stages.ingest(place, records, INGESTED // records)
            finally:
                del os.environ["SIGNALKEEP_QUALITY__ENABLED"]
        by_clock.append(pair["true"]["records_per_s"] / pair["false"]["records_per_s"])
        by_cpu.append(pair["false"]["ingest_cpu_us"] / pair["true"]["ingest_cpu_us"])
        with_us.append(pair["true"]["ingest_cpu_us"])
        without_us.append(pair["false"]["ingest_cpu_us"])
    return {
        "speed_with_rules_of_without": median(by_clock),
        "by_processor_time": median(by_cpu),
        "ingest_cpu_us_with": median(with_us),
        "ingest_cpu_us_without": median(without_us),
    }


def memory() -> dict[str, float]:
    """In a process of its own, so that what it shows is this and nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", "from benchmarks.judging import remember; remember()"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return found


def remember() -> None:
    """Judge some signals of each of many devices, keep what is remembered, and print its size."""
    profile = Rulebook(QualitySettings()).profile("", "")
    judge = Judge(quick=True)
    made = signals(READINGS_EACH)
    gc.collect()
    before = psutil.Process().memory_info().rss
    kept = []
    for device in range(DEVICES):
        recent = Recent("", profile)
        for number, signal in enumerate(made):
            reading = reading_of(signal)
            # Values of their own, as every device has them.
            reading.attributes = signal.attributes | {
                "odometer_m": device * 100 + number,
                "power_v": 12 + device * 1e-6,
            }
            assert reading.latitude is not None
            reading.latitude += device * 1e-7
            judge.judge(reading, recent, profile)
        kept.append(recent)
    gc.collect()
    added = psutil.Process().memory_info().rss - before
    print(json.dumps({"mib": added / MIB, "bytes_each": added / len(kept)}))


def sweep(place: Path) -> dict[str, float]:
    """One sweep over the days of some devices."""
    with Core(place, ORGANIZER__ENABLED="false") as core:
        return asyncio.run(_sweep(core))


async def _sweep(core: Core) -> dict[str, float]:
    settings = DatabaseSettings.model_validate({})
    connection = await connect(embedded_dsn(core.data), application="benchmark", settings=settings)
    try:
        day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
        await ensure_partitions(connection, {(day.year, day.month)})
        numbers = device_numbers(FIRST_NUMBER, SWEPT_DEVICES)
        devices = await registry.resolve(connection, set(numbers), register_unknown=True)
        attributes = JsonText(msgspec.json.encode(signals(1)[0].attributes))
        ids = [devices[number].id for number in numbers]
        await connection.execute(FILL, ids, day, SWEPT_SIGNALS, attributes)
        book = Rulebook(QualitySettings())
        used = time.process_time()
        done = await QualitySweep(connection, book, SystemClock(), budget_s=SWEEP_S_MAX, settled_s=0).run()
        used = time.process_time() - used
        if done.judged_signals != SWEPT_DEVICES * SWEPT_SIGNALS:
            raise SystemExit(f"the sweep judged {done.judged_signals} signals")
        return {
            "signals_per_s": done.judged_signals / done.seconds,
            "days_per_s": done.days / done.seconds,
            "cpu_us_per_signal": used / done.judged_signals * 1e6,
        }
    finally:
        await connection.close()


def run(place: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """All of it."""
    say("rules, one by one ...")
    found: dict[str, Any] = {"rules": rules()}
    for records in (10, 1):
        say(f"ingest with and without rules, {records} a packet ...")
        found.setdefault("ingest", {})[f"{records} a packet"] = ingest(place, records)
    say("memory of many devices ...")
    found["memory"] = {f"{DEVICES:,} devices": memory()}
    say("a sweep ...")
    found["sweep"] = {f"{SWEPT_DEVICES} days of {SWEPT_SIGNALS} signals": sweep(place)}
    return found
