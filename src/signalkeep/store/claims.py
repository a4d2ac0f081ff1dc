"""Which worker takes which queues: fair shares, by advisory locks of PostgreSQL that end with their connection.

Every worker holds one lock that it shares with all others, so that they can be counted, and one of its own for each
queue that it takes. Nothing depends on it but who does the work: what keeps two workers from doubling anything is the
cursor's compare-and-set, and the broker lets only one consumer of a queue be active besides.
"""

from __future__ import annotations

from typing import Final

from signalkeep.store.postgres import Connection

WORKERS_CLASS: Final = 0x776F726B  # first key of the advisory lock that all workers share ("work")
QUEUES_CLASS: Final = 0x71756575  # first key of the advisory locks of queues ("queu")
LEADERS_CLASS: Final = 0x6C656164  # first key of the advisory locks of tasks that one process does for all ("lead")

# How many hold the workers' lock.
COUNT_WORKERS: Final = """
SELECT count(DISTINCT pid) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND mode = 'ShareLock' AND classid = $1::oid AND objid = 0
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Claims:
    """The queues that one worker takes, on one connection; they are free again when it closes."""

    def __init__(self, connection: Connection, queues: int) -> None:
        self._connection = connection
        self._queues = queues
        self._joined = False
        self.held: set[int] = set()

    async def share(self) -> set[int]:
        """Take or give back until our share is fair, one queue at a time being given back. Returns what we hold.

        What is given back is unlocked only by `release`: the caller stops consuming from it first.
        """
        if not self._joined:
            await self._connection.execute("SELECT pg_advisory_lock_shared($1, 0)", WORKERS_CLASS)
            self._joined = True
        workers = max(1, await self._connection.fetchval(COUNT_WORKERS, WORKERS_CLASS))
        fair = -(-self._queues // workers)
        for queue in range(self._queues):
            if len(self.held) >= fair:
                break
            if queue not in self.held and await self._connection.fetchval(
                "SELECT pg_try_advisory_lock($1, $2)", QUEUES_CLASS, queue
            ):
                self.held.add(queue)
        return set(sorted(self.held)[:fair])

    async def leave(self) -> set[int]:
        """Count no more among those that share, until `share` is called again. Returns what is left to us: nothing.

        What we hold is given back by `release`, as above.
        """
        if self._joined:
            await self._connection.execute("SELECT pg_advisory_unlock_shared($1, 0)", WORKERS_CLASS)
            self._joined = False
        return set()

    async def release(self, queue: int) -> None:
        """Let somebody else have it."""
        await self._connection.execute("SELECT pg_advisory_unlock($1, $2)", QUEUES_CLASS, queue)
        self.held.discard(queue)


async def lead(connection: Connection, task: int) -> bool:
    """Try to be the one process that does a task for all, until the connection closes. Asked again, it stays so."""
    leads: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()"
        " AND classid = $1::oid AND objid = $2::oid) OR pg_try_advisory_lock($1::int, $2::int)",
        LEADERS_CLASS,
        task,
    )
    return leads
