"""What keeps a signal out of the table: exactly what PostgreSQL could not store."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from signalkeep import limits
from signalkeep.ingest.validate import fault
from signalkeep.model import Signal

GOOD = Signal(wire_time=None, device_time=None, latitude=1.0, attributes={"a": [1, {"b": "x"}], "c": None, "d": 1.5})


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
