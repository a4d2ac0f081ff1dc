"""Teltonika frames to records: values, what identifies a record for ever, and what becomes of broken frames."""

from __future__ import annotations

import struct
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalkeep import limits
from signalkeep.model import Decoded, DeviceSettings, Outcome, Reason, Signal, Undecodable
from signalkeep.protocols.teltonika import TELTONIKA
from signalkeep.protocols.teltonika_encoder import packet

SHEET = bytes.fromhex(
    "000000000000002b080100000140d4e3ec6e000cc661d01674a5e0fffc00000900000004020100f0000242322318000000000100007a04"
)


def decode(frame: bytes) -> list[Outcome]:
    return TELTONIKA.decode(frame, "356307042441013", {}, DeviceSettings())


def frame_of(codec: int, *records: bytes, count: int | None = None) -> bytes:
    number = bytes([len(records) if count is None else count])
    return packet(bytes([codec]) + number + b"".join(records) + number)


def record_8(
    io: bytes = bytes(4), *, at_ms: int = 1_700_000_000_000, event_id: int = 0, announced: int = 0, **values: int
) -> bytes:
    """A record of codec 8; `io`: its groups."""
    priority, longitude, latitude = values.get("priority", 0), values.get("longitude", 0), values.get("latitude", 0)
    altitude, course, satellites = values.get("altitude", 0), values.get("course", 0), values.get("satellites", 0)
    head = struct.pack(">QBiihHBH", at_ms, priority, longitude, latitude, altitude, course, satellites, 0)
    return head + bytes([event_id, announced]) + io


def signal_of(frame: bytes) -> Signal:
    (outcome,) = decode(frame)
    assert isinstance(outcome, Decoded), outcome
    return outcome.signal


def shape(frame: bytes) -> list[str]:
    """The outcomes in words: a record's satellites, or a reason."""
    return [
        str(outcome.signal.satellites) if isinstance(outcome, Decoded) else outcome.reason for outcome in decode(frame)
    ]


# Values


def test_the_example_of_the_sheet() -> None:
    at = datetime(2013, 8, 31, 15, 0, 41, 710_000, tzinfo=UTC)
    assert decode(SHEET) == [
        Decoded(
            Signal(
                wire_time=at, device_time=at, fix_valid=True, latitude=37.6743392, longitude=21.432776, altitude_m=-4,
                speed_kmh=0, course_deg=0, satellites=9, event_code=None,
                attributes={"in1": False, "motion": False, "power_v": 12.835, "gnss_speed_kmh": 0},
            ),
            SHEET[10:-5],
        )
    ]  # fmt: skip


def test_the_makers_example_of_codec_8_extended() -> None:
    frame = bytes.fromhex(
        "000000000000004a8e010000016b412cee0001000000000000000000000000000000000100050001000101000100110"
        "01d00010010015e2c880002000b000000003544c87a000e000000001dd7e06a00000100002994"
    )
    signal = signal_of(frame)
    assert signal.wire_time == datetime(2019, 6, 10, 11, 36, 32, tzinfo=UTC)
    assert (signal.event_code, signal.fix_valid, signal.latitude, signal.longitude) == ("1", False, None, None)
    assert signal.attributes == {
        "in1": True, "axis_x_mg": 29, "odometer_m": 22949000, "iccid_part1": 893700218, "iccid_part2": 500686954,
        "priority": 1,
    }  # fmt: skip


def test_the_makers_example_of_codec_16() -> None:
    frame = bytes.fromhex(
        "000000000000005f10020000016bdbc7833000000000000000000000000000000000000b05040200010000030002000b00270042563a"
        "00000000016bdbc7871800000000000000000000000000000000000b05040200010000030002000b00260042563a00000200005fb3"
    )
    first, second = (outcome.signal for outcome in decode(frame) if isinstance(outcome, Decoded))
    assert first.wire_time == datetime(2019, 7, 10, 12, 6, 54, tzinfo=UTC)
    assert second.wire_time == datetime(2019, 7, 10, 12, 6, 55, tzinfo=UTC)
    assert first.event_code == second.event_code == "11"
    expected = {"in1": False, "in3": False, "io11": 39, "power_v": 22.074, "generation_type": 5}
    assert first.attributes == expected
    assert second.attributes == expected | {"io11": 38}


