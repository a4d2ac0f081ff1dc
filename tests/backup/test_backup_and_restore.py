"""Back up under load, lose something, restore, start: everything is there, nothing doubled, and what happened is said.

Fault model: the database is set back to an older state, on the same machine or on an empty one, with or without some
of the journals written since. The judge is `tests.faults.checker`, which shares no code with the product; the product's
own audit must agree.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.core import Core
from tests.faults.checker import Verdict, check
from tests.servers import run_sync, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

DEVICES, RATE = 20, 200


class Fleet:
    """A simulated fleet in a process of its own, driving until it is told to stop."""

    def __init__(self, core: Core, name: str = "fleet", first_number: int = 356307040000000) -> None:
        self.oracle = core.directory / f"{name}.jsonl"
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "signalkeep", "simulate", "--port", str(core.ports["teltonika"])),
                *("--devices", str(DEVICES), "--rate", str(RATE), "--duration", "0", "--grace", "60", "--json"),
                *("--oracle", str(self.oracle), "--first-number", str(first_number)),
            ],
            stdout=subprocess.PIPE,
            env=core.environment,
        )

    @property
    def told_safe(self) -> int:
        return self.oracle.read_bytes().count(b"\n") if self.oracle.exists() else 0

    def drive(self, records: int) -> None:
        """Until that many more records were told safe."""
        wanted = self.told_safe + records
        wait_until(lambda: self.told_safe >= wanted, 60, what="the fleet drives")

    def end(self) -> int:
        """Stop it; how many records were told safe."""
        self._process.send_signal(signal.SIGINT)
        text, _ = self._process.communicate(timeout=120)
        counts: dict[str, int] = json.loads(text)
        assert counts["unconfirmed"] == 0
        return counts["told_safe"]

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def core() -> Iterator[Core]:
    with Core(unknown_devices="register") as running:
        yield running


@pytest.fixture
def fleet(core: Core) -> Iterator[Fleet]:
    driving = Fleet(core)
    yield driving
    driving.kill()


def judge(core: Core, oracle: Path) -> Verdict:
    core.json("audit", "--oracle", str(oracle), expect=None)  # waits until everything durable is ingested
    return run_sync(check(core.json("status", expect=None)["database"]["dsn"], oracle))


def findings(core: Core) -> dict[str, str]:
    rows = core.sql("SELECT kind, subject || ': ' || detail FROM finding WHERE device_id IS NULL")
    return {row[0]: row[1] for row in rows}


def restore(core: Core, backup: str, *more: str, expect: int = 0) -> Any:
    text = core.run("restore", backup, *more, "--json", expect=expect)
    return json.loads(text) if text else None


def test_an_older_backup_is_restored_and_the_journals_bring_the_rest(core: Core, fleet: Fleet) -> None:
    place = core.directory / "backups"
    fleet.drive(400)
    gateway = core.kill_role("gateway")  # a journal that has ended, and one that is written
    core.wait_for_role("gateway", not_pid=gateway)
    fleet.drive(200)
    made = core.json("backup", str(place))
    assert fleet.told_safe > 600
    assert made["journals"] == 2
    assert core.json("backup", "verify", made["path"])["ok"]
    assert [row["backup"] for row in core.json("backup", "list", str(place))] == [made["path"]]
    noted = json.loads((core.data / "backups.json").read_bytes())
    assert noted["path"] == made["path"]
    assert "another" not in core.run("restore", made["path"], expect=1)
    fleet.drive(400)
    gateway = core.kill_role("gateway")
    core.wait_for_role("gateway", not_pid=gateway)
    fleet.drive(200)
    safe = fleet.end()
    core.wait_for_rows("SELECT count(*) FROM signal", safe)
    core.stop()

    done = restore(core, made["path"])
    assert len(done["aside"]) == 1
    assert (Path(done["aside"][0]) / "PG_VERSION").exists()
    core.start()
    core.wait_for_rows("SELECT count(*) FROM signal", safe)
    verdict = judge(core, fleet.oracle)
    assert verdict.clean, verdict
    assert verdict.safe == verdict.stored == safe
    assert core.json("audit", "--oracle", str(fleet.oracle))["ok"]
    said = findings(core)
    assert set(said) == {"database_restored"}, said
    assert "driven again" in said["database_restored"]
    assert not (core.data / "restored.json").exists()


def test_onto_an_empty_machine_everything_up_to_the_backup_is_there(core: Core, fleet: Fleet) -> None:
    fleet.drive(300)
    safe = fleet.end()  # some of it may still be on its way into the database
    core.environment["SIGNALKEEP_LOG__LEVEL"] = "warning"
    made = core.json("backup", str(core.directory / "backups"))
    with_other = Core(unknown_devices="register")
    try:
        done = restore(with_other, made["path"])
        assert done["aside"] == []
        with_other.start()
        verdict = judge(with_other, fleet.oracle)
        assert verdict.clean, verdict
        assert verdict.stored == safe
        assert with_other.json("audit")["ok"]
        said = findings(with_other)
        assert set(said) == {"database_restored", "restore_gap", "journal_end_unknown"}
        assert f"up to entry {made_journal_end(made['path'])}," in said["journal_end_unknown"]
    finally:
        with_other.close()


def made_journal_end(path: str) -> int:
    (journal,) = json.loads((Path(path) / "manifest.json").read_bytes())["journals"]
    return int(journal["durable_seq"])


def test_what_the_journals_no_longer_have_is_named_by_number(fleet_of_small_segments: tuple[Core, Fleet]) -> None:
    core, fleet = fleet_of_small_segments
    fleet.drive(300)
    made = core.json("backup", str(core.directory / "backups"))
    before = segments(core)
    wait_until(lambda: len(segments(core)) >= len(before) + 3, 90, what="segments are written")
    fleet.end()
    wait_until(lambda: core.json("status")["verdict"].endswith("in the database"), 60)
    core.stop()
    lost = [path for path in segments(core) if path not in before][:1]
    newest = segments(core)[-1]
    for path in [*before, *lost]:
        path.unlink()
    restore(core, made["path"])
    core.start()
    verdict = judge(core, fleet.oracle)
    assert verdict.missing > 0
    assert verdict.doubled == verdict.spurious == verdict.corrupted == 0
    said = findings(core)
    assert "database_restored" in said
    named = next(detail for kind, detail in said.items() if kind.startswith("journal_range"))
    end = int(segments_after(core, lost[0], newest).stem) - 1
    assert f"..{end}:" in named, said
    report = core.json("audit", expect=1)
    assert any(finding["check"] == "journal_range_missing" for finding in report["findings"])


def segments(core: Core) -> list[Path]:
    return sorted(core.data.glob("journal/*/*.seg"))


def segments_after(core: Core, lost: Path, newest: Path) -> Path:
    following = [path for path in segments(core) if path.parent == lost.parent and path.name > lost.name]
    return following[0] if following else newest


@pytest.fixture
def fleet_of_small_segments() -> Iterator[tuple[Core, Fleet]]:
    with Core(unknown_devices="register", journal__segment_bytes=str(256 * 1024)) as running:
        driving = Fleet(running)
        try:
            yield running, driving
        finally:
            driving.kill()


def test_a_damaged_backup_is_refused_by_the_name_of_the_file(core: Core) -> None:
    core.talk("json", b'{"device_number": "5", "message_date": "2026-01-01T00:00:00Z"}', answer_bytes=1)
    core.wait_for_rows("SELECT count(*) FROM signal", 1)
    made = core.json("backup", str(core.directory / "backups"))
    backup = Path(made["path"])
    core.stop()
    clusters = sorted(path.name for path in (core.data / "postgres").glob("[0-9]*"))

    segment = next(backup.glob("journal/*/*.seg"))
    sound = segment.read_bytes()
    segment.unlink()  # it may be a link to the journal's own file
    segment.write_bytes(sound[:5000] + bytes([sound[5000] ^ 1]) + sound[5001:])
    assert segment.name in said_by(core, "restore", str(backup))
    report = core.json("backup", "verify", str(backup), expect=1)
    assert [damage["path"] for damage in report["damages"]] == [str(segment.relative_to(backup))]
    segment.write_bytes(sound)

    control = backup / "database" / "global" / "pg_control"
    kept = control.read_bytes()
    control.unlink()
    assert "global/pg_control is missing" in said_by(core, "restore", str(backup))
    control.write_bytes(kept)

    manifest = backup / "manifest.json"
    text = manifest.read_bytes()
    manifest.write_bytes(text.replace(b'"alive": true', b'"alive": True', 1).replace(b'"cursor": 1', b'"cursor": 9', 1))
    assert "manifest.json is damaged" in said_by(core, "restore", str(backup))
    manifest.write_bytes(text)
    assert sorted(path.name for path in (core.data / "postgres").glob("[0-9]*")) == clusters, "nothing was changed"

    segment.write_bytes(sound[:5000] + bytes([sound[5000] ^ 1]) + sound[5001:])
    assert "nothing was changed" not in said_by(core, "restore", str(backup), "--despite-damage", expect=0)
    core.start()
    assert core.json("audit")["ok"], "the journal on the disk was sound, and stays"
    assert core.sql("SELECT count(*) FROM signal") == [["1"]]


def said_by(core: Core, *arguments: str, expect: int = 1) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "signalkeep", *arguments],
        env=core.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == expect, done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).split())


def test_restore_keeps_its_hands_off_what_runs(core: Core) -> None:
    made = core.json("backup", str(core.directory / "backups"))
    assert "signalkeep runs already" in said_by(core, "restore", made["path"])
    core.stop()
    assert "is not a backup" in said_by(core, "restore", str(core.directory), expect=2)


def test_killed_backups_leave_none_and_older_ones_go_only_if_asked(core: Core) -> None:
    place = core.directory / "backups"
    process = subprocess.Popen([sys.executable, "-m", "signalkeep", "backup", str(place)], env=core.environment)
    wait_until(lambda: list(place.glob(".*.partial/database/PG_VERSION")), 60, what="the copy has begun")
    process.kill()
    process.wait()
    assert not list(place.glob("signalkeep-*"))
    (place / "signalkeep-20200101T000000Z").mkdir()  # none of ours: it has no manifest
    (place / "letters").mkdir()
    paths = []

    def tidy() -> bool:
        """The copying program may outlive its master for a moment, and what it makes then is cleared by the next."""
        paths.append(core.json("backup", str(place), "--keep", "2")["path"])
        return len(paths) >= 3 and not list(place.glob(".*.partial"))

    wait_until(tidy, 90, what="what the killed one left is gone")
    assert sorted(path.name for path in place.iterdir()) == sorted(
        ["letters", "signalkeep-20200101T000000Z", *(Path(path).name for path in paths[-2:])]
    )
    assert core.json("audit")["ok"]


def test_a_restore_killed_anywhere_can_be_run_again(core: Core) -> None:
    core.talk("json", b'{"device_number": "5", "message_date": "2026-01-01T00:00:00Z"}', answer_bytes=1)
    core.wait_for_rows("SELECT count(*) FROM signal", 1)
    made = core.json("backup", str(core.directory / "backups"))
    core.talk("json", b'{"device_number": "5", "message_date": "2026-01-01T00:00:01Z"}', answer_bytes=1)
    core.wait_for_rows("SELECT count(*) FROM signal", 2)
    core.stop()
    root = core.data / "postgres"
    for step in ("copy", "decided"):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED_AT[step], "restore", made["path"]], env=core.environment
        )
        assert process.wait(60) == -signal.SIGKILL
        assert (root / "swap.json").exists() == (step == "decided")
    core.start()  # finishes what was decided
    core.wait_for_rows("SELECT count(*) FROM signal", 2)
    assert core.json("audit")["ok"]
    assert "database_restored" in findings(core)
    assert len(list(root.glob("replaced-*"))) == 1
    core.stop()
    restore(core, made["path"])
    assert not list(root.glob(".restore-*"))
    core.start()
    core.wait_for_rows("SELECT count(*) FROM signal", 2)


KILL = """
import os, signal, sys
import signalkeep.store.swap as swap
import signalkeep.backup.restore as restore
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
{plant}
from signalkeep.cli.main import main
main()
"""
KILLED_AT = {
    "copy": KILL.format(plant="restore.give_all_to = die"),
    "decided": KILL.format(
        plant="swap.finish_was, swap.finish = swap.finish, lambda root: die() if swap.decided(root) else None"
    ),
}
