"""Teltonika packets for measurements: codec 8 extended, 20 elements a record, made once and then only patched.

A packet is new each time it is sent: the vehicle drives north at 54 km/h, so each record is a tenth of a second and a
metre and a half further, and the odometer of the packet goes with it; the checksum is that of the whole. Nothing else
changes, so a packet costs the sender about a microsecond a record. Elements and values are those of a car that drives:
flags, voltages, engine data, counters of 1, 2, 4 and 8 bytes. Rules of quality find nothing wrong with it.

Times begin two minutes before `start_ms`: a device may send some thousand records before they lie in the future.
"""

from __future__ import annotations

import struct
from typing import Final

from signalkeep.protocols.checksum import crc16_ibm

ELEMENTS: Final[tuple[tuple[int, int, int], ...]] = (  # id, size in bytes, value; ids as in the maker's tables
    (239, 1, 1), (240, 1, 1), (21, 1, 4), (69, 1, 1), (200, 1, 0), (1, 1, 1), (37, 1, 54), (31, 1, 41), (48, 1, 63),
    (32, 1, 88), (66, 2, 13906), (67, 2, 4048), (182, 2, 8), (181, 2, 11), (36, 2, 1830), (9, 2, 52),
    (16, 4, 12_345_678), (199, 4, 3_456), (241, 4, 24602), (78, 8, 0x0123456789ABCDEF),
)  # fmt: skip
FILLERS: Final = tuple((1000 + number, 2, number) for number in range(200))  # for more than the above
ODOMETER: Final = 16

STEP_MS: Final = 100
STEP_M: Final = 1.5
STEP_DEGREES_E7: Final = 135  # of latitude: 1.5 m
LATITUDE_AFTER_TIME: Final = 13  # bytes: time, priority, longitude
BEHIND_MS: Final = 120_000

_HEAD = struct.Struct(">QBiihHBHHH")
_TIME = struct.Struct(">Q")
_I32 = struct.Struct(">i")
_U16, _U32 = struct.Struct(">H"), struct.Struct(">I")
HEADER_BYTES: Final = 8
CHECKSUM_BYTES: Final = 4


class Packet:
    """One device's packet of `records` records. `next` gives its bytes for the next sending."""

    def __init__(self, records: int, elements: int, *, start_ms: int, seed: int) -> None:
        self._records = records
        self._at_ms = start_ms - BEHIND_MS
        record, odometer, self._latitude = _record(elements, seed)
        data = bytes([0x8E, records]) + record * records + bytes([records])
        self._bytes = bytearray(bytes(4) + len(data).to_bytes(4) + data + bytes(CHECKSUM_BYTES))
        self._data = memoryview(self._bytes)[HEADER_BYTES : HEADER_BYTES + len(data)]
        self._times = [HEADER_BYTES + 2 + number * len(record) for number in range(records)]
        self._odometers = [at + odometer for at in self._times] if odometer else []
        self._odometer_m = 1_000_000.0 + seed

    def next(self) -> bytes:
        """The packet with the next records."""
        buffer = self._bytes
        for at in self._times:
            self._at_ms += STEP_MS
            self._latitude += STEP_DEGREES_E7
            _TIME.pack_into(buffer, at, self._at_ms)
            _I32.pack_into(buffer, at + LATITUDE_AFTER_TIME, self._latitude)
        for at in self._odometers:
            self._odometer_m += STEP_M
            _U32.pack_into(buffer, at, int(self._odometer_m))
        _U32.pack_into(buffer, len(buffer) - CHECKSUM_BYTES, crc16_ibm(bytes(self._data)))
        return bytes(buffer)


def login(device_number: str) -> bytes:
    """What a device says first."""
    return len(device_number).to_bytes(2) + device_number.encode("ascii")


def _record(elements: int, seed: int) -> tuple[bytes, int, int]:
    """A record, where in it the odometer's value stands (0: it has none), and its latitude in 1e-7 degrees."""
    chosen = [*ELEMENTS, *FILLERS][:elements]
    latitude, longitude = 525_200_000 + seed * 997 % 900_000, 134_050_000 + seed * 1_009 % 900_000
    data = _HEAD.pack(0, 0, longitude, latitude, 34, 0, 11, 54, 0, len(chosen))
    odometer = 0
    for size in (1, 2, 4, 8):
        group = [element for element in chosen if element[1] == size]
        data += _U16.pack(len(group))
        for io_id, _, value in group:
            data += _U16.pack(io_id)
            if io_id == ODOMETER:
                odometer = len(data)
            data += value.to_bytes(size)
    return data + _U16.pack(0), odometer, latitude
