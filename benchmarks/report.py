"""The results of a run as a page of Markdown that also reads well on a terminal: ratios beside figures.

Nothing is judged here, and nothing is left out that was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

ROLES = ("load", "gateway", "ingest", "postgres", "monitor", "supervisor")
BROKER_ROLES = ("load", "gateway", "relay", "rabbitmq", "ingest", "postgres", "monitor", "supervisor")


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
    if "rules" in result:
        lines += _rules(result["rules"])
    if "devices" in result:
        lines += _devices(result["devices"])
    if "end_to_end" in result:
        lines += _end_to_end(result["end_to_end"])
    if "broker" in result:
        lines += _through_the_broker(result["broker"])
    return "\n".join(lines) + "\n"


def _rules(found: dict[str, Any]) -> list[str]:
    """What rules cost, dearest first; ratios are with rules to without."""
    memory, sweep = found["memory"], found["sweep"]
    lines = [
        "## Rules of quality",
        "",
        f"One record costs {found['judge_full_us']:.2f} us when every rule is asked, {found['judge_quick_us']:.2f} at "
        f"ingest, where a screen spares sound records most of them; {_number(found['hits'])} hits. "
        f"{found['not_asked']} rules were not asked: these records have none of the values that they look at. "
        "The rest, one by one, with the call:",
        "",
    ]
    lines += table(
        ("rule", "looks at", "us"), [(one["id"], one["scope"], f"{one['us']:.2f}") for one in found["rules"]]
    )
    lines += ["Ingest with rules against without, the aim being 60%; medians of pairs that took turns:", ""]
    rows = [
        (
            key,
            f"{_number(one['records_per_s_without'])} / {_number(one['records_per_s_with'])}",
            f"{one['ratio']:.0%} ({one['ratio_least']:.0%} to {one['ratio_most']:.0%})",
            f"{one['ingest_cpu_us_without']:.1f} / {one['ingest_cpu_us_with']:.1f}",
            f"{one['postgres_cpu_us_without']:.1f} / {one['postgres_cpu_us_with']:.1f}",
            f"{one['ratio_by_cpu']:.0%}",
        )
        for key, one in found["ingest"].items()
    ]
    head = (
        "for", "records /s without / with", "ratio", "ingest us without / with", "postgres us without / with",
        "ratio by processor time of both",
    )  # fmt: skip
    lines += table(head, rows)
    return [
        *lines,
        f"What is remembered of {_number(memory['devices'])} devices: {memory['added_mib']:.0f} MiB, "
        f"{_number(memory['bytes_each'])} bytes each.",
        "",
        f"A sweep over {_number(sweep['days'])} days of {_number(sweep['devices'])} devices: "
        f"{_number(sweep['signals_per_s'])} signals/s, {sweep['sweep_cpu_us']:.1f} us of its processor time each.",
        "",
    ]


def _devices(found: list[dict[str, Any]]) -> list[str]:
    """What a look at all devices costs."""
    rows = [
        (
            one["scene"], one["look"], f"{one['s']:.1f} / {one['cpu_s']:.1f}", _number(one["devices"] / one["s"]),
            f"{one['peak_mib']:.0f}", f"{one['pause_s']:.2f}", one["said"],
        )
        for one in found
    ]  # fmt: skip
    head = ("scene", "look", "s / of its processor time", "devices /s", "peak MiB", "longest pause s", "came to")
    return [f"## Are devices well? {_number(found[0]['devices'])} of them", "", *table(head, rows)]


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
    return lines + _usage(found["runs"], ROLES)


def _usage(runs: list[dict[str, Any]], roles: Sequence[str]) -> list[str]:
    """What each role used, and all together."""
    rows = []
    for one in runs:
        used = [one["usage"].get(role) for role in roles]
        cells = [f"{role['cpu_us']:.1f} / {role['peak_mib']:.0f}" if role else "" for role in used]
        rows.append((one["label"], *cells, f"{sum(role['cpu_us'] for role in used if role):.1f}"))
    lines = ["Processor time of one record (microseconds) and peak memory (MiB), by role:", ""]
    return lines + table(("run", *roles, "all us"), rows)


def _through_the_broker(found: dict[str, Any]) -> list[str]:
    lines = ["## Through the broker", ""]
    if "left_out" in found:
        return [*lines, f"NOT MEASURED: {found['left_out']}", ""]
    lines += [
        "The same records straight from the journal and through RabbitMQ, one after the other, each on an empty table; "
        "RabbitMQ shares the machine with all the rest. A run beside which others kept cores busy "
        "says little of rates; the share by processor time, which is that of a machine without idle cores, stays.",
        "",
    ]
    rows = [
        (
            one["label"],
            _number(one["acknowledged"]),
            _number(one["acknowledged_per_s"]),
            _number(one["committed_per_s"]),
            f"{one['of_direct']:.0%}",
            f"{one['of_direct_by_cpu']:.0%}",
            f"{_number(one['backlog_at_end_of_load'])} / {one['backlog_at_the_end']}",
            f"{one['cores_of_others']:.1f}",
        )
        for one in found["runs"]
    ]
    head = (
        "run", "records", "acknowledged /s", "committed /s", "of direct", "by processor time",
        "backlog at end of load / at the end", "cores of others",
    )  # fmt: skip
    lines += table(head, rows)
    lines += _traffic([one for one in found["runs"] if "traffic" in one])
    return lines + _usage(found["runs"], BROKER_ROLES)


def _traffic(runs: list[dict[str, Any]]) -> list[str]:
    rates = ("messages_per_s", "mib_per_s", "entries_per_message", "kib_per_message", "confirm_ms")
    counts = ("unconfirmed", "went_back", "doubles", "holes", "set_aside")
    rows = [
        (
            one["label"],
            *(_number(one["traffic"][name]) for name in rates),
            " / ".join(str(one["traffic"][name]) for name in counts),
        )
        for one in runs
    ]
    head = (
        "run", "messages /s", "MiB/s", "entries a message", "KiB a message", "confirmed after ms",
        "unconfirmed / went back / doubles / holes / set aside",
    )  # fmt: skip
    return table(head, rows)


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
