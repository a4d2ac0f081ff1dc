"""A run of a job: never two at a time, wherever they are started, and whoever is killed holds up nobody for long."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from signalkeep.clock import SystemClock
from signalkeep.config import load
from signalkeep.integrity.runner import Job, Outcome, Runner
from signalkeep.store import jobs as stored
from signalkeep.store.postgres import Connection
from signalkeep.tasks import end
from tests.servers import free_port, wait_until_async

pytestmark = pytest.mark.servers


def runner_of(dsn: str, directory: Path) -> Runner:
    return Runner(load(directory, environ={"SIGNALKEEP_DATABASE__DSN": dsn}), SystemClock())


async def sleeps_in_the_database(connection: Connection) -> str:
    await connection.execute("SELECT pg_sleep(600)")
    return "slept"


async def dies_while_the_database_works(connection: Connection) -> str:
    """As a process that is killed: its socket closes, and nobody tells PostgreSQL to stop."""
    asleep = asyncio.create_task(connection.execute("SELECT pg_sleep(600)"))
    await asyncio.sleep(0)
    connection.terminate()
    await asyncio.gather(asleep, return_exceptions=True)
    raise ConnectionError


async def test_a_job_never_overlaps_itself_and_others_run_beside_it(
    dsn: str, connection: Connection, tmp_path: Path
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def waits(_: Connection) -> str:
        begun.set()
        await go_on.wait()
        return "done"

    job, other = Job("waits", 1.0, waits), Job("other", 1.0, waits)
    first = asyncio.create_task(runner_of(dsn, tmp_path).run(job))
    await begun.wait()
    begun.clear()
    assert await runner_of(dsn, tmp_path).run(job) is Outcome.BUSY
    beside = asyncio.create_task(runner_of(dsn, tmp_path).run(other))
    await begun.wait()
    rows = {row["name"]: row for row in await stored.jobs(connection)}
    assert [(row["runs_now"], row["runs"]) for row in rows.values()] == [(True, 0)] * 2
    go_on.set()
    assert [await first, await beside] == [Outcome.NOTED] * 2
    assert await runner_of(dsn, tmp_path).run(job) is Outcome.NOTED
    rows = {row["name"]: row for row in await stored.jobs(connection)}
    assert (rows["waits"]["runs"], rows["waits"]["runs_now"], rows["waits"]["result"]) == (2, False, "done")


async def test_what_a_run_that_was_cut_off_asked_of_the_database_is_given_up(
    dsn: str, connection: Connection, tmp_path: Path
) -> None:
    """The lock goes with it, so that the job runs again: soon, and not while the old statement does."""
    assert await runner_of(dsn, tmp_path).run(Job("job", 1.0, dies_while_the_database_works)) is Outcome.NOTED
    (row,) = await stored.jobs(connection)
    assert (row["failures"], row["runs_now"]) == (1, True), "PostgreSQL sleeps on"

    async def works(_: Connection) -> str:
        return "done"

    async def runs() -> bool:
        return await runner_of(dsn, tmp_path).run(Job("job", 1.0, works)) is Outcome.NOTED

    await wait_until_async(runs, what="it runs again")


async def test_a_run_that_hangs_holds_up_the_next_for_as_long_as_it_may_be_silent(
    dsn: str, connection: Connection, tmp_path: Path
) -> None:
    """The first is asleep with its process; that it is alive does not count. What it had begun is undone."""
    begun = asyncio.Event()

    async def hangs(its: Connection) -> str:
        async with its.transaction():
            await its.execute("CREATE TABLE left_behind ()")
            begun.set()
            await asyncio.sleep(600)
        return "done"

    async def works(_: Connection) -> str:
        return "done"

    async def runs() -> bool:
        return await runner_of(dsn, tmp_path).run(Job("job", 1.0, works)) is Outcome.NOTED

    first = asyncio.create_task(runner_of(dsn, tmp_path).run(Job("job", 1.0, hangs, silent_s_max=0.5)))
    await begun.wait()
    await wait_until_async(runs, what="it runs again")
    (row,) = await stored.jobs(connection)
    assert (row["result"], row["runs_now"]) == ("done", False)
    await end(first)
    assert await connection.fetchval("SELECT to_regclass('left_behind')") is None


async def test_without_a_database_it_says_so(tmp_path: Path) -> None:
    gone = runner_of(f"postgresql://127.0.0.1:{free_port()}/x", tmp_path)
    assert await gone.run(Job("sleeps", 1.0, sleeps_in_the_database)) is Outcome.NO_DATABASE


async def test_the_end_of_a_run_that_another_has_followed_leaves_that_one_running(
    dsn: str, connection: Connection
) -> None:
    """A run that failed notes its end over a new connection, when the lock may be another's already."""
    first = await stored.note_begin(connection, "job", 1.0, "here:1")
    await stored.note_begin(connection, "job", 1.0, "there:2")
    await stored.note_end(connection, "job", began_at=first, seconds=1.0, result="no", failed=True)
    (row,) = await stored.jobs(connection)
    assert (row["ended_at"], row["runs"], row["failures"], row["ran_by"]) == (None, 1, 1, "there:2")
