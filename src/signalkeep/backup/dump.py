"""A database as a dump: for servers that are not ours, whose files we cannot copy. And a dump made a database again.

A dump keeps the values of `xid8` columns, but they are numbers of the cluster it was made in. In another cluster they
may lie in the future: a stream, which resumes by what a snapshot shows, would hold such rows back and give them later,
out of order. So after loading they are moved into the past of the new cluster, in the order they had: the mapping is
monotone, and where there are fewer numbers than transactions, neighbours share one, which keeps the order by journal,
entry and record within it.

Loading is finished by one transaction that mends these columns, writes the version of the schema and removes the mark
of an unfinished load. Until then the database counts as having no schema that anybody can work with; interrupted, the
next try begins anew.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Final

from signalkeep import limits
from signalkeep.backup.programs import connection_of, run
from signalkeep.errors import CallerError
from signalkeep.sections import DatabaseSettings
from signalkeep.store.postgres import Connection, connect, redact
from signalkeep.store.readers import grant_reader

_MARK: Final = "signalkeep_restore_unfinished"
_VERSION_DATA: Final = re.compile(r"^\d+; .* TABLE DATA \S+ alembic_version ", flags=re.MULTILINE)

# Tables and views of ours, whoever owns them, views last.
_TABLES: Final = """
SELECT c.relname, CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END AS kind
FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY c.relkind IN ('v', 'm')
"""

# Functions of ours, by what they are called with.
_FUNCTIONS: Final = """
SELECT p.oid::regprocedure::text AS called FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
"""

# Every column that holds numbers of transactions. Partitions come with their parents.
_XID_COLUMNS: Final = """
SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND a.atttypid = 'xid8'::regtype AND NOT a.attisdropped ORDER BY c.relname, a.attname
"""

_XID_FIRST: Final = 3  # lower numbers have meanings of their own

# Where whoever follows the order of commits goes on in this cluster.
_SWEEP_EVERYTHING: Final = "DELETE FROM sweep WHERE name = 'quality'"
_ANNOUNCE_FROM_NOW: Final = """
UPDATE announced SET position = jsonb_build_object(
    'since', pg_current_snapshot()::text, 'until', NULL, 'place', '[0, 0, 0, -1]'::jsonb)
"""

# How the numbers found lie to those that this cluster has given out: all below `oldest_open` are done with.
_XIDS_FOUND: Final = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest_open,
       max(xid::text::bigint) AS highest, count(*) AS count FROM xid_found
"""

# Spreads them evenly over the numbers that are done with, in their order.
_MAPPING: Final = """
CREATE TEMPORARY TABLE xid_mended ON COMMIT DROP AS
SELECT xid, (3 + floor((row_number() OVER (ORDER BY xid) - 1) * {places}::numeric / {count}))::bigint::text::xid8
            AS mended
FROM xid_found
"""


async def dump(program: Path, dsn: str, target: Path) -> None:
    """Write a dump of the whole database, from one snapshot."""
    shown, environment = connection_of(dsn)
    await run(program, "-Fc", "--no-password", "-f", target, "-d", shown, environment=environment)


async def refuse_unless_empty(dsn: str, settings: DatabaseSettings) -> None:
    """Raises CallerError if the database holds anything but what an interrupted load has left."""
    connection = await connect(dsn, application="signalkeep restore", settings=settings)
    try:
        tables = [row["relname"] for row in await connection.fetch(_TABLES)]
        name = await connection.fetchval("SELECT current_database()")
    finally:
        await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)
    if tables and _MARK not in tables:
        raise CallerError(
            f"the database of {redact(dsn)} is not empty: it has the tables {', '.join(sorted(tables)[:5])}",
            hint="A restore never overwrites. Move it aside and make a new one, connected to the database postgres:\n"
            f'  ALTER DATABASE "{name}" RENAME TO "{name}_before_restore";\n  CREATE DATABASE "{name}";',
        )


