"""An event loop whose time is ours: it never waits, and what happens in it follows from a seed.

    loop = VirtualLoop(random.Random(7))
    loop.run_until_complete(...)

Waiting costs nothing: when nothing is ready, time jumps to the next thing that is due. Blocking work that the product
gives to a thread is done here too, at a moment of its own between the asking and the answer, as a thread would: other
tasks run before and after it. What it cannot show: two threads at the same instant, and a call that never returns.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

BEGIN: Final = datetime(2026, 3, 1, 6, 0, tzinfo=UTC)
THREAD_S: Final = (0.0001, 0.004)  # until a thread begins, and from its end until the loop knows


class Stuck(Exception):
    """Nothing is ready and nothing is due: everybody waits for somebody else."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Virtual seconds since its own begin."""

    def __init__(self, rng: random.Random) -> None:
        self._now_s = 0.0
        self._rng = rng
        super().__init__(_NoWaiting(self))
        self.set_exception_handler(self._note)
        self.problems: list[str] = []

    def time(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let this much time pass."""
        self._now_s += seconds

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # no thread, so any result type
        """As a thread would, but here."""
        del executor
        future = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except BaseException as error:  # it belongs to whoever waits
                self.call_later(self._rng.uniform(*THREAD_S), _settle, future, None, error)
            else:
                self.call_later(self._rng.uniform(*THREAD_S), _settle, future, result, None)

        self.call_later(self._rng.uniform(*THREAD_S), work)
        return future

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        del loop
        error = context.get("exception")
        if isinstance(error, Exception):  # what dies with its process is no problem of anybody
            self.problems.append(f"{context['message']}: {type(error).__name__}: {error}")


class VirtualClock:
    """The product's clock: virtual time, and a wall that somebody may have set wrongly."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.wrong_by_s = 0.0

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self._loop.time() + self.wrong_by_s)

    def monotonic(self) -> float:
        return self._loop.time()


class _NoWaiting(selectors.DefaultSelector):
    """Nothing ever comes from outside, so there is nothing to wait for but time."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck("nothing is ready and nothing is due")
        self._loop.advance(max(0.0, timeout))
        return []


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
