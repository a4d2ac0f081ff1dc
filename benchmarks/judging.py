"""What rules of quality cost: each by itself, at ingest, in memory, and in a sweep.

    python -m benchmarks.bench --only rules

rules      microseconds of a record, each rule that looks at one record; and judging as a whole. The records are those
           of a car that drives, in which rules find nothing: what most records cost. A hit costs more
ingest     with rules against without, in turns, so that what disturbs one of a pair disturbs the other
memory     what is remembered of devices that have been judged, in a process of its own
sweep      a stored day of each of many devices, judged in its place
"""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from copy import copy
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks import stages
from benchmarks.packets import Packet
from signalkeep.clock import SystemClock
from signalkeep.integrity.quality import QualitySweep
from signalkeep.model import Decoded, DeviceSettings
from signalkeep.protocols.teltonika import TELTONIKA
from signalkeep.rulebook import Rulebook
from signalkeep.rules.contract import Dimension, Limits, Rule, Scope, Severity
from signalkeep.rules.judge import Judge, Profile, defaults
from signalkeep.rules.reading import Reading, Recent
from signalkeep.sections import DatabaseSettings, QualitySettings
from signalkeep.store.postgres import connect

READINGS: Final = 2_000
REPEATS: Final = 9
ARRIVES_AFTER_S: Final = 2.0
INGESTED: Final = 60_000
PAIRS: Final = 3
REMEMBERED_DEVICES: Final = 100_000
REMEMBERED_READINGS: Final = 15
SWEPT_DEVICES: Final = 200
SWEPT_SIGNALS: Final = 500  # of each
SWEEP_S_MAX: Final = 600.0


