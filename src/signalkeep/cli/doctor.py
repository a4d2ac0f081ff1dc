"""`doctor`: looks at everything that signalkeep needs, and says what it means and what to do.

It can be run at any time, before the first start and beside a running one. It changes nothing: the one file
that it writes, to see whether a sync works, has no name and is gone with the command.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

import msgspec
import psutil
import typer

from signalkeep import __version__, config, limits
from signalkeep.cli.common import ConfigOption, DataOption, JsonOption, print_json, print_rows, run_async
from signalkeep.clock import Clock, SystemClock
from signalkeep.config import Settings
from signalkeep.errors import EnvironmentFault, SettingsError, SignalkeepError
from signalkeep.roles import running_roles
from signalkeep.store import binaries
from signalkeep.store.postgres import connect, dsn_of, redact
from signalkeep.store.schema import HEAD, REVISIONS, schema_version

Outcome = Literal["ok", "warn", "fail"]

LIBRARIES: Final = ("asyncpg", "msgspec", "psutil", "pydantic", "sqlalchemy", "uvloop")
YEARS: Final = range(2025, 2100)
VOLATILE: Final = {"tmpfs", "ramfs", "devtmpfs"}
NETWORK: Final = {
    "nfs",
    "nfs3",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "afpfs",
    "webdav",
    "9p",
    "ceph",
    "glusterfs",
    "lustre",
}
SYNC_BYTES: Final = 4096


class Check(msgspec.Struct, frozen=True):
    """One thing looked at: what was found, and what to do unless it is well."""

    check: str
    result: Outcome
    found: str
    advice: str = ""


def doctor(data: DataOption = None, config_file: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check everything signalkeep needs; exit code 1 if anything would keep it from working safely."""
    checks = list(examine(data, config_file, SystemClock()))
    if as_json:
        print_json(checks)
    else:
        rows = [{"check": c.check, "result": c.result, "found": c.found, "what to do": c.advice} for c in checks]
        print_rows(rows, ("check", "result", "found", "what to do"), as_json=False, empty="")
    if any(check.result == "fail" for check in checks):
        raise typer.Exit(1)


