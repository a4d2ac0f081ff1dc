"""What a virtual device sends, decoded again, is exactly what its oracle line says."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalkeep.model import Decoded, DeviceSettings, Signal
from signalkeep.protocols import registry
from signalkeep.protocols.contract import Frame
from signalkeep.simulate.answers import ANSWERS
from signalkeep.simulate.drive import EVENT_CODES, Drive

START = datetime(2024, 5, 6, 7, 8, 9, 123000, tzinfo=UTC)
NUMBER = "356307040000001"


def decoded(protocol: str, data: bytes) -> list[Signal]:
    """Through the framing session and the decoder of the registry."""
    spoken = registry.get(protocol)
    session = spoken.session()
    frames = [event for event in [*session.feed(data), *session.end()] if isinstance(event, Frame)]
    outcomes = [
        outcome for frame in frames for outcome in spoken.decode(frame.raw, NUMBER, frame.context, DeviceSettings())
    ]
    return [outcome.signal for outcome in outcomes if isinstance(outcome, Decoded)]


@pytest.mark.parametrize("protocol", ANSWERS)
@given(seed=st.integers(0, 10_000), gaps_ms=st.lists(st.integers(1, 100_000), min_size=1, max_size=10))
@settings(max_examples=50)
def test_nothing_is_lost_on_the_wire(protocol: str, seed: int, gaps_ms: list[int]) -> None:
    drive, encoder, at = Drive(random.Random(seed), START, EVENT_CODES[protocol]), registry.ENCODERS[protocol], START
    sent = [drive.step(at := at + timedelta(milliseconds=gap_ms)) for gap_ms in gaps_ms]
    assert decoded(protocol, encoder.encode_login(NUMBER) + encoder.encode_frame(NUMBER, sent)) == sent


@pytest.mark.parametrize("protocol", ANSWERS)
def test_every_event_survives(protocol: str) -> None:
    codes, encoder = EVENT_CODES[protocol], registry.ENCODERS[protocol]
    signal = Drive(random.Random(1), START, codes).step(START + timedelta(seconds=1))
    for code in (codes.ignition_on, codes.ignition_off, *codes.others):
        signal.event_code = code
        (received,) = decoded(protocol, encoder.encode_login(NUMBER) + encoder.encode_frame(NUMBER, [signal]))
        assert received.event_code == code
