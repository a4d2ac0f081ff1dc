"""Elements of codec 8 extended that have a length of their own: texts, and what the tracker hears over Bluetooth.

    256, 325        VIN                   vin
    281             fault codes           dtcs
    385             beacons               beacon1_uuid, beacon1_rssi, ...
    548 and others  tags, by parameter    tag1_rssi, tag1_battery_mv, ...

Bytes that do not have the form they should have give None, never half of what is in them, and the caller keeps them
as they are. Pure; never raises; time is linear in the length.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from signalkeep.protocols.teltonika_parts import Cursor, text

VIN_ID: Final = 256
VIN_ID_OF_CAN: Final = 325
FAULT_CODES_ID: Final = 281
BEACONS_ID: Final = 385
TAGS_IDS: Final = frozenset({548, 10828, 10829, 10831, 11317})


def attributes_of(io_id: int, data: bytes) -> dict[str, Any] | None:
    """What an element says, by attribute name; None if its id or its form is not known."""
    if io_id in (VIN_ID, VIN_ID_OF_CAN):
        vin = text(data)
        return {"vin": vin} if vin else None
    if io_id == FAULT_CODES_ID:
        codes = text(data)
        return None if codes is None else {"dtcs": [code.strip() for code in codes.split(",") if code.strip()]}
    try:
        if io_id == BEACONS_ID:
            return beacons(Cursor(data))
        if io_id in TAGS_IDS:
            return tags(Cursor(data))
    except struct.error:
        pass
    return None


def beacons(cursor: Cursor) -> dict[str, Any]:
    """One byte tells the part (n of m); then beacons, each with flags in front. Temperature: as sent."""
    found: dict[str, Any] = {"beacon_part": cursor.number(1)}
    number = 0
    while cursor.left:
        number += 1
        name = f"beacon{number}"
        flags = cursor.number(1)
        if flags >> 4:
            found[f"{name}_uuid"] = cursor.take(16).hex()
            found[f"{name}_major"] = cursor.number(2)
            found[f"{name}_minor"] = cursor.number(2)
        else:
            found[f"{name}_namespace"] = cursor.take(10).hex()
            found[f"{name}_instance"] = cursor.take(6).hex()
        found[f"{name}_rssi"] = cursor.number(1, signed=True)
        if flags & 2:
            found[f"{name}_battery_v"] = cursor.number(2) / 100
        if flags & 4:
            found[f"{name}_temperature_raw"] = cursor.number(2)
    return found


def tags(cursor: Cursor) -> dict[str, Any]:
    """One byte of header; then tags, each a length and that many bytes of parameters."""
    found: dict[str, Any] = {}
    cursor.take(1)
    number = 0
    while cursor.left:
        number += 1
        tag = Cursor(cursor.take(cursor.number(1)))
        if not tag.left:
            raise struct.error("a tag without a parameter")
        while tag.left:
            parameter = tag.number(1)
            for name, value in tag_parameter(parameter, tag.take(tag.number(1))).items():
                found[f"tag{number}_{name}"] = value
    return found


TAG_TEXTS: Final = {1: "id", 15: "mac"}
TAG_NUMBERS: Final = {  # name, size in bytes, signed
    0: ("rssi", 1, True),
    6: ("temperature_raw", 2, True),
    7: ("humidity_pct", 1, False),
    10: ("motion_count", 2, False),
    11: ("pitch_deg", 1, True),
    12: ("roll_deg", 2, True),
    14: ("battery_mv", 2, False),
}
TAG_FLAGS: Final = {8: "magnet", 9: "motion", 13: "low_battery"}
TAG_BEACON_DATA: Final = 2
TAG_NAME: Final = 5


def tag_parameter(parameter: int, data: bytes) -> dict[str, Any]:
    """The attributes of one parameter. What is not known, or has another size, keeps its number and its bytes."""
    if parameter in TAG_TEXTS:
        return {TAG_TEXTS[parameter]: data.hex()}
    if parameter in TAG_NUMBERS:
        name, size_bytes, signed = TAG_NUMBERS[parameter]
        if len(data) == size_bytes:
            return {name: int.from_bytes(data, "big", signed=signed)}
    if parameter in TAG_FLAGS and len(data) == 1:
        return {TAG_FLAGS[parameter]: data != b"\0"}
    if parameter == TAG_NAME and (name_text := text(data)) is not None:
        return {"name": name_text}
    if parameter == TAG_BEACON_DATA and data:
        return beacon_data(data)
    return {f"parameter{parameter}": data.hex()}


def beacon_data(data: bytes) -> dict[str, Any]:
    """Flags, and a voltage of 2000 mV and 10 mV for each step if bit 7 says so; the whole stays beside it."""
    found: dict[str, Any] = {"beacon_data": data.hex()}
    if data[0] & 0x40:
        found["low_battery"] = True
    if data[0] & 0x80 and len(data) > 1:
        found["voltage_mv"] = data[1] * 10 + 2000
    return found
