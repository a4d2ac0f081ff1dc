"""Runs seeds of the simulated core: `make seeds COUNT=1000`, or one of them again.

    python -m tests.faults.seeds --count 200 [--first 1] [--only broker] [--stop-at-first]
    python -m tests.faults.seeds --first 4711 --count 1        that seed again, the very same history

Starts a PostgreSQL of its own. Ends with 1 if an invariant does not hold; each failing seed prints the command that
runs it again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from tests.faults.results import quiet, save
from tests.faults.simulation.database import UNSAFE, Server
from tests.faults.simulation.scenario import Broken, Outcome, Scenario
from tests.faults.simulation.world import run
from tests.servers import PostgresServer, run_sync

HASH_SEED = "0"  # order within sets of text is a part of a history


TABLES = """
SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
"""
PARTITIONS: Final = "SELECT oid::regclass::text AS name FROM pg_class WHERE relkind = 'r' AND relispartition ORDER BY 1"

SEQUENCES_IN_USE: Final = "SELECT sequencename AS name FROM pg_sequences WHERE last_value IS NOT NULL ORDER BY 1"
DELETIONS_MAX: Final = 25  # in a row: what is deleted stays in the files


class Place:
    """Where simulated cores keep their rows, one after the other: a database that is emptied before each."""

    def __init__(self, postgres: PostgresServer) -> None:
        self._server = Server(postgres.dsn)
        self._dsn = self._server.do(postgres.create_database())
        tables = self._names(TABLES)
        self._partitions = self._names(PARTITIONS)
        self._to_empty = [name for name in tables if not self._server.ask(self._dsn, f"SELECT FROM {name} LIMIT 1")]
        self._in_use = self._names(SEQUENCES_IN_USE)
        self._runs = 0

    def run(self, scenario: Scenario, *, few_rows: bool = False) -> Outcome:
        """`few_rows`: the one before left little, too, which is deleted much sooner than tables are made anew.

        Raises Broken.
        """
        made = set(self._names(PARTITIONS)).difference(self._partitions)
        if made:
            self._server.ask(self._dsn, f"DROP TABLE {', '.join(sorted(made))}")
        if few_rows and self._runs % DELETIONS_MAX:
            self._delete()
        else:
            self._server.ask(self._dsn, f"TRUNCATE {', '.join(self._to_empty)} RESTART IDENTITY CASCADE")
        self._runs += 1
        return run(scenario, self._server, self._dsn)

    def _delete(self) -> None:
        """The same as TRUNCATE in effect."""
        deleted = " ".join(
            f"IF EXISTS (SELECT FROM {name}) THEN DELETE FROM {name}; END IF;" for name in self._to_empty
        )
        used = [name for name in self._names(SEQUENCES_IN_USE) if name not in self._in_use]
        begun_anew = " ".join(f"ALTER SEQUENCE {name} RESTART;" for name in used)
        # Rows that others refer to may go first: all go.
        self._server.ask(
            self._dsn,
            "DO $$ BEGIN PERFORM set_config('session_replication_role', 'replica', true);"
            f" {deleted} {begun_anew} END $$",
        )

    def _names(self, query: str) -> list[str]:
        return [row["name"] for row in self._server.ask(self._dsn, query)]

    def close(self) -> None:
        self._server.close()


@contextmanager
def place() -> Iterator[Place]:
    """With a server of its own, tuned for many small databases; nothing in it outlives us."""
    postgres = PostgresServer(UNSAFE)
    run_sync(postgres.start())
    try:
        run_sync(postgres.execute("ALTER SYSTEM SET fsync = off"))
        run_sync(postgres.execute("SELECT pg_reload_conf()"))
        made = Place(postgres)
        yield made
        made.close()
    finally:
        postgres.close()


def through_broker(seed: int) -> bool:
    """Whether a broker stands between gateway and database: with two seeds of five."""
    return seed % 5 in (2, 4)


def replay_command(seed: int) -> str:
    """What runs this seed again."""
    return f"python -m tests.faults.seeds --first {seed} --count 1"


def run_seeds(where: Place, seeds: Iterable[int], *, stop_at_first: bool = False) -> tuple[Counter[str], list[Broken]]:
    """What happened how often, and what broke."""
    sometimes: Counter[str] = Counter()
    broken = []
    for seed in seeds:
        try:
            outcome = where.run(Scenario(seed, broker=through_broker(seed)))
        except Broken as error:
            sys.stderr.write(f"seed {seed}: {error}\n    {replay_command(seed)}\n")
            broken.append(error)
            if stop_at_first:
                break
        else:
            sometimes.update(outcome.sometimes)
            sometimes["records told safe"] += outcome.told_safe
            sometimes["disk operations"] += outcome.disk_operations
            sometimes["database calls"] += outcome.database_calls
            sometimes["seconds of virtual time"] += round(outcome.virtual_s)
        sometimes["seeds"] += 1
        sometimes["seeds with a broker"] += through_broker(seed)
    return sometimes, broken


def main() -> int:
    """The command line."""
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        os.execv(sys.executable, [sys.executable, "-m", "tests.faults.seeds", *sys.argv[1:]])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--only", choices=("direct", "broker"), help="of these seeds, those without or with a broker")
    parser.add_argument("--stop-at-first", action="store_true")
    parser.add_argument("--save", action="store_true", help="keep the result for docs/reliability.md")
    given = parser.parse_args()
    quiet()
    began = time.monotonic()
    with place() as where:
        seeds = [
            seed
            for seed in range(given.first, given.first + given.count)
            if given.only is None or through_broker(seed) == (given.only == "broker")
        ]
        sometimes, broken = run_seeds(where, seeds, stop_at_first=given.stop_at_first)
    seconds = time.monotonic() - began
    for what, number in sorted(sometimes.items()):
        print(f"{number:>12,}  {what}")
    print(
        f"{sometimes['seeds']} seeds in {seconds:.0f} s, {sometimes['seeds'] / seconds * 60:.0f} a minute; "
        f"{len(broken)} broken"
    )
    if given.save:
        save(
            "seeds",
            f"make seeds COUNT={given.count}",
            counts={"broken": len(broken), **dict(sorted(sometimes.items()))},
        )
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
