"""The receive buffer: the same answers however the bytes came, and no byte searched twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_a_delimiter_cut_in_two_is_found() -> None:
    buffer = filled(b"abc\r")
    assert buffer.find(b"\r\n") is None
    buffer.feed(b"\nrest\r\n")
    assert buffer.find(b"\r\n") == 3
    assert buffer.find(b"\r\n") == 3
    buffer.discard(5)
    assert buffer.find(b"\r\n") == 4


def test_another_delimiter_is_searched_from_the_start() -> None:
    buffer = filled(b"a;b")
    assert buffer.find(b"\n") is None
    assert buffer.find(b";") == 1


def test_a_delimiter_must_end_within_the_limit() -> None:
    assert filled(b"ab\r\n", 4).find(b"\r\n") == 2
    too_long = filled(b"abc\r\n", 4)
    assert too_long.find(b"\r\n") is None
    assert too_long.full
    assert not filled(b"abc", 4).full


class Watched(bytearray):
    """Counts the bytes that searches may have looked at."""

    looked_at = 0

    def find(self, *arguments: Any) -> int:
        _, start, end = arguments
        self.looked_at += min(len(self), end) - start
        return super().find(*arguments)


def test_no_byte_is_searched_again_and_again() -> None:
    buffer = ReceiveBuffer(10_000)
    buffer._bytes = watched = Watched()
    for _ in range(5000):
        buffer.feed(b"x")
        assert buffer.find(b"\r\n") is None
    assert watched.looked_at <= 2 * 5000


@given(st.lists(st.text("ab;", max_size=5).map(str.encode), max_size=20), st.sampled_from([b";", b";a", b"ab;"]))
def test_messages_are_the_same_however_they_were_cut(pieces: list[bytes], delimiter: bytes) -> None:
    *expected, rest = b"".join(pieces).split(delimiter)
    buffer, messages = ReceiveBuffer(1000), []
    for piece in pieces:
        buffer.feed(piece)
        while (found := buffer.find(delimiter)) is not None:
            messages.append(buffer.take(found))
            buffer.discard(len(delimiter))
    assert messages == expected
    assert buffer.take(len(buffer)) == rest
