"""The database schema: which version it has, and bringing it to ours.

The schema is a chain of Alembic revisions in `migrations/versions`, applied in one transaction: all of it or
nothing. Any number of starters may call `ensure_schema` at once; one works, the others wait and find it done.
The usual case, an up-to-date schema, costs two queries and imports neither SQLAlchemy nor Alembic.

A schema is never taken back to an older version, and one made by a newer signalkeep is never touched.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg

from signalkeep import limits
from signalkeep.errors import CallerError, DatabaseUnavailable, SignalkeepError
from signalkeep.sections import DatabaseSettings
from signalkeep.store.postgres import Connection, connect, redact, sqlstate

if TYPE_CHECKING:
    import sqlalchemy

REVISIONS: Final = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")  # every revision, oldest first
HEAD: Final = REVISIONS[-1]
_APPLICATION: Final = "signalkeep schema"
_LOCK: Final = 0x73_6B_73_63  # advisory lock: one starter migrates at a time


async def schema_version(connection: Connection) -> str | None:
    """The revision that the database has; None: it has no schema of ours."""
    if await connection.fetchval("SELECT to_regclass('alembic_version') IS NULL"):
        return None
    version: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    return version


async def ensure_schema(dsn: str, settings: DatabaseSettings) -> bool:
    """Bring the schema to HEAD; True if there was anything to do.

    Raises CallerError if the schema is newer than this signalkeep, or cannot be made in this database.
    """
    connection = await connect(dsn, application=_APPLICATION, settings=settings)
    try:
        if not _is_outdated(await schema_version(connection), dsn):
            return False
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK, timeout=limits.MIGRATION_S_MAX)
        if not _is_outdated(await schema_version(connection), dsn):
            return False
        await _upgrade(dsn, settings)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise _explain(dsn, error) from error
    finally:
        await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)  # gives up the lock
    return True


def _is_outdated(version: str | None, dsn: str) -> bool:
    if version is not None and version not in REVISIONS:
        raise CallerError(
            f"the schema of {redact(dsn)} has version {version}; this signalkeep knows it up to {HEAD}",
            hint="It was made by a newer signalkeep: install that version or a later one.",
        )
    return version != HEAD


async def _upgrade(dsn: str, settings: DatabaseSettings) -> None:
    """Run the missing revisions in one transaction."""
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect(dsn, application=_APPLICATION, settings=settings),
        poolclass=NullPool,
    )
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_run_revisions)
    except DBAPIError as error:
        cause = error.orig.__cause__ if error.orig is not None else None
        raise _explain(dsn, cause or error) from error
    finally:
        await engine.dispose()


def _run_revisions(connection: sqlalchemy.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _explain(dsn: str, error: BaseException) -> SignalkeepError:
    """What keeps the schema from being made, and whether waiting helps."""
    code = sqlstate(error)
    message = f"the schema cannot be made in {redact(dsn)}: {str(error).splitlines()[0] if str(error) else code}"
    if code == "42P07":
        return CallerError(message, hint="Give signalkeep a database of its own: this one holds other tables.")
    if code == "42501":
        return CallerError(message, hint="Let the user of the DSN create tables: make it the database's owner.")
    return DatabaseUnavailable(message, hint="Nothing was changed. Look at PostgreSQL's log, then try again.")


async def connect_migrated(dsn: str, *, application: str, settings: DatabaseSettings) -> Connection:
    """A connection to a database that has a schema; DatabaseUnavailable as long as nobody has made it."""
    connection = await connect(dsn, application=application, settings=settings)
    if await schema_version(connection) is None:
        await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)
        raise DatabaseUnavailable("the database has no schema yet", hint="Ingest or `signalkeep migrate` makes it.")
    return connection
