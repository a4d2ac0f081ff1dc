"""The language of conditions: what each part answers, what is missing, what is refused."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from signalkeep.rules.own import CHARS_MAX, FIELDS, LEVELS_MAX, WrongCondition, check_of
from signalkeep.rules.reading import Recent
from tests.rules.support import reading

NAN, INF = float("nan"), float("inf")
WORDS = (
    "speed_kmh", "ignition", "event_code", "moved_m", "rpm", "true", "false", "True", "None", "90", "1.5", "'7000'",
    "and", "or", "not", "(", ")", "+", "-", "*", "/", "**", "%", "<", "<=", "==", "!=", "is", "in", "abs(", "min(",
    "max(", ",", ".", "[", "]", "{", "}", "lambda", ":", ":=", "if", "else", "for", "f'{", "}'", "await", "yield",
    "\\", "\n", "\r", "#", "ü", "\x00", "\ud800", " ",
)  # fmt: skip


def answer(text: str, *, step_m: float | None = None, implied_kmh: float | None = None, **fields: Any) -> bool | None:
    """What a condition says of a reading: True is a hit, None cannot be said."""
    recent = Recent()
    recent.step_m, recent.implied_kmh = step_m, implied_kmh
    said = check_of(text)(reading(0, **fields), recent, {})
    assert said is None or said is False or said == text
    return said if said is None else bool(said)


def refusal(text: str) -> str:
    with pytest.raises(WrongCondition) as caught:
        check_of(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("speed_kmh > 90", True), ("speed_kmh > 100", False), ("speed_kmh >= 100", True), ("speed_kmh < 100", False),
        ("speed_kmh <= 100", True), ("speed_kmh == 100", True), ("speed_kmh != 100", False),
        ("90 < speed_kmh <= 100", True), ("90 < speed_kmh < 100", False), ("100 > 90 > 95", False),
        ("speed_kmh + 1 > 100", True), ("speed_kmh - 1 < 100", True), ("speed_kmh * 2 == 200", True),
        ("speed_kmh / 8 == 12.5", True), ("-speed_kmh < -99", True), ("1 + 2 * 3 == 7", True),
        ("(1 + 2) * 3 == 9", True),
        ("abs(90 - speed_kmh) == 10", True), ("min(3, speed_kmh, 7) == 3", True), ("max(3, speed_kmh, 7) == 100", True),
        ("true", True), ("false", False), ("True and not False", True), ("not speed_kmh > 90", False),
        ("speed_kmh > 90 and rpm > 900", False), ("speed_kmh > 90 or rpm > 900", True),
        ("rpm > 900 or speed_kmh > 90 and not ignition", False), ("ignition", True), ("ignition == true", True),
        ("event_code == '7000'", True), ('event_code != "7000"', False), ("protocol == 'teltonika'", True),
        ("'a' < 'b'", True), ("fix_valid and satellites == 9", True), ("-2.5e1 < 0", True),
        ("  speed_kmh > 90  ", True), ("(speed_kmh > 90\n  and ignition)", True), ("speed_kmh > 90 # fast", True),
    ],
)  # fmt: skip
def test_what_each_part_answers(text: str, hit: bool) -> None:
    fields: dict[str, Any] = {"speed_kmh": 100.0, "event_code": "7000", "attributes": {"rpm": 800, "ignition": True}}
    assert answer(text, **fields) is hit


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_has_its_name(field: str) -> None:
    value: Any = "7000" if field in ("event_code", "protocol") else True if field == "fix_valid" else 7
    given_value: dict[str, Any] = {field: value}
    assert answer(f"{field} == {value!r}", **given_value) is True
    assert answer(f"{field} == {value!r}", **dict.fromkeys(given_value)) is None


def test_values_that_are_worked_out() -> None:
    assert answer("moved_m > 200 and implied_kmh > 50", step_m=201, implied_kmh=51) is True
    assert answer("moved_m > 200") is None
    assert answer("implied_kmh > 200") is None
    assert answer("delay_s == 2") is True
    assert answer("hour == 12") is True
    assert answer("hour == 0 or delay_s == 0", time_s=None) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rpm > 900", None), ("not rpm > 900", None), ("not rpm", None), ("rpm + 1 > 0", None), ("-rpm < 0", None),
        ("abs(rpm) > 0", None), ("min(rpm, 1) == 1", None), ("90 < rpm < 95", None), ("rpm != 900", None),
        ("rpm > 900 and false", False), ("false and rpm > 900", False), ("rpm > 900 and true", None),
        ("rpm > 900 or true", True), ("true or rpm > 900", True), ("rpm > 900 or false", None),
        ("rpm > 900 and false or true", True), ("2 < 1 < rpm", False),
    ],
)  # fmt: skip
def test_what_is_missing_counts_only_where_it_decides(text: str, said: bool | None) -> None:
    assert answer(text) is said


@pytest.mark.parametrize(
    "text",
    [
        "event_code > 7000", "event_code == 7000", "event_code != 7000", "event_code + 1 > 0",
        "event_code + '1' == '70001'",
        "event_code * 1000000000 == ''", "-event_code", "abs(event_code) > 0", "min(event_code, 1) == 1",
        "max('a', 'b') == 'b'", "speed_kmh / 0 > 1", "1e300 * 1e300 > 1", "speed_kmh > '90'", "axles > 1", "axles",
        "axles == 3", "max(axles, 3) > 1", "axles * 1000000000 > 1", "nothing == 1", "not a_number > 1", "endless > 1",
        "huge > 1", "huge * huge > 1",
    ],
)  # fmt: skip
def test_of_another_kind_is_missing_and_costs_nothing(text: str) -> None:
    strange = {"axles": [1, 2], "nothing": None, "a_number": NAN, "endless": INF, "huge": 10**400}
    assert answer(text, speed_kmh=50.0, event_code="7000", attributes=strange) is None


def test_a_truth_can_be_reckoned_with_as_devices_send_it() -> None:
    """Ignition as true, or as 1."""
    for on, off in ((True, False), (1, 0)):
        assert answer("ignition == true", attributes={"ignition": on}) is True
        assert answer("ignition == 1", attributes={"ignition": off}) is False
        assert answer("door_1 + door_2 >= 2", attributes={"door_1": on, "door_2": on}) is True


@pytest.mark.parametrize(
    "text",
    [
        "speed_kmh.real", "attributes['rpm']", "__import__('os').system('x')", "open('x')", "().__class__", "lambda: 1",
        "abs()", "abs(1, 2)", "abs(x=1)", "min()", "min(1)", "max(1)", "min(1, 2, key=abs)", "min(1, 2, **x)",
        "abs.real(1)", "abs(abs)(1)", "1 if rpm else 2", "[x for x in rpm]", "{x for x in rpm}", "(x for x in rpm)",
        "{x: 1 for x in rpm}", "{1: 2}", "{1}", "[1]", "(1, 2)", "f'{rpm}'", "f'x'", "b'x'", "None", "...", "1j",
        "2 ** 9999999", "rpm % 2", "rpm // 2", "rpm @ 2", "rpm & 1", "rpm | 1", "rpm ^ 1", "1 << 99", "1 >> 9", "~rpm",
        "+rpm", "rpm is 1", "rpm is not 1", "rpm in x", "rpm not in x", "await rpm",
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(text: str) -> None:
    assert refusal(text) == f"not understood: {text!r} at character 1"
    assert refusal(f"rpm or ({text})").startswith("not understood: ")


@pytest.mark.parametrize(
    ("text", "part", "character"),
    [
        ("1 < attributes['rpm']", "attributes['rpm']", 5), ("(x := 1)", "x := 1", 2), ("(yield)", "yield", 2),
        ("abs(*x)", "*x", 5), ("min(*x, 1)", "*x", 5), ("rpm % 2 == 0", "rpm % 2", 1), ("-(rpm % 2)", "rpm % 2", 3),
        ("  true and x[1]", "x[1]", 12), ("name == 'Müller' and x[1]", "x[1]", 22),
        ("(true and\n x[1])", "x[1]", 12), ("\t(true and\r\n x[1])", "x[1]", 13),
    ],
)  # fmt: skip
def test_a_part_is_refused_with_its_place(text: str, part: str, character: int) -> None:
    assert refusal(text) == f"not understood: {part!r} at character {character}"
    assert text.replace("\r\n", "\n")[character - 1 :].startswith(part)


@pytest.mark.parametrize(
    ("text", "character"),
    [
        ("speed_kmh >> > 1", 14), ("   speed_kmh >> > 1", 17), ("(true or\n 1 >> > 1)", 16), ("x; y", 2), ("x = 1", 3),
        ("import os", 1), ("", 1), ("'x", 1), ("rpm > 0 and", 12), ("rpm > \N{FIGURE SPACE}1", 7), ("rpm ? 1", 5),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_place(text: str, character: int) -> None:
    assert refusal(text).endswith(f" at character {character}")


@pytest.mark.parametrize("text", ["event_code == '\\d'", "1if rpm else 2", "rpm > 0or ignition"])
def test_a_doubtful_spelling_is_refused_and_not_printed(text: str) -> None:
    with warnings.catch_warnings(record=True) as printed:
        warnings.simplefilter("always")
        refusal(text)
    assert printed == []


def test_how_long_and_how_deep() -> None:
    longest = "rpm > 1" + " " * (CHARS_MAX - 7)
    assert answer(longest, attributes={"rpm": 2}) is True
    assert refusal(longest + " ") == f"longer than {CHARS_MAX} characters"
    many = " or ".join(["rpm > 1"] * 90)
    assert answer(many, attributes={"rpm": 2}) is True, "wide is not deep"
    for deep in ("not " * 240 + "rpm", "-" * 900 + "rpm", "+".join("1" * 400), "abs(" * 150 + "1" + ")" * 150):
        assert refusal(deep) == f"nested more than {LEVELS_MAX} levels deep"
    for beyond in ("(" * 499 + "1" + ")" * 499, "[" * 900):
        refusal(beyond)


def test_the_deepest_condition_can_be_asked_far_down_the_stack() -> None:
    deepest = "not " * (LEVELS_MAX - 2) + "ignition"
    check = check_of(deepest)

    def descend(levels: int) -> object:
        if levels:
            return descend(levels - 1)
        return check(reading(0, attributes={"ignition": True}), Recent(), {})

    depth = 0
    frame: Any = sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    assert descend(sys.getrecursionlimit() - depth - 4 * LEVELS_MAX) == deepest
    refusal("not " + deepest)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=3)
)


TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join),
    st.text("()-+ 1xa.[]'\"\\\n", max_size=300),
)


@given(
    TEXTS,
    st.fixed_dictionaries({"rpm": VALUES, "ignition": VALUES, "x": VALUES, "a": VALUES}),
)  # fmt: skip
@example("\x00", {})
@example("'\ud800'", {})
@example("1" * 900, {})
@example("(\r1 2)", {})
@example("\x0c(\n1.a)", {})
def test_any_text_gives_a_check_or_is_refused(text: str, attributes: dict[str, Any]) -> None:
    try:
        check = check_of(text)
    except WrongCondition:
        return
    said = check(reading(0, attributes=attributes), Recent(), {})
    assert said is None or said is False or said == text
