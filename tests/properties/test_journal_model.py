"""The journals of an installation against a model that is a few lists, under any sequence of events.

Gateways come and go (ended, killed, cut off by a power loss), a consumer follows each journal, is set back, and lets
segments and journals go behind it. The model knows what was acknowledged; the files must never know less.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from signalkeep.journal.reader import JournalReader, Lost, find_journals, segments
from signalkeep.journal.record import Entry
from signalkeep.journal.retention import remove_journal, unlink_before
from tests.journal.simdisk import Crash
from tests.journal.support import ROOT, Run, entries_of, entry, new_disk, new_reader, numbered, read_all


class Known:
    """What the model knows of one journal."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.alive = True
        self.ingested: dict[int, Entry] = {}  # what the consumer has taken: it must never be lost by the disk
        self.cursor = 0
        self.kept_from = 1
        self.reader: JournalReader | None = None


class Journals(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.disk = new_disk()
        self.known: dict[Path, Known] = {}
        self.living: Known | None = None
        self.started = 0

    def teardown(self) -> None:
        self._stop_task()
        self.loop.close()

    def _stop_task(self) -> None:
        if self.living is not None and self.living.run.task is not None and not self.living.run.task.done():
            self.living.run.task.cancel()
            self.loop.run_until_complete(asyncio.wait([self.living.run.task]))

    def _died(self) -> None:
        """The process is gone; what its callbacks say from now on reached nobody."""
        assert self.living is not None
        self._stop_task()
        self.living.alive = False
        self.living = None

    @precondition(lambda self: self.living is None)
    @rule()
    def a_gateway_starts(self) -> None:
        self.started += 1
        run = Run(self.disk, seed=self.started)
        self.living = Known(run)
        self.known[run.writer.directory] = self.living

        async def start() -> None:
            run.start()

        self.loop.run_until_complete(start())

    @precondition(lambda self: self.living is not None)
    @rule(count=st.integers(1, 12), seed=st.integers(0, 1000), wait=st.booleans())
    def frames_arrive(self, count: int, seed: int, wait: bool) -> None:
        assert self.living is not None
        run, rng = self.living.run, random.Random(seed)

        async def append() -> None:
            for _ in range(count):
                run.append(entry(len(run.appended) + 1, rng))
                if rng.random() < 0.3:
                    await asyncio.sleep(0)
            if wait:
                await run.settle()

        self.loop.run_until_complete(append())

    @precondition(lambda self: self.living is not None)
    @rule()
    def the_gateway_ends(self) -> None:
        assert self.living is not None
        self.loop.run_until_complete(self.living.run.close())
        self.living.alive = False
        self.living = None

    @precondition(lambda self: self.living is not None)
    @rule()
    def the_gateway_is_killed(self) -> None:
        self.disk = self.disk.process_death()
        self._forget_readers()
        self._died()

    @rule(crash=st.sampled_from(Crash), seed=st.integers(0, 1000))
    def the_power_goes(self, crash: Crash, seed: int) -> None:
        self.disk = self.disk.power_loss(random.Random(seed), crash)
        self._forget_readers()
        if self.living is not None:
            self._died()

    def _forget_readers(self) -> None:
        for known in self.known.values():
            known.reader = None

    @precondition(lambda self: self.known)
    @rule(data=st.data(), entries=st.integers(1, 30))
    def the_consumer_reads(self, data: st.DataObject, entries: int) -> None:
        directory = data.draw(st.sampled_from(sorted(self.known)))
        known = self.known[directory]
        reader = self._reader(directory, known)
        items = reader.read(entries, 1 << 20)
        assert not any(isinstance(item, Lost) for item in items)
        found = numbered(items)
        if found:
            assert min(found) == known.cursor + 1
            known.cursor = max(found)
            known.ingested.update(found)

    def _reader(self, directory: Path, known: Known) -> JournalReader:
        if known.reader is None:
            known.reader = new_reader(self.disk, directory)
            known.reader.seek(known.cursor)
        return known.reader

    @precondition(lambda self: self.known)
    @rule(data=st.data(), share=st.floats(0, 1))
    def the_database_is_restored(self, data: st.DataObject, share: float) -> None:
        directory = data.draw(st.sampled_from(sorted(self.known)))
        known = self.known[directory]
        known.cursor = max(int(known.cursor * share), known.kept_from - 1)
        self._reader(directory, known).seek(known.cursor)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def old_segments_go(self, data: st.DataObject) -> None:
        directory = data.draw(st.sampled_from(sorted(self.known)))
        known = self.known[directory]
        unlink_before(self.disk, directory, known.cursor)
        found = segments(self.disk, directory)
        known.kept_from = max(known.kept_from, found[0][0])

    @precondition(lambda self: any(not known.alive for known in self.known.values()))
    @rule(data=st.data())
    def an_ended_journal_goes(self, data: st.DataObject) -> None:
        directory = data.draw(st.sampled_from(sorted(path for path, known in self.known.items() if not known.alive)))
        known = self.known[directory]
        reader = self._reader(directory, known)
        if reader.read(1, 1):
            reader.seek(known.cursor)
            return
        assert reader.finished
        assert known.cursor >= len(known.run.stored), "all that was acknowledged was read"
        remove_journal(self.disk, directory)
        del self.known[directory]

    @invariant()
    def every_journal_is_found_and_nothing_acknowledged_is_missing(self) -> None:
        assert set(find_journals(self.disk, ROOT)) == set(self.known)
        after_power_loss = self.disk.power_loss(random.Random(0), Crash.NONE)
        for directory, known in self.known.items():
            reader = new_reader(after_power_loss, directory)
            reader.seek(known.kept_from - 1)
            entries = entries_of(read_all(reader))
            assert reader.finished
            run = known.run
            assert entries == run.appended[known.kept_from - 1 :][: len(entries)]
            assert len(entries) + known.kept_from - 1 >= len(run.stored)
            for seq, item in known.ingested.items():
                assert item == run.appended[seq - 1]
                assert seq < known.kept_from + len(entries), "the database has what the disk can lose"


TestJournals = Journals.TestCase
TestJournals.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
