"""The spine: devices, signals, quarantine, journals and ledger. The SQL stands in 0001_spine.sql."""

from __future__ import annotations

from alembic import op

from signalkeep.store.migration_files import run_sql_beside

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("COMMENT ON TABLE alembic_version IS 'Which version of the schema this database has.'")
    op.execute("COMMENT ON COLUMN alembic_version.version_num IS 'the revision, see signalkeep doctor'")
    run_sql_beside(__file__)
