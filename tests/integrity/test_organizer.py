"""The organizer: one leads, another takes over, no job harms another, and the database may go away at any time."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from signalkeep import limits
from signalkeep.cli.jobs import jobs_of, quality_jobs
from signalkeep.cli.organizer import app
from signalkeep.clock import SystemClock
from signalkeep.config import load
from signalkeep.errors import SettingsError
from signalkeep.integrity.organizer import Job, Organizer
from signalkeep.store import jobs as stored
from signalkeep.store.postgres import Connection, close_when_silent
from tests.builders import NUMBER, ask, event, fill
from tests.servers import free_port, wait_until, wait_until_async

pytestmark = pytest.mark.servers

LEADERS = """
SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.granted AND l.objid = $1
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEAD_S", 0.05)
    monkeypatch.setattr(limits, "JOB_JITTER_S_MAX", 0.0)


@asynccontextmanager
async def running(dsn: str, directory: Path, *jobs: Job) -> AsyncIterator[Organizer]:
    """An organizer in the background."""
    settings = load(directory, environ={"SIGNALKEEP_DATABASE__DSN": dsn})
    stop = asyncio.Event()
    organizer = Organizer(settings, jobs, clock=SystemClock(), stop=stop)
    task = asyncio.create_task(organizer.run())
    try:
        yield organizer
        assert not task.done(), "it ends only when it is told to"
    finally:
        stop.set()
        await task


class Counted:
    """A job that counts its runs, and says if two of them ever overlapped."""

    def __init__(self, name: str, work: Callable[[Connection], Awaitable[object]] | None = None) -> None:
        self.job = Job(name, 0.02, self._run, takes_s_max=0.2 if work in (hangs, hangs_in_the_database) else 60.0)
        self.runs = 0
        self.overlapped = False
        self._work = work
        self._runs_now = False

    async def _run(self, connection: Connection) -> str:
        self.overlapped = self.overlapped or self._runs_now
        self._runs_now = True
        self.runs += 1
        try:
            await connection.fetchval("SELECT 1")
            if self._work is not None:
                await self._work(connection)
        finally:
            self._runs_now = False
        return f"run {self.runs}"

    async def goes_on(self, more: int = 3) -> None:
        wanted = self.runs + more
        await wait_until_async(lambda: self.runs >= wanted, what=f"{self.job.name} goes on")


async def noted(connection: Connection) -> dict[str, dict[str, Any]]:
    return {row["name"]: dict(row) for row in await stored.jobs(connection)}


# Who works ----------------------------------------------------------------------------------------------------------


async def test_of_two_one_leads(dsn: str, connection: Connection, tmp_path: Path) -> None:
    one, other = Counted("work"), Counted("work")
    async with running(dsn, tmp_path, one.job) as first:
        await one.goes_on()
        async with running(dsn, tmp_path, other.job) as second:
            await one.goes_on(10)
            assert (first.leads, second.leads, other.runs) == (True, False, 0)
        assert len(await connection.fetch(LEADERS, stored._LEAD)) == 1
    assert not first.leads
    assert first.report().handled is not None
    assert second.report().handled == 0


async def test_another_takes_over_when_the_leader_goes(dsn: str, tmp_path: Path) -> None:
    one, other = Counted("work"), Counted("work")
    async with running(dsn, tmp_path, other.job) as second:
        await other.goes_on()
        async with running(dsn, tmp_path, one.job):
            pass
        assert second.leads
        async with running(dsn, tmp_path, one.job) as first:
            assert not first.leads
        assert one.runs == 0


