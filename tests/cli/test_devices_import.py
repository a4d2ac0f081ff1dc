"""A list of devices: all rows or none, every fault named, a second time nothing, and what waited is released."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from signalkeep.cli.devices_file import COLUMNS, read_devices
from signalkeep.cli.main import app
from signalkeep.errors import CallerError
from tests.builders import NUMBER, ask, event, fill

pytestmark = pytest.mark.servers

Import = Callable[..., Result]
HEADER = "device_number,name,time_zone,expected_interval_s,customer,vehicle,plate,vin,assigned_from"
GOOD = f"""{HEADER}
{NUMBER},van 7,Europe/Athens,60,Acme,van 7,IKX 1234,WDB1,2026-04-01
2,,,,Acme,van 8,,,
3,spare,,,,,,,
"""


@pytest.fixture
def read(dsn: str, tmp_path: Path) -> Import:
    def call(content: str | bytes, *options: str) -> Result:
        file = tmp_path / "fleet.csv"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return CliRunner().invoke(
            app,
            ["devices", "import", str(file), "--data", str(tmp_path), *options],
            env={"SIGNALKEEP_DATABASE__DSN": dsn, "COLUMNS": "300"},
        )

    return call


def as_json(read: Import, content: str, *options: str, expect: int = 0) -> Any:
    done = read(content, "--json", *options)
    assert done.exit_code == expect, f"{done.output} {done.exception!r}"
    return json.loads(done.stdout)


def refused(done: Result) -> str:
    assert isinstance(done.exception, CallerError), done.output
    return f"{done.exception.message} {done.exception.hint}"


def counts(dsn: str) -> list[int]:
    tables = ("device", "customer", "vehicle", "assignment", "audit_log")
    return list(ask(dsn, f"SELECT {', '.join(f'(SELECT count(*) FROM {table})' for table in tables)}")[0])


def test_a_list_creates_everything_and_releases_what_waited(dsn: str, read: Import) -> None:
    fill(dsn, event(minute=1), event(minute=2), event("9"))
    done = read(GOOD)
    assert done.exit_code == 0, done.output
    assert done.stdout == (
        "3 devices: 3 registered, 1 customers added, 2 vehicles added, 2 put into a vehicle\n"
        "2 records released from quarantine\n"
    )
    rows = ask(dsn, "SELECT device_number, vehicle_name, customer_name, plate FROM signal_latest ORDER BY 1")
    assert [tuple(row) for row in rows] == [
        ("2", "van 8", "Acme", ""),
        ("3", None, None, None),
        (NUMBER, "van 7", "Acme", "IKX 1234"),
        ("9", None, None, None),
    ]
    assert ask(dsn, "SELECT count(*) FROM vehicle_track WHERE vehicle_name = 'van 7'")[0][0] == 2
    begins = ask(dsn, "SELECT begins_at FROM assignment ORDER BY id")
    assert begins[0][0] is not None
    assert begins[1][0] is None, "its first vehicle: from the beginning"
    assert ask(dsn, "SELECT status FROM device WHERE device_number = '9'")[0][0] == "unknown"
    actions = [row[0] for row in ask(dsn, "SELECT DISTINCT action FROM audit_log ORDER BY 1")]
    assert actions == ["customer.add", "device.assign", "device.import", "quarantine.release", "vehicle.add"]


def test_a_second_time_nothing_changes(dsn: str, read: Import) -> None:
    read(GOOD)
    before = counts(dsn), [tuple(row) for row in ask(dsn, "SELECT id, revision FROM device ORDER BY id")]
    assert read(GOOD).stdout == "3 devices: nothing to change\n"
    assert (counts(dsn), [tuple(row) for row in ask(dsn, "SELECT id, revision FROM device ORDER BY id")]) == before


def test_only_what_differs_is_changed_and_empty_cells_leave_values(dsn: str, read: Import) -> None:
    read(GOOD)
    changed = as_json(read, f"device_number,name,vehicle,customer,plate\n{NUMBER},,van 7,Acme,NEW 1\n3,three,,,\n")
    assert (changed["registered"], changed["changed"], changed["vehicles_changed"], changed["assigned"]) == (0, 1, 1, 0)
    rows = ask(dsn, "SELECT device_number, name, revision FROM device ORDER BY device_number")
    assert [tuple(row) for row in rows] == [("2", "", 2), ("3", "three", 2), (NUMBER, "van 7", 2)]
    assert ask(dsn, "SELECT plate FROM vehicle WHERE name = 'van 7'")[0][0] == "NEW 1"


def test_vehicles_can_swap_their_devices(dsn: str, read: Import) -> None:
    read("device_number,vehicle\n1,van\n2,truck\n")
    done = as_json(read, "device_number,vehicle\n1,truck\n2,van\n")
    assert done["assigned"] == 2
    rows = ask(dsn, "SELECT device_number, vehicle_name FROM signal_latest ORDER BY 1")
    assert [tuple(row) for row in rows] == [("1", "truck"), ("2", "van")]


def test_a_trial_says_the_same_and_changes_nothing(dsn: str, read: Import) -> None:
    fill(dsn, event())
    before = counts(dsn)
    done = read(GOOD, "--dry-run")
    assert "3 registered" in done.stdout
    assert "trial" in done.stdout
    assert "records of 1 devices would be released" in done.stdout
    assert counts(dsn) == before
    assert as_json(read, GOOD, "--dry-run")["waiting"] == [NUMBER]


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_files_of_spreadsheets_are_read(delimiter: str, encoding: str) -> None:
    text = 'Device_Number,Name,,Notes\r\n 1 ,"größe, ""x""",,\r\n,,,\r\n2,,,"a\nb"\r\n'.replace(",", delimiter)
    rows, faults = read_devices(text.replace(f"größe{delimiter}", "größe,").encode(encoding))
    assert faults == []
    assert [(row.line, row.device_number, row.name, row.notes) for row in rows] == [
        (2, "1", 'größe, "x"', None),
        (4, "2", None, "a\nb"),
    ]


