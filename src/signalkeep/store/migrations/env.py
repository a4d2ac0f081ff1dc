"""What Alembic runs: the missing revisions, on the connection and in the transaction of `store/schema.py`.

It never opens a connection of its own and never commits: schema.py does, for all revisions together.
"""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], transaction_per_migration=False)
context.run_migrations()
