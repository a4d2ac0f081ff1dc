"""`replay`: read again, from the journals of this machine, what was received in a time; `replay list`: what was done.

It is shown how much there is to read, and a yes is asked for. Cut off, it goes on with `--resume`; done again from the
beginning it doubles nothing. Exit code 1: something was refused, or could not be read.
"""

from __future__ import annotations

import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

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
    with_database,
)
from signalkeep.cli.devices import records_words
from signalkeep.cli.progress import bar
from signalkeep.cli.quarantine import RateOption
from signalkeep.cli.signals import SinceOption, UntilOption, time_of
from signalkeep.config import Settings
from signalkeep.errors import CallerError
from signalkeep.ingest.pace import Pace
from signalkeep.ingest.replay import Replayed, Replayer
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.reader import find_journals
from signalkeep.protocols.registry import PROTOCOLS
from signalkeep.store import queries
from signalkeep.store import replay as stored
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.registry import check_number
from signalkeep.store.replay import Counts, MovedElsewhere, Replay, Wanted
from signalkeep.store.retention import Retention

app = typer.Typer(help="Read again what journals hold.")

COLUMNS: Final = (
    "id", "state", "since", "until", "device_number", "begun_by", "begun_at", "ended_at", "left", "came_of_it",
)  # fmt: skip
WORDS: Final = {
    "same": "stored as they are read now",
    "changed": "written anew in their place",
    "duplicate": "re-sends",
    "restored": "were missing, written again",
    "added": "never read before, added",
    "quarantined": "in quarantine",
    "suppressed": "erased or expired, stay away",
    "refused": "refused",
}


