"""What would make an acknowledgement an empty promise is refused, with what to do about it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from signalkeep.disks import Mount, danger_of
from signalkeep.errors import UnsafeDatabase
from signalkeep.sections import DatabaseSettings
from signalkeep.store.postgres import connect
from tests.servers import PostgresServer, run_sync

MEMORY = Path("/dev/shm")


@pytest.fixture
def in_memory() -> Iterator[Path]:
    if not MEMORY.is_mount():
        pytest.skip("no /dev/shm here")
    with tempfile.TemporaryDirectory(dir=MEMORY) as place:
        yield Path(place)


@pytest.mark.servers
@pytest.mark.parametrize("role", ["run", "gateway", "ingest"])
def test_a_journal_in_memory_is_refused(role: str, in_memory: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SIGNALKEEP_")}
    done = subprocess.run(
        [sys.executable, "-m", "signalkeep", role, "--data", str(in_memory / "data")],
        env={**environment, "SIGNALKEEP_DATABASE__DSN": "postgresql://nobody@127.0.0.1:1/nothing"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode not in (0, 2), done.stderr
    said = " ".join(done.stderr.split())
    assert "the journal would be on tmpfs" in said
    assert "Put the data on a disk." in said
    assert "journal.allow_unsafe" in said


@pytest.mark.parametrize("kind", ["tmpfs", "ramfs", "nfs", "nfs4", "cifs", "9p", "fuse.sshfs", "ceph"])
def test_so_is_a_network_or_memory_of_any_kind(kind: str) -> None:
    assert danger_of(Mount("/data", kind))
    assert not danger_of(Mount("/data", "ext4", options=("rw",)))
    assert danger_of(Mount("/data", "ext4", options=("rw", "nobarrier")))


@pytest.mark.servers
@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_database_that_confirms_too_early_is_refused(setting: str) -> None:
    server = PostgresServer()
    try:
        run_sync(server.start())
        run_sync(server.execute(f"ALTER SYSTEM SET {setting} = off"))
        run_sync(server.execute("SELECT pg_reload_conf()"))
        with pytest.raises(UnsafeDatabase, match=setting):
            run_sync(connect(server.dsn, application="test", settings=DatabaseSettings()))
    finally:
        server.close()
