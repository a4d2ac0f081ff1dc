"""The same real messages over a real socket into a running signalkeep, compared in PostgreSQL with plain SQL.

Each message comes from a device of its own. Two have a wrong checksum and are refused as they are; they and those that
were cut short are sent as their device would have sent them. Messages without a clock are stored under received_at.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from signalkeep.protocols.teltonika_encoder import packet
from tests.conformance.test_teltonika_vectors import (
    CUT_SHORT,
    MESSAGES,
    NO_CLOCK,
    PACKETS,
    ROWS,
    WRONG_CHECKSUM,
    repaired,
    signals_of,
)
from tests.core import Core

pytestmark = pytest.mark.servers

SENT = [index for index in PACKETS if index not in MESSAGES]  # AVL packets: codecs 7, 8, 8 extended and 16


def number(index: int) -> str:
    return f"1234567890120{index:02}"


def login(index: int) -> bytes:
    digits = number(index).encode()
    return len(digits).to_bytes(2) + digits


def as_sent(index: int) -> bytes:
    """The message as its device would have sent it."""
    row = ROWS[index]
    if index in CUT_SHORT:
        return repaired(row)
    if index in WRONG_CHECKSUM:
        return packet(row.data[8:-4])
    return row.data


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    with Core(unknown_devices="register") as running:
        yield running


@pytest.fixture(scope="module")
def rows(core: Core) -> dict[str, list[dict[str, Any]]]:
    """Everything sent and stored: rows by device number, in the order of the records."""
    records = 0
    for index in SENT:
        message = as_sent(index)
        answer = core.talk("teltonika", login(index) + message, answer_bytes=5)
        assert answer == b"\x01" + message[9].to_bytes(4), f"row {index}"
        records += message[9]
    core.wait_for_rows("SELECT coalesce(sum(records), 0) FROM ledger", records)
    found: dict[str, list[dict[str, Any]]] = {}
    for (text,) in core.sql(
        "SELECT to_jsonb(r) FROM (SELECT device_number, extract(epoch FROM wire_time) * 1000 AS wire_ms, latitude, "
        "longitude, altitude_m, speed_kmh, course_deg, satellites, fix_valid, event_code, attributes, record_no "
        "FROM signal JOIN device ON device.id = device_id ORDER BY device_number, seq, record_no) r"
    ):
        row = json.loads(text)
        found.setdefault(row["device_number"], []).append(row)
    return found


@pytest.mark.parametrize("index", SENT)
def test_every_record_is_in_the_table_as_it_was_decoded(index: int, rows: dict[str, list[dict[str, Any]]]) -> None:
    stored = rows[number(index)]
    signals = signals_of(ROWS[index])
    assert [row["record_no"] for row in stored] == list(range(len(signals)))
    for row, signal in zip(stored, signals, strict=True):
        if index not in NO_CLOCK:
            assert row["wire_ms"] == pytest.approx(signal.wire_time.timestamp() * 1000, abs=0.01)
        for name in ("latitude", "longitude", "satellites", "fix_valid", "event_code"):
            assert row[name] == getattr(signal, name), name
        for name in ("altitude_m", "speed_kmh", "course_deg"):
            assert row[name] == pytest.approx(getattr(signal, name)), name
        assert row["attributes"] == json.loads(json.dumps(signal.attributes))


def test_the_makers_example(rows: dict[str, list[dict[str, Any]]]) -> None:
    (row,) = rows[number(38)]
    assert row["wire_ms"] == 1377961241710  # 2013-08-31T15:00:41.710Z
    assert (row["latitude"], row["longitude"], row["altitude_m"]) == (37.6743392, 21.432776, -4)
    assert (row["course_deg"], row["satellites"], row["speed_kmh"]) == (0, 9, 0)
    assert row["attributes"]["power_v"] == 12.835


def test_a_wrong_checksum_is_not_acknowledged_and_the_stream_goes_on(core: Core) -> None:
    (index,) = sorted(WRONG_CHECKSUM - MESSAGES)
    good = as_sent(38)
    with socket.create_connection(("127.0.0.1", core.ports["teltonika"]), timeout=20) as connection:
        connection.sendall(login(99) + ROWS[index].data + good)
        answer = b""
        while len(answer) < 5:
            answer += connection.recv(64)
    assert answer == b"\x01\x00\x00\x00\x01", "one answer: to the second packet"


def test_the_sums_hold(core: Core, rows: dict[str, list[dict[str, Any]]]) -> None:
    assert rows
    report = core.json("audit")
    assert report["ok"], report
    assert report["totals"]["quarantined"] == 0
