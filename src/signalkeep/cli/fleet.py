"""`customers` and `vehicles`: whom devices drive for, and what they are built into, for people.

Nothing is ever deleted: a vehicle is retired and keeps its track. Every change is in the audit log.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

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
from signalkeep.errors import CallerError
from signalkeep.store import fleet
from signalkeep.store.postgres import Connection, Row

NameArgument: TypeAlias = Annotated[str, typer.Argument(metavar="NAME")]
VehicleArgument: TypeAlias = Annotated[str, typer.Argument(metavar="VEHICLE", help="name or plate")]
NewNameOption: TypeAlias = Annotated[str | None, typer.Option("--name", help="a new name", show_default=False)]
NotesOption: TypeAlias = Annotated[str | None, typer.Option("--notes", help="for people", show_default=False)]
PlateOption: TypeAlias = Annotated[str | None, typer.Option("--plate", help="registration plate", show_default=False)]
VinOption: TypeAlias = Annotated[
    str | None, typer.Option("--vin", help="vehicle identification number", show_default=False)
]
WhoseOption: TypeAlias = Annotated[
    str | None, typer.Option("--customer", help="whose, if several have one of that name", show_default=False)
]
VEHICLE_COLUMNS = ("name", "plate", "customer", "devices", "vin", "retired_at")
NOTHING = "nothing is given to change"
APPLICATION = "signalkeep fleet"

customers_app = typer.Typer(help="Whom vehicles belong to.", no_args_is_help=True)
vehicles_app = typer.Typer(help="What devices are built into.", no_args_is_help=True)


@customers_app.command(name="list")
def list_customers(
    limit: LimitOption = 1000, data: DataOption = None, config_file: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """All customers, with the number of their vehicles in service."""

    async def work(connection: Connection) -> list[Row]:
        return await fleet.customers(connection, limit)

    rows = with_database(data, config_file, work, application=APPLICATION)
    columns = ("name", "vehicles", "notes")
    print_rows(map(dict, rows), columns, as_json=as_json, empty="no customer; add one: signalkeep customers add NAME")


@customers_app.command(name="add")
def add_customer(
    name: NameArgument,
    notes: NotesOption = None,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a customer."""

    async def work(connection: Connection) -> None:
        await fleet.add_customer(connection, name, notes=notes or "", actor=actor())

    with_database(data, config_file, work, application=APPLICATION)
    _say({"customer": name, "added": True}, f"added customer {name}", as_json=as_json)


@customers_app.command(name="set")
def set_customer(
    name: NameArgument,
    new_name: NewNameOption = None,
    notes: NotesOption = None,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a customer: only what is given."""
    if new_name is None and notes is None:
        raise CallerError(NOTHING, hint="Give --name or --notes.")

    async def work(connection: Connection) -> list[str]:
        return await fleet.set_customer(connection, name, new_name=new_name, notes=notes, actor=actor())

    changed = with_database(data, config_file, work, application=APPLICATION)
    _say({"customer": name, "changed": changed}, _changed(name, changed), as_json=as_json)


@vehicles_app.command(name="list")
def list_vehicles(
    customer: Annotated[str | None, typer.Option("--customer", help="only of this one", show_default=False)] = None,
    retired: Annotated[bool, typer.Option("--retired", help="those out of service, too")] = False,
    limit: LimitOption = 1000,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Vehicles, with the devices that are in them now."""

    async def work(connection: Connection) -> list[Row]:
        return await fleet.vehicles(connection, customer=customer, retired=retired, limit=limit)

    rows = [dict(row) for row in with_database(data, config_file, work, application=APPLICATION)]
    if not as_json:
        rows = [{**row, "devices": ", ".join(row["devices"] or [])} for row in rows]
    print_rows(rows, VEHICLE_COLUMNS, as_json=as_json, empty="no such vehicle; add one: signalkeep vehicles add NAME")
    if len(rows) == limit and not as_json:
        err.print(f"these are the first {limit}; --limit shows more")


@vehicles_app.command(name="add")
def add_vehicle(
    name: NameArgument,
    customer: Annotated[str | None, typer.Option("--customer", help="whose it is", show_default=False)] = None,
    plate: PlateOption = None,
    vin: VinOption = None,
    notes: NotesOption = None,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a vehicle; its name is unique for each customer."""

    async def work(connection: Connection) -> None:
        await fleet.add_vehicle(
            connection,
            name,
            customer=customer,
            plate=plate or "",
            vin=vin or "",
            notes=notes or "",
            actor=actor(),
        )

    with_database(data, config_file, work, application=APPLICATION)
    _say({"vehicle": name, "added": True}, f"added vehicle {name}", as_json=as_json)


@vehicles_app.command(name="set")
def set_vehicle(
    vehicle: VehicleArgument,
    of_customer: WhoseOption = None,
    new_name: NewNameOption = None,
    plate: PlateOption = None,
    vin: VinOption = None,
    notes: NotesOption = None,
    to_customer: Annotated[
        str | None, typer.Option("--to-customer", help="whose it is from now on; '' for nobody's", show_default=False)
    ] = None,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a vehicle: only what is given. An empty text takes a value away."""
    values = {"name": new_name, "plate": plate, "vin": vin, "notes": notes, "customer": to_customer}
    if all(value is None for value in values.values()):
        raise CallerError(NOTHING, hint="`signalkeep vehicles set --help` lists what can be.")

    async def work(connection: Connection) -> list[str]:
        return await fleet.set_vehicle(connection, vehicle, of_customer=of_customer, values=values, actor=actor())

    changed = with_database(data, config_file, work, application=APPLICATION)
    _say({"vehicle": vehicle, "changed": changed}, _changed(vehicle, changed), as_json=as_json)


@vehicles_app.command(name="show")
def show_vehicle(
    vehicle: VehicleArgument,
    customer: WhoseOption = None,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """One vehicle: its entry, and which devices were in it when."""

    async def work(connection: Connection) -> tuple[Row, list[Row]]:
        found = await fleet.find_vehicle(connection, vehicle, customer)
        return found, await fleet.assignments_of_vehicle(connection, found["id"])

    row, devices = with_database(data, config_file, work, application=APPLICATION)
    if as_json:
        print_json({**row, "assignments": [dict(device) for device in devices]})
        return
    width = max(map(len, row.keys()))
    for key, value in row.items():
        if cell := shown(value):
            out.print(f"{key:{width}}  {cell}", markup=False)
    columns = ("device_number", "begins_at", "ends_at", "alongside")
    print_rows(map(dict, devices), columns, as_json=False, empty="no device was ever in it")


@vehicles_app.command(name="retire")
def retire_vehicle(
    vehicle: VehicleArgument,
    customer: WhoseOption = None,
    data: DataOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a vehicle out of service; its track stays, its devices are free."""

    async def work(connection: Connection) -> list[str] | None:
        return await fleet.retire_vehicle(connection, vehicle, customer=customer, actor=actor())

    devices = with_database(data, config_file, work, application=APPLICATION)
    said = f"{vehicle} is retired already"
    if devices is not None:
        said = f"retired {vehicle}" + (f"; {', '.join(devices)} left it" if devices else "")
    _say({"vehicle": vehicle, "retired": devices is not None, "devices": devices or []}, said, as_json=as_json)


def _changed(name: str, changed: list[str]) -> str:
    return f"changed {name}: {', '.join(changed)}" if changed else f"{name} is so already"


def _say(values: dict[str, object], words: str, *, as_json: bool) -> None:
    if as_json:
        print_json(values)
    else:
        out.print(words, markup=False)
