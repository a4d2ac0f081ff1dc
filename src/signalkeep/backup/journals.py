"""Copies of journals: into a backup while gateways write, and back from a backup or an archive.

A segment is immutable once a later one exists or its gateway has ended: then it is linked if that is possible, else
copied. Of the one that is being written, exactly the bytes are copied that a reader has found to be durable: what lies
behind them may be a write in progress, and a copy that mixes old and new bytes would look damaged. Journals are only
ever added to: nothing that lies on the disk is overwritten or removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from signalkeep import limits
from signalkeep.backup.manifest import FileSum, JournalPart
from signalkeep.errors import EnvironmentFault
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.reader import JournalReader, Lost, find_journals, segments
from signalkeep.journal.record import SegmentHeader
from signalkeep.journal.segments import NEW_SUFFIX, header_of, segment_name, segment_seqs
from signalkeep.store.durable import copy_durably, sha256_of, sync_path

FS: Final = LocalFileSystem()
_LOOKS: Final = 200  # a reader needs some before it passes over damage in a journal that is being written


class Copied(msgspec.Struct):
    """What came of one journal."""

    part: JournalPart
    files: list[FileSum]


def back_up(
    directory: Path, target: Path, *, evidence_root: Path, cursors: tuple[int, int], progress: Callable[[str], None]
) -> Copied:
    """Copy one journal below `target`. `cursors`: where the database stood before and after it was copied.

    Raises EnvironmentFault if the copy does not hold what the database has seen of the journal.
    """
    before, after = cursors
    reader, place = _find_end(directory, evidence_root, after)
    copy = target / directory.name
    copy.mkdir(mode=0o700)
    names, files = [], []
    for first_seq, path, size in segments(FS, directory):
        if place is not None and first_seq > place[0]:
            break  # begun since we looked
        progress(f"journal {directory.name[:8]} {path.name}")
        length = place[1] if place is not None and first_seq == place[0] and reader.alive else size
        sha256 = _link_or_copy(path, copy / path.name, length if length < size else None)
        files.append(FileSum(f"journal/{directory.name}/{path.name}", length, sha256))
        names.append(path.name)
    sync_path(copy)
    durable_seq = reader.durable_seq if reader.refused else _check(copy, max(after, reader.durable_seq), directory)
    part = JournalPart(reader.journal_id, before, durable_seq, reader.alive, names)
    return Copied(part, files)


def _find_end(directory: Path, evidence_root: Path, cursor: int) -> tuple[JournalReader, tuple[int, int] | None]:
    """A reader that has come to the end of what is durable, and the place of that end; None: take whole files."""
    reader = JournalReader(FS, directory, evidence_root=evidence_root)
    reader.seek(max((*segment_seqs(FS, directory), 1)) - 1)
    for _ in range(_LOOKS):
        while reader.read(limits.INGEST_BATCH_FRAMES_MAX, limits.INGEST_BATCH_BYTES_MAX):
            pass
        if reader.durable_seq >= cursor or reader.finished or reader.refused:
            break
    return reader, None if reader.refused or not reader.alive else reader.place


def _link_or_copy(source: Path, target: Path, length: int | None) -> str:
    if length is None:
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            return copy_durably(source, target)
        sync_path(target)
        return sha256_of(target)
    return copy_durably(source, target, length)


def _check(copy: Path, wanted_seq: int, original: Path) -> int:
    """Read the copy as ingest would; the highest number it holds."""
    reader = JournalReader(FS, copy, evidence_root=copy.parent / "evidence-of-no-use")
    reader.seek(max((*segment_seqs(FS, copy), 1)) - 1)
    while items := reader.read(limits.INGEST_BATCH_FRAMES_MAX, limits.INGEST_BATCH_BYTES_MAX):
        if any(isinstance(item, Lost) for item in items):
            continue  # damage of the original is copied, too: ingest names it
    shutil.rmtree(copy.parent / "evidence-of-no-use", ignore_errors=True)
    if reader.durable_seq < wanted_seq:
        raise EnvironmentFault(
            f"the copy of the journal {original} ends at entry {reader.durable_seq}, durable are {wanted_seq}",
            hint="Run the backup again. If it says so again, look at the journal: signalkeep status, signalkeep audit.",
        )
    return reader.durable_seq


# The way back


def place_from(source: Path, root: Path, uuid: UUID, names: Iterable[str]) -> list[str]:
    """Add those segments of a journal that are not on the disk; returns their names. `source` holds the files.

    A whole journal appears at once; what a crash leaves of it is swept by the next gateway.
    """
    wanted, directory = list(names), root / uuid.hex
    if directory.is_dir():
        placed = [name for name in wanted if not (directory / name).exists()]
        for name in placed:
            unfinished = directory / f"{name}.tmp"
            unfinished.unlink(missing_ok=True)
            copy_durably(source / name, unfinished)
            unfinished.rename(directory / name)
        sync_path(directory)
        return placed
    making = root / (uuid.hex + NEW_SUFFIX)
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(mode=0o700)
    for name in wanted:
        copy_durably(source / name, making / name)
    sync_path(making)
    making.rename(directory)
    sync_path(root)
    return wanted


def needed_of(archive: Path, known: dict[UUID, JournalPart]) -> dict[UUID, list[str]]:
    """Which archived segments hold entries that the database of a backup does not have, by journal."""
    needed = {}
    for directory in find_journals(FS, archive):
        uuid = UUID(directory.name)
        part = known.get(uuid)
        seqs = segment_seqs(FS, directory)
        if part is not None and not part.alive and part.durable_seq <= part.cursor:
            continue  # it had ended, and the database had all of it
        cursor = part.cursor if part is not None else 0
        names = [
            segment_name(first_seq)
            for first_seq, next_seq in zip(seqs, [*seqs[1:], None], strict=True)
            if next_seq is None or next_seq > cursor + 1
        ]
        if names:
            needed[uuid] = names
    return needed


def oldest_bytes(roots: Iterable[Path]) -> datetime | None:
    """When the oldest segment under these roots was begun; None if there is none."""
    moments = []
    for root in roots:
        for directory in find_journals(FS, root):
            for first_seq in segment_seqs(FS, directory)[:1]:
                header = header_of(FS, directory, first_seq)
                if isinstance(header, SegmentHeader):
                    moments.append(header.created_at_us)
    return datetime.fromtimestamp(min(moments) / 1e6, UTC) if moments else None
