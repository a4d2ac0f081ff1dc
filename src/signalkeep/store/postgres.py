"""How signalkeep reaches PostgreSQL, and what an error from there means.

`connect` gives a connection that is known to be safe to acknowledge from: PostgreSQL 14 or newer, with
`fsync`, `synchronous_commit` and `full_page_writes` on, working in UTC, every wait bounded. Whatever keeps it
from connecting becomes `DatabaseUnavailable` with the address (never its password) and what to do. `classify`
sorts the errors of later work into the three things that ingest can do about them.

This module never retries, never writes, and never shows a password: not in a message, not in a log line.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import math
import os
import re
import stat
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import asyncpg
import msgspec

from signalkeep import limits
from signalkeep.config import PASSWORD_MASK, Settings
from signalkeep.errors import CallerError, DatabaseUnavailable, EnvironmentFault, UnsafeDatabase
from signalkeep.sections import DatabaseSettings

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Row: TypeAlias = asyncpg.Record

SERVER_VERSION_MIN: Final = 140_000
EMBEDDED_NAME: Final = "signalkeep"  # superuser and database of the embedded server
SOCKET_FILE: Final = ".s.PGSQL.5432"
SOCKET_PATH_BYTES_MAX: Final = 100  # sun_path holds 104 bytes on macOS, 108 on Linux, with a final zero
_FALLBACK_PARENT: Final = Path("/tmp")  # noqa: S108 - the same for every caller, whatever TMPDIR says; checked for its owner
_SAFE_QUERY_KEYS: Final = {"host", "port", "user", "dbname", "database", "sslmode", "target_session_attrs"}
_UNREADABLE: Final = "postgresql://(not shown: it cannot be read as a DSN)"
_EMBEDDED_PREFIX: Final = f"postgresql://{EMBEDDED_NAME}@/{EMBEDDED_NAME}?host="
_MUST_BE_ON: Final = ("fsync", "synchronous_commit", "full_page_writes")


# Where the database is


def dsn_of(settings: Settings) -> str:
    """The configured DSN, or that of the embedded server, which follows from the data directory alone."""
    return settings.database.resolved_dsn() or embedded_dsn(settings.data)


def embedded_dsn(data: Path) -> str:
    """The DSN of a data directory's embedded server. Raises EnvironmentFault if the socket is not its own."""
    directory = socket_directory(data)
    if directory.parent == _FALLBACK_PARENT:
        _refuse_planted(directory, data)
    return f"{_EMBEDDED_PREFIX}{quote(str(directory), safe='/')}&port=5432"  # a PGPORT must not divert it


def socket_directory(data: Path) -> Path:
    """Where the embedded server's socket lies: in the data directory, under /tmp if that path is too long.

    A comma also rules a path out: clients take it for the end of a host name.
    """
    inside = data.absolute() / "postgres" / "socket"
    if len(os.fsencode(inside / SOCKET_FILE)) <= SOCKET_PATH_BYTES_MAX and "," not in str(inside):
        return inside
    name = hashlib.blake2b(os.fsencode(data.resolve()), digest_size=8).hexdigest()
    return _FALLBACK_PARENT / f"signalkeep-{name}"


def _refuse_planted(directory: Path, data: Path) -> None:
    """Anyone can write to /tmp: a socket there is ours only if nobody else can have put it there."""
    try:
        found = directory.lstat()
    except FileNotFoundError:
        return
    owners = {os.geteuid()}
    for place in (data / "postgres").glob("[0-9]*"):
        owners.add(place.stat().st_uid)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners or found.st_mode & 0o077:
        raise EnvironmentFault(
            f"{directory} belongs to somebody else (uid {found.st_uid}) or is open to others",
            hint="The path of the data directory cannot hold a socket. Use a shorter one, or remove that "
            "directory if you know whose it is.",
        )


