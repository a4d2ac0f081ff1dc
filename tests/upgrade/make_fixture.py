"""Makes a fixture of this folder: a small data directory by the code that PYTHONPATH names, with frames still pending.

    git worktree add /tmp/older COMMIT
    PYTHONPATH=/tmp/older/src:. python -m tests.upgrade.make_fixture tests/upgrade/fixtures/COMMIT.tar.xz

`test_older_data_directory.py` says what is in it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import psutil

from tests.core import Core
from tests.servers import wait_until

EVENT = (
    '{ "device_number": "86915304265485", "event_code": "4002", "message_date": "2020/02/05 12:18:28", '
    '"latitude": "37.9815116", "longitude": "23.7315200" }'
)
FLEETS = {"teltonika": 356307040000000, "json": 866307040000000}
ORACLES = ("quarantined", "stored", "pending-teltonika", "pending-json")


def drive(core: Core, protocol: str, oracle: str, seconds: int) -> list[str]:
    """A short drive; the numbers of its devices."""
    file = core.directory / f"{oracle}.jsonl"
    core.run(
        *("simulate", "--protocol", protocol, "--port", str(core.ports[protocol]), "--devices", "5", "--rate", "40"),
        *("--duration", str(seconds), "--first-number", str(FLEETS[protocol]), "--oracle", str(file)),
    )
    wait_until(lambda: core.json("status", expect=None)["verdict"].endswith("in the database") or "pending" in oracle)
    return sorted({json.loads(line)["device_number"] for line in file.read_text().splitlines()})


def fill(core: Core) -> None:
    """Something of everything: stored, quarantined, released, pending."""
    core.run("send", "json", "--port", str(core.ports["json"]), input_text=EVENT)
    core.wait_for_rows("SELECT count(*) FROM quarantine", 1)
    core.run("devices", "add", "86915304265485", "--name", "van 7")
    for number in drive(core, "teltonika", "quarantined", 3)[:2]:
        core.run("devices", "add", number)
    for number in drive(core, "json", "stored", 1):
        core.run("devices", "add", number)
    drive(core, "json", "stored", 2)
    os.kill(core.role("ingest"), signal.SIGSTOP)


def main() -> None:
    """Write the archive that the command line names."""
    target = Path(sys.argv[1])
    core = Core(journal__segment_bytes=str(256 * 1024))
    try:
        core.start()
        fill(core)
        ingest, postgres = psutil.Process(core.role("ingest")), psutil.Process(core.role("postgres"))
        for protocol in FLEETS:
            drive(core, protocol, f"pending-{protocol}", 1)
        core.kill()
        ingest.kill()
        time.sleep(3)  # the gateway ends by itself and leaves its journal whole
        programs = Path(postgres.exe()).parent
        dump = core.directory / "database.dump"
        sockets = ["-h", str(core.data / "postgres" / "socket"), "-U", "signalkeep"]
        subprocess.run([programs / "pg_dump", "-Fc", "-Z0", "-f", dump, *sockets, "signalkeep"], check=True)
        with tarfile.open(target, "w:xz", preset=9) as archive:
            archive.add(dump, dump.name)
            archive.add(core.data / "journal", "journal")
            for name in ORACLES:
                for suffix in ("", ".sent"):
                    archive.add(core.directory / f"{name}.jsonl{suffix}", f"{name}.jsonl{suffix}")
    finally:
        core.close()


if __name__ == "__main__":
    main()
