"""The role signalkeep_reader: people and BI tools that may read everything and change nothing.

It is made with the schema where the DSN's user may create roles; where not, a finding says what to do. A role belongs
to the whole cluster, so any number of databases share it; what it may read is granted in each. Nothing here raises for
a missing right: it is said in words.
"""

from __future__ import annotations

from typing import Final

from signalkeep.store.postgres import Connection

READER: Final = "signalkeep_reader"

# Whether the role is there, and whether it may read what was there first and what came last.
LOOK: Final = """
SELECT r.rolname IS NOT NULL AS there,
       coalesce(has_table_privilege(r.oid, 'signal', 'SELECT')
                AND has_table_privilege(r.oid, 'vehicle_track', 'SELECT'), false) AS may_read
FROM (SELECT) AS always LEFT JOIN pg_roles r ON r.rolname = $1
"""


async def reader_problem(connection: Connection) -> str:
    """What keeps the role from reading, with what to do; '' if nothing does. Changes nothing."""
    row = await connection.fetchrow(LOOK, READER)
    assert row is not None
    if row["may_read"]:
        return ""
    if row["there"]:
        return f"the role {READER} may not read this database; `signalkeep migrate` grants it"
    return f"there is no role {READER}; as a superuser: CREATE ROLE {READER} NOLOGIN; then run signalkeep migrate"


async def grant_reader(connection: Connection) -> str:
    """Make the role and let it read; what to do if that is not allowed, '' if all is well."""
    answer: str = await connection.fetchval("SELECT signalkeep_grant_reader()")
    return answer
