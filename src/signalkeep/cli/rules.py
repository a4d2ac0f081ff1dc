"""`rules`: what rules there are, what each says, and what they find in a file or in what is stored.

Only `rules sweep` writes anything; `rules run` tries rules out, on files without any database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from signalkeep import config
from signalkeep.cli.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    err,
    out,
    print_json,
    print_rows,
    shown,
    with_database,
)
from signalkeep.cli.signals import DeviceOption, SinceOption, UntilOption, time_of
from signalkeep.clock import SystemClock
from signalkeep.errors import CallerError
from signalkeep.store.postgres import Connection

if TYPE_CHECKING:
    from signalkeep.integrity.quality import Swept
    from signalkeep.rulebook import Rulebook
    from signalkeep.rules.contract import Rule
    from signalkeep.rules.runs import RunResult

SAMPLES_SHOWN = 3

app = typer.Typer(help="Rules of data quality.", no_args_is_help=True)


@app.command(name="list")
def list_(data: DataOption = None, config_file: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Every rule, with its limits as they are set here."""
    book = _book(data, config_file)
    rows = []
    for rule in book.rules:
        values = book.usual_limits(rule)
        rows.append({
            "id": rule.id, "title": rule.title, "dimension": str(rule.dimension), "severity": str(rule.severity),
            "asked": str(rule.scope), "bit": rule.bit,
            "limits": "off" if values is None else _limits(rule, values, as_json=as_json),
        })  # fmt: skip
    print_rows(rows, ("id", "title", "dimension", "severity", "limits"), as_json=as_json, empty="there are no rules")


