"""`scores`: how far data can be trusted, per device, model, vehicle, customer or day, the worst first, and why."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

import typer

from signalkeep.cli.common import ConfigOption, DataOption, JsonOption, LimitOption, err, print_rows, with_database
from signalkeep.errors import CallerError
from signalkeep.store import quality
from signalkeep.store.postgres import Connection, Row

ENOUGH = 20  # as in rules.scores, where the reason stands


def scores(
    by: Annotated[str, typer.Option("--by", help="device, model, vehicle, customer or day")] = "device",
    only: Annotated[
        str | None, typer.Option("--only", help="this one; with --by day: this device", show_default=False)
    ] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="DAY", help="default: yesterday")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="DAY", help="default: today")] = None,
    limit: LimitOption = 50,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Good of what was looked at, in six dimensions, and overall; the worst first. ? : too little to say."""
    if by not in quality.BY:
        raise CallerError(f"--by {by}: there is no such thing", hint=f"One of {', '.join(quality.BY)}.")
    today = datetime.now(UTC).date()
    begins = day_of(since) if since else today - timedelta(days=1)
    ends = day_of(until) if until else today
    if begins > ends:
        raise CallerError(f"{begins} is later than {ends}", hint="--since is the first day, --until the last one.")

    async def work(connection: Connection) -> list[Row]:
        return await quality.scores(connection, by=by, only=only, begins=begins, ends=ends, limit=limit)

    rows = with_database(data, config_file, work, application="signalkeep scores")
    shown = [_json(row) if as_json else _line(row, by) for row in rows]
    columns = (by, "signals", "overall", *quality.DIMENSIONS, *(("mostly",) if by == "device" else ()))
    print_rows(shown, columns, as_json=as_json, empty="no day has been judged yet; the organizer does it by and by")
    if shown and not as_json:
        err.print("`signalkeep rules explain ID` says what a rule means and what to do", highlight=False)


def day_of(text: str) -> date:
    """A day as people write it. Raises CallerError."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise CallerError(f"{text} is no day", hint="Write it like 2026-05-01.") from error


def _json(row: Row) -> dict[str, Any]:
    said = dict(row)
    dimensions = {}
    for name in quality.DIMENSIONS:
        of, good = said.pop(f"{name}_of"), said.pop(f"{name}_good")
        dimensions[name] = {"of": of, "good": good, "score": round(good / of, 4) if of >= ENOUGH else None}
    return said | {"dimensions": dimensions}


def _line(row: Row, by: str) -> dict[str, str]:
    said = {by: row["name"], "signals": f"{row['signals']:,}", "overall": _percent(row["overall"])}
    for name in quality.DIMENSIONS:
        of, good = row[f"{name}_of"], row[f"{name}_good"]
        said[name] = _percent(good / of) if of >= ENOUGH else "?"
    if by == "device":
        said["mostly"] = f"{row['rule']} ({row['hits']:,} signals)" if row["rule"] else ""
    return said


def _percent(value: float | None) -> str:
    """Never 100 % where something was bad."""
    if value is None:
        return "?"
    return "100 %" if value == 1 else f"{min(value * 100, 99.9):.1f} %"
