"""`doctor` says what is wrong, in words that lead to the cure, and its exit code tells a script."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import typer
from typer.testing import CliRunner

from signalkeep import limits
from signalkeep.cli import doctor as module
from signalkeep.cli.doctor import Check, doctor, examine
from signalkeep.config import Settings
from signalkeep.roles import RoleFile
from signalkeep.store.schema import HEAD
from tests.servers import PostgresServer, free_port, run_sync

app = typer.Typer()
app.command()(doctor)


class FixedClock:
    """A clock that stands still."""

    def __init__(self, year: int) -> None:
        self.year = year

    def now(self) -> datetime:
        return datetime(self.year, 6, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture
def data(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory whose settings ask for ports that are free."""
    for name in [name for name in os.environ if name.startswith("SIGNALKEEP_")]:
        monkeypatch.delenv(name)
    directory = short_directory / "data"
    directory.mkdir()
    ports = f"teltonika = {free_port()}\njson = {free_port()}\n"
    (directory / "signalkeep.toml").write_text(f"[gateway]\nhost = '127.0.0.1'\n[gateway.ports]\n{ports}")
    return directory


def examined(data: Path, year: int = 2026) -> dict[str, Check]:
    return {check.check: check for check in examine(data, None, FixedClock(year))}


def configure(data: Path, text: str) -> None:
    with (data / "signalkeep.toml").open("a") as file:
        file.write(f"\n{text}\n")


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine's disk is: local, with space."""
    monkeypatch.setattr(module, "file_system_of", lambda place: ("/", "ext4"))
    monkeypatch.setattr(psutil, "disk_usage", lambda place: Usage(free=10**15))


class Usage:
    def __init__(self, free: int) -> None:
        self.free = free


@pytest.mark.servers
@pytest.mark.usefixtures("roomy")
def test_all_is_well(data: Path, dsn: str) -> None:
    configure(data, f"[database]\ndsn = '{dsn}'")
    assert {name: check.result for name, check in examined(data).items() if check.result != "ok"} == {}
    found = CliRunner().invoke(app, ["--data", str(data)])
    assert found.exit_code == 0, found.output
    assert "PostgreSQL" in found.output


@pytest.mark.usefixtures("roomy")
def test_before_the_first_start_nothing_is_made_and_nothing_fails(data: Path) -> None:
    before = sorted(data.parent.rglob("*"))
    checks = examined(data)
    assert {name: check.result for name, check in checks.items() if check.result != "ok"} == {"PostgreSQL": "warn"}
    assert "signalkeep run" in checks["PostgreSQL"].advice
    assert checks["PostgreSQL programs"].found.startswith("version 18")
    assert sorted(data.parent.rglob("*")) == before
    missing = data / "not" / "yet"
    assert "will be made" in {c.check: c for c in examine(missing, None, FixedClock(2026))}["data directory"].found
    assert not missing.exists()


@pytest.mark.usefixtures("roomy")
def test_json_and_the_exit_code(data: Path) -> None:
    configure(data, f"[database]\ndsn = 'postgresql://me:hunter2@127.0.0.1:{free_port()}/x'")
    found = CliRunner().invoke(app, ["--data", str(data), "--json"])
    assert found.exit_code == 1
    assert "hunter2" not in found.output
    checks = msgspec.json.decode(found.stdout, type=list[Check])
    assert [check.check for check in checks if check.result == "fail"] == ["PostgreSQL"]


def test_settings_that_cannot_be_used_are_named(data: Path) -> None:
    configure(data, "[nonsense]\nx = 1")
    check = examined(data)["settings"]
    assert check.result == "fail"
    assert "nonsense" in check.found


@pytest.mark.parametrize(("year", "result"), [(1970, "fail"), (2024, "fail"), (2026, "ok"), (2155, "fail")])
def test_the_clock(year: int, result: str) -> None:
    assert module.check_clock(FixedClock(year)).result == result


