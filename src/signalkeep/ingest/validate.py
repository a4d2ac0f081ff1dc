"""Can this signal be a row? Says why not, before the database has to.

Checks storability only: text without NUL, finite numbers, sizes within `limits.py`. Whether a value is plausible is
a question of quality, asked elsewhere, and never keeps a record out of `signal`. Pure.

Attributes are written as JSON here, once, and what is written shows at a glance that nearly all of them are sound: no
null (which stands for a number that is not finite), no escape (which could stand for a NUL), no endless number, short,
plain types, and only names that were looked at before. The rest is looked at value by value.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from signalkeep import limits
from signalkeep.model import Signal

SMALLINT_MAX: Final = 32_767
REAL_MAX: Final = 3.4e38  # altitude, speed and course are `real` columns
NESTING_MAX: Final = 32
INTEGER_DIGITS_MAX: Final = 100  # jsonb numbers are exact, but nothing we know sends more
NAMES_REMEMBERED_MAX: Final = 10_000

_PLAIN_TYPES: Final = frozenset({int, float, bool, str})
_DIGITS_ALIKE: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER: Final = b"0" * 21  # more digits than 64 bits need

_to_json = msgspec.json.Encoder().encode
_sound_names: set[str] = set()  # attribute names that were found sound; it changes no answer, only its cost


def attributes_json(signal: Signal) -> bytes:
    """The attributes as they are stored; b"" if they cannot be JSON, which `fault` then explains."""
    try:
        return _to_json(signal.attributes)
    except (TypeError, ValueError, OverflowError, RecursionError):  # a UnicodeEncodeError is a ValueError
        return b""


def fault(signal: Signal, written: bytes) -> str | None:
    """What keeps the signal from being stored, for people; None if nothing does. `written`: its `attributes_json`."""
    for name, value in (
        ("latitude", signal.latitude),
        ("longitude", signal.longitude),
        ("altitude_m", signal.altitude_m),
        ("speed_kmh", signal.speed_kmh),
        ("course_deg", signal.course_deg),
    ):
        if value is not None and not -REAL_MAX < value < REAL_MAX:  # false for one that is no number, too
            return f"{name} is {value}"
    if signal.satellites is not None and not -SMALLINT_MAX <= signal.satellites <= SMALLINT_MAX:
        return f"satellites is {signal.satellites}"
    code = signal.event_code
    if code is not None and (len(code) > limits.EVENT_CODE_CHARS_MAX or _text_fault(code)):
        return f"event_code {_text_fault(code) or 'is too long'}"
    if len(signal.attributes) > limits.ATTRIBUTES_PER_SIGNAL_MAX:
        return f"{len(signal.attributes)} attributes, at most {limits.ATTRIBUTES_PER_SIGNAL_MAX} are kept"
    return None if _plain(signal.attributes, written) else _attributes_fault(signal.attributes)


def _plain(attributes: dict[str, Any], written: bytes) -> bool:
    """Whether nothing can be wrong with the values, and every name was looked at before."""
    return (
        0 < len(written) <= limits.ATTRIBUTE_TEXT_CHARS_MAX
        and b"null" not in written
        and b"\\" not in written
        and _LONG_NUMBER not in written.translate(_DIGITS_ALIKE)
        and _PLAIN_TYPES.issuperset(map(type, attributes.values()))
        and _sound_names.issuperset(attributes)
    )


def _attributes_fault(attributes: dict[str, Any]) -> str | None:
    for name, value in attributes.items():
        problem = _name_fault(name) or _value_fault(value, 0)
        if problem:
            return f"attribute {name[:40]!r} {problem}"
    if len(_sound_names) < NAMES_REMEMBERED_MAX:
        _sound_names.update(attributes)
    return None


def _name_fault(name: str) -> str | None:
    if len(name) > limits.ATTRIBUTE_NAME_CHARS_MAX:
        return "has too long a name"
    return _text_fault(name)


def _value_fault(value: Any, depth: int) -> str | None:
    kind = type(value)
    if kind is int:  # compared by magnitude: turning a huge number into text would be the slow part
        return None if value.bit_length() <= 64 or abs(value) < 10**INTEGER_DIGITS_MAX else "is too large a number"
    if kind is bool or value is None:
        return None
    if kind is float:
        return None if math.isfinite(value) else f"is {value}"
    if kind is str:
        return _text_fault(value) if len(value) <= limits.ATTRIBUTE_TEXT_CHARS_MAX else "is too long"
    if depth >= NESTING_MAX:
        return "is nested too deeply"
    if kind is list or kind is tuple:
        return next((problem for item in value if (problem := _value_fault(item, depth + 1))), None)
    if kind is dict:
        for name, item in value.items():
            problem = _name_fault(name) or _value_fault(item, depth + 1)
            if problem:
                return problem
        return None
    return f"is a {kind.__name__}, which is no JSON value"


def _text_fault(text: str) -> str | None:
    if text.isascii():
        return "contains a NUL character" if "\0" in text else None
    if "\0" in text:
        return "contains a NUL character"
    if any("\ud800" <= char <= "\udfff" for char in text):
        return "contains half of a surrogate pair"
    return None
