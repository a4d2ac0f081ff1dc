"""The fleet's schema: an older database keeps its rows, views read what they must, readers may read and no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from signalkeep.store import schema
from signalkeep.store.events import WORDS
from signalkeep.store.partitions import ensure_partitions
from signalkeep.store.postgres import Connection, connect
from signalkeep.store.readers import READER, grant_reader, reader_problem
from signalkeep.store.schema import HEAD, ensure_schema, schema_version
from tests.servers import SETTINGS, PostgresServer, connected

pytestmark = pytest.mark.servers

SPINE = (Path(schema.__file__).parent / "migrations/versions/0001_spine.sql").read_text(encoding="utf-8")
FILL_SPINE = """
CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
INSERT INTO alembic_version VALUES ('0001');
INSERT INTO device (device_number, status) VALUES ('1', 'active'), ('2', 'unknown');
INSERT INTO device_state (device_id, records, stored, quarantined, quarantine_open, latitude)
    VALUES (1, 2, 1, 1, 1, 38), (2, 0, 0, 0, 0, NULL);
INSERT INTO journal (uuid, host, directory, lanes) VALUES ('00000000-0000-0000-0000-000000000001', 'h', '/', 1);
INSERT INTO cursor (journal_id, lane, seq, frames) VALUES (1, 0, 2, 2);
INSERT INTO ledger (journal_id, device_id, records, stored, quarantined, key_xor) VALUES (1, 1, 2, 1, 1, 5);
CREATE TABLE signal_2026_05 (LIKE signal INCLUDING ALL);
ALTER TABLE signal ATTACH PARTITION signal_2026_05 FOR VALUES FROM ('2026-05-01+00') TO ('2026-06-01+00');
INSERT INTO signal
    (device_id, wire_time, digest, received_at, fix_valid, attributes, protocol, journal_id, seq, record_no)
    VALUES (1, '2026-05-02+00', 5, '2026-05-02+00', true, '{}', 'json', 1, 1, 0);
INSERT INTO quarantine_frame (journal_id, seq, device_id, received_at, protocol, peer, context, raw)
    VALUES (1, 2, 1, '2026-05-02+00', 'json', 'p', '{}', 'x');
INSERT INTO quarantine (frame_id, record_no, device_id, wire_time, digest, journal_id, seq, received_at, reason, raw)
    VALUES (1, 0, 1, '2026-05-02+00', 6, 1, 2, '2026-05-02+00', 'future', 'x');
