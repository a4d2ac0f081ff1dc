"""The embedded server starts again by itself, whatever an earlier run has left behind, and is nobody else's."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from signalkeep import limits
from signalkeep.errors import AlreadyRunning, CallerError, DatabaseUnavailable, EnvironmentFault
from signalkeep.sections import DatabaseSettings
from signalkeep.store import binaries
from signalkeep.store.embedded import EmbeddedPostgres
from signalkeep.store.leftovers import server_processes
from signalkeep.store.postgres import SOCKET_FILE, connect, socket_directory
from tests.servers import SETTINGS, connected, processes_below, wait_until, wait_until_async

pytestmark = pytest.mark.servers

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="ONLY ROOT DROPS TO ANOTHER ACCOUNT, NOT TESTED")

SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from signalkeep.sections import DatabaseSettings
from signalkeep.store.embedded import EmbeddedPostgres

async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]), settings=DatabaseSettings())
    await server.start()
    print(server.pid, flush=True)
    await server.wait()

asyncio.run(main())
"""


@pytest.fixture
def data(short_directory: Path) -> Path:
    return short_directory / "data"


@asynccontextmanager
async def running(data: Path, settings: DatabaseSettings = SETTINGS) -> AsyncIterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(data, settings=settings)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@contextmanager
def supervisor(data: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that runs the server of this data directory."""
    with subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(data)], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def keep(server: EmbeddedPostgres, word: str) -> None:
    async with connected(server.dsn) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS kept (word text)")
        await connection.execute("INSERT INTO kept VALUES ($1)", word)


async def kept(server: EmbeddedPostgres) -> list[str]:
    async with connected(server.dsn) as connection:
        return [row["word"] for row in await connection.fetch("SELECT word FROM kept ORDER BY word")]


def open_to_others(data: Path) -> list[Path]:
    """Whatever strangers could use if every directory above let them pass."""
    return [path for path in [data, *data.rglob("*")] if path.lstat().st_mode & 0o007 and not path.is_symlink()]


def program_of(pid: int) -> Path:
    return Path(psutil.Process(pid).exe())


@contextmanager
def stranger_of(owner: binaries.Account) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the server's account that has nothing to do with it."""
    with subprocess.Popen(["/bin/sleep", "600"], cwd="/", **owner.popen_arguments()) as stranger:
        try:
            yield stranger
            assert stranger.poll() is None, "a process that is none of ours was ended"
        finally:
            stranger.kill()


def data_of_another_version(data: Path, major: int) -> None:
    other = data / "postgres" / str(major)
    other.mkdir(parents=True)
    (other / "PG_VERSION").write_text(f"{major}\n")
    if os.geteuid() == 0:
        os.chown(other, binaries.choose_account(SETTINGS, None).uid, -1)
        data.chmod(0o711)
        other.parent.chmod(0o711)


def cluster(data: Path) -> Path:
    return next(iter((data / "postgres").glob("[0-9]*")))


def account(data: Path) -> binaries.Account:
    return binaries.choose_account(SETTINGS, cluster(data))


def write_as(file: Path, text: str, owner: binaries.Account) -> None:
    """A file as a server of this account would have left it."""
    file.write_text(text)
    file.chmod(0o600)
    if owner.switch:
        os.chown(file, owner.uid, owner.gid)


# The usual life


async def test_data_outlive_a_restart_and_are_closed_to_others(data: Path) -> None:
    async with running(data) as server:
        assert server.pid is not None
        await keep(server, "before")
        async with connected(server.dsn) as connection:
            assert await connection.fetchval("SHOW data_checksums") == "on"
            assert await connection.fetchval("SHOW listen_addresses") == ""
            assert await connection.fetchval("SHOW server_encoding") == "UTF8"
        assert open_to_others(data) == []
        assert stat.S_IMODE(socket_directory(data).stat().st_mode) == 0o700
    assert server.pid is None
    assert not processes_below(data)
    async with running(data) as server:
        assert await kept(server) == ["before"]


async def test_the_end_of_the_server_is_noticed_and_it_starts_again(data: Path) -> None:
    server = EmbeddedPostgres(data, settings=SETTINGS)
    await server.start()
    try:
        await keep(server, "before")
        pid = server.pid
        assert pid is not None
        waiting = asyncio.create_task(server.wait())
        os.kill(pid, signal.SIGKILL)
        assert await waiting == -signal.SIGKILL
        await server.start()
        assert server.pid != pid
        assert await kept(server) == ["before"]
    finally:
        await server.stop()


async def test_a_second_starter_is_sent_away_and_the_first_goes_on(data: Path) -> None:
    with supervisor(data) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        with pytest.raises(AlreadyRunning):
            await EmbeddedPostgres(data, settings=SETTINGS).start()
        assert [master.pid for master in server_processes(cluster(data)) if master.pid == pid] == [pid]
        async with connected(EmbeddedPostgres(data, settings=SETTINGS).dsn) as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def test_a_server_that_hangs_is_stopped_by_force(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(data) as server:
        await keep(server, "before")
        assert server.pid is not None
        monkeypatch.setattr(limits, "POSTGRES_STOP_S_MAX", 0.2)
        os.kill(server.pid, signal.SIGSTOP)
    monkeypatch.undo()
    await wait_until_async(lambda: not processes_below(data))
    async with running(data) as server:
        assert await kept(server) == ["before"]


# What was left behind


@pytest.mark.parametrize("frozen", [False, True])
async def test_a_server_orphaned_by_a_killed_supervisor_is_replaced(
    data: Path, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with supervisor(data) as process:
        assert process.stdout is not None
        orphan = int(process.stdout.readline())
        await keep(EmbeddedPostgres(data, settings=SETTINGS), "before")
        process.kill()
        process.wait()
    assert orphan in [found.pid for found in server_processes(cluster(data))]
    if frozen:
        os.kill(orphan, signal.SIGSTOP)
        monkeypatch.setattr(limits, "POSTGRES_STOP_S_MAX", 0.2)
        monkeypatch.setattr("signalkeep.store.leftovers._QUIT_S_MAX", 0.2)
    async with running(data) as server:
        assert orphan not in [found.pid for found in server_processes(cluster(data))]
        assert server.pid != orphan
        assert await kept(server) == ["before"]


async def test_backends_that_outlive_their_postmaster_are_ended(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend stopped in the middle of something does not notice that the postmaster is gone."""
    monkeypatch.setattr("signalkeep.store.leftovers._QUIT_S_MAX", 0.3)
    server = EmbeddedPostgres(data, settings=SETTINGS)
    await server.start()
    try:
        await keep(server, "before")
        connection = await connect(server.dsn, application="tests", settings=SETTINGS)
        backend = connection.get_server_pid()
        os.kill(backend, signal.SIGSTOP)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await server.wait()
        connection.terminate()
        await server.start()
        assert backend not in [found.pid for found in server_processes(cluster(data))]
        assert await kept(server) == ["before"]
    finally:
        await server.stop()


LEFT_BEHIND: dict[str, Callable[[int, Path], str]] = {
    "empty": lambda pid, directory: "",
    "damaged": lambda pid, directory: "\0\0\0\0\n",
    "pid of another process": lambda pid, directory: f"{pid}\n{directory}\n1700000000\n5432\n/x\n\n  1 2\nready\n",
    "pid that is gone": lambda pid, directory: f"4194000\n{directory}\n1700000000\n5432\n/x\n\n  1 2\nready\n",
}


async def test_stale_lock_files_do_not_keep_it_from_starting(data: Path) -> None:
    """The other process belongs to the server's account: of others, PostgreSQL itself knows that they are not it."""
    async with running(data) as server:
        await keep(server, "before")
    owner = account(data)
    files = (cluster(data) / "postmaster.pid", socket_directory(data) / f"{SOCKET_FILE}.lock")
    with stranger_of(owner) as stranger:
        for file, content in itertools.product(files, LEFT_BEHIND.values()):
            write_as(file, content(stranger.pid, cluster(data)), owner)
            async with running(data) as server:
                assert await kept(server) == ["before"]


async def test_an_initdb_cut_short_leaves_nothing_that_matters(data: Path) -> None:
    with supervisor(data) as process:
        wait_until(lambda: list(data.glob("postgres/.initdb-*/data/PG_VERSION")), what="initdb works")
        process.kill()
        process.wait()
    assert not list((data / "postgres").glob("[0-9]*"))
    async with running(data) as server:
        await keep(server, "first")
    async with running(data) as server:
        assert await kept(server) == ["first"]
    assert not list((data / "postgres").glob(".initdb-*"))


async def test_a_long_recovery_is_waited_for(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server says all the while that it is starting up; only silence is bounded."""
    async with running(data) as server:
        await keep(server, "before")
    owner = account(data)
    with (cluster(data) / "postgresql.conf").open("a") as configuration:
        configuration.write("\nhot_standby = off\nrestore_command = 'sleep 0.6; false'\n")
    write_as(cluster(data) / "recovery.signal", "", owner)
    monkeypatch.setattr(limits, "POSTGRES_START_S_MAX", 2.0)
    async with running(data) as server:
        assert await kept(server) == ["before"]


# What it says when it cannot


async def test_a_server_that_will_not_start_is_quoted(data: Path) -> None:
    async with running(data):
        pass
    file = cluster(data) / "postgresql.conf"
    before = file.read_text()
    file.write_text(before + "\nno_such_setting = 1\n")
    with pytest.raises(EnvironmentFault, match="no_such_setting"):
        await EmbeddedPostgres(data, settings=SETTINGS).start()
    file.write_text(before)
    async with running(data):
        pass


async def test_a_server_that_never_answers_is_given_up(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = data.parent / "bin"
    programs.mkdir(mode=0o755)
    for name, body in {
        "postgres": 'if [ "$1" = --version ]; then echo "postgres (PostgreSQL) 18.0"; else exec sleep 600; fi',
        "initdb": 'echo 18 > "$2/PG_VERSION"; echo > "$2/postgresql.conf"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(limits, "POSTGRES_START_S_MAX", 0.3)
    server = EmbeddedPostgres(data, settings=DatabaseSettings.model_validate({"bin_dir": programs}))
    with pytest.raises(EnvironmentFault, match="does not answer"):
        await server.start()
    assert server.pid is None


async def test_data_of_another_major_version_are_not_passed_over(data: Path) -> None:
    data_of_another_version(data, 15)
    with pytest.raises(EnvironmentFault, match=r"PostgreSQL 15") as caught:
        await EmbeddedPostgres(data, settings=SETTINGS).start()
    assert "bin_dir" in caught.value.hint
    assert [path.name for path in (data / "postgres").glob("[0-9]*")] == ["15"]


async def test_a_socket_directory_that_is_not_its_own_is_refused(data: Path) -> None:
    async with running(data):
        pass
    socket_directory(data).chmod(0o777)
    with pytest.raises(EnvironmentFault, match="alone"):
        await EmbeddedPostgres(data, settings=SETTINGS).start()
    socket_directory(data).chmod(0o700)
    if os.geteuid() == 0:
        os.chown(socket_directory(data), 4321, -1)
        with pytest.raises(EnvironmentFault, match="4321"):
            await EmbeddedPostgres(data, settings=SETTINGS).start()


async def test_no_programs(data: Path) -> None:
    settings = DatabaseSettings.model_validate({"bin_dir": data / "nowhere"})
    with pytest.raises(CallerError, match="bin_dir"):
        await EmbeddedPostgres(data, settings=settings).start()


# Paths, accounts, log


@pytest.mark.parametrize("name", ["l" * 110, "a,b", 'quo"te d'])
async def test_a_data_directory_whose_path_cannot_hold_a_socket(short_directory: Path, name: str) -> None:
    data = short_directory / name / "data"
    sockets = socket_directory(data)
    data.parent.mkdir(mode=0o711)
    try:
        async with running(data) as server:
            await keep(server, "here")
            assert await kept(server) == ["here"]
        async with running(data) as server:
            assert await kept(server) == ["here"]
    finally:
        if not sockets.is_relative_to(short_directory):
            with suppress(FileNotFoundError):
                shutil.rmtree(sockets)


async def test_the_log_is_bounded(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(data):
        pass
    monkeypatch.setattr(limits, "POSTGRES_LOG_BYTES_MAX", 10)
    first = (data / "log" / "postgres.log").read_bytes()
    async with running(data):
        assert (data / "log" / "postgres.log.1").read_bytes() == first
    async with running(data):
        assert (data / "log" / "postgres.log.1").read_bytes() != first
    assert sorted(path.name for path in (data / "log").iterdir()) == ["postgres.log", "postgres.log.1"]


@needs_root
async def test_a_directory_that_blocks_the_account_is_named_and_left_as_it_is(short_directory: Path) -> None:
    closed = short_directory / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EnvironmentFault, match=str(closed)) as caught:
        await EmbeddedPostgres(closed / "deep" / "data", settings=SETTINGS).start()
    assert f"chmod o+x {closed}" in caught.value.hint
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@needs_root
async def test_programs_out_of_reach_are_copied_once(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = short_directory / "closed"
    closed.mkdir(mode=0o700)
    wheel = binaries._wheel_folder()
    for source in (wheel, wheel.with_name(f"{wheel.name}.libs")):
        (closed / source.name).symlink_to(source)
    monkeypatch.setattr(binaries, "_wheel_folder", lambda: closed / wheel.name)
    data = short_directory / "data"
    async with running(data) as server:
        await keep(server, "before")
        assert server.pid is not None
        program = program_of(server.pid)
        assert program.is_relative_to(data / "postgres")
    copied = (program.stat().st_ino, program.stat().st_mtime_ns)
    (data / "postgres" / "server-17-old").mkdir()
    async with running(data) as server:
        assert await kept(server) == ["before"]
    assert (program.stat().st_ino, program.stat().st_mtime_ns) == copied
    program.write_bytes(b"")  # a copy that a power failure has hollowed out
    async with running(data) as server:
        assert await kept(server) == ["before"]
    assert len(list((data / "postgres").glob("server-*"))) == 1


def test_who_the_server_runs_as(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(existing: Path | None = None, **settings: Any) -> binaries.Account:
        return binaries.choose_account(DatabaseSettings.model_validate(settings), existing)

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert (chosen().uid, chosen().switch) == (1000, False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert chosen().name in {"postgres", "nobody"}
    assert chosen(run_as="nobody").name == "nobody"
    assert chosen().popen_arguments()["extra_groups"] == []
    with pytest.raises(CallerError, match="no user"):
        chosen(run_as="no-such-user")
    with pytest.raises(CallerError, match="root"):
        chosen(run_as="root")
    if short_directory.stat().st_uid == 0:
        os.chown(short_directory, 4321, -1)
        assert chosen(short_directory).uid == 4321
        with pytest.raises(EnvironmentFault, match="belongs to"):
            chosen(short_directory, run_as="nobody")


async def test_before_the_start_there_is_a_hint(data: Path) -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        await connect(EmbeddedPostgres(data, settings=SETTINGS).dsn, application="tests", settings=SETTINGS)
    assert "signalkeep run" in caught.value.hint
