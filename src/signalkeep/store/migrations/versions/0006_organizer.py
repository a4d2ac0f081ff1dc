"""Are devices well, are we working: incidents, what people were told, how services are.

The SQL stands in 0006_organizer.sql.
"""

from __future__ import annotations

from signalkeep.store.migration_files import run_sql_beside

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run_sql_beside(__file__)
