"""A whole list of devices, with their customers, vehicles and assignments, in one transaction.

Either everything in it is valid and is written, or nothing is: then every row that is wrong is named. Statements work
on sets, so a hundred thousand rows are a matter of seconds. A second time the same list changes nothing. An empty cell
leaves what is there; nothing is ever taken away that the list does not mention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import msgspec

from signalkeep import limits
from signalkeep.store.postgres import Connection
from signalkeep.store.registry import ADD_MISSING, CHANNEL

# The list, as a table for the time of the transaction.
CREATE: Final = """
CREATE TEMPORARY TABLE wanted (
    line integer NOT NULL, device_number text PRIMARY KEY, name text, model text, time_zone text,
    expected_interval_s integer, notes text, customer text, vehicle text, plate text, vin text,
    assigned_from timestamptz, device_id integer, customer_id integer, vehicle_id integer) ON COMMIT DROP
"""
COLUMNS: Final = (
    "line", "device_number", "name", "model", "time_zone", "expected_interval_s", "notes", "customer", "vehicle",
    "plate", "vin", "assigned_from",
)  # fmt: skip

KNOW_DEVICES: Final = "UPDATE wanted w SET device_id = d.id FROM device d WHERE d.device_number = w.device_number"

RETIRED_DEVICES: Final = """
SELECT w.line, 'device_number' AS column,
       'device ' || w.device_number || ' is retired; `signalkeep devices add` makes it active again' AS fault
FROM wanted w JOIN device d ON d.id = w.device_id WHERE d.status = 'retired'
"""

# Devices whose entry is to change.
_DIFFERS: Final = """
    (d.status, d.name, d.model, d.time_zone, d.notes, coalesce(d.expected_interval_s, 0)) IS DISTINCT FROM
    ('active', coalesce(w.name, d.name), coalesce(w.model, d.model), coalesce(w.time_zone, d.time_zone),
     coalesce(w.notes, d.notes), coalesce(w.expected_interval_s, d.expected_interval_s, 0))
