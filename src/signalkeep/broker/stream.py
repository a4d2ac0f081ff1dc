"""One queue's share of one journal: read, published in order, and sent again only on evidence of loss.

A stream has a place in the journal of its own, so that a queue that stands still holds up nobody else; streams that are
about as far as each other share what one of them has read. A stream has one message on the way at a time: while that is
being confirmed, the next one gathers. What is sent and not yet in the database is bounded by the window. What happens
on failure:

    a publish fails        the same message again: nobody knows whether the broker has it, and the cursor cuts doubles
    a hole, a queue gone,  back to the cursor, in a new epoch: whatever was on the way is beside the point
    a stall                    (`Evidence`)

A stall is: sent, not in the database for long, and nothing waits in the queue. Each one waits twice as long as the one
before, so that a slow worker, which also has an empty queue, is not answered with ever more messages. What a worker has
just taken in hand has left the queue too. So the queue must be empty half of that time ago and now, on one connection:
when ours was cut, so were the workers'.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Protocol

from signalkeep import limits
from signalkeep.broker.stats import RelayStats
from signalkeep.clock import Clock
from signalkeep.errors import BrokerUnavailable, SignalkeepError
from signalkeep.journal.lanes import lane_of_entry
from signalkeep.journal.ranges import LaneRange, LostEntries, encode_range
from signalkeep.journal.reader import JournalReader, Lost
from signalkeep.journal.record import Entry, FrameEntry
from signalkeep.journal.shelf import ENTRY_BYTES, ShelfReader, last_seq
from signalkeep.retry import Backoff
from signalkeep.store.relay import LaneState
from signalkeep.tasks import end
from signalkeep.telemetry import get_logger

log = get_logger()


class Evidence(StrEnum):
    """Why a stream goes back to the cursor."""

    HOLE = "hole"  # a worker got a message and not the one before it
    VANISHED = "vanished"  # the queue was gone
    STALLED = "stalled"  # nothing waits in the queue, and the database does not have it
    RESTORED = "restored"  # the cursor itself has gone back


class Sender(Protocol):
    """What a stream needs of a broker; `publisher.Publisher` is one."""

    made: Counter[int]
    connections: int  # made so far

    async def publish(self, queue: int, body: bytes) -> int:
        """Return when it is confirmed: `made[queue]` when it was sent. Raises BrokerUnavailable if it may be lost."""

    async def depth(self, queue: int) -> int:
        """Messages that wait in a queue; afterwards it is there, and bound. Raises BrokerUnavailable."""

    def complain(self, error: SignalkeepError) -> None:
        """Say in the log that something could not be sent, unless that has just been said."""


class Stream:
    """`see` it what the database has; `run` it beside. `sent`: confirmed by the broker up to there."""

    def __init__(
        self,
        reader: JournalReader | ShelfReader,
        *,
        queue: int,
        lanes: Sequence[int],
        sender: Sender,
        clock: Clock,
        window_bytes: int,
        stats: RelayStats,
    ) -> None:
        self.queue = queue
        self.lanes = list(lanes)
        self.reader = reader
        self._sender = sender
        self._clock = clock
        self._window_max = window_bytes
        self._stats = stats
        self._window: deque[tuple[int, int]] = deque()  # last seq and bytes of what is sent and not in the database
        self._made = sender.made[queue]
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stall_s = limits.RELAY_STALL_S
        self._since_s = clock.monotonic()
        self._connections = sender.connections
        self._found_empty = False
        self._epoch_found = 0
        self._read_to = 0
        self.cursor = -1
        self.sent = 0
        self.epoch = 0
        self.noted = (-1, -1)  # sent and epoch, as the database has them

    @property
    def complete(self) -> bool:
        """The journal has ended and the database has all of our lanes."""
        return self.reader.finished and self.cursor >= self.reader.durable_seq

    @property
    def window_bytes(self) -> int:
        return sum(size for _, size in self._window)

    def see(self, states: Sequence[LaneState]) -> Evidence | None:
        """Take note of where our lanes are in the database; whether something was lost on the way."""
        cursor = min(state.cursor for state in states)
        before, self.cursor = self.cursor, cursor
        self._epoch_found = max(max(state.hole_epoch, state.epoch) for state in states)
        if before < 0:
            self._begin(states)
            return None
        if cursor != before:
            self._wait_anew()
            self._stall_s = limits.RELAY_STALL_S
        while self._window and self._window[0][0] <= cursor:
            self._window.popleft()
        self._moved.set()
        if cursor < before:
            return Evidence.RESTORED
        if max(state.hole_epoch for state in states) >= self.epoch:
            return Evidence.HOLE
        if self.sent <= cursor:  # nothing of ours can be in the queue
            self._made = self._sender.made[self.queue]
        return Evidence.VANISHED if self._sender.made[self.queue] != self._made else None

    async def suspicious(self) -> Evidence | None:
        """Ask the broker where what is missing for long has gone."""
        if self.sent <= self.cursor:
            self._wait_anew()
        if self._clock.monotonic() - self._since_s < self._stall_s / 2:
            return None
        connections, found_empty = self._connections, self._found_empty
        self._wait_anew()
        with suppress(BrokerUnavailable):
            depth = await self._sender.depth(self.queue)  # connects again, if need be
            if self._sender.made[self.queue] != self._made:
                return Evidence.VANISHED
            if self._sender.connections != connections:
                self._wait_anew()
                return None
            if depth == 0 and not found_empty:
                self._found_empty = True
                return None
            if depth == 0:
                self._stall_s = min(2 * self._stall_s, limits.RELAY_STALL_S_MAX)
                return Evidence.STALLED
        return None

    def _wait_anew(self) -> None:
        self._since_s, self._connections = self._clock.monotonic(), self._sender.connections
        self._found_empty = False

    async def go_back(self, why: Evidence) -> None:
        """To the cursor, in a new epoch; the caller notes that before `start`."""
        log.warning("sending again from the cursor", queue=self.queue, why=str(why), was=self.sent, now=self.cursor)
        await self.stop()
        self._stats.went_back[str(why)] += 1
        with suppress(SignalkeepError):  # its queue may have lost its binding alone: nothing else would say so
            await self._sender.depth(self.queue)
        self._made = self._sender.made[self.queue]
        self.epoch = max(self.epoch, self._epoch_found) + 1
        self.sent = self.cursor
        self._window.clear()

    def start(self) -> None:
        """Go on publishing, if it does not yet; raises what ended it."""
        if self._task is not None and self._task.done():
            self._task.result()
            self._task = None
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"stream {self.queue}")

    async def stop(self) -> None:
        if self._task is not None:
            await end(self._task)
            self._task = None

    def _begin(self, states: Sequence[LaneState]) -> None:
        """Where the last relay had come to: what it sent is in the queue, unless there is evidence that it is not."""
        self.sent = min(max(state.sent, state.cursor) for state in states)
        self.epoch = max(state.epoch for state in states)
        if self.sent > self.cursor:  # of unknown size: no more until it has arrived
            self._window.append((self.sent, self._window_max))

    async def _run(self) -> None:
        """Until cancelled. Returns only if a newer program is needed to read the journal."""
        published_s = self._clock.monotonic()
        self._go_to(self.sent)
        while not self.reader.refused:
            while self.window_bytes >= self._window_max:
                self._moved.clear()
                await self._moved.wait()
            if self.cursor > self.sent:  # an earlier relay had sent more than was noted
                self._go_to(self.cursor)
            began_s = self._clock.monotonic()
            try:
                message, size, more = await self._gather()
            except OSError as error:
                log.warning("journal cannot be read, trying again", error=str(error))
                self._go_to(self.sent)
                await asyncio.sleep(limits.RETRY_S_MIN)
                continue
            idle = message is None or not (message.entries or message.lost)
            patient = not self.reader.finished and began_s - published_s < limits.RELAY_IDLE_S
            if message is None or (idle and patient):
                await asyncio.sleep(limits.BROKER_GATHER_S)
                continue
            await self._publish(message, size)
            published_s = self._clock.monotonic()
            if not more:
                await asyncio.sleep(max(0.0, limits.BROKER_GATHER_S - (published_s - began_s)))

    def _go_to(self, seq: int) -> None:
        self.sent = self._read_to = seq
        self.reader.seek(seq)

    async def _gather(self) -> tuple[LaneRange | None, int, bool]:
        """The next message, its bytes (about), and whether there is more to read at once. None: nothing is new."""
        lanes, journal_lanes = set(self.lanes), self.reader.lanes
        entries: list[tuple[int, Entry]] = []
        lost: list[LostEntries] = []
        reached, size, more = self._read_to, 0, True
        while more and size < limits.BROKER_MESSAGE_BYTES_MAX and len(entries) < limits.BROKER_MESSAGE_ENTRIES_MAX:
            await asyncio.sleep(0)  # most of what is read is other queues': let their streams have their turn
            items = self.reader.read(limits.BROKER_MESSAGE_ENTRIES_MAX, limits.BROKER_MESSAGE_BYTES_MAX)
            more = bool(items) and self.reader.filled
            for item in items:
                reached = last_seq(item)
                if isinstance(item, Lost):
                    if 0 in lanes:
                        lost.append(LostEntries(item.first_seq, item.last_seq, item.why, item.evidence))
                    continue
                for seq, entry in enumerate(item.entries, item.first_seq):
                    if lane_of_entry(entry, journal_lanes) in lanes:
                        entries.append((seq, entry))
                        size += ENTRY_BYTES + (len(entry.raw) if isinstance(entry, FrameEntry) else 0)
        self._read_to = reached
        if reached == self.sent:
            return None, 0, more
        message = LaneRange(
            self.reader.journal_id, journal_lanes, self.lanes, self.epoch, self.sent, reached, entries, lost
        )
        return message, size, more

    async def _publish(self, message: LaneRange, size: int) -> None:
        """As often as it takes: the message stays the same."""
        body, backoff = encode_range(message), Backoff()
        while True:
            began_s = self._clock.monotonic()
            try:
                made = await self._sender.publish(self.queue, body)
                break
            except SignalkeepError as error:
                self._stats.failures += 1
                self._sender.complain(error)
                await asyncio.sleep(backoff.next_s())
        self._stats.published(len(body), len(message.entries), self._clock.monotonic() - began_s)
        if self.sent <= self.cursor:  # nothing of ours was in the queue before
            self._made = made
        self._wait_anew()  # a worker is given its time from here on
        self._window.append((message.last_seq, max(size, 1)))
        self.sent = message.last_seq
