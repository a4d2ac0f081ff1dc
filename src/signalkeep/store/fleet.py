"""Customers and vehicles: what people call what their devices are built into.

Nothing here is ever deleted: a vehicle is retired and keeps its track. Every change is one transaction with its line
in audit_log. A vehicle is found by its name or plate; where several customers have one of that name, the customer
decides, and a call that leaves it open is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import asyncpg

from signalkeep.errors import CallerError
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.registry import log_action

NAME_CHARS_MAX: Final = 200
PLATE_CHARS_MAX: Final = 64
NOTES_CHARS_MAX: Final = 10_000

# Customers with the number of their vehicles.
CUSTOMERS: Final = """
SELECT c.name, count(v.id) FILTER (WHERE v.retired_at IS NULL) AS vehicles, c.notes, c.created_at
FROM customer c LEFT JOIN vehicle v ON v.customer_id = c.id GROUP BY c.id ORDER BY c.name LIMIT $1
"""

# Vehicles by name or plate.
FIND_VEHICLE: Final = """
SELECT v.id, v.name, v.plate, v.vin, v.notes, c.name AS customer, v.created_at, v.retired_at
FROM vehicle v LEFT JOIN customer c ON c.id = v.customer_id
WHERE (v.name = $1 OR v.plate = $1) AND ($2::text IS NULL OR c.name = $2) ORDER BY c.name NULLS FIRST
"""

# Vehicles with the devices that are in them now.
VEHICLES: Final = """
SELECT v.name, v.plate, c.name AS customer, v.vin, v.notes, v.created_at, v.retired_at,
       array_agg(d.device_number ORDER BY a.alongside, d.device_number)
           FILTER (WHERE d.device_number IS NOT NULL) AS devices
FROM vehicle v
LEFT JOIN customer c ON c.id = v.customer_id
LEFT JOIN assignment a ON a.vehicle_id = v.id
    AND (a.begins_at IS NULL OR a.begins_at <= now()) AND (a.ends_at IS NULL OR now() < a.ends_at)
