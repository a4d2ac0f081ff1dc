"""A gateway process for measurements: no database, a data directory of its own, free ports on the loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

READY_S = 30.0


def start_gateway(data: Path, **settings: str) -> tuple[subprocess.Popen[bytes], dict[str, int]]:
    """A gateway on free ports, without a database; its process and ports."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SIGNALKEEP_")},
        "SIGNALKEEP_DATA": str(data),
        "SIGNALKEEP_GATEWAY__HOST": "127.0.0.1",
        "SIGNALKEEP_GATEWAY__PORTS": json.dumps({"teltonika": 0}),
        "SIGNALKEEP_DATABASE__DSN": "postgresql://nobody@127.0.0.1:1/nowhere",
        "SIGNALKEEP_JOURNAL__DISK_FREE_BYTES": "0",
        **{f"SIGNALKEEP_{name}": value for name, value in settings.items()},
    }
    command = [sys.executable, "-m", "signalkeep", "gateway", "--instance", "0", "--share-ports"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    announced = data / "run" / "gateway-0.json"
    end = time.monotonic() + READY_S
    while not announced.exists():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit("the gateway did not start")
        time.sleep(0.05)
    return process, json.loads(announced.read_text(encoding="utf-8"))["ports"]
