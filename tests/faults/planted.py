"""Plants known bugs, one at a time, in a copy of the source, and looks whether the harness notices: `make planted`.

    python -m tests.faults.planted [--only WORDS] [--save]

A bug that nobody notices is a hole in the harness, and ends this with 1; so is a bug that can no longer be planted,
because the source has changed: write it anew. The checkout is never touched.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.faults.planted_broker import BROKER_BUGS
from tests.faults.planted_core import CORE_BUGS, Bug
from tests.faults.planted_histories import HISTORY_BUGS
from tests.faults.planted_journal import JOURNAL_BUGS
from tests.faults.planted_quality import QUALITY_BUGS
from tests.faults.results import Table, save
from tests.servers import READY_MADE, PostgresServer, run_sync

ROOT: Final = Path(__file__).parents[2]
BUGS: Final = JOURNAL_BUGS + CORE_BUGS + BROKER_BUGS + HISTORY_BUGS + QUALITY_BUGS
PATIENCE_S: Final = 420.0
NOTICED: Final = re.compile(r"^(seed|state|call|try) (\d+): (I\d+)", re.MULTILINE)
TIERS: Final = {
    "A": ("tests.faults.crash_states", "--states", "100000"),
    "B": ("tests.faults.seeds", "--count", "100"),
    "C": ("tests.faults.nth_call",),
    "H": ("tests.faults.bit_rot", "--tries", "10000"),
}
ENDLESS: Final = "does not end"
TEST_S_MAX: Final = 60


class Result(NamedTuple):
    """`after`: how many seeds, states or tries it took, 0 if none noticed. `invariant`: what was found broken."""

    after: int
    unit: str
    invariant: str
    said: str


@contextmanager
def ready_made_server() -> Iterator[None]:
    """While it lasts, each server of a run is a copy of one that has the schema: bugs are planted in code alone."""
    server = PostgresServer()
    try:
        run_sync(server.start())
        run_sync(server.drop_database(run_sync(server.create_database())))
        run_sync(server.stop())
        os.environ[READY_MADE] = str(server.directory)
        yield
    finally:
        os.environ.pop(READY_MADE, None)
        server.close()


def look_for(bug: Bug, first: int = 1) -> Result:
    """Plant it and run its tier until that notices. Raises ValueError if it cannot be planted."""
    assert not any("migrations" in name for name, _, _ in bug.changes), "the schema of a run may be ready made"
    place = Path(tempfile.mkdtemp(prefix="sk-planted-"))
    place.chmod(0o711)  # the server's account passes through
    try:
        for part in ("src", "tests"):  # with what is compiled already, but for files that somebody is writing
            shutil.copytree(ROOT / part, place / part, ignore=shutil.ignore_patterns("*.pyc.*"))
        shutil.copy(ROOT / "pyproject.toml", place)
        for name, old, new in bug.changes:
            file = place / "src" / "signalkeep" / name
            text = file.read_text(encoding="utf-8")
            if text.count(old) != 1:
                raise ValueError(f"{bug.name}: {name} has its text {text.count(old)} times; write the bug anew")
            file.write_text(text.replace(old, new), encoding="utf-8")
        return _run(place, bug, first)
    finally:
        shutil.rmtree(place)


def _run(place: Path, bug: Bug, first: int) -> Result:
    environment = {**os.environ, "PYTHONPATH": f"{place / 'src'}{os.pathsep}{place}"}
    where = subprocess.run(
        [sys.executable, "-c", "import signalkeep; print(signalkeep.__file__)"],
        cwd=place, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(place), "the copy is what runs"
    if bug.by:
        command = [sys.executable, "-m", "pytest", "-x", "--timeout", str(TEST_S_MAX), bug.by]
    else:
        command = [sys.executable, "-m", *TIERS[bug.tier], "--stop-at-first"]
        command += ["--first", str(first)] if first > 1 else []
    try:
        done = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Result(0, "", "", f"{ENDLESS} within {PATIENCE_S:.0f} s")
    return _tested(done, bug) if bug.by else _tried(done)


def _tested(done: subprocess.CompletedProcess[str], bug: Bug) -> Result:
    """A test that fails has noticed; one that could not be run, or passed, has not."""
    noticed = re.search(r"^(\d+ failed.*|FAILED .*)$", done.stdout, re.MULTILINE)
    if done.returncode != 1 or noticed is None:
        return Result(0, "", "", (done.stdout + done.stderr)[-500:])
    return Result(1, "test", bug.breaks, noticed[0])


def _tried(done: subprocess.CompletedProcess[str]) -> Result:
    found = NOTICED.search(done.stderr)
    if found is None:
        return Result(0, "", "", done.stderr[-500:] or "everything went well")
    return Result(int(found[2]), found[1], found[3], done.stderr.partition("\n")[0])


def named_of(bug: Bug, result: Result) -> str:
    """Who noticed, for people."""
    if bug.by:
        return f"`{bug.by.partition('::')[2]}`"
    return f"{result.unit} {result.after:,}"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="bugs whose name has these words in it")
    parser.add_argument("--save", action="store_true", help="keep the result for docs/reliability.md")
    given = parser.parse_args()
    with ready_made_server():
        return _look_for_all(given.only, keep=given.save)


def _look_for_all(only: str, *, keep: bool) -> int:
    rows, unnoticed = [], 0
    for bug in BUGS:
        if only not in bug.name:
            continue
        result = look_for(bug)
        unnoticed += not result.after
        tier = "-" if bug.by else bug.tier
        noticed = named_of(bug, result) if result.after else "NOT NOTICED"
        rows.append((bug.name, bug.breaks, tier, result.invariant, noticed))
        print(f"{tier}  {noticed:12}  {result.invariant:4}  {bug.breaks:3}  {bug.name}", flush=True)
        if not result.after:
            print(f"       {result.said}")
    if keep:
        table = Table(("planted", "breaks", "tier", "found broken", "by"), rows)
        save("planted", "make planted", counts={"planted": len(rows), "not noticed": unnoticed}, table=table)
    return 1 if unnoticed else 0


if __name__ == "__main__":
    raise SystemExit(main())
