"""Messages between machines: round trips, and every damage is noticed."""

from __future__ import annotations

from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalkeep.journal.lanes import lane_of_entry, lanes_of
from signalkeep.journal.ranges import BadRange, LaneRange, LostEntries, decode_range, encode_range, is_ours
from signalkeep.journal.record import Entry, FrameEntry, SessionEntry, TallyEntry

JOURNAL = UUID(int=7)


def frame(device: str) -> FrameEntry:
    return FrameEntry(1, "json", device, "127.0.0.1:1", {}, b"raw")


def message(**changes: object) -> LaneRange:
    entries: list[tuple[int, Entry]] = [
        (12, frame("1")),
        (13, SessionEntry(1, "identified", "json", "1", "127.0.0.1:1", "")),
        (15, TallyEntry(1, {"truncated": 3})),
    ]
    lanes = sorted({lane_of_entry(entry, 64) for _, entry in entries})
    made = LaneRange(JOURNAL, 64, lanes, 3, 10, 20, entries, [LostEntries(16, 18, "corrupt", "/evidence")])
    return msgspec.structs.replace(made, **changes)


def test_there_and_back() -> None:
    assert decode_range(encode_range(message())) == message()
    assert decode_range(encode_range(message(entries=[], lost=[]))).entries == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lanes": []}, "lanes"),
        ({"lanes": [64]}, "lanes"),
        ({"journal_lanes": 0}, "lanes"),
        ({"journal_lanes": 100_000}, "lanes"),
        ({"after_seq": 20}, "empty"),
        ({"after_seq": -1}, "empty"),
        ({"after_seq": 12}, "order"),
        ({"last_seq": 14}, "order"),
        ({"entries": [(12, frame("1")), (12, frame("1"))]}, "order"),
        ({"entries": [(12, frame("another device, of another lane"))]}, "other lanes"),
        ({"lost": [LostEntries(5, 11, "corrupt", "")]}, "lost"),
        ({"lost": [LostEntries(18, 16, "corrupt", "")]}, "lost"),
    ],
)
def test_what_cannot_be(changes: dict[str, object], said: str) -> None:
    with pytest.raises(BadRange, match=said):
        decode_range(encode_range(message(**changes)))


@given(st.binary(max_size=300))
def test_foreign_bytes(data: bytes) -> None:
    with pytest.raises(BadRange):
        decode_range(data)


@given(st.data())
def test_no_damage_goes_unseen(data: st.DataObject) -> None:
    sound = encode_range(message())
    at = data.draw(st.integers(0, len(sound) - 1))
    flipped = bytearray(sound)
    flipped[at] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(flipped), sound[:at], sound + b"x"):
        with pytest.raises(BadRange):
            decode_range(damaged)


def test_a_newer_format_is_ours_and_not_read() -> None:
    newer = bytearray(encode_range(message()))
    newer[7] = 2
    assert is_ours(bytes(newer))
    with pytest.raises(BadRange, match="format is 2"):
        decode_range(bytes(newer))


@given(st.integers(1, 64), st.integers(1, 64))
def test_every_lane_has_one_queue(queues: int, lanes: int) -> None:
    found = [lane for queue in range(queues) for lane in lanes_of(queue, queues, lanes)]
    assert sorted(found) == list(range(lanes))
