"""`devices add`, `list` and `show`: the registry, for people.

`add` also releases what a device has sent before anybody registered it: nothing waits longer than it must.
"""

from __future__ import annotations

import difflib
import zoneinfo
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
import typer

from signalkeep import config
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
from signalkeep.config import Settings
from signalkeep.errors import CallerError
from signalkeep.ingest.release import Released, release
from signalkeep.model import DeviceStatus, Reason
from signalkeep.protocols.registry import PROTOCOLS
from signalkeep.store import quarantine, queries, registry
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.quarantine import Selection
from signalkeep.store.retention import Retention

PROGRESS_ROWS = 10_000
COLUMNS = (
    "device_number",
    "status",
    "name",
    "last_contact",
    "device_time",
    "latitude",
    "longitude",
    "records",
    "waiting",
)

app = typer.Typer(help="The device registry.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The device registry."""


@app.command()
def add(
    numbers: Annotated[list[str], typer.Argument(metavar="NUMBER...", help="IMEI or the unit's own id")],
    name: Annotated[str | None, typer.Option("--name", help="a name for people", show_default=False)] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="maker's model; may decide how messages are read", show_default=False)
    ] = None,
    time_zone: Annotated[
        str | None,
        typer.Option("--time-zone", help="of times sent without one, such as Europe/Athens", show_default=False),
    ] = None,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register devices and release what they have sent so far. Again: change what is given."""
    for number in numbers:
        registry.check_number(number)
    check_time_zone(time_zone)
    settings = config.load(data, config_file)

    async def work(connection: Connection) -> list[dict[str, Any]]:
        return [
            await _add(connection, number, settings, {"name": name, "model": model, "time_zone": time_zone})
            for number in dict.fromkeys(numbers)
        ]

    done = with_database(data, config_file, work, application="signalkeep devices")
    if as_json:
        print_json(done)
        return
    for result in done:
        out.print(_added(result), markup=False)
        if result["waiting"]:
            option = config.data_option(settings)
            err.print(
                f"still in quarantine: {by_reason(result['waiting'])}; "
                f"`signalkeep quarantine list --device {result['device_number']}{option}` shows them",
                markup=False,
            )


async def _add(
    connection: Connection, number: str, settings: Settings, given: Mapping[str, str | None]
) -> dict[str, Any]:
    """Register one device, or change what is given and differs; then release what waits for it."""
    before = await queries.device(connection, number)
    wanted = {key: value for key, value in given.items() if value is not None}
    changed = [key for key, value in wanted.items() if before is None or before[key] != value]
    if changed or before is None or before["status"] != DeviceStatus.ACTIVE:
        await registry.register(connection, number, **wanted, actor=actor())
    released = await release(
        connection,
        Selection(device_number=number, reason=Reason.UNKNOWN_DEVICE),
        forced=False,
        closed_by=actor(),
        protocols=PROTOCOLS,
        retention=Retention.by(settings.ingest),
        progress=release_progress(),
    )
    return {
        "device_number": number,
        "before": before["status"] if before is not None else None,
        "changed": changed,
        **msgspec.to_builtins(released),
        "waiting": await quarantine.open_by_reason(connection, number),
    }


def _added(result: Mapping[str, Any]) -> str:
    number, changed = result["device_number"], ", ".join(result["changed"])
    match result["before"]:
        case DeviceStatus.ACTIVE:
            text = f"changed {number}: {changed}" if changed else f"{number} is registered already, nothing changed"
        case DeviceStatus.RETIRED:
            text = f"registered {number} again, it was retired"
        case _:
            text = f"registered {number}"
    moved = released_words(msgspec.convert(dict(result), Released))
    return f"{text}; {moved}" if moved else text


def check_time_zone(time_zone: str | None) -> None:
    """Raise CallerError unless it is a zone that can be read; empty means UTC."""
    if not time_zone:
        return
    known = zoneinfo.available_timezones()
    if time_zone not in known:
        near = difflib.get_close_matches(time_zone, known, n=3, cutoff=0.5)
        near += sorted(zone for zone in known if zone.lower().endswith(f"/{time_zone.lower()}") and zone not in near)
        raise CallerError(
            f"{time_zone!r} is no time zone",
            hint=f"Did you mean {' or '.join(near[:3])}?"
            if near
            else "Names are those of IANA, such as Europe/Athens.",
        )


@app.command(name="list")
def list_(
    status: Annotated[DeviceStatus | None, typer.Option("--status", help="only these", show_default=False)] = None,
    limit: LimitOption = 100,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Devices with their latest state, those heard of last first."""

    async def work(connection: Connection) -> list[Row]:
        return await queries.devices(connection, status, limit)

    rows = [_device(row) for row in with_database(data, config_file, work, application="signalkeep devices")]
    if as_json:
        print_json(rows)
        return
    cells = [
        {
            **row,
            "device_number": row["device_number"] or "(none named)",
            "last_contact": row["last_received_at"],
            "waiting": row["quarantine_open"] or None,
        }
        for row in rows
    ]
    option = config.data_option(config.load(data, config_file))
    print_rows(
        cells, COLUMNS, as_json=False, empty=f"no such device; register one: signalkeep devices add NUMBER{option}"
    )
    if len(rows) == limit:
        err.print(f"these are the first {limit}; --limit shows more")


