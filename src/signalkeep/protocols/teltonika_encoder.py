"""The device's side of Teltonika: identities, packets of codec 8 or 8 extended; and the server's commands.

Promises: a packet decodes to the signals that it was made of. An attribute is sent as the element that decodes to
exactly its value, `ioN` as element N. Left out is what no element says: `alarm`, which follows from the event, names
that are not in the tables, and, in codec 8, texts and ids above 255. Times are sent in milliseconds, coordinates in
1e-7 degrees, the other fields of a signal as integers; what is None is sent as 0. Pure.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from signalkeep import limits
from signalkeep.errors import CallerError
from signalkeep.model import Signal
from signalkeep.protocols.checksum import crc16_ibm
from signalkeep.protocols.teltonika_io import ELEMENTS, TABLES, Element, Form, country_and_network
from signalkeep.protocols.teltonika_messages import CODEC_12
from signalkeep.protocols.teltonika_parts import EPOCH
from signalkeep.protocols.teltonika_records import CODEC_8, CODEC_8_EXTENDED, DEGREES
from signalkeep.protocols.teltonika_variable import FAULT_CODES_ID, VIN_ID, attributes_of

RECORDS_PER_PACKET_MAX: Final = 255
COMMAND: Final = 5
NOT_USABLE: Final = 1  # the maker's name of a byte in datagrams that is always this
DATAGRAM_BYTES_MAX: Final = 65_505  # of UDP over IPv4, behind the length
MILLISECOND: Final = timedelta(milliseconds=1)
NOT_DECODED: Final = re.compile(r"io(\d{1,5})")
NUMBER_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}

BY_NAME: Final = {element.name: [other for other in ELEMENTS if other.name == element.name] for element in ELEMENTS}


class TeltonikaEncoder:
    """Writes codec 8 extended, or codec 8 if not `extended`."""

    def __init__(self, *, extended: bool = True) -> None:
        self._extended = extended
        self._codec, self._id_code, self._id_max = (CODEC_8_EXTENDED, "H", 0xFFFF) if extended else (CODEC_8, "B", 0xFF)

    def encode_login(self, device_number: str) -> bytes:
        return len(device_number).to_bytes(2) + device_number.encode("ascii")

    def encode_frame(self, device_number: str, signals: list[Signal]) -> bytes:
        """One packet with these records. Raises CallerError where a packet cannot hold them."""
        del device_number
        return packet(self._data(signals))

    def encode_datagram(self, device_number: str, signals: list[Signal], number: int) -> bytes:
        """The same over UDP. The ids of packet and AVL packet are the number, as far as they hold it."""
        return datagram(device_number, self._data(signals), packet_id=number & 0xFFFF, avl_packet_id=number & 0xFF)

    def _data(self, signals: list[Signal]) -> bytes:
        """What is the same over TCP and UDP."""
        if len(signals) > RECORDS_PER_PACKET_MAX:
            raise CallerError(f"{len(signals)} signals: a packet holds at most {RECORDS_PER_PACKET_MAX}")
        count = bytes([len(signals)])
        try:
            records = b"".join(self._record(signal) for signal in signals)
        except (struct.error, ValueError) as error:
            raise CallerError(f"a signal has a value that no packet holds: {error}") from error
        return bytes([self._codec]) + count + records + count

    def encode_command(self, command: str | bytes) -> bytes:
        """The server's packet that tells a device to do something, codec 12; text is sent as ASCII."""
        payload = command.encode("ascii") if isinstance(command, str) else command
        return packet(struct.pack(">BBBI", CODEC_12, 1, COMMAND, len(payload)) + payload + b"\x01")

    def _record(self, signal: Signal) -> bytes:
        at = signal.wire_time or signal.device_time
        if at is None:
            raise ValueError("no time")
        numbers, texts = self._elements(signal.attributes)
        code = self._id_code
        head = struct.pack(
            f">QBiihHBH{code}{code}",
            (at - EPOCH) // MILLISECOND,
            signal.attributes.get("priority", 0),
            round((signal.longitude or 0) * DEGREES),
            round((signal.latitude or 0) * DEGREES),
            round(signal.altitude_m or 0),
            round(signal.course_deg or 0),
            signal.satellites or 0,
            round(signal.speed_kmh or 0),
            int(signal.event_code or 0),
            sum(map(len, numbers.values())) + len(texts),
        )
        groups = [
            struct.pack(f">{code}", len(pairs))
            + b"".join(struct.pack(f">{code}{NUMBER_CODES[size]}", *pair) for pair in pairs)
            for size, pairs in numbers.items()
        ]
        if self._extended:
            groups.append(struct.pack(">H", len(texts)))
            groups += [struct.pack(">HH", io_id, len(data)) + data for io_id, data in texts]
        return head + b"".join(groups)

    def _elements(self, attributes: dict[str, Any]) -> tuple[dict[int, list[tuple[int, int]]], list[tuple[int, bytes]]]:
        """Numbers by size, and texts: ids with their values."""
        numbers: dict[int, list[tuple[int, int]]] = {size: [] for size in NUMBER_CODES}
        texts: list[tuple[int, bytes]] = []
        for name, value in with_plain_cell(attributes).items():
            for size, io_id, raw in number_elements(name, value):
                if io_id <= self._id_max:
                    numbers[size].append((io_id, raw))
                    break
            else:
                texts += [found for found in text_element(name, value) if self._extended and found[0] <= self._id_max]
        return numbers, texts


