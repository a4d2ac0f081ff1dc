"""Makes the data directory of a new embedded server: initdb with the options that signalkeep relies on.

UTF-8 with the C locale, so that an upgrade of the system's libraries never changes the order of an index; data
checksums; no login over the network. The caller decides where it goes and when it gets its name.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from signalkeep import limits
from signalkeep.errors import EnvironmentFault
from signalkeep.store.binaries import Account
from signalkeep.store.postgres import EMBEDDED_NAME

SAID_LINES: Final = 15
# Else the kernel finds gigabytes in its cache, left there by COPY, and writes them at once: for half a second each sync
# of the journal on the same disk waits behind them.
BACKEND_FLUSH_AFTER: Final = "1MB"

CONFIGURATION_MARK: Final = "# signalkeep: written once"
CONFIGURATION: Final = f"""
{CONFIGURATION_MARK}, when this server was made. Change what you like; where it listens is not set here.
shared_buffers = 128MB
max_connections = 100
max_wal_size = 2GB
wal_compression = on
backend_flush_after = {BACKEND_FLUSH_AFTER}
log_line_prefix = '%m [%p] %a '
timezone = 'UTC'
log_timezone = 'UTC'
"""


def make_cluster(programs: Path, work: Path, account: Account) -> Path:
    """A whole, synced data directory in `work`, which is ours and lets the account pass."""
    fresh = work / "data"
    fresh.mkdir(mode=0o700)
    give_to(work, account)
    if account.switch:
        os.chown(fresh, account.uid, account.gid)
    answer = account.run(
        programs / "initdb",
        *("-D", fresh, "-U", EMBEDDED_NAME, "-E", "UTF8", "--locale=C", "--data-checksums"),
        *("--auth-local=trust", "--auth-host=reject"),
        timeout_s=limits.POSTGRES_START_S_MAX,
    )
    if answer.returncode != 0:
        said = "\n".join((answer.stdout + answer.stderr).strip().splitlines()[-SAID_LINES:])
        raise EnvironmentFault(f"PostgreSQL could not be set up in {work.parent}:\n{said}")
    with (fresh / "postgresql.conf").open("a", encoding="utf-8") as configuration:
        configuration.write(CONFIGURATION)
        configuration.flush()
        os.fsync(configuration.fileno())
    return fresh


def give_to(work: Path, account: Account) -> None:
    """Let the account pass through a directory of ours."""
    if account.switch:
        os.chown(work, -1, account.gid)
        work.chmod(0o710)


def give_all_to(directory: Path, account: Account) -> None:
    """Make a whole tree the account's own, as PostgreSQL wants it."""
    for path in [directory, *directory.rglob("*")]:
        if account.switch:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
    directory.chmod(0o700)
