"""Teltonika messages, codecs 12 to 15: answers to commands, and what a serial port of the tracker has received.

    data       u8 codec, u8 quantity (1), u8 type, u32 size, content, u8 quantity
    content    u32 seconds (13, 15), 8 bytes IMEI (14, 15), payload

A message gives one record: `message_type`, `imei` and `result`, the payload as text where it is printable, otherwise
in hexadecimal. `raw_record` is the message from its type to its end. Never raises on any bytes.
"""

from __future__ import annotations

import struct
from datetime import datetime
from typing import Any, Final

from signalkeep.model import Decoded, Outcome, Reason, Signal, Undecodable
from signalkeep.protocols.teltonika_parts import MILLISECONDS_BELOW, Cursor, text, time_of_ms

CODEC_12: Final = 0x0C
CODEC_13: Final = 0x0D
CODEC_14: Final = 0x0E
CODEC_15: Final = 0x0F
MESSAGE_CODECS: Final = frozenset({CODEC_12, CODEC_13, CODEC_14, CODEC_15})

CLOCK_SET_MS: Final = 946_684_800_000  # the year 2000: no device has sent before it


def message(data: bytes) -> Outcome:
    """Codecs 12 to 15: u8 type, u32 size, time and IMEI as the codec has them, text.

    Some devices leave the time out of the size; some send it as 8 bytes of milliseconds.
    """
    codec, content = data[0], data[2:-1]
    has_time, has_imei = codec in (CODEC_13, CODEC_15), codec in (CODEC_14, CODEC_15)
    cursor = Cursor(content)
    wire_time = None
    try:
        attributes: dict[str, Any] = {"message_type": cursor.number(1)}
        size = cursor.number(4)
        if cursor.left - size not in (0, 4 * has_time + 8 * has_imei):
            return Undecodable(Reason.BAD_FORMAT, f"a size of {size}, with {cursor.left} bytes", content or data)
        if has_time:
            wire_time = message_time(cursor)
        if has_imei:
            attributes["imei"] = cursor.take(8).hex().removeprefix("0")
    except struct.error:
        return Undecodable(Reason.BAD_FORMAT, f"codec {codec}: cut short", content or data)
    payload = cursor.take(cursor.left)
    if payload:
        attributes["result"] = text(payload) or payload.hex()
    return Decoded(Signal(wire_time=wire_time, device_time=wire_time, attributes=attributes), content)


def message_time(cursor: Cursor) -> datetime | None:
    """Seconds; or milliseconds, where these seconds would lie before 2000 and the milliseconds do not."""
    start = cursor.at
    seconds = cursor.number(4)
    if seconds * 1000 < CLOCK_SET_MS and cursor.left >= 4:
        cursor.at = start
        milliseconds = cursor.number(8)
        if CLOCK_SET_MS <= milliseconds < MILLISECONDS_BELOW:
            return time_of_ms(milliseconds)
        cursor.at = start + 4
    return time_of_ms(seconds * 1000)
