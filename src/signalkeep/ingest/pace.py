"""Not faster than so many records a second: what is done again on purpose must not crowd out what is new.

The caller does a piece, says how large it was, and waits here, outside of any transaction, until it may go on. Time and
waiting are passed in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from signalkeep.clock import Clock, SystemClock

Sleep: TypeAlias = Callable[[float], Awaitable[None]]


class Pace:
    """`rate_max`: records per second; None: as fast as it goes."""

    def __init__(self, rate_max: float | None, *, clock: Clock | None = None, sleep: Sleep = asyncio.sleep) -> None:
        assert rate_max is None or rate_max > 0
        self._rate_max = rate_max
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._may_go_on_s = self._clock.monotonic()

    def piece(self, records_max: int) -> int:
        """How many records to take at a time: at most what a second allows."""
        return records_max if self._rate_max is None else max(1, min(records_max, int(self._rate_max)))

    async def wait(self, records: int) -> None:
        """After a piece of so many records. Time that went by unused is not made up for."""
        if self._rate_max is None:
            return
        now_s = self._clock.monotonic()
        self._may_go_on_s = max(self._may_go_on_s + records / self._rate_max, now_s)
        if self._may_go_on_s > now_s:
            await self._sleep(self._may_go_on_s - now_s)
