"""The TCP shell over real sockets, with a journal whose syncs the test owns: no answer before the sync, ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from signalkeep import limits
from signalkeep.clock import SystemClock
from signalkeep.gateway.intake import Intake, Shut
from signalkeep.gateway.policy import Caps, Policy
from signalkeep.gateway.shared import Shared
from signalkeep.gateway.tcp import Port, TcpConnection
from signalkeep.journal.record import Entry, FrameEntry, SessionEntry
from signalkeep.journal.writer import JournalWriter
from signalkeep.model import Reason
from signalkeep.sections import GatewaySettings
from tests.gateway.devices import cut, silent
from tests.gateway.toy import TOY
from tests.servers import wait_until_async

ROOMY = Caps(1 << 40, 1 << 40, 1 << 40)


class HandJournal:
    """Takes entries; they become durable, or fail, when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[FrameEntry, Callable[[bool], None]]] = []
        self.sessions: list[SessionEntry] = []
        self.pending_bytes = 0

    def append(self, entry: Entry, on_done: Callable[[bool], None] | None = None) -> None:
        if isinstance(entry, SessionEntry):
            assert on_done is None, "nobody waits for them"
            self.sessions.append(entry)
            return
        assert isinstance(entry, FrameEntry)
        assert on_done is not None
        self.waiting.append((entry, on_done))
        self.pending_bytes += len(entry.raw)

    def sync(self, number: int = 10**9, *, durable: bool = True) -> None:
        done, self.waiting = self.waiting[:number], self.waiting[number:]
        for entry, on_done in done:
            self.pending_bytes -= len(entry.raw)
            on_done(durable)


class Gateway:
    def __init__(self, **settings: Any) -> None:
        self.journal = HandJournal()
        self.shared = Shared(
            writer=cast(JournalWriter, self.journal),
            intake=Intake(),
            policy=Policy("quarantine", ROOMY),
            clock=SystemClock(),
            settings=GatewaySettings(**settings),
        )
        self.port = 0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def has(self, number: int) -> None:
        await wait_until_async(lambda: len(self.journal.waiting) >= number, what=f"{number} frames in the journal")


