"""A whole gateway on this machine's disk, whose faults the test owns: no answer for what is not on it (P1, P7)."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from signalkeep import limits
from signalkeep.clock import SystemClock
from signalkeep.config import Settings, load
from signalkeep.errors import AlreadyRunning, SyncFailed
from signalkeep.gateway.listen import probe_ports
from signalkeep.gateway.service import GatewayService
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.reader import Chunk, JournalReader
from signalkeep.journal.record import Entry, FrameEntry, TallyEntry
from signalkeep.journal.retention import remove_journal
from signalkeep.journal.writer import JournalWriter
from signalkeep.model import Reason
from signalkeep.roles import prepare_directories
from signalkeep.sections import DatabaseSettings
from signalkeep.store import registry
from signalkeep.store.postgres import Connection
from tests.gateway.devices import answer, cut, silent
from tests.servers import free_port, wait_until_async

SEGMENT_BYTES = limits.SEGMENT_BYTES_MIN
NO_DATABASE = "postgresql://nobody@127.0.0.1:1/nowhere"


class Disk(LocalFileSystem):
    """`full`: writes find no room. `broken`: syncs fail. `gate`: syncs wait for it. `looks`: free space asked."""

    def __init__(self) -> None:
        self.full = self.broken = False
        self.free = 1 << 50
        self.gate = threading.Event()
        self.gate.set()
        self.looks = 0

    def datasync(self, file: int) -> None:
        assert self.gate.wait(30)
        if self.broken:
            raise SyncFailed("the disk is gone")
        super().datasync(file)

    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().pwrite(file, data, offset)

    def free_bytes(self, path: Path) -> int:
        self.looks += 1
        return self.free


class HurriedClock(SystemClock):
    """Real time, and as much more as the test says."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


class Running:
    """A gateway that serves."""

    def __init__(self, settings: Settings, disk: Disk) -> None:
        self.disk = disk
        self.clock = HurriedClock()
        self.stop = asyncio.Event()
        self.service = GatewayService(settings, fs=disk, clock=self.clock, stop=self.stop)
        self.ports: dict[str, int] = {}
        self.task = asyncio.create_task(self.service.run(self.ports.update))

    async def device(self, protocol: str = "json") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        await wait_until_async(lambda: self.ports or self.task.done(), what="the gateway listens")
        return await asyncio.open_connection("127.0.0.1", self.ports[protocol])

    async def looked(self, times: int = 3) -> None:
        """Until the gateway has looked after itself that many times more."""
        wanted = self.disk.looks + times
        await wait_until_async(lambda: self.disk.looks >= wanted, what="the gateway looks after itself")

    async def end(self) -> None:
        self.stop.set()
        async with asyncio.timeout(30):
            await self.task

    def entries(self) -> list[Entry]:
        """Everything durable in its journal."""
        writer = self.service.writer
        reader = JournalReader(LocalFileSystem(), writer.directory, evidence_root=writer.directory.parent)
        found: list[Entry] = []
        while items := reader.read(1000, 1 << 20):
            found += [entry for item in items if isinstance(item, Chunk) for entry in item.entries]
        return found

    def refused(self) -> dict[str, int]:
        """The sums of all tallies."""
        sums: dict[str, int] = {}
        for entry in self.entries():
            if isinstance(entry, TallyEntry):
                sums.update({reason: sums.get(reason, 0) + count for reason, count in entry.counts.items()})
        return sums


def settings_in(path: Path, **values: str) -> Settings:
    """Settings with ports of their own. Names as in the environment, without the prefix."""
    given = {
        "GATEWAY__HOST": "127.0.0.1",
        "GATEWAY__PORTS": json.dumps({"json": 0, "teltonika": 0}),
        "JOURNAL__SEGMENT_BYTES": str(SEGMENT_BYTES),
        "DATABASE__DSN": NO_DATABASE,
        **values,
    }
    settings = load(path / "data", environ={f"SIGNALKEEP_{name}": value for name, value in given.items()})
    prepare_directories(settings)
    return settings


