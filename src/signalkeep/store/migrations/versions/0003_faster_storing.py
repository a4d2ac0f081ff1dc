"""Faster storing: no foreign keys and one index less on signal, and the mark beyond which no twin can be.

The SQL stands in 0003_faster_storing.sql.
"""

from __future__ import annotations

from signalkeep.store.migration_files import run_sql_beside

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_sql_beside(__file__)
