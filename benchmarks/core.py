"""A whole signalkeep for measurements: `signalkeep run` on free ports, with a data directory of its own on a real disk.

What is measured is what a user gets: real processes, real sockets, an embedded PostgreSQL that syncs. Everything ends,
and everything it wrote is gone, when the `with` block is left.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg

from signalkeep.roles import running_roles
from signalkeep.store.postgres import embedded_dsn
from signalkeep.vitals import Vitals, read_all

READY_S = 90.0
STOP_S = 120.0
COMMAND_S = 600.0


class Core:
    """`settings`: environment variables without their prefix. `others`: processes by role, measured with the core's."""

    def __init__(self, place: Path, *, others: Mapping[str, int] | None = None, **settings: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="sk-bench-", dir=place))
        self.directory.chmod(0o711)  # PostgreSQL drops to another account when we are root
        self.data = self.directory / "data"
        self.ports = {"teltonika": free_port()}
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SIGNALKEEP_")},
            "SIGNALKEEP_DATA": str(self.data),
            "SIGNALKEEP_GATEWAY__HOST": "127.0.0.1",
            "SIGNALKEEP_GATEWAY__PORTS": json.dumps(self.ports),
            **{f"SIGNALKEEP_{name}": value for name, value in settings.items()},
        }
        self._others = dict(others or {})
        self._expected = Counter({"gateway": 1, "ingest": int(settings.get("INGEST__PROCESSES", 1))})
        if "BROKER__URL" in settings:
            self._expected["relay"] = 1
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Core:
        log = self.directory / "run.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "signalkeep", "run"], env=self._environment, stdout=output, stderr=output
            )
        end = time.monotonic() + READY_S
        while not self._expected <= Counter({role: len(pids) for role, pids in self.pids().items()}):
            if self._process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"signalkeep did not start:\n{log.read_text(encoding='utf-8', errors='replace')}")
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def pids(self) -> dict[str, list[int]]:
        """Process ids by role, the embedded server's among them."""
        found = {role: [pid] for role, pid in self._others.items()}
        for state in running_roles(self.data / "run"):
            found.setdefault(state.role, []).append(state.pid)
            postgres = state.detail.get("postgres_pid")
            if postgres:
                found["postgres"] = [postgres]
        return found

    def register(self, numbers: Sequence[str]) -> None:
        """Register these devices."""
        file = self.directory / "devices.csv"
        file.write_text("device_number\n" + "".join(f"{number}\n" for number in numbers), encoding="utf-8")
        command = [sys.executable, "-m", "signalkeep", "devices", "import", str(file)]
        subprocess.run(command, env=self._environment, check=True, capture_output=True, timeout=COMMAND_S)

    async def connect(self) -> asyncpg.Connection[Any]:
        """To the core's own database."""
        return await asyncpg.connect(embedded_dsn(self.data))

    def vitals(self) -> list[Vitals]:
        """What its roles say about themselves, up to a second old."""
        return read_all(self.data / "run")

    def metrics_port(self) -> int | None:
        """Where the monitor tells its numbers."""
        for state in running_roles(self.data / "run"):
            if state.role == "monitor":
                return next(iter(state.ports.values()), None)
        return None


def free_port() -> int:
    """A port on the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
