"""`doctor` says what is wrong, in words that lead to the cure, and its exit code tells a script."""

from __future__ import annotations

import os
import resource
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

from signalkeep import disks, limits
from signalkeep.cli import doctor as module
from signalkeep.cli import doctor_database, doctor_disk
from signalkeep.cli.doctor import doctor, examine
from signalkeep.cli.doctor_database import Server
from signalkeep.cli.doctor_disk import Check, SyncTest
from signalkeep.config import Settings
from signalkeep.disks import Mount
from signalkeep.roles import RoleFile
from signalkeep.store.schema import HEAD
from tests.servers import PostgresServer, free_port, run_sync

app = typer.Typer()
app.command()(doctor)

DISK = Mount("/", "ext4", "/dev/sda1", ("rw", "relatime"), "write back")


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
    (directory / "signalkeep.toml").write_text(
        f"[monitor]\nport = {free_port()}\n[gateway]\nhost = '127.0.0.1'\n[gateway.ports]\n{ports}"
    )
    return directory


def examined(data: Path, year: int = 2026) -> dict[str, Check]:
    return {check.check: check for check in examine(data, None, FixedClock(year))}


def configure(data: Path, text: str) -> None:
    with (data / "signalkeep.toml").open("a") as file:
        file.write(f"\n{text}\n")


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine is: a local disk with space, a clock that is kept, files enough."""
    for where in (module, doctor_database):
        monkeypatch.setattr(where, "mount_of", lambda place: DISK)
    monkeypatch.setattr(psutil, "disk_usage", lambda place: Usage(free=10**15))
    monkeypatch.setattr(module, "clock_synchronised", lambda: True)
    monkeypatch.setattr(module, "files_allowed", lambda settings: 10**6)


class Usage:
    def __init__(self, free: int) -> None:
        self.free = free


@pytest.mark.servers
@pytest.mark.usefixtures("roomy")
def test_all_is_well(data: Path, dsn: str) -> None:
    configure(data, f"[database]\ndsn = '{dsn}'")
    (data / "backups.json").write_text('{"at": "2026-05-30T00:00:00Z", "path": "/backups/1", "bytes": 1}')
    odd = {name: check.result for name, check in examined(data).items() if check.result != "ok"}
    assert odd.keys() <= {"clocks"}, "the clock of this test stands still"
    found = CliRunner().invoke(app, ["--data", str(data)])
    assert found.exit_code == 0, found.output
    means = (
        "An acknowledgement means: on the disk /dev/sda1 (write cache: write back), file system ext4, synced with fdata"
    )
    assert found.output.rstrip().splitlines()[-1].startswith(means)
    assert found.output.rstrip().endswith(
        "rows: PostgreSQL fsync on, synchronous_commit on, full_page_writes on, data checksums on."
    )


@pytest.mark.usefixtures("roomy")
def test_before_the_first_start_nothing_is_made_and_nothing_fails(data: Path) -> None:
    before = sorted(data.parent.rglob("*"))
    checks = examined(data)
    assert {name: check.result for name, check in checks.items() if check.result != "ok"} == {
        "PostgreSQL": "warn",
        "backup": "warn",
    }
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
    assert module.check_clock(FixedClock(year), True).result == result


def test_a_clock_that_nobody_keeps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert module.check_clock(FixedClock(2026), False).result == "warn"
    assert module.check_clock(FixedClock(2026), None).result == "ok"
    monkeypatch.setattr(module, "TIMESYNC", tmp_path)
    assert module.clock_synchronised() is True
    monkeypatch.setattr(module, "TIMESYNC", tmp_path / "not")
    assert module.clock_synchronised() in {True, False, None}


@pytest.mark.parametrize(
    ("fstype", "options", "result"),
    [
        ("ext4", "rw", "ok"), ("xfs", "rw", "ok"), ("apfs", "rw", "ok"), ("btrfs", "rw", "ok"),
        ("overlay", "rw", "warn"), ("tmpfs", "rw", "fail"), ("ramfs", "rw", "fail"), ("nfs4", "rw", "fail"),
        ("cifs", "rw", "fail"), ("fuse.sshfs", "rw", "fail"), ("9p", "rw", "fail"),
        ("ext4", "rw,nobarrier", "fail"), ("ext4", "rw,barrier=0", "fail"), ("xfs", "nobarrier", "fail"),
        ("ext4", "rw,data=writeback", "warn"), ("ext4", "rw,data=ordered,barrier=1", "ok"),
    ],
)  # fmt: skip
def test_the_kind_of_file_system_and_how_it_is_mounted(fstype: str, options: str, result: str) -> None:
    mount = Mount("/", fstype, options=tuple(options.split(",")))
    check = doctor_disk.check_file_system("file system", Path("/d"), mount)
    assert check.result == result
    assert bool(check.advice) == (result != "ok")


class Partition:
    opts = "rw,relatime"

    def __init__(self, mountpoint: str, fstype: str) -> None:
        self.mountpoint, self.fstype, self.device = mountpoint, fstype, f"/dev/{fstype}"


def test_the_longest_mount_point_counts_and_the_latest_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "data"
    place.mkdir()
    mounts = [
        Partition("/", "ext4"),
        Partition(str(tmp_path), "xfs"),
        Partition(str(place), "ext2"),
        Partition(str(place), "tmpfs"),
        Partition(str(tmp_path / "da"), "nfs"),
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)

    def found(path: Path) -> tuple[str, str]:
        mount = disks.mount_of(path)
        return mount.mountpoint, mount.fstype

    assert found(place) == (str(place), "tmpfs")
    assert found(tmp_path) == (str(tmp_path), "xfs")
    link = tmp_path / "link"
    link.symlink_to(place)
    assert found(link) == (str(place), "tmpfs")
    assert disks.mount_of(place).options == ("rw", "relatime")
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: [])
    assert found(place) == ("?", "unknown")


def test_the_real_mounts_are_read() -> None:
    assert disks.mount_of(Path("/")).mountpoint == "/"
    if Path("/dev/shm").is_mount():
        assert disks.mount_of(Path("/dev/shm")).fstype == "tmpfs"


def test_the_write_cache_of_a_disk_and_of_a_partition_on_it(tmp_path: Path) -> None:
    disk = tmp_path / "sda"
    (disk / "queue").mkdir(parents=True)
    (disk / "queue" / "write_cache").write_text("write back\n")
    (disk / "sda1").mkdir()
    (tmp_path / "8:0").symlink_to(disk)
    (tmp_path / "8:1").symlink_to(disk / "sda1")
    assert disks.write_cache_of(os.makedev(8, 0), tmp_path) == "write back"
    assert disks.write_cache_of(os.makedev(8, 1), tmp_path) == "write back"
    assert disks.write_cache_of(os.makedev(0, 50), tmp_path) == ""
    check = doctor_disk.check_file_system("file system", Path("/d"), DISK)
    assert "write cache: write back" in check.found


def test_what_an_acknowledgement_means_whatever_is_known() -> None:
    said = module.durability(Mount("/", "zfs"), SyncTest("fsync", None, "broken"), None)
    assert said == (
        "An acknowledgement means: on the disk unknown, file system zfs, synced with fsync (which FAILED just now); "
        "rows: PostgreSQL does not answer now, so nothing is known of it."
    )
    off = Server("18", {"fsync": "off"}, None, 0.0, 0.0, None, "")
    assert "(0.2 ms); rows: PostgreSQL fsync off." in module.durability(DISK, SyncTest("fdatasync", 0.22), off)


@pytest.mark.parametrize(("ahead_s", "result"), [(0.0, "ok"), (-1.9, "ok"), (3.0, "warn"), (-3.0, "warn")])
def test_clocks_that_differ(ahead_s: float, result: str) -> None:
    check = doctor_database.check_offset(Server("18", {}, None, ahead_s, 0.01, None, ""))
    assert check.result == result
    assert ("behind" if ahead_s <= 0 else "ahead") in check.found


@pytest.mark.parametrize(
    ("note", "result", "said"),
    [
        (None, "warn", "none"),
        ('{"at": "2026-05-31T00:00:00Z", "path": "/b", "bytes": 1}', "ok", "/b, 2026-05-31 00:00 UTC"),
        ('{"at": "2026-05-20T00:00:00Z", "path": "/b", "bytes": 1}', "warn", "12 days old"),
    ],
)
def test_the_last_backup(tmp_path: Path, note: str | None, result: str, said: str) -> None:
    if note:
        (tmp_path / "backups.json").write_text(note)
    check = module.check_backup(settings_of(tmp_path), FixedClock(2026))
    assert (check.result, said in check.found) == (result, True)


def test_files_that_may_be_open(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, gateway={"connections_max": 1000})
    assert module.check_open_files(settings, 1024).result == "warn"
    assert module.check_open_files(settings, 1200).result == "ok"
    assert module.check_open_files(settings, -1).result == "ok"
    assert module.files_allowed(settings) != 0
    RoleFile(settings.run_root, "gateway", 0).ready()
    assert module.files_allowed(settings) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_syncs_that_are_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libeatmydata.so")
    assert doctor_disk.check_sync(tmp_path, SyncTest("fdatasync", 0.1)).result == "fail"


def settings_of(data: Path, **sections: Any) -> Settings:
    return Settings.model_validate({"data": data, **sections})


def test_the_space(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, journal={"disk_free_bytes": 10 * limits.GIB, "cap_bytes": 50 * limits.GIB})
    assert doctor_disk.check_space(settings, 9 * limits.GIB).result == "fail"
    assert doctor_disk.check_space(settings, 49 * limits.GIB).result == "warn"
    assert doctor_disk.check_space(settings, 50 * limits.GIB).result == "ok"


def test_a_sync_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    assert doctor_disk.check_sync(tmp_path, doctor_disk.try_sync(tmp_path)).result == "ok"
    monkeypatch.setattr(os, "fdatasync", failing, raising=False)
    check = doctor_disk.check_sync(tmp_path, doctor_disk.try_sync(tmp_path))
    assert (check.result, "Input/output error" in check.found) == ("fail", True)
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_a_file_or_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor_disk.check_directory(tmp_path, tmp_path).result == "ok"
    file = tmp_path / "file"
    file.write_text("")
    assert doctor_disk.check_directory(file, file).result == "fail"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert doctor_disk.check_directory(tmp_path, tmp_path).result == "fail"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_a_port_of_somebody_else_and_one_of_ours(tmp_path: Path, taken: int) -> None:
    settings = settings_of(
        tmp_path, gateway={"host": "127.0.0.1", "ports": {"json": taken}}, monitor={"port": taken, "host": "127.0.0.1"}
    )
    assert [check.result for check in module.check_ports(settings)] == ["fail", "fail"]
    RoleFile(settings.run_root, "gateway", 0).ready(ports={"json": taken})
    checks = list(module.check_ports(settings))
    assert [check.result for check in checks] == ["ok", "ok"]
    assert str(os.getpid()) in checks[0].found
    off = settings_of(tmp_path, gateway={"ports": {}}, monitor={"enabled": False})
    assert list(module.check_ports(off)) == []


def test_a_udp_port_of_somebody_else_and_one_of_ours(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        gateway = {"host": "127.0.0.1", "ports": {"teltonika": 0}, "udp_ports": {"teltonika": port}}
        settings = settings_of(tmp_path, gateway=gateway, monitor={"enabled": False})
        check = list(module.check_ports(settings))[1]
        assert (check.result, str(port) in check.check) == ("fail", True)
        RoleFile(settings.run_root, "gateway", 0).ready(ports={"teltonika/udp": port})
        assert list(module.check_ports(settings))[1].result == "ok"


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
    assert doctor_database.check_schema("9999").result == "fail"
    assert doctor_database.check_schema(HEAD).result == "ok"
