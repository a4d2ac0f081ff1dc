"""Writes docs/rules.md from the rules: `python -m tests.rules.page`. A test says when it must be run again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from signalkeep.model import Flag
from signalkeep.rules.catalogue import RULES
from signalkeep.rules.contract import Rule, Scope

PAGE: Final = Path(__file__).parents[2] / "docs" / "rules.md"
FAMILIES: Final = {
    "FRM": "Messages", "ID": "Identity", "SCH": "Form", "TIM": "Time", "POS": "Position", "KIN": "Motion",
    "UNI": "Units", "VEH": "Vehicle", "DEV": "Device", "FLT": "Fleet",
}  # fmt: skip
ASKED: Final = {
    Scope.SIGNAL: "of every signal by itself, at ingest and in sweeps",
    Scope.RECENT: "of every signal with what is remembered of its device, at ingest and in sweeps",
    Scope.DAY: "of each day of a device, in sweeps",
    Scope.FLEET: "of the whole fleet, once an hour",
}


def page() -> str:
    """The page as it must be."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "# The rules"
    yield ""
    yield "Made from the rules by `python -m tests.rules.page`; `signalkeep rules explain ID` prints the same, with the"
    yield "limits as they are set where you are. How to read, tune and add rules: [quality.md](quality.md)."
    yield ""
    yield "| rule | says | dimension | severity | bit of `signal.flags` |"
    yield "|---|---|---|---|---|"
    for rule in RULES:
        bit = "" if rule.bit is None else str(rule.bit)
        yield f"| [{rule.id}](#{anchor(rule)}) | {rule.title} | {rule.dimension} | {rule.severity} | {bit} |"
    yield ""
    flags = ", ".join(f"{int(flag)} {str(flag.name).lower()}" for flag in Flag)
    yield f"Below the rules' bits are those of the record itself: {flags}."
    family = ""
    for rule in RULES:
        if rule.id.split("-")[0] != family:
            family = rule.id.split("-")[0]
            yield ""
            yield f"## {FAMILIES[family]}"
        yield from _rule(rule)
    yield ""


def anchor(rule: Rule) -> str:
    """As GitHub makes it of the heading."""
    text = f"{rule.id} {rule.title}".lower()
    return "".join(char for char in text if char.isalnum() or char in "- _").replace(" ", "-")


def _rule(rule: Rule) -> Iterator[str]:
    yield ""
    yield f"### {rule.id} {rule.title}"
    yield ""
    yield rule.meaning
    yield ""
    lasting = [f"{rule.in_a_row} signals in a row"] if rule.in_a_row > 1 else []
    lasting += [f"{rule.for_s:g} s"] if rule.for_s else []
    if lasting:
        yield f"A hit only when it has lasted for {' and '.join(lasting)}."
        yield ""
    yield f"Asked {ASKED[rule.scope]}." + (" A hit doubts the position." if rule.spoils_position else "")
    yield ""
    if rule.limits:
        yield "| limit | default | meaning |"
        yield "|---|---|---|"
        for name, limit in rule.limits.items():
            unit = f" {limit.unit}" if limit.unit else ""
            yield f"| `{name}` | {limit.default:g}{unit} | {limit.meaning} |"
        yield ""
    yield f"Common causes: {'; '.join(rule.causes)}."
    yield ""
    yield from (f"- {action}" for action in rule.actions)
    yield ""
    yield f"Defaults from: {rule.source}."


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
