"""Erasing under load with real processes, then everything is replayed and the processes are killed: it stays away."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.core import Core
from tests.faults.checker import check
from tests.servers import run_sync, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

DEVICES = 3


@pytest.fixture
def core() -> Iterator[Core]:
    with Core(unknown_devices="register") as running:
        yield running


def dsn_of(core: Core) -> str:
    return f"postgresql://signalkeep@/signalkeep?host={core.data}/postgres/socket&port=5432"


def test_what_was_erased_under_load_stays_away_through_replays_and_kills(core: Core) -> None:
    oracle = core.directory / "fleet.jsonl"
    fleet = subprocess.Popen(
        [
            *(sys.executable, "-m", "signalkeep", "simulate", "--port", str(core.ports["teltonika"]), "--json"),
            *("--devices", str(DEVICES), "--rate", "60", "--duration", "12", "--oracle", str(oracle)),
        ],
        stdout=subprocess.PIPE,
        env=core.environment,
    )
    try:
        core.wait_for_rows("SELECT count(*) FROM signal", 60)
        number = core.sql("SELECT device_number FROM device ORDER BY id LIMIT 1")[0][0]
        erased = core.json("devices", "erase", number, "--yes")
        assert erased["signals"] > 0
        fleet.communicate(timeout=90)
    finally:
        fleet.kill()
        fleet.wait()
    assert fleet.returncode == 0

    def judged(what: str) -> None:
        report = core.json("audit", "--oracle", str(oracle), expect=None)
        assert report["ok"], f"{what}: {report}"
        assert report["oracle"]["erased"] > 0
        verdict = run_sync(check(dsn_of(core), oracle))
        assert verdict.clean, f"{what}: {verdict}"
        assert verdict.erased == report["oracle"]["erased"]
        assert verdict.stored + verdict.erased >= verdict.safe

    judged("after the erasure")
    core.sql("UPDATE cursor SET seq = 0, frames = 0, other_entries = 0, lost = 0")
    pid = core.kill_role("ingest")
    core.wait_for_role("ingest", not_pid=pid)
    wait_until(
        lambda: (
            core.sql("SELECT min(c.seq) >= max(j.durable_seq) FROM cursor c JOIN journal j ON j.id = journal_id")
            == [["t"]]
        ),
        60,
        what="the journal is in again",
    )
    assert int(core.sql("SELECT sum(suppressed) FROM ledger")[0][0]) >= erased["signals"]
    judged("after a replay")

    core.sql(f"UPDATE device SET erased_to = NULL, erased_at = NULL WHERE device_number = '{number}'")
    pid = core.kill_role("ingest")
    core.wait_for_role("ingest", not_pid=pid)
    core.wait_for_rows("SELECT count(*) FROM device WHERE erased_at IS NOT NULL", 1)
    core.wait_for_rows("SELECT count(*) FROM finding WHERE kind = 'erasure_repeated'", 1)
    judged("after a database that had forgotten it")
