"""What the encoder writes is read back as it was; what no packet can say is left out or refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalkeep.errors import CallerError
from signalkeep.model import Decoded, DeviceSettings, Signal
from signalkeep.protocols.contract import Encoder, Frame, Identified
from signalkeep.protocols.teltonika import TELTONIKA, TELTONIKA_ENCODER
from signalkeep.protocols.teltonika_encoder import TeltonikaEncoder
from signalkeep.protocols.teltonika_io import ALARMS, ELEMENTS, GREEN_DRIVING, TABLES, add_numbers
from signalkeep.protocols.teltonika_variable import attributes_of

START = datetime(2020, 1, 1, tzinfo=UTC)
CODEC_8 = TeltonikaEncoder(extended=False)
ENCODERS = {"codec 8": CODEC_8, "codec 8 extended": TELTONIKA_ENCODER}


def decoded(raw: bytes) -> list[Signal]:
    outcomes = TELTONIKA.decode(raw, "", {}, DeviceSettings())
    assert all(isinstance(outcome, Decoded) for outcome in outcomes), outcomes
    return [outcome.signal for outcome in outcomes if isinstance(outcome, Decoded)]


def round_trip(*signals: Signal, encoder: Encoder = TELTONIKA_ENCODER) -> list[Signal]:
    return decoded(encoder.encode_frame("1", list(signals)))


def with_attributes(attributes: dict[str, Any], event_code: str | None = None) -> Signal:
    """A signal with the fields that a record without a fix has."""
    return Signal(
        wire_time=START, device_time=START, altitude_m=0, speed_kmh=0, course_deg=0, satellites=0,
        event_code=event_code, attributes=attributes,
    )  # fmt: skip


def test_a_conversation() -> None:
    raw = TELTONIKA_ENCODER.encode_frame("356307042441013", [with_attributes({}), with_attributes({})])
    session = TELTONIKA.session()
    assert list(session.feed(TELTONIKA_ENCODER.encode_login("356307042441013") + raw)) == [
        Identified("356307042441013", b"\x01", b"\x00"),
        Frame(raw, reply=b"\0\0\0\x02"),
    ]
    assert raw[8] == 0x8E
    assert CODEC_8.encode_frame("1", [])[8] == 8


def test_the_makers_command() -> None:
    expected = "000000000000000f0c010500000007676574696e666f0100004312"
    assert TELTONIKA_ENCODER.encode_command("getinfo").hex() == expected
    assert TELTONIKA_ENCODER.encode_command(b"getinfo").hex() == expected
    (signal,) = decoded(bytes.fromhex(expected))
    assert signal.attributes == {"message_type": 5, "result": "getinfo"}


@st.composite
def attribute_sets(draw: st.DrawFn, id_max: int) -> dict[str, Any]:
    """As decoded from random elements: mapped numbers, numbers that nothing is known of, and cells."""
    attributes: dict[str, Any] = {}
    for element in draw(st.lists(st.sampled_from(ELEMENTS), max_size=8)):
        if element.io_id <= id_max and element.name not in attributes and not element.name.startswith("gsm_"):
            raw = draw(st.integers(0, 256**element.size_bytes - 1))
            add_numbers(attributes, [(element.io_id, raw)], TABLES[element.size_bytes])
    for io_id in draw(st.lists(st.integers(0, id_max), max_size=4)):
        attributes[f"io{io_id}"] = draw(st.integers(0, 2**64 - 1 if io_id not in TABLES[8] else 2**32 - 1))
    if draw(st.booleans()):
        code = attributes.get("operator_code", 0)
        home = [int(str(code)[:3]), int(str(code)[3:])] if 10_000 <= code < 1_000_000 else [None, None]
        attributes["cells"] = [[*home, draw(st.integers(0, 65535)), draw(st.integers(0, 65535)), None]]
    if draw(st.booleans()):
        attributes["priority"] = draw(st.integers(1, 255))
    return attributes


TEXTS = st.fixed_dictionaries(
    {},
    optional={
        "vin": st.text("ABCDEFGH0123456789", min_size=1, max_size=17),
        "dtcs": st.lists(st.text("PCBU0123456789", min_size=5, max_size=5), max_size=5),
        "io1000": st.binary(max_size=20).map(bytes.hex),
    },
)


@st.composite
def signals(draw: st.DrawFn, id_max: int) -> Signal:
    at = START + timedelta(milliseconds=draw(st.integers(-(10**12), 10**12)))
    longitude, latitude = draw(st.integers(-1_800_000_000, 1_800_000_000)), draw(st.integers(-900_000_000, 900_000_000))
    is_place = (longitude, latitude) != (0, 0)
    satellites = draw(st.integers(0, 255))
    event_id = draw(st.integers(0, id_max).filter(lambda found: found not in ALARMS and found != GREEN_DRIVING))
    return Signal(
        wire_time=at,
        device_time=at,
        fix_valid=is_place and satellites > 0,
        latitude=latitude / 1e7 if is_place else None,
        longitude=longitude / 1e7 if is_place else None,
        altitude_m=draw(st.integers(-32768, 32767)),
        speed_kmh=draw(st.integers(0, 65535)),
        course_deg=draw(st.integers(0, 65535)),
        satellites=satellites,
        event_code=str(event_id) if event_id else None,
        attributes=draw(attribute_sets(id_max)),
    )


@given(st.lists(signals(65535), max_size=4), TEXTS)
def test_what_was_encoded_is_decoded(sent: list[Signal], texts: dict[str, Any]) -> None:
    for signal in sent:
        signal.attributes |= texts
    assert round_trip(*sent) == sent


@given(st.lists(signals(255), max_size=4))
def test_what_was_encoded_as_codec_8_is_decoded(sent: list[Signal]) -> None:
    assert round_trip(*sent, encoder=CODEC_8) == sent


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_every_mapped_number_has_its_way_back(encoder: Encoder) -> None:
    for element in ELEMENTS:
        if element.io_id <= 255 or encoder is TELTONIKA_ENCODER:
            for raw in (1, 100, 256**element.size_bytes - 1, 256**element.size_bytes // 2):
                attributes: dict[str, Any] = {}
                add_numbers(attributes, [(element.io_id, raw % 256**element.size_bytes)], TABLES[element.size_bytes])
                (found,) = round_trip(with_attributes(attributes), encoder=encoder)
                assert found.attributes == attributes


def test_the_alarm_of_an_event_comes_back() -> None:
    sent = with_attributes({"unplugged": 1, "alarm": "power_cut"}, event_code="252")
    assert round_trip(sent) == [sent]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("no_such_name", 1),
        ("alarm", "sos"),
        ("power_v", 12.3456),
        ("power_v", 70.0),
        ("power_v", -1.0),
        ("power_v", "12"),
        ("power_v", float("nan")),
        ("power_v", float("inf")),
        ("power_v", None),
        ("ignition", "on"),
        ("coolant_c", 128.05),
        ("rpm", 70_000),
        ("temp1_c", 126.0),
        ("ble_temp1_c", 20.0),
        ("driver_id", "xyz"),
        ("driver_id", "0102"),
        ("driver_id", 5),
        ("rfid", "0x01"),
        ("vin", ""),
        ("vin", "\u00e4"),
        ("vin", 17),
        ("dtcs", ["P0,300"]),
        ("dtcs", 5),
        ("io5", -1),
        ("io5", 2**64),
        ("io5", 1.5),
        ("io5", "xyz"),
        ("io256", "4142"),
        ("io70000", 1),
        ("io70000", "00"),
        ("cells", []),
        ("cells", [[1, 2, 3, 4, None]]),
        ("cells", [[None, None, 3, 4, -70]]),
        ("cells", 5),
    ],
)
def test_an_attribute_that_no_element_says_is_left_out(name: str, value: Any) -> None:
    sent = with_attributes({name: value, "ignition" if name != "ignition" else "motion": True})
    (found,) = round_trip(sent)
    assert name not in found.attributes
    assert len(found.attributes) == 1


def test_codec_8_has_no_texts_and_no_wide_ids() -> None:
    sent = with_attributes({"out3": True, "vin": "WV1", "io9": "00", "rpm": 800})
    (found,) = round_trip(sent, encoder=CODEC_8)
    assert found.attributes == {"rpm": 800}
    assert attributes_of(256, b"WV1") == {"vin": "WV1"}


@pytest.mark.parametrize(
    "signal",
    [
        Signal(wire_time=None, device_time=None),
        with_attributes({}, event_code="4002 on"),
        with_attributes({}, event_code="70000"),
        with_attributes({"priority": 256}),
        with_attributes({"priority": "high"}),
        Signal(wire_time=START, device_time=None, latitude=300.0),
        Signal(wire_time=START, device_time=None, speed_kmh=1e6),
        Signal(wire_time=datetime(1969, 1, 1, tzinfo=UTC), device_time=None),
    ],
)
def test_a_value_that_no_packet_holds(signal: Signal) -> None:
    with pytest.raises(CallerError):
        TELTONIKA_ENCODER.encode_frame("1", [signal])


def test_a_packet_has_its_limits() -> None:
    assert len(round_trip(*[with_attributes({})] * 255)) == 255
    with pytest.raises(CallerError, match="255"):
        TELTONIKA_ENCODER.encode_frame("1", [with_attributes({})] * 256)
    with pytest.raises(CallerError, match="65536"):
        TELTONIKA_ENCODER.encode_frame("1", [with_attributes({"io1000": "00" * 40_000}) for _ in range(2)])
    with pytest.raises(CallerError, match="255"):
        CODEC_8.encode_frame("1", [with_attributes({}, event_code="256")])


def test_the_time_of_the_device_stands_in_for_a_missing_one() -> None:
    (found,) = round_trip(Signal(wire_time=None, device_time=START))
    assert found.wire_time == START
