"""Data quality: bits of rules in signal.flags, findings of devices, scores, marks of people, the talk's error types.

The SQL stands in 0005_quality.sql.
"""

from __future__ import annotations

from signalkeep.store.migration_files import run_sql_beside

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run_sql_beside(__file__)