def test_codec_7() -> None:
    gps = b"\xff" + struct.pack(">ffHBBBHHBI", 54.5, -25.25, 158, 18, 5, 7, 1, 779, 22, 24602)
    groups = b"\x02\x01\x5e\x02\x00" + b"\x01\x14\x00\x66" + b"\x01\x05\x00\x00\x0c\xe4"
    everything = struct.pack(">IB", 2 << 30 | 86_400, 0x0F) + gps + groups
    nothing = struct.pack(">IB", 86_401, 0)
    (first, second) = decode(frame_of(7, everything, nothing))
    at = datetime(2007, 1, 2, tzinfo=UTC)
    assert first == Decoded(
        Signal(
            wire_time=at, device_time=at, fix_valid=True, latitude=54.5, longitude=-25.25, altitude_m=158, speed_kmh=5,
            course_deg=25.3125, satellites=7,
            attributes={
                "gsm_rssi": 22, "operator_code": 24602, "io1": 94, "io2": 0, "io20": 102, "io5": 3300,
                "cells": [[246, 2, 1, 779, None]], "priority": 2,
            },
        ),
        everything,
    )  # fmt: skip
    at = datetime(2007, 1, 2, 0, 0, 1, tzinfo=UTC)
    assert second == Decoded(Signal(wire_time=at, device_time=at), nothing)


@pytest.mark.parametrize("bits", ["7fc00000", "7f800000", "ff800000"])
def test_codec_7_with_a_position_that_is_no_number(bits: str) -> None:
    signal = signal_of(frame_of(7, bytes(4) + b"\x01\x01" + bytes.fromhex(bits) + bytes(4)))
    assert (signal.latitude, signal.longitude, signal.fix_valid) == (None, None, False)


@pytest.mark.parametrize(
    ("latitude", "longitude", "satellites", "expected"),
    [
        (0, 0, 0, (None, None, False)),
        (0, 0, 5, (None, None, False)),
        (0, 1, 5, (0.0, 1e-07, True)),
        (549876543, -251234567, 0, (54.9876543, -25.1234567, False)),  # the last known one
        (900_000_000, 1_800_000_000, 1, (90.0, 180.0, True)),
        (-900_000_000, -1_800_000_000, 1, (-90.0, -180.0, True)),
        (900_000_001, 0, 9, (90.0000001, 0.0, False)),
        (-900_000_001, 0, 9, (-90.0000001, 0.0, False)),
        (0, 1_800_000_001, 9, (0.0, 180.0000001, False)),
        (0, -(2**31), 9, (0.0, -214.7483648, False)),
    ],
)
def test_positions(latitude: int, longitude: int, satellites: int, expected: tuple[Any, ...]) -> None:
    record = record_8(latitude=latitude, longitude=longitude, satellites=satellites)
    signal = signal_of(frame_of(8, record))
    assert (signal.latitude, signal.longitude, signal.fix_valid) == expected
    assert signal.satellites == satellites


@pytest.mark.parametrize(
    ("at_ms", "expected"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1_700_000_000_001, datetime(2023, 11, 14, 22, 13, 20, 1000, tzinfo=UTC)),
        (253_402_300_799_999, datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)),
        (253_402_300_800_000, None),
        (2**64 - 1, None),
    ],
)
def test_times(at_ms: int, expected: datetime | None) -> None:
    signal = signal_of(frame_of(8, record_8(at_ms=at_ms)))
    assert signal.wire_time == signal.device_time == expected


def test_an_event_with_its_alarm_and_its_priority() -> None:
    record = record_8(b"\x01\xfc\x01" + bytes(3), event_id=252, announced=1, priority=2)
    signal = signal_of(frame_of(8, record))
    assert signal.event_code == "252"
    assert signal.attributes == {"unplugged": 1, "alarm": "power_cut", "priority": 2}


