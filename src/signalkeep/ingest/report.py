"""What an ingest process counts about itself, around its pipelines: batches, outcomes, their time, and tries again.

Counts only grow; one event loop writes and reads them. Knows no device.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from signalkeep.ingest.pipeline import Pipeline, Prepared
from signalkeep.store.postgres import Connection
from signalkeep.store.rows import Written
from signalkeep.vitals import Histogram, IngestNumbers, Report, WorkerNumbers

BATCH_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class IngestStats:
    """Since the start of this process."""

    def __init__(self) -> None:
        self.written = Written()
        self.batches = 0
        self.batch_time = Histogram.of(BATCH_BOUNDS_S)
        self.retries = 0
        self.broken_rules: Callable[[], Mapping[str, int]] = dict

    def report(self, *, driving: int, positions: Mapping[str, int], worker: WorkerNumbers | None = None) -> Report:
        return Report(
            handled=self.batches,
            numbers=IngestNumbers(
                records=msgspec.to_builtins(self.written),
                batches=self.batches,
                batch_time=self.batch_time,
                retries=self.retries,
                driving=driving,
                positions=dict(positions),
                worker=worker,
                broken_rules=dict(self.broken_rules()),
            ),
        )


class CountedPipeline(Pipeline):
    """A pipeline that counts what it wrote."""

    stats: IngestStats

    async def write(self, prepared: Prepared) -> Written:
        started_s = time.monotonic()
        written = await super().write(prepared)
        self.stats.batch_time.observe(time.monotonic() - started_s)
        self.stats.batches += 1
        self.stats.written.add(written)
        return written


def counted_tries(
    connect: Callable[[], Awaitable[Connection]], stats: IngestStats
) -> Callable[[], Awaitable[Connection]]:
    """For one driver: every connection but its first is a try again."""
    tries = 0

    async def again() -> Connection:
        nonlocal tries
        tries += 1
        stats.retries += tries > 1
        return await connect()

    return again