@asynccontextmanager
async def running(settings: Settings, disk: Disk | None = None) -> AsyncIterator[Running]:
    made = Running(settings, disk or Disk())
    try:
        yield made
    finally:
        made.disk.gate.set()
        made.stop.set()
        with suppress(SyncFailed):
            await made.task


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the gateway does every second, it does at once."""
    monkeypatch.setattr(limits, "TALLY_INTERVAL_S", 0.01)


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the gateway does every second, it does not in this test."""
    monkeypatch.setattr(limits, "TALLY_INTERVAL_S", 3600.0)


def event(number: int) -> bytes:
    return b'{"device_number": "1", "message_date": "2026-01-01T00:00:%02dZ"}' % number


async def test_a_failed_sync_ends_the_process_and_nobody_is_answered(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as made:
        reader, writer = await made.device()
        idle_reader, idle_writer = await made.device()
        writer.write(event(1))
        assert await answer(reader, 1) == b"1"
        made.disk.broken = True
        writer.write(event(2))
        assert await cut(reader)
        async with asyncio.timeout(30):
            with pytest.raises(SyncFailed):
                await made.task
        assert await cut(idle_reader), "those that wait for nothing are not kept either"
        with pytest.raises(ConnectionError):
            await made.device()
        made.disk.broken = False
        assert [entry.raw for entry in made.entries() if isinstance(entry, FrameEntry)][:1] == [event(1)]
        writer.close()
        idle_writer.close()


async def test_without_room_nobody_is_answered_and_with_room_all_goes_on(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as made:
        reader, writer = await made.device()
        writer.write(event(1))
        assert await answer(reader, 1) == b"1"
        made.disk.full = True
        for _ in range(3):
            full_reader, full_writer = await made.device()
            full_writer.write(event(2))
            assert await cut(full_reader)
            full_writer.close()
        assert not made.task.done(), "no room fails the batch, not the process"
        made.disk.full = False
        writer.write(event(3))
        assert await answer(reader, 1) == b"1", "on a connection that had asked for nothing meanwhile"
        writer.close()
        await made.end()
        assert [entry.raw for entry in made.entries() if isinstance(entry, FrameEntry)] == [event(1), event(3)]


@pytest.mark.usefixtures("never")
async def test_below_the_floor_of_the_disk_nothing_is_read_from_the_first_moment_on(tmp_path: Path) -> None:
    disk = Disk()
    disk.free = limits.DISK_FREE_BYTES_MIN - 1
    async with running(settings_in(tmp_path), disk) as made:
        reader, writer = await made.device()
        writer.write(event(1))
        assert await silent(reader)
        await made.end()
        assert made.entries() == []
        writer.close()


@pytest.mark.usefixtures("often")
async def test_the_cap_counts_every_journal_and_reading_goes_on_when_one_goes(tmp_path: Path) -> None:
    """P7: up to a stated cap, then it stops reading; nothing is refused by that, and nothing discarded."""
    settings = settings_in(tmp_path, JOURNAL__CAP_BYTES=str(SEGMENT_BYTES * 3 // 2))
    async with running(settings) as made:
        reader, writer = await made.device()
        writer.write(event(1))
        assert await answer(reader, 1) == b"1"
        other = JournalWriter.create(made.disk, settings.journal_root, clock=made.clock, segment_bytes=SEGMENT_BYTES)
        await made.looked()
        writer.write(event(2))
        assert await silent(reader)
        other._release()  # its process is killed
        await asyncio.to_thread(remove_journal, made.disk, other.directory)
        assert await answer(reader, 1) == b"1"
        writer.close()


@pytest.mark.usefixtures("often")
async def test_refusals_are_journalled_and_none_is_forgotten_for_want_of_room(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as made:
        _, writer = await made.device()
        writer.write(b"rubbish\n" * 3)
        await wait_until_async(lambda: made.refused() == {Reason.UNFRAMABLE: 3}, what="the tally is journalled")
        made.disk.full = True
        writer.write(b"rubbish\n" * 4)
        await made.looked(5)
        made.disk.full = False
        await wait_until_async(lambda: made.refused() == {Reason.UNFRAMABLE: 7}, what="and the next takes it along")
        writer.close()


@pytest.mark.usefixtures("never")
async def test_the_last_refusals_are_journalled_at_the_end(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as made:
        reader, writer = await made.device()
        writer.write(b"rubbish\n" + event(1))
        assert await answer(reader, 1) == b"1"
        await made.end()
        assert made.refused() == {Reason.UNFRAMABLE: 1}
        writer.close()


async def test_a_stop_answers_what_was_taken(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as made:
        reader, writer = await made.device()
        made.disk.gate.clear()
        writer.write(event(1) + event(2))
        await wait_until_async(lambda: made.service.writer.pending_bytes > 0, what="the events are taken")
        made.stop.set()
        assert await silent(reader)
        made.disk.gate.set()
        assert await answer(reader, 2) == b"11"
        assert await cut(reader)
        await made.end()
        assert len([entry for entry in made.entries() if isinstance(entry, FrameEntry)]) == 2
        writer.close()


@pytest.mark.usefixtures("often")
async def test_who_outstays_a_deadline_is_closed_and_counted(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with running(settings) as made:
        mute_reader, mute_writer = await made.device()
        reader, writer = await made.device()
        writer.write(event(1))
        assert await answer(reader, 1) == b"1"
        made.clock.ahead_s = settings.gateway.handshake_s + 1
        assert await cut(mute_reader)
        await made.looked()
        writer.write(event(2))
        assert await answer(reader, 1) == b"1", "it has said something whole: the longer deadline holds"
        made.clock.ahead_s += settings.gateway.idle_s + 1
        assert await cut(reader)
        await made.end()
        assert made.refused() == {Reason.TIME_OUT: 2}
        mute_writer.close()
        writer.close()


@pytest.mark.usefixtures("often")
async def test_a_device_that_waits_for_the_journal_is_not_overdue(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as made:
        reader, writer = await made.device()
        made.disk.gate.clear()
        writer.write(event(1))
        await wait_until_async(lambda: made.service.writer.pending_bytes > 0, what="the event is taken")
        made.clock.ahead_s = 1e6
        await made.looked()
        made.disk.gate.set()
        assert await answer(reader, 1) == b"1"
        writer.close()


@pytest.mark.usefixtures("often")
async def test_a_device_that_nobody_read_is_not_overdue_when_reading_begins_again(tmp_path: Path) -> None:
    disk = Disk()
    disk.free = 0
    async with running(settings_in(tmp_path), disk) as made:
        reader, writer = await made.device()
        writer.write(event(1))
        await made.looked()
        made.clock.ahead_s = 1e6
        await made.looked()
        made.disk.free = 1 << 50
        assert await answer(reader, 1) == b"1"
        await made.end()
        assert made.refused() == {}
        writer.close()


def test_a_port_that_is_taken_is_named_before_anything_starts() -> None:
    """Even where the other would share it: two gateways that do not know of each other must not."""
    port = free_port()
    probe_ports("127.0.0.1", {"json": port})
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(AlreadyRunning, match=str(port)):
            probe_ports("127.0.0.1", {"json": port})


async def login(made: Running, device_number: str) -> bytes:
    """The answer to a Teltonika unit that says who it is."""
    reader, writer = await made.device("teltonika")
    writer.write(len(device_number).to_bytes(2, "big") + device_number.encode())
    said = await answer(reader, 1)
    writer.close()
    return said


@pytest.mark.servers
async def test_the_registry_is_followed_and_remembered_while_the_database_is_away(
    tmp_path: Path, dsn: str, connection: Connection
) -> None:
    known, late, unknown = "356307042441013", "356307042441014", "356307042441015"
    await registry.register(connection, known, actor="tests")
    settings = settings_in(tmp_path, DATABASE__DSN=NO_DATABASE, UNKNOWN_DEVICES="refuse")
    async with running(settings) as made:
        assert await login(made, known) == b"\x00", "nobody has ever told us who is known"
    with_database = settings.model_copy(update={"database": DatabaseSettings.model_validate({"dsn": dsn})})
    async with running(with_database) as made:
        await wait_until_async(lambda: accepted(made, known), what="the registry is read")
        assert await login(made, late) == b"\x00"
        await registry.register(connection, late, actor="tests")
        await wait_until_async(lambda: accepted(made, late), what="a change is heard of")
    async with running(settings) as made:
        assert [await login(made, number) for number in (known, late, unknown)] == [b"\x01", b"\x01", b"\x00"]


async def accepted(made: Running, device_number: str) -> bool:
    return await login(made, device_number) == b"\x01"
