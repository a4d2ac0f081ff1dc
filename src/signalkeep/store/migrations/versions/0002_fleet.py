"""The fleet: customers, vehicles, assignments, event names, erasure, and views for people. See 0002_fleet.sql."""

from __future__ import annotations

from signalkeep.store.migration_files import run_sql_beside

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_sql_beside(__file__)
