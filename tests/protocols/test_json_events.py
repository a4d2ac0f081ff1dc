"""The protocol json: where events begin and end, what their keys mean, and what becomes of everything else."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalkeep import limits
from signalkeep.ingest.keys import digest
from signalkeep.model import Decoded, DeviceSettings, Reason, Signal, Undecodable
from signalkeep.protocols.contract import Event, Frame, Identified, Refused
from signalkeep.protocols.json_events import JSON, JSON_ENCODER

TALK = (
    rb'{ "device_number": "86915304265485", "event_code": "4002", "message_date": "2020\/02\/05 12:18:28", '
    rb'"latitude": "37.9815116", "longitude": "23.7315200"}'
)
A = b'{"device_number":"A"}'
B = b'{"device_number":"B"}'
MAX = limits.FRAME_BYTES_MAX
untimed = settings(deadline=None)


def talk(stream: bytes, *, end: bool = True) -> list[Event]:
    """The events of a stream, which must be the same whole and byte by byte."""
    whole, single = JSON.session(), JSON.session()
    events = list(whole.feed(stream))
    singly = [event for byte in stream for event in single.feed(bytes([byte]))]
    if end:
        events += whole.end()
        singly += single.end()
    assert singly == events
    return events


def frames(stream: bytes) -> list[bytes]:
    return [event.raw for event in talk(stream) if isinstance(event, Frame)]


def refusals(stream: bytes) -> list[tuple[Reason, bytes, bool]]:
    return [(event.reason, event.sample, event.recoverable) for event in talk(stream) if isinstance(event, Refused)]


def decode(raw: bytes | dict[str, Any], time_zone: str = "") -> Decoded | Undecodable:
    raw = raw if isinstance(raw, bytes) else msgspec.json.encode(raw)
    (outcome,) = JSON.decode(raw, "1", {}, DeviceSettings(time_zone))
    assert outcome.raw_record == raw
    return outcome


def signal(**keys: Any) -> Signal:
    outcome = decode(keys)
    assert isinstance(outcome, Decoded), outcome
    return outcome.signal


def bad_value(**keys: Any) -> str:
    outcome = decode(keys)
    assert isinstance(outcome, Undecodable)
    assert outcome.reason is Reason.BAD_VALUE
    return outcome.detail


# Framing


def test_the_talks_event_needs_no_newline_and_no_end() -> None:
    assert talk(TALK, end=False) == [Identified("86915304265485"), Frame(TALK, reply=b"1")]


def test_the_device_is_named_whenever_it_changes() -> None:
    nobody = b'{"event_code":"1"}'
    assert talk(A + A + b"\r\n" + B + nobody + nobody + A) == [
        Identified("A"), Frame(A, reply=b"1"), Frame(A, reply=b"1"),
        Identified("B"), Frame(B, reply=b"1"),
        Identified(""), Frame(nobody, reply=b"1"), Frame(nobody, reply=b"1"),
        Identified("A"), Frame(A, reply=b"1"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ('"86915304265485"', "86915304265485"),
        ("86915304265485", "86915304265485"),
        ('" x-1 "', "x-1"),
        ('"' + "7" * 64 + '"', "7" * 64),
        ('"' + "7" * 65 + '"', ""),
        ("7" * 5000, ""),
        ('""', ""),
        ('"a b"', ""),
        ('"a\\u0000b"', ""),
        ('"\\ud800"', ""),
        ('"\u00e4"', ""),
        ("1.5", ""),
        ("true", ""),
        ("null", ""),
        ("[1]", ""),
    ],
)
def test_what_can_be_a_device_number(sent: str, expected: str) -> None:
    raw = f'{{"device_number":{sent}}}'.encode()
    assert talk(raw) == [Identified(expected), Frame(raw, reply=b"1")]


def test_a_flaw_elsewhere_in_the_event_does_not_hide_the_device() -> None:
    raw = b'{"note":"\xff","device_number":"A"}'
    assert talk(raw)[0] == Identified("A")
    assert isinstance(decode(raw), Undecodable)


@pytest.mark.parametrize("raw", [b"{}", b"{abc}", b'{"a":[1}', b'{"a":1]}', b'{"}":"\\"}"}', b'{"a":{"b":[{}]}}'])
def test_an_event_is_whatever_is_balanced(raw: bytes) -> None:
    assert frames(raw + A) == [raw, A]


def test_an_event_may_be_spread_over_lines() -> None:
    raw = b'{\n "a":\n  {"b": [\n {"c": 1},\n {"d": 2}\n ]\n},\r\n\t"device_number": "A"\n}'
    assert frames(raw) == [raw]


def test_blanks_and_a_byte_order_mark_are_skipped() -> None:
    assert frames(b"\xef\xbb\xbf\r\n\t " + A + b"\n\n\n" + B + b"\n") == [A, B]
    assert refusals(b"\xef\xbb\xbf\n \n" + A) == []
    assert refusals(b"\xef\xbb") == [(Reason.UNFRAMABLE, b"\xef\xbb", True)]
    assert refusals(A + b"\xef\xbb\xbf\n") == [(Reason.UNFRAMABLE, b"\xef\xbb\xbf", True)]


def test_junk_is_refused_up_to_the_newline() -> None:
    stream = b"GET / HTTP/1.1\r\nHost: x\n" + A + b",\n" + b"x" * 100 + B + b"\n" + B + b"rest"
    assert frames(stream) == [A, B]
    assert refusals(stream) == [
        (Reason.UNFRAMABLE, b"GET / HTTP/1.1\r", True),
        (Reason.UNFRAMABLE, b"Host: x", True),
        (Reason.UNFRAMABLE, b",", True),
        (Reason.UNFRAMABLE, b"x" * limits.REFUSED_SAMPLE_BYTES_MAX, True),
        (Reason.UNFRAMABLE, b"rest", True),
    ]


def test_too_much_junk_ends_the_stream() -> None:
    assert refusals(b"x" * MAX + b"\n" + A) == [(Reason.UNFRAMABLE, b"x" * 64, True)]
    assert talk(b"x" * (MAX + 1) + b"\n" + A) == [Refused(Reason.UNFRAMABLE, b"x" * 64, recoverable=False)]


def test_the_largest_event_and_one_byte_more() -> None:
    frame = b'{"note":"' + b"x" * (MAX - 11) + b'"}'
    assert len(frame) == MAX
    assert frames(frame + A) == [frame, A]
    longer = b'{"note":"x' + frame[9:]
    assert talk(longer + A) == [Refused(Reason.OVERSIZED, longer[:64], recoverable=False)]


@pytest.mark.parametrize(
    "cut",
    [
        b'{"device_number":"A","note":"the conn',
        b'{"device_number":"A","note":"\\',
        b'{"device_number":"A","not',
        b'{"device_number":"A","lat":37.9',
        b'{"device_number":"A"',
        b'{"device_number":"A",',
        b'{"device_number"',
        b'{"device_number":"A","list":[1, 2',
        b'{"device_number":"A","inner":{"a":1}',
        b"{",
    ],
)
def test_a_cut_event_does_not_swallow_the_next(cut: bytes) -> None:
    stream = cut + b"\n" + B + b"\n"
    assert frames(stream) == [B]
    ((reason, sample, recoverable),) = refusals(stream)
    assert (reason, sample.rstrip(), recoverable) == (Reason.TRUNCATED, cut, True)


def test_cut_where_an_object_may_stand_the_event_after_the_next_is_whole() -> None:
    cut = b'{"device_number":"A","inner":\n'
    assert frames(cut + B + b"\n" + A) == [A]
    assert refusals(cut + B + b"\n" + A) == [(Reason.TRUNCATED, cut + B + b"\n", True)]


def test_what_the_end_cuts_off_is_truncated() -> None:
    assert refusals(A + TALK[:-1]) == [(Reason.TRUNCATED, TALK[:64], True)]


def test_nesting_has_a_limit() -> None:
    depth = limits.JSON_NESTING_MAX
    deepest = b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
    assert frames(deepest + A) == [deepest, A]
    deeper = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    assert frames(deeper + B + b"\n" + A) == [A]
    assert refusals(deeper + B + b"\n" + A) == [(Reason.UNFRAMABLE, (deeper + B)[:64], True)]
    spread = b'{"a":\n' + b"[" * depth
    assert refusals(spread + b"\n") == [(Reason.UNFRAMABLE, spread[:64], True)]


def test_after_the_end_nothing_is_read() -> None:
    session = JSON.session()
    assert list(session.feed(A[:5])) != list(session.end())
    assert list(session.feed(A)) == []
    assert list(session.end()) == []


PIECES = st.sampled_from([b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"\n", b"a", b" ", b'{"a":1}'])


@untimed
@given(st.lists(PIECES, max_size=limits.REFUSED_SAMPLE_BYTES_MAX // 7))
def test_every_byte_ends_in_a_frame_or_a_refusal_or_is_blank(pieces: list[bytes]) -> None:
    """Nothing is dropped silently. The streams are so short that samples are whole."""
    rest = b"".join(pieces)
    for event in talk(rest):
        if not isinstance(event, Identified):
            assert isinstance(event, Frame | Refused)
            shown = event.raw if isinstance(event, Frame) else event.sample
            skipped, found, rest = rest.partition(shown)
            assert found
            assert not skipped.strip(b" \n")
    assert not rest.strip(b" \n")


# Decoding


def test_the_talks_event() -> None:
    at = datetime(2020, 2, 5, 12, 18, 28, tzinfo=UTC)
    assert decode(TALK) == Decoded(
        Signal(
            wire_time=at, device_time=at, fix_valid=True, latitude=37.9815116, longitude=23.73152, event_code="4002"
        ),
        TALK,
    )


def test_the_bytes_that_make_the_record_key_are_frozen() -> None:
    assert digest(JSON.name, decode(TALK).raw_record) == 2642060704145459845


NOON = datetime(2020, 2, 5, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("sent", "wire_time", "device_time"),
    [
        ("2020/02/05 12:00:00", NOON, NOON.replace(hour=10)),
        ("2020-02-05T12:00:00", NOON, NOON.replace(hour=10)),
        ("2020-02-05 12:00", NOON, NOON.replace(hour=10)),
        ("2020-07-05 12:00:00", NOON.replace(month=7), NOON.replace(month=7, hour=9)),
        (" 2020-02-05T12:00:00.25 ", NOON.replace(microsecond=250_000), NOON.replace(hour=10, microsecond=250_000)),
        ("2020-02-05T12:00:00Z", NOON, NOON),
        ("2020-02-05T12:00:00.123456789Z", NOON.replace(microsecond=123_456), NOON.replace(microsecond=123_456)),
        ("2020-02-05T14:00:00+02:00", NOON, NOON),
        ("2020-02-05T06:30:00 -0530", NOON, NOON),
        ("2020-02-05T13:00+01", NOON, NOON),
        (1580904000, NOON, NOON),
        ("1580904000", NOON, NOON),
        (1580904000.5, NOON.replace(microsecond=500_000), NOON.replace(microsecond=500_000)),
        (1580904000123, NOON.replace(microsecond=123_000), NOON.replace(microsecond=123_000)),
        ("1580904000123", NOON.replace(microsecond=123_000), NOON.replace(microsecond=123_000)),
        (None, None, None),
        (" ", None, None),
    ],
)
def test_dates(sent: Any, wire_time: datetime | None, device_time: datetime | None) -> None:
    """A device in Athens: its zone moves the device time of dates without a zone, and nothing else."""
    outcome = decode({"message_date": sent}, "Europe/Athens")
    assert isinstance(outcome, Decoded)
    assert (outcome.signal.wire_time, outcome.signal.device_time) == (wire_time, device_time)
    outcome = decode({"message_date": sent})
    assert isinstance(outcome, Decoded)
    assert outcome.signal.wire_time == outcome.signal.device_time == wire_time


@pytest.mark.parametrize(
    "sent",
    [
        "yesterday", "2020-02-30 12:00:00", "2020-02-05 24:00:00", "2020-02-05", "05/02/2020 12:00:00",
        "2020-02-05T12:00:00+25:00", "0001-01-01T00:00:00+01:00", "9" * 30, 10**15, -(10**14), 1e300, True,
        ["2020"], {"a": 1}, "\u0662020-02-05 12:00:00", "2020-02-05 12:00:00\n.5", "1" * 100,
    ],
)  # fmt: skip
def test_a_date_that_is_none_names_itself(sent: Any) -> None:
    detail = bad_value(message_date=sent, latitude=1, longitude=1)
    assert detail.startswith("message_date is ")
    assert repr(sent)[:20].strip("'") in detail


def test_device_time_stands_in_for_a_missing_message_date() -> None:
    assert signal(device_time="2020-02-05T12:00:00Z").wire_time == NOON
    both = signal(message_date="2020-02-05 12:00:00", device_time="x")
    assert both.wire_time == NOON
    assert both.attributes == {"device_time": "x"}


def test_an_unknown_time_zone_is_a_reason_only_where_it_is_needed() -> None:
    for zone in ("Nowhere/City", "../x", "Europe", "a\0b"):
        outcome = decode({"message_date": "2020-02-05 12:00:00"}, zone)
        assert isinstance(outcome, Undecodable)
        assert outcome.wire_time == NOON  # the record keeps its key
        assert "time zone" in outcome.detail
        assert isinstance(decode({"message_date": "2020-02-05 12:00:00Z"}, zone), Decoded)


def test_standard_names_become_fields_and_the_rest_attributes() -> None:
    found = signal(
        device_number="A", latitude=-1, longitude="2.5", altitude_m="12", speed_kmh=50, course_deg="359.5",
        satellites="7", fix_valid=True, event_code=4002, speed=31, ignition=True, nested={"a": [1, None]},
    )  # fmt: skip
    assert found == Signal(
        wire_time=None, device_time=None, fix_valid=True, latitude=-1.0, longitude=2.5, altitude_m=12.0,
        speed_kmh=50.0, course_deg=359.5, satellites=7, event_code="4002",
        attributes={"speed": 31, "ignition": True, "nested": {"a": [1, None]}},
    )  # fmt: skip


def test_other_names_are_read_where_the_standard_name_is_missing() -> None:
    found = signal(altitude=5, course=90)
    assert (found.altitude_m, found.course_deg, found.attributes) == (5, 90, {})
    found = signal(altitude=5, altitude_m=6)
    assert (found.altitude_m, found.attributes) == (6, {"altitude": 5})


@pytest.mark.parametrize("key", ["latitude", "longitude", "altitude_m", "speed_kmh", "course_deg", "satellites"])
@pytest.mark.parametrize("sent", ["north", "37,98", "nan", "inf", "1e999", "1_0", "0x1", True, [1], {}, 10**400])
def test_a_number_that_is_none_names_itself(key: str, sent: Any) -> None:
    raw = f'{{"message_date":"2020-02-05 12:00:00","{key}":'.encode() + str_json(sent) + b"}"
    outcome = decode(raw)
    assert isinstance(outcome, Undecodable)
    assert outcome.reason is Reason.BAD_VALUE
    assert outcome.wire_time == NOON
    assert outcome.detail.startswith(f"{key} is ")
    assert repr(sent)[:30] in outcome.detail


def str_json(value: Any) -> bytes:
    """Python's integers have no bound, msgspec writes those of 64 bits."""
    return str(value).encode() if type(value) is int else msgspec.json.encode(value)


