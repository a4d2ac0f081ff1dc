"""The gateway's view of the device registry, kept on disk so that policy holds while PostgreSQL is away.

It follows the database: a full read at every connect, after notifications (many in a row cost one read), and every
half minute. What was read is pages of text; only if they have changed are they decoded, page by page, and written, in
a thread: a large fleet holds nobody up. The snapshot file is synced and replaced as a whole; an unreadable one counts
as none, and what a killed process has left half-written is removed. Losing the database never stops a gateway.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec
import psutil

from signalkeep import limits
from signalkeep.errors import SignalkeepError
from signalkeep.gateway.policy import Policy
from signalkeep.model import DeviceStatus
from signalkeep.retry import Backoff
from signalkeep.store import registry
from signalkeep.store.postgres import Connection
from signalkeep.telemetry import get_logger

PAGES: Final = msgspec.json.Decoder(dict[str, DeviceStatus])

log = get_logger()


class RegistryFollower:
    """Feeds `Policy` from the database, and from the snapshot until the database answers."""

    def __init__(self, policy: Policy, snapshot: Path, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._policy = policy
        self._snapshot = snapshot
        self._connect = connect
        self._kept: int | None = None  # hash of the pages that the snapshot file holds

    def load_snapshot(self) -> bool:
        """Take what the last gateway knew; False if there is nothing to take."""
        self._remove_leftovers()
        try:
            pages = self._snapshot.read_bytes().splitlines()
            statuses = decode(pages)
        except (OSError, msgspec.DecodeError):
            return False
        if not pages:  # not even an empty one
            return False
        self._policy.update(statuses)
        return True

    async def run(self) -> None:
        """Follow the database for ever."""
        backoff = Backoff()
        while True:
            try:
                connection = await self._connect()
                try:
                    await self._follow(connection, backoff)
                finally:
                    await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)
            except Exception as error:  # whatever it is, the gateway goes on and tries again
                words = error.message if isinstance(error, SignalkeepError) else f"{type(error).__name__}: {error}"
                if backoff.worth_a_word:
                    log.warning("registry not reachable, going on with what is known", error=words)
            await asyncio.sleep(backoff.next_s())

    async def _follow(self, connection: Connection, backoff: Backoff) -> None:
        changed = asyncio.Event()
        await registry.listen(connection, changed.set)
        while True:
            changed.clear()
            await self._take(await registry.snapshot(connection))
            if backoff.was_worth_a_word:
                log.info("registry is reachable again")
            backoff.reset()
            await asyncio.sleep(limits.REGISTRY_PAUSE_S)
            try:
                async with asyncio.timeout(limits.REGISTRY_REFRESH_S):
                    await changed.wait()
            except TimeoutError:
                pass

    async def _take(self, pages: list[str]) -> None:
        seen = hash(tuple(pages))
        if seen == self._kept:
            return
        self._policy.update(await asyncio.to_thread(decode, pages))
        try:
            await asyncio.to_thread(self._keep, pages)
        except OSError as error:
            log.warning("registry snapshot not written", error=str(error))
        else:
            self._kept = seen

    def _keep(self, pages: list[str]) -> None:
        """Write the snapshot file: whole and on the disk, or not at all."""
        folder = self._snapshot.parent
        folder.mkdir(parents=True, exist_ok=True)
        temporary = self._snapshot.with_name(f"{self._snapshot.name}.{os.getpid()}")
        with temporary.open("wb") as file:
            file.write("\n".join(pages or ["{}"]).encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._snapshot)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _remove_leftovers(self) -> None:
        for path in self._snapshot.parent.glob(f"{self._snapshot.name}.*"):
            pid = path.suffix.removeprefix(".")
            if pid.isdecimal() and not psutil.pid_exists(int(pid)):
                path.unlink(missing_ok=True)


def decode(pages: Iterable[str | bytes]) -> dict[str, DeviceStatus]:
    """Statuses by number. Raises msgspec.DecodeError."""
    statuses: dict[str, DeviceStatus] = {}
    for page in pages:
        statuses.update(PAGES.decode(page))
    return statuses
