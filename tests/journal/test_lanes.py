"""Lanes and how a range lies to a cursor."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from signalkeep.journal.lanes import Fit, fit, lane_of


def test_lane_is_frozen() -> None:
    """A journal written yesterday must fall into the same lanes tomorrow, on any machine."""
    assert [lane_of(number, 64) for number in ("", "356307042441013", "86915304265485")] == [52, 9, 9]


@given(st.text(max_size=20), st.integers(1, 100))
def test_lane_is_within_bounds(number: str, lanes: int) -> None:
    assert 0 <= lane_of(number, lanes) < lanes


def test_fit() -> None:
    assert fit(1, 5, 0) is Fit.NEW
    assert fit(1, 5, 3) is Fit.NEW
    assert fit(1, 5, 5) is Fit.DONE
    assert fit(1, 5, 9) is Fit.DONE
    assert fit(7, 9, 5) is Fit.HOLE
    assert fit(6, 9, 5) is Fit.NEW
