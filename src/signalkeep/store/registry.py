"""The device registry: who may write, and under which settings a device's messages are read.

Every device that was ever heard of has a row; `status` says whether anybody registered it. A change of status, model
or time zone raises `revision` under the device's lock (its `device_state` row), so that no transaction writes records
that were decoded under the old entry. Gateways hear of changes through the channel `device_changed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from signalkeep import limits
from signalkeep.errors import CallerError
from signalkeep.model import DeviceSettings, DeviceStatus
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.rows import Device

CHANNEL: Final = "device_changed"

_COLUMNS: Final = "id, device_number, status, model, time_zone, revision, erased_to"

# Registry entries by number.
FIND: Final = f"SELECT {_COLUMNS} FROM device WHERE device_number = ANY($1::text[])"  # noqa: S608 - constant columns

# Notes devices that are heard of for the first time.
ADD_MISSING: Final = """
WITH added AS (
    INSERT INTO device (device_number, status, registered_at)
    SELECT number, CASE WHEN number = '' THEN 'unknown' ELSE $2 END,
           CASE WHEN number <> '' AND $2 = 'active' THEN now() END
    FROM unnest($1::text[]) AS n (number) ORDER BY number
    ON CONFLICT (device_number) DO NOTHING RETURNING id
)
INSERT INTO device_state (device_id) SELECT id FROM added
"""

# Locks devices by number, in the order in which everybody does.
LOCK_BY_NUMBER: Final = """
SELECT FROM device_state
WHERE device_id IN (SELECT id FROM device WHERE device_number = ANY($1::text[])) ORDER BY device_id FOR UPDATE
"""

# Registers every device of these numbers that nobody has registered yet.
ADOPT_UNKNOWN: Final = """
UPDATE device SET status = 'active', registered_at = now(), revision = revision + 1
WHERE device_number = ANY($1::text[]) AND device_number <> '' AND status = 'unknown'
RETURNING id
"""

# What a gateway has to know of every device that it must treat specially: pages, the same while nothing changes.
SNAPSHOT: Final = """
SELECT json_object_agg(device_number, status ORDER BY device_number)::text AS page
FROM (
    SELECT device_number, status, (row_number() OVER (ORDER BY device_number) - 1) / $1 AS number
    FROM device WHERE status <> 'unknown'
) AS known
GROUP BY number ORDER BY number
"""

# Registers a device, or changes one; empty parameters leave a column as it is.
UPSERT: Final = """
UPDATE device SET
    status = 'active', registered_at = coalesce(registered_at, now()), retired_at = NULL, revision = revision + 1,
    name = coalesce($2, name), model = coalesce($3, model), time_zone = coalesce($4, time_zone)
WHERE device_number = $1
RETURNING *
"""

# What `change` may change, and what of it decides how messages are read.
CHANGEABLE: Final = frozenset({"name", "model", "time_zone", "expected_interval_s", "notes"})
DECIDES_READING: Final = frozenset({"model", "time_zone"})

# Retires a device that is not retired yet.
RETIRE: Final = """
UPDATE device SET status = 'retired', retired_at = now(), revision = revision + 1
WHERE device_number = $1 AND status <> 'retired' RETURNING id
"""

# Ends what lasts of a device's assignments.
END_ASSIGNMENTS: Final = """
UPDATE assignment SET ends_at = now()
WHERE device_id = $1 AND (begins_at IS NULL OR begins_at < now()) AND (ends_at IS NULL OR now() < ends_at)
"""

# Lists devices with their state.
LIST: Final = """
SELECT d.device_number, d.status, d.name, d.model, d.time_zone, s.last_received_at, s.last_protocol, s.last_peer,
       s.device_time, s.latitude, s.longitude, s.speed_kmh, s.frames, s.records, s.stored, s.duplicate,
       s.quarantined, s.suppressed, s.quarantine_open, d.created_at, d.registered_at, d.retired_at, d.erased_to,
       d.expected_interval_s, d.notes, s.connected_at, s.disconnected_at, s.connections,
       v.name AS vehicle, c.name AS customer
FROM device d JOIN device_state s ON s.device_id = d.id
LEFT JOIN assignment a ON a.device_id = d.id
    AND (a.begins_at IS NULL OR a.begins_at <= now()) AND (a.ends_at IS NULL OR now() < a.ends_at)
