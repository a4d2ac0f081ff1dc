"""Rules that users write in the settings: a condition over a signal, and how long it must hold.

    speed_kmh > 90 and not ignition
    power_v < 11.8 and moved_m > 200
    abs(speed_kmh - obd_speed_kmh) > 15 or rpm == 0

Names are the fields of a signal and its attributes, and `moved_m`, `implied_kmh` (from the last good point), `hour`
(of the day, UTC), `delay_s`. Where a value is missing that the answer needs, there is none: the signal is neither good
nor bad. A value of another kind is missing, too: numbers are compared with numbers, texts with texts, and only numbers
are reckoned with. Numbers, texts in quotes, true and false, + - * /, comparisons, and, or, not, abs(), min(), max().
Nothing else is understood, and nothing of it can reach beyond the signal. Pure; the same text always means the same.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from signalkeep.rules.contract import Answer, Limits
from signalkeep.rules.reading import Reading, Recent, number_of

CHARS_MAX: Final = 1000
LEVELS_MAX: Final = 50  # of one thing in another, so that no condition can come to the end of the stack
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
_EXTREMES: Final[dict[str, Callable[..., Any]]] = {"min": min, "max": max}
_WORDS: Final = {"true": True, "false": False}


class WrongCondition(ValueError):
    """Says what is wrong, and at which character."""


class _Foreign(Exception):
    """A part that belongs to no condition."""

    def __init__(self, node: ast.expr) -> None:
        super().__init__()
        self.node = node


def check_of(text: str) -> Callable[[Reading, Recent, Limits], Answer]:
    """The check of a condition. Raises WrongCondition."""
    if len(text) > CHARS_MAX:
        raise WrongCondition(f"longer than {CHARS_MAX} characters")
    source = text.replace("\r\n", "\n").replace("\r", "\n").lstrip()
    skipped = len(text) - len(text.lstrip())
    tree = _parsed(source, skipped)
    try:
        term = _term(tree)
    except _Foreign as error:
        node = error.node
        lines = source.encode().split(b"\n")
        before = b"\n".join([*lines[: node.lineno - 1], lines[node.lineno - 1][: node.col_offset]]).decode()
        said = ast.get_source_segment(source, node) or ""
        raise WrongCondition(f"not understood: {said[:60]!r} at character {skipped + len(before) + 1}") from None

    def check(reading: Reading, recent: Recent, _: Limits) -> Answer:
        found = term(reading, recent)
        if found is None:
            return None
        return text if found else False

    return check


def _parsed(source: str, skipped: int) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a doubtful spelling is refused, not printed
            tree = ast.parse(source, mode="eval").body
    except SyntaxError as error:
        place = skipped + len(source) + 1  # where the parser names none, the text ends too early
        if error.lineno and error.offset and error.offset > 0:
            place = skipped + sum(len(line) + 1 for line in source.split("\n")[: error.lineno - 1]) + error.offset
        raise WrongCondition(f"{error.msg} at character {place}") from error
    except (ValueError, MemoryError, RecursionError) as error:  # a character that is none, or too much for the parser
        raise WrongCondition("this cannot be read as a condition") from error
    level: list[ast.AST] = [tree]
    for _ in range(LEVELS_MAX):
        level = [below for node in level for below in ast.iter_child_nodes(node)]
    if level:
        raise WrongCondition(f"nested more than {LEVELS_MAX} levels deep")
    return tree


def _term(node: ast.expr) -> Term:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return lambda _, __: value
        case ast.Name(id=name):
            return _named(name)
        case ast.BoolOp(op=op, values=values):
            return _junction([_term(value) for value in values], all_of=isinstance(op, ast.And))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _negated(_term(operand))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _reckoned(operator.neg, _term(operand))
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _BINARY:
            return _reckoned(_BINARY[type(op)], _term(left), _term(right))
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARE for op in ops):
            terms = [_term(left), *map(_term, others)]
            parts = [_compared(_COMPARE[type(op)], terms[place], terms[place + 1]) for place, op in enumerate(ops)]
            return parts[0] if len(parts) == 1 else _junction(parts, all_of=True)
        case ast.Call(func=ast.Name(id="abs"), args=[argument], keywords=[]):
            return _reckoned(abs, _term(argument))
        case ast.Call(func=ast.Name(id=name), args=[_, _, *_] as arguments, keywords=[]) if name in _EXTREMES:
            return _reckoned(_EXTREMES[name], *map(_term, arguments))
        case _:
            raise _Foreign(node)


def _named(name: str) -> Term:
    if name in _WORDS:
        word = _WORDS[name]
        return lambda _, __: word
    if name in FIELDS:
        return lambda reading, _: _plain(getattr(reading, name))
    if name == "moved_m":
        return lambda _, recent: recent.step_m
    if name == "implied_kmh":
        return lambda _, recent: recent.implied_kmh
    if name == "delay_s":
        return lambda reading, _: reading.delay_s
    if name == "hour":
        return lambda reading, _: None if reading.time_s is None else reading.time_s % 86_400 / 3600
    return lambda reading, _: _plain(reading.attributes.get(name))


def _plain(value: Any) -> Value:
    """A text, true or false, or a number that can be reckoned with."""
    return value if isinstance(value, bool | str) else number_of(value)


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


def _negated(term: Term) -> Term:
    def negated(reading: Reading, recent: Recent) -> Value:
        value = term(reading, recent)
        return None if value is None else not value

    return negated


def _compared(comparison: Callable[[Any, Any], bool], left: Term, right: Term) -> Term:
    def compared(reading: Reading, recent: Recent) -> Value:
        one, other = left(reading, recent), right(reading, recent)
        if one is None or other is None or isinstance(one, str) is not isinstance(other, str):
            return None
        return comparison(one, other)

    return compared


def _reckoned(function: Callable[..., Any], *terms: Term) -> Term:
    """What has no result, such as a division by zero, is missing."""

    def reckoned(reading: Reading, recent: Recent) -> Value:
        numbers = []
        for term in terms:
            value = term(reading, recent)
            if value is None or isinstance(value, str):
                return None
            numbers.append(value)
        try:
            return number_of(function(*map(float, numbers)))
        except (ZeroDivisionError, OverflowError):
            return None

    return reckoned
