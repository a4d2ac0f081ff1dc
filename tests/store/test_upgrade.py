"""Data of an older PostgreSQL major version: refused with one command, and that command moves them.

Where it says so, the older version is the 16 that comes in the wheel beside the 18.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from signalkeep.errors import CallerError
from signalkeep.sections import DatabaseSettings
from signalkeep.store import binaries
from signalkeep.store.upgrade import upgrade
from tests.core import Core
from tests.servers import processes_below, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

OLD = binaries.find_programs(16)
EVENTS = b"".join(b'{"device_number": "5", "message_date": "2026-01-01T00:00:%02dZ"}\n' % n for n in range(30))


@pytest.fixture
def old_core() -> Iterator[Core]:
    """A stopped signalkeep whose data are of PostgreSQL 16; from now on it would start the default."""
    if OLD is None:
        pytest.skip("NO POSTGRESQL 16, THE UPGRADE NOT TESTED")
    core = Core(unknown_devices="register", database__bin_dir=str(OLD))
    try:
        core.directory.chmod(0o711)
        reachable = binaries.reachable_copy(OLD, account(), core.directory)
        core.environment["SIGNALKEEP_DATABASE__BIN_DIR"] = str(reachable)
        core.start()
        core.talk("json", EVENTS, answer_bytes=30)
        core.wait_for_rows("SELECT count(*) FROM signal", 30)
        core.stop()
        del core.environment["SIGNALKEEP_DATABASE__BIN_DIR"]
        yield core
    finally:
        core.close()


def account() -> binaries.Account:
    return binaries.choose_account(DatabaseSettings.model_validate({}), None)


def said_by(core: Core, *arguments: str, expect: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "signalkeep", *arguments],
        env=core.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def xids(core: Core) -> list[list[str]]:
    return core.sql("SELECT seq, record_no, xid FROM signal ORDER BY 1, 2")


def test_the_refusal_names_the_command_and_the_command_moves_the_data(old_core: Core) -> None:
    root = old_core.data / "postgres"
    conf = root / "16" / "postgresql.conf"
    conf.write_text(conf.read_text() + "\nwork_mem = 7MB\n")
    old_core.start()  # the data ran before, so it goes on trying: devices are acknowledged meanwhile
    assert "not ready yet" in old_core.log_text()
    assert old_core.json("status", expect=1)["database"]["reachable"] is False
    old_core.stop()
    (command,) = set(re.findall(r"signalkeep upgrade-database[^\"\\]*", old_core.log_text()))
    said = said_by(old_core, *shlex.split(command)[1:])
    assert "from PostgreSQL 16 to 18" in said
    assert "work_mem = 7MB" in said
    assert (root / "18" / "PG_VERSION").read_text().strip() == "18"
    assert not (root / "16").exists()
    (kept,) = root.glob("replaced-*-16")
    assert f"rm -r {kept}" in said
    old_core.start()
    assert old_core.sql("SELECT count(*) FROM signal") == [["30"]]
    assert old_core.json("audit")["ok"]
    newest = max(int(xid) for _, _, xid in xids(old_core))
    old_core.talk("json", EVENTS.replace(b"2026-01", b"2026-02"), answer_bytes=30)
    old_core.wait_for_rows("SELECT count(*) FROM signal", 60)
    assert old_core.sql(f"SELECT count(*) FROM signal WHERE xid > '{newest}'::text::xid8") == [["30"]]
    old_core.stop()
    assert "nothing to do" in said_by(old_core, "upgrade-database")


def test_killed_in_the_middle_it_can_be_run_again(old_core: Core) -> None:
    root = old_core.data / "postgres"
    process = subprocess.Popen([sys.executable, "-m", "signalkeep", "upgrade-database"], env=old_core.environment)
    wait_until(lambda: list(root.glob(".upgrade-*/data/pg_upgrade_output.d")), 90, what="pg_upgrade works")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (root / "16" / "PG_VERSION").exists()
    wait_until(lambda: not pg_upgrades(root), 90, what="pg_upgrade, which is nobody's child now, ends")
    said_by(old_core, "upgrade-database")
    assert not list(root.glob(".upgrade-*"))
    assert not processes_below(old_core.data)
    old_core.start()
    assert old_core.sql("SELECT count(*) FROM signal") == [["30"]]
    assert old_core.json("audit")["ok"]


def pg_upgrades(root: Path) -> list[str]:
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if "pg_upgrade " in line and str(root) in line]


async def test_programs_that_are_not_there_or_of_another_version_are_named(short_directory: Path) -> None:
    settings = DatabaseSettings.model_validate({})
    cluster = short_directory / "data" / "postgres" / "17"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("17\n")
    for directory in (cluster.parent, cluster.parent.parent):
        directory.chmod(0o711)
    if os.geteuid() == 0:
        os.chown(cluster, account().uid, -1)
    if binaries.find_programs(17) is None:
        with pytest.raises(CallerError, match="no PostgreSQL 17") as caught:
            await upgrade(short_directory / "data", settings, old_programs=None, progress=lambda _: None)
        assert "--old-programs" in caught.value.hint
    with pytest.raises(CallerError, match="no postgres in"):
        await upgrade(short_directory / "data", settings, old_programs=short_directory, progress=lambda _: None)
    if OLD is not None:
        with pytest.raises(CallerError, match="is PostgreSQL 16, the data are of 17"):
            await upgrade(short_directory / "data", settings, old_programs=OLD, progress=lambda _: None)
    cluster.rename(cluster.with_name("99"))
    with pytest.raises(CallerError, match="newer than the programs"):
        await upgrade(short_directory / "data", settings, old_programs=None, progress=lambda _: None)