LEFT JOIN device d ON d.id = a.device_id
WHERE ($1::text IS NULL OR c.name = $1) AND ($2 OR v.retired_at IS NULL)
GROUP BY v.id, c.name ORDER BY c.name NULLS FIRST, v.name LIMIT $3
"""

# A vehicle's assignments over time.
ASSIGNMENTS_OF_VEHICLE: Final = """
SELECT d.device_number, a.begins_at, a.ends_at, a.alongside
FROM assignment a JOIN device d ON d.id = a.device_id
WHERE a.vehicle_id = $1 ORDER BY a.begins_at NULLS FIRST, a.id
"""


def check_text(what: str, text: str | None, chars_max: int, *, empty: bool = True) -> None:
    """Raise CallerError unless this can be stored and shown; None: nothing was given."""
    if text is None:
        return
    if not (text or empty):
        raise CallerError(f"the {what} is empty", hint="Give it at least one character.")
    fault = text_fault(text, chars_max)
    if fault:
        raise CallerError(f"the {what} {fault}", hint=f"At most {chars_max} characters, without control characters.")


def text_fault(text: str, chars_max: int) -> str:
    """What is wrong with a text of people, '' if nothing is."""
    if len(text) > chars_max:
        return f"has {len(text)} characters, at most {chars_max} are kept"
    if any(ord(char) < 32 and char not in "\n\t" for char in text) or "\x7f" in text:
        return "contains control characters"
    return "is not text" if any("\ud800" <= char <= "\udfff" for char in text) else ""


async def add_customer(connection: Connection, name: str, *, notes: str = "", actor: str) -> None:
    """Raises CallerError if there is one of this name."""
    check_text("name", name, NAME_CHARS_MAX, empty=False)
    check_text("notes", notes, NOTES_CHARS_MAX)
    try:
        async with connection.transaction():
            await connection.execute("INSERT INTO customer (name, notes) VALUES ($1, $2)", name, notes)
            await log_action(connection, actor, "customer.add", name, {"notes": notes or None})
    except asyncpg.UniqueViolationError:
        raise CallerError(
            f"there is a customer {name!r} already", hint="`signalkeep customers set` changes one."
        ) from None


async def set_customer(
    connection: Connection, name: str, *, new_name: str | None, notes: str | None, actor: str
) -> list[str]:
    """Change what is given and differs; returns the names of what was changed."""
    check_text("name", new_name, NAME_CHARS_MAX, empty=False)
    check_text("notes", notes, NOTES_CHARS_MAX)
    try:
        async with connection.transaction():
            before = await connection.fetchrow("SELECT name, notes FROM customer WHERE name = $1 FOR UPDATE", name)
            if before is None:
                raise _no_customer(name)
            changed = _changes(dict(before), {"name": new_name, "notes": notes})
            if changed:
                await connection.execute(
                    "UPDATE customer SET name = $2, notes = $3 WHERE name = $1",
                    name,
                    changed.get("name", name),
                    changed.get("notes", before["notes"]),
                )
                await log_action(connection, actor, "customer.set", name, changed)
    except asyncpg.UniqueViolationError:
        raise CallerError(f"there is a customer {new_name!r} already", hint="Choose another name.") from None
    return list(changed)


async def customers(connection: Connection, limit: int) -> list[Row]:
    """All customers, by name."""
    return list(await connection.fetch(CUSTOMERS, limit))


async def add_vehicle(
    connection: Connection,
    name: str,
    *,
    customer: str | None = None,
    plate: str = "",
    vin: str = "",
    notes: str = "",
    actor: str,
) -> None:
    """Raises CallerError if the customer is not there, or has a vehicle of this name or plate."""
    _check_vehicle(name, plate, vin, notes)
    try:
        async with connection.transaction():
            customer_id = await _customer_id(connection, customer)
            await connection.execute(
                "INSERT INTO vehicle (customer_id, name, plate, vin, notes) VALUES ($1, $2, $3, $4, $5)",
                customer_id,
                name,
                plate,
                vin,
                notes,
            )
            given = {"customer": customer, "plate": plate or None, "vin": vin or None, "notes": notes or None}
            await log_action(connection, actor, "vehicle.add", name, given)
    except asyncpg.UniqueViolationError as error:
        raise _not_unique(error, name, plate) from None


async def set_vehicle(
    connection: Connection, name: str, *, of_customer: str | None, values: Mapping[str, str | None], actor: str
) -> list[str]:
    """Change what is given (name, plate, vin, notes, customer; '' for none) and differs; returns what was changed."""
    _check_vehicle(values.get("name"), values.get("plate"), values.get("vin"), values.get("notes"))
    try:
        async with connection.transaction():
            before = await find_vehicle(connection, name, of_customer, lock=True)
            changed = _changes({**before, "customer": before["customer"] or ""}, values)
            if changed:
                after = {**before, **changed}
                await connection.execute(
                    "UPDATE vehicle SET customer_id = $2, name = $3, plate = $4, vin = $5, notes = $6 WHERE id = $1",
                    before["id"],
                    await _customer_id(connection, after["customer"] or None),
                    after["name"],
                    after["plate"],
                    after["vin"],
                    after["notes"],
                )
                await log_action(connection, actor, "vehicle.set", before["name"], changed)
    except asyncpg.UniqueViolationError as error:
        raise _not_unique(error, values.get("name") or name, values.get("plate") or "") from None
    return list(changed)


async def retire_vehicle(connection: Connection, name: str, *, customer: str | None, actor: str) -> list[str] | None:
    """Take it out of service and end its assignments; returns the devices that were in it, None: it was retired."""
    async with connection.transaction():
        vehicle = await find_vehicle(connection, name, customer, lock=True)
        if vehicle["retired_at"] is not None:
            return None
        await connection.execute("UPDATE vehicle SET retired_at = now() WHERE id = $1", vehicle["id"])
        ended = await connection.fetch(
            "UPDATE assignment a SET ends_at = now() FROM device d WHERE d.id = a.device_id AND vehicle_id = $1 "
            "AND (begins_at IS NULL OR begins_at < now()) AND (ends_at IS NULL OR now() < ends_at) "
            "RETURNING d.device_number",
            vehicle["id"],
        )
        await connection.execute("DELETE FROM assignment WHERE vehicle_id = $1 AND begins_at >= now()", vehicle["id"])
        devices = [row["device_number"] for row in ended]
        await log_action(connection, actor, "vehicle.retire", vehicle["name"], {"devices": devices or None})
    return devices


async def find_vehicle(connection: Connection, name: str, customer: str | None, *, lock: bool = False) -> Row:
    """The vehicle of this name or plate. Raises CallerError if there is none, or more than one."""
    found = await connection.fetch(FIND_VEHICLE + (" FOR UPDATE OF v" if lock else ""), name, customer)
    if not found:
        of = f" of {customer}" if customer else ""
        raise CallerError(
            f"there is no vehicle {name!r}{of}", hint="`signalkeep vehicles add` makes one, `vehicles list` shows all."
        )
    if len(found) > 1:
        owners = ", ".join(row["customer"] or "nobody" for row in found)
        raise CallerError(f"there are {len(found)} vehicles {name!r}, of {owners}", hint="Say which with --customer.")
    return found[0]


async def vehicles(connection: Connection, *, customer: str | None, retired: bool, limit: int) -> list[Row]:
    """Vehicles, of a customer if one is given, with those out of service if so asked."""
    return list(await connection.fetch(VEHICLES, customer, retired, limit))


async def assignments_of_vehicle(connection: Connection, vehicle_id: int) -> list[Row]:
    """Which devices were in it, earliest first."""
    return list(await connection.fetch(ASSIGNMENTS_OF_VEHICLE, vehicle_id))


def _changes(before: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None and value != before[key]}


def _check_vehicle(name: str | None, plate: str | None, vin: str | None, notes: str | None) -> None:
    check_text("name", name, NAME_CHARS_MAX, empty=False)
    check_text("plate", plate, PLATE_CHARS_MAX)
    check_text("vin", vin, PLATE_CHARS_MAX)
    check_text("notes", notes, NOTES_CHARS_MAX)


async def _customer_id(connection: Connection, name: str | None) -> int | None:
    if name is None:
        return None
    found: int | None = await connection.fetchval("SELECT id FROM customer WHERE name = $1", name)
    if found is None:
        raise _no_customer(name)
    return found


def _no_customer(name: str) -> CallerError:
    return CallerError(
        f"there is no customer {name!r}", hint="`signalkeep customers add` makes one, `customers list` shows all."
    )


def _not_unique(error: asyncpg.UniqueViolationError, name: str, plate: str) -> CallerError:
    what = f"plate {plate!r}" if error.constraint_name == "vehicle_plate" else f"name {name!r}"
    return CallerError(
        f"the customer has a vehicle with the {what} already",
        hint="`signalkeep vehicles list` shows it; `vehicles set` changes it.",
    )
