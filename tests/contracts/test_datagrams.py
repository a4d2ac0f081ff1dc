"""What a protocol must keep that also speaks UDP: each datagram alone, and records that are the same over TCP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalkeep import limits
from signalkeep.ingest.keys import digest
from signalkeep.model import DeviceSettings
from signalkeep.protocols.contract import (
    AckClass,
    DatagramEncoder,
    DatagramProtocol,
    Event,
    Frame,
    Identified,
    Refused,
)
from signalkeep.protocols.registry import ENCODERS, PROTOCOLS
from tests.contracts.samples import DEVICE_NUMBER, drive_of
from tests.contracts.test_protocol_contract import (
    PIECES,
    check_events,
    check_outcomes,
    decode,
    frames_of,
    run,
    untimed,
    written,
)

BY_UDP = sorted(name for name, protocol in PROTOCOLS.items() if "udp" in protocol.transports)
every_udp_protocol = pytest.mark.parametrize("name", BY_UDP)


def protocol_of(name: str) -> DatagramProtocol:
    protocol = PROTOCOLS[name]
    assert isinstance(protocol, DatagramProtocol)
    return protocol


def encoder_of(name: str) -> DatagramEncoder:
    encoder = ENCODERS[name]
    assert isinstance(encoder, DatagramEncoder)
    return encoder


def heard(name: str, data: bytes) -> list[Event]:
    """The events of a datagram, each checked, and the same when asked again."""
    events = list(protocol_of(name).datagram(data))
    assert list(protocol_of(name).datagram(data)) == events
    check_events([event for event in events if not isinstance(event, Refused) or event.recoverable])
    for frame in frames_of(events):
        assert frame.raw == data, "what is journalled is the whole datagram"
        assert frame.context, "the decoder must know that it came this way"
    return events


def test_transports_say_what_a_protocol_can() -> None:
    for name, protocol in PROTOCOLS.items():
        assert isinstance(protocol, DatagramProtocol) == ("udp" in protocol.transports), name
    assert BY_UDP


@every_udp_protocol
def test_a_datagram_names_its_device_then_gives_its_frames(name: str) -> None:
    first, *others = heard(name, encoder_of(name).encode_datagram(DEVICE_NUMBER, drive_of(name, 3), 7))
    assert isinstance(first, Identified)
    assert first.device_number == DEVICE_NUMBER
    assert others
    assert all(isinstance(event, Frame) for event in others)
    if PROTOCOLS[name].ack_class is AckClass.PER_PACKET:
        assert all(frame.reply for frame in frames_of(others))
    if PROTOCOLS[name].ack_class in (AckClass.LOGIN_ONLY, AckClass.NEVER):
        assert not any(frame.reply for frame in frames_of(others))


@every_udp_protocol
def test_a_record_has_the_same_key_over_udp_and_tcp_and_when_it_is_sent_again(name: str) -> None:
    signals = drive_of(name, 5)
    over_tcp = [outcome for frame in frames_of(written(name, [signals])) for outcome in decode(name, frame)]
    for number, parts in ((1, [signals]), (2, [signals[:2], signals[2:]]), (0xFFFF, [[one] for one in signals])):
        datagrams = [encoder_of(name).encode_datagram(DEVICE_NUMBER, part, number) for part in parts]
        over_udp = [
            outcome
            for datagram in datagrams
            for frame in frames_of(heard(name, datagram))
            for outcome in decode(name, frame)
        ]
        assert over_udp == over_tcp
        keys = [digest(name, outcome.raw_record) for outcome in over_udp]
        assert keys == [digest(name, outcome.raw_record) for outcome in over_tcp]
        assert len(set(keys)) == len(signals)


@every_udp_protocol
@untimed
@given(data=st.data(), number=st.integers(0, 1 << 20))
def test_any_bytes_give_events_and_outcomes(name: str, data: st.DataObject, number: int) -> None:
    sample = encoder_of(name).encode_datagram(DEVICE_NUMBER, drive_of(name, 2), number)
    (context,) = [frame.context for frame in frames_of(heard(name, sample))]
    begin, end = sorted(data.draw(st.integers(0, len(sample))) for _ in range(2))
    spoilt = sample[:begin] + data.draw(PIECES) + sample[end:]
    for datagram in (spoilt, sample[:end], data.draw(st.binary(max_size=200))):
        events = heard(name, datagram)
        assert events, "a datagram without a meaning is refused, so that it is counted"
        for frame in frames_of(events):
            check_outcomes(decode(name, frame), frame.raw)
        check_outcomes(PROTOCOLS[name].decode(datagram, DEVICE_NUMBER, context, DeviceSettings()), datagram)


@every_udp_protocol
def test_the_largest_datagram_is_answered_or_refused(name: str) -> None:
    for filler in (b"\0", b"\xff", b"x"):
        events = heard(name, filler * (limits.FRAME_BYTES_MAX - 29))
        assert events


@every_udp_protocol
def test_nothing_of_a_datagram_stays_for_the_next(name: str) -> None:
    """Halves of a datagram are two refusals, and a stream is no datagram."""
    sample = encoder_of(name).encode_datagram(DEVICE_NUMBER, drive_of(name, 1), 1)
    for part in (sample[: len(sample) // 2], sample[len(sample) // 2 :], sample + sample, b""):
        assert not frames_of(heard(name, part))
    stream = ENCODERS[name].encode_login(DEVICE_NUMBER) + ENCODERS[name].encode_frame(DEVICE_NUMBER, drive_of(name, 1))
    assert frames_of(run(name, [stream]))
    assert not frames_of(heard(name, stream))
