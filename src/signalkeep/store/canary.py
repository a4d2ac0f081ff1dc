"""What the canary asks the database: its device, and what became of a signal."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from signalkeep.model import DeviceStatus
from signalkeep.store import registry
from signalkeep.store.postgres import Connection

ACTOR: Final = "canary"

# Its entry in the registry.
FIND: Final = "SELECT id, status, model FROM device WHERE device_number = $1"

# Whether its record of that moment is a row.
ARRIVED: Final = "SELECT EXISTS (SELECT FROM signal WHERE device_id = $1 AND wire_time = $2)"

# Why that record is none.
SET_ASIDE: Final = "SELECT reason FROM quarantine WHERE device_id = $1 AND wire_time = $2 AND state = 'open' LIMIT 1"


async def find(connection: Connection, device_number: str) -> tuple[int | None, DeviceStatus, str]:
    """Our number for it, its status and its model; None: nobody has heard of it."""
    row = await connection.fetchrow(FIND, device_number)
    if row is None:
        return None, DeviceStatus.UNKNOWN, ""
    return row["id"], DeviceStatus(row["status"]), row["model"]


async def register(connection: Connection, device_number: str, *, name: str, model: str) -> int:
    """Raises CallerError if this is no device number."""
    return (await registry.register(connection, device_number, name=name, model=model, actor=ACTOR)).id


async def arrived(connection: Connection, device_id: int, wire_time: datetime) -> bool:
    found: bool = await connection.fetchval(ARRIVED, device_id, wire_time)
    return found


async def set_aside(connection: Connection, device_id: int, wire_time: datetime) -> str:
    """The reason, '' if it is not in quarantine."""
    reason: str | None = await connection.fetchval(SET_ASIDE, device_id, wire_time)
    return reason or ""