@app.command()
def show(
    number: Annotated[str, typer.Argument(metavar="NUMBER")],
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """One device: its entry, latest position, counters, and what waits in quarantine."""
    command = f"signalkeep devices add {number}{config.data_option(config.load(data, config_file))}"

    async def work(connection: Connection) -> tuple[Row | None, dict[str, int]]:
        return await queries.device(connection, number), await quarantine.open_by_reason(connection, number)

    row, waiting = with_database(data, config_file, work, application="signalkeep devices")
    if row is None:
        raise CallerError(f"nobody has registered or heard of device {number}", hint=f"Register it: {command}")
    device = {**_device(row), "waiting": waiting}
    if as_json:
        print_json(device)
        return
    width = max(map(len, device))
    for key, value in device.items():
        cell = by_reason(value) if key == "waiting" else shown(value)
        if cell:
            out.print(f"{key:{width}}  {cell}", markup=False)
    if row["status"] == DeviceStatus.UNKNOWN:
        err.print(
            f"Nobody has registered it; what it sends waits in quarantine. To register it: {command}", markup=False
        )


def _device(row: Row) -> dict[str, Any]:
    speed_kmh = row["speed_kmh"]
    return {**row, "speed_kmh": None if speed_kmh is None else round(speed_kmh, 3)}  # a `real`, as it was sent


def release_progress() -> Callable[[int], None]:
    """Says on standard error how far a long release is."""
    said = 0

    def progress(tried: int) -> None:
        nonlocal said
        if tried - said >= PROGRESS_ROWS:
            said = tried
            err.print(f"{tried} records of quarantine tried ...")

    return progress


def released_words(released: Released) -> str:
    """What a release did, '' if there was nothing to do."""
    parts = []
    if released.released:
        parts.append(f"{records_words(released.released)} released from quarantine")
    if released.already_stored:
        parts.append(f"{records_words(released.already_stored)} stored already, closed")
    if released.replaced:
        parts.append(f"{records_words(released.replaced)} read anew and replaced")
    if released.still_quarantined:
        parts.append(f"{records_words(released.still_quarantined)} not released ({by_reason(released.reasons)})")
    return "; ".join(parts)


def by_reason(counts: Mapping[str, int]) -> str:
    """As in "future 2, bad_value 1"."""
    return ", ".join(f"{reason} {count}" for reason, count in counts.items())


def records_words(count: int) -> str:
    """As in "1 record"."""
    return "1 record" if count == 1 else f"{count} records"
