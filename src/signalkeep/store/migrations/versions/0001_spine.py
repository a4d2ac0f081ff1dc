"""The spine: devices, signals, quarantine, journals and ledger. The SQL stands in 0001_spine.sql.

PostgreSQL gets the file as one simple query inside the transaction of all revisions: it takes effect as a
whole or not at all. There is no way back but a restored backup.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

from signalkeep import limits

revision = "0001"
down_revision = None


def upgrade() -> None:
    sql = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.execute("COMMENT ON TABLE alembic_version IS 'Which version of the schema this database has.'")
    op.execute("COMMENT ON COLUMN alembic_version.version_num IS 'the revision, see signalkeep doctor'")
    adapted = op.get_bind().connection.dbapi_connection
    assert adapted is not None, "the transaction is open, so there is a connection"

    async def run(driver: object) -> None:
        assert driver.is_in_transaction(), "outside of it, half a schema could stay behind"  # type: ignore[attr-defined]  # asyncpg's connection, which SQLAlchemy does not type
        await driver.execute(sql, timeout=limits.MIGRATION_S_MAX)  # type: ignore[attr-defined]  # as above

    adapted.run_async(run)
