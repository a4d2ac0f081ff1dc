"""When journal files may go: the database has them, and they are older than the replay window or above the size kept.

The database is told before a file goes (`kept_from_seq`, `removed_at`): a crash in between leaves a file too many,
never one that is missing without a note. What is not in the database is never removed, however full the disk. With
`journal.archive_dir` a file goes only when the archive has it: an archive that is full or away keeps it in the journal,
which has its caps, and costs ingest nothing but a finding.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.errors import EnvironmentFault
from signalkeep.journal import archive
from signalkeep.journal.files import FileSystem
from signalkeep.journal.reader import JournalReader, find_journals, segments
from signalkeep.journal.retention import remove_journal, unlink_before
from signalkeep.store import journals
from signalkeep.store.journals import ExpectedJournal
from signalkeep.store.postgres import Connection
from signalkeep.telemetry import get_logger

log = get_logger()


class Retention:
    """Removes segments and whole journals, oldest first."""

    def __init__(self, settings: Settings, *, fs: FileSystem, clock: Clock) -> None:
        self._settings = settings
        self._fs = fs
        self._clock = clock

    async def tidy(self, connection: Connection, expected: list[ExpectedJournal]) -> list[Path]:
        """One round; returns the directories of journals that were removed whole.

        Nothing goes while somebody holds the files, as a backup does.
        """
        if not await journals.may_remove_files(connection):
            return []
        try:
            return await self._tidy(connection, expected)
        finally:
            await journals.removed_files(connection)

    async def _tidy(self, connection: Connection, expected: list[ExpectedJournal]) -> list[Path]:
        found = set(find_journals(self._fs, self._settings.journal_root))
        present = [journal for journal in expected if journal.directory in found]
        used_bytes = sum(size for journal in present for _, _, size in segments(self._fs, journal.directory))
        removed = []
        for journal in present:  # in the order in which they were opened
            used_bytes, whole = await self._tidy_journal(connection, journal, used_bytes)
            if whole:
                removed.append(journal.directory)
        return removed

    async def _tidy_journal(
        self, connection: Connection, journal: ExpectedJournal, used_bytes: int
    ) -> tuple[int, bool]:
        """Bytes still used by all journals, and whether this one is gone."""
        found = segments(self._fs, journal.directory)
        keep_from_seq = journal.kept_from_seq
        for (_, path, size), (next_first_seq, _, _) in pairwise(found):
            if next_first_seq > journal.seq + 1 or not self._may_go(path, used_bytes):
                break
            if not await self._archived(connection, path):
                break
            keep_from_seq, used_bytes = next_first_seq, used_bytes - size
        if keep_from_seq > journal.kept_from_seq:
            await journals.note_kept_from(connection, journal.id, keep_from_seq)
            for path in unlink_before(self._fs, journal.directory, keep_from_seq - 1):
                log.info("journal segment removed", path=str(path))
        last_may_go = bool(found) and keep_from_seq >= found[-1][0] and self._may_go(found[-1][1], used_bytes)
        is_empty = journal.durable_seq == journal.seq == 0  # its gateway never got anything: nothing to replay
        if found and (last_may_go or is_empty) and self._ended(journal):
            if not is_empty and not await self._archived(connection, found[-1][1]):
                return used_bytes, False
            if not await journals.claim(connection, journal.id):
                return used_bytes, False  # a driver has just taken it up again: the next round sees it off
            await journals.note_removed(connection, journal.id)
            remove_journal(self._fs, journal.directory)
            log.info("journal removed", path=str(journal.directory))
            return used_bytes - found[-1][2], True
        return used_bytes, False

    async def _archived(self, connection: Connection, segment: Path) -> bool:
        """Whether the segment may go: it is in the archive, or there is none."""
        root = self._settings.journal.archive_dir
        if root is None:
            return True
        try:
            await asyncio.to_thread(archive.keep, self._fs, root, segment)
        except EnvironmentFault as fault:
            log.error("archive does not take a segment", error=fault.message)
            await journals.add_finding(connection, "archive_failed", f"archive {root}", fault.message)
            return False
        return True

    def _may_go(self, segment: Path, used_bytes: int) -> bool:
        age_s = self._clock.now().timestamp() - self._fs.modified_at(segment)
        journal = self._settings.journal
        return age_s > journal.replay_window_h * 3600 or used_bytes > journal.keep_bytes

    def _ended(self, journal: ExpectedJournal) -> bool:
        """The gateway is gone and the database has every entry that can be read."""
        reader = JournalReader(self._fs, journal.directory, evidence_root=self._settings.evidence_root)
        reader.seek(journal.seq)
        return not reader.alive and not reader.read(1, 1) and reader.finished
