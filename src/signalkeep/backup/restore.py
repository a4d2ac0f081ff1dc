"""Puts a backup in place: its database instead of the present one, its journals beside those that lie on the disk.

The present database is moved aside and kept. Journals on the disk stay, since they hold what came after the backup; of
the backup's, and of an archive's, those segments are added that are not there. At the next start ingest finds cursors
that lie behind and drives everything again from there; the record keys keep it from doubling. What nobody has any more
is said in findings: by number where numbers are known, else by time.

Interrupted at any moment, the data directory is as before or as after: run the restore again, or just start.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from signalkeep.backup import dump, journals, manifest, programs
from signalkeep.backup.manifest import Damage, JournalPart, Manifest
from signalkeep.config import Settings
from signalkeep.errors import CallerError, EnvironmentFault
from signalkeep.store import binaries, swap
from signalkeep.store.binaries import Account
from signalkeep.store.cluster import give_all_to
from signalkeep.store.durable import sync_tree, write_whole
from signalkeep.store.embedded import EmbeddedPostgres
from signalkeep.store.notes import Restored, RestoreFinding, note_restored
from signalkeep.store.postgres import dsn_of, redact, socket_directory

_NAMED_MAX = 5


class Done(msgspec.Struct):
    """What a restore has done."""

    backup: str
    made_at: datetime
    database: str
    aside: list[str]  # what was there before
    segments_placed: int
    segments_from_archive: int
    damaged: list[str]
    findings: list[RestoreFinding]


async def restore(
    settings: Settings,
    backup: Path,
    *,
    archive: Path | None,
    despite_damage: bool,
    progress: Callable[[str], None],
) -> Done:
    """Restore `backup`. The caller has seen to it that nothing runs on the data directory.

    Raises CallerError if it is no backup or does not fit, EnvironmentFault if it is damaged.
    """
    found = manifest.read(backup)
    _refuse_misfit(settings, found)
    progress("checking the backup")
    damages = await asyncio.to_thread(manifest.verify, backup, found)
    if damages and not despite_damage:
        raise _damaged(backup, damages)
    if not settings.embedded:
        await dump.refuse_unless_empty(dsn_of(settings), settings.database)
    now = datetime.now(UTC)
    was = _remember(settings, backup, archive, now)
    placed, from_archive, fetched = await asyncio.to_thread(_place_journals, settings, backup, found, archive, progress)
    gone = [part for part in found.journals if part.alive and part.uuid.hex not in {*was.on_disk, *fetched}]
    findings = list(_findings(settings, backup, found, gone, was, now, archived=archive is not None))
    note = Restored(backup.name, findings)
    aside = await _place_database(settings, backup, found, note, now, progress)
    where = str(settings.data / "postgres" / str(found.database.major))
    if not settings.embedded:
        where = redact(dsn_of(settings))
    damaged = [damage.path for damage in damages]
    return Done(str(backup), found.made_at, where, aside, placed, from_archive, damaged, findings)


def _refuse_misfit(settings: Settings, found: Manifest) -> None:
    if found.database.kind == "base" and not settings.embedded:
        raise CallerError(
            "this backup holds the files of an embedded PostgreSQL; they cannot go into the server of database.dsn",
            hint="Restore it without database.dsn, start it, and move it over with pg_dump.",
        )


def _damaged(backup: Path, damages: list[Damage]) -> EnvironmentFault:
    named = "\n".join(f"  {backup / damage.path} {damage.what}" for damage in damages[:_NAMED_MAX])
    more = f"\n  and {len(damages) - _NAMED_MAX} more" if len(damages) > _NAMED_MAX else ""
    return EnvironmentFault(
        f"the backup is damaged, nothing was changed:\n{named}{more}",
        hint="Use another backup. If there is none: --despite-damage takes what can be taken.",
    )


class Before(msgspec.Struct):
    """What lay on the disk before anything of a backup was placed there."""

    at: datetime
    on_disk: list[str]  # journals
    oldest: datetime | None  # when the oldest bytes of a journal were begun, on the disk or in the archive


def _remember(settings: Settings, backup: Path, archive: Path | None, now: datetime) -> Before:
    """What lies there now, and what lay there when this backup was first restored: whatever is worse.

    Else a second try would take what the first one has placed for journals that were always there, and not say what
    may be missing.
    """
    settings.journal_root.mkdir(mode=0o700, parents=True, exist_ok=True)
    roots = [settings.journal_root, *([archive] if archive else [])]
    before = Before(now, [path.name for path in settings.journal_root.iterdir()], journals.oldest_bytes(roots))
    file = settings.data / "restores.json"
    try:
        noted = msgspec.json.decode(file.read_bytes(), type=dict[str, Before])
    except (OSError, msgspec.DecodeError):
        noted = {}
    if first := noted.get(backup.name):
        before.at = first.at
        before.on_disk = [name for name in before.on_disk if name in first.on_disk]
        before.oldest = max(before.oldest, first.oldest) if before.oldest and first.oldest else None
    write_whole(file, msgspec.json.encode({**noted, backup.name: before}))
    return before


# Journals


def _place_journals(
    settings: Settings, backup: Path, found: Manifest, archive: Path | None, progress: Callable[[str], None]
) -> tuple[int, int, list[str]]:
    """Segments placed from the backup and from the archive, and the journals that the archive has to its end."""
    known = {part.uuid: part for part in found.journals}
    needed = journals.needed_of(archive, known) if archive is not None else {}
    placed = from_archive = 0
    for uuid, names in needed.items():
        assert archive is not None
        progress(f"journal {uuid.hex[:8]} from the archive")
        from_archive += len(journals.place_from(archive / uuid.hex, settings.journal_root, uuid, names))
    for part in found.journals:
        names = [name for name in part.segments if (backup / "journal" / part.uuid.hex / name).exists()]
        if names:
            progress(f"journal {part.uuid.hex[:8]}")
            source = backup / "journal" / part.uuid.hex
            placed += len(journals.place_from(source, settings.journal_root, part.uuid, names))
    return placed, from_archive, [uuid.hex for uuid in needed]


def _findings(
    settings: Settings,
    backup: Path,
    found: Manifest,
    gone: Iterable[JournalPart],
    was: Before,
    now: datetime,
    *,
    archived: bool,
) -> Iterable[RestoreFinding]:
    """What people must know afterwards."""
    subject = f"backup {backup.name}"
    yield RestoreFinding(
        "database_restored",
        subject,
        f"restored at {now:%Y-%m-%d %H:%M:%S} UTC to the state of {found.made_at:%Y-%m-%d %H:%M:%S} UTC; what the "
        "journals hold since then is driven again",
    )
    for part in gone:
        yield RestoreFinding(
            "journal_end_unknown",
            f"journal {part.uuid}",
            f"its gateway was writing it when the backup was made, and its files are no longer on the disk: the backup "
            f"holds it up to entry {part.durable_seq}, later entries are gone, and nobody knows how many there were",
        )
    window_start = now - timedelta(hours=settings.journal.replay_window_h)
    reaches_to = was.oldest or was.at
    if was.oldest is not None and was.oldest <= found.made_at and not archived and found.made_at < window_start:
        reaches_to = window_start  # older journals may have been removed, whatever else lies there
    if reaches_to > found.made_at:
        yield RestoreFinding(
            "restore_gap",
            subject,
            f"entries of {found.made_at:%Y-%m-%d %H:%M:%S} to {reaches_to:%Y-%m-%d %H:%M:%S} UTC may be missing that "
            "nobody can number: the backup ends there, and journals of that time may have been removed whole",
        )


# The database


async def _place_database(
    settings: Settings,
    backup: Path,
    found: Manifest,
    note: Restored,
    now: datetime,
    progress: Callable[[str], None],
) -> list[str]:
    """Put it where it belongs; returns where the present one is now."""
    source = backup / manifest.DATABASE
    if not settings.embedded:
        program = programs.client_program(settings, "pg_restore", major=found.database.major)
        progress("database: pg_restore")
        await dump.load(
            program,
            dsn_of(settings),
            source / manifest.DUMP_NAME,
            schema=found.database.schema,
            settings=settings.database,
        )
        note_restored(settings.data, note)
        return []
    server = EmbeddedPostgres(settings.data, settings=settings.database)
    root = settings.data / "postgres"
    async with server.at_rest() as account:
        work = Path(tempfile.mkdtemp(prefix=".restore-", dir=root))
        try:
            if found.database.kind == "base":
                major = found.database.major
                progress("database: copying")
                incoming = await asyncio.to_thread(_copy_cluster, source, work, found, account)
            else:
                dumped = source / manifest.DUMP_NAME
                major, incoming = await _load_apart(settings, dumped, work, found, account, progress)
            aside = {path.name: swap.aside_name(path.name, now) for path in swap.clusters(root)}
            swap.exchange(root, swap.Swap(str(incoming.relative_to(root)), major, aside, note))
        finally:
            if not swap.decided(root):
                shutil.rmtree(work, ignore_errors=True)
    return [str(root / name) for name in aside.values()]


def _copy_cluster(source: Path, work: Path, found: Manifest, account: Account) -> Path:
    target = work / "data"
    target.mkdir(mode=0o700)
    for name in found.database.empty_directories:
        (target / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            shutil.copyfile(path, place)
            place.chmod(0o600)
    give_all_to(target, account)
    sync_tree(target)
    return target


async def _load_apart(
    settings: Settings,
    dumped: Path,
    work: Path,
    found: Manifest,
    account: Account,
    progress: Callable[[str], None],
) -> tuple[int, Path]:
    """A dump becomes a server of ours, in a directory of its own; its version and where it lies."""
    binaries.make_passable(work, account)
    apart = EmbeddedPostgres(work, settings=settings.database.model_copy(update={"listen": ""}))
    await apart.start()
    try:
        program = programs.client_program(settings, "pg_restore", major=found.database.major)
        progress("database: pg_restore")
        await dump.load(program, apart.dsn, dumped, schema=found.database.schema, settings=settings.database)
    finally:
        await apart.stop()
        if not socket_directory(work).is_relative_to(work):
            shutil.rmtree(socket_directory(work), ignore_errors=True)
    (cluster,) = swap.clusters(work / "postgres")
    give_all_to(cluster, account)
    sync_tree(cluster)
    return int(cluster.name), cluster