def test_elements_of_their_own_length_do_not_overwrite_each_other() -> None:
    tag = b"\x01\x03\x00\x01\xc6"
    variable = b"".join(
        struct.pack(">HH", io_id, len(raw)) + raw for io_id, raw in [(548, tag), (10829, tag), (9, b"")]
    )
    record = record_8()[:24] + struct.pack(">HH", 0, 3) + bytes(8) + b"\x00\x03" + variable
    assert signal_of(frame_of(0x8E, record)).attributes == {"tag1_rssi": -58, "io10829": tag.hex(), "io9": ""}


# What identifies a record: frozen with the first release, since it decides what is a re-sent record


GOLDEN = [
    pytest.param(
        "000000000000005608020000018bcfe56800010cc661d01674a5e0fffc005a0900320005020100f0010142322301f1000060"
        "1a014e00000000000000050000018bcfe65260010cc661d01674a5e0fffc005a090032f00101f00000000002000039f2",
        [
            "0000018bcfe56800010cc661d01674a5e0fffc005a0900320005020100f0010142322301f10000601a014e0000000000000005",
            "0000018bcfe65260010cc661d01674a5e0fffc005a090032f00101f000000000",
        ],
        id="codec 8",
    ),
    pytest.param(
        "000000000000005408020000018bcfe56800010cc661d01674a5e0fffc005a090032000201010100000001cb000102030405"
        "060708090a0b0c0d0e0f0000018bcfe65260010cc661d01674a5e0fffc005a09003200000000000000020000874a",
        [
            "0000018bcfe56800010cc661d01674a5e0fffc005a090032000201010100000001cb000102030405060708090a0b0c0d0e0f",
            "0000018bcfe65260010cc661d01674a5e0fffc005a09003200000000000000",
        ],
        id="codec 8 with 16-byte values",
    ),
    pytest.param(
        "000000000000005f8e020000018bcfe56800000cc661d01674a5e0fffc005a09003201190003000100f00100010042322300"
        "00000000010119000550303239390000018bcfe6526000000000000000000000000000000000000000000000000000000000"
        "00000200008ad0",
        [
            "0000018bcfe56800000cc661d01674a5e0fffc005a09003201190003000100f0010001004232230000000000010119000550"
            "30323939",
            "0000018bcfe65260000000000000000000000000000000000000000000000000000000000000",
        ],
        id="codec 8 extended",
    ),
    pytest.param(
        "000000000000004710020000018bcfe56800000cc661d01674a5e0fffc005a090032000b07010001000b002700000000018b"
        "cfe65260000cc661d01674a5e0fffc005a090032000b0700000000000200003914",
        [
            "0000018bcfe56800000cc661d01674a5e0fffc005a090032000b07010001000b00270000",
            "0000018bcfe65260000cc661d01674a5e0fffc005a090032000b070000000000",
        ],
        id="codec 16",
    ),
    pytest.param(
        "000000000000001907025dcd65000301425a000041ca00000114661dcd653c000200007e3c",
        [
            "5dcd65000301425a000041ca0000011466",
            "1dcd653c00",
        ],
        id="codec 7",
    ),
    pytest.param(
        "000000000000001a0c010600000012506172616d2049443a312056616c75653a320100009bea",
        [
            "0600000012506172616d2049443a312056616c75653a32",
        ],
        id="codec 12",
    ),
    pytest.param(
        "00000000000000100d0106000000086553f10074657874010000d378",
        [
            "06000000086553f10074657874",
        ],
        id="codec 13",
    ),
    pytest.param(
        "00000000000000100e011100000008035209308145225101000032ac",
        [
            "11000000080352093081452251",
        ],
        id="codec 14",
    ),
    pytest.param(
        "00000000000000180f010b000000106553f1000352093081452251746578740100008f49",
        [
            "0b000000106553f100035209308145225174657874",
        ],
        id="codec 15",
    ),
]


@pytest.mark.parametrize(("frame", "records"), GOLDEN)
def test_the_bytes_of_a_record_are_frozen(frame: str, records: list[str]) -> None:
    outcomes = decode(bytes.fromhex(frame))
    assert all(isinstance(outcome, Decoded) for outcome in outcomes)
    assert [outcome.raw_record.hex() for outcome in outcomes] == records


