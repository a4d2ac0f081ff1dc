"""Lists of devices as CSV: reads a file and says of every row what cannot be, with its line and column.

The first row names the columns (COLUMNS, in any order; `device_number` must be there). Cells are separated by commas
or semicolons, in UTF-8 with or without a byte order mark. An empty cell leaves what is there. Values in, values out:
no database is asked here.
"""

from __future__ import annotations

import csv
import io
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from signalkeep import limits
from signalkeep.errors import CallerError
from signalkeep.store.bulk import Fault, Wanted
from signalkeep.store.fleet import NAME_CHARS_MAX, NOTES_CHARS_MAX, PLATE_CHARS_MAX, text_fault
from signalkeep.store.registry import check_number

COLUMNS: Final = {
    "device_number": "IMEI or the unit's own id",
    "name": "a name for people",
    "model": "maker's model",
    "time_zone": "IANA name, of times that the device sends without one",
    "expected_interval_s": "seconds between reports while the vehicle is used",
    "notes": "for people",
    "customer": "whom the vehicle belongs to",
    "vehicle": "the vehicle that the device is in",
    "plate": "the vehicle's plate",
    "vin": "the vehicle's identification number",
    "assigned_from": "since when it is in it, such as 2026-05-01T12:00Z (UTC where no zone is given)",
}
CHARS_MAX: Final = {
    "name": NAME_CHARS_MAX,
    "model": NAME_CHARS_MAX,
    "notes": NOTES_CHARS_MAX,
    "customer": NAME_CHARS_MAX,
    "vehicle": NAME_CHARS_MAX,
    "plate": PLATE_CHARS_MAX,
    "vin": PLATE_CHARS_MAX,
}
NEEDS_VEHICLE: Final = ("customer", "plate", "vin", "assigned_from")
INTERVAL_S_MAX: Final = 366 * 86_400


def read_devices(content: bytes) -> tuple[list[Wanted], list[Fault]]:
    """The rows, and what is wrong with them. Raises CallerError if the file as a whole cannot be a list."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise CallerError(
            f"the file is not UTF-8: byte {content[error.start]:#04x} in line {line}", hint="Save it as CSV UTF-8."
        ) from None
    rows = _rows(text)
    try:
        _, header = next(rows, (1, []))
        columns = _columns(header)
        return _Reader(columns).read(rows)
    except csv.Error as error:
        raise CallerError(
            f"the file is not CSV: {error}", hint="Look for a quotation mark that is not closed."
        ) from None


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of their first line; empty ones are passed over."""
    first = text.partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    for row in reader:
        if any(cell.strip() for cell in row):
            yield line, [cell.strip() for cell in row]
        line = reader.line_num + 1


def _columns(header: list[str]) -> list[str]:
    names = [name.lower() for name in header]
    unknown = [name for name in names if name and name not in COLUMNS]
    doubled = sorted({name for name in names if name and names.count(name) > 1})
    if unknown or doubled or "device_number" not in names:
        said = [f"unknown: {', '.join(unknown)}"] if unknown else []
        said += [f"twice: {', '.join(doubled)}"] if doubled else []
        said += [] if "device_number" in names else ["device_number is missing"]
        raise CallerError(
            f"the first line does not name the columns as it should: {'; '.join(said)}",
            hint=f"There are {', '.join(COLUMNS)}.",
        )
    return names


class _Reader:
    def __init__(self, columns: list[str]) -> None:
        self._columns = columns
        self._zones = zoneinfo.available_timezones()
        self._rows: list[Wanted] = []
        self._faults: list[Fault] = []
        self._seen: dict[tuple[str, str], int] = {}

    def read(self, rows: Iterator[tuple[int, list[str]]]) -> tuple[list[Wanted], list[Fault]]:
        for line, cells in rows:
            if len(self._rows) >= limits.IMPORT_ROWS_MAX:
                raise CallerError(f"the file has more than {limits.IMPORT_ROWS_MAX} rows", hint="Cut it in pieces.")
            if len(cells) != len(self._columns):
                self._fault(line, "", f"{len(cells)} cells, but the first line names {len(self._columns)} columns")
                continue
            self._row(line, dict(zip(self._columns, cells, strict=True)))
        return self._rows, self._faults

    def _row(self, line: int, cells: dict[str, str]) -> None:
        if cells.pop("", ""):
            self._fault(line, "", "a cell in a column without a name")
        given = {column: cell for column, cell in cells.items() if cell}
        wanted = Wanted(line=line, device_number=given.get("device_number", ""))
        for column, cell in given.items():
            self._cell(line, column, cell, wanted)
        if not wanted.device_number:
            self._fault(line, "device_number", "is empty")
        self._once(line, "device_number", wanted.device_number)
        if wanted.vehicle is not None:
            self._once(line, "vehicle", f"{wanted.customer or ''}\0{wanted.vehicle}", wanted.vehicle)
            if wanted.plate:
                self._once(line, "plate", f"{wanted.customer or ''}\0{wanted.plate}", wanted.plate)
        else:
            for column in NEEDS_VEHICLE:
                if column in given:
                    self._fault(line, column, "belongs to a vehicle, and no vehicle is named")
        self._rows.append(wanted)

    def _cell(self, line: int, column: str, cell: str, wanted: Wanted) -> None:
        fault = ""
        match column:
            case "device_number":
                try:
                    check_number(cell)
                except CallerError as error:
                    fault = error.message
            case "time_zone":
                fault = "" if cell in self._zones else f"{cell!r} is no time zone, such as Europe/Athens"
                wanted.time_zone = cell
            case "expected_interval_s":
                if cell.isascii() and cell.isdigit() and 0 < int(cell[:12]) <= INTERVAL_S_MAX:
                    wanted.expected_interval_s = int(cell)
                else:
                    fault = f"{cell!r} is no number of seconds from 1 to {INTERVAL_S_MAX}"
            case "assigned_from":
                try:
                    moment = datetime.fromisoformat(cell)
                    wanted.assigned_from = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
                except ValueError:
                    fault = f"{cell!r} is no time, such as 2026-05-01T12:00Z"
            case _:
                fault = text_fault(cell, CHARS_MAX[column])
                setattr(wanted, column, cell)
        if fault:
            self._fault(line, column, fault)

    def _once(self, line: int, column: str, value: str, shown: str | None = None) -> None:
        before = self._seen.setdefault((column, value), line)
        if value and before != line:
            self._fault(line, column, f"{shown or value} stands in line {before} already")

    def _fault(self, line: int, column: str, fault: str) -> None:
        self._faults.append(Fault(line, column, fault))