@app.callback(invoke_without_command=True)
def replay(
    context: typer.Context,
    since: SinceOption = None,
    until: UntilOption = None,
    device: Annotated[
        str | None, typer.Option("--device", "-d", metavar="NUMBER", help="only of this device", show_default=False)
    ] = None,
    journal: Annotated[
        str | None, typer.Option("--journal", metavar="UUID", help="only from this journal", show_default=False)
    ] = None,
    resume: Annotated[
        int | None, typer.Option("--resume", metavar="ID", help="go on with one that was cut off", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would come of it; change nothing")] = False,
    rate: RateOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decode again what was received in a time, and put right what is stored otherwise, or is missing."""
    if context.invoked_subcommand is not None:
        return
    settings = config.load(data, config_file)
    wanted = None if resume is not None else _wanted(since, until, device, journal)
    if wanted is None and (dry_run or any(value is not None for value in (since, until, device, journal))):
        raise CallerError("--resume stands alone", hint="A replay is taken up as it was begun.")

    async def prepare(connection: Connection) -> Replay:
        directories = find_journals(LocalFileSystem(), settings.journal_root)
        if resume is not None:
            return await _resumed(connection, resume, directories)
        assert wanted is not None
        if device is not None and await queries.device(connection, device) is None:
            raise CallerError(
                f"nobody has registered or heard of device {device}", hint="`signalkeep devices list` shows all."
            )
        chosen = [one for one in directories if wanted.journal is None or UUID(one.name) == wanted.journal]
        if wanted.journal is not None and not chosen:
            raise CallerError(
                f"no journal {wanted.journal} is on this machine ({socket.gethostname()})",
                hint="`signalkeep status` shows those that are.",
            )
        return Replay(None, wanted, await stored.parts_of(connection, chosen))

    found = with_database(data, config_file, prepare, application="signalkeep replay")
    if not dry_run and not yes and not _confirmed(found):
        err.print("nothing was replayed")
        raise typer.Exit(1)

    async def work(connection: Connection) -> tuple[int | None, Replayed]:
        current = found
        if not dry_run and resume is None:
            current = await stored.begin(connection, found.wanted, found.parts, version=__version__, actor=actor())
            err.print(f"replay {current.id}; cut off, it goes on with --resume {current.id}")
        return current.id, await _replay(connection, current, settings, rate)

    _show(*with_database(data, config_file, work, application="signalkeep replay"), dry_run=dry_run, as_json=as_json)


async def _replay(connection: Connection, current: Replay, settings: Settings, rate: float | None) -> Replayed:
    with bar("entries read", current.entries) as progress:
        replayer = Replayer(
            connection,
            current,
            actor=actor(),
            fs=LocalFileSystem(),
            evidence_root=settings.evidence_root,
            protocols=PROTOCOLS,
            retention=Retention.by(settings.ingest),
            pace=Pace(rate),
            progress=progress,
        )
        try:
            return await replayer.run()
        except MovedElsewhere:
            raise CallerError(
                f"another process does replay {current.id}", hint="`signalkeep replay list` shows how far it is."
            ) from None


async def _resumed(connection: Connection, replay_id: int, directories: list[Path]) -> Replay:
    """Raises CallerError unless there is something to go on with here."""
    known = await stored.find(connection, replay_id, directories)
    if known is None:
        raise CallerError(f"there is no replay {replay_id}", hint="`signalkeep replay list` shows all.")
    found, done = known
    if done:
        raise CallerError(f"replay {replay_id} is done", hint="Begin another one; nothing is doubled by that.")
    elsewhere = [part for part in found.parts if part.seq < part.last_seq and part.directory == Path()]
    if elsewhere:
        raise CallerError(
            f"replay {replay_id} has journals that are not on this machine ({socket.gethostname()})",
            hint="Resume it on the machine where it was begun. If the files are gone, begin another replay.",
        )
    return found


def _wanted(since: str | None, until: str | None, device: str | None, journal: str | None) -> Wanted:
    """Raises CallerError unless it says what is meant."""
    now = datetime.now(UTC)
    from_time, to_time = time_of(since, now), time_of(until, now)
    if from_time is None or to_time is None:
        raise CallerError(
            "say which time: --since and --until", hint="As received: --since 2026-05-01 --until 2026-05-02, or 2h."
        )
    if from_time >= to_time:
        raise CallerError("--since is not before --until", hint="Spans count back from now: --since 2h --until 1h.")
    if device is not None:
        check_number(device)
    try:
        uuid = None if journal is None else UUID(journal)
    except ValueError:
        raise CallerError(f"{journal!r} is no journal", hint="`signalkeep audit` shows their ids.") from None
    return Wanted(since=from_time, until=to_time, device_number=device, journal=uuid)


def _confirmed(found: Replay) -> bool:
    what = f"read {found.entries} entries of {len(found.parts)} journals again"
    if not _is_terminal():
        raise CallerError(
            f"this would {what}", hint="Add --yes if that is meant; --dry-run says what would come of it."
        )
    return typer.confirm(f"This will {what}, and put right what is stored otherwise. Go on?", err=True)


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _show(replay_id: int | None, done: Replayed, *, dry_run: bool, as_json: bool) -> None:
    counts = done.counts
    if as_json:
        print_json({"id": replay_id, "dry_run": dry_run, **msgspec.to_builtins(counts), "lost": done.lost,
                    "named": done.named})  # fmt: skip
    else:
        begins = "dry run, nothing is changed" if dry_run else f"replay {replay_id}"
        out.print(f"{begins}: {counts.frames} frames, {records_words(counts.records)}{_parts(counts)}", markup=False)
        for words in done.named:
            err.print(words, markup=False)
        if done.lost:
            err.print(f"{done.lost} entries could not be read")
    if counts.refused or done.lost:
        raise typer.Exit(1)


def _parts(counts: Counts) -> str:
    """What became of the records, in words; "" if there are none."""
    parts = [f"{getattr(counts, name)} {words}" for name, words in WORDS.items() if getattr(counts, name)]
    closed = counts.released + counts.replaced
    parts += [f"{closed} of them just released from quarantine"] if closed else []
    return f": {', '.join(parts)}" if parts else ""


@app.command(name="list")
def list_(
    limit: LimitOption = 20, data: DataOption = None, config_file: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """What was replayed, newest first, and what is still under way or was cut off."""

    async def work(connection: Connection) -> list[Row]:
        return await stored.replays(connection, limit)

    rows = with_database(data, config_file, work, application="signalkeep replay")
    print_rows(map(_line, rows), COLUMNS, as_json=as_json, empty="nothing was replayed yet")


def _line(row: Row) -> dict[str, Any]:
    counts = Counts(**{name: row[name] for name in Counts.__struct_fields__})
    left = f"{row['entries_left']} of {row['entries']} entries" if row["state"] == "running" else ""
    return {**row, "left": left, "came_of_it": f"{records_words(counts.records)}{_parts(counts)}"}
