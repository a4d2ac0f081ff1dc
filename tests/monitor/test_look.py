"""The picture is taken whatever is missing, dead, half written or from another time."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from signalkeep.clock import SystemClock
from signalkeep.config import load
from signalkeep.monitor.look import Looker, process_facts
from signalkeep.monitor.picture import DatabaseFacts, Picture
from signalkeep.roles import RoleFile
from signalkeep.store.notes import LastBackup, note_backup
from signalkeep.vitals import Vitals, path_of


class Core:
    """The files of a core in a directory."""

    def __init__(self, data: Path) -> None:
        self.settings = load(data, environ={})
        self.run_root = self.settings.run_root
        self.run_root.mkdir(parents=True)
        self.looker = Looker(self.settings, SystemClock())

    def beat(self, role: str, instance: int = 0, **changes: Any) -> Path:
        values: dict[str, Any] = {
            "role": role, "instance": instance, "pid": os.getpid(), "version": "1",
            "started_at": datetime.now(UTC), "beat_s": SystemClock().monotonic(),
        }  # fmt: skip
        path = path_of(self.run_root, role, instance)
        path.write_bytes(msgspec.json.encode(Vitals(**(values | changes))))
        return path

    def supervise(self, **restarts: int) -> None:
        self.beat("supervisor")
        named = {name.replace("_", "-"): count for name, count in restarts.items()}
        RoleFile(self.run_root, "supervisor", 0).ready(restarts=named, postgres_pid=None)

    def picture(self) -> Picture:
        return self.looker.picture(None, "", DatabaseFacts())


@pytest.fixture
def core(tmp_path: Path) -> Core:
    return Core(tmp_path / "data")


def names(picture: Picture) -> dict[str, bool]:
    return {role.name: role.lives for role in picture.roles}


def test_before_anything_runs(core: Core) -> None:
    assert core.picture().roles == []
    assert Looker(load(core.settings.data / "never", environ={}), SystemClock()).vitals() == {}


def test_the_supervisor_says_who_should_be_there(core: Core) -> None:
    core.supervise(gateway_0=0, gateway_1=3, ingest_0=0, postgres_0=1, fleet_0=0)
    core.beat("gateway")
    core.beat("gateway", 7)  # of an earlier run with more processes
    picture = core.picture()
    assert names(picture) == {"gateway-0": True, "gateway-1": False, "ingest-0": False, "supervisor-0": True}
    assert picture.restarts["gateway-1"] == 3
    assert picture.supervised


def test_without_a_supervisor_those_that_were_there_and_did_not_end_in_order(core: Core) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.DEVNULL)
    child.wait()
    core.beat("ingest", 12, pid=child.pid)
    core.beat("gateway", 5)
    assert names(core.picture()) == {"gateway-5": True, "ingest-12": False}


def test_a_file_that_is_half_written_for_a_moment_hides_nobody(core: Core) -> None:
    path = core.beat("gateway")
    assert names(core.picture()) == {"gateway-0": True}
    path.write_bytes(path.read_bytes()[:40])
    assert names(core.picture()) == {"gateway-0": True}
    path.unlink()
    assert names(core.picture()) == {}


def test_ages_and_what_the_process_uses(core: Core) -> None:
    now_s = SystemClock().monotonic()
    core.beat("gateway", beat_s=now_s - 30, handled_s=now_s - 60)
    (role,) = core.picture().roles
    assert 30 <= role.beat_age_s < 60 <= role.handled_age_s
    assert role.process is not None
    assert role.process.resident_bytes > 0
    assert not role.listens, "it has not said that it is ready"
    RoleFile(core.run_root, "gateway", 0).ready(ports={"json": 1})
    assert core.picture().roles[0].listens
    assert process_facts(2**22 + 1) is None


def test_the_time_of_the_last_backup(core: Core) -> None:
    assert core.picture().last_backup_s is None
    at = datetime(2026, 5, 1, 10, tzinfo=UTC)
    note_backup(core.settings, LastBackup(at, "/b", 1))
    assert core.picture().last_backup_s == at.timestamp()
    (core.settings.data / "backups.json").write_bytes(b"{")
    assert core.picture().last_backup_s is None
