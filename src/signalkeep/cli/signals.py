"""`signals list` and `signals tail`: stored records, for people and, as JSON, for programs.

`tail` prints every row that is committed from now on exactly once. It waits while the database is away and goes on
where it was; Ctrl-C ends it. JSON has the keys of `signalkeep decode`, and where the record came from.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeAlias

import msgspec
import typer

from signalkeep import config, limits
from signalkeep.cli.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    LimitOption,
    err,
    print_json,
    print_rows,
    run_until_interrupted,
    shown,
    with_database,
)
from signalkeep.config import Settings
from signalkeep.errors import CallerError, DatabaseUnavailable
from signalkeep.model import Flag
from signalkeep.retry import Backoff
from signalkeep.rules.catalogue import RULES
from signalkeep.rules.contract import FIRST_BIT, LAST_BIT
from signalkeep.store.postgres import Connection, Row, connect, dsn_of
from signalkeep.store.queries import SignalTail, list_signals, plain_faults
from signalkeep.store.registry import check_number
from signalkeep.store.schema import HEAD, ensure_schema, schema_version

DeviceOption: TypeAlias = Annotated[
    str | None, typer.Option("--device", "-d", metavar="NUMBER", help="only of this device", show_default=False)
]
SinceOption: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="from here on: 2026-05-01T12:00, or 30m, 2h, 7d ago", show_default=False),
]
UntilOption: TypeAlias = Annotated[
    str | None, typer.Option(metavar="TIME", help="before here, likewise", show_default=False)
]

COLUMNS = ("time", "device_number", "latitude", "longitude", "speed_kmh", "event_code", "protocol", "attributes")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

app = typer.Typer(help="Stored records.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Stored records."""


@app.command(name="list")
def list_(
    device: DeviceOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = 20,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """The latest signals, newest first: of one device by time, of all in the order of storing."""
    now = datetime.now(UTC)
    from_time, to_time = time_of(since, now), time_of(until, now)
    if device is not None:
        check_number(device)
    settings = config.load(data, config_file)

    async def work(connection: Connection) -> list[Row]:
        return await list_signals(connection, device_number=device, since=from_time, until=to_time, limit=limit)

    rows = [signal_json(row) for row in with_database(data, config_file, work, application="signalkeep signals")]
    if as_json:
        print_json(rows)
        return
    print_rows(
        [
            {**row, "time": row["device_time"] or row["wire_time"], "attributes": row["attributes"] or None}
            for row in rows
        ],
        COLUMNS,
        as_json=False,
        empty=f"no such signal is stored; what waits: signalkeep quarantine list{config.data_option(settings)}",
    )


@app.command()
def tail(
    device: DeviceOption = None,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, a line for each")] = False,
) -> None:
    """Print signals as they are stored, until Ctrl-C."""
    if device is not None:
        check_number(device)
    settings = config.load(data, config_file)
    run_until_interrupted(follow(settings, SignalTail(device), as_json=as_json))


async def follow(settings: Settings, position: SignalTail, *, as_json: bool) -> None:
    """Print for ever; a database that is away is waited for."""
    backoff = Backoff()
    waiting = False
    while True:
        try:
            dsn = dsn_of(settings)
            connection = await connect(dsn, application="signalkeep signals", settings=settings.database)
            try:
                with plain_faults(connection):
                    if await schema_version(connection) != HEAD:
                        await ensure_schema(dsn, settings.database)
                    await position.start(connection)
                    err.print("the database is back" if waiting else "following; Ctrl-C ends it")
                    waiting = False
                    backoff.reset()
                    await _print_pages(connection, position, as_json=as_json)
            finally:
                connection.terminate()  # nothing is under way that anybody would miss
        except DatabaseUnavailable as fault:
            if not waiting:
                err.print(f"waiting for the database: {fault.message}", markup=False)
            waiting = True
        await asyncio.sleep(backoff.next_s())


async def _print_pages(connection: Connection, position: SignalTail, *, as_json: bool) -> None:
    while True:
        rows = await position.next_page(connection)
        for row in rows:
            signal = signal_json(row)
            sys.stdout.write((msgspec.json.encode(signal).decode() if as_json else line_of(signal)) + "\n")
        sys.stdout.flush()
        if len(rows) < limits.TAIL_PAGE_ROWS:
            await asyncio.sleep(limits.TAIL_POLL_S)


def signal_json(row: Row) -> dict[str, Any]:
    """A stored record as programs see it."""
    names = ("device_number", "device_time", "wire_time", "received_at", "fix_valid", "latitude", "longitude")
    values = ("altitude_m", "speed_kmh", "course_deg", "satellites", "event_code", "attributes")
    return {
        **{name: row[name] for name in (*names, *values)},
        "flags": [flag.name.lower() for flag in Flag if row["flags"] & flag and flag.name],
        "rules": rules_of(row["flags"]),
        "protocol": row["protocol"],
        "provenance": {"journal": row["journal"], "seq": row["seq"], "record_no": row["record_no"]},
    }


def rules_of(flags: int) -> list[str]:
    """The rules that marked a signal; of those that did not come with signalkeep, the bit."""
    known = {rule.bit: rule.id for rule in RULES if rule.bit is not None}
    return [known.get(bit, f"bit {bit}") for bit in range(FIRST_BIT, LAST_BIT + 1) if flags >> bit & 1]


def line_of(signal: Mapping[str, Any]) -> str:
    """A stored record in one line for people."""
    parts = [shown(signal["device_time"] or signal["wire_time"]), shown(signal["device_number"])]
    if signal["latitude"] is not None and signal["longitude"] is not None:
        parts.append(f"{signal['latitude']:.6f} {signal['longitude']:.6f}{'' if signal['fix_valid'] else ' (no fix)'}")
    if signal["speed_kmh"] is not None:
        parts.append(f"{shown(signal['speed_kmh'])} km/h")
    if signal["event_code"] is not None:
        parts.append(f"event {shown(signal['event_code'])}")
    parts += [", ".join([*signal["flags"], *signal["rules"]])] if signal["flags"] or signal["rules"] else []
    parts += [shown(signal["attributes"])] if signal["attributes"] else []
    return "  ".join(parts)


def time_of(text: str | None, now: datetime) -> datetime | None:
    """An instant from ISO 8601 (UTC where no zone is given) or from a time span before now, such as 2h."""
    if text is None:
        return None
    span = re.fullmatch(r"(\d{1,6})([smhd])", text)
    try:
        if span:
            return now - timedelta(**{UNITS[span[2]]: int(span[1])})
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise CallerError(
            f"{text!r} is no time",
            hint="Write 2026-05-01T12:00 (UTC), 2026-05-01T12:00+02:00, 2026-05-01, or 2h ago as 2h.",
        ) from None
