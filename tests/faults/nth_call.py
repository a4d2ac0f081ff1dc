"""Fails one call, the first, the second, the third ... of twenty small histories, until there is none left to fail.

    python -m tests.faults.nth_call [--only WORDS] [--stop-at-first] [--save]

Each call of the disk by gateway and ingest fails (with an error, for want of room, as the power fails in one of the
ways of `Crash`, as its process is killed), and each call of the database (it never arrives, its answer is lost, it is
called a deadlock, nothing ever answers, its process is killed). Then everything that was promised is looked at, as
after any simulated history. A failure prints the command that makes it again.

What it cannot see: two faults at once, which is what seeds are for, and a disk that hangs.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, NamedTuple

from tests.faults.results import Table, quiet, save
from tests.faults.seeds import HASH_SEED, Place, place
from tests.faults.simulation.database import DEADLOCK, HANGS, LOST_AFTER, LOST_BEFORE
from tests.faults.simulation.scenario import Broken, Scenario
from tests.faults.simulation.trouble import KILLED, POWER

CALLS_MAX: Final = 2_000
PLAIN: Final = Scenario(1, units=2, records=2, faults=False, seconds=0.6)
PECULIAR: Final = Scenario(2, units=1, records=2, faults=False, seconds=0.8, peculiar=True, restarts=True)


class Series(NamedTuple):
    """One history, and how one call of it fails."""

    name: str
    disk: bool
    how: str
    scenario: Scenario


def _series() -> list[Series]:
    found = []
    for disk, hows in (
        (True, ("EIO", "ENOSPC", POWER, KILLED)),
        (False, (LOST_BEFORE, LOST_AFTER, DEADLOCK, HANGS, KILLED)),
    ):
        for how in hows:
            for name, scenario in (("plain", PLAIN), ("records that cannot be rows, and restarts", PECULIAR)):
                found.append(Series(f"{'disk' if disk else 'database'}: {how}; {name}", disk, how, scenario))
    more = replace(PLAIN, seed=3), replace(PECULIAR, seed=4)  # what a power loss leaves is drawn anew
    found += [Series(f"disk: {POWER}, other remains; {one.seed}", True, POWER, one) for one in more]
    return found


SERIES: Final = _series()


def run_series(
    where: Place, series: Series, numbers: Iterable[int], *, stop_at_first: bool = False
) -> tuple[int, list[tuple[int, Broken]]]:
    """Fail these calls, until one is not there any more: how many were failed, and what broke."""
    failed, broken = 0, []
    for number in numbers:
        fault = (number, series.how)
        one = series.scenario
        scenario = replace(one, disk_fault=fault) if series.disk else replace(one, database_fault=fault)
        try:
            outcome = where.run(scenario, few_rows=True)
        except Broken as error:
            broken.append((number, error))
            if stop_at_first:
                break
        else:
            if not outcome.sometimes["the one fault"]:
                break
        failed += 1
    return failed, broken


def main() -> int:
    """The command line."""
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        os.execv(sys.executable, [sys.executable, "-m", "tests.faults.nth_call", *sys.argv[1:]])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="series whose name has these words in it")
    parser.add_argument("--share", default="0/1", help="which part of the series: 0/2, 1/2")
    parser.add_argument("--every", type=int, default=1, help="fail only each second call, or third, ...")
    parser.add_argument("--number", type=int, default=0, help="fail only this call")
    parser.add_argument("--stop-at-first", action="store_true")
    parser.add_argument("--save", action="store_true", help="keep the result for docs/reliability.md")
    given = parser.parse_args()
    quiet()
    share, shares = map(int, given.share.split("/"))
    began, counts, rows = time.monotonic(), Counter[str](), []
    with place() as where:
        for series in [one for one in SERIES if given.only in one.name][share::shares]:
            first = 1 + SERIES.index(series) // 2 % given.every  # not the same ones in all series
            numbers = [given.number] if given.number else range(first, CALLS_MAX, given.every)
            failed, broken = run_series(where, series, numbers, stop_at_first=given.stop_at_first)
            print(f"{failed:>6} calls failed, {len(broken)} broken  {series.name}", flush=True)
            for number, error in broken:
                replay = f"python -m tests.faults.nth_call --only '{series.name}' --number {number}"
                sys.stderr.write(f"call {number}: {error}\n    {replay}\n")
            rows.append((series.name, failed, len(broken)))
            counts.update({"series": 1, "calls failed": failed, "broken": len(broken)})
            if broken and given.stop_at_first:
                break
    print(f"{counts['series']} series, {counts['calls failed']} calls failed in {time.monotonic() - began:.0f} s")
    if given.save:
        table = Table(("what fails", "calls", "broken"), rows)
        save("nth_call", "make nth", counts=dict(counts), table=table)
    return 1 if counts["broken"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
