"""Real processes under load, killed with SIGKILL; then nothing may be missing, spurious or doubled.

Fault model: F1, kill -9 of any process at any instant: gateway, ingest, the PostgreSQL postmaster, one of its
backends, the supervisor. kill -9 does not test fsync, since the page cache survives it: that is what the crash states
of the journal are for. The judge is `tests.faults.checker`, which shares no code with the product; the product's own
audit must agree.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.core import Core
from tests.faults.checker import check
from tests.servers import run_sync, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

DEVICES, RATE = 25, 150


class FleetProcess:
    """`signalkeep simulate` in a process of its own; it drives until it is asked for its result."""

    def __init__(self, core: Core, protocol: str, first_number: int) -> None:
        self.oracle = core.directory / f"{protocol}.jsonl"
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "signalkeep", "simulate", "--protocol", protocol),
                *("--port", str(core.ports[protocol]), "--devices", str(DEVICES), "--rate", str(RATE)),
                *("--duration", "0", "--grace", "90", "--oracle", str(self.oracle)),
                *("--first-number", str(first_number), "--cut-rate", "0.05", "--json"),
            ],
            stdout=subprocess.PIPE,
            env=core.environment,
        )

    @property
    def told_safe(self) -> int:
        """Records acknowledged so far."""
        return self.oracle.read_bytes().count(b"\n") if self.oracle.exists() else 0

    def result(self) -> dict[str, int]:
        self._process.terminate()
        text, _ = self._process.communicate(timeout=150)
        counts: dict[str, int] = json.loads(text)
        return counts

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


@pytest.fixture
def core() -> Iterator[Core]:
    with Core(unknown_devices="register") as running:
        yield running


def kill_postmaster(core: Core) -> None:
    pid = core.kill_role("postgres")
    core.wait_for_role("postgres", not_pid=pid)


def kill_backend(core: Core) -> None:
    """One of PostgreSQL's own processes: it restarts them all and recovers."""
    backends = psutil.Process(core.role("postgres")).children()
    ingest = [child for child in backends if "signalkeep signalkeep" in " ".join(child.cmdline())]
    os.kill((ingest or backends)[0].pid, signal.SIGKILL)


def kill_gateway(core: Core) -> None:
    core.wait_for_role("gateway", not_pid=core.kill_role("gateway"))


def kill_ingest(core: Core) -> None:
    core.wait_for_role("ingest", not_pid=core.kill_role("ingest"))


def kill_both(core: Core) -> None:
    pids = core.kill_role("gateway"), core.kill_role("ingest")
    core.wait_for_role("gateway", not_pid=pids[0])
    core.wait_for_role("ingest", not_pid=pids[1])


def kill_supervisor(core: Core) -> None:
    """Its roles end by themselves, PostgreSQL is found and taken over: no file is deleted by hand."""
    core.kill()
    core.start()


KILLS: list[Callable[[Core], None]] = [
    kill_gateway,
    kill_ingest,
    kill_postmaster,
    kill_both,
    kill_backend,
    kill_supervisor,
    kill_gateway,
    kill_ingest,
]


def wait_for_progress(fleets: list[FleetProcess]) -> None:
    """Until every fleet has been told of 50 more safe records."""
    wanted = [fleet.told_safe + 50 for fleet in fleets]
    wait_until(lambda: all(fleet.told_safe > number for fleet, number in zip(fleets, wanted, strict=True)), 60)


