"""`incidents`: what is wrong now, what was, who was told, and what people do about it.

`ack` says that somebody takes care of it: nobody else is bothered, and its end is told. `snooze` keeps it quiet for a
while; if it is still there then, it is told once. Both are in its history and in the audit log.
"""

from __future__ import annotations

import re
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
from signalkeep.cli.signals import UNITS, DeviceOption
from signalkeep.errors import CallerError
from signalkeep.kinds import KINDS, Scope
from signalkeep.store import incidents, outbox
from signalkeep.store.postgres import Connection, Row

NumberArgument = Annotated[int, typer.Argument(metavar="ID", min=1, max=limits.BIGINT_MAX)]
NoteOption = Annotated[str, typer.Option("--note", help="why, for people")]
MESSAGES_MAX = 1000  # about one incident, in `show`

app = typer.Typer(help="What is wrong, who was told, and what people do about it.", no_args_is_help=True)


@app.command(name="list")
def list_(
    over: Annotated[bool, typer.Option("--all", help="also what is over")] = False,
    scope: Annotated[Scope | None, typer.Option("--scope", help="only of these", show_default=False)] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="only of this kind", show_default=False)] = None,
    device: DeviceOption = None,
    limit: LimitOption = 50,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Incidents, a line for each; what is open comes first."""
    if kind is not None and kind not in KINDS:
        raise CallerError(f"there is no kind {kind!r}", hint=f"There are {', '.join(sorted(KINDS))}.")

    async def work(connection: Connection) -> list[Row]:
        return await incidents.list_incidents(
            connection, over_too=over, scope=scope, kind=kind, device=device, limit=limit
        )

    rows = with_database(data, config_file, work, application="signalkeep incidents")
    columns = ("id", "opened_at", "severity", "stage", "state", "kind", "subject", "vehicle", "customer", "detail")
    print_rows(map(dict, rows), columns, as_json=as_json, empty="nothing is wrong there; --all shows what is over")


@app.command()
def show(
    number: NumberArgument, data: DataOption = None, config_file: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """One incident: what it means, what to do, its history, and who was told."""

    async def work(connection: Connection) -> tuple[list[Row], list[Row], list[Row]]:
        return (
            await incidents.list_incidents(connection, incident_id=number, over_too=True),
            await incidents.history(connection, number),
            await outbox.messages(connection, incident_id=number, limit=MESSAGES_MAX),
        )

    found, history, told = with_database(data, config_file, work, application="signalkeep incidents")
    if not found:
        raise CallerError(f"there is no incident {number}", hint="`signalkeep incidents list --all`")
    row, messages = dict(found[0]), [{**one, "id": str(one["id"])} for one in map(dict, reversed(told))]
    if as_json:
        print_json({**row, "history": [dict(event) for event in history], "messages": messages})
        return
    out.print("\n".join(_lines(row, [dict(event) for event in history], messages)), markup=False)


@app.command()
def ack(
    number: NumberArgument, note: NoteOption = "", data: DataOption = None, config_file: ConfigOption = None
) -> None:  # fmt: skip
    """Say that you take care of it: it does not escalate, and nobody is reminded."""

    async def work(connection: Connection) -> bool:
        return await incidents.acknowledge(connection, number, who=actor(), note=note, now=datetime.now(UTC))

    new = with_database(data, config_file, work, application="signalkeep incidents")
    taken = f"incident {number} was taken before; `signalkeep incidents show {number}` says by whom"
    out.print(f"incident {number} is yours" if new else taken)


@app.command()
def snooze(
    number: NumberArgument,
    span: Annotated[str, typer.Option("--for", metavar="TIME", help="how long: 30m, 2h, 7d")],
    note: NoteOption = "",
    data: DataOption = None,
    config_file: ConfigOption = None,
) -> None:
    """Let nobody be told of it for a while; if it is still there then, it is told once."""
    now = datetime.now(UTC)
    until = now + span_of(span)

    async def work(connection: Connection) -> None:
        await incidents.snooze(connection, number, until=until, who=actor(), note=note, now=now)

    with_database(data, config_file, work, application="signalkeep incidents")
    out.print(f"nobody is told of incident {number} before {shown(until)[:16]} UTC")


@app.command()
def unsnooze(
    number: NumberArgument, note: NoteOption = "", data: DataOption = None, config_file: ConfigOption = None
) -> None:  # fmt: skip
    """End a snooze before its time."""

    async def work(connection: Connection) -> bool:
        return await incidents.unsnooze(connection, number, who=actor(), note=note, now=datetime.now(UTC))

    was = with_database(data, config_file, work, application="signalkeep incidents")
    out.print(f"people are told of incident {number} again" if was else f"incident {number} was not snoozed")


def span_of(text: str) -> timedelta:
    """A time span such as 2h."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    span = timedelta(**{UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if not timedelta() < span <= timedelta(seconds=limits.SNOOZE_S_MAX):
        raise CallerError(
            f"{text!r} is no time to snooze", hint=f"Write 30m, 2h or 7d; {limits.SNOOZE_S_MAX / 86400:g}d at most."
        )
    return span


def _lines(row: dict[str, Any], history: list[dict[str, Any]], messages: list[dict[str, Any]]) -> list[str]:
    kind = KINDS.get(row["kind"])
    by = f" by {row['acknowledged_by']}" if row["state"] == "acknowledged" else ""
    known = (
        ("vehicle", " ".join(part for part in (row["vehicle"], row["plate"]) if part)),
        ("customer", row["customer"]),
        ("devices", row["devices"]),
        ("state", f"{row['state']}{by}, {row['stage']}, {row['severity']}"),
        ("from", row["opened_at"]),
        ("to", row["cleared_at"]),
        ("snoozed", row["snoozed_until"] and f"until {shown(row['snoozed_until'])}"),
        ("found", row["detail"]),
    )
    lines = [
        f"{row['kind']}  {shown(row['title'])}: {shown(row['subject'])}",
        *(f"{name:<9} {shown(value)}" for name, value in known if value),
    ]
    if kind is not None:
        lines += ["", kind.meaning, "", "What to do", f"  - {kind.what_to_do}"]
    lines += ["", "History"]
    lines += [
        "  "
        + "  ".join(part for part in (shown(one["at"]), one["what"], shown(one["who"]), shown(one["note"])) if part)
        for one in history
    ]
    lines += ["", "Messages"] if messages else ["", "Nobody was told."]
    lines += [
        f"  {shown(one['sent_at'] or one['created_at'])}  {one['channel']}: {one['what']}, {one['state']}"
        + (f" ({shown(one['error'])})" if one["error"] else "")
        for one in messages
    ]
    if row["state"] == "open":
        lines += ["", f"You take care of it?  signalkeep incidents ack {row['id']}"]
    return lines
