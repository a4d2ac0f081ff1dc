"""`doctor`: looks at everything that signalkeep needs, and says what it means and what to do.

It can be run at any time, before the first start and beside a running one, and it changes nothing. Its last word is one
line that says what an acknowledgement really means on this machine: which disk, which file system, synced how, and what
PostgreSQL does with the rows. Exit code 1 only if something would keep signalkeep from working safely.
"""

from __future__ import annotations

import ctypes
import platform
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil
import typer

from signalkeep import __version__, config, limits
from signalkeep.cli.common import ConfigOption, DataOption, JsonOption, out, print_json, print_rows
from signalkeep.cli.doctor_broker import check_broker
from signalkeep.cli.doctor_database import Server, check_database
from signalkeep.cli.doctor_disk import (
    Check,
    SyncTest,
    check_directory,
    check_file_system,
    check_space,
    check_sync,
    try_sync,
)
from signalkeep.clock import Clock, SystemClock
from signalkeep.config import Settings
from signalkeep.disks import Mount, existing, mount_of
from signalkeep.errors import EnvironmentFault, SettingsError
from signalkeep.roles import RoleState, running_roles
from signalkeep.store.notes import last_backup
from signalkeep.store.postgres import dsn_of

LIBRARIES: Final = ("asyncpg", "msgspec", "psutil", "pydantic", "sqlalchemy", "uvloop")
YEARS: Final = range(2025, 2100)
TIMESYNC: Final = Path("/run/systemd/timesync/synchronized")
TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronised
FILES_SPARE: Final = 200  # what a gateway opens besides connections
DURABILITY: Final = "durability"


