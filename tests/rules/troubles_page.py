"""The tables of docs/devices.md, made of the code: `python -m tests.rules.troubles_page` writes them anew."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from signalkeep.kinds import KINDS
from signalkeep.rules import shared
from signalkeep.rules.troubles import LIMITS, LINES, Trouble

PAGE: Final = Path(__file__).parents[2] / "docs" / "devices.md"
TABLE: Final = "<!-- {0} -->\n\n{1}\n<!-- end of {0} -->\n"


def tables() -> dict[str, str]:
    """Each table by the name that stands around it."""
    return {
        "troubles": _table(
            ("kind", "meaning", "rules"),
            [(f"`{kind}`", KINDS[kind].meaning, _rules(kind)) for kind in Trouble],
        ),
        "limits": _table(
            ("kind", "limit", "default", "meaning"),
            [
                (f"`{kind}`", f"`{name}`", f"{limit.default:g} {limit.unit}".strip(), limit.meaning)
                for kind in Trouble
                for name, limit in LIMITS[kind].items()
            ],
        ),
        "group": _table(
            ("limit", "default", "meaning"),
            [
                (f"`{name}`", f"{limit.default:g} {limit.unit}".strip(), limit.meaning)
                for name, limit in shared.LIMITS.items()
            ],
        ),
        "no trouble": _table(
            ("rules", "why not"),
            [(", ".join(rules), why) for why, rules in _without().items()],
        ),
    }


def written(page: str) -> str:
    """The page with its tables as they must be."""
    for name, table in tables().items():
        found = re.compile(rf"<!-- {name} -->\n.*?<!-- end of {name} -->\n", flags=re.DOTALL)
        place = found.search(page)
        assert place, f"docs/devices.md has no place for the table {name}"
        page = page[: place.start()] + TABLE.format(name, table) + page[place.end() :]
    return page


def _rules(kind: Trouble) -> str:
    rules = [rule for rule, line in LINES.items() if line.trouble is kind]
    if kind is Trouble.ERROR_LIMIT:
        rules.append("the limit of an error type")
    return ", ".join(rules)


def _without() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for rule, line in LINES.items():
        if line.trouble is None:
            found.setdefault(line.why, []).append(rule)
    return found


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
