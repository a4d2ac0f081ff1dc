"""How a task that calls a library of somebody else, for AMQP or for PostgreSQL, is ended for certain."""

from __future__ import annotations

import asyncio
from typing import Any

from signalkeep import limits


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel it, and return when it has ended, however it did.

    Told once is not enough: where a connection breaks at that moment, the library may raise its own error instead, and
    the task, which is made to survive those, would go on for ever.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=limits.CANCEL_AGAIN_S)
    if not task.cancelled():
        task.exception()  # is known now, and nobody is told that it was never looked at