LEFT JOIN vehicle v ON v.id = a.vehicle_id
LEFT JOIN customer c ON c.id = v.customer_id
WHERE ($1::text IS NULL OR d.status = $1) AND ($2::text IS NULL OR d.device_number = $2)
ORDER BY s.last_received_at DESC NULLS LAST, d.device_number
LIMIT $3
"""


def device_of(row: Row) -> Device:
    """A registry row as a value."""
    return Device(
        row["id"],
        row["device_number"],
        DeviceStatus(row["status"]),
        row["revision"],
        DeviceSettings(row["time_zone"], row["model"]),
        row["erased_to"],
    )


async def resolve(connection: Connection, numbers: Iterable[str], *, register_unknown: bool) -> dict[str, Device]:
    """Entries for all these numbers; those never heard of are noted as unknown, or registered if so set."""
    wanted = sorted(set(numbers))
    found = {row["device_number"]: device_of(row) for row in await connection.fetch(FIND, wanted)}
    missing = [number for number in wanted if number not in found]
    adopt = [number for number, device in found.items() if register_unknown and device.status is DeviceStatus.UNKNOWN]
    if missing or adopt:
        async with connection.transaction():
            await connection.execute(ADD_MISSING, missing, "active" if register_unknown else "unknown")
            await connection.execute(LOCK_BY_NUMBER, adopt)
            adopted = await connection.fetch(ADOPT_UNKNOWN, adopt)
            if adopted or (register_unknown and missing):
                await connection.execute("SELECT pg_notify($1, '')", CHANNEL)
        found = {row["device_number"]: device_of(row) for row in await connection.fetch(FIND, wanted)}
    assert len(found) == len(wanted)
    return found


async def register(
    connection: Connection,
    device_number: str,
    *,
    name: str | None = None,
    model: str | None = None,
    time_zone: str | None = None,
    actor: str,
) -> Device:
    """Register a device or change its entry. In a transaction of its own; what waits in quarantine is the caller's."""
    check_number(device_number)
    async with connection.transaction():
        await connection.execute(ADD_MISSING, [device_number], "unknown")
        await connection.execute(LOCK_BY_NUMBER, [device_number])
        row = await connection.fetchrow(UPSERT, device_number, name, model, time_zone)
        assert row is not None
        detail = {"name": name, "model": model, "time_zone": time_zone}
        await log_action(connection, actor, "device.add", device_number, detail)
        await connection.execute("SELECT pg_notify($1, '')", CHANNEL)
    return device_of(row)


async def change(connection: Connection, device_number: str, values: dict[str, Any], *, actor: str) -> list[str]:
    """Change what is given (a column of CHANGEABLE) and differs, of a device that is known; returns what was changed.

    An `expected_interval_s` of 0 means that it is not known. Raises CallerError for a device that is not registered.
    """
    assert values.keys() <= CHANGEABLE, values
    if values.get("expected_interval_s") == 0:
        values = {**values, "expected_interval_s": None}
    async with connection.transaction():
        await connection.execute(LOCK_BY_NUMBER, [device_number])
        before = await connection.fetchrow("SELECT * FROM device WHERE device_number = $1", device_number)
        if before is None or before["status"] == DeviceStatus.UNKNOWN:
            raise CallerError(
                f"device {device_number} is not registered",
                hint=f"Register it: signalkeep devices add {device_number}",
            )
        changed = {key: value for key, value in values.items() if value != before[key]}
        if not changed:
            return []
        columns = ", ".join(f"{column} = ${number}" for number, column in enumerate(changed, 3))
        revision = 1 if changed.keys() & DECIDES_READING else 0
        await connection.execute(
            f"UPDATE device SET {columns}, revision = revision + $2 WHERE device_number = $1",  # noqa: S608 - columns of CHANGEABLE
            device_number,
            revision,
            *changed.values(),
        )
        await _log_set(connection, actor, device_number, changed)
        if revision:
            await connection.execute("SELECT pg_notify($1, '')", CHANNEL)
    return list(changed)


async def _log_set(connection: Connection, actor: str, device_number: str, changed: dict[str, Any]) -> None:
    shown = {key: "" if value is None else value for key, value in changed.items()}
    await log_action(connection, actor, "device.set", device_number, shown)


async def retire(connection: Connection, device_number: str, *, actor: str) -> bool:
    """Refuse what it sends from now on, and end its assignments; its history stays. False: it was retired already."""
    async with connection.transaction():
        await connection.execute(LOCK_BY_NUMBER, [device_number])
        row = await connection.fetchrow(RETIRE, device_number)
        if row is None:
            status = await connection.fetchval("SELECT status FROM device WHERE device_number = $1", device_number)
            if status is None:
                raise CallerError(
                    f"nobody has registered or heard of device {device_number}",
                    hint="`signalkeep devices list` shows all devices.",
                )
            return False
        await connection.execute("DELETE FROM assignment WHERE device_id = $1 AND begins_at >= now()", row["id"])
        await connection.execute(END_ASSIGNMENTS, row["id"])
        await log_action(connection, actor, "device.retire", device_number, {})
        await connection.execute("SELECT pg_notify($1, '')", CHANNEL)
    return True


def check_number(device_number: str) -> None:
    """Raise CallerError unless this can be a device number."""
    fits = 1 <= len(device_number) <= limits.DEVICE_NUMBER_CHARS_MAX
    if not (fits and device_number.isascii() and device_number.isprintable() and " " not in device_number):
        raise CallerError(
            f"{device_number!r} is no device number",
            hint=f"1 to {limits.DEVICE_NUMBER_CHARS_MAX} printable ASCII characters without blanks; often the IMEI.",
        )


async def log_action(connection: Connection, actor: str, action: str, subject: str, detail: dict[str, Any]) -> None:
    """One line in audit_log, in the caller's transaction."""
    await connection.execute(
        "INSERT INTO audit_log (actor, action, subject, detail) VALUES ($1, $2, $3, $4)",
        actor,
        action,
        subject,
        {key: value for key, value in detail.items() if value is not None},
    )


async def snapshot(connection: Connection) -> list[str]:
    """Number and status of every device that somebody registered or retired, as JSON objects of bounded size.

    Not as rows: those of a large fleet would each be made into objects while nothing else runs.
    """
    return [row["page"] for row in await connection.fetch(SNAPSHOT, limits.REGISTRY_PAGE_DEVICES)]


async def listen(connection: Connection, changed: Callable[[], None]) -> None:
    """Call `changed` whenever the registry changes, and when the connection is lost."""
    await connection.add_listener(CHANNEL, lambda *_: changed())
    connection.add_termination_listener(lambda *_: changed())
