"""Makes docs/reliability.md of docs/reliability/text.md and the results beside it: `python -m tests.faults.document`.

Where the text says `<!-- result: NAME -->`, docs/reliability/NAME.json is shown: the command that wrote it, its counts,
its table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from tests.faults.results import RESULTS, ROOT

TEXT: Final = RESULTS / "text.md"
DOCUMENT: Final = ROOT / "docs" / "reliability.md"
SCOREBOARD: Final = "<!-- scoreboard -->"
TRIED: Final = {  # by result: the tier, and which of its counts says how much was tried
    "crash_states": ("A: crash states of the journal", "states"),
    "seeds": ("B: simulated histories", "seeds"),
    "nth_call": ("C: calls failed, one by one", "calls failed"),
    "planted": ("D: planted bugs", "planted"),
    "kills": ("E: rounds of SIGKILL under load", "rounds"),
    "kills_broker": ("E: the same with RabbitMQ in between", "rounds"),
    "drills": ("G: outages", "drills"),
    "drills_broker": ("G: outages of RabbitMQ, and a fleet that is spread out", "drills"),
    "drills_people": ("G: what people hear of outages", "drills"),
    "bit_rot": ("H: damaged journals", "damaged journals"),
    "control": ("the control, killed: it has to fail", "rounds"),
    "control_drill": ("the control in an outage: it has to fail", "drills"),
}
WRONG: Final = ("broken", "not noticed", "missing", "spurious", "corrupted", "doubled", "out of order")
COUNTS_IN_A_LINE: Final = 8  # more are shown as a table
MARK: Final = re.compile(r"^<!-- result: (\w+) -->$", re.MULTILINE)


def document() -> str:
    """The whole page. Raises FileNotFoundError for a result that was never saved."""
    text = TEXT.read_text(encoding="utf-8").replace(SCOREBOARD, scoreboard())
    return MARK.sub(lambda mark: shown(mark[1]), text)


def scoreboard() -> str:
    """What was tried and what was wrong, a line for each tier."""
    lines = ["| tier | tried | wrong | command |", "|---|---|---|---|"]
    for name, (title, key) in TRIED.items():
        found = result(name)
        wrong = [
            f"{number_of(number)} {what}"
            for what, number in amounts(found)
            if what.partition(",")[0] in WRONG and number
        ]
        tried = number_of(found["counts"][key])
        lines.append(f"| {title} | {tried} | {', '.join(wrong) or 'nothing'} | `{found['command']}` |")
    return "\n".join(lines)


def amounts(found: Any) -> Iterator[tuple[str, Any]]:
    """Counts, and those columns of the table that the counts do not sum up, added up."""
    yield from found["counts"].items()
    table = found.get("table", {"columns": [], "rows": []})
    for place, column in enumerate(table["columns"]):
        if column in WRONG and column not in found["counts"]:
            named = [row for row in table["rows"] if "named" in table["columns"] and row[-1]]
            yield column, sum(row[place] for row in table["rows"] if row not in named)
            yield f"{column}, and named", sum(row[place] for row in named)


def result(name: str) -> Any:
    """As it was saved."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def shown(name: str) -> str:
    """One result, as Markdown."""
    found = result(name)
    counts = found["counts"]
    parts = [f"`{found['command']}`, {found['date']}:"]
    if len(counts) > COUNTS_IN_A_LINE:
        parts.append(table_of(["what", "times"], [list(one) for one in counts.items()]))
    else:
        parts[0] += " " + "; ".join(f"{number_of(number)} {what}" for what, number in counts.items()) + "."
    if "table" in found:
        parts.append(table_of(found["table"]["columns"], found["table"]["rows"]))
    return "\n\n".join(parts)


def table_of(columns: list[str], rows: list[list[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *([number_of(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number_of(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
    print(f"wrote {DOCUMENT.relative_to(ROOT)}")
