"""Stopping, starting and replacing a core under load: short refusals for devices, and nothing else.

Fault model: orderly ends (SIGTERM, SIGINT, SIGHUP, repeated) of the whole core and of single roles, as an upgrade or a
service manager brings them, at any instant of a simulated fleet's day. The judge is `tests.faults.checker`.
What it cannot see: whether a newer version reads what an older one wrote; golden files of the formats do.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.core import Core
from tests.faults.checker import check
from tests.faults.fleet import FleetProcess, fleet_of, wait_for_progress
from tests.servers import private_directory, remove_directory, run_sync, wait_until

PING_S = 0.5  # a third of what the service manager of a test wants

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]


def restart_role(core: Core, name: str) -> None:
    """SIGTERM, as an operator would."""
    pid = core.role(name)
    os.kill(pid, signal.SIGTERM)
    core.wait_for_role(name, not_pid=pid)


def nothing_wrong(core: Core, fleet: FleetProcess) -> None:
    counts = fleet.result()
    assert counts["unconfirmed"] == 0, "every record was acknowledged in the end"
    assert counts["told_safe"] == counts["generated"] == fleet.told_safe
    report = core.json("audit", "--oracle", str(fleet.oracle))
    assert report["ok"], report
    verdict = run_sync(check(core.json("status")["database"]["dsn"], fleet.oracle))
    assert verdict.clean, verdict


def test_three_stops_of_the_core_and_of_each_role_lose_nothing() -> None:
    with Core(unknown_devices="register") as core:
        fleets = [fleet_of(core, "teltonika", 356307050000000), fleet_of(core, "json", 866307050000000)]
        try:
            for _ in range(3):
                wait_for_progress(fleets)
                assert core.stop() == 0
                core.start()
            for name in ("gateway", "ingest", "monitor"):
                wait_for_progress(fleets)
                restart_role(core, name)
            for fleet in fleets:
                nothing_wrong(core, fleet)
        finally:
            for fleet in fleets:
                fleet.kill()
        restarts = {role["role"]: role["restarts"] for role in core.json("status")["roles"]}
        assert {name: restarts[name] for name in ("gateway", "ingest", "monitor")} == {
            "gateway": 1, "ingest": 1, "monitor": 1,
        }  # fmt: skip


def test_gateways_replaced_one_by_one_keep_the_port_answered() -> None:
    with Core(gateway__processes="2", unknown_devices="register") as core:
        fleet = fleet_of(core, "teltonika", 356307060000000)
        try:
            wait_for_progress([fleet])
            for instance in (0, 1):
                before = gateways(core)
                os.kill(before[instance], signal.SIGTERM)
                replaced = False
                while not replaced:  # a port that nobody answers fails here
                    with closing(socket.create_connection(("127.0.0.1", core.ports["json"]), timeout=20)):
                        replaced = gateways(core).get(instance) not in {None, before[instance]}
                assert gateways(core)[1 - instance] == before[1 - instance]
                wait_for_progress([fleet])
            nothing_wrong(core, fleet)
        finally:
            fleet.kill()


def gateways(core: Core) -> dict[int, int]:
    """Pids by instance."""
    roles = core.json("status", expect=None)["roles"]
    return {role["instance"]: role["pid"] for role in roles if role["role"] == "gateway"}


@pytest.mark.parametrize(
    "numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT,), (signal.SIGHUP, signal.SIGHUP)]
)
def test_every_signal_to_stop_and_more_of_them_is_one_orderly_stop(numbers: tuple[signal.Signals, ...]) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a core started with `nohup` goes on ignoring it
    with Core() as core:
        assert core.talk("json", b'{"device_number": "1"}', answer_bytes=1) == b"1"
        process = core.process
        for number in numbers:
            process.send_signal(number)
        assert process.wait(90) == 0
        text = core.log_text()
        assert "signalkeep has stopped. Everything acknowledged is on disk." in text
        assert text.count('"event": "role has stopped"') == 4
        assert f'"reason": "{numbers[0].name}"' in text
        postgres_log = next(core.data.glob("log/postgres*")).read_text()
        assert postgres_log.rstrip().endswith("database system is shut down")
        assert list((core.data / "run").glob("*.vitals")) == []


@pytest.fixture
def manager() -> Iterator[tuple[socket.socket, Path]]:
    directory = private_directory()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(directory / "notify"))
        listener.settimeout(PING_S / 2)
        yield listener, directory / "notify"
    remove_directory(directory)


def told(listener: socket.socket) -> list[str]:
    """What has arrived since the last call; waits a moment for the first."""
    found: list[str] = []
    try:
        while True:
            found += listener.recv(4096).decode().splitlines()
    except TimeoutError:
        return found


def test_the_service_manager_hears_ready_stopping_and_life_as_long_as_every_role_moves(
    manager: tuple[socket.socket, Path],
) -> None:
    listener, path = manager
    core = Core(monitor__hung_after_s="3", log__format="json")
    core.environment |= {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(int(3 * PING_S * 1e6))}
    with core:
        heard: list[str] = []

        def ready() -> bool:
            heard.extend(told(listener))
            return "READY=1" in heard

        wait_until(ready, 60, what="READY=1")
        wait_until(lambda: "WATCHDOG=1" in told(listener), 60, what="a sign of life")
        gateway = core.role("gateway")
        os.kill(gateway, signal.SIGSTOP)
        try:
            wait_until(lambda: "roles hang" in core.log_text(), 60, what="the supervisor notices")
            told(listener)
            listener.settimeout(3 * PING_S)  # silence for longer than between two signs of life
            wait_until(lambda: told(listener) == [], 60, what="silence while a role hangs")
            listener.settimeout(PING_S / 2)
        finally:
            os.kill(gateway, signal.SIGCONT)
        wait_until(lambda: "WATCHDOG=1" in told(listener), 60, what="a sign of life again")
        assert core.stop() == 0
        assert "STOPPING=1" in told(listener)
        lines = core.log_text().splitlines()
        assert all(isinstance(json.loads(line), dict) for line in lines), "log.format = json and nothing else"
        events = {(line["role"], line["event"]) for line in map(json.loads, lines)}
        for role in ("gateway", "ingest", "monitor"):
            assert {(role, "role starts"), (role, "stopping"), (role, "role has stopped")} <= events
