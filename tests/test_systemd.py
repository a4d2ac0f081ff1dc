"""What the service manager hears, and that nobody else is disturbed by it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from signalkeep import limits
from signalkeep.systemd import OURS, ServiceManager

ROOT = Path(__file__).resolve().parent.parent
UNIT = ROOT / "deploy" / "systemd" / "signalkeep.service"
ROLES_STOPPED_ONE_AFTER_THE_OTHER = 5  # fleet, gateways, relay, ingest, monitor
ANALYZE = "/usr/bin/systemd-analyze"


@pytest.fixture
def heard(short_directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(short_directory / "notify"))
        listener.settimeout(5)
        yield listener


def test_lines_arrive_as_one_datagram(heard: socket.socket) -> None:
    ServiceManager({"NOTIFY_SOCKET": heard.getsockname()}).tell("READY=1", "STATUS=runs")
    assert heard.recv(1000) == b"READY=1\nSTATUS=runs"


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_an_abstract_socket_is_one_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0signalkeep-test-{os.getpid()}")
        listener.settimeout(5)
        ServiceManager({"NOTIFY_SOCKET": f"@signalkeep-test-{os.getpid()}"}).tell("STOPPING=1")
        assert listener.recv(1000) == b"STOPPING=1"


def test_without_a_manager_or_with_one_that_is_gone_nothing_happens(short_directory: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": str(short_directory / "gone")}):
        manager = ServiceManager(environ)
        manager.tell("READY=1")
        assert manager.watchdog_s == 0


def test_a_manager_that_reads_nothing_blocks_nobody(heard: socket.socket) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": heard.getsockname()})
    for _ in range(2000):
        manager.tell("WATCHDOG=1")


def test_the_watchdog_is_for_the_process_that_it_names() -> None:
    base = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000"}
    assert ServiceManager(dict(base)).watchdog_s == 3.0
    assert ServiceManager(base | {"WATCHDOG_PID": str(os.getpid())}).watchdog_s == 3.0
    assert ServiceManager(base | {"WATCHDOG_PID": "1"}).watchdog_s == 0
    assert ServiceManager(base | {"WATCHDOG_USEC": "soon"}).watchdog_s == 0


def test_no_child_inherits_the_socket() -> None:
    environ = dict.fromkeys(OURS, "1") | {"PATH": "/bin"}
    ServiceManager(environ)
    assert environ == {"PATH": "/bin"}


def settings_of_unit() -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(encoding="utf-8"), flags=re.MULTILINE))


def test_the_unit_gives_the_time_that_an_orderly_stop_may_take() -> None:
    unit = settings_of_unit()
    roles_s = ROLES_STOPPED_ONE_AFTER_THE_OTHER * 3 * limits.STOP_GRACE_S
    assert int(unit["TimeoutStopSec"]) >= roles_s + 3 * limits.POSTGRES_STOP_S_MAX
    assert int(unit["TimeoutStartSec"]) >= 2 * limits.STOP_GRACE_S + limits.READY_S_MAX
    assert int(unit["WatchdogSec"]) >= 4 * limits.HUNG_S
    assert int(unit["LimitNOFILE"]) > limits.CONNECTIONS_MAX
    assert unit["Type"] == "notify"
    assert unit["KillMode"] == "mixed", "the supervisor stops the roles in their order"


@pytest.mark.skipif(not Path(ANALYZE).exists(), reason="NO SYSTEMD-ANALYZE, UNIT NOT VERIFIED")
def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "signalkeep"
    text = UNIT.read_text(encoding="utf-8")
    assert "/opt/signalkeep/bin/signalkeep" in text
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("/opt/signalkeep/bin/signalkeep", str(program)), encoding="utf-8")
    done = subprocess.run([ANALYZE, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    about_us = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, about_us) == (0, []), done.stderr
