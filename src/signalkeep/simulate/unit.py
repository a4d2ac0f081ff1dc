"""One virtual device: makes records on schedule, sends them, and keeps each until it is told that it is safe.

    due ──> unsent ──send──> unacknowledged ──answer──> told safe (oracle), forgotten
                               │        ↑
                               └────────┘ cut, refused, time-out, wrong answer: again after a pause, in packets
                                          with other boundaries, newer records with them

    IDLE ──dial──> OPENING ──opened──> LOGIN ──accepted──> READY ──packet──> ASKED ──answer──> READY
      ^                                                                        │
      └── lost line, after a pause; gap in the coverage, until it ends <───────┘

Promises: a record is forgotten only when an answer covers it; whatever is sent begins with the record that was first
sent longest ago and is not acknowledged, without gaps, so first deliveries are in order (oldest first, or newest first
by unit, as far as there is a backlog); a record is noted as sent before its first byte leaves, and as safe before
anything else happens with its answer. On purpose a unit cuts some connections and sends some packets in pieces, by its
own random source. Records are made when they are to be sent: a backlog of the oldest-first kind costs no memory.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, NamedTuple, Protocol

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.model import Signal
from signalkeep.protocols.contract import Encoder
from signalkeep.simulate.answers import Answers, BadAnswerError, datagram_answer
from signalkeep.simulate.coverage import Coverage
from signalkeep.simulate.datagrams import datagram
from signalkeep.simulate.lines import Line
from signalkeep.simulate.oracle import OracleWriter, line_of
from signalkeep.simulate.records import Records, Schedule

PIECES_SHARE: Final = 0.05  # of the packets, sent in several pieces
TORN_SHARE: Final = 0.3  # of our own cuts, come within the packet instead of behind it
PIECE_PAUSE_S: Final = 0.005
SHORTEST_WAIT_S: Final = 0.001


@dataclass
class Counts:
    """What a fleet did, in records unless the name says otherwise."""

    generated: int = 0
    sent: int = 0  # transmissions, first ones and re-sends
    resent: int = 0
    told_safe: int = 0
    packets: int = 0
    connections: int = 0
    own_cuts: int = 0  # connections that units closed on purpose; over UDP, datagrams or answers they lost
    failures: int = 0  # connections refused, cut, timed out or answered wrongly by the other side
    gaps: int = 0  # times that a unit had something to send and no network
    last_failure: str = ""  # in words

    @property
    def unconfirmed(self) -> int:
        return self.generated - self.told_safe


class Surroundings(Protocol):
    """What a unit asks of its fleet."""

    def dial(self, unit: Unit) -> None:
        """Open a line; the unit hears `opened` or `lost`."""
        ...

    def wake(self, unit: Unit, after_s: float) -> None:
        """Call `woken` after this time, once; a later call replaces an earlier one."""
        ...

    def done(self, unit: Unit) -> None:
        """The unit has nothing more to do."""
        ...


@dataclass(slots=True)
class Shared:
    """What all units of a fleet have in common."""

    encoder: Encoder
    answers: Answers
    clock: Clock
    around: Surroundings
    is_udp: bool
    started_s: float  # on the monotonic clock
    until_s: float  # no record is due from here on, in seconds from the start; infinite until stopped
    cut_rate: float  # share of the packets whose connection the unit cuts itself
    oracle: OracleWriter | None
    answer_s: float
    retry_s: float  # the first pause, doubled up to the limit
    counts: Counts = field(default_factory=Counts)

    def elapsed_s(self) -> float:
        return self.clock.monotonic() - self.started_s


class Record(NamedTuple):
    """One that was sent, and is not acknowledged."""

    signal: Signal
    line: bytes  # for the oracle


class State(Enum):
    """What the unit waits for."""

    IDLE = auto()  # something to send, the end of a pause or of a gap; there is no line
    OPENING = auto()
    LOGIN = auto()
    READY = auto()  # something to send
    ASKED = auto()  # the answer to a packet
    DONE = auto()


class Unit:
    """Driven by what its fleet and its line tell it; never waits itself."""

    __slots__ = (
        "_buffer", "_coverage", "_datagram", "_deaf", "_due", "_failed_size", "_failures", "_in_flight", "_in_gap",
        "_line", "_made", "_newest_first", "_order", "_packet_id", "_packet_size", "_pieces", "_random", "_recorder",
        "_resend", "_schedule", "_shared", "_state", "_tries", "_unsent", "number", "wake_at_s",
    )  # fmt: skip

    def __init__(
        self,
        shared: Shared,
        number: str,
        *,
        schedule: Schedule,
        recorder: Records,
        coverage: Coverage,
        source: random.Random,
        newest_first: bool = False,
    ) -> None:
        self.number = number
        self.wake_at_s = math.inf  # of the fleet's agenda
        self._shared = shared
        self._schedule = schedule
        self._recorder = recorder
        self._coverage = coverage
        self._random = source
        self._newest_first = newest_first
        self._resend: deque[Record] = deque()  # sent at least once, in the order of their first time
        self._unsent: list[Signal] = []  # made, in their order, because newer ones were sent before
        self._due = self._made = self._order = 0  # so many records were due, made, sent
        self._state = State.IDLE
        self._in_gap = False
        self._line: Line | None = None
        self._buffer = bytearray()
        self._in_flight = 0  # records of the packet whose answer is awaited
        self._pieces: list[bytes] = []  # of the packet, still to be written
        self._packet_id = source.randrange(0x10000)
        self._datagram = b""
        self._deaf = False  # the answer to this datagram gets lost
        self._tries = 0
        self._failures = 0  # in a row
        self._failed_size = 0  # of the packet that was not acknowledged
        self._packet_size = source.randint(1, limits.SIMULATED_PACKET_RECORDS_MAX)

    @property
    def pending(self) -> int:
        """Records that were due and are not acknowledged."""
        return len(self._resend) + len(self._unsent) + self._due - self._made

    def woken(self) -> None:
        """Time has come for what was asked for."""
        match self._state:
            case State.IDLE | State.READY:
                self._go_on()
            case State.ASKED if self._pieces:
                self._write_piece()
            case State.ASKED if self._shared.is_udp and self._tries < limits.SIMULATED_DATAGRAM_TRIES_MAX:
                self._send_datagram()
            case State.LOGIN | State.ASKED:
                self.lost(self._line, f"no answer within {self._answer_s:g} s")
            case _:
                pass

    def finish(self) -> None:
        """No more records are due: send what is left."""
        self._note_due()
        if self._state in (State.IDLE, State.READY) and (self._in_gap or not self._failures):
            self._go_on()

    def close(self) -> None:
        """Give up what is left."""
        self._state = State.DONE
        if self._line is not None:
            self._line.abort()
            self._line = None

    # What the line tells

    def opened(self, line: Line) -> None:
        shared = self._shared
        if self._state is not State.OPENING:
            line.abort()
            return
        self._line = line
        if not line.is_open:
            self.lost(line, "closed by the gateway")
            return
        shared.counts.connections += 1
        login = b"" if shared.is_udp else shared.encoder.encode_login(self.number)
        if login:
            line.send(login)
        self._buffer.clear()
        self._state = State.LOGIN
        shared.around.wake(self, self._answer_s)
        self.received(line, b"")

    def received(self, line: Line, data: bytes) -> None:
        """Raises BadAnswerError for an answer that nobody can mean."""
        if line is not self._line:
            return
        if self._shared.is_udp:
            self._datagram_received(data)
            return
        self._buffer += data
        if self._state is State.LOGIN and self._shared.answers.login(self._buffer):
            self._state = State.READY
            self._go_on()
        while self._state is State.ASKED and (accepted := self._shared.answers.packet(self._buffer, self._in_flight)):
            if accepted == self._in_flight:
                self._check_is_asked_for()
            self._accepted(accepted)
        if self._state is State.READY:
            self._check_is_asked_for()

    def _check_is_asked_for(self) -> None:
        """An answer may not come before the packet has left, nor bring more than was asked."""
        if self._buffer:
            raise BadAnswerError(f"{self._buffer[:16].hex()} came unasked")
        if any(piece.strip() for piece in self._pieces):  # blanks behind an event mean nothing
            raise BadAnswerError("a packet was answered before it had left")

    def lost(self, line: Line | None, why: str) -> None:
        """No line, or not any more: again after a pause."""
        if line is not self._line or self._state is State.DONE:
            return
        self._shared.counts.failures += 1
        self._shared.counts.last_failure = why
        self._pause(at_once=True)

    # Packets

    def _go_on(self) -> None:
        """Send what is due, or wait for it."""
        shared = self._shared
        wait_s = self._wait_s()
        if wait_s is None:
            self._hang_up()
            self._state = State.DONE
            shared.around.done(self)
        elif wait_s > 0:
            shared.around.wake(self, wait_s)
        elif (gap_s := self._gap_s()) > 0:
            self._hang_up(at_once=True)
            shared.counts.gaps += not self._in_gap
            self._in_gap = True
            shared.around.wake(self, gap_s)
        elif self._line is None:
            self._in_gap = False
            self._state = State.OPENING
            shared.around.dial(self)
        else:
            self._send_packet()

    def _send_packet(self) -> None:
        """One packet; or the unit cuts the connection instead of waiting for the answer."""
        shared, source, line = self._shared, self._random, self._line
        assert line is not None
        signals = self._next_batch()
        packet = shared.encoder.encode_frame(self.number, signals)
        self._in_flight = len(signals)
        is_cut = source.random() < shared.cut_rate
        is_torn = is_cut and source.random() < TORN_SHARE
        shared.counts.own_cuts += is_cut
        self._state = State.ASKED
        if shared.is_udp:
            self._packet_id = (self._packet_id + 1) % 0x10000
            self._datagram = datagram(packet, self.number, self._packet_id, self._packet_id % 0x100)
            self._deaf = is_cut
            self._tries = 0
            if is_torn:  # the datagram itself gets lost
                self._tries = 1
                shared.around.wake(self, self._answer_s)
            else:
                self._send_datagram()
        elif is_cut:
            line.send(packet[: source.randrange(1, len(packet))] if is_torn else packet)
            self._pause(at_once=False)
        else:
            self._pieces = self._cut_up(packet)
            self._write_piece()

    def _next_batch(self) -> list[Signal]:
        """What was sent and is not acknowledged, then new ones; never just as many as in a packet that has failed."""
        size = min(self._packet_size, self.pending)
        if size == self._failed_size and size > 1:
            size = self._random.randrange(1, size)
        self._failed_size = size  # until the answer says otherwise
        most = limits.SIMULATED_PACKET_RECORDS_MAX
        if self.pending - size > most:  # there is a backlog
            self._packet_size = self._random.randint(most, limits.SIMULATED_BACKLOG_PACKET_RECORDS_MAX)
        else:
            self._packet_size = self._random.randint(1, most)
        again = min(size, len(self._resend))
        self._note_sent([self._take_new() for _ in range(size - again)], again)
        return [self._resend[index].signal for index in range(size)]

    def _take_new(self) -> Signal:
        """The next to be sent for the first time."""
        if self._newest_first:
            while self._made < self._due and len(self._unsent) < limits.SIMULATED_BACKLOG_RECORDS_MAX:
                self._unsent.append(self._make())
        return self._unsent.pop() if self._unsent else self._make()

    def _make(self) -> Signal:
        self._made += 1
        return self._recorder.make(self._schedule.due_s(self._made))

    def _cut_up(self, packet: bytes) -> list[bytes]:
        """The packet in one piece or four, last first."""
        if self._random.random() >= PIECES_SHARE:
            return [packet]
        cut_at = sorted(self._random.randrange(len(packet)) for _ in range(3))
        return [packet[begin:end] for begin, end in zip([0, *cut_at], [*cut_at, len(packet)], strict=True)][::-1]

    def _write_piece(self) -> None:
        assert self._line is not None
        self._line.send(self._pieces.pop())
        self._shared.around.wake(self, PIECE_PAUSE_S if self._pieces else self._answer_s)

    def _send_datagram(self) -> None:
        """The same again when no answer came, with the same numbers."""
        assert self._line is not None
        counts = self._shared.counts
        if self._tries:
            counts.packets += 1
            counts.sent += self._in_flight
            counts.resent += self._in_flight
        self._deaf = self._deaf and self._tries == 0
        self._tries += 1
        self._line.send_datagram(self._datagram)
        self._shared.around.wake(self, self._answer_s)

    def _datagram_received(self, data: bytes) -> None:
        if self._state is State.LOGIN:  # there is none: the line is open
            self._state = State.READY
            self._go_on()
        if not data or self._deaf:
            return
        answer = datagram_answer(data)
        if self._state is State.ASKED and answer[:2] == (self._packet_id, self._packet_id % 0x100):
            if answer.accepted != self._in_flight:
                raise BadAnswerError(f"{self._in_flight} records answered with {data.hex()}")
            self._accepted(answer.accepted)

    def _accepted(self, records: int) -> None:
        """So many more of the packet are safe, says the other side."""
        lines = [self._resend.popleft().line for _ in range(records)]
        if self._shared.oracle:
            self._shared.oracle.told_safe(lines)
        self._shared.counts.told_safe += records
        self._failures = 0
        self._in_flight -= records
        if not self._in_flight:
            self._pieces.clear()
            self._failed_size = 0
            self._state = State.READY
            self._go_on()

    def _note_sent(self, first_time: list[Signal], again: int) -> None:
        """Just before they leave."""
        counts, oracle = self._shared.counts, self._shared.oracle
        counts.packets += 1
        counts.sent += len(first_time) + again
        counts.resent += again
        if not first_time:
            return
        lines = []
        for signal in first_time:
            self._order += 1
            lines.append(line_of(self.number, self._order, signal) if oracle else b"")
        if oracle:
            oracle.sent(lines)
        self._resend.extend(map(Record, first_time, lines))

    # Time

    @property
    def _answer_s(self) -> float:
        shared = self._shared
        return min(shared.answer_s, limits.SIMULATED_DATAGRAM_ANSWER_S) if shared.is_udp else shared.answer_s

    def _hang_up(self, *, at_once: bool = False) -> None:
        """`at_once`: what was written may get lost."""
        line, self._line = self._line, None
        self._state = State.IDLE
        if line is not None:
            if at_once:
                line.abort()
            else:
                line.close()

    def _pause(self, *, at_once: bool) -> None:
        """Close what is open; go on after a while, the longer the more often it has failed in a row."""
        self._failures += 1
        self._pieces.clear()
        self._hang_up(at_once=at_once)
        longest_s = min(limits.SIMULATED_RETRY_S_MAX, self._shared.retry_s * 2.0 ** min(self._failures - 1, 16))
        self._shared.around.wake(self, longest_s * self._random.uniform(0.5, 1.0))

    def _gap_s(self) -> float:
        """How much longer there is no network; 0: there is. At the end of a fleet there always is."""
        elapsed_s = self._shared.elapsed_s()
        gap = self._coverage.gap(elapsed_s) if elapsed_s < self._shared.until_s else None
        return gap.end_s - elapsed_s if gap else 0.0

    def _wait_s(self) -> float | None:
        """Until there is a packet to send: enough records, or one that waits too long. None: all is done."""
        shared, schedule = self._shared, self._schedule
        self._note_due()
        pending = self.pending
        next_s = schedule.due_s(self._due + 1)
        if next_s >= shared.until_s:
            return 0.0 if pending else None
        missing = self._packet_size - pending
        if missing <= 0:
            return 0.0
        oldest_s = schedule.due_s(self._due + 1 - pending)
        ready_s = min(schedule.due_s(self._due + missing), oldest_s + limits.SIMULATED_LINGER_S, shared.until_s)
        wait_s = max(ready_s, 0.0 if pending else next_s) - shared.elapsed_s()
        return wait_s if pending else max(wait_s, SHORTEST_WAIT_S)

    def _note_due(self) -> None:
        shared, schedule = self._shared, self._schedule
        now_s, before = min(shared.elapsed_s(), shared.until_s), self._due
        while schedule.due_s(self._due + 1) < now_s:
            self._due += 1
        shared.counts.generated += self._due - before
