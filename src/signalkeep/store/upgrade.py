"""Moves the data of an embedded PostgreSQL into a newer major version, with pg_upgrade.

The new directory grows beside the old one and takes its place in one step (`swap.py`); the old one is kept aside until
somebody deletes it. pg_upgrade copies, so the old files are as they were whatever happens; interrupted at any moment,
it can simply be run again. It keeps the numbers of transactions, so that streams go on where they were.

What the user has changed in postgresql.conf is not carried over, since a setting may no longer exist: it is named.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from signalkeep import limits
from signalkeep.errors import CallerError, EnvironmentFault
from signalkeep.sections import DatabaseSettings
from signalkeep.store import binaries, swap
from signalkeep.store.binaries import Account
from signalkeep.store.cluster import SAID_LINES, make_cluster
from signalkeep.store.durable import sync_tree
from signalkeep.store.embedded import EmbeddedPostgres
from signalkeep.store.postgres import EMBEDDED_NAME

_WORK = ".upgrade-"


class Upgraded(msgspec.Struct):
    """What an upgrade has done. `old_major` 0: there was nothing to do."""

    old_major: int
    new_major: int
    directory: str
    aside: str = ""
    settings_left_behind: list[str] = []  # msgspec copies it


async def upgrade(
    data: Path, settings: DatabaseSettings, *, old_programs: Path | None, progress: Callable[[str], None]
) -> Upgraded:
    """Move the data to the major version of the programs that the settings name. Nothing may run on `data`.

    Raises CallerError if the old programs cannot be found, EnvironmentFault with what pg_upgrade said if it fails.
    """
    root = data / "postgres"
    server = EmbeddedPostgres(data, settings=settings)
    async with server.at_rest() as account:
        new_bin = await asyncio.to_thread(binaries.reachable_copy, binaries.bin_directory(settings), account, root)
        new_major = binaries.major_version(new_bin, account)
        old = _newest_other(root, new_major)
        if old is None:
            return Upgraded(0, new_major, str(root / str(new_major)))
        old_bin = await asyncio.to_thread(_old_programs, old_programs, int(old.name), account, root)
    progress(f"PostgreSQL {old.name}: making sure that it was stopped cleanly")
    plain = settings.model_copy(update={"bin_dir": old_bin, "listen": ""})
    await _start_and_stop(EmbeddedPostgres(data, settings=plain))
    async with server.at_rest() as account:
        work = Path(tempfile.mkdtemp(prefix=_WORK, dir=root))
        try:
            progress(f"PostgreSQL {new_major}: making a new directory")
            fresh = await asyncio.to_thread(make_cluster, new_bin, work, account)
            progress("copying the data (pg_upgrade)")
            await asyncio.to_thread(_run_pg_upgrade, old_bin, new_bin, old, fresh, account)
            left = _changed_settings(old, fresh)
            await asyncio.to_thread(sync_tree, fresh)
            aside = swap.aside_name(old.name, datetime.now(UTC))
            swap.exchange(root, swap.Swap(str(fresh.relative_to(root)), new_major, {old.name: aside}))
        finally:
            if not swap.decided(root):
                shutil.rmtree(work, ignore_errors=True)
    return Upgraded(int(old.name), new_major, str(root / str(new_major)), str(root / aside), left)


def _newest_other(root: Path, major: int) -> Path | None:
    """The data to move; None if those of this version are there, or none at all."""
    present = {int(path.name): path for path in swap.clusters(root)}
    if major in present or not present:
        return None
    if max(present) > major:
        raise CallerError(
            f"{root} holds the data of PostgreSQL {max(present)}, newer than the programs, which are of {major}",
            hint="PostgreSQL does not go back. Set database.bin_dir to newer programs.",
        )
    return present[max(present)]


def _old_programs(named: Path | None, major: int, account: Account, root: Path) -> Path:
    folder = named or binaries.find_programs(major)
    if folder is None or not (folder / "postgres").exists():
        where = f"there is no postgres in {named}" if named else f"no PostgreSQL {major} was found on this machine"
        raise CallerError(
            f"{where}; its own programs are needed to read its data",
            hint=f"Install PostgreSQL {major} and name its bin folder: --old-programs /usr/lib/postgresql/{major}/bin",
        )
    reachable = binaries.reachable_copy(folder, account, root)
    found = binaries.major_version(reachable, account)
    if found != major:
        raise CallerError(
            f"--old-programs: {folder} is PostgreSQL {found}, the data are of {major}",
            hint=f"Name the bin folder of a PostgreSQL {major}.",
        )
    return reachable


async def _start_and_stop(server: EmbeddedPostgres) -> None:
    """After a crash the old server has to recover with its own programs: pg_upgrade refuses otherwise."""
    await server.start()
    await server.stop()


def _run_pg_upgrade(old_bin: Path, new_bin: Path, old: Path, fresh: Path, account: Account) -> None:
    sockets = Path(tempfile.mkdtemp(prefix="signalkeep-", dir="/tmp"))
    try:
        if account.switch:
            os.chown(sockets, account.uid, account.gid)
        answer = account.run(
            new_bin / "pg_upgrade",
            *("-b", old_bin, "-B", new_bin, "-d", old, "-D", fresh, "-U", EMBEDDED_NAME, "-s", sockets),
            timeout_s=limits.UPGRADE_S_MAX,
            directory=sockets,
        )
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
    if answer.returncode != 0:
        said = "\n".join((answer.stdout + answer.stderr).strip().splitlines()[-SAID_LINES:])
        raise EnvironmentFault(
            f"pg_upgrade failed, {old} is as it was:\n{said}",
            hint="Mend what it names, and run the command again. The old PostgreSQL can be used in the meantime: set "
            f"database.bin_dir = {str(old_bin)!r}.",
        )


def _changed_settings(old: Path, fresh: Path) -> list[str]:
    """Lines of the old postgresql.conf that the new one does not have."""

    def settings(directory: Path) -> list[str]:
        text = (directory / "postgresql.conf").read_text(encoding="utf-8", errors="replace")
        lines = (line.split("#")[0].strip() for line in text.splitlines())
        return [line for line in lines if line]

    known = set(settings(fresh))
    return [line for line in settings(old) if line not in known]
