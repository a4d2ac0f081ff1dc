"""The whole pipeline under simulated faults: every promise holds in every history, and all that can go wrong did.

`make seeds COUNT=...` runs any number of others.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

SEEDS: Final = 160
SHARES: Final = 2  # so that processors share them, and each is large enough for all that is rare
ROOT: Final = Path(__file__).parents[2]
PATIENCE_S: Final = 900
SOMETIMES: Final = (
    "answer lost",
    "broker away",
    "broker blocked",
    "broker wiped",
    "call never arrives",
    "clock stepped",
    "commit of unknown outcome",
    "confirm late",
    "confirm lost",
    "database away",
    "deadlock",
    "delivered twice",
    "disk error",
    "disk full",
    "double cut",
    "double dropped",
    "duplicates suppressed",
    "gateway killed",
    "gateway killed at a disk operation",
    "hole reported",
    "ingest killed",
    "ingest killed at a disk operation",
    "message refused",
    "message set aside",
    "network cut",
    "old message again",
    "one message lost",
    "power failed: ALL",
    "power failed: NONE",
    "power failed: PREFIX",
    "power failed: SECTORS",
    "publish not confirmed",
    "queue deleted",
    "queue handed over",
    "record rejected by the database",
    "refusals counted",
    "relay killed",
    "segments deleted",
    "sockets not read: disk",
    "stream went back: hole",
    "stream went back: stalled",
    "stream went back: vanished",
    "two ingest processes for the same journals",
    "worker killed",
    "worker killed with unacknowledged messages",
)

pytestmark = [pytest.mark.servers, pytest.mark.timeout(PATIENCE_S)]


def seeds(first: int, count: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.faults.seeds", "--first", str(first), "--count", str(count)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def counts(text: str) -> dict[str, int]:
    return {
        what: int(number.replace(",", "")) for number, what in re.findall(r"^ *([\d,]+)  (.+)$", text, re.MULTILINE)
    }


@pytest.mark.parametrize("share", range(SHARES))
def test_every_promise_holds_in_every_history(share: int, capsys: pytest.CaptureFixture[str]) -> None:
    number = SEEDS // SHARES
    done = seeds(share * number + 1, number)
    assert done.returncode == 0, done.stderr[-3000:]
    found = counts(done.stdout)
    assert found["seeds"] == number
    assert found["records told safe"] == number * 1_000
    assert [what for what in SOMETIMES if not found.get(what)] == [], "these never happened"
    with capsys.disabled():
        print("\n" + done.stdout.splitlines()[-1])


@pytest.mark.parametrize("seed", [4, 5])
def test_a_seed_is_the_same_history_every_time(seed: int) -> None:
    first, again = (seeds(seed, 1).stdout for _ in range(2))
    assert counts(first) == counts(again)
    assert counts(first)["seeds with a broker"] == (seed == 4)
    assert counts(first)["disk operations"] > 1_000
