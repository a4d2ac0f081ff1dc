"""Calls of disk and database fail, one at a time, in twenty small histories, and nothing is lost or left behind.

Here it is each second call; `make nth` fails them all.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.nth_call import SERIES

SHARES = 2  # so that processors share them
PATIENCE_S = 900
ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.servers, pytest.mark.timeout(PATIENCE_S)]


@pytest.mark.parametrize("share", range(SHARES))
def test_a_call_fails_and_every_promise_holds(share: int) -> None:
    command = [sys.executable, "-m", "tests.faults.nth_call", "--every", "2", "--share", f"{share}/{SHARES}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    failed = [int(number) for number in re.findall(r"^ *(\d+) calls failed, 0 broken", done.stdout, re.MULTILINE)]
    assert len(failed) == len(SERIES) // SHARES
    assert min(failed) >= 15 // 2, "each series found calls to fail"


def test_there_are_twenty_series() -> None:
    assert len(SERIES) == 20
    assert len({series.name for series in SERIES}) == 20
