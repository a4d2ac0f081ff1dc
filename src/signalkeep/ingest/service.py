"""The ingest process of one machine: every journal under the data directory, read directly into the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from signalkeep.clock import Clock
from signalkeep.config import Settings, data_option
from signalkeep.drivers.driver import Driver
from signalkeep.drivers.service import DriverService
from signalkeep.ingest.batches import Books
from signalkeep.ingest.driver import JournalDriver
from signalkeep.ingest.judging import Judging
from signalkeep.ingest.pipeline import Pipeline, Rules
from signalkeep.ingest.report import CountedPipeline, IngestStats, counted_tries
from signalkeep.journal.files import FileSystem
from signalkeep.journal.reader import JournalReader
from signalkeep.protocols.registry import PROTOCOLS
from signalkeep.rulebook import rulebook_of
from signalkeep.store.postgres import Connection
from signalkeep.store.retention import Retention
from signalkeep.vitals import Report


class IngestService(DriverService):
    """`run` returns when `stop` is set; it raises only for our own mistakes."""

    application = "signalkeep ingest"

    def __init__(self, settings: Settings, *, fs: FileSystem, clock: Clock, stop: asyncio.Event) -> None:
        super().__init__(settings, fs=fs, clock=clock, stop=stop)
        self.stats = IngestStats()
        self._judging = judging_of(settings, clock)
        if self._judging is not None:
            self.stats.broken_rules = self._judging.broken

    def report(self) -> Report:
        """For metrics and health."""
        return self.stats.report(driving=self.driving, positions=self.positions())

    def _make_driver(self, reader: JournalReader) -> Driver:
        return JournalDriver(
            reader,
            connect=counted_tries(self.database.connect, self.stats),
            make_pipeline=self._pipeline,
            host=self._host,
            clock=self._clock,
            batch_frames=self._settings.ingest.batch_frames,
            stop=self._stop,
        )

    def _pipeline(self, connection: Connection, journal_id: int, cursors: list[int]) -> Pipeline:
        return _pipeline(self._settings, self.stats, self._judging, connection, journal_id, cursors)


def books_for(settings: Settings, clock: Clock) -> Callable[[Connection, IngestStats], Books]:
    """For a worker: the pipelines of one connection."""
    judging = judging_of(settings, clock)

    def make(connection: Connection, stats: IngestStats) -> Books:
        if judging is not None:
            stats.broken_rules = judging.broken
        return Books(connection, partial(_pipeline, settings, stats, judging))

    return make


def _pipeline(
    settings: Settings,
    stats: IngestStats,
    judging: Judging | None,
    connection: Connection,
    journal_id: int,
    cursors: list[int],
) -> Pipeline:
    pipeline = CountedPipeline(
        connection, journal_id, cursors, protocols=PROTOCOLS, rules=rules_of(settings), judging=judging
    )
    pipeline.stats = stats
    return pipeline


def judging_of(settings: Settings, clock: Clock) -> Judging | None:
    """What marks signals; None if that is off. Raises SettingsError for rules that cannot be used."""
    return Judging(rulebook_of(settings.quality), clock) if settings.quality.enabled else None


def rules_of(settings: Settings) -> Rules:
    """The settings that decide where a record goes."""
    return Rules(
        register_unknown=settings.unknown_devices == "register",
        retention=Retention.by(settings.ingest),
        register_line=f"signalkeep devices add {{}}{data_option(settings)}",
    )
