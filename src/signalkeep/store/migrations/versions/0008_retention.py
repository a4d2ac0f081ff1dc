"""Retention: signals that are older than it allows go month by month, and the ledger says so.

The SQL stands in 0008_retention.sql.
"""

from __future__ import annotations

from signalkeep.store.migration_files import run_sql_beside

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    run_sql_beside(__file__)
