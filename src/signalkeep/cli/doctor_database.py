"""What `doctor` finds out about PostgreSQL: programs, whether it syncs what it confirms, clock, disk and schema.

It only asks. What a user of the database may not know is left out, not guessed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from signalkeep import limits
from signalkeep.cli.common import run_async
from signalkeep.cli.doctor_disk import Check, check_file_system
from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.disks import existing, mount_of
from signalkeep.errors import SignalkeepError
from signalkeep.roles import running_roles
from signalkeep.store import binaries
from signalkeep.store.postgres import Connection, connect, dsn_of, redact
from signalkeep.store.readers import reader_problem
from signalkeep.store.schema import HEAD, REVISIONS, schema_version

MUST_BE_ON = ("fsync", "synchronous_commit", "full_page_writes")


class Server(msgspec.Struct, frozen=True):
    """What a server says of itself. `directory`: where its files are, if it seems to be on this machine and says so."""

    name: str
    settings: dict[str, str]
    schema: str | None
    ahead_s: float  # its clock, before ours
    asked_within_s: float  # and how exactly that is known
    directory: Path | None
    reader_problem: str  # why people may not query by the role that is there for them; empty: nothing

    @property
    def durability(self) -> str:
        """As in: fsync on, synchronous_commit on."""
        return ", ".join(f"{name.replace('data_checksums', 'data checksums')} {v}" for name, v in self.settings.items())


def check_database(settings: Settings, clock: Clock) -> Iterator[Check | Server]:
    """The programs of the embedded server, then the server that is there, then its schema. Gives the server, too."""
    if settings.embedded:
        try:
            folder = binaries.bin_directory(settings.database)
            major = binaries.major_version(folder, binaries.ourselves())
        except SignalkeepError as error:
            yield Check("PostgreSQL programs", "fail", error.message, error.hint)
            return
        yield Check("PostgreSQL programs", "ok", f"version {major} in {folder}")
        place = existing(settings.data / "postgres")
        yield check_file_system("database's file system", place, mount_of(place))
    try:
        server = run_async(look_at_server(settings, clock))
    except SignalkeepError as error:
        stopped = settings.embedded and not any(r.role == "supervisor" for r in running_roles(settings.run_root))
        yield Check("PostgreSQL", "warn" if stopped else "fail", error.message, error.hint)
        return
    yield check_server(server, dsn_of(settings))
    yield check_offset(server)
    if server.directory is not None and not settings.embedded and _is_here(server.directory):
        yield check_file_system("database's file system", server.directory, mount_of(server.directory))
    yield check_schema(server.schema)
    if server.reader_problem:
        yield Check("reading role", "warn", server.reader_problem, "Only for people who query by it.")
    yield server


async def look_at_server(settings: Settings, clock: Clock) -> Server:
    """Raises SignalkeepError."""
    connection = await connect(dsn_of(settings), application="signalkeep doctor", settings=settings.database)
    try:
        name = await connection.fetchval("SELECT current_setting('server_version')")
        rows = await connection.fetch(
            "SELECT name, setting FROM pg_settings WHERE name = ANY ($1::text[])", [*MUST_BE_ON, "data_checksums"]
        )
        found = {row["name"]: row["setting"] for row in rows}
        before_s, before = clock.monotonic(), clock.now()
        theirs: datetime = await connection.fetchval("SELECT clock_timestamp()")
        within_s = clock.monotonic() - before_s
        schema = await schema_version(connection)
        return Server(
            name=name,
            settings={name: found[name] for name in (*MUST_BE_ON, "data_checksums") if name in found},
            schema=schema,
            ahead_s=(theirs - before - timedelta(seconds=within_s / 2)).total_seconds(),
            asked_within_s=within_s,
            directory=await _directory_here(connection),
            reader_problem=await reader_problem(connection) if schema == HEAD else "",
        )
    finally:
        await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)


async def _directory_here(connection: Connection) -> Path | None:
    """None if the server is elsewhere, or this user may not know."""
    row = await connection.fetchrow(
        "SELECT host(inet_server_addr()) AS address,"
        " (SELECT setting FROM pg_settings WHERE name = 'data_directory') AS directory"
    )
    if row is None or not row["directory"]:
        return None
    if row["address"] is not None and not ipaddress.ip_address(row["address"]).is_loopback:
        return None
    return Path(row["directory"])


def _is_here(directory: Path) -> bool:
    """False in another container, or if we may not look."""
    try:
        return directory.is_dir()
    except OSError:
        return False


def check_server(server: Server, dsn: str) -> Check:
    found = f"{server.name} at {redact(dsn)}"
    off = [name for name in MUST_BE_ON if server.settings.get(name) == "off"]
    if off:
        return Check(
            "PostgreSQL", "warn", f"{found}, {', '.join(off)} off", "It can lose what it confirmed. Only for tests."
        )
    return Check("PostgreSQL", "ok", f"{found}, syncs what it confirms")


def check_offset(server: Server) -> Check:
    """Times of devices are compared with received_at, which is of our clock; now() in queries is of theirs."""
    found = f"the database's is {abs(server.ahead_s):.3f} s {'ahead' if server.ahead_s > 0 else 'behind'}"
    if abs(server.ahead_s) > limits.CLOCK_OFFSET_S_MAX + server.asked_within_s:
        return Check("clocks", "warn", found, "Keep both machines right (NTP): records carry times of both.")
    return Check("clocks", "ok", found)


def check_schema(found: str | None) -> Check:
    if found == HEAD:
        return Check("schema", "ok", f"version {found}")
    if found is None or found in REVISIONS:
        return Check(
            "schema",
            "warn",
            f"version {found}, this signalkeep has {HEAD}" if found else "none yet",
            "The next start brings it up to date; so does `signalkeep migrate`.",
        )
    return Check(
        "schema",
        "fail",
        f"version {found}, this signalkeep knows it up to {HEAD}",
        "Install the newer signalkeep.",
    )
