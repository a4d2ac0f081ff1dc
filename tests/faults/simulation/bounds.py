"""What relays and workers do with messages, looked at when it is done, against the database as it is then.

What a relay sends is bounded. Within an epoch nothing is sent twice but a message whose confirm did not come, and that
one is sent again before any other. A new epoch needs evidence of loss. A new process begins no earlier than where the
last one was known to be. What is confirmed and not in the database stays within the window, and one message more.

What a worker acknowledges is in the database, or has been reported as what nothing can be done with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias
from uuid import UUID

from signalkeep.broker.stats import RelayStats
from signalkeep.journal.ranges import BadRange, LaneRange, decode_range
from signalkeep.journal.record import FrameEntry
from signalkeep.journal.shelf import ENTRY_BYTES

PLACE: Final = """
SELECT min(c.seq) AS cursor, min(r.seq) AS sent, max(r.epoch) AS epoch, min(r.hole_epoch) AS hole_epoch
FROM journal j JOIN cursor c ON c.journal_id = j.id JOIN relay r ON (r.journal_id, r.lane) = (c.journal_id, c.lane)
WHERE j.uuid = $1 AND c.lane = ANY($2::int[])
"""


Ask: TypeAlias = Callable[..., Sequence[Any]]


class _Stream:
    """One queue's share of one journal, as it was seen to leave."""

    def __init__(self, epoch: int, sent: int) -> None:
        self.epoch, self.sent = epoch, sent
        self.waiting = b""  # for its confirm
        self.on_the_way: list[tuple[int, int]] = []  # last seq and bytes of what was confirmed


class Watch:
    """Of one relay process. `broken` is told of what it should not have sent."""

    def __init__(
        self,
        stats: RelayStats,
        *,
        window_bytes: int,
        ask: Ask,
        broken: Callable[[str], None],
    ) -> None:
        self._stats, self._window_max = stats, window_bytes
        self._ask, self._broken = ask, broken
        self._streams: dict[tuple[UUID, int], _Stream] = {}
        self._epochs = 0  # begun by this process

    def on_publish(self, queue: int, body: bytes) -> None:
        message = decode_range(body)
        (place,) = self._ask(PLACE, message.journal, message.lanes)
        stream = self._streams.get((message.journal, queue))
        if stream is None:
            stream = self._streams[message.journal, queue] = _Stream(place["epoch"], place["sent"])
        if body != stream.waiting:
            self._look_at(stream, message, f"queue {queue}, {message.after_seq + 1}..{message.last_seq}")
        stream.on_the_way = [one for one in stream.on_the_way if one[0] > place["cursor"]]
        on_the_way = sum(size for _, size in stream.on_the_way)
        if on_the_way >= self._window_max:
            self._broken(f"a window of {self._window_max} bytes has {on_the_way} on the way already, queue {queue}")
        stream.waiting = body

    def on_confirmed(self, queue: int, body: bytes) -> None:
        message = decode_range(body)
        stream = self._streams[message.journal, queue]
        stream.waiting = b""
        stream.sent = message.last_seq
        stream.on_the_way.append((message.last_seq, _size(message)))

    def _look_at(self, stream: _Stream, message: LaneRange, what: str) -> None:
        if message.epoch == stream.epoch:
            if stream.waiting:
                self._broken(f"{what} is sent, and what was sent before it was not confirmed")
            if message.after_seq < stream.sent:
                self._broken(f"{what} is sent again without evidence: it was sent up to {stream.sent}")
            return
        self._epochs += 1
        if message.epoch < stream.epoch or self._epochs > self._stats.went_back.total():
            self._broken(f"{what} is sent in epoch {message.epoch} after {stream.epoch} without evidence")
        stream.epoch, stream.on_the_way = message.epoch, []


def too_early(body: bytes, ask: Ask) -> str:
    """What is wrong about acknowledging this message now; "" if nothing is."""
    try:
        message = decode_range(body)
    except BadRange:
        return ""
    (place,) = ask(PLACE, message.journal, message.lanes)
    if place["cursor"] >= message.last_seq or place["hole_epoch"] >= message.epoch:
        return ""
    what = f"{message.after_seq + 1}..{message.last_seq} of epoch {message.epoch}"
    return f"{what} is acknowledged, the database has entries up to {place['cursor']} and no word of a hole"


def _size(message: LaneRange) -> int:
    return sum(ENTRY_BYTES + (len(entry.raw) if isinstance(entry, FrameEntry) else 0) for _, entry in message.entries)
