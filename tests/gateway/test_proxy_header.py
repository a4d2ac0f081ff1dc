"""The PROXY protocol's header: whole, byte by byte, spoilt anyhow. Section numbers are those of HAProxy's document."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalkeep import limits
from signalkeep.gateway.proxy_header import Header, Malformed, Parsed, parse

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")


def header(command: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + struct.pack(">BBH", 0x20 | command, family, len(rest)) + rest


def over_ipv4(source: str = "203.0.113.9", port: int = 5123, extra: bytes = b"") -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton("192.0.2.1")
    return header(1, 0x11, addresses + struct.pack(">HH", port, 5027) + extra)


def over_ipv6(source: str = "2001:db8::9", port: int = 5123) -> bytes:
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    return header(1, 0x21, addresses + struct.pack(">HH", port, 5027))


GOOD = {
    "ipv4": (over_ipv4(), Header(28, False, ("203.0.113.9", 5123))),
    "ipv4 with what balancers add": (over_ipv4(extra=b"\x04\0\x02ab"), Header(33, False, ("203.0.113.9", 5123))),
    "ipv6": (over_ipv6(), Header(52, False, ("2001:db8::9", 5123))),
    "local": (header(0, 0x00, b""), Header(16, True, None)),
    "local with addresses, which are to be ignored": (header(0, 0x11, bytes(12)), Header(28, True, None)),
    "unspecified": (header(1, 0x00, b"x" * 7), Header(23, False, None)),
    "unix": (header(1, 0x31, bytes(216)), Header(232, False, None)),
}
BAD = {
    "version 1": b"PROXY TCP4 203.0.113.9 192.0.2.1 5123 5027\r\n",
    "a device's own bytes": bytes.fromhex("000f333536333037303432343431303133"),
    "another version": SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
    "another command": SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
    "udp": header(1, 0x12, bytes(12)),
    "another family": header(1, 0x41, bytes(12)),
    "too short for IPv4": header(1, 0x11, bytes(11)),
    "too short for IPv6": header(1, 0x21, bytes(35)),
    "too long": header(1, 0x11, bytes(limits.PROXY_HEADER_BYTES_MAX - 15)),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_header_is_read_and_no_byte_of_what_follows(name: str) -> None:
    data, expected = GOOD[name]
    assert expected.size_bytes == len(data)
    for rest in (b"", b"x", b"\r\n\r\n", data):
        assert parse(data + rest) == expected
    for size in range(len(data)):
        assert parse(data[:size]) is None, "more bytes are needed"


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_header_is_refused_at_the_first_byte_that_cannot_be(name: str) -> None:
    data = BAD[name]
    assert isinstance(parse(data), Malformed)
    answers = [parse(data[:size]) for size in range(len(data) + 1)]
    first = next(size for size, answer in enumerate(answers) if answer is not None)
    assert first <= 16
    assert all(isinstance(answer, Malformed) for answer in answers[first:]), "and stays refused"


def test_the_longest_header() -> None:
    data = over_ipv4(extra=bytes(limits.PROXY_HEADER_BYTES_MAX - 28))
    assert parse(data) == Header(limits.PROXY_HEADER_BYTES_MAX, False, ("203.0.113.9", 5123))


def first_answer(data: bytes, cuts: list[int]) -> Parsed:
    """What a connection that comes in these pieces gets to hear, and after how many bytes it is final."""
    for size in sorted({cut % (len(data) + 1) for cut in cuts} | {len(data)}):
        answer = parse(data[:size])
        if answer is not None:
            return answer
    return None


@given(st.data())
def test_any_bytes_in_any_pieces_give_one_answer_and_little_is_held(data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from([sample for sample, _ in GOOD.values()] + list(BAD.values())))
    at = data.draw(st.integers(0, len(sample)))
    spoilt = sample[:at] + data.draw(st.binary(max_size=8)) + sample[at + data.draw(st.integers(0, 8)) :]
    for stream in (spoilt, data.draw(st.binary(max_size=300)), SIGNATURE + data.draw(st.binary(max_size=64))):
        answer = parse(stream)
        by_pieces = first_answer(stream, data.draw(st.lists(st.integers(0, 400), max_size=6)))
        assert type(by_pieces) is type(answer)
        if isinstance(answer, Header):
            assert by_pieces == answer
            assert 16 <= answer.size_bytes <= min(len(stream), limits.PROXY_HEADER_BYTES_MAX)
        if answer is None:
            assert len(stream) < limits.PROXY_HEADER_BYTES_MAX
