"""Between machines: how far relays have sent, what workers found missing, what is set aside, what was announced.

The SQL stands in 0004_broker.sql.
"""

from __future__ import annotations

from signalkeep.store.migration_files import run_sql_beside

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_sql_beside(__file__)
