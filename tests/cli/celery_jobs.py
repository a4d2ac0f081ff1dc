"""Jobs for tests of Celery: `celery -A tests.cli.celery_jobs worker`. What they do, tests see in the table `test_run`.

waits   works until the table `test_go` is there
quick   works at once, again and again
"""

from __future__ import annotations

import asyncio
from typing import Final

from signalkeep import config, limits
from signalkeep.cli.celery_app import make_app
from signalkeep.clock import SystemClock
from signalkeep.integrity.runner import Job
from signalkeep.store.postgres import Connection

OURS: Final = 4711  # an advisory lock: who does not get it is not alone

limits.JOB_AGAIN_S = 0.1  # type: ignore[misc]  # a test need not wait


async def waits(connection: Connection) -> str:
    await _begin(connection, "waits")
    while await connection.fetchval("SELECT to_regclass('test_go') IS NULL"):
        await asyncio.sleep(0.02)
    return "gone on"


async def quick(connection: Connection) -> str:
    await _begin(connection, "quick")
    return "done"


async def _begin(connection: Connection, job: str) -> None:
    await connection.execute(
        "INSERT INTO test_run SELECT $1, pg_try_advisory_lock($2, hashtext($1)), pg_backend_pid()", job, OURS
    )


JOBS: Final = [Job("waits", 3600.0, waits), Job("quick", 1.0, quick)]

app = make_app(config.load(), JOBS, SystemClock())
