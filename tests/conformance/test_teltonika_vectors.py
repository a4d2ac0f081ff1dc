"""Every known real message of Teltonika devices, through session and decoder, fed in several ways."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from signalkeep.model import Decoded, DeviceSettings, Reason
from signalkeep.protocols.contract import Event, Frame, Identified, Refused
from signalkeep.protocols.teltonika import TELTONIKA, TELTONIKA_ENCODER
from signalkeep.protocols.teltonika_encoder import packet
from tests.conformance.vectors import Row, command_rows, rows

ROWS: Final = rows("teltonika")
LOGIN: Final = Identified("123456789012345", b"\x01", b"\x00")
# What differs from row to row:
NO_PACKET: Final = {0, 43}  # an identity, a keep-alive
MESSAGES: Final = {14, 15, 16, 30}  # codecs 12 and 13: text, no answer
NO_CLOCK: Final = {16, 30}  # codec 12 carries no time
WRONG_CHECKSUM: Final = {14, 22}  # edited by hand
CUT_SHORT: Final = {36: -3, 40: -4}  # 36 has 3 bytes of checksum, 40 says 166 bytes and has 33: where the data end
PACKETS: Final = sorted(ROWS.keys() - NO_PACKET)
WHOLE: Final = sorted(ROWS.keys() - NO_PACKET - CUT_SHORT.keys())
NAMES: Final = {"tag1Voltage": "tag1_voltage_mv", "tag1Battery": "tag1_battery_mv"}
USABLE: Final = (datetime(1999, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))


def stream_of(row: Row) -> bytes:
    """The message behind those that its conversation began with."""
    return b"".join(ROWS[index].data for index in row.setup.lead_in) + row.data


def talk(pieces: Iterable[bytes], *, end: bool = False) -> list[Event]:
    session = TELTONIKA.session()
    events = [event for piece in pieces for event in session.feed(piece)]
    return events + list(session.end()) if end else events


def repaired(row: Row) -> bytes:
    """A message that was cut short, as its device would have sent it."""
    return packet(row.data[8 : CUT_SHORT[row.index]])


def signals_of(row: Row) -> list[Any]:
    raw = repaired(row) if row.index in CUT_SHORT else row.data
    outcomes = TELTONIKA.decode(raw, "123456789012345", {}, DeviceSettings())
    assert all(isinstance(outcome, Decoded) for outcome in outcomes), outcomes
    return [outcome.signal for outcome in outcomes if isinstance(outcome, Decoded)]


@pytest.mark.parametrize("index", WHOLE)
def test_every_packet_is_framed_and_answered_however_it_is_fed(index: int) -> None:
    row = ROWS[index]
    frame = Frame(row.data, reply=b"" if index in MESSAGES else row.data[9].to_bytes(4))
    expected: list[Event] = [LOGIN, frame]
    if index in WRONG_CHECKSUM:
        expected[1] = Refused(Reason.CHECKSUM, row.data[:64], recoverable=True, frame=frame)
    stream = stream_of(row)
    assert talk([stream], end=True) == expected
    assert talk(bytes([byte]) for byte in stream) == expected
    assert talk([stream + b"\xff" + ROWS[0].data]) == [*expected, LOGIN]
    assert talk([stream + row.data[:-1]]) == expected


@pytest.mark.parametrize("index", sorted(CUT_SHORT))
def test_a_packet_that_was_cut_short_is_refused_at_the_end(index: int) -> None:
    row = ROWS[index]
    expected = [LOGIN, Refused(Reason.TRUNCATED, row.data[:64], recoverable=False, frame=Frame(row.data))]
    assert talk([stream_of(row)], end=True) == expected
    assert talk((bytes([byte]) for byte in stream_of(row)), end=True) == expected
    assert talk([ROWS[0].data, repaired(row)])[1] == Frame(repaired(row), reply=row.data[9].to_bytes(4))


@pytest.mark.parametrize("index", sorted(CUT_SHORT))
def test_a_packet_that_was_cut_short_can_be_decoded_by_hand(index: int) -> None:
    """What `decode --lenient` makes of it: the same records as of the whole packet."""
    outcomes = TELTONIKA.decode(ROWS[index].data, "123456789012345", {}, DeviceSettings())
    assert [outcome.signal for outcome in outcomes if isinstance(outcome, Decoded)] == signals_of(ROWS[index])


def test_identity_and_keep_alive() -> None:
    assert talk([ROWS[0].data], end=True) == [LOGIN]
    assert talk([stream_of(ROWS[43])], end=True) == [LOGIN]


@pytest.mark.parametrize("index", PACKETS)
def test_every_packet_decodes_as_expected(index: int) -> None:
    row = ROWS[index]
    signals = signals_of(row)
    count = 1 if index in MESSAGES else row.data[9]
    assert len(signals) == count
    if index not in NO_CLOCK:
        assert all(USABLE[0] < signal.device_time == signal.wire_time < USABLE[1] for signal in signals)
    if index not in MESSAGES:
        assert all(abs(signal.latitude) <= 90 and abs(signal.longitude) <= 180 for signal in signals)
    match row.verify:
        case "positions":
            assert row.expected.keys() <= {"check_location"}
        case "attribute":
            wanted = row.expected["attribute"]
            assert signals[0].attributes[NAMES[wanted["name"]]] == wanted["value"]
        case other:
            pytest.fail(f"a row that expects {other}, and nobody looks at it")


def test_the_devices_with_a_group_of_16_byte_values() -> None:
    assert [signal.satellites for signal in signals_of(ROWS[45])] == [18, 18, 19, 18, 17, 17, 18, 15, 16, 17, 17]
    first, *_ = signals = signals_of(ROWS[46])
    assert (first.latitude, first.longitude, first.speed_kmh) == (-33.5423734, -70.7061911, 4)
    assert all(signal.attributes["io203"] == "0" * 32 for signal in signals)
    assert [signal.attributes["trip_m"] for signal in signals] == [0, 0, 70, 3, 48, 39, 9, 14, 38, 2, 4]


def test_texts() -> None:
    results = {index: signals_of(ROWS[index])[0].attributes["result"] for index in MESSAGES}
    assert results[14] == "#GET DATAORDER"
    assert results[15] == "getinfo"
    assert results[16].startswith("UUUUww06.4;")
    assert results[30].startswith('AT$MSGSND=4,"STGB40')
    assert results[30].endswith('"')
    assert signals_of(ROWS[14])[0].wire_time == datetime(2016, 3, 16, 9, 15, 14, tzinfo=UTC)
    assert signals_of(ROWS[15])[0].wire_time == datetime(2019, 7, 19, 13, 52, 52, tzinfo=UTC)


@pytest.mark.parametrize("row", command_rows("teltonika"), ids=lambda row: row.command["data"])
def test_commands(row: Any) -> None:
    """What is written in hexadecimal is meant as bytes, everything else as text."""
    data = row.command["data"]
    is_hexadecimal = all(char in "0123456789ABCDEFabcdef" for char in data)
    command = bytes.fromhex(data) if is_hexadecimal else data
    assert TELTONIKA_ENCODER.encode_command(command).hex() == row.expected_bytes
