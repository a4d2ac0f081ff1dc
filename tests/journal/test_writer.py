"""The writer as its callers see it: order of answers, counters, group commit, the end, and what it leaves behind."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from signalkeep import limits
from signalkeep.errors import EnvironmentFault, SyncFailed
from signalkeep.journal import record
from signalkeep.journal import writer as writer_module
from signalkeep.journal.reader import find_journals, segments
from signalkeep.journal.record import SegmentHeader, encode_entry, unpack_batch_header, unpack_segment_header
from signalkeep.journal.writer import JournalWriter
from tests.journal.simdisk import SimDisk
from tests.journal.support import (
    ROOT,
    SEGMENT_BYTES,
    FixedClock,
    Run,
    entries_of,
    frame,
    new_disk,
    new_reader,
    new_writer,
    read_all,
)


class Gate:
    """Runs a job when it is opened; what a slow disk does to the writer."""

    def __init__(self) -> None:
        self.open = asyncio.Semaphore(0)
        self.jobs = 0

    async def __call__(self, job: Callable[[], None]) -> None:
        await self.open.acquire()
        self.jobs += 1
        job()


def slow_writer(disk: SimDisk, gate: Gate) -> JournalWriter:
    return JournalWriter.create(disk, ROOT, clock=FixedClock(), segment_bytes=1 << 20, run_blocking=gate)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_while_one_batch_is_synced_the_next_one_fills() -> None:
    disk, gate, answers = new_disk(), Gate(), []
    writer = slow_writer(disk, gate)
    task = asyncio.create_task(writer.run())

    def append(number: int) -> None:
        writer.append(frame(number), lambda durable: answers.append((number, durable)))

    append(1)
    await turns()
    for number in range(2, 50):
        append(number)
    assert writer.pending_bytes == sum(len(encode_entry(frame(number))) for number in range(1, 50))
    await turns()
    assert answers == []
    assert writer.durable_seq == 0
    gate.open.release()
    await turns()
    assert answers == [(1, True)]
    assert writer.durable_seq == 1
    gate.open.release()
    await turns()
    assert answers == [(number, True) for number in range(1, 50)]
    assert gate.jobs == 2, "all that had waited went in one batch"
    assert writer.durable_seq == 49
    assert writer.pending_bytes == 0
    for _ in range(3):
        gate.open.release()
    await writer.close()
    await task


async def test_preparing_the_next_segment_holds_nobody_up_until_it_is_needed() -> None:
    """And a journal that closes meanwhile waits for it, so that no thread writes into a closed file."""
    disk, ready = new_disk(), asyncio.Event()
    answers: list[bool] = []

    async def slow_to_prepare(job: Callable[[], None]) -> None:
        if isinstance(job, partial):
            await ready.wait()
        job()
        await asyncio.sleep(0)

    writer = JournalWriter.create(
        disk, ROOT, clock=FixedClock(), segment_bytes=SEGMENT_BYTES, run_blocking=slow_to_prepare
    )
    task = asyncio.create_task(writer.run())
    for number in range(1, 9):  # the header, four batches and a seal are what a segment holds
        writer.append(frame(number), answers.append)
        await turns()
    assert answers == [True] * 4
    assert writer.bytes_used == SEGMENT_BYTES
    closing = asyncio.create_task(writer.close())
    await turns()
    assert not closing.done()
    ready.set()
    await closing
    await task
    assert answers == [True] * 8
    assert entries_of(read_all(new_reader(disk, writer.directory))) == [frame(number) for number in range(1, 9)]


async def test_a_sync_that_fails_while_a_segment_is_prepared_stops_the_journal_at_once() -> None:
    disk = new_disk()
    run = Run(disk, seed=1)
    run.start()
    for number in (1, 2):
        run.append(frame(number))
        await run.settle()

    def fail(name: str) -> None:
        if name == "sync":
            raise OSError(errno.EIO, "broken")

    disk.before = fail
    run.append(frame(3))
    await turns()
    assert run.task is not None
    assert run.task.done(), "though nobody appends anything more"
    with pytest.raises(SyncFailed):
        await run.task
    run.append(frame(4))
    assert run.refused == [frame(4)]


async def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BATCH_ENTRIES_MAX", 7)
    monkeypatch.setattr(limits, "BATCH_BYTES_MAX", 3_000)
    disk = new_disk()
    run = Run(disk, seed=1, segment_bytes=1 << 20)
    for number in range(1, 101):
        run.append(frame(number, 0 if number <= 50 else 900))
    run.start()
    await run.settle()
    writes = [arguments[1] for name, arguments in disk.log if name == "pwrite"]
    batches = [header for data in writes if (header := unpack_batch_header(data, offset=place(data), seed=None))]  # type: ignore[arg-type]  # bytes, as pwrite takes
    assert max(batch.count for batch in batches) == 7
    assert 2_000 < max(batch.body_bytes for batch in batches) <= 3_000
    await run.close()
    assert run.stored == run.appended


def place(data: object) -> int:
    assert isinstance(data, bytes)
    return int.from_bytes(data[4:8], "big") * 4096


async def test_nothing_is_taken_after_close() -> None:
    run = Run(new_disk(), seed=1)
    run.start()
    run.append(frame(1))
    closing = asyncio.create_task(run.writer.close())
    await asyncio.sleep(0)
    run.append(frame(2))
    assert run.refused == [frame(2)], "at once"
    await closing
    assert run.stored == [frame(1)], "what was taken before is stored"
    await run.close()


async def test_close_without_a_run_stores_what_was_appended() -> None:
    disk = new_disk()
    run = Run(disk, seed=1)
    run.append(frame(1))
    await run.writer.close()
    assert run.stored == [frame(1)]
    assert entries_of(read_all(new_reader(disk, run.writer.directory))) == [frame(1)]
    await run.writer.close()


async def test_a_cancelled_run_answers_no_and_takes_nothing_more() -> None:
    disk, gate = new_disk(), Gate()
    writer = slow_writer(disk, gate)
    answers: list[bool] = []
    task = asyncio.create_task(writer.run())
    writer.append(frame(1), answers.append)
    await turns()
    writer.append(frame(2), answers.append)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert answers == [False, False]
    writer.append(frame(3), answers.append)
    assert answers == [False, False, False]
    with pytest.raises(SyncFailed):
        await writer.close()


async def test_a_callback_that_fails_costs_nobody_else_an_answer() -> None:
    problems: list[object] = []

    def fail(_: bool) -> None:
        raise ZeroDivisionError

    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context["exception"]))
    run = Run(new_disk(), seed=1)
    run.start()
    run.append(frame(1))
    run.writer.append(frame(2), fail)
    run.append(frame(3))
    run.writer.append(frame(4))
    await run.close()
    assert run.stored == [frame(1), frame(3)]
    assert [type(problem) for problem in problems] == [ZeroDivisionError]


async def test_segments_are_linked_and_say_what_they_are() -> None:
    disk = new_disk()
    writer = new_writer(disk, lanes=64)
    task = asyncio.create_task(writer.run())
    for number in range(1, 40):
        writer.append(frame(number, 2_000))
        await turns(3)
    await writer.close()
    await task
    found = segments(disk, writer.directory)
    assert len(found) > 3
    salts, chain = set(), 0
    for first_seq, path, size in found:
        data = disk.content(path)
        assert size == len(data)
        header = unpack_segment_header(data[:4096])
        assert isinstance(header, SegmentHeader)
        assert (header.journal_id, header.first_seq, header.lanes) == (writer.journal_id, first_seq, 64)
        assert header.created_at_us == 1_714_521_600_000_000
        assert header.previous_chain == chain
        salts.add(header.salt)
        offset, chain, seq = 4096, header.crc, first_seq
        while (batch := unpack_batch_header(data[offset:], offset=offset, seed=header.seed)) and batch.count:
            assert (batch.chain, batch.first_seq) == (chain, seq)
            offset, chain, seq = batch.end, batch.crc, batch.next_seq
    assert len(salts) == len(found)
    assert batch is not None, "the journal ends with a seal"
    assert batch.first_seq == 40
    assert len(data) == offset + 4096, "and is no larger than what it holds"
    reader = new_reader(disk, writer.directory)
    assert reader.lanes == 64
    assert reader.journal_id == writer.journal_id


async def test_bytes_used_counts_what_is_on_the_disk() -> None:
    disk = new_disk()
    run = Run(disk, seed=2)
    run.start()
    prepared = 0
    for _ in range(10):
        await run.go(5)
        await turns()
        names = disk.listdir(run.writer.directory)
        assert run.writer.bytes_used == sum(len(disk.content(run.writer.directory / name)) for name in names)
        prepared += "next.tmp" in names
    assert prepared > 3
    await run.close()
    names = disk.listdir(run.writer.directory)
    assert "next.tmp" not in names
    assert run.writer.bytes_used == sum(len(disk.content(run.writer.directory / name)) for name in names)


async def test_every_writer_has_a_journal_of_its_own() -> None:
    disk = new_disk()
    writers = [new_writer(disk, seed) for seed in range(3)]
    assert sorted(writer.directory for writer in writers) == find_journals(disk, ROOT)
    with pytest.raises(EnvironmentFault):
        new_writer(disk, 0)
    readers = [new_reader(disk, writer.directory) for writer in writers]
    assert all(reader.alive for reader in readers)
    await writers[1].close()
    for reader in readers:
        reader.read(1, 1)
    assert [reader.alive for reader in readers] == [True, False, True]


async def test_no_room_is_reported_once_and_its_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Log:
        def error(self, event: str, **_: object) -> None:
            said.append(event)

        info = error

    monkeypatch.setattr(writer_module, "log", Log())
    disk = new_disk()
    run = Run(disk, seed=1)
    run.start()

    def fail(name: str) -> None:
        if name == "pwrite":
            raise OSError(errno.ENOSPC, "no room")

    disk.before = fail
    for number in range(3):
        run.append(frame(number))
        await run.settle()
    disk.before = lambda _: None
    run.append(frame(4))
    run.append(frame(5))
    await run.close()
    assert said == ["journal takes nothing", "journal has room again"]
    assert len(run.refused) == 3


async def test_what_waits_behind_a_batch_without_room_is_not_stored_without_it() -> None:
    """Two frames of one connection: the second alone would be stored out of order when both are sent again."""
    disk, gate = new_disk(), Gate()
    answers: list[tuple[int, bool]] = []
    writer = slow_writer(disk, gate)
    task = asyncio.create_task(writer.run())

    def append(number: int) -> None:
        writer.append(frame(number), lambda durable: answers.append((number, durable)))

    def fail(name: str) -> None:
        if name == "pwrite":
            raise OSError(errno.ENOSPC, "no room")

    append(1)
    await turns()
    append(2)
    disk.before = fail
    gate.open.release()
    await turns()
    assert answers == [(1, False), (2, False)]
    disk.before = lambda _: None
    append(3)
    for _ in range(4):
        gate.open.release()
    await writer.close()
    await task
    assert entries_of(read_all(new_reader(disk, writer.directory))) == [frame(3)]
    assert writer.pending_bytes == 0


async def test_a_newer_format_is_kept_and_named_and_not_called_lost() -> None:
    disk = new_disk()
    run = Run(disk, seed=2)
    run.start()
    await run.go(30)
    await run.close()
    for _, path, _ in segments(disk, run.writer.directory):
        disk.damage(path, newer)
    reader = new_reader(disk, run.writer.directory)
    for _ in range(3):
        assert reader.read(10, 10_000) == []
    assert not reader.alive
    assert not reader.finished
    assert "format 9" in reader.refused
    assert reader.lanes == 1


def newer(data: bytes) -> bytes:
    header = unpack_segment_header(data)
    assert isinstance(header, SegmentHeader)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "VERSION", 9)
        return record.pack_segment_header(header) + data[4096:]


def test_the_journal_and_its_place_are_durable_from_the_first_moment() -> None:
    disk = new_disk()
    disk.log.clear()
    writer = new_writer(disk)
    names = [(name, arguments[0]) for name, arguments in disk.log if name in ("rename", "sync_directory")]
    assert names[-3:] == [
        ("rename", Path(f"{writer.directory}.new")),
        ("sync_directory", ROOT),
        ("sync_directory", ROOT.parent),
    ]
