"""Health and metrics of a real core: processes stopped, killed and frozen, the database away, the disk at its cap."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from signalkeep.roles import running_roles
from tests.core import Core
from tests.monitor.test_metrics import faults
from tests.servers import private_directory, remove_directory, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

NUMBER = "867307040000017"
HUNG_AFTER_S = "3"


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    with Core(monitor__hung_after_s=HUNG_AFTER_S, unknown_devices="register") as running:
        yield running


def asked(core: Core, path: str) -> tuple[int, str]:
    """Status and body; 0 while nobody answers."""
    ports = [role.ports["monitor"] for role in running_roles(core.data / "run") if role.role == "monitor"]
    if not ports:
        return 0, ""
    connection = http.client.HTTPConnection("127.0.0.1", ports[0], timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def wait_for(core: Core, path: str, status: int, said: str = "") -> str:
    """Until the answer is this; its body."""
    last = (0, "")

    def so() -> bool:
        nonlocal last
        last = asked(core, path)
        return last[0] == status and said in last[1]

    wait_until(so, 60, what=f"{path} answers {status} {said}")
    return last[1]


def well(core: Core) -> None:
    wait_for(core, "/livez", 200)
    wait_until(lambda: "[~]" not in asked(core, "/readyz?verbose")[1] and asked(core, "/readyz")[0] == 200, 60)


def metric(core: Core, name: str) -> float:
    """The sum over its samples."""
    families = text_string_to_metric_families(asked(core, "/metrics")[1])
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


def test_what_devices_send_is_counted_and_no_device_is_named(core: Core) -> None:
    well(core)
    lines = b"".join(
        b'{"device_number": "%s", "message_date": "2026-01-01T00:00:%02dZ"}\n' % (NUMBER.encode(), n) for n in range(20)
    )
    assert core.talk("json", lines, answer_bytes=20) == b"1" * 20
    wait_until(lambda: metric(core, "signalkeep_ingest_records_stored_total") >= 20, 60)
    wait_until(lambda: metric(core, "signalkeep_journal_durable_entries") >= 20, 60)
    wait_until(lambda: metric(core, "signalkeep_journal_lag_entries") == 0, 60)
    text = asked(core, "/metrics")[1]
    assert NUMBER not in text
    assert "127.0.0.1" not in text
    assert faults(text_string_to_metric_families(text)) == []
    assert metric(core, "signalkeep_ingest_batch_seconds_count") >= 1
    assert metric(core, "signalkeep_process_resident_memory_bytes") > 10**7
    assert metric(core, "signalkeep_database_up") == 1


@pytest.mark.parametrize("name", ["gateway", "ingest"])
def test_a_frozen_role_is_noticed_and_comes_back(core: Core, name: str) -> None:
    well(core)
    pid = core.role(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        said = wait_for(core, "/livez?verbose", 503, f"[-]{name}-0 failed")
        assert f"it hangs: pid {pid}" in said
        assert asked(core, "/readyz")[0] == (503 if name == "gateway" else 200)
        assert core.json("status", expect=1)["hung"] == [f"{name}-0"]
        wait_until(lambda: "roles hang" in core.log_text(), 30, what="the supervisor says so too")
    finally:
        os.kill(pid, signal.SIGCONT)
    well(core)
    assert core.role(name) == pid, "nobody has killed it"


def test_a_frozen_supervisor_is_noticed(core: Core) -> None:
    well(core)
    pid = core.role("supervisor")
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(core, "/livez?verbose", 503, "[-]supervisor-0 failed: it hangs")
        assert asked(core, "/readyz")[0] == 200, "devices are acknowledged"
    finally:
        os.kill(pid, signal.SIGCONT)
    well(core)


def test_a_silent_database_is_degraded_and_devices_are_acknowledged(core: Core) -> None:
    well(core)
    postgres = core.role("postgres")
    pids = [postgres, *(int(row[0]) for row in core.sql("SELECT pid FROM pg_stat_activity WHERE state IS NOT NULL"))]
    for pid in pids:
        with_no_error(pid, signal.SIGSTOP)
    try:
        wait_for(core, "/readyz?verbose", 200, "[~]database degraded")
        assert core.talk("json", b'{"device_number": "5"}', answer_bytes=1) == b"1"
        assert asked(core, "/livez")[0] == 200
        assert metric(core, "signalkeep_database_up") == 0
        wait_until(lambda: metric(core, "signalkeep_journal_lag_entries") >= 1, 30, what="the backlog is counted")
        wait_until(lambda: metric(core, "signalkeep_journal_oldest_lag_age_seconds") > 0, 30)
    finally:
        for pid in pids:
            with_no_error(pid, signal.SIGCONT)
    well(core)
    wait_until(lambda: metric(core, "signalkeep_journal_lag_entries") == 0, 60)


def with_no_error(pid: int, number: signal.Signals) -> None:
    """A backend may have ended since it was listed."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def test_restarts_are_counted(core: Core) -> None:
    well(core)
    before = metric(core, "signalkeep_role_restarts_total")
    core.wait_for_role("ingest", not_pid=core.kill_role("ingest"))
    wait_until(lambda: metric(core, "signalkeep_role_restarts_total") == before + 1, 30)
    well(core)


def test_a_broken_file_of_a_role_hides_no_other(core: Core) -> None:
    well(core)
    for name in ("gateway-0.vitals", "strange.vitals", "strange-0.json"):
        (core.data / "run" / name).write_bytes(b'{"half')
    assert "signalkeep_ingest_batches_total" in asked(core, "/metrics")[1]
    well(core)


def test_a_disk_at_its_cap_is_not_ready() -> None:
    with Core(journal__cap_bytes="1000") as core:
        said = wait_for(core, "/readyz?verbose", 503, "[-]journal-cap failed")
        wait_for(core, "/readyz?verbose", 503, "[-]sockets failed: not read by gateway-0: disk")
        assert "journal.cap_bytes" in said
        assert asked(core, "/livez")[0] == 200, "a restart would not help"


def test_a_taken_port_is_named_with_the_setting_before_anything_starts() -> None:
    directory = private_directory()
    try:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            taken = str(holder.getsockname()[1])
            environment = os.environ | {"SIGNALKEEP_MONITOR__PORT": taken, "SIGNALKEEP_GATEWAY__PORTS": "{}"}
            done = subprocess.run(
                [sys.executable, "-m", "signalkeep", "run", "--data", str(directory / "data")],
                env=environment, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
        assert done.returncode == 1
        assert f"port {taken} (monitor) is in use" in done.stderr
        assert "SIGNALKEEP_MONITOR__PORT" in done.stderr
        assert not (directory / "data" / "postgres").exists()
    finally:
        remove_directory(directory)
