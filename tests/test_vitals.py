"""What roles say about themselves: whole or not at all, while they live, and whatever else is broken."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from signalkeep import vitals
from signalkeep.roles import RoleFile
from signalkeep.vitals import Heart, Histogram, Report, Vitals, path_of, read_all
from tests.servers import wait_until_async


class HandClock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.at_s = 100.0

    def now(self) -> datetime:
        return datetime(2026, 5, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.at_s


def files(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def ended_pid() -> int:
    """Of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.DEVNULL)
    child.wait()
    return child.pid


async def test_a_role_is_seen_while_it_lives_and_gone_after(tmp_path: Path) -> None:
    async with Heart(tmp_path, "gateway", 2, clock=HandClock()):
        await wait_until_async(lambda: read_all(tmp_path))
        (seen,) = read_all(tmp_path)
        assert (seen.name, seen.pid, seen.lives) == ("gateway-2", os.getpid(), True)
        assert files(tmp_path) == ["gateway-2.vitals"]
    assert files(tmp_path) == []


async def test_progress_is_what_was_handled_last_and_a_beat_is_only_a_beat(tmp_path: Path) -> None:
    clock, report = HandClock(), Report(handled=5)
    heart = Heart(tmp_path, "ingest", 0, clock=clock, ask=lambda: report)
    await heart.beat()
    clock.at_s = 130.0
    await heart.beat()
    (seen,) = read_all(tmp_path)
    assert (seen.beat_s, seen.handled_s) == (130.0, 100.0)
    report.handled = 6
    clock.at_s = 131.0
    await heart.beat()
    assert read_all(tmp_path)[0].handled_s == 131.0


async def test_numbers_that_cannot_be_taken_cost_no_beat(tmp_path: Path) -> None:
    def ask() -> Report:
        raise ZeroDivisionError

    clock = HandClock()
    heart = Heart(tmp_path, "ingest", 0, clock=clock, ask=ask)
    for clock.at_s in (1.0, 2.0):
        await heart.beat()
    assert read_all(tmp_path)[0].beat_s == 2.0


async def test_a_beat_and_an_announcement_at_the_same_moment_are_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    write_bytes = Path.write_bytes

    def noting(path: Path, data: bytes) -> int:
        written.append(path)
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", noting)
    await Heart(tmp_path, "monitor", 0, clock=HandClock()).beat()
    RoleFile(tmp_path, "monitor", 0).ready(ports={"monitor": 1})
    assert len(set(written)) == len(written) == 2, "else the one could be put in the place of the other"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_on_a_full_disk_the_file_is_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    clock = HandClock()
    heart = Heart(tmp_path, "gateway", 0, clock=clock)
    await heart.beat()

    def full(path: Path, data: bytes) -> None:
        raise OSError(code, "no room")

    monkeypatch.setattr(Path, "write_bytes", full)
    clock.at_s = 150.0
    await heart.beat()
    assert read_all(tmp_path)[0].beat_s == 150.0


async def test_a_directory_that_is_gone_ends_no_role(tmp_path: Path) -> None:
    async with Heart(tmp_path / "gone", "gateway", 0, clock=HandClock()) as heart:
        await heart.beat()
    assert read_all(tmp_path / "gone") == []


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"role": 5}', b"\xff"])
def test_a_half_written_file_counts_for_nothing_and_hides_no_other(tmp_path: Path, content: bytes) -> None:
    whole = Vitals(role="z", instance=0, pid=1, version="0", started_at=datetime.now(UTC), beat_s=1.0)
    path_of(tmp_path, "a", 0).write_bytes(content)
    path_of(tmp_path, "z", 0).write_bytes(msgspec.json.encode(whole))
    path_of(tmp_path, "zz", 0).mkdir()
    assert [seen.name for seen in read_all(tmp_path)] == ["z-0"]


async def test_the_successor_of_a_killed_process_buries_it_and_nobody_else(tmp_path: Path) -> None:
    ended = ended_pid()
    for role, instance, pid in (("gateway", 4711, ended), ("gateway", 1, os.getpid()), ("ingest", 9, ended)):
        dead = Vitals(role=role, instance=instance, pid=pid, version="0", started_at=datetime.now(UTC), beat_s=1.0)
        path_of(tmp_path, role, instance).write_bytes(msgspec.json.encode(dead))
    assert [one.name for one in read_all(tmp_path) if not one.lives] == ["gateway-4711", "ingest-9"]
    (tmp_path / f"gateway-4711.vitals.{ended}").write_bytes(b"{")
    (tmp_path / f"gateway-1.vitals.{os.getpid()}").write_bytes(b"{")
    async with Heart(tmp_path, "gateway", 0, clock=HandClock()):
        await wait_until_async(lambda: len(read_all(tmp_path)) == 3)
        assert [name for name in files(tmp_path) if not name.endswith(".vitals")] == [f"gateway-1.vitals.{os.getpid()}"]
        assert [one.name for one in read_all(tmp_path)] == ["gateway-0", "gateway-1", "ingest-9"]


def test_a_histogram_counts_each_value_once_at_the_bound_above_it() -> None:
    histogram = Histogram.of((0.1, 1.0))
    for took_s in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(took_s)
    assert histogram.counts == [2, 1, 1]
    assert histogram.sum_s == pytest.approx(7.65)


def test_the_files_are_no_announcements_of_roles() -> None:
    assert not Path(f"gateway-0{vitals.SUFFIX}").match("*-*.json")
