"""What a run of a tier came to, kept beside the document that shows it: docs/reliability/<name>.json.

    save("kills", command, counts={"rounds": 10, "missing": 0}, table=Table(("killed", "times"), [("gateway", 4)]))

`python -m tests.faults.document` makes docs/reliability.md of these and of the text between them.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = ROOT / "docs" / "reliability"


class Table(NamedTuple):
    """Rows below column names; numbers stay numbers."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def save(name: str, command: str, *, counts: dict[str, int | float], table: Table | None = None) -> Path:
    """Write what this run gave, in place of what the one before gave. `counts` in the order in which they are shown."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = {"command": command, "date": f"{datetime.now(UTC):%Y-%m-%d}", "counts": counts}
    if table is not None:
        found["table"] = {"columns": table.columns, "rows": table.rows}
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def quiet() -> None:
    """The product's log says nothing here: in a history full of faults it would say very much."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
