"""Can this signal be a row? Says why not, before the database has to.

Checks storability only: text without NUL, finite numbers, sizes within `limits.py`. Whether a value is plausible is
a question of quality, asked elsewhere, and never keeps a record out of `signal`. Pure.
"""

from __future__ import annotations

import math
from typing import Any, Final

from signalkeep import limits
from signalkeep.model import Signal

SMALLINT_MAX: Final = 32_767
REAL_MAX: Final = 3.4e38  # altitude, speed and course are `real` columns
NESTING_MAX: Final = 32
INTEGER_DIGITS_MAX: Final = 100  # jsonb numbers are exact, but nothing we know sends more


def fault(signal: Signal) -> str | None:
    """What keeps the signal from being stored, for people; None if nothing does."""
    for name in ("latitude", "longitude", "altitude_m", "speed_kmh", "course_deg"):
        value = getattr(signal, name)
        if value is not None and not (math.isfinite(value) and abs(value) < REAL_MAX):
            return f"{name} is {value}"
    if signal.satellites is not None and not -SMALLINT_MAX <= signal.satellites <= SMALLINT_MAX:
        return f"satellites is {signal.satellites}"
    code = signal.event_code
    if code is not None and (len(code) > limits.EVENT_CODE_CHARS_MAX or _text_fault(code)):
        return f"event_code {_text_fault(code) or 'is too long'}"
    if len(signal.attributes) > limits.ATTRIBUTES_PER_SIGNAL_MAX:
        return f"{len(signal.attributes)} attributes, at most {limits.ATTRIBUTES_PER_SIGNAL_MAX} are kept"
    for name, value in signal.attributes.items():
        problem = _name_fault(name) or _value_fault(value, 0)
        if problem:
            return f"attribute {name[:40]!r} {problem}"
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
