"""One virtual device: makes records on schedule, sends them, and keeps each until it is told that it is safe.

    due ──> backlog ──send──> waiting for the answer ──acknowledged──> told safe (oracle), forgotten
               ^                        │
               └── cut, refused, time-out, wrong answer: reconnect after a pause; the same records go out
                   again in packets with other boundaries, newer records with them

Promises: a record leaves the backlog only when an answer covers it; whatever is sent begins with the
oldest record that is not acknowledged, without gaps, so first deliveries are in order; a record is noted
as sent before its first byte leaves, and as safe the moment the answer is there. On purpose it cuts some
connections before the answer and sends some packets in pieces, by its own random source: the same seed
gives the same records and the same intentions.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.model import Signal
from signalkeep.protocols.contract import Encoder
from signalkeep.simulate.answers import Answers, BadAnswerError
from signalkeep.simulate.drive import Drive
from signalkeep.simulate.oracle import OracleWriter, line_of

PIECES_SHARE: Final = 0.05  # of the packets, sent in several pieces
TORN_SHARE: Final = 0.3  # of our own cuts, come within the packet instead of behind it
PIECE_PAUSE_S: Final = 0.005
MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass
class Counts:
    """What a fleet did, in records unless the name says otherwise."""

    generated: int = 0
    sent: int = 0  # transmissions, first ones and re-sends
    resent: int = 0
    told_safe: int = 0
    packets: int = 0
    connections: int = 0
    own_cuts: int = 0  # connections that units closed on purpose
    failures: int = 0  # connections refused, cut, timed out or answered wrongly by the other side

    @property
    def unconfirmed(self) -> int:
        return self.generated - self.told_safe


@dataclass
class Shared:
    """What all units of a fleet have in common."""

    host: str
    port: int
    encoder: Encoder
    answers: Answers
    clock: Clock
    start: datetime  # wall time of the fleet's start
    started_s: float  # the same moment on the monotonic clock
    interval_s: float  # between two records of one unit
    duration_s: float  # no record is due from here on; infinite until stopped
    cut_rate: float  # share of the packets whose connection the unit cuts itself
    oracle: OracleWriter | None
    answer_s: float
    retry_s: float  # the first pause, doubled up to the limit
    counts: Counts = field(default_factory=Counts)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)  # set: make no more records, send what is left
    connecting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(limits.SIMULATED_CONNECTING_MAX))


@dataclass(frozen=True)
class _Record:
    order: int
    signal: Signal
    line: bytes


class Unit:
    """`run` returns when every record that was due is acknowledged; cancel it to give the rest up."""

    def __init__(self, shared: Shared, number: str, *, offset_s: float, drive: Drive, source: random.Random) -> None:
        self.number = number
        self._shared = shared
        self._offset_s = offset_s  # of its first record, so that a fleet starts staggered
        self._drive = drive
        self._random = source
        self._backlog: deque[_Record] = deque()
        self._made = 0
        self._last_at = shared.start
        self._sent_order = 0  # highest that ever left
        self._failures = 0  # in a row
        self._failed_size = 0  # of the packet that was not acknowledged
        self._packet_size = source.randint(1, limits.SIMULATED_PACKET_RECORDS_MAX)

    async def run(self) -> None:
        while await self._packet_due():
            try:
                await self._connected()
            except (OSError, BadAnswerError):  # TimeoutError is an OSError
                self._shared.counts.failures += 1
                self._failures += 1
            if self._failures:
                await asyncio.sleep(self._pause_s())

    async def _connected(self) -> None:
        """One connection: log in, then packet after packet. Return when all is done, or after our own cut."""
        shared = self._shared
        async with shared.connecting, asyncio.timeout(shared.answer_s):
            reader, writer = await asyncio.open_connection(shared.host, shared.port)
        shared.counts.connections += 1
        try:
            async with asyncio.timeout(shared.answer_s):
                _send(writer, shared.encoder.encode_login(self.number))
                await shared.answers.after_login(reader)
            going_on = True
            while going_on and await self._packet_due():
                async with asyncio.timeout(shared.answer_s):
                    going_on = await self._exchange(reader, writer)
        except BaseException:
            writer.transport.abort()  # whatever is left to send will be sent again
            raise
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send one packet and wait for its answer. False: the unit has cut the connection instead."""
        shared = self._shared
        batch = self._next_batch()
        self._note_sent(batch)
        packet = shared.encoder.encode_frame(self.number, [record.signal for record in batch])
        if self._random.random() < shared.cut_rate:
            shared.counts.own_cuts += 1
            self._failures += 1
            if self._random.random() < TORN_SHARE:
                packet = packet[: self._random.randrange(1, len(packet))]
            _send(writer, packet)
            await writer.drain()
            return False
        await self._write(writer, packet)
        async for accepted in shared.answers.after_packet(reader, len(batch)):
            self._note_safe(accepted)
        self._failed_size = 0
        return True

    def _next_batch(self) -> list[_Record]:
        """The oldest records that are not acknowledged; never just as many as in a packet that has failed."""
        size = min(self._packet_size, len(self._backlog))
        if size == self._failed_size and size > 1:
            size = self._random.randrange(1, size)
        self._failed_size = size  # until the answer says otherwise
        self._packet_size = self._random.randint(1, limits.SIMULATED_PACKET_RECORDS_MAX)
        return [self._backlog[index] for index in range(size)]

    async def _write(self, writer: asyncio.StreamWriter, packet: bytes) -> None:
        if self._random.random() >= PIECES_SHARE:
            _send(writer, packet)
            return
        cut_at = sorted(self._random.randrange(len(packet)) for _ in range(3))
        for begin, end in zip([0, *cut_at], [*cut_at, len(packet)], strict=True):
            _send(writer, packet[begin:end])
            await asyncio.sleep(PIECE_PAUSE_S)

    def _note_sent(self, batch: list[_Record]) -> None:
        counts = self._shared.counts
        first_time = [record for record in batch if record.order > self._sent_order]
        counts.packets += 1
        counts.sent += len(batch)
        counts.resent += len(batch) - len(first_time)
        if first_time:
            self._sent_order = first_time[-1].order
            if self._shared.oracle:
                self._shared.oracle.sent([record.line for record in first_time])

    def _note_safe(self, accepted: int) -> None:
        """The oldest `accepted` records are safe, says the other side."""
        lines = [self._backlog.popleft().line for _ in range(accepted)]
        if self._shared.oracle:
            self._shared.oracle.told_safe(lines)
        self._shared.counts.told_safe += accepted
        self._failures = 0

    def _pause_s(self) -> float:
        longest_s = min(limits.SIMULATED_RETRY_S_MAX, self._shared.retry_s * 2.0 ** min(self._failures - 1, 16))
        return longest_s * self._random.uniform(0.5, 1.0)

    async def _packet_due(self) -> bool:
        """Wait for a packet to send: enough records, or one that waits too long. False: all is done."""
        shared = self._shared
        while True:
            self._make_due()
            if self._next_due_s() >= shared.duration_s or shared.stopped.is_set():
                return bool(self._backlog)
            missing = self._packet_size - len(self._backlog)
            if missing <= 0:
                return True
            full_s = self._next_due_s() + (missing - 1) * shared.interval_s
            oldest_s = self._due_s(self._backlog[0].order) if self._backlog else self._next_due_s()
            wait_s = min(full_s, oldest_s + limits.SIMULATED_LINGER_S, shared.duration_s) - self._elapsed_s()
            if wait_s <= 0 and self._backlog:
                return True
            with suppress(TimeoutError):
                async with asyncio.timeout(max(wait_s, 0.001)):
                    await shared.stopped.wait()

    def _make_due(self) -> None:
        """Make what is due. A full backlog makes the unit late; it goes on when there is room."""
        if self._shared.stopped.is_set():
            return
        until_s = min(self._elapsed_s(), self._shared.duration_s)
        while self._next_due_s() < until_s and len(self._backlog) < limits.SIMULATED_BACKLOG_RECORDS_MAX:
            due = self._shared.start + timedelta(milliseconds=round(self._next_due_s() * 1000))
            self._last_at = max(due, self._last_at + MILLISECOND)
            self._made += 1
            signal = self._drive.step(self._last_at)
            line = line_of(self.number, self._made, signal) if self._shared.oracle else b""
            self._backlog.append(_Record(self._made, signal, line))
            self._shared.counts.generated += 1

    def _next_due_s(self) -> float:
        return self._due_s(self._made + 1)

    def _due_s(self, order: int) -> float:
        """When the record is due, in seconds from the fleet's start."""
        return self._offset_s + (order - 1) * self._shared.interval_s

    def _elapsed_s(self) -> float:
        return self._shared.clock.monotonic() - self._shared.started_s


def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write, or raise ConnectionResetError: a transport of uvloop that is closed would raise RuntimeError."""
    if writer.transport.is_closing():
        raise ConnectionResetError("the gateway has closed the connection")
    writer.write(data)
