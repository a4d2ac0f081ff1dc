"""The oracle files: whole appends, read back exactly, and no torn line ever believed."""

from __future__ import annotations

import errno
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from signalkeep.errors import EnvironmentFault
from signalkeep.model import Signal
from signalkeep.simulate.oracle import OracleRecord, OracleWriter, line_of, read_oracle, sent_path

AT = datetime(2024, 5, 6, 7, 8, 9, 120000, tzinfo=UTC)
SIGNAL = Signal(
    wire_time=AT,
    device_time=AT,
    latitude=1.1234567,
    longitude=-2.5,
    speed_kmh=50.0,
    attributes={"ignition": True},
)


def test_a_record_comes_back_as_it_went(tmp_path: Path) -> None:
    path = tmp_path / "oracle.jsonl"
    with OracleWriter(path) as writer:
        writer.sent([line_of("1", 1, SIGNAL), line_of("1", 2, SIGNAL)])
        writer.told_safe([line_of("1", 1, SIGNAL)])
    expected = OracleRecord("1", AT, 1.1234567, -2.5, 50.0, None, 1, {"ignition": True})
    assert list(read_oracle(path)) == [expected]
    assert [record.order for record in read_oracle(sent_path(path))] == [1, 2]
    assert sent_path(path) == tmp_path / "oracle.jsonl.sent"


def test_the_line_is_the_documented_one() -> None:
    assert json.loads(line_of("356307040000000", 3, SIGNAL)) == {
        "device_number": "356307040000000",
        "device_time": "2024-05-06T07:08:09.120Z",
        "latitude": 1.1234567,
        "longitude": -2.5,
        "speed_kmh": 50.0,
        "event_code": None,
        "order": 3,
        "attributes": {"ignition": True},
    }


def test_an_acknowledgement_is_one_append_and_is_there_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "oracle"
    writes: list[bytes] = []
    write = os.write

    def counted(descriptor: int, data: bytes) -> int:
        writes.append(data)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", counted)
    with OracleWriter(path) as writer:
        writer.told_safe([line_of("1", order, SIGNAL) for order in range(1, 11)])
        assert len(writes) == 1
        assert len(list(read_oracle(path))) == 10  # without closing


def test_a_later_run_adds(tmp_path: Path) -> None:
    path = tmp_path / "oracle"
    for order in (1, 2):
        with OracleWriter(path) as writer:
            writer.told_safe([line_of("1", order, SIGNAL)])
    assert [record.order for record in read_oracle(path)] == [1, 2]


@pytest.mark.parametrize("torn", [b"{", line_of("1", 2, SIGNAL)[:-1], b'{"device_number":"1"}'])
def test_a_torn_last_line_is_left_out_and_cut_off_by_the_next_run(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "oracle"
    path.write_bytes(line_of("1", 1, SIGNAL) + torn)
    assert [record.order for record in read_oracle(path)] == [1]
    with OracleWriter(path) as writer:
        writer.told_safe([line_of("1", 3, SIGNAL)])
    assert [record.order for record in read_oracle(path)] == [1, 3]


def test_a_file_that_is_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "oracle"
    path.write_bytes(b'{"device')
    OracleWriter(path).close()
    assert path.read_bytes() == b""


def test_a_short_write_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "oracle"
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    with OracleWriter(path) as writer:
        writer.told_safe([line_of("1", 1, SIGNAL)])
    assert [record.order for record in read_oracle(path)] == [1]


def test_a_full_disk_is_an_error_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with OracleWriter(tmp_path / "oracle") as writer:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(EnvironmentFault, match="No space left"):
            writer.told_safe([line_of("1", 1, SIGNAL)])


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="nowhere"):
        OracleWriter(tmp_path / "nowhere" / "oracle")
