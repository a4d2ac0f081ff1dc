"""`psql`: PostgreSQL's own shell on signalkeep's database, wherever that is. Further arguments are psql's.

It becomes psql (exec), so that keys, pager and exit code are psql's. A password goes there in the environment,
never on the command line, where all users of the machine could read it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import typer

from signalkeep import config
from signalkeep.cli.common import ConfigOption, DataOption
from signalkeep.config import Settings
from signalkeep.errors import DatabaseUnavailable
from signalkeep.store.binaries import bin_directory
from signalkeep.store.postgres import SOCKET_FILE, dsn_of, socket_directory


def psql(
    args: Annotated[list[str] | None, typer.Argument(help="passed on to psql", show_default=False)] = None,
    data: DataOption = None,
    config_file: ConfigOption = None,
) -> None:
    """Open psql on the database: signalkeep psql, signalkeep psql -c 'SELECT count(*) FROM signal'."""
    settings = config.load(data, config_file)
    if settings.embedded and not (socket_directory(settings.data) / SOCKET_FILE).exists():
        raise DatabaseUnavailable(
            f"the embedded PostgreSQL of {settings.data} is not running",
            hint="Start it with `signalkeep run`.",
        )
    program = _program(settings)
    dsn, password = without_password(dsn_of(settings))
    environment = dict(os.environ, **({"PGPASSWORD": password} if password else {}))
    os.execve(program, [str(program), "-d", dsn, *(args or [])], environment)  # noqa: S606 - psql, by its path, no shell


def without_password(dsn: str) -> tuple[str, str]:
    """The DSN without its password, and the password."""
    parts = urlsplit(dsn)
    login, at, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    return dsn.replace(f"//{parts.netloc}", f"//{user}{at}{hosts}", 1), unquote(password)


def _program(settings: Settings) -> Path:
    """The embedded server's psql; for a DSN the one on the PATH, which may know TLS, if there is one."""
    installed = None if settings.embedded else shutil.which("psql")
    return Path(installed) if installed else bin_directory(settings.database) / "psql"