def examine(data: Path | None, config_file: Path | None, clock: Clock) -> Iterator[Check]:
    """All checks, in the order in which a start would meet them."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    yield Check("versions", "ok", f"signalkeep {__version__}, Python {platform.python_version()}, {libraries}")
    yield check_clock(clock)
    try:
        settings = config.load(data, config_file)
        dsn = dsn_of(settings)
    except SettingsError as error:
        yield Check("settings", "fail", error.message, error.hint)
        return
    except EnvironmentFault as fault:
        yield Check("database address", "fail", fault.message, fault.hint)
        return
    yield Check("settings", "ok", f"data in {settings.data}")
    place = _existing(settings.journal_root)
    yield check_directory(settings.data, place)
    yield check_file_system(place, *file_system_of(place))
    yield check_sync(place)
    yield check_space(settings, psutil.disk_usage(str(place)).free)
    yield from check_ports(settings)
    yield from check_database(settings, dsn)


def check_clock(clock: Clock) -> Check:
    now = clock.now()
    if now.year in YEARS:
        return Check("clock", "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC")
    return Check(
        "clock",
        "fail",
        f"the clock says {now:%Y-%m-%d}",
        "Set it and keep it right (NTP): received_at comes from it.",
    )


def check_directory(data: Path, place: Path) -> Check:
    if not place.is_dir():
        return Check("data directory", "fail", f"{place} is not a directory", "Choose another with --data.")
    if not os.access(place, os.W_OK | os.X_OK):
        return Check(
            "data directory",
            "fail",
            f"no right to write to {place}",
            f"Give it to this user: chown USER {place}",
        )
    return Check("data directory", "ok", str(data) if data.exists() else f"{data} will be made at the first start")


def file_system_of(place: Path) -> tuple[str, str]:
    """Mount point and type of the file system that holds this path: of all mounts above it, the longest."""
    resolved = place.resolve()
    mounts = [
        (mount.mountpoint, mount.fstype)
        for mount in psutil.disk_partitions(all=True)
        if resolved.is_relative_to(mount.mountpoint)
    ]
    # A later mount on the same point hides an earlier one, and max() would keep the first.
    return max(reversed(mounts), key=lambda mount: len(Path(mount[0]).parts), default=("?", "unknown"))


def check_file_system(place: Path, mountpoint: str, fstype: str) -> Check:
    found = f"{fstype} at {mountpoint}, below {place}"
    kind = fstype.lower()
    if kind in VOLATILE:
        return Check("file system", "fail", found, "It is memory, lost with the power. Put the data on a disk.")
    if kind in NETWORK or kind.startswith("fuse."):
        return Check(
            "file system",
            "fail",
            found,
            "It does not promise that a sync is one. Put the data on a local disk.",
        )
    if kind == "overlay":
        return Check("file system", "warn", found, "It goes with the container. Mount a volume there.")
    return Check("file system", "ok", found)


def check_sync(place: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            os.write(file.fileno(), b"\0" * SYNC_BYTES)
            started = time.perf_counter()
            getattr(os, "fdatasync", os.fsync)(file.fileno())
            took_ms = (time.perf_counter() - started) * 1000
    except OSError as error:
        return Check(
            "sync",
            "fail",
            f"writing and syncing in {place}: {error.strerror}",
            "Nothing could be acknowledged.",
        )
    return Check("sync", "ok", f"{SYNC_BYTES} bytes on stable storage in {took_ms:.1f} ms")


def check_space(settings: Settings, free_bytes: int) -> Check:
    journal = settings.journal
    found = f"{free_bytes / limits.GIB:.1f} GiB free"
    if free_bytes < journal.disk_free_bytes:
        return Check(
            "disk space",
            "fail",
            f"{found}, journal.disk_free_bytes wants {journal.disk_free_bytes / limits.GIB:.1f}",
            "Free some: until then nothing is acknowledged.",
        )
    if free_bytes < journal.cap_bytes:
        return Check(
            "disk space",
            "warn",
            f"{found}, the journal may grow to {journal.cap_bytes / limits.GIB:.1f} GiB (journal.cap_bytes)",
            "With the database away for long, the disk fills first. Lower the cap or add space.",
        )
    return Check("disk space", "ok", found)


def check_ports(settings: Settings) -> Iterator[Check]:
    from signalkeep.gateway.listen import probe_ports

    held = {port: state for state in running_roles(settings.run_root) for port in state.ports.values()}
    udp = {f"{name}/udp": port for name, port in settings.gateway.served_udp().items()}
    for name, port in {**settings.gateway.ports, **udp}.items():
        what = f"port {port} ({name})"
        if port in held:
            yield Check(what, "ok", f"served by our {held[port].role}, pid {held[port].pid}")
            continue
        try:
            if name in udp:
                probe_ports(settings.gateway.host, {}, {name.removesuffix("/udp"): port})
            else:
                probe_ports(settings.gateway.host, {name: port})
        except EnvironmentFault as fault:
            yield Check(what, "fail", fault.message, fault.hint)
        else:
            yield Check(what, "ok", "free")


def check_database(settings: Settings, dsn: str) -> Iterator[Check]:
    """The programs of the embedded server, then the server that is there, then its schema."""
    if settings.embedded:
        try:
            folder = binaries.bin_directory(settings.database)
            major = binaries.major_version(folder, binaries.ourselves())
        except SignalkeepError as error:
            yield Check("PostgreSQL programs", "fail", error.message, error.hint)
            return
        yield Check("PostgreSQL programs", "ok", f"version {major} in {folder}")
    yield from run_async(_look_at_server(settings, dsn))


async def _look_at_server(settings: Settings, dsn: str) -> list[Check]:
    try:
        connection = await connect(dsn, application="signalkeep doctor", settings=settings.database)
    except SignalkeepError as error:
        stopped = settings.embedded and not any(r.role == "supervisor" for r in running_roles(settings.run_root))
        return [Check("PostgreSQL", "warn" if stopped else "fail", error.message, error.hint)]
    try:
        name = await connection.fetchval("SELECT current_setting('server_version')")
        off = await connection.fetch(
            "SELECT name FROM pg_settings WHERE setting = 'off'"
            " AND name IN ('fsync', 'synchronous_commit', 'full_page_writes')"
        )
        schema = await schema_version(connection)
    finally:
        await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)
    found = f"{name} at {redact(dsn)}"
    if off:
        names = ", ".join(row["name"] for row in off)
        server = Check("PostgreSQL", "warn", f"{found}, {names} off", "It can lose what it confirmed. Only for tests.")
    else:
        server = Check("PostgreSQL", "ok", f"{found}, syncs what it confirms")
    return [server, check_schema(schema)]


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


def _existing(path: Path) -> Path:
    """The path, or the nearest place above it that exists."""
    while not path.exists():
        path = path.parent
    return path
