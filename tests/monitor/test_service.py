"""The monitor by itself: it answers with a dead database, a silent one, and none of the roles."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from signalkeep import limits
from signalkeep.clock import SystemClock
from signalkeep.config import Settings, load
from signalkeep.journal.files import LocalFileSystem
from signalkeep.monitor.database import DatabaseWatch
from signalkeep.monitor.look import Looker
from signalkeep.monitor.service import MonitorService
from signalkeep.roles import prepare_directories
from signalkeep.store.schema import HEAD
from tests.servers import PostgresServer, free_port, wait_until_async

SECRET = "hunter2"


def settings_of(data: Path, dsn: str) -> Settings:
    settings = load(data, environ={"SIGNALKEEP_DATABASE__DSN": dsn, "SIGNALKEEP_MONITOR__PORT": "0"})
    prepare_directories(settings)
    return settings


@asynccontextmanager
async def monitoring(settings: Settings) -> AsyncIterator[MonitorService]:
    stop = asyncio.Event()
    service = MonitorService(settings, fs=LocalFileSystem(), clock=SystemClock(), stop=stop)
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(service.run(ready.set_result))
    try:
        assert await ready > 0
        yield service
    finally:
        stop.set()
        await task


async def text(service: MonitorService, path: str, query: str = "") -> str:
    return (await service.answer(path, query)).body.decode()


async def test_a_dead_database_and_no_roles(tmp_path: Path) -> None:
    dead = f"postgresql://me:{SECRET}@127.0.0.1:{free_port()}/x"
    async with monitoring(settings_of(tmp_path, dead)) as service:

        async def named() -> bool:
            return "cannot use PostgreSQL" in await text(service, "/readyz", "verbose")

        await wait_until_async(named)
        assert (await service.answer("/livez", "")).status == 503
        assert (await service.answer("/readyz", "")).status == 503
        assert "nothing runs" in await text(service, "/livez")
        assert "signalkeep_database_up 0.0" in await text(service, "/metrics")
        assert (await service.answer("/nothing", "")).status == 404
        assert "/metrics" in await text(service, "/")
        for path in ("/livez", "/readyz", "/metrics"):
            assert SECRET not in await text(service, path, "verbose=1")


async def test_a_journal_directory_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, f"postgresql://me@127.0.0.1:{free_port()}/x")
    settings.journal_root.rmdir()
    async with monitoring(settings) as service:

        async def named() -> bool:
            return "journal cannot be read" in await text(service, "/readyz", "verbose")

        await wait_until_async(named)
        assert (await service.answer("/metrics", "")).status == 200


async def test_a_disk_that_does_not_answer_is_said_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hanging(*_: object) -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()

    async with monitoring(settings_of(tmp_path, f"postgresql://me@127.0.0.1:{free_port()}/x")) as service:
        monkeypatch.setattr(limits, "PROBE_S_MAX", 0.05)
        monkeypatch.setattr(Looker, "picture", hanging)
        answers = await asyncio.gather(*(service.answer("/livez", "") for _ in range(50)))
        assert {answer.status for answer in answers} == {503}
        assert b"cannot be read in time" in answers[0].body
        release.set()


@pytest.mark.servers
async def test_a_database_that_answers_falls_silent_and_answers_again(
    dsn: str, postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PROBE_S_MAX", 0.5)
    database = DatabaseWatch(settings_of(tmp_path, dsn), SystemClock())
    await wait_until_async(lambda: looked_up(database))
    assert (database.facts.schema, database.facts.cursors) == (HEAD, {})
    assert database.facts.round_trip_s is not None
    backends = [
        int(row["pid"])
        for row in await database._connection.fetch(  # type: ignore[union-attr]  # it is up
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'signalkeep monitor'"
        )
    ]
    for pid in backends:
        os.kill(pid, signal.SIGSTOP)
    try:
        before_s = time.monotonic()
        await database.look()
        assert not database.facts.up
        assert time.monotonic() - before_s < 20, "bounded"
        assert database.facts.cursors == {}, "what it said last is remembered"
    finally:
        for pid in backends:
            os.kill(pid, signal.SIGCONT)
    await wait_until_async(lambda: looked_up(database))
    database._drop()


async def looked_up(database: DatabaseWatch) -> bool:
    await database.look()
    return database.facts.up
