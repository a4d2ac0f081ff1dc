"""Writes the kinds of incidents into docs/incidents.md: `python -m tests.notify.page`. A test says when to run it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from signalkeep.kinds import KINDS

PAGE: Final = Path(__file__).parents[2] / "docs" / "incidents.md"
BEGIN: Final = "<!-- kinds -->\n"
END: Final = "<!-- /kinds -->\n"


def page(text: str) -> str:
    """The page with the table as it must be."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    rows = ["| kind | of | severity | means | what to do |", "|---|---|---|---|---|"]
    rows += [
        f"| `{kind.name}`: {kind.title} | {kind.scope} | {kind.severity} | {kind.meaning} | {kind.what_to_do} |"
        for kind in KINDS.values()
    ]
    return before + BEGIN + "\n".join(rows) + "\n" + END + after


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
