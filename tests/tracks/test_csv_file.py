"""CSV: columns in any order, others as attributes; a bad row costs only itself."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalkeep.errors import CallerError
from signalkeep.tracks.csv_file import of_bytes
from signalkeep.tracks.files import READERS, readings

NOON_S = datetime(2026, 5, 6, 12, tzinfo=UTC).timestamp()


def read(text: str):  # type: ignore[no-untyped-def]  # what it gives is what is tested
    return of_bytes(text.encode())


def test_a_row_with_everything() -> None:
    (one,) = read(
        "longitude,latitude,device_time,altitude_m,speed_kmh,course_deg,satellites,fix_valid,event_code,received_at,"
        "ignition,rpm,odometer_m,hdop,iccid,driver_id,vin\n"
        "13.405,52.52,2026-05-06T12:00:00Z,34,48.5,90,9,true,239,2026-05-06T12:00:02Z,"
        "True,850,123456,0.9,8949001234567890123,007,\n"
    ).readings
    assert (one.time_s, one.received_s) == (NOON_S, NOON_S + 2)
    assert (one.latitude, one.longitude, one.altitude_m, one.speed_kmh) == (52.52, 13.405, 34.0, 48.5)
    assert (one.course_deg, one.satellites, one.fix_valid, one.event_code) == (90.0, 9, True, "239")
    assert one.attributes == {
        "ignition": True, "rpm": 850, "odometer_m": 123456, "hdop": 0.9, "iccid": "8949001234567890123",
        "driver_id": "007",
    }  # fmt: skip


def test_the_least() -> None:
    found = read("time,latitude,longitude\n2026-05-06 12:00:00,52.52,13.405\n\n2026-05-06T14:00:10+02:00,,\n,1,2\n")
    assert [one.time_s for one in found.readings] == [NOON_S, NOON_S + 10, None]
    assert [one.fix_valid for one in found.readings] == [True, False, True]
    assert found.readings[2].received_s == NOON_S + 10
    assert found.lines == [2, 4, 5]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("noon,1,2,", "the time is 'noon'"),
        ("2026-05-06T12:00:00Z,x,2,", "latitude is 'x'"),
        ("2026-05-06T12:00:00Z,inf,2,", "latitude is 'inf'"),
        ("2026-05-06T12:00:00Z,1", "2 cells under 4 columns"),
        ("2026-05-06T12:00:00Z,1,2,perhaps", "fix_valid is 'perhaps'"),
    ],
)
def test_a_bad_row_costs_only_itself(row: str, why: str) -> None:
    good = "2026-05-06T12:00:00Z,1,2,1"
    found = read(f"time,latitude,longitude,fix_valid\n{good}\n{row}\n{good}\n")
    assert found.lines == [2, 4]
    assert [(one.line, one.why) for one in found.skipped] == [(3, why)]


def test_a_row_that_is_no_csv_costs_only_itself() -> None:
    long = "x" * 200_000
    found = read(f"time,latitude,longitude\n2026-05-06T12:00:00Z,1,2\n{long},1,2\n2026-05-06T12:00:01Z,1,2\n")
    assert (len(found.readings), found.skipped_count) == (2, 1)


@pytest.mark.parametrize("header", ["", "time,latitude", "time,latitude,longitude,time", "a" * 200_000])
def test_a_header_without_what_is_needed_is_refused(header: str) -> None:
    with pytest.raises(CallerError, match="line 1"):
        read(f"{header}\n2026-05-06T12:00:00Z,1,2\n")


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_no_bytes_break_the_reader(data: bytes) -> None:
    found = of_bytes(b"time,latitude,longitude,rpm\n2026-05-06T12:00:00Z,1,2,900\n" + data)
    assert len(found.lines) == len(found.readings)


def test_the_reader_is_chosen_by_name(tmp_path: Path) -> None:
    path = tmp_path / "track.CSV"
    path.write_text("time,latitude,longitude\n2026-05-06T12:00:00Z,1,2\n")
    assert len(readings(path).readings) == 1
    assert {".gpx", ".csv", ".nmea", ".log"} <= READERS.keys()
    with pytest.raises(CallerError, match="by its name"):
        readings(tmp_path / "track.xlsx")
