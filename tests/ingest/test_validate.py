"""What keeps a signal out of the table: exactly what PostgreSQL could not store."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalkeep import limits
from signalkeep.ingest import validate
from signalkeep.model import Signal

GOOD = Signal(wire_time=None, device_time=None, latitude=1.0, attributes={"a": [1, {"b": "x"}], "c": None, "d": 1.5})


def fault(signal: Signal) -> str | None:
    """Judged twice: names that were seen before, and values known by what they are written as, change no answer."""
    first = validate.fault(signal, validate.attributes_json(signal))
    assert validate.fault(signal, validate.attributes_json(signal)) == first
    return first


def test_a_plain_signal_is_storable() -> None:
    assert fault(GOOD) is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"latitude": math.nan}, "latitude"),
        ({"speed_kmh": math.inf}, "speed_kmh"),
        ({"altitude_m": 1e39}, "altitude_m"),
        ({"satellites": 40_000}, "satellites"),
        ({"event_code": "x" * 65}, "event_code"),
        ({"event_code": "a\0b"}, "NUL"),
        ({"attributes": {"a": "b\0"}}, "NUL"),
        ({"attributes": {"a\0": 1}}, "NUL"),
        ({"attributes": {"a": [{"b": ["\0"]}]}}, "NUL"),
        ({"attributes": {"a": "\ud800"}}, "surrogate"),
        ({"attributes": {"a": math.nan}}, "nan"),
        ({"attributes": {"a": 10**101}}, "too large"),
        ({"attributes": {"a": -math.inf, "b": "fine"}}, "inf"),
        ({"attributes": {"a": b"raw"}}, "no JSON value"),
        ({"attributes": {"a" * 129: 1}}, "too long a name"),
        ({"attributes": {"a": "x" * (limits.ATTRIBUTE_TEXT_CHARS_MAX + 1)}}, "too long"),
        ({"attributes": {f"a{n}": n for n in range(limits.ATTRIBUTES_PER_SIGNAL_MAX + 1)}}, "attributes"),
    ],
)
def test_what_cannot_be_stored_is_named(change: dict[str, Any], named: str) -> None:
    assert named in (fault(msgspec.structs.replace(GOOD, **change)) or "")


def test_deep_nesting_is_refused_without_recursion_trouble() -> None:
    value: Any = 1
    for _ in range(500):
        value = [value]
    assert "nested too deeply" in (fault(msgspec.structs.replace(GOOD, attributes={"a": value})) or "")


def test_implausible_is_not_unstorable() -> None:
    """Judging values is for rules that flag; it never keeps a record out."""
    assert fault(msgspec.structs.replace(GOOD, latitude=120.0, speed_kmh=-5.0, satellites=-1)) is None


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "speed_kmh"]) | st.text(max_size=3),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.just("\0")
        | st.binary(max_size=2)
        | st.sampled_from([10**101, -(10**99), "null", "\\", "[{", [1], {"x": 1}, {"\0": 1}, "x" * 20_000, "\ud800"]),
        max_size=4,
    )
)
def test_the_short_way_never_differs_from_the_long_one(attributes: dict[str, Any]) -> None:
    signal = msgspec.structs.replace(GOOD, attributes=attributes)
    long_way = validate._attributes_fault(attributes)
    assert fault(signal) == long_way
    if long_way is None:
        assert msgspec.json.decode(validate.attributes_json(signal)) == msgspec.json.decode(
            msgspec.json.encode(attributes)
        )
