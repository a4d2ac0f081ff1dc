"""`notify`: the channels over which people are told, the last messages, and a test of them.

A test goes out directly, whether an organizer runs or not, and is noted among the messages if the database is there: a
channel that was failing and takes it counts as mended.
"""

from __future__ import annotations

import asyncio
import socket
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from signalkeep import config
from signalkeep.cli.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    LimitOption,
    err,
    print_rows,
    run_async,
    with_database,
)
from signalkeep.clock import SystemClock
from signalkeep.config import Settings
from signalkeep.errors import CallerError, SignalkeepError
from signalkeep.store import outbox
from signalkeep.store.outbox import Outgoing
from signalkeep.store.postgres import Connection, Row

app = typer.Typer(help="Who is told of incidents, and what became of each message.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Messages."""


@app.command(name="list")
def list_(
    channel: Annotated[str | None, typer.Option("--channel", help="only over this one", show_default=False)] = None,
    limit: LimitOption = 50,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """The last messages, with what became of them."""

    async def work(connection: Connection) -> list[Row]:
        return await outbox.messages(connection, channel=channel, limit=limit)

    rows = [
        {**row, "id": str(row["id"]), "digest_id": str(row["digest_id"]) if row["digest_id"] else None}
        for row in map(dict, with_database(data, config_file, work, application="signalkeep notify"))
    ]
    columns = ("created_at", "channel", "incident_id", "what", "state", "attempts", "sent_at", "title", "error")
    print_rows(rows, columns, as_json=as_json, empty="nobody was told of anything yet")


@app.command()
def channels(data: DataOption = None, config_file: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Each channel: for whom it is, how it does, and what waits there."""
    settings = config.load(data, config_file)
    names = list(settings.notify.channels)

    async def work(connection: Connection) -> list[Row]:
        return await outbox.channels(connection, names)

    known = {row["name"]: dict(row) for row in with_database(data, config_file, work, application="signalkeep notify")}
    rows = [{**known[name], **_about(settings, name)} for name in names]
    columns = ("name", "kind", "tells", "waiting", "sent_at", "failed_in_a_row", "error")
    print_rows(rows, columns, as_json=as_json, empty="there are no channels: set notify.channels")


@app.command(name="test")
def try_channels(
    names: Annotated[list[str] | None, typer.Argument(metavar="[CHANNEL]...", help="default: all of them")] = None,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a test message now, and say what came of it. Exit code 1 if a channel did not take it."""
    settings = config.load(data, config_file)
    chosen = list(dict.fromkeys(names or settings.notify.channels))
    unknown = [name for name in chosen if name not in settings.notify.channels]
    if unknown or not chosen:
        raise CallerError(
            f"there is no channel {', '.join(unknown)}" if unknown else "there are no channels",
            hint=f"notify.channels has: {', '.join(settings.notify.channels) or 'none'}.",
        )
    results = run_async(_send(settings, chosen))
    _note(data, config_file, results)
    rows = [
        {"channel": name, "id": str(message.id), "result": error or "taken", "ok": not error}
        for name, message, error in results
    ]
    print_rows(rows, ("channel", "result", "id"), as_json=as_json, empty="")
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)


async def _send(settings: Settings, names: list[str]) -> list[tuple[str, Outgoing, str]]:
    from signalkeep.notify.channels import channels_of
    from signalkeep.notify.messages import trial

    known = channels_of(settings.notify, SystemClock())

    async def one(name: str) -> tuple[str, Outgoing, str]:
        message = trial(name, uuid.uuid4(), datetime.now(UTC), socket.gethostname())
        return name, message, (await known[name].send(message)).error

    return list(await asyncio.gather(*map(one, names)))


def _note(data: Path | None, config_file: Path | None, results: list[tuple[str, Outgoing, str]]) -> None:
    """Best effort: a test also serves where there is no database yet."""

    async def work(connection: Connection) -> None:
        now = datetime.now(UTC)
        async with connection.transaction():
            await outbox.add(connection, [(message, None, name) for name, message, _ in results], now)
            for _, message, error in results:
                if error:
                    await outbox.note_failed(connection, message, now, error=error, hangs=False, last=True)
                else:
                    await outbox.note_sent(connection, message.id, now)

    try:
        with_database(data, config_file, work, application="signalkeep notify")
    except SignalkeepError as error:
        err.print(f"not noted among the messages: {error.message}", markup=False)


def _about(settings: Settings, name: str) -> dict[str, Any]:
    """What a channel is for. Of its address no more than the kind is shown."""
    notify, channel = settings.notify, settings.notify.channels[name]
    try:
        kind = channel.address().partition("://")[0]
    except SignalkeepError as error:
        kind = error.message
    tells = ["admins"] if name in notify.admins else []
    tells += [customer for customer, told in notify.customers.items() if name in told]
    tells += [f"after {notify.escalate_after_s / 60:g} min"] if name in notify.escalate_to else []
    return {"kind": f"webhook ({kind})" if channel.is_webhook else kind, "tells": ", ".join(tells)}
