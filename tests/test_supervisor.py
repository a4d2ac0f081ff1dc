"""The supervisor over stand-ins for its roles: restarts, refusals to start twice, and the order at the end."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from signalkeep import limits
from signalkeep.clock import SystemClock
from signalkeep.config import Settings, load
from signalkeep.errors import AlreadyRunning
from signalkeep.roles import RoleFile, prepare_directories, running_roles
from signalkeep.supervisor import Role, Supervisor, take_lock
from signalkeep.systemd import ServiceManager
from tests.servers import wait_until_async

STAND_IN = """#!{python} -ES
import os, select, signal, sys
_, _, name, manner, _, parent_fd = sys.argv[1:]
def say(word):
    with open({diary!r}, "a") as diary:
        diary.write(f"{{name}} {{word}}\\n")
def end(*_):
    say("ended")
    os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if manner == "deaf" else end)
say("began")
if manner == "dies":
    os._exit(3)
select.select([int(parent_fd)], [], [])
say("orphaned")
"""


class Stage:
    """Stand-ins for roles, and what they wrote down."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._diary = path / "diary"
        stand_in = path / "stand_in"
        stand_in.write_text(STAND_IN.format(python=sys.executable, diary=str(self._diary)))
        stand_in.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(stand_in))
        for name, value in (("RESTART_S_MIN", 0.01), ("RESTART_S_MAX", 0.02), ("READY_S_MAX", 0.05)):
            monkeypatch.setattr(limits, name, value)
        environ = {"SIGNALKEEP_DATABASE__DSN": "postgresql://nobody@127.0.0.1:1/nowhere"}
        self.settings: Settings = load(path / "data", environ=environ)
        prepare_directories(self.settings)
        self.stop = asyncio.Event()
        self.waiting: list[list[str]] = []
        self.manager: dict[str, str] = {}  # the environment that a service manager gives

    def supervisor(self, roles: Sequence[Role], probe_ports: list[Exception] | None = None) -> Supervisor:
        def probe() -> None:
            for fault in probe_ports or []:
                raise fault

        return Supervisor(
            self.settings,
            roles,
            clock=SystemClock(),
            stop=self.stop,
            probe_ports=probe,
            service_manager=ServiceManager(self.manager),
        )

    @asynccontextmanager
    async def running(self, *roles: Role) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.supervisor(roles).run(self.waiting.append))
        try:
            yield task
        finally:
            self.stop.set()
            async with asyncio.timeout(30):
                await task

    def diary(self) -> list[str]:
        return self._diary.read_text().splitlines() if self._diary.exists() else []

    async def noted(self, line: str, times: int = 1) -> None:
        await wait_until_async(lambda: self.diary().count(line) >= times, what=f"{line}, {times} times")


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


def role(name: str, manner: str = "stays", instance: int = 0) -> Role:
    return Role(name, instance, [name, manner])


async def test_a_role_that_dies_is_started_again_and_stops_no_other(stage: Stage) -> None:
    mortal, other = role("mortal", "dies"), role("other")
    async with stage.running(mortal, other) as task:
        await stage.noted("mortal began", 4)
        await stage.noted("other began")
        assert not task.done()
        assert mortal.last_exit == 3
        (state,) = running_roles(stage.settings.run_root)
        assert state.detail["restarts"]["mortal-0"] >= 2
        assert state.detail["restarts"]["other-0"] == 0
    assert stage.diary().count("other began") == 1
    assert running_roles(stage.settings.run_root) == []


async def test_roles_end_last_started_first_each_waited_for(stage: Stage) -> None:
    roles = [role("ingest"), role("ingest", instance=1), role("gateway"), role("fleet")]
    async with stage.running(*roles):
        for name, times in (("ingest", 2), ("gateway", 1), ("fleet", 1)):
            await stage.noted(f"{name} began", times)
    assert stage.diary()[4:] == ["fleet ended", "gateway ended", "ingest ended", "ingest ended"]
    assert all(one.process is not None and one.process.returncode == 0 for one in roles)


async def test_a_role_that_does_not_listen_is_killed_and_meanwhile_nothing_starts_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STOP_GRACE_S", 0.1)
    deaf = role("deaf", "deaf")
    async with stage.running(deaf, role("other")):
        await stage.noted("deaf began")
        await stage.noted("other began")
    assert deaf.process is not None
    assert deaf.process.returncode == -9
    assert stage.diary()[2:] == ["other ended"]


async def test_roles_that_are_not_ready_in_time_are_named(stage: Stage) -> None:
    RoleFile(stage.settings.run_root, "supervisor", 1).ready()  # not one of ours
    async with stage.running(role("slow"), role("slower", instance=1)):
        await wait_until_async(lambda: stage.waiting)
    assert stage.waiting == [["slow", "slower"]]


async def test_one_data_directory_has_one_supervisor(stage: Stage) -> None:
    async with stage.running(role("first")):
        await stage.noted("first began")
        with pytest.raises(AlreadyRunning, match=str(stage.settings.data)):
            await stage.supervisor([role("second")]).run(stage.waiting.append)
    assert "second began" not in stage.diary()
    os.close(take_lock(stage.settings.run_root))


async def test_taken_ports_are_found_before_anything_starts(stage: Stage) -> None:
    supervisor = stage.supervisor([role("gateway")], probe_ports=[AlreadyRunning("port 1 is in use")])
    with pytest.raises(AlreadyRunning, match="port 1"):
        await supervisor.run(stage.waiting.append)
    assert stage.diary() == []
    os.close(take_lock(stage.settings.run_root))


async def test_roles_of_a_killed_supervisor_are_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    orphan = RoleFile(stage.settings.run_root, "ingest", 0)
    orphan.ready()
    async with stage.running(role("gateway")):
        await asyncio.sleep(0.05)
        assert stage.diary() == []
        orphan.gone()
        await stage.noted("gateway began")
    orphan.ready()
    monkeypatch.setattr(limits, "STOP_GRACE_S", 0.02)
    with pytest.raises(AlreadyRunning, match=f"ingest .pid {os.getpid()}"):
        await stage.supervisor([role("gateway")]).run(stage.waiting.append)
    assert stage.diary().count("gateway began") == 1
