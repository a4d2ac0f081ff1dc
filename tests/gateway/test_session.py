"""One conversation: replies wait for the journal, keep their order, and refusals end what they must."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from signalkeep import limits
from signalkeep.gateway.policy import Caps, Policy
from signalkeep.gateway.session import DeviceSession
from signalkeep.model import DeviceStatus, Reason
from tests.gateway.toy import TOY

ROOMY = Caps(1 << 30, 1 << 30, 1 << 30)


def make(policy: Policy | None = None) -> tuple[DeviceSession, list[Reason]]:
    counted: list[Reason] = []
    policy = policy or Policy("quarantine", ROOMY)
    return DeviceSession(TOY, address="10.0.0.1", peer="10.0.0.1:5", policy=policy, count=counted.append), counted


def test_a_frame_is_answered_only_when_it_is_stored() -> None:
    session, _ = make()
    ((entry, held),) = session.receive(b"I 1\nF a\n", 7)
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
    frames = session.receive(b"I 1\nF 0\nF 1\nH\nF 2\nF 3\nF 4\n", 0)
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
    frames = session.receive(b"I 1\nB\nF a\n", 0)
    assert len(frames) == 1
    assert counted == [Reason.UNFRAMABLE]
    assert not session.closing


def test_after_the_end_of_the_stream_nothing_is_read_but_what_is_held_is_answered() -> None:
    session, counted = make()
    ((_, held),) = session.receive(b"I 1\nF a\nX\nF b\n", 0)
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
    policy = Policy("quarantine", Caps(600, 600, 600))
    policy.update({})
    session, counted = make(policy)
    frames = session.receive(b"I 1\nF a\nF b\n", 0)
    assert [entry.raw for entry, _ in frames] == [b"a"]
    assert session.closing
    assert counted == [Reason.UNKNOWN_CAP]


def test_the_end_of_input_is_no_reason_not_to_answer() -> None:
    session, counted = make()
    ((_, held),) = session.receive(b"I 1\nF a\ntorn", 0)
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
    session.receive(b"I 1\nF " + b"x" * limits.HELD_BYTES_PER_CONNECTION_MAX + b"\n", 0)
    assert session.full
