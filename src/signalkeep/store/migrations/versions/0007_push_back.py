"""Push-back: when quarantined records were tried, and what replays did. The SQL stands in 0007_push_back.sql."""

from __future__ import annotations

from signalkeep.store.migration_files import run_sql_beside

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run_sql_beside(__file__)
