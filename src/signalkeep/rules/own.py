"""Rules that users write in the settings: a condition over a signal, and how long it must hold.

    speed_kmh > 90 and not ignition
    power_v < 11.8 and moved_m > 200
    abs(speed_kmh - obd_speed_kmh) > 15 or rpm == 0

Names are the fields of a signal and its attributes, and `moved_m`, `implied_kmh` (from the last good point), `hour`
(of the day, UTC), `delay_s`. Where a value is missing that the answer needs, there is none: the signal is neither good
nor bad. Numbers, texts in quotes, true and false, + - * /, comparisons, and, or, not, abs(), min(), max(). Nothing else
is understood, and nothing of it can reach beyond the signal. Pure; the same text always means the same.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from signalkeep.rules.contract import Answer, Limits
from signalkeep.rules.reading import Reading, Recent

CHARS_MAX: Final = 1000
FIELDS: Final = (
    "latitude", "longitude", "altitude_m", "speed_kmh", "course_deg", "satellites", "event_code", "fix_valid",
    "protocol",
)  # fmt: skip

Value: TypeAlias = float | int | bool | str | None
Term: TypeAlias = Callable[[Reading, Recent], Value]

_BINARY: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
_COMPARE: Final[dict[type[ast.cmpop], Callable[[Any, Any], bool]]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip
_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {"abs": abs, "min": min, "max": max}
_WORDS: Final = {"true": True, "false": False}


class WrongCondition(ValueError):
    """Says what is wrong, and at which character."""


def check_of(text: str) -> Callable[[Reading, Recent, Limits], Answer]:
    """The check of a condition. Raises WrongCondition."""
    if len(text) > CHARS_MAX:
        raise WrongCondition(f"longer than {CHARS_MAX} characters")
    try:
        term = _term(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError as error:
        raise WrongCondition(f"{error.msg} at character {error.offset}") from error
    except RecursionError as error:
        raise WrongCondition("nested too deeply") from error

    def check(reading: Reading, recent: Recent, _: Limits) -> Answer:
        found = term(reading, recent)
        if found is None:
            return None
        return text if found else False

    return check


def _term(node: ast.expr) -> Term:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return lambda _, __: value
        case ast.Name(id=name):
            return _named(name)
        case ast.BoolOp(op=op, values=values):
            return _junction([_term(value) for value in values], all_of=isinstance(op, ast.And))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _applied(operator.not_, _term(operand))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _applied(operator.neg, _term(operand))
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _BINARY:
            return _applied(_BINARY[type(op)], _term(left), _term(right))
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARE for op in ops):
            terms = [_term(left), *map(_term, others)]
            parts = [_applied(_COMPARE[type(op)], terms[place], terms[place + 1]) for place, op in enumerate(ops)]
            return parts[0] if len(parts) == 1 else _junction(parts, all_of=True)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS and arguments:
            return _applied(_FUNCTIONS[name], *map(_term, arguments))
        case _:
            raise WrongCondition(f"not understood: {ast.unparse(node)[:60]!r} at character {node.col_offset + 1}")


def _named(name: str) -> Term:
    if name in _WORDS:
        word = _WORDS[name]
        return lambda _, __: word
    if name in FIELDS:
        return lambda reading, _: getattr(reading, name)
    if name == "moved_m":
        return lambda _, recent: recent.step_m
    if name == "implied_kmh":
        return lambda _, recent: recent.implied_kmh
    if name == "delay_s":
        return lambda reading, _: reading.delay_s
    if name == "hour":
        return lambda reading, _: None if reading.time_s is None else reading.time_s % 86_400 / 3600
    return lambda reading, _: reading.attributes.get(name)


def _junction(terms: list[Term], *, all_of: bool) -> Term:
    """`and`, `or`: what is missing counts only where it decides."""

    def joined(reading: Reading, recent: Recent) -> Value:
        missing = False
        for term in terms:
            value = term(reading, recent)
            if value is None:
                missing = True
            elif bool(value) is not all_of:
                return not all_of
        return None if missing else all_of

    return joined


def _applied(function: Callable[..., Any], *terms: Term) -> Term:
    """A value of another kind than the operation needs counts as missing."""

    def applied(reading: Reading, recent: Recent) -> Value:
        values = [term(reading, recent) for term in terms]
        if None in values:
            return None
        try:
            found: Value = function(*values)
        except (TypeError, ZeroDivisionError, OverflowError):
            return None
        return found

    return applied
