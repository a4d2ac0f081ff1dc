"""Tier G: what a whole core depends on is away for a while, under load; then everything must be there, or named.

    python -m tests.faults.drills [--seconds 60] [--direct | --broker | --only NAME] [--save]
    python -m tests.faults.drills --control        an outage of PostgreSQL for a receiver that is made to lose

Fault model: F3 and F4. PostgreSQL hangs, is read-only, is set back to an older backup; a journal directory is taken
away; the journal's disk is full. With a broker: it is stopped, blocked by an alarm, wiped; a node of a cluster is
killed, or cut off from the others; workers and relays come and go. While PostgreSQL or the broker is away devices must
go on being acknowledged, since the journal takes everything; while the disk is full nobody may be. Afterwards
`tests.faults.checker` and the product's own audit judge. It cannot see clocks that step, nor a disk that lies: the
simulated core has those. Ends with 1 if anything broke; a drill that this machine cannot do is skipped, and said so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Final

from signalkeep.errors import EnvironmentFault
from tests.faults.drill import Impossible, Result
from tests.faults.drills_broker import broker_blocked, broker_stopped, broker_wiped
from tests.faults.drills_database import (
    control_with_postgresql_stopped,
    older_backup_restored,
    postgresql_read_only,
    postgresql_stopped,
)
from tests.faults.drills_disk import disk_full
from tests.faults.drills_journal import journal_removed
from tests.faults.drills_spread import cluster_cut, machines_come_and_go, node_of_a_cluster_killed, worker_frozen
from tests.faults.kills import lines_of
from tests.faults.results import Table, save

DRILLS: Final[dict[str, Callable[[float], Result]]] = {
    "PostgreSQL stopped": postgresql_stopped,
    "PostgreSQL read-only": postgresql_read_only,
    "older backup restored": older_backup_restored,
    "journal directory removed": journal_removed,
    "disk full": disk_full,
}
DRILLS_WITH_BROKER: Final[dict[str, Callable[[float], Result]]] = {
    "RabbitMQ stopped": broker_stopped,
    "RabbitMQ blocked by an alarm": broker_blocked,
    "RabbitMQ wiped": broker_wiped,
    "a node of three killed": node_of_a_cluster_killed,
    "a node of three cut off": cluster_cut,
    "two gateways, three workers, killed and added": machines_come_and_go,
    "one of two workers frozen": worker_frozen,
}
CONTROL: Final[dict[str, Callable[[float], Result]]] = {"control: PostgreSQL stopped": control_with_postgresql_stopped}
COLUMNS: Final = (
    "drill", "told safe", "in the outage", "outage s", "drain s", "missing", "doubled", "spurious", "named",
)  # fmt: skip


def run_drills(drills: Mapping[str, Callable[[float], Result]], seconds: float) -> tuple[dict[str, Result], list[str]]:
    """Each in turn; their results, and what was skipped, with the reason."""
    results: dict[str, Result] = {}
    skipped = []
    for name, drill in drills.items():
        try:
            results[name] = drill(seconds)
        except (Impossible, EnvironmentFault) as reason:
            skipped.append(f"{name}: {reason}")
        except AssertionError as error:
            results[name] = Result(broken=[f"it does not go on: {error}"])
        for what in results[name].broken if name in results else skipped[-1:]:
            sys.stderr.write(f"{name}: {what}\n")
    return results, skipped


def table_of(results: Mapping[str, Result]) -> Table:
    """A row for each drill."""
    return Table(
        COLUMNS,
        [
            (
                *(name, result.told_safe, result.told_safe_in_outage, round(result.outage_s, 1)),
                *(round(result.drain_s, 1), result.missing, result.doubled, result.spurious, result.named),
            )
            for name, result in results.items()
        ],
    )


def show(name: str, command: str, drills: Mapping[str, Callable[[float], Result]], seconds: float, keep: bool) -> int:
    """Run them, print what came of them, and save it for the document if it is to be kept. How much broke."""
    results, skipped = run_drills(drills, seconds)
    table = table_of(results)
    broken = [f"{drill}: {what}" for drill, result in results.items() for what in result.broken]
    print("\n".join(lines_of(table)))
    for text in skipped:
        print(f"SKIPPED {text}")
    print(f"{len(results)} drills, {len(skipped)} skipped; {len(broken)} broken")
    for what in broken:
        print(what)
    if keep:
        counts: dict[str, int | float] = {
            "drills": len(results),
            "skipped": len(skipped),
            "signals told safe": sum(result.told_safe for result in results.values()),
            "told safe in outages": sum(result.told_safe_in_outage for result in results.values()),
            "broken": len(broken),
        }
        save(name, f"python -m tests.faults.drills --seconds {seconds:g} {command}", counts=counts, table=table)
    return len(broken)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3, help="how long each outage lasts, at least")
    every = {**DRILLS, **DRILLS_WITH_BROKER}
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--only", choices=[*every], metavar="NAME", help="; ".join(every))
    chosen.add_argument("--direct", action="store_true", help="only those without a broker")
    chosen.add_argument("--broker", action="store_true", help="only those with RabbitMQ")
    chosen.add_argument("--control", action="store_true", help="a receiver that loses, to see the judge judge")
    parser.add_argument("--save", action="store_true", help="keep the figures for the document, unless one is chosen")
    given = parser.parse_args()
    if given.only:
        return min(1, show("", "", {given.only: every[given.only]}, given.seconds, keep=False))
    if given.control:
        return min(1, show("control_drill", "--control", CONTROL, given.seconds, keep=given.save))
    broken = 0
    if not given.broker:
        broken += show("drills", "--direct", DRILLS, given.seconds, keep=given.save)
    if not given.direct:
        broken += show("drills_broker", "--broker", DRILLS_WITH_BROKER, given.seconds, keep=given.save)
    return min(1, broken)


if __name__ == "__main__":
    raise SystemExit(main())