def test_every_wrong_row_is_named_with_its_line_and_column(dsn: str, read: Import) -> None:
    wrong = f"""{HEADER}
1,ok,,,,,,,
with blank,,,,,,,,
,no number,,,,,,,
1,again,,,,,,,
5,,Athens,0,,,,,
6,,,,Acme,,P 1,,yesterday
7,,,,,van,,,2026-13-01
8,,,,,van,,,
9,too few
"""
    faults = as_json(read, wrong, expect=2)["faults"]
    assert [(fault["line"], fault["column"]) for fault in faults] == [
        (3, "device_number"),
        (4, "device_number"),
        (5, "device_number"),
        (6, "expected_interval_s"),
        (6, "time_zone"),
        (7, "assigned_from"),
        (7, "assigned_from"),
        (7, "customer"),
        (7, "plate"),
        (8, "assigned_from"),
        (9, "vehicle"),
        (10, ""),
    ]
    text = refused(read(wrong))
    assert "line 5, device_number: 1 stands in line 2 already" in text
    assert "line 6, time_zone: 'Athens' is no time zone" in text
    assert counts(dsn) == [0, 0, 0, 0, 0]


def test_what_the_database_has_against_it_is_named_too_and_nothing_is_written(dsn: str, read: Import) -> None:
    read("device_number,vehicle,plate\n1,van,P 1\n2,truck,\n")
    ask(dsn, "UPDATE device SET status = 'retired', retired_at = now() WHERE device_number = '2'")
    before = counts(dsn)
    assert "line 2, device_number: device 2 is retired" in refused(read("device_number\n2\n"))
    assert "line 3, plate: vehicle van has the plate P 1" in refused(
        read("device_number,vehicle,plate\n5,bus,\n3,car,P 1\n")
    )
    assert "line 2, vehicle: device 1 is in vehicle van" in refused(read("device_number,vehicle\n3,van\n"))
    ask(dsn, "UPDATE vehicle SET retired_at = now() WHERE name = 'truck'")
    assert "line 2, vehicle: vehicle truck is retired" in refused(read("device_number,vehicle\n3,truck\n"))
    ask(dsn, "UPDATE assignment SET begins_at = '2026-05-01' WHERE device_id = 1")
    moved_back = "device_number,vehicle,assigned_from\n1,bus,2026-04-01\n"
    assert "line 2, vehicle: device 1 is in vehicle van since 2026-05-01 00:00 UTC" in refused(read(moved_back))
    assert counts(dsn) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "device_number is missing"),
        (b"name\nx\n", "device_number is missing"),
        (b"device_number,colour\n1,red\n", "unknown: colour"),
        (b"device_number,name,name\n1,a,b\n", "twice: name"),
        (b"device_number\n1\n\xff\n", "byte 0xff in line 3"),
        (b'device_number\n"1\n', "not CSV"),
    ],
)
def test_files_that_are_no_lists(read: Import, content: bytes, said: str) -> None:
    assert said in refused(read(content))


def test_a_file_that_is_not_there(dsn: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["devices", "import", str(tmp_path / "no.csv")])
    assert "cannot be read" in refused(done)


def test_the_columns_are_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "data-model.md").read_text(encoding="utf-8")
    missing = [column for column in COLUMNS if f"`{column}`" not in page]
    assert not missing, missing
