"""Codecs 12 to 15: texts, times and identities of messages, in the forms that devices really send."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

import pytest

from signalkeep.model import Decoded, DeviceSettings, Reason, Signal, Undecodable
from signalkeep.protocols.teltonika import TELTONIKA
from signalkeep.protocols.teltonika_encoder import packet


def message(codec: int, kind: int, content: bytes, *, size: int | None = None) -> bytes:
    size = len(content) if size is None else size
    return packet(struct.pack(">BBBI", codec, 1, kind, size) + content + b"\x01")


SECONDS = (1_700_000_000).to_bytes(4)
AT = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
IMEI = bytes.fromhex("0352093081452251")


@pytest.mark.parametrize(
    ("frame", "wire_time", "attributes"),
    [
        (message(12, 6, b"Param ID:1\r\n"), None, {"message_type": 6, "result": "Param ID:1"}),
        (message(12, 6, b"a\nb\tc"), None, {"message_type": 6, "result": "a\nb\tc"}),
        (message(12, 13, b"\x01\xff"), None, {"message_type": 13, "result": "01ff"}),
        (message(12, 6, b"a\0b"), None, {"message_type": 6, "result": "610062"}),
        (message(12, 6, b"\r\n"), None, {"message_type": 6, "result": "0d0a"}),
        (message(12, 6, b""), None, {"message_type": 6}),
        (message(13, 6, SECONDS + b"getinfo"), AT, {"message_type": 6, "result": "getinfo"}),
        (message(13, 6, SECONDS + b"getinfo", size=7), AT, {"message_type": 6, "result": "getinfo"}),
        (message(13, 6, SECONDS), AT, {"message_type": 6}),
        (
            message(13, 5, (1_700_000_000_250).to_bytes(8) + b"getinfo"),
            AT.replace(microsecond=250_000),
            {"message_type": 5, "result": "getinfo"},
        ),
        (
            message(13, 5, (60).to_bytes(4) + b"\0\0\0\x01"),
            datetime(1970, 1, 1, 0, 1, tzinfo=UTC),
            {"message_type": 5, "result": "00000001"},
        ),
        (message(14, 6, IMEI + b"ok"), None, {"message_type": 6, "imei": "352093081452251", "result": "ok"}),
        (message(14, 0x11, IMEI), None, {"message_type": 0x11, "imei": "352093081452251"}),
        (
            message(15, 11, SECONDS + IMEI + b"hello"),
            AT,
            {"message_type": 11, "imei": "352093081452251", "result": "hello"},
        ),
        (
            message(15, 11, SECONDS + IMEI + b"hello", size=5),
            AT,
            {"message_type": 11, "imei": "352093081452251", "result": "hello"},
        ),
    ],
)
def test_messages(frame: bytes, wire_time: datetime | None, attributes: dict[str, Any]) -> None:
    signal = Signal(wire_time=wire_time, device_time=wire_time, attributes=attributes)
    assert TELTONIKA.decode(frame, "", {}, DeviceSettings()) == [Decoded(signal, frame[10:-5])]


@pytest.mark.parametrize(
    "frame",
    [
        packet(b"\x0c\x01\x01"),
        packet(b"\x0c\x01\x06\x00\x00\x01"),
        message(12, 6, b"text", size=3),
        message(12, 6, b"text", size=5),
        message(13, 6, b"\0\0\0"),
        message(14, 6, IMEI[:7]),
        message(15, 6, SECONDS + IMEI[:7]),
    ],
)
def test_broken_messages(frame: bytes) -> None:
    (outcome,) = TELTONIKA.decode(frame, "", {}, DeviceSettings())
    assert isinstance(outcome, Undecodable)
    assert outcome.reason is Reason.BAD_FORMAT
    assert outcome.raw_record == (frame[10:-5] or frame[8:-4])
