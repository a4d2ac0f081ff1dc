"""What a gateway process counts about itself: plain numbers, cheap enough for the hot path, read by metrics and status.

Counts only grow; gauges are asked for at the moment of reading. Knows no device and no address: what is named by
device stands in the journal and the database. Holds no lock: one event loop writes and reads it.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

ACK_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class GatewayStats:
    """Since the start of this process. `refusals` by reason; `ack_buckets` counts answers by the wait for the disk."""

    __slots__ = (
        "ack_buckets",
        "ack_seconds",
        "acknowledged",
        "bytes_received",
        "connections_opened",
        "datagrams",
        "frame_bytes",
        "frames",
        "refusals",
    )

    def __init__(self) -> None:
        self.connections_opened = 0
        self.datagrams = 0
        self.bytes_received = 0
        self.frames = 0  # handed to the journal
        self.frame_bytes = 0
        self.acknowledged = 0  # of these, durable
        self.ack_seconds = 0.0  # summed wait of frames from being read to being durable
        self.ack_buckets = [0] * (len(ACK_BOUNDS_S) + 1)  # not cumulative; the last one is beyond all bounds
        self.refusals: dict[str, int] = {}

    def durable(self, waited_s: float) -> None:
        """A frame is on stable storage, this long after it was read."""
        self.acknowledged += 1
        self.ack_seconds += waited_s
        self.ack_buckets[bisect_left(ACK_BOUNDS_S, waited_s)] += 1
