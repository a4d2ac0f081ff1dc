"""What the tests of replay share: journals with a database that has them, and decoders that came later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from signalkeep.clock import SystemClock
from signalkeep.ingest.pipeline import Pipeline, Rules
from signalkeep.ingest.replay import Replayed, Replayer
from signalkeep.ingest.triage import record_keys
from signalkeep.integrity.audit import Audit
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.reader import JournalReader
from signalkeep.journal.record import FrameEntry
from signalkeep.journal.writer import JournalWriter
from signalkeep.model import Context, Decoded, DeviceSettings, Outcome, Signal
from signalkeep.protocols.contract import TrackerProtocol
from signalkeep.protocols.json_events import JSON
from signalkeep.store import journals
from signalkeep.store import replay as stored
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.replay import Replay, Wanted
from signalkeep.store.retention import Retention
from tests.builders import PROTOCOLS, RECEIVED
from tests.gateway.toy import ToyProtocol

FS = LocalFileSystem()
HOUR = timedelta(hours=1)
ALWAYS = Wanted(since=RECEIVED - HOUR, until=RECEIVED + 100 * HOUR)


class Newer(ToyProtocol):
    """A later decoder: the same records, and what `change` makes of each of them."""

    def __init__(self, change: Callable[[list[Outcome]], list[Outcome]]) -> None:
        self._change = change

    def decode(self, frame: bytes, device_number: str, context: Context, settings: DeviceSettings) -> list[Outcome]:
        return self._change(JSON.decode(frame, device_number, context, settings))


def newer(change: Callable[[Signal], None]) -> Mapping[str, TrackerProtocol]:
    def of_all(outcomes: list[Outcome]) -> list[Outcome]:
        for outcome in outcomes:
            if isinstance(outcome, Decoded):
                change(outcome.signal)
        return outcomes

    return {"json": Newer(of_all)}


def with_fuel(signal: Signal) -> None:
    signal.attributes["fuel_l"] = 12.5


def with_one_more(outcomes: list[Outcome]) -> list[Outcome]:
    """What was overlooked before: a second record in each message."""
    more = [
        Decoded(Signal(wire_time=one.signal.wire_time, device_time=one.signal.device_time), one.raw_record + b"+")
        for one in outcomes
        if isinstance(one, Decoded)
    ]
    return [*outcomes, *more]


def cut_otherwise(outcomes: list[Outcome]) -> list[Outcome]:
    return [msgspec.structs.replace(one, raw_record=b"-" + one.raw_record) for one in outcomes]


class Core:
    """Journals on a disk, and a database that has them."""

    def __init__(self, connection: Connection, path: Path) -> None:
        self.connection = connection
        self.root = path / "journal"
        self.root.mkdir()
        self.evidence = path / "evidence"
        self.last_id = 0

    async def take(
        self, *entries: FrameEntry, protocols: Mapping[str, TrackerProtocol] = PROTOCOLS, ingest: int = 10_000
    ) -> JournalWriter:
        """A gateway lives, takes these, and ends; so many of them are ingested."""
        writer = JournalWriter.create(FS, self.root, clock=SystemClock(), segment_bytes=1 << 20)
        for entry in entries:
            writer.append(entry)
        await writer.close()
        self.last_id = await journals.register(self.connection, writer.journal_id, "here", writer.directory, 1)
        items = JournalReader(FS, writer.directory, evidence_root=self.evidence).read(ingest, 1 << 30)
        if items and ingest:
            await Pipeline(self.connection, self.last_id, [0], protocols=protocols, rules=Rules()).ingest(items)
        await journals.note_progress(self.connection, self.last_id, writer.durable_seq, ended=True)
        return writer

    @property
    def directories(self) -> list[Path]:
        return sorted(self.root.iterdir())

    async def begin(self, wanted: Wanted = ALWAYS) -> Replay:
        parts = await stored.parts_of(self.connection, self.directories)
        return await stored.begin(self.connection, wanted, parts, version="1", actor="tester")

    def replayer(
        self, replay: Replay, protocols: Mapping[str, TrackerProtocol] = PROTOCOLS, **options: Any
    ) -> Replayer:
        return Replayer(
            self.connection,
            replay,
            actor="tester",
            fs=FS,
            evidence_root=self.evidence,
            protocols=protocols,
            retention=Retention(),
            **options,
        )

    async def replay(
        self, protocols: Mapping[str, TrackerProtocol] = PROTOCOLS, wanted: Wanted = ALWAYS, **options: Any
    ) -> dict[str, int]:
        """What came of it, but for zeros; the row of it says the same."""
        replay = await self.begin(wanted)
        done = await self.replayer(replay, protocols, **options).run()
        row = await self.connection.fetchrow("SELECT * FROM replay WHERE id = $1", replay.id)
        assert row is not None
        assert row["state"] == "done"
        assert {name: row[name] for name in msgspec.structs.asdict(done.counts)} == msgspec.structs.asdict(done.counts)
        return counted(done)

    async def audit(self) -> list[str]:
        def keys(entry: FrameEntry) -> list[tuple[datetime, int]]:
            return record_keys(entry, PROTOCOLS.get(entry.protocol))

        report = await Audit(self.connection, fs=FS, host="here", evidence_root=self.evidence, record_keys=keys).run()
        return [f"{finding.check} {finding.subject} {finding.detail}" for finding in report.findings]

    async def signals(self) -> list[Row]:
        return list(await self.connection.fetch("SELECT * FROM signal ORDER BY journal_id, seq, record_no"))

    async def everything(self) -> list[list[Row]]:
        tables = ("signal", "quarantine", "ledger", "device_state", "cursor", "audit_log", "pg_inherits", "replay")
        return [list(await self.connection.fetch(f"SELECT * FROM {table} ORDER BY 1, 2")) for table in tables]


def counted(done: Replayed) -> dict[str, int]:
    return {name: count for name, count in msgspec.structs.asdict(done.counts).items() if count}