def test_satellites_are_whole_and_codes_are_text_or_whole() -> None:
    assert signal(satellites=7.0).satellites == 7
    assert bad_value(satellites=7.5) == "satellites is 7.5"
    assert bad_value(event_code=[1]) == "event_code is [1]"
    assert bad_value(event_code=True) == "event_code is True"
    assert signal(event_code=" ").event_code is None


@pytest.mark.parametrize(
    ("latitude", "longitude", "said", "expected"),
    [
        (1, 1, None, True),
        (90, -180, None, True),
        (0, 1, None, True),
        (0, 0, None, False),
        ("0.000", "-0", None, False),
        (1, None, None, False),
        ("", "", None, False),
        (90.1, 1, None, False),
        (1, -180.1, None, False),
        (1, 1, False, False),
        (0, 0, True, True),
        (91, 1, True, False),
        (None, None, True, False),
        (1, 1, "false", True),
    ],
)
def test_what_is_a_fix(latitude: Any, longitude: Any, said: Any, expected: bool) -> None:
    keys = {"latitude": latitude, "longitude": longitude} | ({} if said is None else {"fix_valid": said})
    found = signal(**keys)
    assert found.fix_valid is expected
    assert found.attributes == ({"fix_valid": said} if isinstance(said, str) else {})
    if latitude == 91:
        assert found.latitude == 91  # kept: what to think of it is a question of quality


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", Reason.BAD_FORMAT),
        (b"{abc}", Reason.BAD_FORMAT),
        (b"[1]", Reason.BAD_FORMAT),
        (b'{"a":NaN}', Reason.BAD_FORMAT),
        (b'{"a":"\\ud800"}', Reason.BAD_FORMAT),
        (b'{"a":"\xff"}', Reason.BAD_FORMAT),
        (b"[" * 200_000, Reason.BAD_FORMAT),
        (b'{"a":1e999}', Reason.BAD_VALUE),
        (b'{"a":' + b"9" * 60_000 + b"}", Reason.BAD_VALUE),
    ],
)
def test_what_no_signal_can_be_made_of(raw: bytes, reason: Reason) -> None:
    (outcome,) = JSON.decode(raw, "1", {}, DeviceSettings())
    assert isinstance(outcome, Undecodable)
    assert (outcome.reason, outcome.raw_record) == (reason, raw)


