"""A process that can be killed: from then on nothing that it does has any effect.

    process = Process("gateway", disk)
    process.start(main())           tasks that it makes belong to it
    process.kill()                  files closed as they are, connections cut, tasks thrown away

What is thrown away may still run its `finally` blocks; every call to disk, database or network then raises `Dead`,
which nothing in the product catches, and does nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, TypeAlias

from tests.journal.simdisk import SimDisk

_running: ContextVar[Process | None] = ContextVar("process", default=None)


Run: TypeAlias = "Callable[[Process], Coroutine[Any, Any, None]]"
"""What a process does."""


class Dead(BaseException):
    """Whoever asked is dead."""


class Process:
    """One process of the simulated machine."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.at_death: list[Callable[[], None]] = []
        self.files: set[int] = set()  # open ones
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in the order in which they were made

    def start(self, main: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run this as the process, with every task that it makes."""
        token = _running.set(self)
        try:
            return asyncio.get_running_loop().create_task(main)
        finally:
            _running.reset(token)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    @property
    def tasks(self) -> list[asyncio.Task[Any]]:
        """Those that are not done."""
        return list(self._tasks)

    def check(self) -> None:
        """Raises Dead."""
        if not self.alive:
            raise Dead(self.name)

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            for bury in self.at_death:
                bury()
            for task in self.tasks:
                task.cancel()


def task_factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    """Tasks belong to the process that makes them."""
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
    process = _running.get()
    if process is not None:
        process.adopt(task)
    return task


class ProcessDisk:
    """The disk as one process has it: files that it opened are closed when it dies, and it may die at any call."""

    def __init__(self, process: Process, disk: SimDisk, before: Callable[[Process, str], None]) -> None:
        self._process, self._disk, self._before = process, disk, before
        self._files = process.files
        process.at_death.append(self._close_all)

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._disk, name)

        def call(*arguments: Any) -> Any:
            self._process.check()
            self._before(self._process, name)
            result = operation(*arguments)
            if name in ("open_new", "open_read", "lock"):
                self._files.add(result)
            elif name == "close":
                self._files.discard(*arguments)
            return result

        return call

    def _close_all(self) -> None:
        for file in sorted(self._files):
            self._disk.close(file)
        self._files.clear()
