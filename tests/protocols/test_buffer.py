"""The receive buffer: the same answers however the bytes came."""

from __future__ import annotations

import pytest

from signalkeep.protocols.buffer import ReceiveBuffer


def filled(data: bytes, bytes_max: int = 1000) -> ReceiveBuffer:
    buffer = ReceiveBuffer(bytes_max)
    buffer.feed(data)
    return buffer


def test_bytes_are_taken_once_all_are_there() -> None:
    buffer = filled(b"abc")
    assert buffer.peek(4) is None
    assert buffer.take(4) is None
    buffer.feed(b"de")
    assert buffer.peek(4) == b"abcd"
    assert buffer.take(4) == b"abcd"
    assert buffer.take(0) == b""
    assert len(buffer) == 1
    assert buffer.take(1) == b"e"
    assert len(buffer) == 0


def test_asking_for_more_than_a_message_may_have_is_a_mistake() -> None:
    with pytest.raises(AssertionError):
        filled(b"", 4).peek(5)


def test_discarding_more_than_there_is_empties_the_buffer() -> None:
    buffer = filled(b"abc")
    buffer.discard(5)
    buffer.feed(b"d")
    assert buffer.take(1) == b"d"
