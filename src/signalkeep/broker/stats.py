"""What a relay counts about itself. Counts only grow; one event loop writes and reads them."""

from __future__ import annotations

from collections import Counter
from typing import Final

from signalkeep.vitals import Histogram

CONFIRM_BOUNDS_S: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)


class RelayStats:
    """Since the start of this process."""

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0
        self.entries = 0
        self.failures = 0  # publishes without a confirm; each is tried again
        self.went_back: Counter[str] = Counter()  # to the cursor, by `Evidence`
        self.announced = 0  # signals published to applications
        self.confirm_time = Histogram.of(CONFIRM_BOUNDS_S)

    def published(self, size: int, entries: int, took_s: float) -> None:
        self.messages += 1
        self.bytes += size
        self.entries += entries
        self.confirm_time.observe(took_s)