"""
LOCK_CHANGING: Final = f"""
SELECT s.device_id FROM device_state s
WHERE s.device_id IN (SELECT d.id FROM wanted w JOIN device d ON d.id = w.device_id WHERE {_DIFFERS})
ORDER BY s.device_id FOR UPDATE
"""  # noqa: S608 - constant conditions

# Registers and changes, and says so in the audit log.
CHANGE_DEVICES: Final = f"""
WITH before AS (
    SELECT d.id, d.status, d.model, d.time_zone FROM wanted w JOIN device d ON d.id = w.device_id WHERE {_DIFFERS}
), changed AS (
    UPDATE device d SET
        status = 'active', registered_at = coalesce(d.registered_at, now()), name = coalesce(w.name, d.name),
        model = coalesce(w.model, d.model), time_zone = coalesce(w.time_zone, d.time_zone),
        notes = coalesce(w.notes, d.notes),
        expected_interval_s = coalesce(w.expected_interval_s, d.expected_interval_s),
        revision = d.revision + CASE
            WHEN (b.status, b.model, b.time_zone) =
                 ('active', coalesce(w.model, b.model), coalesce(w.time_zone, b.time_zone)) THEN 0 ELSE 1 END
    FROM wanted w JOIN before b ON b.id = w.device_id
    WHERE d.id = w.device_id
    RETURNING d.device_number, b.status, w.name, w.model, w.time_zone, w.expected_interval_s, w.notes
), logged AS (
    INSERT INTO audit_log (actor, action, subject, detail)
    SELECT $1, 'device.import', device_number, jsonb_strip_nulls(jsonb_build_object(
        'name', name, 'model', model, 'time_zone', time_zone, 'expected_interval_s', expected_interval_s,
        'notes', notes))
    FROM changed
)
SELECT count(*) FILTER (WHERE status = 'unknown') AS registered, count(*) FILTER (WHERE status = 'active') AS changed
FROM changed
"""  # noqa: S608 - constant conditions

# Makes the customers that are missing.
ADD_CUSTOMERS: Final = """
WITH added AS (
    INSERT INTO customer (name) SELECT DISTINCT customer FROM wanted WHERE customer IS NOT NULL ORDER BY 1
    ON CONFLICT DO NOTHING RETURNING name
), logged AS (
    INSERT INTO audit_log (actor, action, subject) SELECT $1, 'customer.add', name FROM added
)
SELECT count(*) FROM added
"""
KNOW_CUSTOMERS: Final = "UPDATE wanted w SET customer_id = c.id FROM customer c WHERE c.name = w.customer"

TAKEN_PLATES: Final = """
SELECT w.line, 'plate' AS column, 'vehicle ' || v.name || ' has the plate ' || w.plate AS fault
FROM wanted w JOIN vehicle v ON v.plate = w.plate AND coalesce(v.customer_id, 0) = coalesce(w.customer_id, 0)
WHERE v.name <> w.vehicle
"""

# Makes the vehicles that are missing, then lets the others follow.
ADD_VEHICLES: Final = """
WITH added AS (
    INSERT INTO vehicle (customer_id, name, plate, vin)
    SELECT customer_id, vehicle, coalesce(plate, ''), coalesce(vin, '') FROM wanted w
    WHERE vehicle IS NOT NULL AND NOT EXISTS (
        SELECT FROM vehicle v WHERE v.name = w.vehicle AND coalesce(v.customer_id, 0) = coalesce(w.customer_id, 0))
    ORDER BY line
    RETURNING name
), logged AS (
    INSERT INTO audit_log (actor, action, subject) SELECT $1, 'vehicle.add', name FROM added
)
SELECT count(*) FROM added
"""
KNOW_VEHICLES: Final = """
UPDATE wanted w SET vehicle_id = v.id FROM vehicle v
WHERE v.name = w.vehicle AND coalesce(v.customer_id, 0) = coalesce(w.customer_id, 0)
"""
CHANGE_VEHICLES: Final = """
WITH changed AS (
    UPDATE vehicle v SET plate = coalesce(w.plate, v.plate), vin = coalesce(w.vin, v.vin)
    FROM wanted w
    WHERE v.id = w.vehicle_id AND (v.plate, v.vin) <> (coalesce(w.plate, v.plate), coalesce(w.vin, v.vin))
    RETURNING v.name, w.plate, w.vin
), logged AS (
    INSERT INTO audit_log (actor, action, subject, detail)
    SELECT $1, 'vehicle.set', name, jsonb_strip_nulls(jsonb_build_object('plate', plate, 'vin', vin)) FROM changed
)
SELECT count(*) FROM changed
"""

RETIRED_VEHICLES: Final = """
SELECT w.line, 'vehicle' AS column, 'vehicle ' || w.vehicle || ' is retired' AS fault
FROM wanted w JOIN vehicle v ON v.id = w.vehicle_id WHERE v.retired_at IS NOT NULL
"""

# Rows whose device is in another vehicle than named, or in none.
NEW_ASSIGNMENTS: Final = """
CREATE TEMPORARY TABLE moving ON COMMIT DROP AS
SELECT w.line, w.device_id, w.device_number, w.vehicle_id, w.vehicle, CASE
    WHEN w.assigned_from IS NOT NULL THEN w.assigned_from
    WHEN EXISTS (SELECT FROM assignment a WHERE a.device_id = w.device_id) THEN now()
    WHEN EXISTS (SELECT FROM assignment a WHERE a.vehicle_id = w.vehicle_id AND NOT a.alongside) THEN now()
    END AS begins_at
FROM wanted w
WHERE w.vehicle_id IS NOT NULL AND NOT EXISTS (
    SELECT FROM assignment a
    WHERE a.device_id = w.device_id AND a.vehicle_id = w.vehicle_id AND a.ends_at IS NULL)
"""
END_OLD: Final = """
UPDATE assignment a SET ends_at = coalesce(m.begins_at, now()) FROM moving m
WHERE a.device_id = m.device_id AND a.ends_at IS NULL AND (a.begins_at IS NULL OR a.begins_at < m.begins_at)
"""
IN_THE_WAY: Final = """
SELECT DISTINCT ON (m.line) m.line, 'vehicle' AS column,
       'device ' || d.device_number || ' is in vehicle ' || v.name || coalesce(
           ' since ' || to_char(a.begins_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), '')
           || '; take it out first (signalkeep devices unassign) or choose another assigned_from' AS fault
FROM moving m
JOIN assignment a ON (a.device_id = m.device_id OR (a.vehicle_id = m.vehicle_id AND NOT a.alongside))
    AND tstzrange(a.begins_at, a.ends_at) && tstzrange(m.begins_at, NULL)
JOIN device d ON d.id = a.device_id
JOIN vehicle v ON v.id = a.vehicle_id
ORDER BY m.line
"""
ASSIGN: Final = """
WITH added AS (
    INSERT INTO assignment (device_id, vehicle_id, begins_at)
    SELECT device_id, vehicle_id, begins_at FROM moving ORDER BY line RETURNING device_id
), logged AS (
    INSERT INTO audit_log (actor, action, subject, detail)
    SELECT $1, 'device.assign', device_number, jsonb_strip_nulls(jsonb_build_object(
        'vehicle', vehicle, 'from', begins_at))
    FROM moving
)
SELECT count(*) FROM added
"""

# Devices of the list of which something waits that it may have released.
WAITING: Final = """
SELECT w.device_number FROM wanted w WHERE EXISTS (
    SELECT FROM quarantine q WHERE q.device_id = w.device_id AND q.state = 'open' AND q.reason = 'unknown_device')
