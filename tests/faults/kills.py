"""Tier E: a whole core as real processes under load, killed with SIGKILL at random; then everything must be there.

    python -m tests.faults.kills --rounds 10 [--seed 1] [--direct | --broker] [--stop-at-first] [--save]
    python -m tests.faults.kills --control [--save]     the same load against a receiver that is made to lose

Fault model: F1, kill -9 of any process at any instant: gateway, ingest, organizer, supervisor, PostgreSQL's postmaster,
one of its backends; with a broker also the relay, one of two workers, RabbitMQ itself; singly, two at the same moment,
or again while the first recovers. So many rounds of each kind of core, unless one is chosen. Each round has fleets of
its own; a fresh event must be acknowledged and readable soon after, and nothing may be missing, spurious, corrupted,
doubled or out of order (`tests.faults.checker`), nor left in a queue; the product's own audit must agree, and the
organizer must have done nothing twice or by halves (`tests.faults.organizer`). A seed gives the same plans and pauses
again, not the same instants: processes are real. kill -9 does not test fsync, since the page cache survives it: that is
what the crash states of the journal are for. Ends with 1 if anything broke.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from signalkeep.errors import EnvironmentFault
from tests.core import Core
from tests.erlang import find_rabbitmq
from tests.faults.broker_core import BrokerCore, leftovers
from tests.faults.checker import check
from tests.faults.control_load import CONTROL_PLANS, MUST_SHOW, Control
from tests.faults.fleet import load
from tests.faults.judgement import FAULTS, dsn_of, judge, recovery_s
from tests.faults.organizer import broken as organizer_broken
from tests.faults.results import Table, save
from tests.faults.victims import FIRST_WITH_BROKER, VICTIMS, VICTIMS_WITH_BROKER, Plan, carry_out, decks
from tests.servers import run_sync

DEVICES, RATE_PER_S = 150, 400  # of each fleet; with less, a gateway that answers too early is hardly ever seen
PAUSE_S_MAX: Final = 1.0  # before a kill, beyond the progress that is waited for
ROUNDS_PER_CORE: Final = 40  # then a fresh one: the audit reads all journals in every round
LOG_SHOWN_BYTES: Final = 4000
COLUMNS: Final = (
    "killed", "rounds", "kills", "told safe", *(fault.replace("_", " ") for fault in FAULTS),
    "recovery median s", "recovery max s",
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """Of core, and what is killed of it. `name`: of the saved result."""

    name: str
    core: type[Core]
    victims: Sequence[str]
    first: Sequence[Plan] = ()
    option: str = ""

    def plans(self, seed: int) -> Iterator[Plan]:
        return decks(random.Random(seed), self.victims, self.first)


DIRECT: Final = Kind("kills", Core, VICTIMS, option="--direct")
BROKER: Final = Kind("kills_broker", BrokerCore, VICTIMS_WITH_BROKER, FIRST_WITH_BROKER, option="--broker")


@dataclass
class Sums:
    """Of the rounds of one kind of plan, or of all."""

    rounds: int = 0
    kills: int = 0
    safe: int = 0
    faults: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))
    recoveries_s: list[float] = field(default_factory=list)

    def add(self, other: Sums) -> None:
        self.rounds += other.rounds
        self.kills += other.kills
        self.safe += other.safe
        for fault, count in other.faults.items():
            self.faults[fault] += count
        self.recoveries_s += other.recoveries_s

    def row(self, name: str) -> tuple[str | int | float, ...]:
        median_s = statistics.median(self.recoveries_s) if self.recoveries_s else 0.0
        longest_s = max(self.recoveries_s, default=0.0)
        counts = (self.rounds, self.kills, self.safe, *self.faults.values())
        return (name, *counts, round(median_s, 1), round(longest_s, 1))


@dataclass
class Outcome:
    """Of a run. `kinds`: by what was killed. `broken`: what broke, in words, with the round."""

    kinds: dict[str, Sums] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    duplicates: int = 0  # re-sends that were suppressed
    journals: int = 0  # each start of a gateway opens one

    @property
    def total(self) -> Sums:
        total = Sums()
        for sums in self.kinds.values():
            total.add(sums)
        return total

    @property
    def table(self) -> Table:
        rows = [sums.row(kind) for kind, sums in self.kinds.items()]
        return Table(COLUMNS, [*rows, self.total.row("all")] if len(rows) > 1 else rows)

    @property
    def counts(self) -> dict[str, int | float]:
        total = self.total
        counts: dict[str, int | float] = {"rounds": total.rounds, "kills": total.kills, "signals told safe": total.safe}
        counts |= {fault.replace("_", " "): count for fault, count in total.faults.items()}
        return counts | {
            "re-sends suppressed": self.duplicates,
            "journals": self.journals,
            "recovery median s": round(statistics.median(total.recoveries_s), 1) if total.recoveries_s else 0,
            "recovery max s": round(max(total.recoveries_s, default=0), 1),
        }


def run_round(core: Core, dsn: str, number: int, plan: Plan, source: random.Random, outcome: Outcome) -> list[str]:
    """Load, kills, recovery, judgement; what broke. AssertionError if it does not work again in time."""
    sums = Sums(rounds=1, kills=plan.kills)
    try:
        with load(core, number, devices=DEVICES, rate_per_s=RATE_PER_S) as driving:
            driving.wait_for_progress()
            time.sleep(source.uniform(0, PAUSE_S_MAX))  # a part of the plan, not a wait for anything
            killed_s = carry_out(core, plan, source)
            sums.recoveries_s.append(recovery_s(core.ports["json"], dsn, killed_s))
            driving.wait_for_progress(20)
            unconfirmed = driving.end()
        found = judge(core, dsn, driving.oracle, unconfirmed=unconfirmed)
        sums.safe = found.verdict.safe
        sums.faults = {fault: getattr(found.verdict, fault) for fault in FAULTS}
    finally:
        outcome.kinds.setdefault(plan.kind, Sums()).add(sums)
    return found.broken + (leftovers(core.node, dsn) if isinstance(core, BrokerCore) else [])


def run_rounds(rounds: int, seed: int, kind: Kind = DIRECT, *, stop_at_first: bool = False) -> Outcome:
    """So many rounds on as few cores as is sensible. A core that does not recover is replaced."""
    outcome = Outcome()
    plans = enumerate(islice(kind.plans(seed), rounds), 1)
    left = rounds
    while left and not (outcome.broken and stop_at_first):
        with kind.core(unknown_devices="register") as core:
            dsn = dsn_of(core)
            for number, plan in islice(plans, ROUNDS_PER_CORE):
                left -= 1
                broken = _said(core, seed, number, plan, _tried(core, dsn, seed, number, plan, outcome), kind)
                outcome.broken += broken
                if broken:
                    break
            outcome.broken += [f"seed {seed}: {what}" for what in organizer_broken(dsn)]
            report = core.json("audit", expect=None)
            outcome.duplicates += report["totals"]["duplicate"]
            outcome.journals += len(report["journals"])
    return outcome


def _tried(core: Core, dsn: str, seed: int, number: int, plan: Plan, outcome: Outcome) -> list[str]:
    try:
        return run_round(core, dsn, number, plan, random.Random(f"{seed} {number}"), outcome)
    except AssertionError as error:
        return [f"it does not go on: {error}"]


def run_control(seed: int) -> Outcome:
    """The same kind of load and of kills against the control. `broken`: what it should have broken, and did not."""
    outcome = Outcome()
    source = random.Random(f"{seed} control")
    with Control() as control:
        for number, (kind, strike) in enumerate(CONTROL_PLANS.items()):
            sums = Sums(rounds=1, kills=kind.count(",") + kind.count("+") + 1)
            with control.load(number) as driving:
                driving.wait_for_progress()
                time.sleep(source.uniform(0, PAUSE_S_MAX))
                strike(control)
                sums.recoveries_s.append(recovery_s(control.port, control.dsn, time.monotonic()))
                driving.wait_for_progress(20)
                driving.end()
            recovery_s(control.port, control.dsn, 0)  # what was before this event in its memory is stored
            verdict = run_sync(check(control.dsn, driving.oracle))
            sums.safe = verdict.safe
            sums.faults = {fault: getattr(verdict, fault) for fault in FAULTS}
            outcome.kinds[kind] = sums
    outcome.broken += [f"the judge saw nothing {fault}" for fault in MUST_SHOW if not outcome.total.faults[fault]]
    return outcome


def _said(core: Core, seed: int, number: int, plan: Plan, broken: list[str], kind: Kind) -> list[str]:
    """What broke, printed with how to see it again."""
    if not broken:
        sys.stderr.write(f"round {number}: {plan.kind}: nothing broke\n")
        return []
    named = [f"seed {seed}, round {number}, {plan.kind}: {what}" for what in broken]
    again = f"python -m tests.faults.kills {kind.option} --seed {seed} --rounds {number} --stop-at-first"
    sys.stderr.write("\n".join([*named, f"    {again}", core.log_text()[-LOG_SHOWN_BYTES:], ""]))
    return named


def lines_of(table: Table) -> Iterator[str]:
    """The table as text, numbers to the right."""
    rows = [tuple(f"{value:,}" if isinstance(value, int) else str(value) for value in row) for row in table.rows]
    texts = [table.columns, *rows]
    first, *others = [max(len(row[place]) for row in texts) for place in range(len(table.columns))]
    for name, *values in texts:
        yield "  ".join([name.ljust(first), *map(str.rjust, values, others)])


def show(name: str, command: str, outcome: Outcome, *, keep: bool) -> None:
    """Print it, and save it for the document if it is to be kept."""
    print("\n".join(lines_of(outcome.table)))
    for what, count in outcome.counts.items():
        print(f"{count:>12,}  {what}")
    for what in outcome.broken:
        print(what)
    if keep:
        save(name, command, counts=outcome.counts, table=outcome.table)


def has_rabbitmq() -> bool:
    """Whether it is installed; what is skipped without it is said."""
    try:
        find_rabbitmq()
    except EnvironmentFault as fault:
        print(f"SKIPPED with a broker: {fault.message}")
        return False
    return True


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stop-at-first", action="store_true")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--direct", action="store_true", help="only a core whose ingest reads the journals itself")
    chosen.add_argument("--broker", action="store_true", help="only a core with RabbitMQ in between")
    chosen.add_argument("--control", action="store_true", help="a receiver that loses, to see the judge judge")
    parser.add_argument("--save", action="store_true", help="keep the figures for the document")
    given = parser.parse_args()
    began_s, total, broken = time.monotonic(), 0, 0
    if given.control:
        outcome = run_control(given.seed)
        show("control", f"python -m tests.faults.kills --control --seed {given.seed}", outcome, keep=given.save)
        return 1 if outcome.broken else 0
    kinds = [kind for kind, other in ((DIRECT, given.broker), (BROKER, given.direct)) if not other]
    for kind in kinds:
        if kind is BROKER and not given.broker and not has_rabbitmq():
            continue
        outcome = run_rounds(given.rounds, given.seed, kind, stop_at_first=given.stop_at_first)
        command = f"python -m tests.faults.kills {kind.option} --rounds {given.rounds} --seed {given.seed}"
        show(kind.name, command, outcome, keep=given.save)
        total, broken = total + outcome.total.rounds, broken + len(outcome.broken)
    print(f"{total} rounds in {time.monotonic() - began_s:.0f} s; {broken} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
