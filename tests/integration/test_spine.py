"""From a device's socket to a row in PostgreSQL, with the processes and commands that a user has."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.core import Core
from tests.servers import wait_until

TALK_EVENT = (
    rb'{ "device_number": "86915304265485", "event_code": "4002", "message_date": "2020\/02\/05 12:18:28", '
    rb'"latitude": "37.9815116", "longitude": "23.7315200" }'
)
# The record of the maker's public example: 2013-08-31T15:00:41.710Z, 37.6743392 21.432776, -4 m, 9 satellites.
LOGIN = bytes.fromhex("000f333536333037303432343431303133")
PACKET = bytes.fromhex(
    "000000000000002b080100000140d4e3ec6e000cc661d01674a5e0fffc00000900000004020100f0000242322318000000000100007a04"
)

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    with Core() as running:
        yield running


@pytest.mark.parametrize("close_side", [True, False])
@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_the_talks_event_is_answered_with_or_without_a_newline_and_a_closed_side(
    core: Core, ending: bytes, close_side: bool
) -> None:
    assert core.talk("json", TALK_EVENT + ending, answer_bytes=1, close_side=close_side) == b"1"


def test_the_talks_event_becomes_one_row_however_often_it_is_sent(core: Core) -> None:
    core.run("devices", "add", "86915304265485")
    for _ in range(3):
        assert core.talk("json", TALK_EVENT, answer_bytes=1) == b"1"
    core.wait_for_rows("SELECT count(*) FROM signal", 1)
    core.wait_for_rows("SELECT coalesce(sum(records), 0) FROM ledger WHERE device_id = 1", 3)
    rows = core.sql(
        "SELECT device_number, event_code, to_char(device_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), latitude, "
        "longitude, fix_valid FROM signal s JOIN device d ON d.id = s.device_id WHERE device_number = '86915304265485'"
    )
    assert rows == [["86915304265485", "4002", "2020-02-05 12:18:28", "37.9815116", "23.73152", "t"]]


def test_teltonika_login_and_packet_are_answered_and_stored(core: Core) -> None:
    core.run("devices", "add", "356307042441013")
    assert core.talk("teltonika", LOGIN + PACKET, answer_bytes=5) == b"\x01\x00\x00\x00\x01"
    query = "SELECT count(*) FROM signal s JOIN device d ON d.id = s.device_id WHERE device_number = '356307042441013'"
    core.wait_for_rows(query, 1)
    (signal,) = core.json("signals", "list", "--device", "356307042441013")
    assert signal["latitude"] == 37.6743392
    assert signal["altitude_m"] == -4
    assert signal["attributes"]["power_v"] == 12.835


def test_an_unknown_device_is_kept_acknowledged_and_released(core: Core) -> None:
    event = b'{"device_number": "555", "message_date": "2026-01-01T00:00:00Z", "latitude": 1.5, "longitude": 2}'
    assert core.talk("json", event, answer_bytes=1) == b"1"
    wait_until(lambda: core.json("quarantine", "list", "--device", "555"), 30)
    (waiting,) = core.json("quarantine", "list", "--device", "555")
    assert waiting["reason"] == "unknown_device"
    wait_until(lambda: "devices add 555" in core.log_text(), 30, what="the line that registers the device is shown")
    assert core.json("signals", "list", "--device", "555") == []
    core.run("devices", "add", "555")
    (signal,) = core.json("signals", "list", "--device", "555")
    assert signal["latitude"] == 1.5
    assert core.json("quarantine", "list", "--device", "555") == []
    assert core.talk("json", event, answer_bytes=1) == b"1"
    core.wait_for_rows(
        "SELECT duplicate FROM device_state s JOIN device d ON d.id = s.device_id WHERE device_number = '555'",
        1,
    )
    assert len(core.json("signals", "list", "--device", "555")) == 1
    assert core.json("audit")["ok"]


def test_rubbish_harms_nobody(core: Core) -> None:
    for rubbish in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + b"\0" * 200, b"{" * 5000, b"\xff" * 100_000):
        for port in core.ports.values():
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                try:
                    connection.sendall(rubbish)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(4096):
                        pass
                except OSError:
                    pass  # cut by the gateway, as it may
    assert core.talk("json", TALK_EVENT, answer_bytes=1) == b"1"
    core.wait_for_rows("SELECT coalesce(sum(count), 0) FROM refusal", 4)
    assert core.json("audit")["ok"]


def test_a_second_run_says_so_and_stops(core: Core) -> None:
    same = subprocess.run(
        [sys.executable, "-m", "signalkeep", "run"],
        env=core.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert same.returncode == 1
    assert "runs already" in same.stderr
    other = {**core.environment, "SIGNALKEEP_DATA": str(core.directory / "other")}
    ports = subprocess.run(
        [sys.executable, "-m", "signalkeep", "run"],
        env=other,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ports.returncode == 1
    assert "in use" in ports.stderr
    assert str(core.ports["teltonika"]) in ports.stderr


def test_status_shows_roles_ports_and_journals(core: Core) -> None:
    status = core.json("status")
    assert {role["role"] for role in status["roles"]} >= {"gateway", "ingest", "postgres"}
    gateway = next(role for role in status["roles"] if role["role"] == "gateway")
    assert gateway["ports"] == {**core.ports, "teltonika/udp": core.ports["teltonika"]}
    assert gateway["restarts"] == 0
    assert status["database"]["reachable"]
    assert any(journal["live"] for journal in status["journals"])


def test_a_clean_stop_answers_what_it_took_and_starts_again_with_everything() -> None:
    with Core() as core:
        core.run("devices", "add", "1")
        with socket.create_connection(("127.0.0.1", core.ports["json"]), timeout=20) as connection:
            for number in range(200):
                event = {
                    "device_number": "1",
                    "message_date": f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z",
                }
                connection.sendall(json.dumps(event).encode() + b"\n")
            answered = 0
            while answered < 200:
                answered += len(connection.recv(4096))
            assert core.stop() == 0
        core.start()
        core.wait_for_rows("SELECT count(*) FROM signal", 200)
        report = core.json("audit")
        assert report["ok"]
        assert len(report["journals"]) == 2, "every start of a gateway opens a new journal"


def test_the_demo_has_registered_units_driving_in_it() -> None:
    core = Core()
    try:
        core.start("--demo")
        core.wait_for_rows("SELECT count(*) FROM signal", 20)
        assert core.sql("SELECT count(*) FROM quarantine") == [["0"]]
        assert {role["role"] for role in core.json("status")["roles"]} >= {"fleet", "gateway", "ingest"}
        assert core.stop() == 0
        assert "Traceback" not in core.log_text()
    finally:
        core.close()
