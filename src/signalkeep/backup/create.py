"""Makes a backup while everything runs: the database first, then the journals, so that these always reach further.

It grows under another name and gets its own only when every file is synced and checked: there is a whole backup or
none. What an interrupted one has left is cleared away by the next. Meanwhile nothing is unlinked from the journals: a
lock in the database, shared among backups, makes retention skip its round, and goes with our connection.

Nothing is ever removed but unfinished backups whose maker is dead and, if asked, older backups of our own.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from signalkeep import __version__, limits
from signalkeep.backup import base, dump, journals, manifest, programs
from signalkeep.backup.manifest import DatabasePart, FileSum, JournalPart, Manifest
from signalkeep.config import Settings
from signalkeep.errors import AlreadyRunning, CallerError, EnvironmentFault
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.reader import find_journals
from signalkeep.store import queries
from signalkeep.store.durable import copy_durably, sha256_of, sync_path
from signalkeep.store.journals import KnownJournal, hold_files, known_journals
from signalkeep.store.notes import LastBackup, note_backup
from signalkeep.store.postgres import Connection, connect, dsn_of
from signalkeep.store.schema import HEAD, ensure_schema, schema_version

_PARTIAL: Final = ".partial"


class Made(msgspec.Struct):
    """A backup that is whole."""

    path: str
    made_at: datetime
    bytes: int
    database: str  # kind and version
    journals: int
    removed: list[str]  # older ones
    not_included: list[str]  # hosts whose journals are on their own disks


async def create(
    settings: Settings,
    target: Path,
    *,
    host: str,
    settings_file: Path | None,
    keep: int | None,
    progress: Callable[[str], None],
) -> Made:
    """Make one backup below `target`. Raises EnvironmentFault, and leaves none, if anything is not as it must be."""
    target = _usable(settings, target)
    dsn = dsn_of(settings)
    connection = await connect(dsn, application="signalkeep backup", settings=settings.database)
    try:
        if await schema_version(connection) != HEAD:
            await ensure_schema(dsn, settings.database)
        with queries.plain_faults(connection), told_as_faults(f"the backup in {target}"):
            final, whole = await _make(settings, connection, target, host, settings_file, progress)
    finally:
        await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)
    if settings.data.is_dir():
        note_backup(settings, LastBackup(whole.made_at, str(final), whole.bytes))
    removed = prune(target, keep) if keep is not None else []
    return Made(
        str(final),
        whole.made_at,
        whole.bytes,
        f"{whole.database.kind} of PostgreSQL {whole.database.version}",
        sum(1 for part in whole.journals if part.segments),
        [str(path) for path in removed],
        sorted({part.elsewhere for part in whole.journals if part.elsewhere}),
    )


async def _make(
    settings: Settings,
    connection: Connection,
    target: Path,
    host: str,
    settings_file: Path | None,
    progress: Callable[[str], None],
) -> tuple[Path, Manifest]:
    made_at = await _free_name(target)
    with _unfinished(target, made_at) as work:
        progress("waiting until nothing is removed from the journals")
        await hold_files(connection)
        before = await known_journals(connection)
        database, database_sums = await _database(settings, connection, work, progress)
        after = await known_journals(connection)
        parts, sums = await asyncio.to_thread(_journals, settings, work, host, before, after, progress)
        await connection.fetchval("SELECT 1")  # the same connection all the time: the lock was held
        whole = Manifest(
            manifest.FORMAT,
            __version__,
            made_at,
            datetime.now(UTC),
            host,
            database,
            parts,
            _settings(settings_file, work),
            await asyncio.to_thread(_sums, work, database_sums + sums, progress),
        )
        return await asyncio.to_thread(_finish, work, target, whole), whole


@contextmanager
def told_as_faults(what: str) -> Iterator[None]:
    """A full or failing disk is said in words."""
    try:
        yield
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise
        where = f": {error.filename}" if error.filename else ""
        raise EnvironmentFault(
            f"{what} failed{where}: {error.strerror or error}",
            hint="Mend that, then run it again; nothing is half done.",
        ) from error


def prune(target: Path, keep: int) -> list[Path]:
    """Remove all but the newest whole backups of ours in a directory; returns what was removed."""
    assert keep >= 1
    removed = []
    for path, _ in manifest.backups_in(target)[:-keep]:
        gone = path.with_name(f".{path.name}{_PARTIAL}")
        path.rename(gone)  # never half a backup under a backup's name
        sync_path(target)
        shutil.rmtree(gone)
        removed.append(path)
    return removed


def _usable(settings: Settings, target: Path) -> Path:
    target = target.expanduser().absolute()
    for own in (settings.journal_root, settings.data / "postgres", settings.evidence_root):
        if target.is_relative_to(own):
            raise CallerError(
                f"{target} is where signalkeep keeps its own files", hint="Name another directory, on another disk."
            )
    try:
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise EnvironmentFault(f"{target} cannot be used: {error.strerror}", hint="Name another directory.") from error
    return target


async def _free_name(target: Path) -> datetime:
    """A moment whose name is not taken: names have whole seconds."""
    while True:
        moment = datetime.now(UTC)
        name = manifest.name_of(moment)
        if not (target / name).exists() and not (target / f".{name}{_PARTIAL}").exists():
            return moment
        await asyncio.sleep(0.1)


@contextmanager
def _unfinished(target: Path, made_at: datetime) -> Iterator[Path]:
    """The directory in which a backup grows, with a lock that says that its maker lives."""
    for left in target.glob(f".{manifest.PREFIX}*{_PARTIAL}"):
        with _locked(left) as abandoned:
            if abandoned:
                shutil.rmtree(left, ignore_errors=True)
    work = target / f".{manifest.name_of(made_at)}{_PARTIAL}"
    try:
        work.mkdir(mode=0o700)
    except OSError as error:
        raise EnvironmentFault(f"{work} cannot be made: {error.strerror}", hint="Name another directory.") from error
    with _locked(work) as ours:
        if not ours:
            raise AlreadyRunning(f"another backup is being made in {target}", hint="Wait for it to end.")
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)  # its name has changed, unless something failed


@contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Whether the lock of a directory was to be had; then it is held."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


async def _database(
    settings: Settings, connection: Connection, work: Path, progress: Callable[[str], None]
) -> tuple[DatabasePart, list[FileSum]]:
    version = await queries.server_version(connection)
    schema = await schema_version(connection) or ""
    place = work / manifest.DATABASE
    place.mkdir(mode=0o700)
    if not settings.embedded:
        major = int(version.split(".", maxsplit=1)[0])
        program = programs.client_program(settings, "pg_dump", major=major)
        progress("database: pg_dump")
        await dump.dump(program, dsn_of(settings), place / manifest.DUMP_NAME)
        sync_path(place / manifest.DUMP_NAME)
        sync_path(place)
        return DatabasePart("dump", version, major, schema), []
    place.rmdir()
    return await base.take(settings, place, version=version, schema=schema, progress=progress)


def _journals(
    settings: Settings,
    work: Path,
    host: str,
    before: list[KnownJournal],
    after: list[KnownJournal],
    progress: Callable[[str], None],
) -> tuple[list[JournalPart], list[FileSum]]:
    """Copy what lies on the disk, and note what else the database knows."""
    seq_before = {journal.uuid: journal.seq for journal in before}
    seq_after = {journal.uuid: journal.seq for journal in after}
    root = work / "journal"
    root.mkdir(mode=0o700)
    parts: list[JournalPart] = []
    sums: list[FileSum] = []
    for directory in find_journals(LocalFileSystem(), settings.journal_root):
        uuid = UUID(directory.name)
        copied = journals.back_up(
            directory,
            root,
            evidence_root=settings.evidence_root,
            cursors=(seq_before.get(uuid, 0), seq_after.get(uuid, 0)),
            progress=progress,
        )
        parts.append(copied.part)
        sums += copied.files
    sync_path(root)
    here = {part.uuid for part in parts}
    for journal in after:
        if journal.uuid not in here:
            elsewhere = journal.host if journal.host != host and not journal.removed else ""
            seq = seq_before.get(journal.uuid, 0)
            durable_seq = seq if journal.removed else journal.durable_seq
            parts.append(JournalPart(journal.uuid, seq, durable_seq, elsewhere=elsewhere))
    return parts, sums


def _settings(file: Path | None, work: Path) -> str:
    if file is None:
        return ""
    place = work / "settings"
    place.mkdir(mode=0o700)
    copy_durably(file, place / file.name)
    sync_path(place)
    return f"settings/{file.name}"


def _sums(work: Path, known: list[FileSum], progress: Callable[[str], None]) -> list[FileSum]:
    """Size and checksum of every file, those included that are known already."""
    sums = {file.path: file for file in known}
    for path in sorted(work.rglob("*")):
        name = str(path.relative_to(work))
        if path.is_file() and name not in sums:
            progress(f"checksum {name}")
            sums[name] = FileSum(name, path.stat().st_size, sha256_of(path))
    return [sums[name] for name in sorted(sums)]


def _finish(work: Path, target: Path, whole: Manifest) -> Path:
    """Everything is synced, by whoever wrote it; then comes the name."""
    manifest.write(work, whole)
    sync_path(work)
    final = target / manifest.name_of(whole.made_at)
    work.rename(final)
    sync_path(target)
    return final
