"""`devices set`, `retire`, `assign` and `unassign`: one device's entry and the vehicle that it is in, for people.

Only what is given is changed, and what was changed is said. Every change is in the audit log. Nothing is deleted:
a retired device keeps its history, and an ended assignment stays.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias

import msgspec
import typer

from signalkeep.cli.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    actor,
    out,
    print_json,
    shown,
    with_database,
)
from signalkeep.cli.devices import check_time_zone
from signalkeep.cli.signals import time_of
from signalkeep.errors import CallerError
from signalkeep.store import assignments, registry
from signalkeep.store.assignments import Assigned
from signalkeep.store.fleet import NAME_CHARS_MAX, NOTES_CHARS_MAX, check_text
from signalkeep.store.postgres import Connection

NumberArgument: TypeAlias = Annotated[str, typer.Argument(metavar="NUMBER", help="IMEI or the unit's own id")]
CustomerOption: TypeAlias = Annotated[
    str | None, typer.Option("--customer", help="whose vehicle, if several have one of that name", show_default=False)
]
INTERVAL_S_MAX = 366 * 86_400


def set_(
    number: NumberArgument,
    name: Annotated[str | None, typer.Option("--name", help="a name for people", show_default=False)] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="maker's model; may decide how messages are read", show_default=False)
    ] = None,
    time_zone: Annotated[
        str | None,
        typer.Option("--time-zone", help="of times sent without one, such as Europe/Athens", show_default=False),
    ] = None,
    expected_interval: Annotated[
        int | None,
        typer.Option(
            "--expected-interval",
            min=0,
            max=INTERVAL_S_MAX,
            help="seconds between reports while the vehicle is used; 0: not known",
            show_default=False,
        ),
    ] = None,
    notes: Annotated[str | None, typer.Option("--notes", help="for people", show_default=False)] = None,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a device's entry: only what is given. An empty text takes a value away."""
    check_time_zone(time_zone)
    check_text("name", name, NAME_CHARS_MAX)
    check_text("model", model, NAME_CHARS_MAX)
    check_text("notes", notes, NOTES_CHARS_MAX)
    given = {
        "name": name,
        "model": model,
        "time_zone": time_zone,
        "expected_interval_s": expected_interval,
        "notes": notes,
    }
    values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if not values:
        raise CallerError("nothing is given to change", hint="`signalkeep devices set --help` lists what can be.")

    async def work(connection: Connection) -> list[str]:
        return await registry.change(connection, number, values, actor=actor())

    changed = with_database(data, config_file, work, application="signalkeep devices")
    if as_json:
        print_json({"device_number": number, "changed": changed})
        return
    out.print(f"changed {number}: {', '.join(changed)}" if changed else f"{number} is so already", markup=False)


def retire(
    number: NumberArgument,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse what a device sends from now on; its history stays. `devices add` makes it active again."""

    async def work(connection: Connection) -> bool:
        return await registry.retire(connection, number, actor=actor())

    retired = with_database(data, config_file, work, application="signalkeep devices")
    if as_json:
        print_json({"device_number": number, "retired": retired})
        return
    out.print(
        f"retired {number}: its history stays, new data are refused" if retired else f"{number} is retired already",
        markup=False,
    )


def assign(
    number: NumberArgument,
    vehicle: Annotated[str, typer.Argument(metavar="VEHICLE", help="name or plate")],
    customer: CustomerOption = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="begin; now, or from the beginning if it is the first"),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="end; until further notice", show_default=False)
    ] = None,
    alongside: Annotated[
        bool, typer.Option("--alongside", help="beside the vehicle's other device, on purpose")
    ] = False,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a device into a vehicle, from a time on and before another. It leaves the vehicle that it is in."""
    now = datetime.now(UTC)
    begins_at, ends_at = time_of(from_, now), time_of(to, now)

    async def work(connection: Connection) -> Assigned:
        return await assignments.assign(
            connection,
            number,
            vehicle,
            customer=customer,
            begins_at=begins_at,
            ends_at=ends_at,
            alongside=alongside,
            actor=actor(),
        )

    done = with_database(data, config_file, work, application="signalkeep devices")
    if as_json:
        print_json(msgspec.to_builtins(done))
        return
    since = f"from {shown(done.begins_at)} on" if done.begins_at else "from the beginning"
    until = f" until {shown(done.ends_at)}" if done.ends_at else ""
    left = f"; it left {done.left}" if done.left else ""
    already = "" if done.changed else " already"
    out.print(f"{number} is in {done.vehicle}{already} {since}{until}{left}", markup=False)


def unassign(
    number: NumberArgument,
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help="when; now", show_default=False)] = None,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a device out of the vehicle that it is in."""
    moment = time_of(at, datetime.now(UTC))

    async def work(connection: Connection) -> str:
        return await assignments.unassign(connection, number, moment, actor=actor())

    vehicle = with_database(data, config_file, work, application="signalkeep devices")
    if as_json:
        print_json({"device_number": number, "vehicle": vehicle})
        return
    out.print(f"{number} is no longer in {vehicle}", markup=False)