async def test_another_takes_over_when_the_leader_hangs(
    dsn: str, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process that is frozen: its connection stays, and nothing is asked over it. One that works keeps it."""
    monkeypatch.setattr(limits, "LEAD_SILENT_S", 3.0)  # a busy machine may stand still for a second
    job = Counted("counts")
    await close_when_silent(connection, limits.LEAD_SILENT_S)
    assert await stored.try_lead(connection)
    async with running(dsn, tmp_path, job.job) as organizer:
        await wait_until_async(lambda: organizer.leads)
        led = asyncio.create_task(asyncio.sleep(2 * limits.LEAD_SILENT_S))
        while not led.done():
            assert organizer.leads
            await asyncio.sleep(limits.LEAD_S)
    assert connection.is_closed()


async def test_when_the_leaders_connection_is_cut_every_job_goes_on(
    dsn: str, connection: Connection, tmp_path: Path
) -> None:
    """Whoever gets the lock then; never both."""
    first, second = [Counted("a"), Counted("b")], [Counted("a"), Counted("b")]

    async def of_both(name: int) -> None:
        before = first[name].runs + second[name].runs
        await wait_until_async(lambda: first[name].runs + second[name].runs >= before + 5)

    async with (
        running(dsn, tmp_path, *(one.job for one in first)) as one,
        running(dsn, tmp_path, *(one.job for one in second)) as other,
    ):
        leaders: set[int] = set()
        for _ in range(3):
            await wait_until_async(lambda: connection.fetchval(f"SELECT count(*) = 1 FROM ({LEADERS}) l", stored._LEAD))
            (row,) = await connection.fetch(LEADERS, stored._LEAD)
            assert row["pid"] not in leaders
            leaders.add(row["pid"])
            await connection.fetchval("SELECT pg_terminate_backend($1)", row["pid"])
            await wait_until_async(
                lambda: connection.fetchval(
                    f"SELECT count(*) = 1 AND min(pid) <> ALL($2::int[]) FROM ({LEADERS}) l", stored._LEAD, leaders
                )
            )
            await wait_until_async(lambda: one.leads is not other.leads)
            await of_both(0)
            await of_both(1)
    assert not any(job.overlapped for job in (*first, *second))


# Jobs ---------------------------------------------------------------------------------------------------------------


async def raises(_: Connection) -> None:
    raise ZeroDivisionError("oh")


async def hangs(_: Connection) -> None:
    await asyncio.Event().wait()


async def hangs_in_the_database(connection: Connection) -> None:
    await connection.execute("SELECT pg_sleep(60)")


async def loses_its_connection(connection: Connection) -> None:
    await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")


async def closes_its_connection(connection: Connection) -> None:
    connection.terminate()


async def leaves_a_transaction_open(connection: Connection) -> None:
    await connection.execute("BEGIN")
    await connection.execute("LOCK TABLE device IN ACCESS EXCLUSIVE MODE")
    await connection.execute("SELECT 1 / 0")


@pytest.mark.parametrize(
    ("work", "result"),
    [
        (raises, "ZeroDivisionError: oh"),
        (hangs, "cut off, it was not done within 0.2 s"),
        (hangs_in_the_database, "cut off, it was not done within 0.2 s"),
        (loses_its_connection, ".*terminating connection due to administrator command"),
        (leaves_a_transaction_open, "DivisionByZeroError: .*"),
    ],
)
async def test_a_job_that_fails_is_noted_and_stops_no_other(
    dsn: str, connection: Connection, tmp_path: Path, work: Callable[[Connection], Awaitable[None]], result: str
) -> None:
    bad, good = Counted("bad", work), Counted("good")
    async with running(dsn, tmp_path, bad.job, good.job):
        await good.goes_on()
        await wait_until_async(lambda: bad.runs >= 3)
        await good.goes_on()
    jobs = await noted(connection)
    assert re.fullmatch(result, jobs["bad"]["result"]), jobs["bad"]["result"]
    assert jobs["bad"]["failures"] == jobs["bad"]["failed_in_a_row"] == jobs["bad"]["runs"] >= 2
    assert (jobs["good"]["failures"], jobs["good"]["failed_in_a_row"]) == (0, 0)
    assert jobs["good"]["result"].startswith("run ")
    assert not bad.overlapped
    assert not good.overlapped


async def test_a_job_that_works_again_is_noted_so(dsn: str, connection: Connection, tmp_path: Path) -> None:
    fails = True

    async def now_and_then(_: Connection) -> None:
        if fails:
            raise ZeroDivisionError

    job = Counted("job", now_and_then)
    async with running(dsn, tmp_path, job.job):
        await job.goes_on()
        fails = False
        await job.goes_on()
        row: dict[str, Any] = {}

        async def is_between_runs() -> bool:
            row.update((await noted(connection))["job"])
            return row["ended_at"] is not None

        await wait_until_async(is_between_runs)
    assert row["failures"] >= 2
    assert row["failed_in_a_row"] == 0
    assert row["runs"] > row["failures"]
    assert (row["every_s"], row["ended_at"] >= row["began_at"]) == (0.02, True)


async def test_a_job_whose_connection_is_closed_in_the_end_is_noted_all_the_same(
    dsn: str, connection: Connection, tmp_path: Path
) -> None:
    job = Counted("closes", closes_its_connection)
    async with running(dsn, tmp_path, job.job):
        await job.goes_on()
    row = (await noted(connection))["closes"]
    assert (row["failures"], row["result"].startswith("run ")) == (0, True)


async def test_a_job_that_runs_is_cut_off_when_the_organizer_stops(
    dsn: str, connection: Connection, tmp_path: Path
) -> None:
    job = Counted("slow", hangs)
    slow = Job("slow", 0.02, job.job.work)  # it may take an hour
    async with running(dsn, tmp_path, slow):
        await wait_until_async(lambda: job.runs == 1)
    row = (await noted(connection))["slow"]
    assert (row["ended_at"], row["runs"]) == (None, 0)


# The database goes and comes ----------------------------------------------------------------------------------------


class Door:
    """A TCP port that leads to the server's socket while it is open."""

    def __init__(self, dsn: str) -> None:
        parts = urlsplit(dsn)
        self._socket = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self._port = free_port()
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self.dsn = f"postgresql://{parts.username}@127.0.0.1:{self._port}{parts.path}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._socket)
        self._writers += [writer, server_writer]
        await asyncio.gather(self._pipe(reader, server_writer), self._pipe(server_reader, writer))

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.transport.abort()


async def test_a_job_that_learns_late_that_the_database_was_away_holds_up_nobody(
    dsn: str, connection: Connection, tmp_path: Path
) -> None:
    """It waits for something else, in a transaction, when the lead is lost: to end it raises an error of its own."""
    begun: list[Connection] = []

    async def waits_in_a_transaction(its: Connection) -> str:
        async with its.transaction():
            begun.append(its)
            await asyncio.sleep(600)
        return "waited"

    job = Job("waits", 0.02, waits_in_a_transaction)
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> $1"
    async with running(dsn, tmp_path, job):
        await wait_until_async(lambda: begun)
        await connection.fetch(others, connection.get_server_pid())
        await wait_until_async(lambda: len(begun) > 1, what="it is led again, and the job runs")
        await connection.fetch(others, connection.get_server_pid())


async def test_without_a_database_it_waits_and_then_works(
    dsn: str, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: Counter[str] = Counter()

    def next_s(_: object) -> float:
        tries["waited"] += 1
        return 0.02

    monkeypatch.setattr("signalkeep.retry.Backoff.next_s", next_s)
    door, job = Door(dsn), Counted("work")
    async with running(door.dsn, tmp_path, job.job) as organizer:
        await wait_until_async(lambda: tries["waited"] >= 3)
        assert not organizer.leads
        await door.open()
        await job.goes_on()
        await door.close()
        before = tries["waited"]
        await wait_until_async(lambda: tries["waited"] >= before + 3)
        assert not organizer.leads
        await door.open()
        await job.goes_on()
        await door.close()
        job.runs = 0
        await wait_until_async(lambda: not organizer.leads)
    assert (await noted(connection))["work"]["failures"] <= 1, "that it waits is no failure of the job"


# As a command -------------------------------------------------------------------------------------------------------


def status(dsn: str, data: Path, *arguments: str) -> str:
    done = CliRunner().invoke(
        app, ["status", "--data", str(data), *arguments], env={"SIGNALKEEP_DATABASE__DSN": dsn, "COLUMNS": "300"}
    )
    assert done.exit_code == 0, done.output
    return done.output


def run_for_a_while(dsn: str, directory: Path, jobs: Sequence[Job], name: str) -> None:
    async def work() -> None:
        async with running(dsn, directory, *jobs):
            await wait_until_async(
                lambda: asyncio.to_thread(
                    ask, dsn, "SELECT FROM organizer_job WHERE name = $1 AND ended_at IS NOT NULL", name
                )
            )

    asyncio.run(work())


async def never_ends(connection: Connection) -> str:
    await connection.execute("SELECT pg_sleep(600)")
    return "never"


def test_status(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [Job("fails", 60.0, Counted("fails", raises).job.work), Job("new", 5.0, never_ends)]
    monkeypatch.setattr("signalkeep.cli.jobs.jobs_of", lambda *_: jobs)
    assert "no organizer leads" in status(dsn, tmp_path)
    run_for_a_while(dsn, tmp_path, [*jobs[:1], Counted("gone").job], "fails")
    failed, new = json.loads(status(dsn, tmp_path, "--json"))
    assert (failed["name"], failed["result"], failed["failures"]) == ("fails", "ZeroDivisionError: oh", failed["runs"])
    assert failed["next_at"] > failed["ended_at"] > failed["began_at"]
    assert failed["ran_by"].endswith(f":{os.getpid()}")
    assert (new["name"], new["result"], new["overdue"]) == ("new", "has not run yet", False)
    said = status(dsn, tmp_path)
    assert "ZeroDivisionError: oh" in said
    assert "gone" not in said, "there is no such job any more"


@pytest.mark.parametrize(("ago_s", "overdue"), [(170, False), (190, True)])
def test_status_tells_a_job_that_is_overdue(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ago_s: int, overdue: bool
) -> None:
    jobs = [Counted("late").job]
    monkeypatch.setattr("signalkeep.cli.jobs.jobs_of", lambda *_: jobs)
    run_for_a_while(dsn, tmp_path, jobs, "late")
    ask(dsn, f"UPDATE organizer_job SET every_s = 60, ended_at = now() - interval '{ago_s} s'")
    assert [row["overdue"] for row in json.loads(status(dsn, tmp_path, "--json"))] == [overdue]
    assert ("yes" in status(dsn, tmp_path)) is overdue


def test_status_tells_a_run_that_goes_on_from_one_that_was_cut_off_and_who_leads(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [Job("long", 60.0, never_ends)]
    monkeypatch.setattr("signalkeep.cli.jobs.jobs_of", lambda *_: jobs)
    said: list[str] = []

    async def work() -> None:
        async with running(dsn, tmp_path, *jobs):
            begun = "SELECT FROM organizer_job WHERE name = 'long'"
            await wait_until_async(lambda: asyncio.to_thread(ask, dsn, begun))
            said.append(await asyncio.to_thread(status, dsn, tmp_path))

    asyncio.run(work())
    assert re.search(r"runs, began \d+ s ago", said[0])
    assert f"led by {socket.gethostname()}" in said[0]
    wait_until(lambda: re.search(r"began \d+ s ago and did not end: it was cut off", status(dsn, tmp_path)))
    assert "no organizer leads" in status(dsn, tmp_path)


def test_the_job_of_quality_sweeps_what_is_stored(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SWEEP_SETTLE_S", 0.0)
    fill(dsn, event(), event(minute=1), registered=(NUMBER,))
    settings = load(tmp_path, environ={"SIGNALKEEP_DATABASE__DSN": dsn})
    jobs = quality_jobs(settings, SystemClock())
    assert [(job.name, job.every_s) for job in jobs] == [("quality", 60.0), ("fleet", limits.FLEET_LOOK_S)]
    run_for_a_while(dsn, tmp_path, jobs, "quality")
    row = next(row for row in json.loads(status(dsn, tmp_path, "--json")) if row["name"] == "quality")
    assert row["result"].startswith("2 new signals, ")
    assert ask(dsn, "SELECT position FROM sweep")


def test_without_quality_there_is_nothing_to_do_and_wrong_rules_are_named(tmp_path: Path) -> None:
    off = load(tmp_path, environ={"SIGNALKEEP_QUALITY__ENABLED": "false"})
    assert quality_jobs(off, SystemClock()) == []
    assert not {"quality", "fleet"} & {job.name for job in jobs_of(off, SystemClock())}
    wrong = load(tmp_path, environ={"SIGNALKEEP_QUALITY__RULES__XYZ-01__LEVEL": "1"})
    with pytest.raises(SettingsError, match=r"quality\.rules\.XYZ-01: no such rule"):
        jobs_of(wrong, SystemClock())