@asynccontextmanager
async def gateway(**settings: Any) -> AsyncIterator[Gateway]:
    made = Gateway(**settings)
    server = await asyncio.get_running_loop().create_server(Port(made.shared, TOY).connection, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for connection in list(made.shared.connections):
            connection.abort()


async def test_no_answer_before_the_sync() -> None:
    async with gateway() as made:
        reader, writer = await made.connect()
        writer.write(b"I 1\nF a\nF b\n")
        assert await reader.readexactly(6) == b"hello;"
        await made.has(2)
        assert await silent(reader)
        made.journal.sync(1)
        assert await reader.readexactly(4) == b"A a;"
        assert await silent(reader)
        made.journal.sync()
        assert await reader.readexactly(4) == b"A b;"
        writer.close()


async def test_a_frame_that_could_not_be_stored_cuts_the_connection_without_an_answer() -> None:
    async with gateway() as made:
        reader, writer = await made.connect()
        writer.write(b"I 1\nF a\n")
        await reader.readexactly(6)
        await made.has(1)
        made.journal.sync(durable=False)
        assert await cut(reader)
        writer.close()


async def test_a_half_closed_device_is_answered_then_closed() -> None:
    async with gateway() as made:
        reader, writer = await made.connect()
        writer.write(b"I 1\nF a\n")
        writer.write_eof()
        await made.has(1)
        assert await reader.readexactly(6) == b"hello;"
        made.journal.sync()
        assert await reader.read() == b"A a;"
        writer.close()


async def test_a_device_that_cut_the_line_leaves_its_frame_stored() -> None:
    async with gateway() as made:
        reader, writer = await made.connect()
        writer.write(b"I 1\nF a\n")
        await reader.readexactly(6)
        await made.has(1)
        writer.transport.abort()
        assert len(made.journal.waiting) == 1
        made.journal.sync()
        await wait_until_async(lambda: not made.shared.connections)


async def test_one_connection_cannot_pile_up_more_than_its_share() -> None:
    async with gateway() as made:
        reader, writer = await made.connect()
        writer.write(b"I 1\n")
        await reader.readexactly(6)
        frame = b"F " + b"x" * 1000 + b"\n"
        total = 20_000
        sending = asyncio.create_task(_send(writer, frame, total))
        most = 0
        stored = 0
        while stored < total:
            await made.has(1)
            await asyncio.sleep(0)
            most = max(most, len(made.journal.waiting))
            stored += len(made.journal.waiting)
            made.journal.sync()
            await reader.read(1 << 20)
        await sending
        assert most < total // 4, "reading paused while much was held"
        writer.close()


async def _send(writer: asyncio.StreamWriter, frame: bytes, count: int) -> None:
    for _ in range(count // 100):
        writer.write(frame * 100)
        await writer.drain()


async def test_a_shut_intake_leaves_bytes_with_the_device_until_it_opens() -> None:
    async with gateway() as made:
        reader, writer = await made.connect()
        writer.write(b"I 1\n")
        await reader.readexactly(6)
        made.shared.intake.set(Shut.DISK, True)
        writer.write(b"F a\n")
        await writer.drain()
        assert await silent(reader)
        late_reader, late_writer = await made.connect()
        late_writer.write(b"I 2\n")
        assert await silent(late_reader)
        assert made.journal.waiting == []
        made.shared.intake.set(Shut.DISK, False)
        assert await late_reader.readexactly(6) == b"hello;"
        await made.has(1)
        made.journal.sync()
        assert await reader.readexactly(4) == b"A a;"
        writer.close()
        late_writer.close()


async def test_too_much_pending_shuts_the_intake_and_a_sync_opens_it() -> None:
    async with gateway() as made:
        made.journal.pending_bytes = limits.JOURNAL_PENDING_BYTES_MAX
        reader, writer = await made.connect()
        writer.write(b"I 1\nF a\n")
        await made.has(1)
        assert not made.shared.intake.open
        made.journal.pending_bytes = 1
        made.journal.sync()
        assert made.shared.intake.open
        assert await reader.readexactly(10) == b"hello;A a;"
        writer.close()


async def test_more_connections_than_allowed_are_refused_and_counted() -> None:
    async with gateway(connections_max=1) as made:
        _, first = await made.connect()
        await wait_until_async(lambda: len(made.shared.connections) == 1)
        reader, second = await made.connect()
        assert await cut(reader)
        assert made.shared.refusals == {Reason.CONNECTION_LIMIT: 1}
        first.close()
        second.close()


async def test_a_mistake_of_ours_costs_one_connection() -> None:
    async with gateway() as made:
        _, broken = await made.connect()
        reader, writer = await made.connect()
        broken.write(b"I 1\nE\n")
        await wait_until_async(lambda: made.shared.refusals.get(Reason.GATEWAY_ERROR) == 1)
        writer.write(b"I 2\nF a\n")
        await made.has(1)
        made.journal.sync()
        assert await reader.readexactly(10) == b"hello;A a;"
        broken.close()
        writer.close()


class Line(asyncio.Transport):
    """A connection whose other end takes nothing: only whether it is read is of interest."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass


async def test_a_device_that_does_not_take_its_answers_is_not_read() -> None:
    async with gateway() as made:
        line, connection = Line(), TcpConnection(Port(made.shared, TOY))
        connection.connection_made(line)
        assert line.reading
        connection.pause_writing()
        assert not line.reading
        connection.resume_writing()
        assert line.reading
        connection.connection_lost(None)


async def test_many_answers_that_promise_nothing_do_not_stop_a_connection() -> None:
    """They fill what may be held, and leave at once: nothing of the journal's would ever set it going again."""
    async with gateway() as made:
        reader, writer = await made.connect()
        writer.write(b"I 1\n" + b"H\n" * 5000 + b"F a\n")
        assert await reader.readexactly(6) == b"hello;"
        assert await reader.readexactly(5 * 5000) == b"beat;" * 5000
        await made.has(1)
        made.journal.sync()
        assert await reader.readexactly(4) == b"A a;"
        writer.close()