def test_the_last_of_two_keys_wins_and_a_nul_is_left_to_the_validation() -> None:
    (outcome,) = JSON.decode(b'{"a":1,"a":2,"b":"\\u0000"}', "1", {}, DeviceSettings())
    assert isinstance(outcome, Decoded)
    assert outcome.signal.attributes == {"a": 2, "b": "\0"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(
    ["device_number", "message_date", "device_time", "latitude", "longitude", "altitude", "altitude_m", "speed_kmh",
     "course", "course_deg", "satellites", "fix_valid", "event_code", "x"]
)  # fmt: skip


@untimed
@given(st.dictionaries(KEYS, json_values), st.sampled_from(["", "Europe/Athens", "Nowhere"]))
def test_any_value_under_any_key_gives_a_record(event: dict[str, Any], time_zone: str) -> None:
    raw = msgspec.json.encode({key: value for key, value in event.items() if fits(value)})
    outcome = decode(raw, time_zone)
    if isinstance(outcome, Decoded):
        msgspec.json.encode(outcome.signal)


def fits(value: Any) -> bool:
    try:
        msgspec.json.encode(value)
    except (OverflowError, UnicodeEncodeError):
        return False
    return True


# Encoding


def test_the_encoder_writes_the_talks_form_one_event_a_line() -> None:
    talks = decode(TALK)
    assert isinstance(talks, Decoded)
    packet = JSON_ENCODER.encode_frame("86915304265485", [talks.signal, Signal(wire_time=None, device_time=None)])
    first, second, rest = packet.split(b"\n")
    assert msgspec.json.decode(first) == msgspec.json.decode(TALK) | {"longitude": "23.73152"}
    assert second == b'{"device_number":"86915304265485"}'
    assert rest == b""
    assert JSON_ENCODER.encode_login("1") == b""


coordinates = st.none() | st.floats(-100, 100) | st.just(0.0)


@untimed
@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    coordinates,
    coordinates,
    st.booleans(),
    st.dictionaries(st.text("abc_", min_size=1), st.integers(-(2**63), 2**63) | st.text('xyz\u00e4\n"\\{')),
)
def test_round_trip(
    at: datetime, latitude: float | None, longitude: float | None, fix_valid: bool, attributes: dict[str, Any]
) -> None:
    sent = Signal(
        wire_time=at, device_time=at, fix_valid=fix_valid and latitude is not None and longitude is not None,
        latitude=latitude, longitude=longitude, altitude_m=1.5, satellites=3, event_code="x", attributes=attributes,
    )  # fmt: skip
    if latitude is not None and abs(latitude) > 90:
        sent.fix_valid = False
    (_, frame) = talk(JSON_ENCODER.encode_frame("7", [sent]))
    assert isinstance(frame, Frame)
    assert decode(frame.raw) == Decoded(sent, frame.raw)


def test_work_grows_with_the_bytes_not_with_their_square() -> None:
    """Python lines run for an event that comes byte by byte; that nothing is copied is the contract suite's."""

    def lines_run(size: int) -> int:
        stream = b'{"a":"' + b"\\x" * size + b'","b":[' + b"1," * size + b"1]}"
        count = 0

        def trace(*_: Any) -> Any:
            nonlocal count
            count += 1
            return trace

        session = JSON.session()
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            for byte in stream:
                list(session.feed(bytes([byte])))
        finally:
            sys.settrace(before)
        return count

    assert lines_run(1000) < 3 * lines_run(500)