def run(place: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """All of it."""
    say("what each rule costs ...")
    found: dict[str, Any] = rule_costs()
    found["ingest"] = {}
    for records in (10, 1):
        say(f"ingest with rules and without, {records} a packet ...")
        found["ingest"][f"{records} a packet"] = ingest(place, records)
    say(f"what is remembered of {REMEMBERED_DEVICES:,} devices ...")
    found["memory"] = memory(REMEMBERED_DEVICES)
    say("a sweep ...")
    found["sweep"] = sweep(place, SWEPT_DEVICES, SWEPT_SIGNALS)
    return found


def readings_of(packet: Packet, packets: int) -> list[Reading]:
    """What a device's packets say, as rules see it; each arrives in time."""
    settings, made = DeviceSettings(), []
    for _ in range(packets):
        for outcome in TELTONIKA.decode(packet.next(), "", {}, settings):
            assert isinstance(outcome, Decoded)
            signal = outcome.signal
            assert signal.wire_time is not None
            received_s = signal.wire_time.timestamp() + ARRIVES_AFTER_S
            made.append(Reading.of(signal, signal.wire_time, received_s, TELTONIKA.name))
    return made


def rule_costs(count: int = READINGS, repeats: int = REPEATS) -> dict[str, Any]:
    """Each SIGNAL and RECENT rule that is asked, and the whole: microseconds of a record, the median of some runs."""
    readings = readings_of(Packet(10, 20, start_ms=time.time_ns() // 1_000_000, seed=1), count // 10)
    rules = Rulebook(QualitySettings()).rules
    profile = Profile((rule, defaults(rule)) for rule in rules)
    moments = _moments(readings, rules)
    asked = profile.asked_of(readings[0].attributes)
    scopes = (("signal", asked.alone, [(one,) for one in readings]), ("recent", asked.recent, moments))
    costs = [
        {"id": one.rule.id, "scope": scope, "us": _us(partial(_ask, check, values, given), repeats, count)}
        for scope, laid_out, given in scopes
        for check, values, _, one in laid_out
    ]
    hits = sum(len(judged.hits) for judged in _judge_all(readings, profile, quick=False))
    return {
        "rules": sorted(costs, key=lambda one: -one["us"]),
        "not_asked": len(profile.alone) + len(profile.recent) - len(costs),
        "hits": hits,
        "judge_full_us": _us(lambda: _judge_all(readings, profile, quick=False), repeats, count),
        "judge_quick_us": _us(lambda: _judge_all(readings, profile, quick=True), repeats, count),
    }


def _moments(readings: list[Reading], rules: tuple[Rule, ...]) -> list[tuple[Any, ...]]:
    """Each reading with the memory as rules that look back see it then: one more rule, asked first, keeps a copy."""
    kept: list[tuple[Any, ...]] = []

    def keep(reading: Reading, recent: Recent, limits: Limits) -> None:
        del limits
        then = copy(recent)
        then.known = dict(recent.known)
        kept.append((reading, then))

    first = Rule(
        id="BENCH-01", title="", dimension=Dimension.VALIDITY, severity=Severity.INFO, scope=Scope.RECENT, check=keep,
        meaning="", causes=(), actions=(), source="",
    )  # fmt: skip
    _judge_all(readings, Profile((rule, defaults(rule)) for rule in (first, *rules)), quick=False)
    assert len(kept) == len(readings)
    return kept


def _judge_all(readings: list[Reading], profile: Profile, *, quick: bool) -> list[Any]:
    judge, recent = Judge(quick=quick), Recent("", profile)
    judged = [judge.judge(one, recent, profile) for one in readings]
    assert not judge.broken, judge.first_errors
    return judged


def _ask(check: Any, values: Limits, given: list[tuple[Any, ...]]) -> None:
    for one in given:
        check(*one, values)


def _us(work: Callable[[], object], repeats: int, count: int) -> float:
    taken = []
    gc.disable()
    try:
        for _ in range(repeats):
            began = time.process_time()
            work()
            taken.append(time.process_time() - began)
    finally:
        gc.enable()
    return statistics.median(taken) / count * 1e6


def ingest(place: Path, records: int, ingested: int = INGESTED, pairs: int = PAIRS) -> dict[str, float]:
    """Medians of pairs, and of the ratios in each pair: the rate, and by processor time of ingest and PostgreSQL."""
    both = [
        [stages.ingest(place, records, ingested // records, rules=rules) for rules in (False, True)]
        for _ in range(pairs)
    ]
    found = {
        f"{what}_{'with' if with_rules else 'without'}": statistics.median(pair[with_rules][what] for pair in both)
        for what in ("records_per_s", "ingest_cpu_us", "postgres_cpu_us")
        for with_rules in (False, True)
    }
    ratios = [with_["records_per_s"] / without["records_per_s"] for without, with_ in both]
    by_cpu = [_cpu_us(without) / _cpu_us(with_) for without, with_ in both]
    return found | {
        "ratio": statistics.median(ratios),
        "ratio_least": min(ratios),
        "ratio_most": max(ratios),
        "ratio_by_cpu": statistics.median(by_cpu),
    }


def _cpu_us(found: dict[str, float]) -> float:
    return found["ingest_cpu_us"] + found["postgres_cpu_us"]


def memory(devices: int) -> dict[str, float]:
    """In a process of its own, so that nothing else grows in it."""
    command = [sys.executable, "-m", "benchmarks.judging", str(devices)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def remember(devices: int) -> dict[str, float]:
    """The memory of this process with what is remembered of devices, less what it had before."""
    profile, judge, start_ms = Rulebook(QualitySettings()).profile("", ""), Judge(quick=True), 1_790_000_000_000

    def judged(seed: int) -> Recent:
        recent = Recent("", profile)
        for reading in readings_of(Packet(REMEMBERED_READINGS, 20, start_ms=start_ms, seed=seed), 1):
            judge.judge(reading, recent, profile)
        return recent

    for seed in range(1000):  # what the first ones of all bring along is not theirs
        judged(seed)
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    kept = {seed: judged(seed) for seed in range(devices)}
    gc.collect()
    added = process.memory_info().rss - before
    assert not judge.broken, judge.first_errors
    return {"devices": len(kept), "added_mib": added / stages.MIB, "bytes_each": added / devices}


def sweep(place: Path, devices: int, signals: int) -> dict[str, float]:
    """Signals judged a second in days that were stored without rules, so that every one is new to them."""
    directory = Path(tempfile.mkdtemp(prefix="sk-bench-", dir=place))
    directory.chmod(0o711)
    try:
        return asyncio.run(_sweep(directory / "data", devices, signals))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _sweep(data: Path, devices: int, signals: int) -> dict[str, float]:
    settings = DatabaseSettings.model_validate({})
    async with stages.ingested(data, 10, devices * signals // 10, devices=devices, rules=False) as (postgres, _):
        connection = await connect(postgres.dsn, application="benchmark", settings=settings)
        try:
            book, began_at, used = Rulebook(QualitySettings()), datetime.now(UTC), time.process_time()
            done = await QualitySweep(connection, book, SystemClock(), budget_s=SWEEP_S_MAX, settled_s=0.0).run()
            used, taken = time.process_time() - used, (datetime.now(UTC) - began_at).total_seconds()
        finally:
            await connection.close()
    if done.waiting or done.judged_signals < devices * signals:
        raise SystemExit(f"the sweep judged {done.judged_signals} signals, {done.waiting} days wait")
    return {
        "devices": devices,
        "days": done.days,
        "signals": done.judged_signals,
        "signals_per_s": done.judged_signals / taken,
        "sweep_cpu_us": used / done.judged_signals * 1e6,
        "changed_flags": done.changed_flags,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(remember(int(sys.argv[1]))) + "\n")
