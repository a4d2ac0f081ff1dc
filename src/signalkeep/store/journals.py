"""What the database knows of journals: their row, their cursors, how far they are durable, what was unlinked.

Before files go, the database is told (`kept_from_seq`, `removed_at`): so whatever is missing without such a note was
taken away by somebody else, and is named.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from signalkeep import limits
from signalkeep.store import sql
from signalkeep.store.postgres import Connection

# Makes a journal known; seen again, only its place is refreshed.
REGISTER: Final = """
INSERT INTO journal AS j (uuid, host, directory, lanes) VALUES ($1, $2, $3, $4)
ON CONFLICT (uuid) DO UPDATE SET host = EXCLUDED.host, directory = EXCLUDED.directory, seen_at = now()
RETURNING id
"""

# A cursor for each lane, at the beginning.
ADD_CURSORS: Final = """
INSERT INTO cursor (journal_id, lane) SELECT $1, lane FROM generate_series(0, $2 - 1) AS lane ON CONFLICT DO NOTHING
"""

# Where the cursors of a journal stand.
CURSORS: Final = "SELECT lane, seq FROM cursor WHERE journal_id = $1 ORDER BY lane"

# Remembers how far a journal is on stable storage, so that it can be missed if it vanishes.
NOTE_PROGRESS: Final = """
UPDATE journal SET durable_seq = greatest(durable_seq, $2), seen_at = now(),
    ended_at = CASE WHEN $3 THEN coalesce(ended_at, now()) END
WHERE id = $1
"""

# Its files are there, whatever was said before.
NOTE_PRESENT: Final = "UPDATE journal SET removed_at = NULL WHERE id = $1 AND removed_at IS NOT NULL"

# Every journal of a host whose files should still be there, with how far the database has it.
EXPECTED: Final = """
SELECT j.id, j.uuid, j.directory, j.durable_seq, j.kept_from_seq, j.ended_at IS NOT NULL AS ended, min(c.seq) AS seq
FROM journal j JOIN cursor c ON c.journal_id = j.id
WHERE j.host = $1 AND j.removed_at IS NULL
GROUP BY j.id
ORDER BY j.id
"""

# Every journal there ever was.
KNOWN: Final = """
SELECT j.uuid, j.host, j.durable_seq, j.removed_at IS NOT NULL AS removed, min(c.seq) AS seq
FROM journal j JOIN cursor c ON c.journal_id = j.id GROUP BY j.id ORDER BY j.id
"""

FILES_LOCK: Final = 0x6A66696C  # advisory lock: shared by those who read the files as a whole, alone for removing them
CLAIM_CLASS: Final = 0x6A726E6C  # first key of the advisory locks of journal drivers ("jrnl")


class ExpectedJournal(msgspec.Struct, frozen=True):
    """A journal that the database has heard of and whose files nobody was told to remove."""

    id: int
    uuid: UUID
    directory: Path
    durable_seq: int
    kept_from_seq: int
    seq: int  # the lowest cursor
    ended: bool  # its gateway had written its last entry, as far as the database heard


class KnownJournal(msgspec.Struct, frozen=True):
    """A journal with how far the database has it. `removed`: its files were taken away on purpose."""

    uuid: UUID
    host: str
    durable_seq: int
    removed: bool
    seq: int  # the lowest cursor


async def register(connection: Connection, uuid: UUID, host: str, directory: Path, lanes: int) -> int:
    """Our number for the journal; its cursors exist afterwards."""
    async with connection.transaction():
        journal_id: int = await connection.fetchval(REGISTER, uuid, host, str(directory), lanes)
        await connection.execute(ADD_CURSORS, journal_id, lanes)
    return journal_id


async def claim(connection: Connection, journal_id: int) -> bool:
    """Try to become the one process that drives this journal; held until the connection closes.

    What keeps two drivers from doubling anything is the cursor's compare-and-set; the claim saves work, and whoever
    takes a journal's files away holds it, so that nobody takes the journal up meanwhile.
    """
    claimed: bool = await connection.fetchval("SELECT pg_try_advisory_lock($1, $2)", CLAIM_CLASS, journal_id)
    return claimed


async def cursors(connection: Connection, journal_id: int) -> list[int]:
    """The cursor of each lane, in the order of lanes."""
    return [row["seq"] for row in await connection.fetch(CURSORS, journal_id)]


async def note_progress(connection: Connection, journal_id: int, durable_seq: int, *, ended: bool) -> None:
    """Store the highest sequence number that is known to be durable, and whether the gateway has ended."""
    await connection.execute(NOTE_PROGRESS, journal_id, durable_seq, ended)


async def expected(connection: Connection, host: str) -> list[ExpectedJournal]:
    """All journals of this host that should be on its disk."""
    return [
        ExpectedJournal(
            row["id"],
            row["uuid"],
            Path(row["directory"]),
            row["durable_seq"],
            row["kept_from_seq"],
            row["seq"],
            row["ended"],
        )
        for row in await connection.fetch(EXPECTED, host)
    ]


def vanished(directory: Path, *, seq: int, durable_seq: int, ended: bool) -> str:
    """What is missing with a journal's directory, as far as the database can know."""
    later = "" if ended else "; what its gateway acknowledged after it was last heard of, if anything, is gone too"
    if durable_seq > seq:
        return f"{directory} is gone; entries {seq + 1}..{durable_seq} were not ingested{later}"
    if ended:
        return f"{directory} is gone; everything in it was ingested, but it cannot be replayed"
    return f"{directory} is gone; up to entry {seq} it was ingested{later}"


async def note_kept_from(connection: Connection, journal_id: int, seq: int) -> None:
    """Say, before it is done, that entries before `seq` are unlinked."""
    await connection.execute(
        "UPDATE journal SET kept_from_seq = greatest(kept_from_seq, $2) WHERE id = $1", journal_id, seq
    )


async def note_present(connection: Connection, journal_id: int) -> None:
    """Say that its files are there, whatever was said before. The caller holds the claim."""
    await connection.execute(NOTE_PRESENT, journal_id)


async def note_removed(connection: Connection, journal_id: int) -> None:
    """Say, before it is done, that the whole journal is removed."""
    await connection.execute("UPDATE journal SET removed_at = now() WHERE id = $1", journal_id)


async def add_finding(connection: Connection, kind: str, subject: str, detail: str) -> None:
    """Note a finding; the same one again is only counted."""
    await connection.execute(sql.ADD_FINDING, kind, subject, detail)


async def known_journals(connection: Connection) -> list[KnownJournal]:
    """Every journal that the database has ever heard of, removed ones and those of other hosts among them."""
    return [KnownJournal(**dict(row)) for row in await connection.fetch(KNOWN)]


async def hold_files(connection: Connection) -> None:
    """Keep every journal file where it is until the connection closes; waits for a removal under way."""
    await connection.execute("SELECT pg_advisory_lock_shared($1)", FILES_LOCK, timeout=limits.BACKUP_S_MAX)


async def may_remove_files(connection: Connection) -> bool:
    """Try to be the only one who takes files away, until `removed_files`; somebody may hold them for a backup."""
    allowed: bool = await connection.fetchval("SELECT pg_try_advisory_lock($1)", FILES_LOCK)
    return allowed


async def removed_files(connection: Connection) -> None:
    """This round of removing is over."""
    await connection.execute("SELECT pg_advisory_unlock($1)", FILES_LOCK)
