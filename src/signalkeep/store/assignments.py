"""Which device is in which vehicle, and when: [begins_at, ends_at), compared with device_time.

A device is in one vehicle at a time, and a vehicle carries one device, with others only deliberately `alongside`. The
table's constraints hold that whatever happens; here it is said in words which assignment is in the way. History is
corrected by closed intervals; nothing is deleted.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from signalkeep.errors import CallerError
from signalkeep.model import DeviceStatus
from signalkeep.store.fleet import find_vehicle
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.registry import LOCK_BY_NUMBER, log_action

# A device's assignments over time.
OF_DEVICE: Final = """
SELECT a.id, a.vehicle_id, v.name AS vehicle, c.name AS customer, a.begins_at, a.ends_at, a.alongside
FROM assignment a
JOIN vehicle v ON v.id = a.vehicle_id
LEFT JOIN customer c ON c.id = v.customer_id
JOIN device d ON d.id = a.device_id
WHERE d.device_number = $1 ORDER BY a.begins_at NULLS FIRST, a.id
"""

# Assignments that a new one of this device and vehicle would overlap.
IN_THE_WAY: Final = """
SELECT d.device_number, v.name AS vehicle, a.begins_at, a.ends_at
FROM assignment a JOIN device d ON d.id = a.device_id JOIN vehicle v ON v.id = a.vehicle_id
WHERE (a.device_id = $1 OR (a.vehicle_id = $2 AND NOT a.alongside AND NOT $5))
  AND tstzrange(a.begins_at, a.ends_at) && tstzrange($3, $4)
ORDER BY a.begins_at NULLS FIRST LIMIT 1
"""

# Ends what lasts and began before a moment.
END: Final = """
UPDATE assignment SET ends_at = $2
WHERE device_id = $1 AND (begins_at IS NULL OR begins_at < $2) AND (ends_at IS NULL OR $2 < ends_at)
RETURNING vehicle_id
"""


class Assigned(msgspec.Struct):
    """What `assign` did."""

    device_number: str
    vehicle: str
    customer: str | None
    begins_at: datetime | None
    ends_at: datetime | None
    changed: bool  # False: it was so already
    left: str | None = None  # the vehicle that it was in until then


async def assign(
    connection: Connection,
    device_number: str,
    vehicle_name: str,
    *,
    customer: str | None = None,
    begins_at: datetime | None = None,
    ends_at: datetime | None = None,
    alongside: bool = False,
    actor: str,
) -> Assigned:
    """Put a device into a vehicle. It leaves the one that it is in.

    `begins_at` None: now; from the beginning if neither device nor vehicle was ever assigned. Raises CallerError
    where another assignment is in the way.
    """
    if begins_at is not None and ends_at is not None and ends_at <= begins_at:
        raise CallerError("the assignment would end before it begins", hint="Give --from before --to.")
    async with connection.transaction():
        now: datetime = await connection.fetchval("SELECT now()")
        device_id = await lock_device(connection, device_number)
        vehicle = await find_vehicle(connection, vehicle_name, customer, lock=True)
        if vehicle["retired_at"] is not None and ends_at is None:
            raise CallerError(f"vehicle {vehicle['name']!r} is retired", hint="Give --to for a time when it was not.")
        before = await connection.fetch(OF_DEVICE, device_number)
        last = before[-1] if before and before[-1]["ends_at"] is None else None
        done = Assigned(device_number, vehicle["name"], vehicle["customer"], begins_at, ends_at, changed=True)
        if last is not None and last["vehicle_id"] == vehicle["id"] and ends_at is None:
            if begins_at is None or begins_at == last["begins_at"]:
                return msgspec.structs.replace(done, begins_at=last["begins_at"], changed=False)
        elif last is not None and ends_at is None:
            done.left = last["vehicle"]
            await connection.execute(END, device_id, begins_at or now)
        if begins_at is None and await _ever_assigned(connection, device_id, vehicle["id"], alongside=alongside):
            done.begins_at = now
        await _insert(connection, device_id, vehicle, done, alongside=alongside)
        detail = {
            "vehicle": done.vehicle,
            "customer": done.customer,
            "from": done.begins_at,
            "to": ends_at,
            "left": done.left,
            "alongside": alongside or None,
        }
        await log_action(connection, actor, "device.assign", device_number, detail)
    return done


async def unassign(connection: Connection, device_number: str, at: datetime | None, *, actor: str) -> str:
    """Take a device out of its vehicle at a moment (None: now); returns the vehicle's name."""
    async with connection.transaction():
        moment: datetime = at or await connection.fetchval("SELECT now()")
        device_id = await lock_device(connection, device_number, retired=True)
        vehicle_id = await connection.fetchval(END, device_id, moment)
        if vehicle_id is None:
            raise CallerError(
                f"device {device_number} is in no vehicle then", hint="`signalkeep devices show` says where it was."
            )
        name: str = await connection.fetchval("SELECT name FROM vehicle WHERE id = $1", vehicle_id)
        await log_action(connection, actor, "device.unassign", device_number, {"vehicle": name, "to": moment})
    return name