ORDER BY w.line
"""


class Wanted(msgspec.Struct, kw_only=True):
    """A row of the list. None: leave it as it is."""

    line: int
    device_number: str
    name: str | None = None
    model: str | None = None
    time_zone: str | None = None
    expected_interval_s: int | None = None
    notes: str | None = None
    customer: str | None = None
    vehicle: str | None = None
    plate: str | None = None
    vin: str | None = None
    assigned_from: datetime | None = None


class Fault(msgspec.Struct, frozen=True, order=True):
    """What is wrong with a row."""

    line: int
    column: str
    fault: str


class Imported(msgspec.Struct):
    """What the list changed. `waiting`: devices whose records in quarantine can now be released."""

    rows: int
    registered: int = 0
    changed: int = 0
    customers: int = 0
    vehicles: int = 0
    vehicles_changed: int = 0
    assigned: int = 0
    waiting: list[str] = msgspec.field(default_factory=list)


class Refused(Exception):
    """Rows that cannot be; nothing was written."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(f"{len(faults)} faults")
        self.faults = sorted(faults)


async def import_devices(
    connection: Connection,
    rows: Sequence[Wanted],
    *,
    actor: str,
    dry_run: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Imported:
    """Bring the registry to what the list says. Raises Refused. `dry_run`: everything is tried and taken back."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        done = await _import(connection, rows, actor, progress)
    except BaseException:
        await transaction.rollback()
        raise
    if dry_run:
        await transaction.rollback()
    else:
        await transaction.commit()
    return done


async def _import(
    connection: Connection, rows: Sequence[Wanted], actor: str, progress: Callable[[str], None]
) -> Imported:
    done = Imported(rows=len(rows))
    await connection.execute(CREATE)
    records = [tuple(getattr(row, column) for column in COLUMNS) for row in rows]
    await connection.copy_records_to_table("wanted", records=records, columns=COLUMNS, schema_name="pg_temp")
    await connection.execute("ANALYZE wanted")
    progress("devices")
    await _run(connection, ADD_MISSING, [row.device_number for row in rows], "unknown")
    await _run(connection, KNOW_DEVICES)
    await _run(connection, LOCK_CHANGING)
    await _refuse(connection, RETIRED_DEVICES)
    (counts,) = await connection.fetch(CHANGE_DEVICES, actor, timeout=limits.IMPORT_STATEMENT_S_MAX)
    done.registered, done.changed = counts["registered"], counts["changed"]
    progress("customers and vehicles")
    done.customers = await _count(connection, ADD_CUSTOMERS, actor)
    await _run(connection, KNOW_CUSTOMERS)
    await _refuse(connection, TAKEN_PLATES)
    done.vehicles = await _count(connection, ADD_VEHICLES, actor)
    await _run(connection, KNOW_VEHICLES)
    done.vehicles_changed = await _count(connection, CHANGE_VEHICLES, actor)
    await _refuse(connection, RETIRED_VEHICLES)
    progress("assignments")
    await _run(connection, NEW_ASSIGNMENTS)
    await connection.execute("ANALYZE moving, assignment")
    await _run(connection, END_OLD)
    await _refuse(connection, IN_THE_WAY)
    done.assigned = await _count(connection, ASSIGN, actor)
    done.waiting = [row["device_number"] for row in await connection.fetch(WAITING)]
    if done.registered or done.changed:
        await connection.execute("SELECT pg_notify($1, '')", CHANNEL)
    return done


async def _run(connection: Connection, statement: str, *parameters: object) -> None:
    await connection.execute(statement, *parameters, timeout=limits.IMPORT_STATEMENT_S_MAX)


async def _count(connection: Connection, statement: str, actor: str) -> int:
    found: int = await connection.fetchval(statement, actor, timeout=limits.IMPORT_STATEMENT_S_MAX)
    return found


async def _refuse(connection: Connection, statement: str) -> None:
    """Raise Refused if the statement finds rows that cannot be."""
    found = await connection.fetch(statement, timeout=limits.IMPORT_STATEMENT_S_MAX)
    if found:
        raise Refused([Fault(row["line"], row["column"], row["fault"]) for row in found])
