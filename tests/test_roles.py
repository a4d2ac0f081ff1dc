"""What role processes share: who is there, when to stop, and directories that are theirs alone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from signalkeep.config import load
from signalkeep.errors import EnvironmentFault
from signalkeep.roles import RoleFile, RoleState, prepare_directories, running_roles, stop_on_signals


def announced(run_root: Path, pid: int, started_at: datetime) -> None:
    state = RoleState(role="gateway", instance=0, pid=pid, started_at=started_at)
    (run_root / "gateway-0.json").write_bytes(msgspec.json.encode(state))


def test_a_role_is_there_from_ready_to_gone(tmp_path: Path) -> None:
    run_root = tmp_path / "run"
    file = RoleFile(run_root, "gateway", 3)
    assert running_roles(run_root) == []
    file.ready(ports={"json": 7}, journal="abc")
    (state,) = running_roles(run_root)
    assert (state.role, state.instance, state.pid) == ("gateway", 3, os.getpid())
    assert (state.ports, state.detail) == ({"json": 7}, {"journal": "abc"})
    file.ready(ports={"json": 8})
    assert [state.ports for state in running_roles(run_root)] == [{"json": 8}]
    assert [path.name for path in run_root.iterdir()] == ["gateway-3.json"], "replaced as a whole, nothing left over"
    file.gone()
    file.gone()
    assert running_roles(run_root) == []


def test_what_a_dead_process_left_counts_for_nothing(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.DEVNULL)
    announced(tmp_path, child.pid, datetime.now(UTC))
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert running_roles(tmp_path) == [], "it has ended, although nobody has asked how"
    child.wait()
    assert running_roles(tmp_path) == []


def test_a_later_process_with_the_same_pid_is_another(tmp_path: Path) -> None:
    announced(tmp_path, os.getpid(), datetime.now(UTC))
    assert len(running_roles(tmp_path)) == 1
    announced(tmp_path, os.getpid(), datetime.now(UTC) - timedelta(days=400))
    assert running_roles(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"role": 5}', b"\xff"])
def test_a_file_that_cannot_be_read_counts_for_nothing_and_hides_no_other(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a-0.json").write_bytes(content)
    (tmp_path / "z-0.json").mkdir()
    RoleFile(tmp_path, "gateway", 0).ready()
    assert [state.role for state in running_roles(tmp_path)] == ["gateway"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops(number: signal.Signals) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop, None)
    assert not stop.is_set()
    os.kill(os.getpid(), number)
    async with asyncio.timeout(10):
        await stop.wait()


async def test_the_end_of_the_supervisor_stops_however_it_came() -> None:
    stop = asyncio.Event()
    read, write = os.pipe()
    try:
        stop_on_signals(stop, read)
        await asyncio.sleep(0)
        assert not stop.is_set()
        os.close(write)
        async with asyncio.timeout(10):
            await stop.wait()
    finally:
        os.close(read)


def test_directories_are_closed_to_others_and_may_be_there_already(tmp_path: Path) -> None:
    settings = load(tmp_path / "a" / "data", environ={})
    for _ in range(2):
        prepare_directories(settings)
    assert settings.data.stat().st_mode & 0o777 == 0o711
    for directory in (settings.journal_root, settings.evidence_root, settings.run_root):
        assert directory.stat().st_mode & 0o777 == 0o700


def test_a_data_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="file/data") as caught:
        prepare_directories(load(tmp_path / "file" / "data", environ={}))
    assert "--data" in caught.value.hint


def test_ingest_lets_others_go_first(tmp_path: Path) -> None:
    """In a process of its own, whose priority is its own matter; in a session that it shares, only its own."""
    script = "import os; from signalkeep.roles import lower_priority; lower_priority(5); print(os.nice(0))"
    for own_session in (False, True):
        found = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, start_new_session=own_session
        )
        assert int(found.stdout) == os.nice(0) + 5