async def load(program: Path, dsn: str, dumped: Path, *, schema: str, settings: DatabaseSettings) -> None:
    """Fill an empty database from a dump; what an interrupted load has left in it is cleared away first."""
    connection = await connect(dsn, application="signalkeep restore", settings=settings)
    try:
        if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", _MARK):
            await _clear(connection)
        await connection.execute(f"CREATE TABLE {_MARK} ()")
        await _fill(program, dsn, dumped)
        async with connection.transaction():
            await mend_xids(connection)
            await begin_positions_anew(connection)
            await connection.execute("INSERT INTO alembic_version (version_num) VALUES ($1)", schema)
            await connection.execute(f"DROP TABLE {_MARK}")
        if await connection.fetchval("SELECT to_regproc('signalkeep_grant_reader') IS NOT NULL"):
            await grant_reader(connection)  # rights are not in the dump: roles belong to a cluster
    finally:
        await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)


async def _fill(program: Path, dsn: str, dumped: Path) -> None:
    """pg_restore of everything but the version of the schema: without it nobody takes the database for whole."""
    shown, environment = connection_of(dsn)
    contents = await run(program, "-l", dumped)
    with tempfile.NamedTemporaryFile("w", prefix="signalkeep-", suffix=".list") as listing:
        listing.write(_VERSION_DATA.sub(lambda found: f";{found[0]}", contents))
        listing.flush()
        await run(
            program,
            *("--no-owner", "--no-privileges", "--exit-on-error", "--no-password", "-L", listing.name),
            *("-d", shown, dumped),
            environment=environment,
        )


async def _clear(connection: Connection) -> None:
    """Remove what an interrupted load has made: the database was empty before it."""
    for row in await connection.fetch(_TABLES):
        await connection.execute(f'DROP {row["kind"]} IF EXISTS "{row["relname"]}" CASCADE')
    for row in await connection.fetch(_FUNCTIONS):
        await connection.execute(f"DROP FUNCTION IF EXISTS {row['called']} CASCADE")


async def begin_positions_anew(connection: Connection) -> None:
    """Places in the order of commits are another cluster's: in this one, what is new could lie before them for long.

    The sweep of quality, which may judge a day as often as it likes, begins with everything. Applications are told what
    is committed from now on.
    """
    for table, statement in (("sweep", _SWEEP_EVERYTHING), ("announced", _ANNOUNCE_FROM_NOW)):
        if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", table):  # older dumps have neither
            await connection.execute(statement)


async def mend_xids(connection: Connection) -> int:
    """Move numbers of transactions that lie in this cluster's future into its past; how many there were, distinct.

    In a transaction. Nothing happens if there is none in the future.
    """
    columns = [(row["relname"], row["attname"]) for row in await connection.fetch(_XID_COLUMNS)]
    if not columns:
        return 0
    parts = [f'SELECT "{column}" AS xid FROM "{table}"' for table, column in columns]  # noqa: S608 - our own columns
    every = " UNION ".join(parts)
    await connection.execute(
        f"CREATE TEMPORARY TABLE xid_found ON COMMIT DROP AS SELECT DISTINCT xid FROM ({every}) AS every",  # noqa: S608 - our own columns
        timeout=limits.BACKUP_S_MAX,
    )
    row = await connection.fetchrow(_XIDS_FOUND)
    assert row is not None, "an aggregate without GROUP BY gives one row"
    if row["highest"] is None or row["highest"] < row["oldest_open"]:
        return 0
    await connection.execute(
        _MAPPING.format(places=row["oldest_open"] - _XID_FIRST, count=row["count"]), timeout=limits.BACKUP_S_MAX
    )
    for table, column in columns:
        await connection.execute(
            f'UPDATE "{table}" AS t SET "{column}" = m.mended FROM xid_mended m WHERE t."{column}" = m.xid',  # noqa: S608 - our own columns
            timeout=limits.BACKUP_S_MAX,
        )
    return int(row["count"])
