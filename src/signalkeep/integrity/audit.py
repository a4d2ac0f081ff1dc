"""The sums of promise P5, against what is really there.

    per journal            entries up to the cursor = frames + other entries + lost; files hold what they must
    per journal and device records = stored + duplicate + quarantined + suppressed, and the rows of that provenance are
                           there, but for those that were erased or went with their month: their number and the
                           exclusive or of their digests, so that an exchanged row shows, too
    per device             counters = ledger; no record stands in signal and in quarantine at once; nothing is there
                           that was erased

Everything comes from one snapshot of the database; the journal's files are read beside it. Where a sum is off and the
journal still has the frames, the records themselves are named. The audit changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import msgspec

from signalkeep import limits
from signalkeep.journal.files import FileSystem
from signalkeep.journal.lanes import lane_of_entry
from signalkeep.journal.reader import Chunk, JournalReader, Lost, find_journals
from signalkeep.journal.record import FrameEntry
from signalkeep.store import audit as queries
from signalkeep.store.journals import vanished
from signalkeep.store.partitions import month_of
from signalkeep.store.postgres import Connection, Row

RecordKeys: TypeAlias = Callable[[FrameEntry], list[tuple[datetime, int]]]
"""The (wire_time, digest) of each record of a frame; passed in, since decoding is not the audit's business."""

NO_FLOOR = datetime(1, 1, 1, tzinfo=UTC)
NAMED_MAX = 20  # rows that are named one by one for each ledger line that is off


class Finding(msgspec.Struct, frozen=True):
    """Something that is off: which check, about what, and what was found."""

    check: str
    subject: str
    detail: str


class JournalSums(msgspec.Struct):
    """One journal: received = ingested + pending."""

    journal: str
    received: int  # frames
    ingested: int
    pending: int
    lost: int  # entries that could not be read, each range with a finding of its own
    ingested_seq: int
    durable_seq: int
    on_disk: bool


class Report(msgspec.Struct):
    """What the audit saw. `ok`: no finding."""

    journals: list[JournalSums]
    totals: dict[str, int]
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        return not self.findings