@app.command()
def explain(
    rule_id: Annotated[str, typer.Argument(metavar="ID", help="such as KIN-01")],
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a rule says, what usually causes it, and what to do."""
    book = _book(data, config_file)
    rule = next((rule for rule in book.rules if rule.id == rule_id.upper()), None)
    if rule is None:
        raise CallerError(f"there is no rule {rule_id}", hint="`signalkeep rules list` shows them all.")
    values, only_for = book.usual_limits(rule), book.only_for(rule)
    if as_json:
        print_json(_rule_json(rule, values) | dict(zip(("models", "customers"), only_for, strict=True)))
        return
    out.print("\n".join(explanation(rule, values, *only_for)), markup=False)


@app.command()
def run(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="GPX, CSV or NMEA (.gpx .csv .nmea .log .txt)", show_default=False),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    device: DeviceOption = None,
    model: Annotated[str, typer.Option("--model", help="whose limits hold for a file", show_default=False)] = "",
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What rules find in a recorded track, or with --since in what is stored. Nothing is marked by it."""
    if (file is None) == (since is None):
        raise CallerError("give a file, or --since for what is stored", hint="signalkeep rules run track.gpx")
    book = _book(data, config_file)
    if file is not None:
        if device or until:
            raise CallerError("--device and --until are for stored signals", hint="Give --since instead of a file.")
        _run_file(file, book, model, as_json=as_json)
        return
    if model:
        raise CallerError("--model is for a file", hint="Stored signals are judged with the models of their devices.")
    now = datetime.now(UTC)
    begins, ends = time_of(since, now), time_of(until, now) or now
    assert begins is not None
    if begins >= ends:
        raise CallerError("--since is not before --until", hint="--until is now unless it is given.")
    _run_stored(data, config_file, book, device, begins, ends, as_json=as_json)


@app.command()
def sweep(
    budget: Annotated[float, typer.Option("--budget", min=1, help="seconds that it may take")] = 600.0,
    sample: Annotated[int, typer.Option("--sample", min=0, max=100_000, help="old days to judge again, at random")] = 0,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge everything that waits now, as the organizer does by and by."""
    from signalkeep.integrity.quality import QualitySweep

    book = _book(data, config_file)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} days"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        bar = progress.add_task("judging", total=None)

        def show(done: Swept) -> None:
            progress.update(bar, completed=done.days, description=f"{done.signals} new signals")

        async def work(connection: Connection) -> Swept:
            return await QualitySweep(
                connection, book, SystemClock(), budget_s=budget, sample_days=sample, settled_s=0.0, progress=show
            ).run()

        done = with_database(data, config_file, work, application="signalkeep rules")
    if as_json:
        print_json(done)
    else:
        out.print(
            f"{done.signals} new signals; {done.days} days with {done.judged_signals} signals judged, marks of "
            f"{done.changed_flags} changed; {done.waiting} days wait"
        )
    if done.broken:
        err.print(f"rules that cannot be asked: {', '.join(sorted(done.broken))}", markup=False)
        raise typer.Exit(1)


def _book(data: Path | None, config_file: Path | None) -> Rulebook:
    from signalkeep.rulebook import rulebook_of

    return rulebook_of(config.load(data, config_file).quality)


def _limits(rule: Rule, values: Mapping[str, float], *, as_json: bool) -> Any:
    if as_json:
        return dict(values)
    units = {name: f" {limit.unit}" if limit.unit else "" for name, limit in rule.limits.items()}
    return ", ".join(f"{name} {value:g}{units[name]}" for name, value in values.items())


def _rule_json(rule: Rule, values: Mapping[str, float] | None) -> dict[str, Any]:
    return {
        "id": rule.id, "title": rule.title, "dimension": rule.dimension, "severity": rule.severity,
        "scope": rule.scope, "version": rule.version, "bit": rule.bit, "meaning": rule.meaning, "causes": rule.causes,
        "actions": rule.actions, "source": rule.source, "in_a_row": rule.in_a_row, "for_s": rule.for_s,
        "enabled": values is not None, "limits": values,
        "spoils_position": rule.spoils_position, "error_type": rule.error_type,
    }  # fmt: skip


def explanation(
    rule: Rule, values: Mapping[str, float] | None, models: Sequence[str] = (), customers: Sequence[str] = ()
) -> list[str]:
    """A rule for people, line by line."""
    lines = [f"{rule.id}  {rule.title}", f"{rule.dimension}, {rule.severity}", "", rule.meaning, ""]
    lasting = [f"{rule.in_a_row} signals in a row"] if rule.in_a_row > 1 else []
    lasting += [f"{rule.for_s:g} s"] if rule.for_s else []
    if lasting:
        lines += [f"A hit only when it has lasted for {' and '.join(lasting)}.", ""]
    if models:
        lines += [f"Only for devices of these models: {', '.join(models)}.", ""]
    if customers:
        lines += [f"Only for vehicles of these customers: {', '.join(customers)}.", ""]
    if values is None:
        lines += ["It is switched off by the settings.", ""]
    elif rule.limits:
        lines.append("Limits")
        for name, limit in rule.limits.items():
            unit = f" {limit.unit}" if limit.unit else ""
            changed = f", default {limit.default:g}" if values[name] != limit.default else ""
            lines.append(f"  {name} = {values[name]:g}{unit}{changed}: {limit.meaning}")
        lines.append("")
    for head, items in (("Common causes", rule.causes), ("What to do", rule.actions)):
        if items:
            lines += [head, *(f"  - {item}" for item in items), ""]
    if rule.spoils_position:
        lines += ["Positions that it marks are not in signal_good and do not move the latest position.", ""]
    where = f", bit {rule.bit} of signal.flags" if rule.bit is not None else ", marks no signals"
    return [*lines, f"Defaults from: {rule.source}. Version {rule.version}{where}."]


def _run_file(file: Path, book: Rulebook, model: str, *, as_json: bool) -> None:
    from signalkeep.rules.judge import Judge
    from signalkeep.rules.runs import run as judge_recording
    from signalkeep.tracks.files import readings

    recording = readings(file)
    if not recording.readings and recording.skipped:
        first = recording.skipped[0]
        raise CallerError(
            f"{file}: nothing in it can be read; line {first.line}: {first.why}",
            hint="Give a track as GPX, CSV with a head, or NMEA sentences.",
        )
    judge = Judge()
    result = judge_recording(judge, book.profile(model, ""), recording.readings, model=model)
    hits = [
        {
            "rule": found.hit.rule.id,
            "line": None if found.place is None else recording.lines[found.place],
            "time": datetime.fromtimestamp(found.hit.at_s, UTC),
            "detail": found.hit.detail,
        }
        for found in result.found
    ]
    skipped = [{"line": one.line, "why": one.why} for one in recording.skipped]
    _report(book, [result], hits, judge.first_errors, as_json=as_json, place="line", skipped=skipped,
            skipped_count=recording.skipped_count)  # fmt: skip


def _run_stored(
    data: Path | None,
    config_file: Path | None,
    book: Rulebook,
    device: str | None,
    begins: datetime,
    ends: datetime,
    *,
    as_json: bool,
) -> None:
    from signalkeep.integrity.stored import judge_stored
    from signalkeep.rules.judge import Judge

    judge = Judge()

    async def work(connection: Connection) -> list[tuple[str, RunResult]]:
        with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
            bar = progress.add_task("devices")
            found = []
            async for number, of, done in judge_stored(connection, judge, book, device, begins, ends):
                progress.update(bar, advance=1, total=of)
                found.append((number, done))
            return found

    found = with_database(data, config_file, work, application="signalkeep rules")
    hits = [
        {
            "rule": one.hit.rule.id,
            "device": number,
            "time": datetime.fromtimestamp(one.hit.at_s, UTC),
            "detail": one.hit.detail,
        }
        for number, result in found
        for one in result.found
    ]
    _report(book, [result for _, result in found], hits, judge.first_errors, as_json=as_json, place="device")


def _report(
    book: Rulebook, results: Sequence[RunResult], hits: Sequence[Mapping[str, Any]], errors: Mapping[str, str], *,
    as_json: bool, place: str, skipped: Sequence[Mapping[str, Any]] = (), skipped_count: int = 0,
) -> None:  # fmt: skip
    signals, days = sum(one.readings for one in results), sum(one.days for one in results)
    counts = Counter(hit["rule"] for hit in hits)
    if as_json:
        print_json({
            "signals": signals, "days": days, "hits": hits, "rules": counts, "broken": errors,
            "skipped_lines": skipped_count, "skipped": skipped,
        })  # fmt: skip
    else:
        titles = {rule.id: rule.title for rule in book.rules}
        rows = [
            {"rule": rule_id, "title": titles[rule_id], "hits": count, "for example": _examples(hits, rule_id, place)}
            for rule_id, count in counts.most_common()
        ]
        print_rows(rows, ("rule", "title", "hits", "for example"), as_json=False, empty="no rule has found anything")
        err.print(f"{signals} signals on {days} days", highlight=False)
        for one in skipped[:SAMPLES_SHOWN]:
            err.print(f"line {one['line']} cannot be read: {one['why']}", markup=False)
        if skipped_count > SAMPLES_SHOWN:
            err.print(f"and {skipped_count - SAMPLES_SHOWN} more lines that cannot be read")
        for rule_id, error in errors.items():
            err.print(f"{rule_id} cannot be asked: {error}", markup=False)
    if errors:
        raise typer.Exit(1)


def _examples(hits: Sequence[Mapping[str, Any]], rule_id: str, place: str) -> str:
    first = next(hit for hit in hits if hit["rule"] == rule_id)
    where = f"{place} {first[place]}: " if first[place] is not None else ""
    return f"{where}{shown(first['time'])} {first['detail']}"