def test_nothing_is_missing_spurious_or_doubled(core: Core) -> None:
    fleets = [FleetProcess(core, "teltonika", 356307040000000), FleetProcess(core, "json", 866307040000000)]
    try:
        for kill in KILLS:
            wait_for_progress(fleets)
            kill(core)
        counts = [fleet.result() for fleet in fleets]
    finally:
        for fleet in fleets:
            fleet.end()
    for fleet, count in zip(fleets, counts, strict=True):
        assert count["unconfirmed"] == 0, "every record was acknowledged in the end"
        assert count["told_safe"] == count["generated"] == fleet.told_safe
        report = core.json("audit", "--oracle", str(fleet.oracle))
        assert report["ok"], report
        verdict = run_sync(check(core.json("status")["database"]["dsn"], fleet.oracle))
        assert (verdict.missing, verdict.spurious, verdict.doubled, verdict.corrupted) == (0, 0, 0, 0), verdict
        assert report["oracle"]["safe"] == count["told_safe"]
    assert report["totals"]["duplicate"] > 0, "re-sends really happened, and were suppressed"
    assert len(report["journals"]) >= 4, "gateways really were killed: each start opens a journal"
    restarts = {role["role"]: role["restarts"] for role in core.json("status")["roles"]}
    assert restarts["gateway"] >= 1
    assert restarts["ingest"] >= 1


def test_postgresql_stopped_devices_go_on_being_acknowledged_and_the_backlog_drains(core: Core) -> None:
    """F3: the database is away; the journal takes everything."""
    postgres = core.role("postgres")
    os.kill(postgres, signal.SIGSTOP)
    try:
        events = b"".join(
            b'{"device_number": "77", "message_date": "2026-01-01T00:%02d:%02dZ"}\n' % divmod(n, 60) for n in range(300)
        )
        assert core.talk("json", events, answer_bytes=300) == b"1" * 300
    finally:
        os.kill(postgres, signal.SIGCONT)
    core.wait_for_rows("SELECT count(*) FROM signal", 300)
    assert core.json("audit")["ok"]


def test_a_row_deleted_or_inserted_by_hand_and_a_removed_segment_are_named(core: Core) -> None:
    """The audit can fail: it compares the ledger with the rows, not with itself."""
    events = b"".join(b'{"device_number": "78", "message_date": "2026-02-01T00:00:%02dZ"}\n' % n for n in range(20))
    core.talk("json", events, answer_bytes=20)
    core.wait_for_rows("SELECT count(*) FROM signal", 20)
    assert core.json("audit")["ok"]
    core.sql("DELETE FROM signal WHERE device_time = '2026-02-01T00:00:07Z'")
    report = core.json("audit", expect=1)
    assert any("78" in finding["subject"] and "00:00:07" in finding["detail"] for finding in report["findings"])
    core.sql(
        "INSERT INTO signal (device_id, wire_time, digest, received_at, fix_valid, attributes, protocol, journal_id, "
        "seq, record_no) SELECT device_id, '2026-02-02', 5, received_at, false, '{}', protocol, journal_id, seq, "
        "record_no FROM signal LIMIT 1"
    )
    report = core.json("audit", expect=1)
    named = " ".join(finding["detail"] for finding in report["findings"])
    assert "00:00:07" in named, "one row deleted and one inserted: the count agrees, the keys do not"
    assert "2026-02-02" in named
    core.stop()
    (segment, *_) = sorted(Path(core.data).glob("journal/*/*.seg"))
    segment.unlink()
    core.start()
    report = core.json("audit", expect=1)
    assert any(finding["check"].startswith("journal_") for finding in report["findings"]), report


def test_a_database_that_does_not_start_keeps_no_device_waiting(core: Core) -> None:
    """F3 at the worst moment: the core comes up, its database does not."""
    core.stop()
    (control,) = core.data.glob("postgres/*/global/pg_control")
    sound = control.read_bytes()
    control.write_bytes(bytes(len(sound)))
    core.start()
    assert "not ready yet" in core.log_text()
    assert core.talk("json", b'{"device_number": "79", "message_date": "2026-03-01T00:00:00Z"}', answer_bytes=1) == b"1"
    control.write_bytes(sound)
    wait_until(lambda: core.json("status", expect=None)["database"]["reachable"], 60, what="PostgreSQL is up")
    core.wait_for_rows("SELECT count(*) FROM signal", 1)
    assert core.json("audit")["ok"]
