"""What each virtual device was told is safe, on disk, for whoever checks the database afterwards.

FILE        one JSON line per record that an acknowledgement covered; all lines of one acknowledgement in one
            append, made the moment the answer arrives
FILE.sent   one line per record, before its bytes leave for the first time: what may be in the database

Both are only ever appended to, unbuffered, so that killing the simulator loses nothing that it was told. A
line torn by a full disk is cut off when the file is opened again, and skipped by the reader. Never reads
or judges the database. Several runs may share a file, as long as their devices do not send different
records for the same time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from signalkeep.errors import EnvironmentFault
from signalkeep.model import Signal

TAIL_BYTES: Final = 64 * 1024  # no line is longer


class OracleRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line. `order` counts the records of a device from 1, in the order in which they were first sent."""

    device_number: str
    device_time: datetime
    latitude: float | None
    longitude: float | None
    speed_kmh: float | None
    event_code: str | None
    order: int
    attributes: dict[str, Any] = {}  # msgspec copies it for each record


def sent_path(path: Path) -> Path:
    """The companion file with everything that was ever sent."""
    return path.with_name(path.name + ".sent")


def line_of(device_number: str, order: int, signal: Signal) -> bytes:
    """The line of a record, with its line end; times in ISO 8601 with milliseconds and Z."""
    assert signal.device_time is not None
    time = signal.device_time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    values = {
        "device_number": device_number,
        "device_time": time,
        "latitude": signal.latitude,
        "longitude": signal.longitude,
        "speed_kmh": signal.speed_kmh,
        "event_code": signal.event_code,
        "order": order,
        "attributes": signal.attributes,
    }
    return msgspec.json.encode(values) + b"\n"


def read_oracle(path: Path) -> Iterator[OracleRecord]:
    """The records of either file, in the order of the file. Raises msgspec.DecodeError on a broken line.

    The last line may lack its end: then it was being written when its writer died, and is left out.
    """
    decoder = msgspec.json.Decoder(OracleRecord)
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield decoder.decode(line)


class OracleWriter:
    """The two files, open for appending. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._safe = _Appender(path)
        try:
            self._sent = _Appender(sent_path(path))
        except BaseException:
            self._safe.close()
            raise

    def __enter__(self) -> OracleWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sent(self, lines: Sequence[bytes]) -> None:
        """These records are about to leave for the first time."""
        self._sent.append(lines)

    def told_safe(self, lines: Sequence[bytes]) -> None:
        """An answer that covers these records has just arrived."""
        self._safe.append(lines)

    def close(self) -> None:
        self._safe.close()
        self._sent.close()


class _Appender:
    """A file that grows by whole appends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._fault(error) from error
        try:
            self._cut_torn_line()
        except OSError as error:
            os.close(self._descriptor)
            raise self._fault(error) from error

    def append(self, lines: Sequence[bytes]) -> None:
        """One write call; only a file system that takes less than it was given gets a second one."""
        data = b"".join(lines)
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise self._fault(error) from error

    def close(self) -> None:
        os.close(self._descriptor)

    def _cut_torn_line(self) -> None:
        size = os.fstat(self._descriptor).st_size
        start = max(0, size - TAIL_BYTES)
        tail = os.pread(self._descriptor, TAIL_BYTES, start)
        if tail and not tail.endswith(b"\n"):
            os.ftruncate(self._descriptor, start + tail.rfind(b"\n") + 1)

    def _fault(self, error: OSError) -> EnvironmentFault:
        return EnvironmentFault(
            f"{self._path}: {error.strerror}",
            hint="The simulator cannot go on without noting what it was told: choose another place.",
        )