def test_a_record_has_the_same_bytes_in_every_company() -> None:
    one, two, three = (record_8(at_ms=1_700_000_000_000 + number) for number in range(3))
    assert [outcome.raw_record for outcome in decode(frame_of(8, one, two, three))] == [one, two, three]
    assert [outcome.raw_record for outcome in decode(frame_of(8, three))] == [three]
    assert [outcome.raw_record for outcome in decode(frame_of(8, two, one))] == [two, one]


# Broken frames


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x08\x01" + record_8() + b"\x02", Reason.COUNT_MISMATCH),
        (b"\x0c\x01\x06\0\0\0\x00\x02", Reason.COUNT_MISMATCH),
        (b"\x42\x01" + record_8() + b"\x01", Reason.UNSUPPORTED),
        (b"\x42\x01" + record_8() + b"\x02", Reason.UNSUPPORTED),
    ],
)
def test_frames_that_are_set_aside_whole(data: bytes, reason: Reason) -> None:
    (outcome,) = decode(packet(data))
    assert isinstance(outcome, Undecodable)
    assert (outcome.reason, outcome.raw_record) == (reason, data)


@pytest.mark.parametrize("frame", [b"", b"\0", SHEET[:-5], SHEET + b"\0", SHEET[:8], bytes(14), SHEET[:4] * 4])
def test_what_is_no_frame(frame: bytes) -> None:
    (outcome,) = decode(frame)
    assert isinstance(outcome, Undecodable)
    assert (outcome.reason, outcome.raw_record) == (Reason.BAD_FORMAT, frame)


def test_a_frame_that_lost_its_checksum_on_the_way_can_be_tried_by_hand() -> None:
    """Its session refuses it; `decode --lenient` shows what was in it."""
    for cut in range(1, 5):
        assert decode(SHEET[:-cut]) == decode(SHEET)


def test_a_frame_may_have_no_records() -> None:
    assert decode(frame_of(8)) == decode(frame_of(0x8E)) == decode(frame_of(7)) == []


ONE, TWO, THREE = (record_8(satellites=number) for number in (1, 2, 3))
BROKEN = record_8(b"\x05\x01\x00" + bytes(3), satellites=9, announced=1)  # names five elements, and has one


def test_records_in_front_of_a_broken_one_are_kept() -> None:
    frame = frame_of(8, ONE, TWO, BROKEN, THREE)
    assert shape(frame) == ["1", "2", "bad_format"]
    assert decode(frame)[2].raw_record == BROKEN + THREE
    assert shape(frame_of(8, BROKEN, ONE)) == ["bad_format"]


PAIRS = {size: (bytes([7]) + bytes(size)) * 2 for size in (1, 2, 4, 8)}
RICH_8 = record_8(b"".join(b"\x02" + pairs for pairs in PAIRS.values()), satellites=2, announced=8)
WIDE_PAIRS = {size: (b"\x00\x07" + bytes(size)) * 2 for size in (1, 2, 4, 8)}
TEXTS = b"\x00\x02" + b"\x00\x07\x00\x02ab" * 2
RICH_8_EXTENDED = (
    ONE[:23]
    + b"\x00"
    + struct.pack(">HH", 0, 10)
    + b"".join(b"\x00\x02" + pairs for pairs in WIDE_PAIRS.values())
    + TEXTS
)
EMPTY_8_EXTENDED = ONE[:24] + bytes(14)


@pytest.mark.parametrize(
    ("codec", "first", "last"),
    [
        pytest.param(8, ONE, RICH_8, id="codec 8"),
        pytest.param(0x8E, EMPTY_8_EXTENDED, RICH_8_EXTENDED, id="codec 8 extended"),
    ],
)
def test_records_that_run_short(codec: int, first: bytes, last: bytes) -> None:
    """Wherever the last one is cut: the first is kept, and never half of the last."""
    assert len(decode(frame_of(codec, first, last))) == 2
    for cut in range(1, len(last)):
        frame = frame_of(codec, first, last[:cut], count=2)
        assert shape(frame) == ["1", "bad_format"]
        assert decode(frame)[1].raw_record == last[:cut]


