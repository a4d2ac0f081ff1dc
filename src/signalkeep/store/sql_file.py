"""Runs the SQL file that stands beside a revision of the schema, in the transaction of all revisions.

PostgreSQL gets the file as one simple query: it takes effect as a whole or not at all.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

from signalkeep import limits


def run_sql_beside(revision_file: str) -> None:
    """Run NAME.sql for the revision NAME.py."""
    sql = Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")
    adapted = op.get_bind().connection.dbapi_connection
    assert adapted is not None, "the transaction is open, so there is a connection"

    async def run(driver: object) -> None:
        assert driver.is_in_transaction(), "outside of it, half a schema could stay behind"  # type: ignore[attr-defined]  # asyncpg's connection, which SQLAlchemy does not type
        await driver.execute(sql, timeout=limits.MIGRATION_S_MAX)  # type: ignore[attr-defined]  # as above

    adapted.run_async(run)
