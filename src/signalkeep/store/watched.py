"""Asks a database that is watched one question, in a transaction that can change nothing. Never shows a password."""

from __future__ import annotations

import asyncpg

from signalkeep.errors import DatabaseUnavailable
from signalkeep.sections import DatabaseSettings
from signalkeep.store.postgres import connect


async def ask(dsn: str, sql: str, settings: DatabaseSettings) -> str:
    """Why the answer is not as it should be: no row, or a first value that is false or null; '' if it is.

    The caller bounds the time. Raises SignalkeepError.
    """
    watched = settings.model_copy(update={"allow_unsafe": True})  # no row of ours goes there
    connection = await connect(dsn, application="signalkeep watch", settings=watched)
    try:
        async with connection.transaction(readonly=True):
            row = await connection.fetchrow(sql)
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseUnavailable((str(error).splitlines() or ["no answer"])[0]) from error
    finally:
        connection.terminate()
    if row is None or len(row) == 0:
        return "the query gives no row"
    return f"the query gives {row[0]}" if row[0] is None or row[0] is False else ""
