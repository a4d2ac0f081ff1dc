"""A data directory of an earlier signalkeep is taken over by the next start, with what was still pending in it.

`fixtures/1ff64d0.tar.xz` was made by the code of that commit, before its first release, with `make_fixture.py`: the
README's event, a fleet in quarantine of which two units were released, a registered fleet, and two short drives that
the gateway acknowledged while ingest was stopped. It holds the database as a dump, the journals and the oracles.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from signalkeep.backup.dump import load
from signalkeep.sections import DatabaseSettings
from signalkeep.store import binaries
from signalkeep.store.embedded import EmbeddedPostgres
from signalkeep.store.schema import HEAD
from tests.core import Core
from tests.servers import run_sync

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

FIXTURES = Path(__file__).parent / "fixtures"
SETTINGS = DatabaseSettings.model_validate({})
PENDING = ("pending-teltonika", "pending-json")


async def rebuild(data: Path, dump: Path) -> None:
    """The cluster as it was, from its dump: a whole one would be ten times as large."""
    server = EmbeddedPostgres(data, settings=SETTINGS)
    await server.start()
    try:
        program = binaries.bin_directory(SETTINGS) / "pg_restore"
        await load(program, server.dsn, dump, schema="0001", settings=SETTINGS)
    finally:
        await server.stop()


@pytest.fixture(params=sorted(path.name for path in FIXTURES.glob("*.tar.xz")))
def older(request: pytest.FixtureRequest) -> Iterator[tuple[Core, Path]]:
    """A stopped signalkeep on the older data, and the directory of the oracles."""
    core = Core(journal__segment_bytes=str(256 * 1024))
    try:
        kept = core.directory / "fixture"
        with tarfile.open(FIXTURES / request.param) as archive:
            archive.extractall(kept, filter="data")
        run_sync(rebuild(core.data, kept / "database.dump"))
        shutil.move(kept / "journal", core.data / "journal")
        yield core, kept
    finally:
        core.close()


def records(oracle: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in oracle.read_text().splitlines()]


def test_today_s_signalkeep_goes_on_where_the_older_one_stopped(older: tuple[Core, Path]) -> None:
    core, kept = older
    pending = [record for name in PENDING for record in records(kept / f"{name}.jsonl")]
    assert len(pending) > 50
    core.start()
    for name in ("quarantined", "stored", *PENDING):
        report = core.json("audit", "--oracle", str(kept / f"{name}.jsonl"), expect=None)
        verdict = report["oracle"]
        assert (verdict["missing"], verdict["doubled"], verdict["corrupted"]) == (0, 0, 0), (name, verdict)
        assert verdict["safe"] == len(records(kept / f"{name}.jsonl"))
        assert not report["findings"], report["findings"]
    report = core.json("audit")
    assert report["ok"]
    assert report["totals"]["records"] == 241 + len(pending), "241 were in the database, the others only in the journal"
    assert report["totals"]["released"] == 89
    assert core.sql("SELECT version_num FROM alembic_version") == [[HEAD]]
    assert core.sql("SELECT name FROM device WHERE device_number = '86915304265485'") == [["van 7"]]
    time = "SELECT count(*) FROM signal WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())"
    assert core.sql(time) == [["0"]], "no row of a dump lies in the future of its new cluster"
    assert core.sql("SELECT count(*) FROM finding WHERE device_id IS NULL") == [["0"]]
