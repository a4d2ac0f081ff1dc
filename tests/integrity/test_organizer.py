"""Of all organizers one works; a job that fails, hangs or loses its database costs the others nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from signalkeep import limits
from signalkeep.clock import SystemClock
from signalkeep.config import Settings, load
from signalkeep.integrity.organizer import Job, Organizer
from signalkeep.store import jobs
from signalkeep.store.postgres import Connection
from tests.servers import free_port, wait_until_async

pytestmark = pytest.mark.servers


class Running:
    """An organizer in the background."""

    def __init__(self, settings: Settings, *work: Job) -> None:
        self.stop = asyncio.Event()
        self.organizer = Organizer(settings, work, clock=SystemClock(), stop=self.stop)
        self.task = asyncio.create_task(self.organizer.run())

    async def end(self) -> None:
        self.stop.set()
        await self.task


Start = Callable[..., Running]


@pytest.fixture
async def start(tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    monkeypatch.setattr(limits, "LEAD_S", 0.05)
    monkeypatch.setattr(limits, "JOB_JITTER_S_MAX", 0.01)
    settings = load(tmp_path, environ={"SIGNALKEEP_DATABASE__DSN": dsn})
    running: list[Running] = []

    def begin(*work: Job, settings: Settings = settings) -> Running:
        running.append(Running(settings, *work))
        return running[-1]

    yield begin
    for one in running:
        if not one.task.done():
            await one.end()


class Counting:
    """A job that counts its runs, and how many of them were under way at a time."""

    def __init__(self, name: str = "count", takes_s: float = 0.0) -> None:
        self.runs = self.now = self.most = 0
        self._takes_s = takes_s
        self.job = Job(name, 0.02, self)

    async def __call__(self, connection: Connection) -> str:
        self.runs += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await connection.fetchval("SELECT 1")
            await asyncio.sleep(self._takes_s)
        finally:
            self.now -= 1
        return f"run {self.runs}"


async def test_one_of_two_works_and_the_other_takes_over_when_its_connection_is_lost(
    start: Start, connection: Connection
) -> None:
    first, second = Counting(), Counting()
    leader = start(first.job)
    await wait_until_async(lambda: leader.organizer.leads and first.runs > 1)
    other = start(second.job)
    await asyncio.sleep(0.2)
    assert (second.runs, other.organizer.leads) == (0, False)
    leader.stop.set()  # so that it does not come back
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
    )
    await wait_until_async(lambda: second.runs > 1)
    assert other.organizer.leads


async def test_a_leader_that_lost_its_connection_leads_again(start: Start, connection: Connection) -> None:
    work = Counting()
    running = start(work.job)
    await wait_until_async(lambda: work.runs > 0)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'signalkeep organizer'"
    )
    runs = work.runs
    await wait_until_async(lambda: running.organizer.leads and work.runs > runs + 1)


async def test_what_fails_or_hangs_is_noted_and_stops_no_other(start: Start, connection: Connection) -> None:
    async def fails(_: Connection) -> str:
        raise ValueError("something is wrong")

    async def hangs(_: Connection) -> str:
        await asyncio.sleep(3600)
        return "never"

    work = Counting()
    start(Job("fails", 0.02, fails), Job("hangs", 0.02, hangs, takes_s_max=0.05), work.job)

    async def noted() -> dict[str, tuple[int, int, str]]:
        return {row["name"]: (row["runs"], row["failures"], row["result"]) for row in await jobs.jobs(connection)}

    for _ in range(600):
        said = await noted()
        if all(name in said and said[name][0] > 1 for name in ("fails", "hangs", "count")):
            break
        await asyncio.sleep(0.05)
    runs, failures, result = said["fails"]
    assert failures == runs
    assert result == "ValueError: something is wrong"
    assert said["hangs"][2].startswith("TimeoutError")
    assert said["count"][1] == 0
    assert said["count"][2].startswith("run ")


async def test_a_job_never_runs_twice_at_a_time(start: Start) -> None:
    work = Counting(takes_s=0.05)
    start(work.job)
    await wait_until_async(lambda: work.runs > 3)
    assert work.most == 1


async def test_without_a_database_it_waits_and_a_stop_is_heard(start: Start, tmp_path: Path) -> None:
    dsn = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    running = start(Counting().job, settings=load(tmp_path, environ={"SIGNALKEEP_DATABASE__DSN": dsn}))
    await asyncio.sleep(0.3)
    assert not running.task.done()
    await running.end()
    assert not running.organizer.leads