def redact(dsn: str) -> str:
    """The DSN as it may be shown. What cannot be taken apart for certain is not shown at all."""
    try:
        parts = urlsplit(dsn)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        return _UNREADABLE
    login, at, hosts = parts.netloc.rpartition("@")
    rest = parts.path + parts.query + parts.fragment
    if parts.scheme not in {"postgresql", "postgres"} or "@" in rest or not _plain_hosts(hosts):
        return _UNREADABLE
    user, colon, _ = login.partition(":")
    login = f"{user}:{PASSWORD_MASK}" if colon else user
    shown = [(key, value if key in _SAFE_QUERY_KEYS else PASSWORD_MASK) for key, value in pairs]
    query = f"?{urlencode(shown, safe='/*')}" if shown else ""
    return f"{parts.scheme}://{login}{at}{hosts}{parts.path}{query}"


def _plain_hosts(hosts: str) -> bool:
    """Whether these are hosts with numeric ports: a password with a slash in it looks like a bad port."""
    return all(re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[\w.%-]*)(:\d*)?", host) for host in hosts.split(","))


# Connecting

_MISSED_SOON: Final = ", ".join(
    f"set_config('{name}', '{value}', false)"
    for name, value in (
        ("tcp_keepalives_idle", limits.KEEPALIVE_IDLE_S),
        ("tcp_keepalives_interval", limits.KEEPALIVE_INTERVAL_S),
        ("tcp_keepalives_count", limits.KEEPALIVE_PROBES),
    )
)


async def connect(dsn: str, *, application: str, settings: DatabaseSettings) -> Connection:
    """A checked connection. `application` is the name that pg_stat_activity shows.

    Raises DatabaseUnavailable (try again later), UnsafeDatabase (it would lose confirmed rows) or CallerError
    (the DSN makes no sense, PostgreSQL is too old).
    """
    try:
        connection: Connection = await asyncpg.connect(
            dsn,
            timeout=limits.DATABASE_CONNECT_S_MAX,
            command_timeout=limits.DATABASE_COMMAND_S_MAX,
            server_settings={"application_name": application, "timezone": "UTC"},
        )
    except (OSError, asyncpg.PostgresError, asyncpg.InternalClientError) as error:
        raise _unavailable(dsn, error) from error
    except (ValueError, asyncpg.InterfaceError):
        # The driver's own message can quote a piece of the password, so it is neither shown nor chained.
        raise CallerError(
            "the database DSN cannot be understood",
            hint="It looks like postgresql://user:password@host:5432/database; special characters of the "
            "password are written as %XX.",
        ) from None
    try:
        async with asyncio.timeout(limits.DATABASE_CONNECT_S_MAX):
            await _prepare(connection, dsn, settings)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        connection.terminate()
        raise _unavailable(dsn, error) from error
    except BaseException:
        connection.terminate()
        raise
    return connection


async def close_when_silent(connection: Connection, silent_s: float, *, only_in_transaction: bool = False) -> None:
    """Let PostgreSQL close the connection, and so free what it locks, when nothing was asked over it for so long.

    A process that is frozen keeps its connections, and would keep everybody else waiting for as long as it is.
    """
    after_ms = math.ceil(silent_s * 1000)
    await connection.execute(f"SET idle_in_transaction_session_timeout = {after_ms}")
    if not only_in_transaction:
        await connection.execute(f"SET idle_session_timeout = {after_ms}")


async def _prepare(connection: Connection, dsn: str, settings: DatabaseSettings) -> None:
    """Refuse what is too old or unsafe, then teach the connection jsonb.

    The server shall miss us soon when our machine has gone without a word: what we had locked is for others then.
    """
    row = await connection.fetchrow(
        "SELECT current_setting('server_version_num')::integer AS version,"
        " current_setting('server_version') AS version_name, current_setting('fsync') AS fsync,"
        " current_setting('synchronous_commit') AS synchronous_commit,"
        " current_setting('full_page_writes') AS full_page_writes, " + _MISSED_SOON
    )
    assert row is not None, "a SELECT without FROM gives one row"
    if row["version"] < SERVER_VERSION_MIN:
        raise CallerError(
            f"{redact(dsn)} is PostgreSQL {row['version_name']}; signalkeep needs 14 or newer",
            hint="Upgrade the server, or leave database.dsn empty to use the embedded one.",
        )
    off = [name for name in _MUST_BE_ON if row[name] == "off"]
    if off and not settings.allow_unsafe:
        raise UnsafeDatabase(
            f"{redact(dsn)} runs with {', '.join(off)} off: it can lose rows that it has confirmed",
            hint="Switch it on at the server. Only for tests: database.allow_unsafe = true.",
        )
    # Binary, because COPY takes nothing else. The first byte is the version of jsonb's wire form.
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=_encode_jsonb, decoder=_decode_jsonb, format="binary"
    )