class Audit:
    """One audit over one connection."""

    def __init__(
        self,
        connection: Connection,
        *,
        fs: FileSystem,
        host: str,
        evidence_root: Path,
        record_keys: RecordKeys,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._connection = connection
        self._fs = fs
        self._host = host
        self._evidence_root = evidence_root
        self._record_keys = record_keys
        self._progress = progress
        self._findings: list[Finding] = []
        self._directories: dict[int, Path] = {}
        self._names: dict[int, str] = {}

    async def run(self) -> Report:
        """All checks."""
        async with queries.snapshot(self._connection):
            journals = []
            for row in await queries.ask(self._connection, queries.JOURNALS):
                self._names[row["id"]] = str(row["uuid"])
                self._progress(f"journal {row['uuid']}")
                journals.append(await self._journal(row))
            self._progress("ledger and rows")
            await self._ledger()
            await self._signals()
            await self._quarantine()
            await self._counters()
            await self._erased()
            totals = dict((await queries.ask(self._connection, queries.TOTALS))[0])
        return Report(journals, totals, self._findings)

    async def _journal(self, row: Row) -> JournalSums:
        name, seq = str(row["uuid"]), row["seq"]
        if seq == row["highest_seq"] and seq != row["frames"] + row["other_entries"] + row["lost"]:
            self._find(
                "journal_sum",
                f"journal {name}",
                f"the cursor stands at {seq}, but frames {row['frames']} + other entries {row['other_entries']} "
                f"+ lost {row['lost']} were counted",
            )
        sums = JournalSums(name, row["frames"], row["frames"], 0, row["lost"], seq, row["durable_seq"], on_disk=False)
        if row["removed_at"] is not None or row["host"] != self._host:
            return sums  # its files went when the database had everything, or lie on another machine
        directory = Path(row["directory"])
        if directory not in find_journals(self._fs, directory.parent):
            detail = vanished(directory, seq=seq, durable_seq=row["durable_seq"], ended=row["ended"])
            self._find("journal_vanished", f"journal {name}", detail)
            return sums
        self._directories[row["id"]] = directory
        return await self._files(row, directory, sums)

    async def _files(self, row: Row, directory: Path, sums: JournalSums) -> JournalSums:
        """Read what the files hold from `kept_from_seq` on, and hold it against the cursor."""
        reader = JournalReader(self._fs, directory, evidence_root=self._evidence_root)
        first, cursors = row["kept_from_seq"], row["cursors"]
        reader.seek(first - 1)
        before = beyond = 0
        last_seq = first - 1
        while items := await _read(reader):
            for item in items:
                if isinstance(item, Lost):
                    last_seq = item.last_seq
                    self._lost(row, item)
                    continue
                for seq, entry in enumerate(item.entries, item.first_seq):
                    if isinstance(entry, FrameEntry):
                        ingested = seq <= cursors[lane_of_entry(entry, len(cursors))]
                        before, beyond = before + ingested, beyond + (not ingested)
                last_seq = item.first_seq + len(item.entries) - 1
        known_seq = max(row["durable_seq"], row["highest_seq"])  # the cursor may be ahead of the note
        if last_seq < known_seq:
            self._find(
                "journal_range_missing",
                f"journal {row['uuid']}",
                f"entries {last_seq + 1}..{known_seq} were durable and are no longer in {directory}",
            )
        elif first == 1 and not row["lost"] and before != row["frames"]:
            self._find(
                "journal_frames",
                f"journal {row['uuid']}",
                f"the files hold {before} frames up to the cursors, the database counted {row['frames']}",
            )
        sums.pending, sums.received, sums.on_disk = beyond, row["frames"] + beyond, True
        sums.durable_seq = max(last_seq, row["durable_seq"])
        return sums

    def _lost(self, row: Row, item: Lost) -> None:
        ingested = "they were ingested before" if item.last_seq <= row["seq"] else "they were not ingested"
        evidence = f"; the bytes are kept in {item.evidence}" if item.evidence else ""
        self._find(
            "journal_range_missing" if item.why == "missing" else "journal_range_damaged",
            f"journal {row['uuid']}",
            f"entries {item.first_seq}..{item.last_seq} are {item.why}; {ingested}{evidence}",
        )

    async def _ledger(self) -> None:
        for row in await queries.ask(self._connection, queries.UNBALANCED):
            self._find(
                "ledger_sum",
                self._line(row),
                f"records {row['records']} is not stored {row['stored']} + duplicate {row['duplicate']} "
                f"+ quarantined {row['quarantined']}"
                + (f" + suppressed {row['suppressed']}" if row["suppressed"] else ""),
            )

    async def _signals(self) -> None:
        for row in await queries.ask(self._connection, queries.SIGNALS_OFF):
            expected, found = row["expected"], row["found"]
            what = "their keys are others" if expected == found else f"{abs(expected - found)} "
            if expected != found:
                what += "missing" if found < expected else "too many"
            detail = f"the ledger has {expected} signals, the table {found}: {what}"
            self._find("signal_rows", self._line(row), detail + await self._name_rows(row))

    async def _quarantine(self) -> None:
        for row in await queries.ask(self._connection, queries.QUARANTINE_OFF):
            detail = (
                f"the ledger has {row['expected']} quarantined ({row['released_expected']} released, "
                f"{row['discarded_expected']} discarded, {row['replaced_expected']} replaced), "
                f"the table {row['found']} ({row['released']} released, {row['discarded']} discarded, "
                f"{row['replaced']} replaced)"
            )
            self._find("quarantine_rows", self._line(row), detail + await self._name_rows(row))
        for row in await queries.ask(self._connection, queries.IN_BOTH):
            self._find(
                "record_in_both",
                f"device {row['device_number']}",
                f"the record of {row['wire_time']} is stored and also open in quarantine as {row['id']}",
            )

    async def _counters(self) -> None:
        for row in await queries.ask(self._connection, queries.COUNTERS_OFF):
            self._find(
                "device_counters",
                f"device {row['device_number']}",
                f"records {row['records']}, stored {row['stored']}, duplicate {row['duplicate']}, quarantined "
                f"{row['quarantined']}, suppressed {row['suppressed']}, open {row['quarantine_open']} do not agree "
                "with the ledger",
            )

    async def _erased(self) -> None:
        for row in await queries.ask(self._connection, queries.ERASED_THERE):
            self._find(
                "erased_rows",
                f"device {row['device_number']}",
                f"everything up to {row['erased_to']} was erased, and there are rows of that time again",
            )

    async def _name_rows(self, row: Row) -> str:
        """Which rows, as far as the journal still has the frames: said in words, '' if it cannot be told."""
        directory = self._directories.get(row["journal_id"])
        if directory is None:
            return "; the journal is not here any more, so the rows cannot be named"
        floor = row["erased_to"]
        sent = await self._keys_in_journal(directory, row["device_number"], floor or NO_FLOOR)
        rows = await queries.ask(self._connection, queries.KEYS_OF, row["journal_id"], row["device_id"])
        here = {(found["wire_time"], found["digest"]): found for found in rows}
        anywhere = await queries.keys_anywhere(self._connection, row["device_id"], sent)
        expired = await queries.expired_months(self._connection)
        gone = [key for key in sent if key not in anywhere and month_of(key[0]) not in expired]
        foreign = [key for key in here if key not in sent]
        parts = [f"missing: the record of {key[0]} (entry {sent[key]})" for key in gone]
        parts += [f"not from the journal: the {here[key]['place']} row of {key[0]}" for key in foreign]
        more = f"; and {len(parts) - NAMED_MAX} more" if len(parts) > NAMED_MAX else ""
        return "".join(f"; {part}" for part in parts[:NAMED_MAX]) + more

    async def _keys_in_journal(
        self, directory: Path, device_number: str, floor: datetime
    ) -> dict[tuple[datetime, int], int]:
        """Keys of a device's records above the floor of an erasure, with the number of their entry."""
        reader = JournalReader(self._fs, directory, evidence_root=self._evidence_root)
        reader.seek(0)
        keys: dict[tuple[datetime, int], int] = {}
        while items := await _read(reader):
            for item in items:
                if isinstance(item, Lost):
                    continue
                for seq, entry in enumerate(item.entries, item.first_seq):
                    if not isinstance(entry, FrameEntry) or entry.device_number != device_number:
                        continue
                    if entry.received_at_us <= floor.timestamp() * 1_000_000:
                        continue
                    for key in self._record_keys(entry):
                        if key[0] > floor:
                            keys.setdefault(key, seq)
        return keys

    def _line(self, row: Row) -> str:
        journal = self._names.get(row["journal_id"], f"number {row['journal_id']} (not known)")
        return f"device {row['device_number']}, journal {journal}"

    def _find(self, check: str, subject: str, detail: str) -> None:
        self._findings.append(Finding(check, subject, detail))


async def _read(reader: JournalReader) -> Sequence[Chunk | Lost]:
    """Some more, in a thread: an audit reads all files, and whoever runs it has other things to do meanwhile."""
    return await asyncio.to_thread(reader.read, limits.INGEST_BATCH_FRAMES_MAX, limits.INGEST_BATCH_BYTES_MAX)