def doctor(data: DataOption = None, config_file: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check everything signalkeep needs; exit code 1 if anything would keep it from working safely."""
    checks = list(examine(data, config_file, SystemClock()))
    if as_json:
        print_json(checks)
    else:
        rows = [
            {"check": c.check, "result": c.result, "found": c.found, "what to do": c.advice}
            for c in checks
            if c.check != DURABILITY
        ]
        print_rows(rows, ("check", "result", "found", "what to do"), as_json=False, empty="")
        for check in checks:
            if check.check == DURABILITY:
                out.print(f"\n{check.found}", markup=False)
    if any(check.result == "fail" for check in checks):
        raise typer.Exit(1)


def examine(data: Path | None, config_file: Path | None, clock: Clock) -> Iterator[Check]:
    """All checks, in the order in which a start would meet them."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    yield Check("versions", "ok", f"signalkeep {__version__}, Python {platform.python_version()}, {libraries}")
    yield check_clock(clock, clock_synchronised())
    try:
        settings = config.load(data, config_file)
        dsn_of(settings)
    except SettingsError as error:
        yield Check("settings", "fail", error.message, error.hint)
        return
    except EnvironmentFault as fault:
        yield Check("database address", "fail", fault.message, fault.hint)
        return
    yield Check("settings", "ok", f"data in {settings.data}")
    place = existing(settings.journal_root)
    mount, sync = mount_of(place), try_sync(place)
    yield check_directory(settings.data, place)
    yield check_file_system("file system", place, mount)
    yield check_sync(place, sync)
    yield check_space(settings, psutil.disk_usage(str(place)).free)
    yield check_open_files(settings, files_allowed(settings))
    yield from check_ports(settings)
    server = None
    for found in check_database(settings, clock):
        if isinstance(found, Server):
            server = found
        else:
            yield found
    if settings.broker.enabled:
        yield check_broker(settings)
    yield check_backup(settings, clock)
    yield Check(DURABILITY, "ok", durability(mount, sync, server))


def durability(mount: Mount, sync: SyncTest, server: Server | None) -> str:
    """What an acknowledgement means here, in one line."""
    took = "which FAILED just now" if sync.took_ms is None else f"{sync.took_ms:.1f} ms"
    rows = f"PostgreSQL {server.durability}" if server else "PostgreSQL does not answer now, so nothing is known of it"
    return f"An acknowledgement means: on the {mount.described}, synced with {sync.how} ({took}); rows: {rows}."


def check_clock(clock: Clock, synchronised: bool | None) -> Check:
    now = clock.now()
    if now.year not in YEARS:
        return Check(
            "clock",
            "fail",
            f"the clock says {now:%Y-%m-%d}",
            "Set it and keep it right (NTP): received_at comes from it.",
        )
    found = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if synchronised is False:
        return Check(
            "clock",
            "warn",
            f"{found}, not synchronised with anything",
            "Run a time service (systemd-timesyncd, chrony): received_at comes from this clock.",
        )
    return Check("clock", "ok", f"{found}, synchronised" if synchronised else found)


def clock_synchronised() -> bool | None:
    """Whether a time service keeps the clock; None where the system does not say."""
    if TIMESYNC.exists():
        return True
    if not sys.platform.startswith("linux"):
        return None
    with suppress(OSError, AttributeError):
        answer = ctypes.create_string_buffer(512)  # a struct timex that asks for nothing: only the state comes back
        state = ctypes.CDLL(None).adjtimex(answer)
        return None if state < 0 else bool(state != TIME_ERROR)
    return None


def files_allowed(settings: Settings) -> int:
    """Files that a gateway may have open: a running one, or one that this user would start here."""
    for state in running_roles(settings.run_root):
        if state.role == "gateway" and hasattr(psutil.Process, "rlimit"):
            with suppress(psutil.Error):
                return psutil.Process(state.pid).rlimit(psutil.RLIMIT_NOFILE)[0]
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # gateways raise theirs up to this


def check_open_files(settings: Settings, allowed: int) -> Check:
    wanted = settings.gateway.connections_max
    if allowed == resource.RLIM_INFINITY or allowed >= wanted + FILES_SPARE:
        return Check("open files", "ok", f"{wanted} connections are allowed for")
    return Check(
        "open files",
        "warn",
        f"a process may have {allowed}, gateway.connections_max is {wanted}",
        "Raise the limit (LimitNOFILE= of the unit, ulimit -n), or lower gateway.connections_max.",
    )


def check_ports(settings: Settings) -> Iterator[Check]:
    from signalkeep.gateway.listen import UDP_SUFFIX, probe_ports
    from signalkeep.monitor.server import probe_port

    states = running_roles(settings.run_root)
    held = {(name.endswith(UDP_SUFFIX), port): state for state in states for name, port in state.ports.items()}
    host = settings.gateway.host
    for name, port in settings.gateway.ports.items():
        yield _port(f"port {port} ({name})", held.get((False, port)), partial(probe_ports, host, {name: port}))
    for name, port in settings.gateway.served_udp().items():
        yield _port(f"UDP port {port} ({name})", held.get((True, port)), partial(probe_ports, host, {}, {name: port}))
    if settings.monitor.enabled:
        port = settings.monitor.port
        yield _port(f"port {port} (monitor)", held.get((False, port)), partial(probe_port, settings.monitor.host, port))


def _port(what: str, holder: RoleState | None, probe: Callable[[], None]) -> Check:
    if holder is not None:
        return Check(what, "ok", f"served by our {holder.role}, pid {holder.pid}")
    try:
        probe()
    except EnvironmentFault as fault:
        return Check(what, "fail", fault.message, fault.hint)
    return Check(what, "ok", "free")


def check_backup(settings: Settings, clock: Clock) -> Check:
    found = last_backup(settings)
    if found is None:
        return Check("backup", "warn", "none yet", "Make one, and go on making them: `signalkeep backup`.")
    age_s = (clock.now() - found.at).total_seconds()
    said = f"{found.path or 'somewhere'}, {found.at:%Y-%m-%d %H:%M} UTC"
    if age_s > limits.BACKUP_AGE_S_MAX:
        days = f"the last one is {age_s / 86400:.0f} days old"
        return Check("backup", "warn", f"{said}: {days}", "Make one, and see why none was made: `signalkeep backup`.")
    return Check("backup", "ok", said)
