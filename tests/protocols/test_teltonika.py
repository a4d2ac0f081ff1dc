"""The framing session of Teltonika: what is a message, what is answered, what is refused and whether it goes on."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from signalkeep import limits
from signalkeep.model import DeviceSettings, Reason
from signalkeep.protocols.contract import Event, Frame, Identified, Refused
from signalkeep.protocols.teltonika import TELTONIKA
from signalkeep.protocols.teltonika_encoder import packet

LOGIN = bytes.fromhex("000f333536333037303432343431303133")
IDENTIFIED = Identified("356307042441013", b"\x01", b"\x00")
# Examples of the maker's public page, with the checksums that they have there.
ONE_RECORD = bytes.fromhex(
    "000000000000003608010000016b40d8ea30010000000000000000000000000000000105021503010101425e0f01f10000601a014e"
    "0000000000000000010000c7cf"
)
TWO_RECORDS = bytes.fromhex(
    "000000000000004308020000016b40d57b480100000000000000000000000000000001010101000000000000016b40d5c19801000000"
    "0000000000000000000000000101010101000000020000252c"
)
EXTENDED = bytes.fromhex(
    "000000000000004a8e010000016b412cee0001000000000000000000000000000000000100050001000101000100110"
    "01d00010010015e2c880002000b000000003544c87a000e000000001dd7e06a00000100002994"
)
CODEC_16 = bytes.fromhex(
    "000000000000005f10020000016bdbc7833000000000000000000000000000000000000b05040200010000030002000b00270042563a"
    "00000000016bdbc7871800000000000000000000000000000000000b05040200010000030002000b00260042563a00000200005fb3"
)
COMMAND = bytes.fromhex("000000000000000f0c010500000007676574696e666f0100004312")
NACK = bytes.fromhex("00000000000000100e011100000008035209308145225101000032ac")


def talk(stream: bytes, *, end: bool = False) -> list[Event]:
    """The events of a stream, which must be the same whole and byte by byte."""
    whole, singly = TELTONIKA.session(), TELTONIKA.session()
    events = list(whole.feed(stream))
    assert [event for byte in stream for event in singly.feed(bytes([byte]))] == events
    if end:
        last = list(whole.end())
        assert list(singly.end()) == last
        events += last
    return events


def closing(reason: Reason, sample: bytes) -> Refused:
    return Refused(reason, sample, recoverable=False)


@pytest.mark.parametrize(
    ("raw", "reply"),
    [
        (ONE_RECORD, b"\0\0\0\x01"),
        (TWO_RECORDS, b"\0\0\0\x02"),
        (EXTENDED, b"\0\0\0\x01"),
        (CODEC_16, b"\0\0\0\x02"),
        (COMMAND, b""),
        (NACK, b""),
    ],
)
def test_the_makers_examples(raw: bytes, reply: bytes) -> None:
    assert talk(LOGIN + raw + ONE_RECORD, end=True) == [
        IDENTIFIED, Frame(raw, reply=reply), Frame(ONE_RECORD, reply=b"\0\0\0\x01"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"\x08\x03\x00\x05", b"\0\0\0\x03"),  # two counts that differ: the device believes the first
        (b"\x42\x07??\x07", b"\0\0\0\x07"),  # a codec that nobody knows
        (b"\x07\xff\xff", b"\0\0\0\xff"),
        (b"\x8e\x00\x00", b"\0\0\0\x00"),
        *((bytes([codec]) + b"\x01\x01", b"") for codec in (0x0C, 0x0D, 0x0E, 0x0F)),
    ],
)
def test_what_is_journalled_is_acknowledged_with_the_count_it_claims(data: bytes, reply: bytes) -> None:
    """Otherwise a device would send it again for ever."""
    assert talk(LOGIN + packet(data)) == [IDENTIFIED, Frame(packet(data), reply=reply)]


def test_keep_alives_are_consumed() -> None:
    stream = b"\xff" + LOGIN + b"\xff\xff" + ONE_RECORD + b"\xff"
    assert talk(stream, end=True) == [IDENTIFIED, Frame(ONE_RECORD, reply=b"\0\0\0\x01")]


def test_a_device_may_name_itself_again() -> None:
    other = b"\x00\x02A7"
    assert talk(LOGIN + ONE_RECORD + other + ONE_RECORD) == [
        IDENTIFIED, Frame(ONE_RECORD, reply=b"\0\0\0\x01"),
        Identified("A7", b"\x01", b"\x00"), Frame(ONE_RECORD, reply=b"\0\0\0\x01"),
    ]  # fmt: skip


def test_the_longest_identity() -> None:
    assert talk(b"\x00\x40" + b"7" * 64) == [Identified("7" * 64, b"\x01", b"\x00")]


@pytest.mark.parametrize(
    ("stream", "sample"),
    [
        (b"\x00\x41" + b"7" * 65, b"\x00\x41"),
        (b"GET / HTTP/1.1\r\n\r\n", b"GE"),
        (b"\x00\x00\x00\x03123", b"\x00\x00\x00\x03"),
        (b"\x00\x00123", b"\x00\x0012"),
        (b"\x00\x0312 ", b"\x00\x0312 "),
        (b"\x00\x0312\x00", b"\x00\x0312\x00"),
        (b"\x00\x0312\xb2", b"\x00\x0312\xb2"),
        (b"\x00\x40" + b"7" * 63 + b"\n", b"\x00\x40" + b"7" * 62),
    ],
)
def test_a_bad_identity_ends_the_stream(stream: bytes, sample: bytes) -> None:
    reason = Reason.NO_IDENTITY if stream.startswith(b"\0\0\0\0") else Reason.BAD_IDENTITY
    assert talk(stream + LOGIN + ONE_RECORD, end=True) == [closing(reason, sample)]
    assert talk(LOGIN + b"\x00\x0312 ") == [IDENTIFIED, closing(Reason.BAD_IDENTITY, b"\x00\x0312 ")]


def test_data_before_the_identity_end_the_stream() -> None:
    assert talk(ONE_RECORD + LOGIN + ONE_RECORD, end=True) == [closing(Reason.NO_IDENTITY, bytes(4))]


@pytest.mark.parametrize(
    ("stream", "reason", "sample"),
    [
        (b"\x00\x00\x00\x01" + ONE_RECORD[4:], Reason.UNFRAMABLE, b"\x00\x00\x00\x01"),
        (b"\x01" + ONE_RECORD[1:], Reason.UNFRAMABLE, b"\x01\x00"),
        (bytes(8), Reason.UNFRAMABLE, bytes(8)),
        (bytes(7) + b"\x02\x08\x00" + bytes(4), Reason.UNFRAMABLE, bytes(7) + b"\x02"),
        (bytes(4) + b"\xff\xff\xff\xff", Reason.OVERSIZED, bytes(4) + b"\xff\xff\xff\xff"),
    ],
)
def test_what_cannot_be_framed_ends_the_stream(stream: bytes, reason: Reason, sample: bytes) -> None:
    assert talk(LOGIN + stream + ONE_RECORD, end=True) == [IDENTIFIED, closing(reason, sample)]


def test_the_largest_packet_and_one_byte_more() -> None:
    largest = packet(b"\x08\x00" + bytes(limits.FRAME_BYTES_MAX - 15) + b"\x00")
    assert len(largest) == limits.FRAME_BYTES_MAX
    session = TELTONIKA.session()
    assert list(session.feed(LOGIN + largest + LOGIN)) == [IDENTIFIED, Frame(largest, reply=bytes(4)), IDENTIFIED]
    header = bytes(4) + (limits.FRAME_BYTES_MAX - 11).to_bytes(4)
    assert list(session.feed(header + largest)) == [closing(Reason.OVERSIZED, header)]


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(8, id="codec"),
        pytest.param(40, id="within"),
        pytest.param(-5, id="second count"),
        pytest.param(-1, id="checksum"),
        pytest.param(-4, id="the upper half of the checksum, which is 0"),
    ],
)
def test_a_wrong_checksum_is_not_answered_and_the_stream_goes_on(place: int) -> None:
    spoilt = bytearray(TWO_RECORDS)
    spoilt[place] ^= 0x40
    raw = bytes(spoilt)
    refused = Refused(Reason.CHECKSUM, raw[:64], recoverable=True, frame=Frame(raw, reply=b"\0\0\0\x02"))
    assert talk(LOGIN + raw + ONE_RECORD) == [IDENTIFIED, refused, Frame(ONE_RECORD, reply=b"\0\0\0\x01")]


@pytest.mark.parametrize("left", [1, 2, 3, 4, 8, 12, 40, 65])
def test_what_the_end_cuts_off_is_truncated(left: int) -> None:
    refused = closing(Reason.TRUNCATED, ONE_RECORD[: min(left, 64)])
    frame = Frame(ONE_RECORD[:left]) if left > 11 else None  # enough to try it, by hand
    assert talk(LOGIN + ONE_RECORD[:left], end=True)[1:] == [structs.replace(refused, frame=frame)]


def test_after_the_end_nothing_is_read() -> None:
    session = TELTONIKA.session()
    assert list(session.feed(LOGIN + ONE_RECORD[:20])) == [IDENTIFIED]
    assert len(list(session.end())) == 1
    assert list(session.feed(ONE_RECORD[20:] + LOGIN)) == []
    assert list(session.end()) == []


def fed(pieces: Iterable[bytes]) -> list[Event]:
    session = TELTONIKA.session()
    return [event for piece in pieces for event in session.feed(piece)] + list(session.end())


MESSAGES = st.sampled_from([LOGIN, ONE_RECORD, TWO_RECORDS, EXTENDED, CODEC_16, COMMAND, b"\xff", ONE_RECORD[:-1]])


@given(st.lists(MESSAGES | st.binary(max_size=12), max_size=6), st.lists(st.integers(0, 400), max_size=8))
def test_any_bytes_give_the_same_events_however_they_are_cut(messages: list[bytes], places: list[int]) -> None:
    stream = b"".join([LOGIN, *messages])
    cuts = [0, *sorted(place for place in places if place < len(stream)), len(stream)]
    events = fed([stream])
    assert fed(stream[begin:end] for begin, end in pairwise(cuts)) == events
    assert fed(bytes([byte]) for byte in stream) == events
    for event in events:
        if isinstance(event, Frame):
            TELTONIKA.decode(event.raw, "", {}, DeviceSettings())


@given(st.binary(max_size=200))
def test_every_byte_is_part_of_an_event_or_a_keep_alive(junk: bytes) -> None:
    """Nothing is dropped silently, up to the refusal that ends the stream."""
    events = fed([LOGIN + junk])
    left = junk.lstrip(b"\xff")
    for event in events[1:]:
        match event:
            case Frame():
                taken = event.raw
            case Refused(frame=frame):
                taken = event.sample if frame is None else frame.raw
            case _:
                assert isinstance(event, Identified)
                taken = len(event.device_number).to_bytes(2) + event.device_number.encode()
        assert left.startswith(taken)
        left = left[len(taken) :].lstrip(b"\xff")
    assert not left or (isinstance(events[-1], Refused) and not events[-1].recoverable)
