"""`quarantine list`, `show`, `release` and `discard`: what could not become a signal, and what becomes of it.

Nothing is taken out without being named: release and discard want ids, a filter, or `--all`. Discarding closes rows
and keeps their bytes; asked for by filter, it shows the number and wants a yes. Both are in the audit log. A dry run
does everything that a release does, and undoes it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, TypeAlias

import msgspec
import typer

from signalkeep import __version__, config
from signalkeep.cli.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    LimitOption,
    actor,
    err,
    out,
    print_json,
    print_rows,
    shown,
    with_database,
)
from signalkeep.cli.devices import records_words, released_words
from signalkeep.cli.progress import bar
from signalkeep.cli.signals import SinceOption, UntilOption, time_of
from signalkeep.errors import CallerError
from signalkeep.ingest.pace import Pace
from signalkeep.ingest.release import Outcome, Released, release
from signalkeep.model import Reason
from signalkeep.protocols.registry import PROTOCOLS
from signalkeep.sections.push_back import PushBackSettings
from signalkeep.store import quarantine
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.push_back import outlook
from signalkeep.store.quarantine import Selection
from signalkeep.store.retention import Retention

DeviceOption: TypeAlias = Annotated[
    str | None, typer.Option("--device", "-d", metavar="NUMBER", help="only of this device", show_default=False)
]
ReasonOption: TypeAlias = Annotated[
    Reason | None, typer.Option("--reason", "-r", metavar="REASON", help="only for this reason", show_default=False)
]
AtMostOption: TypeAlias = Annotated[
    int | None, typer.Option("--limit", "-n", min=1, help="so many at most, oldest first", show_default=False)
]
RateOption: TypeAlias = Annotated[
    float | None,
    typer.Option("--rate", min=0.1, metavar="N", help="records per second at most", show_default=False),
]
IdsArgument: TypeAlias = Annotated[list[int] | None, typer.Argument(metavar="[ID...]", show_default=False)]


class State(StrEnum):
    """Of a row."""

    OPEN = "open"
    RELEASED = "released"
    DISCARDED = "discarded"
    REPLACED = "replaced"
    ALL = "all"


SHOWN_FIRST: Final = 10  # of a dry run
COLUMNS = ("id", "received_at", "device_number", "reason", "detail", "state", "attempts", "next_try")

# What each reason means and what to do, in the words of docs/reasons.md (a test holds them together).
MEANINGS: Final[dict[Reason, tuple[str, str]]] = {
    Reason.RETIRED_DEVICE: (
        "The device is registered as retired. Also a reason in quarantine, if it was retired after its data had been "
        "acknowledged.",
        "Make it active again if that was a mistake; release what is in quarantine.",
    ),
    Reason.UNKNOWN_DEVICE: (
        "Nobody has registered this device.",
        "Register it (signalkeep devices add), then release.",
    ),
    Reason.NO_DEVICE_NUMBER: (
        "The message names no device.",
        "Have the sender name it. The message can be looked at and discarded.",
    ),
    Reason.BAD_FORMAT: (
        "The message arrived whole, but does not have the form that the protocol prescribes.",
        "Compare the raw bytes with the device's manual; perhaps its firmware speaks a dialect.",
    ),
    Reason.BAD_VALUE: (
        "A value cannot be: a latitude that is text, a number that is not finite, text beyond its limit.",
        "Look at the device. If the value is right and our reading wrong, please report it.",
    ),
    Reason.COUNT_MISMATCH: (
        "The message announces another number of records than it holds.",
        "As for bad_format.",
    ),
    Reason.UNSUPPORTED: (
        "A variant of the protocol, or a protocol, that this version does not know.",
        "Upgrade, then release: the bytes are kept until they can be read.",
    ),
    Reason.FUTURE: (
        "The record says it was made more than 24 hours after we received it.",
        "Set the device's clock. If the record is to be kept as it is: release with --force.",
    ),
    Reason.EXPIRED: (
        "The record is older than the retention allows (ingest.retention_days).",
        "Nothing, if the retention is meant. Otherwise raise it and release.",
    ),
    Reason.DECODER_ERROR: (
        "A mistake of ours while decoding. The whole message is kept.",
        "Please report it with the detail shown. Upgrade, then release.",
    ),
    Reason.DATABASE_REJECTED: (
        "The database would not take the record; the detail begins with its error code.",
        "Please report it: such a value should have been noticed before.",
    ),
}

app = typer.Typer(help="Records that could not become signals.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Records that could not become signals."""


