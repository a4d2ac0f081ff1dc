"""The gateway's view of the device registry, kept on disk so that policy holds while PostgreSQL is away.

It follows the database: a full read at every connect, at every notification, and every half minute. The snapshot file
is replaced as a whole; an unreadable one counts as none. Losing the database never stops a gateway.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from signalkeep import limits
from signalkeep.errors import SignalkeepError
from signalkeep.gateway.policy import Policy
from signalkeep.model import DeviceStatus
from signalkeep.retry import Backoff
from signalkeep.store import registry
from signalkeep.store.postgres import Connection
from signalkeep.telemetry import get_logger

log = get_logger()


class RegistryFollower:
    """Feeds `Policy` from the database, and from the snapshot until the database answers."""

    def __init__(self, policy: Policy, snapshot: Path, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._policy = policy
        self._snapshot = snapshot
        self._connect = connect
        self._seen: dict[str, DeviceStatus] | None = None

    def load_snapshot(self) -> bool:
        """Take what the last gateway knew; False if there is nothing to take."""
        try:
            statuses = msgspec.json.decode(self._snapshot.read_bytes(), type=dict[str, DeviceStatus])
        except (OSError, msgspec.DecodeError):
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
            self._take(await registry.snapshot(connection))
            if backoff.was_worth_a_word:
                log.info("registry is reachable again")
            backoff.reset()
            try:
                async with asyncio.timeout(limits.REGISTRY_REFRESH_S):
                    await changed.wait()
            except TimeoutError:
                pass

    def _take(self, statuses: dict[str, DeviceStatus]) -> None:
        if statuses == self._seen:
            return
        self._seen = statuses
        self._policy.update(statuses)
        temporary = self._snapshot.with_name(f"{self._snapshot.name}.{os.getpid()}")
        try:
            self._snapshot.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(msgspec.json.encode(statuses))
            temporary.replace(self._snapshot)
        except OSError as error:
            log.warning("registry snapshot not written", error=str(error))
