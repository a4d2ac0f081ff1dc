"""The record key: frozen digests, and which clocks are usable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from signalkeep.ingest.keys import digest, record_key

RECEIVED = datetime(2026, 5, 1, 12, tzinfo=UTC)


def test_digest_is_frozen() -> None:
    """These numbers stand in databases: a change would let every re-send in twice."""
    assert digest("teltonika", bytes.fromhex("00ff")) == 1187573596172834604
    assert digest("json", b'{"device_number":"1"}') == -1961993125028460839


@given(st.binary(max_size=200))
def test_digest_is_64_bits_and_depends_on_the_protocol(raw: bytes) -> None:
    assert -(2**63) <= digest("json", raw) < 2**63
    assert digest("json", raw) != digest("teltonika", raw)


def test_a_usable_clock_makes_a_key_of_the_bytes_alone() -> None:
    sent = datetime(2026, 4, 1, tzinfo=UTC)
    first = record_key("json", b"x", sent, RECEIVED)
    again = record_key("json", b"x", sent, RECEIVED + timedelta(days=400))
    assert first == again
    assert first.wire_time == sent
    assert not first.weak


def test_a_clock_that_was_never_set_falls_back_to_received_at() -> None:
    for sent in (None, datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)):
        key = record_key("json", b"x", sent, RECEIVED)
        assert key.wire_time == RECEIVED
        assert key.weak
        assert not key.future
    assert not record_key("json", b"x", datetime(2000, 1, 1, tzinfo=UTC), RECEIVED).weak


def test_a_clock_more_than_a_day_ahead_is_future() -> None:
    day = timedelta(days=1)
    assert not record_key("json", b"x", RECEIVED + day, RECEIVED).weak
    key = record_key("json", b"x", RECEIVED + day + timedelta(milliseconds=1), RECEIVED)
    assert key.future
    assert key.wire_time == RECEIVED