class JsonText:
    """A value of jsonb that is written already."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text


def _encode_jsonb(value: Any) -> bytes:
    return b"\x01" + (value.text if type(value) is JsonText else msgspec.json.encode(value))


def _decode_jsonb(value: bytes) -> Any:
    return msgspec.json.decode(value[1:])


def _unavailable(dsn: str, error: BaseException) -> DatabaseUnavailable:
    code = sqlstate(error)
    reason = str(error).splitlines()[0] if str(error) else "no answer in time"
    return DatabaseUnavailable(f"cannot use PostgreSQL at {redact(dsn)}: {reason}", hint=_hint(dsn, code, error))


def _hint(dsn: str, code: str, error: BaseException) -> str:
    if is_embedded(dsn) and isinstance(error, OSError):
        return "The embedded server is not running: start it with `signalkeep run`."
    if code == "57P03":
        return "PostgreSQL is starting up or shutting down; wait a moment."
    if code.startswith("28"):
        return "PostgreSQL refused the login: check user and password in database.dsn, and its pg_hba.conf."
    if code == "3D000":
        return "Create the database, or correct its name in database.dsn."
    if code.startswith("53"):
        return "PostgreSQL is out of connections, memory or disk; its log says which."
    return "Check database.dsn, and that the server runs and can be reached; `signalkeep doctor` looks closer."


def is_embedded(dsn: str) -> bool:
    """Whether this DSN is one of `embedded_dsn`."""
    return dsn.startswith(_EMBEDDED_PREFIX)


# What an error means


class Fault(enum.Enum):
    """What ingest has to do about a failed batch."""

    DATA = "data"  # a row cannot be stored: bisect, quarantine it
    MISSING_PARTITION = "missing_partition"  # make the partition, try again
    TRANSIENT = "transient"  # nothing wrong with the rows: try again until it works


def classify(error: BaseException) -> Fault:
    """Sort an error raised by work on a connection.

    SQLSTATE classes 22 (data), 23 (integrity) and 54 (program limit), and what the driver could not even
    encode, are about the rows. Everything else, a bug of ours included, says nothing against them.
    """
    if isinstance(error, asyncpg.PostgresError):
        code = error.sqlstate or ""
        if code == "23514" and _is_missing_partition(error):
            return Fault.MISSING_PARTITION
        return Fault.DATA if code[:2] in {"22", "23", "54"} else Fault.TRANSIENT
    return Fault.DATA if _is_encoding_error(error) else Fault.TRANSIENT


def sqlstate(error: BaseException) -> str:
    """The SQLSTATE; 22000 for a value that the driver could not encode; '' if there is none."""
    if isinstance(error, asyncpg.PostgresError):
        return error.sqlstate or ""
    return "22000" if _is_encoding_error(error) else ""


def is_duplicate_key(error: BaseException) -> bool:
    """Whether a row has the key of one that is there."""
    return isinstance(error, asyncpg.UniqueViolationError)


def _is_missing_partition(error: asyncpg.PostgresError) -> bool:
    """A failed CHECK has the same SQLSTATE. Messages can be translated, so the server's function decides."""
    if error.constraint_name is not None:
        return False
    return error.server_source_function == "ExecFindPartition" or error.message.startswith("no partition of relation")


def _is_encoding_error(error: BaseException) -> bool:
    """COPY lets the encoders' own errors through. A ValueError or TypeError of other code is a bug."""
    if isinstance(error, (OverflowError, UnicodeEncodeError)):
        return True
    if not isinstance(error, (ValueError, TypeError)):
        return False
    return _passed_through_driver(error.__traceback__)


def _passed_through_driver(trace: TracebackType | None) -> bool:
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] == "asyncpg":
            return True
        trace = trace.tb_next
    return False