@pytest.mark.parametrize(
    ("fstype", "result"),
    [
        ("ext4", "ok"), ("xfs", "ok"), ("apfs", "ok"), ("btrfs", "ok"), ("overlay", "warn"), ("tmpfs", "fail"),
        ("ramfs", "fail"), ("nfs4", "fail"), ("cifs", "fail"), ("fuse.sshfs", "fail"), ("9p", "fail"),
    ],
)  # fmt: skip
def test_the_kind_of_file_system(fstype: str, result: str) -> None:
    check = module.check_file_system(Path("/d"), "/", fstype)
    assert check.result == result
    assert bool(check.advice) == (result != "ok")


class Mount:
    def __init__(self, mountpoint: str, fstype: str) -> None:
        self.mountpoint, self.fstype = mountpoint, fstype


def test_the_longest_mount_point_counts_and_the_latest_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "data"
    place.mkdir()
    mounts = [
        Mount("/", "ext4"),
        Mount(str(tmp_path), "xfs"),
        Mount(str(place), "ext2"),
        Mount(str(place), "tmpfs"),
        Mount(str(tmp_path / "da"), "nfs"),
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    assert module.file_system_of(place) == (str(place), "tmpfs")
    assert module.file_system_of(tmp_path) == (str(tmp_path), "xfs")
    link = tmp_path / "link"
    link.symlink_to(place)
    assert module.file_system_of(link) == (str(place), "tmpfs")


def test_the_real_mounts_are_read() -> None:
    assert module.file_system_of(Path("/"))[0] == "/"
    if Path("/dev/shm").is_mount():
        assert module.file_system_of(Path("/dev/shm")) == ("/dev/shm", "tmpfs")


def settings_of(data: Path, **sections: Any) -> Settings:
    return Settings.model_validate({"data": data, **sections})


def test_the_space(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, journal={"disk_free_bytes": 10 * limits.GIB, "cap_bytes": 50 * limits.GIB})
    assert module.check_space(settings, 9 * limits.GIB).result == "fail"
    assert module.check_space(settings, 49 * limits.GIB).result == "warn"
    assert module.check_space(settings, 50 * limits.GIB).result == "ok"


def test_a_sync_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    assert module.check_sync(tmp_path).result == "ok"
    monkeypatch.setattr(os, "fdatasync", failing, raising=False)
    assert module.check_sync(tmp_path).result == "fail"
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_a_file_or_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.check_directory(tmp_path, tmp_path).result == "ok"
    file = tmp_path / "file"
    file.write_text("")
    assert module.check_directory(file, file).result == "fail"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert module.check_directory(tmp_path, tmp_path).result == "fail"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_a_port_of_somebody_else_and_one_of_ours(tmp_path: Path, taken: int) -> None:
    settings = settings_of(tmp_path, gateway={"host": "127.0.0.1", "ports": {"json": taken}})
    assert [check.result for check in module.check_ports(settings)] == ["fail"]
    RoleFile(settings.run_root, "gateway", 0).ready(ports={"json": taken})
    checks = list(module.check_ports(settings))
    assert [check.result for check in checks] == ["ok"]
    assert str(os.getpid()) in checks[0].found


@pytest.mark.servers
def test_a_server_that_can_lose_rows(data: Path, postgres_server: PostgresServer, dsn: str) -> None:
    database = dsn.partition("@/")[2].partition("?")[0]
    run_sync(postgres_server.execute(f"ALTER DATABASE {database} SET synchronous_commit = off"))
    configure(data, f"[database]\ndsn = '{dsn}'")
    check = examined(data)["PostgreSQL"]
    assert (check.result, "synchronous_commit" in check.found) == ("fail", True)
    configure(data, "allow_unsafe = true")
    check = examined(data)["PostgreSQL"]
    assert (check.result, "synchronous_commit" in check.found) == ("warn", True)


@pytest.mark.servers
def test_a_schema_of_another_version(data: Path, postgres_server: PostgresServer) -> None:
    empty = run_sync(postgres_server.create_database(migrated=False))
    configure(data, f"[database]\ndsn = '{empty}'")
    assert examined(data)["schema"].result == "warn"
    assert module.check_schema("9999").result == "fail"
    assert module.check_schema(HEAD).result == "ok"
