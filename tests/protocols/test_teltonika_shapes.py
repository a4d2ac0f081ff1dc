"""Records that are read by the shape of an earlier one give what the long way gives, whatever their bytes are."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalkeep.model import Decoded, Outcome
from signalkeep.protocols import teltonika_shapes
from signalkeep.protocols.teltonika_io import ELEMENTS
from signalkeep.protocols.teltonika_records import LAYOUT_8, LAYOUT_8_EXTENDED, LAYOUT_16, Layout, decode_frame
from signalkeep.protocols.teltonika_shapes import Shapes

LAYOUTS = {0x08: LAYOUT_8, 0x8E: LAYOUT_8_EXTENDED, 0x10: LAYOUT_16}
CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}
IDS = st.sampled_from([element.io_id for element in ELEMENTS if element.io_id < 256] + [3, 7, 254]) | st.integers(
    0, 255
)
GROUPS = st.tuples(*(st.lists(IDS, max_size=6) for _ in CODES))


def long_way(frame: bytes) -> list[Outcome]:
    with mock.patch.object(Shapes, "read", return_value=None), mock.patch.object(Shapes, "learn"):
        return decode_frame(frame)


def record(codec: int, groups: tuple[list[int], ...], values: Iterator[int], announced: int) -> bytes:
    layout: Layout = LAYOUTS[codec]
    head = [1_700_000_000_000 + next(values), 0, 1, 2, 3, 4, 5, 6, 0]
    data = layout.head.pack(*head, *([7] if codec == 0x10 else []), announced)
    for (size, code), ids in zip(CODES.items(), groups, strict=True):
        data += layout.counter.pack(len(ids))
        for io_id in ids:
            data += struct.pack(f">{'H' if codec != 0x08 else 'B'}{code}", io_id, next(values) % (1 << 8 * size))
    return data + (b"\0\0" if codec == 0x8E else b"")


def packet(codec: int, records: list[bytes]) -> bytes:
    data = bytes([codec, len(records)]) + b"".join(records) + bytes([len(records)])
    return bytes(4) + len(data).to_bytes(4) + data + bytes(4)


@settings(max_examples=300)
@given(st.sampled_from(list(LAYOUTS)), GROUPS, st.integers(-1, 1), st.randoms(use_true_random=False))
def test_the_shape_reads_what_the_long_way_reads(codec, groups, off, random) -> None:  # type: ignore[no-untyped-def]  # drawn values
    values = iter(lambda: random.choice((0, 1, 255, 2000, random.getrandbits(64) >> 1)), None)
    announced = max(0, sum(map(len, groups)) + off)
    frame = packet(codec, [record(codec, groups, values, announced) for _ in range(3)])
    assert decode_frame(frame) == long_way(frame)
    assert decode_frame(frame) == long_way(frame), "now that the shape is known for certain"


@settings(max_examples=200)
@given(GROUPS, st.integers(0, 120), st.binary(min_size=1, max_size=3))
def test_bytes_that_differ_anywhere_or_are_cut_are_not_misread(groups, place, garbage) -> None:  # type: ignore[no-untyped-def]  # drawn values
    values = iter(range(1, 10_000))
    good = record(0x8E, groups, values, sum(map(len, groups)))
    decode_frame(packet(0x8E, [good]))
    bad = good[:place] + garbage + good[place + len(garbage) :]
    for records in ([bad], [good, bad], [good[:place]], [bad, good]):
        frame = packet(0x8E, records)
        assert decode_frame(frame) == long_way(frame)


def test_a_known_shape_is_used_and_hostile_shapes_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = Shapes(LAYOUT_8_EXTENDED.counter, 2, LAYOUT_8_EXTENDED.shapes._tables)
    monkeypatch.setattr(teltonika_shapes, "SHAPES_MAX", 5)
    body = bytes.fromhex("000100ef010000000000000000")
    assert shapes.read(body, 0, 1) is None
    shapes.learn(body, 0, len(body), 1)
    assert shapes.read(body, 0, 1) == ({"ignition": True}, len(body))
    assert shapes.read(body[:-1], 0, 1) is None
    for io_id in range(1000, 1100):
        other = bytes.fromhex("0001") + io_id.to_bytes(2) + bytes.fromhex("010000000000000000")
        shapes.learn(other, 0, len(other), io_id)
        assert shapes._count <= 5
    (outcome,) = decode_frame(packet(0x8E, [record(0x8E, ([239], [], [], []), iter([0, 1]), 1)]))
    assert isinstance(outcome, Decoded)
    assert outcome.signal.attributes == {"ignition": True}