def test_records_that_are_not_there_at_all() -> None:
    frame = frame_of(8, ONE, TWO, count=4)
    assert shape(frame) == ["1", "2", "bad_format"]
    assert decode(frame)[2].raw_record == frame[8:-4]


def test_bytes_behind_the_last_record() -> None:
    frame = frame_of(8, ONE, TWO, b"more", count=2)
    assert shape(frame) == ["1", "2", "bad_format"]
    assert decode(frame)[2].raw_record == b"more"
    assert shape(frame_of(8, b"more", count=0)) == ["bad_format"]


def test_a_wrong_announcement_alone_spoils_nothing() -> None:
    """The records end where they must, so they are what they seem."""
    assert shape(frame_of(8, ONE, record_8(satellites=2, announced=7), THREE)) == ["1", "2", "3"]


def test_groups_and_elements_that_go_on_behind_the_end() -> None:
    head = ONE[:24]
    assert shape(frame_of(8, ONE[:-4] + b"\xff")) == ["bad_format"]
    assert shape(frame_of(0x8E, head + bytes(4) + b"\xff\xff" + bytes(40))) == ["bad_format"]
    assert shape(frame_of(0x8E, head + bytes(12) + b"\x00\x01" + b"\x00\x09\xff\xff")) == ["bad_format"]
    assert shape(frame_of(0x8E, head + bytes(12) + b"\xff\xff" + b"\x00\x09\x00\x00")) == ["bad_format"]


def test_the_16_byte_group_is_found_only_where_the_rest_does_not_fit() -> None:
    wide = record_8(bytes(4) + b"\x01\xcb" + bytes(range(16)), satellites=4, announced=1)
    none = record_8(bytes(5), satellites=5)
    frame = frame_of(8, wide, none, wide)
    assert shape(frame) == ["4", "5", "4"]
    first = decode(frame)[0]
    assert isinstance(first, Decoded)
    assert first.signal.attributes == {"io203": bytes(range(16)).hex()}
    assert shape(frame_of(8, wide, ONE)) == ["bad_format"], "one set-up for all records"


@given(
    st.sampled_from([8, 0x8E, 16, 7, 12, 13, 14, 15, 66]), st.integers(0, 255), st.binary(max_size=120), st.booleans()
)
def test_any_data_give_outcomes_that_hold_all_bytes(codec: int, count: int, records: bytes, differ: bool) -> None:
    data = bytes([codec, count]) + records + bytes([(count + differ) % 256])
    outcomes = decode(packet(data))
    assert len(outcomes) <= count + 1
    assert all(outcome.raw_record for outcome in outcomes)
    if codec not in (12, 13, 14, 15) and outcomes:
        joined = b"".join(outcome.raw_record for outcome in outcomes)
        whole = outcomes[-1].raw_record == data
        assert whole or joined == records


@given(st.binary(max_size=100))
def test_any_bytes_give_outcomes(frame: bytes) -> None:
    assert decode(frame)


HEAD_OF_ONE_TEXT = ONE[:24] + bytes(12) + b"\x00\x01"


def lines_run(frame: bytes) -> int:
    count = 0

    def trace(*_: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        decode(frame)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    ("codec", "piece", "count"),
    [
        pytest.param(7, bytes(5), 255, id="the smallest records"),
        pytest.param(8, bytes(31), 255, id="records of zeros"),
        pytest.param(8, b"\xff", 255, id="every count at its largest"),
        pytest.param(0x8E, ONE[:24] + bytes(12) + b"\x02\x00" + b"\x01\x81\x00\x00" * 512, 9, id="empty elements"),
        pytest.param(0x8E, HEAD_OF_ONE_TEXT + b"\x02\x24\xf0\x00" + bytes(61440), 1, id="empty tags"),
        pytest.param(0x8E, HEAD_OF_ONE_TEXT + b"\x02\x24\x0c\x01\x01" + b"\x02\x10\x00" * 1024, 1, id="tags"),
    ],
)
def test_work_is_bounded_by_the_bytes(codec: int, piece: bytes, count: int) -> None:
    size = min(len(piece) * count, limits.FRAME_BYTES_MAX - 15)
    frame = frame_of(codec, (piece * count)[:size], count=count)
    assert lines_run(frame) < 40 * len(frame)