def packet(data: bytes) -> bytes:
    """Data in their frame."""
    frame = bytes(4) + len(data).to_bytes(4) + data + crc16_ibm(data).to_bytes(4)
    if len(frame) > limits.FRAME_BYTES_MAX:
        raise CallerError(f"a packet of {len(frame)} bytes: at most {limits.FRAME_BYTES_MAX} are read")
    return frame


def datagram(device_number: str, data: bytes, *, packet_id: int, avl_packet_id: int) -> bytes:
    """Data in their datagram, as `teltonika_udp` reads it."""
    identity = device_number.encode("ascii")
    rest = struct.pack(">HBBH", packet_id, NOT_USABLE, avl_packet_id, len(identity)) + identity + data
    if len(rest) > DATAGRAM_BYTES_MAX:
        raise CallerError(f"a datagram of {len(rest)} bytes: at most {DATAGRAM_BYTES_MAX} can be sent")
    return len(rest).to_bytes(2) + rest


def number_elements(name: str, value: Any) -> Iterator[tuple[int, int, int]]:
    """Size, id and raw number of each element that decodes to this attribute."""
    for element in BY_NAME.get(name, ()):
        raw = raw_number(element, value)
        _, convert = TABLES[element.size_bytes][element.io_id]
        if 0 <= raw < 1 << element.size_bytes * 8 and (convert(raw) if convert else raw) == value:
            yield element.size_bytes, element.io_id, raw
    numbered = NOT_DECODED.fullmatch(name)
    if numbered and isinstance(value, int):
        io_id = int(numbered[1])
        for size, table in TABLES.items():
            _, convert = table.get(io_id, ("", no_reading))
            if 0 <= value < 1 << size * 8 and convert is not None and convert(value) is None:
                yield size, io_id, value


def no_reading(_: int) -> None:
    """For ids that are not in a table: decoded as they are."""


def raw_number(element: Element, value: Any) -> int:
    """The unsigned number that should decode to the value; -1 if there is none."""
    try:
        match element.form:
            case Form.IDENTITY:
                return int(value, 16)
            case Form.IDENTITY_REVERSED:
                return int.from_bytes(bytes.fromhex(value), "little")
        number: int = round(value * element.divisor if element.factor == 1 else value / element.factor)
    except (TypeError, ValueError, OverflowError):
        return -1
    return number + (1 << element.size_bytes * 8) if number < 0 and element.signed else number


def text_element(name: str, value: Any) -> list[tuple[int, bytes]]:
    """Id and bytes of the element of its own length that decodes to this attribute; none or one."""
    numbered = NOT_DECODED.fullmatch(name)
    try:
        if name == "vin":
            io_id, data, expected = VIN_ID, value.encode("ascii"), {name: value}
        elif name == "dtcs":
            io_id, data, expected = FAULT_CODES_ID, ",".join(value).encode("ascii"), {name: value}
        elif numbered:
            io_id, data, expected = int(numbered[1]), bytes.fromhex(value), None
        else:
            return []
    except (AttributeError, TypeError, ValueError):
        return []
    return [(io_id, data)] if attributes_of(io_id, data) == expected else []


def with_plain_cell(attributes: dict[str, Any]) -> dict[str, Any]:
    """The same with cell and area apart, where these and the operator give `cells` again."""
    match attributes.get("cells"):
        case [[mcc, mnc, area_code, cell_id, None]]:
            if (mcc, mnc) == country_and_network(attributes.get("operator_code", 0)):
                return attributes | {"gsm_area_code": area_code, "gsm_cell_id": cell_id}
    return attributes
