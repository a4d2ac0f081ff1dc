"""The language of conditions that users write: what it answers, what it refuses, and that it reaches nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalkeep.rules.own import CHARS_MAX, WrongCondition, check_of
from signalkeep.rules.reading import Recent
from tests.rules.support import reading


def answer(text: str, **fields: Any) -> bool | None:
    """What a condition says: hit, well, or nothing."""
    found = check_of(text)(reading(**fields), Recent(), {})
    assert found in {None, False, text}
    return None if found is None else bool(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("speed_kmh > 90", True), ("speed_kmh < 90", False), ("speed_kmh >= 91", True), ("speed_kmh <= 90.5", False),
        ("speed_kmh == 91", True), ("speed_kmh != 91", False), ("80 < speed_kmh < 100", True),
        ("80 < speed_kmh < 90", False), ("not speed_kmh > 90", False), ("ignition", True), ("not ignition", False),
        ("ignition == true", True), ("motion == false", True), ("power_v + 1 > 12", True), ("power_v - 1 > 12", False),
        ("power_v * 2 > 23", True), ("power_v / 2 > 6", False), ("-power_v < 0", True), ("abs(power_v - 20) > 8", True),
        ("max(power_v, 30) == 30", True), ("min(power_v, speed_kmh) == power_v", True), ("operator == 'one'", True),
        ("event_code == '7000'", True), ("hour == 12", True), ("delay_s == 2", True), ("fix_valid", True),
        ("ignition and speed_kmh > 90", True), ("motion or speed_kmh > 200", False),
    ],
)  # fmt: skip
def test_what_a_condition_says(text: str, expected: bool) -> None:
    attributes = {"ignition": True, "motion": False, "power_v": 11.8, "operator": "one"}
    assert answer(text, speed_kmh=91.0, event_code="7000", attributes=attributes) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rpm > 5", None), ("not rpm", None), ("rpm > 5 and speed_kmh > 5", False), ("rpm > 5 and speed_kmh < 5", None),
        ("rpm > 5 or speed_kmh < 5", True), ("rpm > 5 or speed_kmh > 5", None), ("abs(rpm) > 1", None),
        ("driver > 5", None), ("driver + 1 > 5", None), ("speed_kmh / 0 > 1", None), ("moved_m > 5", None),
        ("dtcs > 1", None),
    ],
)  # fmt: skip
def test_what_is_missing_counts_only_where_it_decides(text: str, expected: bool | None) -> None:
    assert answer(text, speed_kmh=0.0, attributes={"driver": "Anna", "dtcs": ["P0001"]}) is expected


def test_how_far_it_has_moved() -> None:
    recent = Recent()
    recent.step_m, recent.implied_kmh = 250.0, 25.0
    assert check_of("moved_m > 200 and implied_kmh < 30")(reading(), recent, {})


@pytest.mark.parametrize(
    "text",
    [
        "", "speed_kmh >", "speed_kmh = 5", "open('x')", "__import__('os')", "speed_kmh.real", "attributes['x']",
        "[1, 2]", "{1}", "lambda: 1", "(x := 5)", "f'{speed_kmh}'", "1 if ignition else 2", "speed_kmh ** 99",
        "speed_kmh % 2", "speed_kmh << 9", "1 in dtcs", "x is None", "abs()", "abs(x, key=1)", "max(*x)", "await x",
        "yield", "x; y", "import os", "b'x'", "1j", "...", "~x", "x @ y", "[x for x in y]", "abs.__call__(1)",
        "x" * (CHARS_MAX + 1), "(" * 300 + "1" + ")" * 300, "not " * 200 + "x.y",
    ],
)  # fmt: skip
def test_what_is_refused(text: str) -> None:
    with pytest.raises(WrongCondition):
        check_of(text)


def test_a_refusal_says_where() -> None:
    with pytest.raises(WrongCondition, match=r"not understood: 'x\.y' at character 9"):
        check_of("speed > x.y")


@given(st.text(max_size=60) | st.text("abs()ignton &|<>=!+-*/.,'\"[]{}:0159 \n\t", max_size=60))
def test_any_text_is_a_condition_or_is_refused(text: str) -> None:
    try:
        check = check_of(text)
    except WrongCondition:
        return
    check(reading(attributes={"a": 1, "b": "x", "n": None, "t": [1]}), Recent(), {})