async def of_device(connection: Connection, device_number: str) -> list[Row]:
    """Which vehicles it was in, earliest first."""
    return list(await connection.fetch(OF_DEVICE, device_number))


async def lock_device(connection: Connection, device_number: str, *, retired: bool = False) -> int:
    """Lock a registered device for the caller's transaction; its id. Raises CallerError if it is not one."""
    await connection.execute(LOCK_BY_NUMBER, [device_number])
    row = await connection.fetchrow("SELECT id, status FROM device WHERE device_number = $1", device_number)
    if row is None or row["status"] == DeviceStatus.UNKNOWN:
        raise CallerError(
            f"device {device_number} is not registered", hint=f"Register it: signalkeep devices add {device_number}"
        )
    if row["status"] == DeviceStatus.RETIRED and not retired:
        raise CallerError(
            f"device {device_number} is retired",
            hint=f"Make it active again: signalkeep devices add {device_number}",
        )
    device_id: int = row["id"]
    return device_id


async def _ever_assigned(connection: Connection, device_id: int, vehicle_id: int, *, alongside: bool) -> bool:
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM assignment WHERE device_id = $1 OR (vehicle_id = $2 AND NOT alongside AND NOT $3))",
        device_id,
        vehicle_id,
        alongside,
    )
    return found


async def _insert(connection: Connection, device_id: int, vehicle: Row, done: Assigned, *, alongside: bool) -> None:
    span = (device_id, vehicle["id"], done.begins_at, done.ends_at, alongside)
    other = await connection.fetchrow(IN_THE_WAY, *span)
    if other is not None:
        raise _in_the_way(other, done.device_number)
    try:
        await connection.execute(
            "INSERT INTO assignment (device_id, vehicle_id, begins_at, ends_at, alongside) VALUES ($1, $2, $3, $4, $5)",
            *span,
        )
    except asyncpg.ExclusionViolationError:
        raise CallerError(
            "another assignment was made at the same moment", hint="Look at it, then try again."
        ) from None


def _in_the_way(other: Row, device_number: str) -> CallerError:
    since = f"since {other['begins_at']:%Y-%m-%d %H:%M} UTC" if other["begins_at"] else "from the beginning"
    until = f" until {other['ends_at']:%Y-%m-%d %H:%M} UTC" if other["ends_at"] else ""
    said = f"device {other['device_number']} is in vehicle {other['vehicle']!r} {since}{until}"
    if other["device_number"] == device_number:
        return CallerError(said, hint="Choose a time that does not overlap, or end that with `devices unassign --at`.")
    return CallerError(
        said,
        hint=f"Take it out first (signalkeep devices unassign {other['device_number']}), or say --alongside if both "
        "are meant to be in it.",
    )
