"""The results of a run as a page of Markdown that also reads well on a terminal: ratios beside figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

ROLES = ("load", "gateway", "ingest", "postgres", "monitor", "supervisor")


def text(result: dict[str, Any]) -> str:
    """The whole page."""
    found = ", ".join(f"{name}: {value}" for name, value in result["machine"].items())
    lines = [
        f"# Benchmark of {result['at'][:10]}",
        "",
        f"`{result['command']}`, signalkeep {result['signalkeep']}, {found}.",
        "",
    ]
    if result["stages"]:
        lines += ["## Each stage alone", ""]
        rows = [
            (name, key, ", ".join(f"{what} {_number(value)}" for what, value in values.items()))
            for name, by_key in result["stages"].items()
            for key, values in by_key.items()
        ]
        lines += table(("stage", "for", "measured"), rows)
    if "end_to_end" in result:
        lines += _end_to_end(result["end_to_end"])
    return "\n".join(lines) + "\n"


def _end_to_end(found: dict[str, Any]) -> list[str]:
    top = found["ceiling"]
    empty, full = top["empty_rows_per_s"], top["full_rows_per_s"]
    lines = [
        "## From socket to committed row",
        "",
        f"The ceiling of this run: {_number(top['rows'])} of the same rows merged by one client, {_number(empty)} "
        f"rows/s into an empty table, {_number(full)} rows/s beside a million. Records have 20 elements; load, "
        "gateway, ingest and PostgreSQL share the machine.",
        "",
    ]
    rows = []
    for one in found["runs"]:
        ceiling = full if one["rows_before"] else empty
        latency = one["latency_ms"]
        rows.append(
            (
                one["label"],
                _number(one["asked_per_s"]) if one["asked_per_s"] else "all it takes",
                _number(one["acknowledged_per_s"]),
                _number(one["committed_per_s"]),
                f"{one['committed_per_s'] / ceiling:.0%}",
                " / ".join(f"{latency[name]:.0f}" for name in ("p50", "p99", "max")),
                f"{_number(one['backlog_at_end_of_load'])} / {one['backlog_at_the_end']}",
            )
        )
    head = (
        "run", "asked /s", "acknowledged /s", "committed /s", "of ceiling", "latency ms p50 / p99 / max",
        "backlog at end of load / at the end",
    )  # fmt: skip
    lines += table(head, rows)
    lines += ["Processor time of one record (microseconds) and peak memory (MiB), by role:", ""]
    rows = [
        (one["label"], *(f"{used['cpu_us']:.1f} / {used['peak_mib']:.0f}" if used else "" for used in _roles(one)))
        for one in found["runs"]
    ]
    return lines + table(("run", *ROLES), rows)


def _roles(run: dict[str, Any]) -> Iterable[dict[str, float] | None]:
    return (run["usage"].get(role) for role in ROLES)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table whose columns are aligned, and an empty one behind it."""
    every = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(row[place]) for row in every) for place in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in every
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:], ""]


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
