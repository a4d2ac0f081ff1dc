"""Teltonika datagrams: what is one, what is answered with which ids, what is refused and how they decode."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from signalkeep.errors import CallerError
from signalkeep.model import Decoded, DeviceSettings, Reason, Undecodable
from signalkeep.protocols.contract import Event, Frame, Identified, Refused
from signalkeep.protocols.teltonika import TELTONIKA
from signalkeep.protocols.teltonika_encoder import datagram

# The example of the maker's public page, and its answer.
EXAMPLE = bytes.fromhex(
    "003dcafe0105000f33353230393330383634303336353508010000016b4f815b30010000000000000000000000000000000103021503010101"
    "425dbc000001"
)
ANSWER = bytes.fromhex("0005cafe010501")
UDP = {"transport": "udp"}


def events(raw: bytes) -> list[Event]:
    return list(TELTONIKA.datagram(raw))


def test_the_makers_example() -> None:
    assert events(EXAMPLE) == [Identified("352093086403655"), Frame(EXAMPLE, UDP, ANSWER)]
    (outcome,) = TELTONIKA.decode(EXAMPLE, "352093086403655", UDP, DeviceSettings())
    assert isinstance(outcome, Decoded)
    assert outcome.signal.wire_time == datetime(2019, 6, 13, 6, 23, 26, tzinfo=UTC)
    assert outcome.signal.attributes["power_v"] == 23.996
    assert outcome.raw_record == EXAMPLE[25:-1]


def test_the_ids_of_a_datagram_come_back_and_leave_no_trace_in_its_records() -> None:
    data = EXAMPLE[23:]
    other = datagram("352093086403655", data, packet_id=0x1234, avl_packet_id=0xAB)
    assert events(other)[1] == Frame(other, UDP, bytes.fromhex("0005123401ab01"))
    assert TELTONIKA.decode(other, "", UDP, DeviceSettings()) == TELTONIKA.decode(EXAMPLE, "", UDP, DeviceSettings())


def test_messages_are_kept_and_not_answered() -> None:
    message = datagram("352093086403655", bytes.fromhex("0c01060000000548656c6c6f01"), packet_id=1, avl_packet_id=1)
    assert events(message)[1] == Frame(message, UDP)
    (outcome,) = TELTONIKA.decode(message, "", UDP, DeviceSettings())
    assert isinstance(outcome, Decoded)
    assert outcome.signal.attributes["result"] == "Hello"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", Reason.UNFRAMABLE),
        (EXAMPLE[:7], Reason.UNFRAMABLE),
        (EXAMPLE[:-1], Reason.TRUNCATED),
        (EXAMPLE + b"\0", Reason.UNFRAMABLE),
        (datagram("no digits", EXAMPLE[23:], packet_id=1, avl_packet_id=1), Reason.BAD_IDENTITY),
        (datagram("", EXAMPLE[23:], packet_id=1, avl_packet_id=1), Reason.BAD_IDENTITY),
        (datagram("7" * 65, EXAMPLE[23:], packet_id=1, avl_packet_id=1), Reason.BAD_IDENTITY),
        (datagram("7" * 64, b"\x08\x00", packet_id=1, avl_packet_id=1), Reason.UNFRAMABLE),
    ],
)
def test_what_is_no_datagram_is_refused(raw: bytes, reason: Reason) -> None:
    assert events(raw) == [Refused(reason, raw[:64], recoverable=True)]


@pytest.mark.parametrize("raw", [b"", EXAMPLE[:20], EXAMPLE[:24]])
def test_too_short_to_decode(raw: bytes) -> None:
    (outcome,) = TELTONIKA.decode(raw, "", UDP, DeviceSettings())
    assert isinstance(outcome, Undecodable)
    assert outcome.reason is Reason.BAD_FORMAT


def test_what_no_datagram_holds_is_the_callers_mistake() -> None:
    with pytest.raises(CallerError, match="datagram"):
        datagram("1", bytes(65_536), packet_id=1, avl_packet_id=1)
