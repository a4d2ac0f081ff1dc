"""The alert rules that the operators' page proposes: well-formed, and about metrics that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.monitor.pictures import picture
from tests.monitor.test_metrics import parsed

DOCS = Path(__file__).resolve().parent.parent / "docs" / "operations.md"
LINE = re.compile(r"( *)(- )?(\w+):(?: (.+))?")


def rules(block: str) -> Iterator[dict[str, Any]]:
    """The rules of a block in the few forms of YAML that it may use. Raises AssertionError for any other."""
    lines = block.splitlines()
    assert lines[:3] == ["groups:", "  - name: signalkeep", "    rules:"]
    rule: dict[str, Any] = {}
    table: dict[str, Any] = {}
    for line in lines[3:]:
        match = LINE.fullmatch(line)
        assert match, f"not understood: {line}"
        indent, dash, key, value = len(match[1]), match[2], match[3], match[4]
        assert value is None or not re.search(r": |#|^[\[{&*!|>'\"%@`]", value), f"to be quoted: {line}"
        if dash:
            assert (indent, key) == (6, "alert"), line
            if rule:
                yield rule
            rule, table = {}, {}
        if dash or indent == 8:
            assert key not in rule, line
            table = {}
            rule[key] = table if value is None else value
        else:
            assert indent == 10, line
            assert value, line
            table[key] = value
    yield rule


def proposed() -> list[dict[str, Any]]:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return list(rules(block))


def test_each_rule_has_all_that_it_needs_and_a_name_of_its_own() -> None:
    found = proposed()
    assert len(found) >= 5
    assert len({rule["alert"] for rule in found}) == len(found)
    for rule in found:
        assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[smh]", rule["for"])
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_the_rules_speak_of_metrics_that_there_are() -> None:
    samples = {sample.name for family in parsed(picture()) for sample in family.samples}
    for rule in proposed():
        named = set(re.findall(r"signalkeep_\w+", rule["expr"]))
        assert named
        assert named <= samples, rule["expr"]


@pytest.mark.parametrize("fault", ["      - alert: A: B", "   alert", "          x: 1: 2", "        expr: {a}"])
def test_what_is_not_such_yaml_is_noticed(fault: str) -> None:
    with pytest.raises(AssertionError):
        list(rules(f"groups:\n  - name: signalkeep\n    rules:\n      - alert: A\n{fault}\n"))