@app.command(name="list")
def list_(
    device: DeviceOption = None,
    reason: ReasonOption = None,
    state: Annotated[State, typer.Option("--state", help="open, or closed how")] = State.OPEN,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = 20,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What waits in quarantine, newest first."""

    now = datetime.now(UTC)
    selection = Selection(
        device_number=device, reason=reason, since=time_of(since, now), until=time_of(until, now), limit=limit
    )

    async def work(connection: Connection) -> list[Row]:
        return await quarantine.list_rows(connection, selection, state=None if state is State.ALL else state)

    rows = with_database(data, config_file, work, application="signalkeep quarantine")
    given = config.load(data, config_file).push_back
    print_rows(
        [_with_outlook(row, given) for row in rows], COLUMNS, as_json=as_json, empty="nothing in quarantine that fits"
    )
    if len(rows) == limit and not as_json:
        err.print(f"these are the newest {limit}; --limit shows more")


@app.command()
def show(
    quarantine_id: Annotated[int, typer.Argument(metavar="ID")],
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """One record: its bytes, its envelope, why it is here, and what to do."""

    async def work(connection: Connection) -> Row | None:
        return await quarantine.show_row(connection, quarantine_id)

    row = with_database(data, config_file, work, application="signalkeep quarantine")
    if row is None:
        raise CallerError(f"nothing in quarantine has the id {quarantine_id}", hint="`quarantine list` shows ids.")
    values = _with_meaning(_with_outlook(row, config.load(data, config_file).push_back))
    if as_json:
        print_json(values)
        return
    if values["frame_raw"] == values["raw"]:  # the record is the whole frame
        values = {key: value for key, value in values.items() if not key.startswith("frame_raw")}
    width = max(map(len, values))
    for key, value in values.items():
        if cell := shown(value or None):
            out.print(f"{key:{width}}  {cell}", markup=False)
    if row["state"] == "open":
        option = config.data_option(config.load(data, config_file))
        err.print(f"to release it: signalkeep quarantine release {quarantine_id}{option}", markup=False)


def _with_outlook(row: Row, given: PushBackSettings) -> dict[str, Any]:
    """The row, with when it is tried again by itself."""
    values = dict(row)
    return {**values, "next_try": outlook(values, __version__, given.attempts_max) if given.enabled else ""}


def _with_meaning(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its bytes as hexadecimal, and as text if they are, what the reason means and what to do."""
    values: dict[str, Any] = {}
    for key, value in row.items():
        values[key] = value.hex() if isinstance(value, bytes) else value
        text = _text(value) if isinstance(value, bytes) else None
        if text is not None:
            values[f"{key}_text"] = text
    values["meaning"], advice = MEANINGS.get(row["reason"], ("", ""))
    if row["state"] == "open":
        values["what_to_do"] = advice
    return values


@app.command(name="release")
def release_(
    ids: IdsArgument = None,
    device: DeviceOption = None,
    reason: ReasonOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: AtMostOption = None,
    everything: Annotated[bool, typer.Option("--all", help="everything that is open")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="unknown and retired devices, future and expired records, too")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would become of them; change nothing")] = False,
    rate: RateOption = None,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge records again; those that nothing is against now become signals. Exit code 1 if one could not."""
    selection = _selection(ids, device, reason, since, until, limit, everything=everything)
    ingest = config.load(data, config_file).ingest
    told: list[Outcome] = []

    async def work(connection: Connection) -> tuple[Released, dict[int, str]]:
        with bar("records of quarantine tried", await quarantine.count_open(connection, selection)) as progress:
            released = await release(
                connection,
                selection,
                forced=force,
                closed_by=actor(),
                protocols=PROTOCOLS,
                retention=Retention.by(ingest),
                progress=progress,
                pace=Pace(rate),
                trial=told.append if dry_run else None,
            )
        return released, await quarantine.states(connection, selection.ids)

    released, states = with_database(data, config_file, work, application="signalkeep quarantine")
    states |= {one.id: "released" for one in told if one.what != "stays"}
    not_done = [row_id for row_id in selection.ids if states.get(row_id) not in {"released", "replaced"}]
    shown_first = [msgspec.to_builtins(one) for one in told[:SHOWN_FIRST]]
    if as_json:
        more = {"dry_run": True, "first": shown_first} if dry_run else {}
        print_json({**msgspec.to_builtins(released), "not_done": not_done, **more})
    else:
        words = released_words(released) or "nothing was open that fits"
        out.print(f"dry run, nothing is changed: {words}" if dry_run else words, markup=False)
        if shown_first:
            print_rows(shown_first, ("id", "what", "reason", "detail"), as_json=False, empty="")
        _say_not_done(not_done, states)
    if released.still_quarantined or not_done:
        raise typer.Exit(1)


@app.command()
def discard(
    ids: IdsArgument = None,
    device: DeviceOption = None,
    reason: ReasonOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: AtMostOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Close records without storing them; their bytes stay. Exit code 1 if one could not be."""
    selection = _selection(ids, device, reason, since, until, limit, everything=False)

    async def count(connection: Connection) -> int:
        return await quarantine.count_open(connection, selection)

    async def work(connection: Connection) -> tuple[int, dict[int, str]]:
        discarded = await quarantine.discard(connection, selection, closed_by=actor())
        return discarded, await quarantine.states(connection, selection.ids)

    if not selection.ids and not yes:
        found = with_database(data, config_file, count, application="signalkeep quarantine")
        if found and not _confirmed(found):
            err.print("nothing was discarded")
            raise typer.Exit(1)
    discarded, states = with_database(data, config_file, work, application="signalkeep quarantine")
    not_done = [row_id for row_id in selection.ids if states.get(row_id) != "discarded"]
    if as_json:
        print_json({"discarded": discarded, "not_done": not_done})
    else:
        out.print(f"{discarded} discarded")
        _say_not_done(not_done, states)
    if not_done:
        raise typer.Exit(1)


def _selection(
    ids: list[int] | None,
    device: str | None,
    reason: Reason | None,
    since: str | None,
    until: str | None,
    limit: int | None,
    *,
    everything: bool,
) -> Selection:
    """Raises CallerError unless something is named, and named once."""
    given = bool(ids) or any(value is not None for value in (device, reason, since, until))
    if given == everything:
        raise CallerError(
            "say which records: ids, --device, --reason, --since, --until" + (", or --all alone" if everything else ""),
            hint="`signalkeep quarantine list` shows what is open; `quarantine release --all` tries everything.",
        )
    now = datetime.now(UTC)
    return Selection(
        ids=tuple(dict.fromkeys(ids or ())),
        device_number=device,
        reason=reason,
        since=time_of(since, now),
        until=time_of(until, now),
        limit=limit,
    )


def _confirmed(count: int) -> bool:
    if not _is_terminal():
        raise CallerError(f"this would discard {records_words(count)}", hint="Add --yes if that is meant.")
    return typer.confirm(f"Discard {records_words(count)}? They cannot be released afterwards.", err=True)


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _say_not_done(ids: list[int], states: Mapping[int, str]) -> None:
    for row_id in ids:
        err.print(f"{row_id}: {states.get(row_id, 'nothing has this id')}")


def _text(raw: bytes) -> str | None:
    """The bytes as text, if that is what they are."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return text if all(char.isprintable() or char in "\r\n\t" for char in text) else None