INSERT INTO refusal VALUES (1, 'checksum', 3, now());
INSERT INTO finding (kind, subject, detail) VALUES ('k', 's', 'd');
INSERT INTO audit_log (actor, action, subject) VALUES ('a', 'b', 'c');
"""
MAY = datetime(2026, 5, 1, tzinfo=UTC)


async def everything(connection: Connection, columns: dict[str, list[str]] | None = None) -> dict[str, list[Any]]:
    """Every row of every table, of these columns or of all."""
    tables = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
    )
    found = {}
    for (name,) in tables:
        if columns is None or name in columns:
            wanted = ", ".join(columns[name]) if columns else "*"
            rows = await connection.fetch(
                f"SELECT {wanted} FROM {name} ORDER BY 1, 2" if name != "alembic_version" else "SELECT 1 AS x"
            )
            found[name] = [dict(row) for row in rows]
    return found


async def test_a_database_of_the_first_version_keeps_every_row(postgres_server: PostgresServer) -> None:
    dsn = await postgres_server.create_database(migrated=False)
    async with connected(dsn) as connection:
        await connection.execute(SPINE)
        await connection.execute(FILL_SPINE)
        before = await everything(connection)
        assert all(before.values()), f"a table without rows: {before}"
        columns = {name: list(rows[0]) for name, rows in before.items() if name != "alembic_version"}
        assert await ensure_schema(dsn, SETTINGS) is True
        after = await everything(connection, columns)
        assert after == {name: rows for name, rows in before.items() if name in columns}
        assert await schema_version(connection) == HEAD
        assert await connection.fetchval("SELECT suppressed + erased + erased_quarantine FROM ledger") == 0
        assert await connection.fetchval("SELECT latitude FROM signal_latest WHERE device_number = '1'") == 38


# Constraints


async def test_assignments_never_overlap(connection: Connection) -> None:
    await connection.execute(
        "INSERT INTO device (device_number) VALUES ('1'), ('2'); INSERT INTO vehicle (name) VALUES ('a'), ('b');"
        "INSERT INTO assignment (device_id, vehicle_id, begins_at, ends_at) VALUES (1, 1, '2026-01-01', '2026-02-01')"
    )
    add = "INSERT INTO assignment (device_id, vehicle_id, begins_at, ends_at, alongside) VALUES ($1, $2, $3, $4, $5)"
    january, february = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    moment = timedelta(microseconds=1)
    for values in (
        (1, 2, february - moment, None, False),
        (1, 2, None, january + moment, True),
        (2, 1, None, None, False),
    ):
        with pytest.raises(asyncpg.ExclusionViolationError):
            await connection.execute(add, *values)
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(add, 1, 1, february, february, False)
    await connection.execute(add, 1, 1, february, None, False)
    await connection.execute(add, 2, 1, None, None, True)


# Views


@pytest.fixture
async def fleet(connection: Connection) -> Connection:
    """Five devices, four months; device 1 was in the van until May 10 noon, device 2 from then on."""
    await ensure_partitions(connection, [(2026, month) for month in (3, 4, 5, 6)])
    await connection.execute(
        """
        INSERT INTO device (device_number, status) SELECT n::text, 'active' FROM generate_series(1, 5) n;
        INSERT INTO device_state (device_id) SELECT id FROM device;
        INSERT INTO journal (uuid, host, directory, lanes) VALUES (gen_random_uuid(), 'h', '/', 1);
        INSERT INTO signal (device_id, wire_time, digest, device_time, received_at, fix_valid, latitude, longitude,
                            attributes, protocol, journal_id, seq, record_no)
        SELECT d, t, 1, t, t, true, 38, 23, '{}', 'json', 1, 1, 0
        FROM generate_series(1, 5) d, generate_series('2026-03-01+00'::timestamptz, '2026-06-30+00', '20 min') t;
        INSERT INTO customer (name) VALUES ('Acme');
        INSERT INTO vehicle (name, customer_id) VALUES ('van', 1), ('truck', NULL);
        INSERT INTO assignment (device_id, vehicle_id, begins_at, ends_at) VALUES
            (1, 1, NULL, '2026-05-10 12:00+00'), (2, 1, '2026-05-10 12:00+00', NULL), (3, 2, NULL, NULL);
        """
    )
    await connection.execute("ANALYZE")
    return connection


async def test_a_track_goes_through_assignments_at_the_moment_of_each_position(fleet: Connection) -> None:
    rows = await fleet.fetch(
        "SELECT device_number, min(device_time) AS first, max(device_time) AS last, count(*) AS n, "
        "max(customer_name) AS customer FROM vehicle_track WHERE vehicle_name = 'van' "
        "AND device_time >= '2026-05-10+00' AND device_time < '2026-05-11+00' GROUP BY 1 ORDER BY 1"
    )
    noon = datetime(2026, 5, 10, 12, tzinfo=UTC)
    assert [(row["device_number"], row["n"], row["customer"]) for row in rows] == [("1", 36, "Acme"), ("2", 36, "Acme")]
    assert rows[0]["last"] < noon == rows[1]["first"]


def nodes(plan: Any) -> Iterator[dict[str, Any]]:
    if isinstance(plan, dict):
        if "Node Type" in plan:
            yield plan
        for value in plan.values():
            yield from nodes(value)
    elif isinstance(plan, list):
        for item in plan:
            yield from nodes(item)


@pytest.mark.parametrize("view", ["vehicle_track", "signal_event"])
async def test_a_vehicles_day_reads_one_month_by_an_index(fleet: Connection, view: str) -> None:
    plan = await fleet.fetchval(
        f"EXPLAIN (FORMAT JSON) SELECT * FROM {view} WHERE vehicle_name = 'van' "
        "AND device_time >= '2026-05-20+00' AND device_time < '2026-05-21+00' "
        "AND wire_time >= '2026-05-19+00' AND wire_time < '2026-05-22+00' ORDER BY device_time"
    )
    found = list(nodes(json.loads(plan) if isinstance(plan, str) else plan))
    reads = {node["Relation Name"]: node["Node Type"] for node in found if "signal_2" in node.get("Relation Name", "")}
    assert list(reads) == ["signal_2026_05"], reads
    assert reads["signal_2026_05"] != "Seq Scan"


async def test_the_latest_of_each_device_has_the_vehicle_of_now(fleet: Connection) -> None:
    rows = await fleet.fetch("SELECT device_number, vehicle_name, customer_name FROM signal_latest ORDER BY 1")
    assert [tuple(row) for row in rows] == [
        ("1", None, None),
        ("2", "van", "Acme"),
        ("3", "truck", None),
        ("4", None, None),
        ("5", None, None),
    ]


async def test_good_positions_have_a_fix_a_place_and_a_time(fleet: Connection) -> None:
    moment = MAY + timedelta(minutes=1)
    for number, change in enumerate(("fix_valid = false", "latitude = 91", "longitude = -181", "device_time = NULL")):
        at = moment + timedelta(seconds=number)
        await fleet.execute(
            "INSERT INTO signal SELECT device_id, $1, 1, $1, received_at, fix_valid, latitude, longitude, altitude_m, "
            "speed_kmh, course_deg, satellites, event_code, attributes, flags, protocol, journal_id, seq, record_no "
            "FROM signal WHERE device_id = 1 AND wire_time = '2026-05-01+00'",
            at,
        )
        await fleet.execute(f"UPDATE signal SET {change} WHERE wire_time = $1", at)
    assert await fleet.fetchval("SELECT count(*) FROM signal_good WHERE wire_time BETWEEN $1 AND $2", moment, at) == 0


@pytest.mark.parametrize(
    ("protocol", "code", "attributes", "event"),
    [
        ("json", "7000", {}, "ignition_on"),
        ("json", "4002", {}, None),
        ("json", "4002", {"alarm": "sos"}, "sos"),
        ("json", None, {"alarm": "tow"}, "tow"),
        ("teltonika", "239", {"ignition": True}, "ignition_on"),
        ("teltonika", "239", {"ignition": False}, "ignition_off"),
        ("teltonika", "246", {"towing": 0}, "tow_end"),
        ("teltonika", "175", {"auto_geofence": 1, "alarm": "geofence"}, "geofence_enter"),
        ("teltonika", "155", {"io155": 0}, "geofence_exit"),
        ("teltonika", "252", {"unplugged": 0}, "power_restored"),
        ("teltonika", "253", {"green_driving_type": 2, "alarm": "hard_braking"}, "hard_braking"),
        ("teltonika", "253", {}, "harsh_driving"),
    ],
)
async def test_events_have_the_same_names_for_every_protocol(
    fleet: Connection, protocol: str, code: str | None, attributes: dict[str, Any], event: str | None
) -> None:
    await fleet.execute(
        "UPDATE signal SET protocol = $1, event_code = $2, attributes = $3 "
        "WHERE device_id = 2 AND wire_time = '2026-05-20+00'",
        protocol,
        code,
        attributes,
    )
    (row,) = await fleet.fetch("SELECT event, vehicle_name, device_number FROM signal_event")
    assert tuple(row) == (event, "van", "2")


async def test_every_seeded_name_is_one_of_the_words(connection: Connection) -> None:
    rows = await connection.fetch("SELECT name FROM event_format UNION SELECT end_name FROM event_format")
    assert {row["name"] for row in rows} - {None} <= set(WORDS)
    assert len(set(WORDS)) == len(WORDS)


# Readers


async def test_a_reader_may_read_everything_that_is_and_will_be_and_write_nothing(connection: Connection) -> None:
    assert await reader_problem(connection) == ""
    await ensure_partitions(connection, [(2026, 7)])
    await connection.execute(f"SET ROLE {READER}")
    for table in ("signal", "signal_2026_07", "signal_latest", "vehicle_track", "signal_event", "quarantine", "ledger"):
        await connection.fetch(f"SELECT * FROM {table}")
    for statement in ("DELETE FROM signal", "INSERT INTO customer (name) VALUES ('x')", "CREATE TABLE x (a int)"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


async def test_a_user_who_may_not_create_roles_gets_the_schema_and_a_word(postgres_server: PostgresServer) -> None:
    """The role of the cluster is there by then, so it is renamed for the time of the test."""
    await postgres_server.create_database()
    owner = "owner_without_rights"
    dsn = await postgres_server.create_database(migrated=False)
    name = dsn.partition("@/")[2].partition("?")[0]
    await postgres_server.execute(f"CREATE ROLE {owner} LOGIN")
    await postgres_server.execute(f"ALTER DATABASE {name} OWNER TO {owner}")
    await postgres_server.execute(f"ALTER ROLE {READER} RENAME TO hidden_reader")
    try:
        async with connected(dsn) as connection:
            await connection.execute(f"SET ROLE {owner}")
            await connection.execute(SPINE)
            await connection.execute((Path(schema.__file__).parent / "migrations/versions/0002_fleet.sql").read_text())
            problem = await reader_problem(connection)
            assert "CREATE ROLE signalkeep_reader NOLOGIN" in problem
            finding = await connection.fetchval("SELECT detail FROM finding WHERE kind = 'reader_role'")
            assert "may not create it" in finding
            assert "migrate" in await grant_reader(connection)
        await postgres_server.execute(f"ALTER ROLE hidden_reader RENAME TO {READER}")
        async with connected(dsn) as connection:
            await connection.execute(f"SET ROLE {owner}")
            assert "may not read" in await reader_problem(connection)
            assert await grant_reader(connection) == ""
            assert await reader_problem(connection) == ""
            assert await connection.fetchval("SELECT count(*) FROM finding") == 0
    finally:
        async with connected(postgres_server.dsn) as connection:
            if await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'hidden_reader')"):
                await connection.execute(f"ALTER ROLE hidden_reader RENAME TO {READER}")


async def test_several_databases_of_a_cluster_share_the_role(postgres_server: PostgresServer) -> None:
    for _ in range(2):
        dsn = await postgres_server.create_database(migrated=False)
        assert await ensure_schema(dsn, SETTINGS) is True
        connection = await connect(dsn, application="tests", settings=SETTINGS)
        try:
            assert await reader_problem(connection) == ""
        finally:
            await connection.close()


async def test_a_table_that_is_not_for_readers_is_kept_from_them(connection: Connection) -> None:
    await connection.execute("CREATE TABLE secret (word text); COMMENT ON TABLE secret IS 'Words. Not for readers.';")
    assert await grant_reader(connection) == ""
    await connection.execute(f"SET ROLE {READER}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.fetch("SELECT * FROM secret")
    await connection.fetch("SELECT * FROM customer")
