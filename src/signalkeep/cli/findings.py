"""`findings`: what rules found in the signals of devices, and what people say of it.

A mark of a person beats the rules: it is applied by the next sweep, and kept when it is taken back.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from signalkeep import limits
from signalkeep.cli.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    LimitOption,
    actor,
    out,
    print_json,
    print_rows,
    shown,
    with_database,
)
from signalkeep.cli.scores import day_of
from signalkeep.cli.signals import DeviceOption, time_of
from signalkeep.errors import CallerError
from signalkeep.rules.catalogue import BY_ID
from signalkeep.store import quality
from signalkeep.store.postgres import Connection, Row

RuleOption = Annotated[str | None, typer.Option("--rule", metavar="ID", help="only of this rule", show_default=False)]

app = typer.Typer(help="What rules found, and what people say of it.", no_args_is_help=True)


@app.command(name="list")
def list_(
    device: DeviceOption = None,
    rule: RuleOption = None,
    since: Annotated[str | None, typer.Option("--since", metavar="DAY", help="from this day on")] = None,
    over: Annotated[bool, typer.Option("--all", help="also what is over: cleared, withdrawn, dismissed")] = False,
    limit: LimitOption = 50,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Findings of devices, a line for each rule and day."""
    begins = day_of(since) if since else None

    async def work(connection: Connection) -> list[Row]:
        return await quality.findings(
            connection, device=device, rule=rule.upper() if rule else None, since=begins, over_too=over, limit=limit
        )

    rows = [dict(row) for row in with_database(data, config_file, work, application="signalkeep findings")]
    columns = ("id", "day", "device_number", "rule", "title", "severity", "state", "count", "detail")
    print_rows(
        [{**row, "day": str(row["day"])} for row in rows], columns, as_json=as_json,
        empty="nothing is wrong there; --all shows what is over",
    )  # fmt: skip


@app.command()
def show(
    number: Annotated[int, typer.Argument(metavar="ID", min=1, max=limits.BIGINT_MAX)],
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """One finding: what it means, since when, the first and the last signal, and what to do."""

    async def work(connection: Connection) -> list[Row]:
        return await quality.findings(connection, finding_id=number, over_too=True)

    rows = with_database(data, config_file, work, application="signalkeep findings")
    if not rows:
        raise CallerError(f"there is no finding {number} of a device", hint="`signalkeep findings list --all`")
    row = dict(rows[0])
    if as_json:
        print_json(row)
        return
    out.print("\n".join(_lines(row)), markup=False)


def _lines(row: dict[str, Any]) -> list[str]:
    rule = BY_ID.get(row["rule"])
    lines = [
        f"{row['rule']}  {row['title']}",
        f"device    {row['device_number']}",
        f"state     {row['state']}, {row['severity']}",
        f"from      {shown(row['begins_at'])}",
        f"to        {shown(row['ends_at'])}",
        f"signals   {row['count']}",
    ]
    for name in ("first", "last"):
        sample = row[f"{name}_sample"] or {}
        place = (
            f" at {sample['latitude']}, {sample['longitude']} (journal {sample['journal_id']}, entry {sample['seq']},"
            f" record {sample['record_no']})"
            if "seq" in sample
            else ""
        )
        lines.append(f"{name:<9} {sample.get('detail', '')}{place}")
    if rule is not None:
        lines += ["", rule.meaning, "", "What to do", *(f"  - {action}" for action in rule.actions)]
    begins, ends = _iso(row["begins_at"]), _iso(row["ends_at"])
    if row["rule"].startswith("ERR-") or "seq" not in (row["first_sample"] or {}):  # it is about the day, not signals
        begins, ends = f"{row['day']}", f"{row['day'] + timedelta(days=1)}"
    return [*lines, "", f"Is the rule wrong here?  signalkeep findings mark {row['device_number']} --good "
            f"--rule {row['rule']} --from {begins} --to {ends}"]  # fmt: skip


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


@app.command()
def mark(
    device: Annotated[str, typer.Argument(metavar="NUMBER", help="the device")],
    begins: Annotated[str, typer.Option("--from", metavar="TIME", help="in device time")],
    ends: Annotated[str | None, typer.Option("--to", metavar="TIME", help="default: that moment alone")] = None,
    good: Annotated[bool, typer.Option("--good/--bad", help="what these signals are")] = True,
    rule: Annotated[
        str | None, typer.Option("--rule", metavar="ID", help="the rule that is wrong; default: all of them")
    ] = None,
    note: Annotated[str, typer.Option("--note", help="why, for people")] = "",
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that signals are good although rules doubt them, or bad although rules believe them."""
    if rule and not good:
        raise CallerError("--rule is for --good: which rule is wrong", hint="Leave --rule out.")
    now = datetime.now(UTC)
    first, last = time_of(begins, now), time_of(ends or begins, now)
    assert first is not None
    assert last is not None

    async def work(connection: Connection) -> int:
        return await quality.mark(
            connection, device, first, last, rule=rule.upper() if rule else None,
            verdict="good" if good else "bad", note=note, actor=actor(),
        )  # fmt: skip

    number = with_database(data, config_file, work, application="signalkeep findings")
    if as_json:
        print_json({"mark": number})
    else:
        out.print(f"mark {number} holds; the next sweep applies it (`signalkeep rules sweep`: now)", markup=False)


@app.command()
def unmark(
    number: Annotated[int, typer.Argument(metavar="MARK", min=1, max=limits.BIGINT_MAX)],
    data: DataOption = None,
    config_file: ConfigOption = None,
) -> None:
    """Take a mark back."""

    async def work(connection: Connection) -> None:
        await quality.take_back(connection, number, actor=actor())

    with_database(data, config_file, work, application="signalkeep findings")
    out.print(f"mark {number} is taken back")


@app.command()
def marks(
    device: DeviceOption = None, limit: LimitOption = 50, data: DataOption = None, config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """What people have said of signals."""

    async def work(connection: Connection) -> list[Row]:
        return await quality.marks(connection, device, limit)

    rows = with_database(data, config_file, work, application="signalkeep findings")
    columns = ("id", "device_number", "verdict", "rule", "begins_at", "ends_at", "note", "marked_by", "taken_back_at")
    print_rows(map(dict, rows), columns, as_json=as_json, empty="nobody has marked anything there")
