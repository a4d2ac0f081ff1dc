"""Runs the SQL file of a revision: the file that stands beside its Python file, under the same name.

PostgreSQL gets it as one simple query inside the transaction of all revisions: it takes effect as a whole or not at
all. There is no way back but a restored backup.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

from signalkeep import limits


def run_sql_beside(revision_file: str) -> None:
    """Execute the `.sql` of this revision's `.py`."""
    sql = Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")
    adapted = op.get_bind().connection.dbapi_connection
    assert adapted is not None, "the transaction is open, so there is a connection"

    async def run(driver: object) -> None:
        assert driver.is_in_transaction(), "outside of it, half a schema could stay behind"  # type: ignore[attr-defined]  # asyncpg's connection, which SQLAlchemy does not type
        await driver.execute(sql, timeout=limits.MIGRATION_S_MAX)  # type: ignore[attr-defined]  # as above

    adapted.run_async(run)
