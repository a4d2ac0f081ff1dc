"""`signalkeep replay`: which time must be said, a yes is asked for, and what came of it stays in a list."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from signalkeep.clock import SystemClock
from signalkeep.ingest.pipeline import Pipeline, Rules
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.reader import JournalReader
from signalkeep.journal.record import FrameEntry
from signalkeep.journal.writer import JournalWriter
from signalkeep.protocols.registry import PROTOCOLS
from signalkeep.store import journals, registry
from signalkeep.store import replay as stored
from signalkeep.store.postgres import Connection
from signalkeep.store.replay import Wanted
from tests.builders import NUMBER, RECEIVED, ask, event
from tests.cli.commands import Commands
from tests.servers import connected, run_sync

pytestmark = pytest.mark.servers

FS = LocalFileSystem()
THEN = ("--since", "2026-05-01", "--until", "2026-05-02")


@pytest.fixture
def cli(dsn: str, tmp_path: Path) -> Commands:
    """A machine whose database has three records of its journal, and has lost one of them."""

    async def work() -> None:
        async with connected(dsn) as connection:
            await registry.register(connection, NUMBER, actor="tests")
            await take(tmp_path, connection, *(event(minute=minute) for minute in range(3)))
            await connection.execute("DELETE FROM signal WHERE seq = 2")

    run_sync(work())
    return Commands(dsn, tmp_path)


async def take(data: Path, connection: Connection, *entries: FrameEntry) -> None:
    root, evidence = data / "journal", data / "evidence"
    root.mkdir(exist_ok=True)
    writer = JournalWriter.create(FS, root, clock=SystemClock(), segment_bytes=1 << 20)
    for entry in entries:
        writer.append(entry)
    await writer.close()
    journal_id = await journals.register(connection, writer.journal_id, "here", writer.directory, 1)
    items = JournalReader(FS, writer.directory, evidence_root=evidence).read(1000, 1 << 30)
    await Pipeline(connection, journal_id, [0], protocols=PROTOCOLS, rules=Rules()).ingest(items)


def stored_rows(dsn: str) -> int:
    return len(ask(dsn, "SELECT FROM signal"))


def test_a_dry_run_then_for_real_then_the_list(cli: Commands, dsn: str) -> None:
    words = "3 frames, 3 records: 2 stored as they are read now, 1 were missing, written again"
    assert cli("replay", *THEN, "--dry-run") == f"dry run, nothing is changed: {words}\n"
    assert stored_rows(dsn) == 2
    assert cli.json("replay", "list") == []
    done = cli.json("replay", *THEN, "--yes", "--rate", "1000")
    assert (done["id"], done["same"], done["restored"], done["named"]) == (1, 2, 1, [])
    assert stored_rows(dsn) == 3
    (line,) = cli.json("replay", "list")
    assert (line["state"], line["restored"], line["left"]) == ("done", 1, "")
    assert words.partition(", ")[2] in cli("replay", "list")
    logged = ask(dsn, "SELECT action, subject, detail FROM audit_log WHERE action LIKE 'replay%' ORDER BY id")
    assert [row["action"] for row in logged] == ["replay.begin", "replay.end"]
    assert logged[1]["detail"]["restored"] == 1
    assert cli.json("replay", *THEN, "--yes")["same"] == 3


def test_nothing_is_done_without_a_yes(cli: Commands, dsn: str) -> None:
    assert "this would read 3 entries of 1 journals again" in cli.refused("replay", *THEN)
    assert stored_rows(dsn) == 2


def test_of_one_device_and_journal(cli: Commands, dsn: str) -> None:
    (journal,) = ask(dsn, "SELECT uuid FROM journal")
    assert cli.json("replay", *THEN, "--device", NUMBER, "--journal", journal["uuid"], "--yes")["records"] == 3
    assert "nobody has registered or heard of device 7" in cli.refused("replay", *THEN, "--device", "7")
    assert "no journal" in cli.refused("replay", *THEN, "--journal", uuid.uuid4())


def test_one_that_was_cut_off_goes_on(cli: Commands, dsn: str, tmp_path: Path) -> None:
    async def begin() -> None:
        async with connected(dsn) as connection:
            parts = await stored.parts_of(connection, sorted((tmp_path / "journal").iterdir()))
            wanted = Wanted(since=RECEIVED, until=RECEIVED.replace(hour=23))
            await stored.begin(connection, wanted, parts, version="1", actor="tests")

    run_sync(begin())
    assert "running" in cli("replay", "list")
    assert cli.json("replay", "list")[0]["left"] == "3 of 3 entries"
    assert cli.json("replay", "--resume", "1", "--yes")["restored"] == 1
    assert "replay 1 is done" in cli.refused("replay", "--resume", "1", "--yes")
    assert "there is no replay 9" in cli.refused("replay", "--resume", "9", "--yes")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say which time"),
        (("--since", "2h"), "say which time"),
        (("--since", "1h", "--until", "2h"), "--since is not before --until"),
        ((*THEN, "--journal", "mine"), "'mine' is no journal"),
        ((*THEN, "--resume", "1"), "--resume stands alone"),
    ],
)
def test_wrong_calls(dsn: str, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in Commands(dsn, tmp_path).refused("replay", *arguments)


def test_what_was_refused_is_named_and_an_exit_code(cli: Commands, dsn: str, tmp_path: Path) -> None:
    for directory in (tmp_path / "journal").iterdir():
        for file in directory.iterdir():
            file.unlink()
    done = cli.result("replay", *THEN, "--yes")
    assert done.exit_code == 1
    assert "entries 1..3 of journal 1 are no longer in its files" in done.stderr
