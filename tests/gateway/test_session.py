"""One conversation: replies wait for the journal, keep their order, and refusals end what they must."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from signalkeep import limits
from signalkeep.gateway.policy import Caps, Policy
from signalkeep.gateway.session import DeviceSession, Held, Taken
from signalkeep.journal.record import FrameEntry, SessionEntry
from signalkeep.model import DeviceStatus, Reason
from tests.gateway.toy import TOY

ROOMY = Caps(1 << 30, 1 << 30, 1 << 30)


def make(policy: Policy | None = None, **more: Any) -> tuple[DeviceSession, list[Reason]]:
    counted: list[Reason] = []
    policy = policy or Policy("quarantine", ROOMY)
    session = DeviceSession(
        TOY, address="10.0.0.1", peer="10.0.0.1:5", policy=policy, count=counted.append, opened_at_us=3, **more
    )
    return session, counted


def frames_in(taken: Taken) -> list[tuple[FrameEntry, Held]]:
    """Without the entries that tell of the conversation itself."""
    return [(entry, held) for entry, held in taken if isinstance(entry, FrameEntry) and held is not None]


def test_a_frame_is_answered_only_when_it_is_stored() -> None:
    session, _ = make()
    ((entry, held),) = frames_in(session.receive(b"I 1\nF a\n", 7))
    assert session.outgoing() == b"hello;"
    assert session.outgoing() == b""
    assert (entry.device_number, entry.raw, entry.received_at_us, entry.protocol) == ("1", b"a", 7, "toy")
    assert entry.context == {"n": "1"}
    session.stored(held)
    assert session.outgoing() == b"A a;"
    assert session.held == 0
    assert session.held_bytes == 0


@given(st.permutations(range(5)))
def test_replies_leave_in_order_whatever_the_order_of_storing(order: list[int]) -> None:
    session, _ = make()
    frames = frames_in(session.receive(b"I 1\nF 0\nF 1\nH\nF 2\nF 3\nF 4\n", 0))
    said = session.outgoing()
    for number in order:
        session.stored(frames[number][1])
        said += session.outgoing()
    assert said == b"hello;A 0;A 1;beat;A 2;A 3;A 4;"


def test_a_heartbeat_does_not_overtake_a_held_reply() -> None:
    session, _ = make()
    session.receive(b"I 1\nF a\nH\n", 0)
    assert session.outgoing() == b"hello;"


def test_a_recoverable_refusal_is_counted_and_the_stream_goes_on() -> None:
    session, counted = make()
    frames = frames_in(session.receive(b"I 1\nB\nF a\n", 0))
    assert len(frames) == 1
    assert counted == [Reason.UNFRAMABLE]
    assert not session.closing


def test_after_the_end_of_the_stream_nothing_is_read_but_what_is_held_is_answered() -> None:
    session, counted = make()
    ((_, held),) = frames_in(session.receive(b"I 1\nF a\nX\nF b\n", 0))
    assert session.closing
    assert session.receive(b"F c\n", 0) == []
    session.stored(held)
    assert session.outgoing() == b"hello;A a;"
    assert counted == [Reason.UNFRAMABLE]


def test_a_refused_device_gets_the_refusal_and_nothing_of_it_is_taken() -> None:
    policy = Policy("refuse", ROOMY)
    policy.update({"1": DeviceStatus.ACTIVE})
    session, counted = make(policy)
    assert session.receive(b"I 2\nF a\n", 0) == []
    assert session.outgoing() == b"go away;"
    assert session.closing
    assert counted == [Reason.UNKNOWN_REFUSED]


def test_beyond_the_cap_no_acknowledgement() -> None:
    policy = Policy("quarantine", Caps(1100, 1100, 1100))
    policy.update({})
    session, counted = make(policy)
    frames = frames_in(session.receive(b"I 1\nF a\nF b\n", 0))
    assert [entry.raw for entry, _ in frames] == [b"a"]
    assert session.closing
    assert counted == [Reason.UNKNOWN_CAP]


def test_the_end_of_input_is_no_reason_not_to_answer() -> None:
    session, counted = make()
    ((_, held),) = frames_in(session.receive(b"I 1\nF a\ntorn", 0))
    session.end(0)
    assert session.closing
    session.stored(held)
    assert session.outgoing() == b"hello;A a;"
    assert counted == [Reason.TRUNCATED]


def test_full_by_number_and_by_bytes() -> None:
    session, _ = make()
    session.receive(b"I 1\n" + b"F x\n" * (limits.HELD_REPLIES_PER_CONNECTION_MAX - 2), 0)
    session.outgoing()
    assert not session.full
    session.receive(b"F x\n" * 2, 0)
    assert session.full
    session, _ = make()
    size_bytes = limits.FRAME_BYTES_MAX
    session.receive(
        b"I 1\n" + (b"F " + b"x" * size_bytes + b"\n") * (limits.HELD_BYTES_PER_CONNECTION_MAX // size_bytes), 0
    )
    assert session.full


def test_entries_tell_of_a_conversation_once_the_device_has_said_who_it_is() -> None:
    session, _ = make()
    assert session.receive(b"B\n", 4) == []
    opened, identified, (frame, _) = session.receive(b"I 1\nF a\n", 7)
    common = ("toy", "1", "10.0.0.1:5")
    assert opened == (SessionEntry(3, "opened", *common, ""), None)
    assert identified == (SessionEntry(7, "identified", *common, ""), None)
    assert isinstance(frame, FrameEntry)
    ended = session.closed(2_000_003, "closed by device")
    assert ended is not None
    assert (ended.at_us, ended.kind, ended.device_number) == (2_000_003, "closed", "1")
    assert msgspec.json.decode(ended.detail) == {"why": "closed by device", "frames": 1, "bytes": 10, "seconds": 2.0}
    assert session.closed(2_000_004, "closed by device") is None, "once"


def test_a_refusal_is_why_it_ends() -> None:
    session, _ = make()
    session.receive(b"I 1\nX\n", 7)
    ended = session.closed(8, "closed by device")
    assert ended is not None
    assert msgspec.json.decode(ended.detail)["why"] == Reason.UNFRAMABLE


def test_who_never_says_who_it_is_leaves_no_entry() -> None:
    session, _ = make()
    session.receive(b"B\nB\n", 4)
    session.end(5)
    assert session.closed(6, "closed by device") is None
    policy = Policy("refuse", ROOMY)
    session, _ = make(policy)
    assert session.receive(b"I 1\n", 4) == []
    assert session.closed(6, "closed by device") is None


def test_a_new_identity_is_told_and_going_on_changing_it_is_not() -> None:
    session, _ = make()
    taken = session.receive(b"I 1\nI 1\nI 2\nF a\n", 4)
    assert [(entry.kind, entry.device_number) for entry, _ in taken if isinstance(entry, SessionEntry)] == [
        ("opened", "1"), ("identified", "1"), ("identified", "2"),
    ]  # fmt: skip
    told = session.receive(b"I 3\nI 4\n" * 12, 5)
    assert len(told) == limits.IDENTITIES_NOTED_MAX - 2
    assert len(frames_in(session.receive(b"I 5\nF a\n", 6))) == 1


def test_entries_of_unknown_devices_take_their_share_of_the_caps() -> None:
    """Or logging in again and again would fill the disk."""
    policy = Policy("quarantine", Caps(1 << 20, 1100, 1 << 20))
    policy.update({"9": DeviceStatus.ACTIVE})
    outcomes = []
    for number in range(4):
        session, counted = make(policy)
        outcomes.append((len(session.receive(b"I %d\n" % number, 0)), session.outgoing(), counted))
    assert outcomes[:2] == [(2, b"hello;", [])] * 2
    assert outcomes[2:] == [(0, b"go away;", [Reason.UNKNOWN_CAP])] * 2
    session, _ = make(policy)
    assert len(session.receive(b"I 9\n", 0)) == 2, "registered devices are never capped"


def test_a_message_longer_than_set_is_refused_whole_or_in_parts() -> None:
    session, counted = make(frame_bytes_max=10)
    assert len(frames_in(session.receive(b"I 1\nF 0123456789\n", 0))) == 1
    assert frames_in(session.receive(b"F 0123456789a\n", 0)) == []
    assert counted == [Reason.OVERSIZED]
    assert session.closing
    session, counted = make(frame_bytes_max=10)
    session.receive(b"I 1\nF 01234567", 0)
    assert session.partial
    assert counted == []
    session.receive(b"8", 0)
    assert counted == [Reason.OVERSIZED]
    assert session.closing


def test_a_frame_is_authenticated_only_if_the_certificate_names_its_device() -> None:
    session, _ = make(certified=frozenset({"1", "fleet"}))
    taken = frames_in(session.receive(b"I 1\nF a\nI 2\nF b\nI 1\nF c\n", 0))
    assert [entry.authenticated for entry, _ in taken] == [True, False, True]


def test_no_more_is_taken_than_may_be_held_and_the_rest_waits_its_turn() -> None:
    session, _ = make()
    frames = b"".join(b"F %d\n" % number for number in range(200))
    taken = frames_in(session.receive(b"I 1\n" + frames + b"H\nF cu", 7))
    assert session.held == limits.HELD_REPLIES_PER_CONNECTION_MAX
    assert session.waiting
    said, stored = b"", []
    second = frames_in(session.receive(b"t\n", 8))
    assert second == [], "bytes that come meanwhile queue behind"
    frames_in(session.end(9))
    while taken:
        for entry, held in taken:
            session.stored(held)
            stored.append(entry.raw)
        said += session.outgoing()
        assert session.held == 0
        taken = frames_in(session.more())
        assert session.held <= limits.HELD_REPLIES_PER_CONNECTION_MAX
    assert stored == [b"%d" % number for number in range(200)] + [b"cut"]
    assert said.endswith(b"A 199;beat;A cut;")
    assert session.closing
    assert not session.waiting


def test_what_waits_when_the_stream_must_end_is_not_taken() -> None:
    session, counted = make()
    session.receive(b"I 1\n" + b"F a\n" * 100, 7)
    assert session.waiting
    session.closing = True
    assert session.more() == []
    assert counted == []
