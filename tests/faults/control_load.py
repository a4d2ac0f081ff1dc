"""Load and faults for the control (`tests.faults.control`): the same fleets, kills and outages as for a core.

The fleet is one that the control can serve at all: so many devices with so few records each that a packet holds one
event. What this proves is about the judge: it must find the control losing and doubling.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import psutil

from tests.faults.fleet import FIRST_NUMBERS, NUMBERS_APART, FleetProcess, Load
from tests.faults.victims import stopped
from tests.servers import PostgresServer, free_port, run_sync

DEVICES, RATE_PER_S, GRACE_S = 200, 70, 2
MUST_SHOW: Final = ("missing", "doubled")


class Control:
    """The receiver and a PostgreSQL of its own. `close` ends both and removes everything."""

    def __init__(self) -> None:
        self.postgres = PostgresServer()
        self.port = free_port()
        self._receiver: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Control:
        try:
            run_sync(self.postgres.start())
            self.dsn = run_sync(self.postgres.create_database(migrated=False))
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        self._receiver = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.control", str(self.port), self.dsn], env=os.environ
        )

    def kill(self) -> None:
        """SIGKILL of the receiver."""
        if self._receiver is not None:
            self._receiver.kill()
            self._receiver.wait()

    def kill_and_start(self) -> None:
        self.kill()
        self.start()

    def kill_postmaster(self) -> None:
        self.postgres.kill()

    def start_postgres(self) -> None:
        run_sync(self.postgres.start())

    def close(self) -> None:
        self.kill()
        self.postgres.close()

    @contextmanager
    def load(self, number: int = 0) -> Iterator[Load]:
        """Loads of different numbers have no device in common."""
        directory = self.postgres.directory
        fleet = FleetProcess(
            "json",
            self.port,
            directory / f"fleet-{number}.jsonl",
            environment={name: value for name, value in os.environ.items() if not name.startswith("SIGNALKEEP_")},
            first_number=FIRST_NUMBERS["json"] + number * NUMBERS_APART,
            devices=DEVICES,
            rate_per_s=RATE_PER_S,
            grace_s=GRACE_S,
        )
        driving = Load([fleet], directory / f"load-{number}.jsonl")
        try:
            yield driving
        finally:
            driving.kill()

    @contextmanager
    def postgres_stopped(self) -> Iterator[None]:
        """It hangs."""
        assert self.postgres.pid is not None
        with stopped(psutil.Process(self.postgres.pid)):
            yield


def _kill_postmaster(control: Control) -> None:
    control.kill_postmaster()
    control.start_postgres()


def _kill_both(control: Control) -> None:
    control.kill_postmaster()
    control.kill_and_start()
    control.start_postgres()


CONTROL_PLANS: Final[dict[str, Callable[[Control], None]]] = {
    "receiver": Control.kill_and_start,
    "postmaster": _kill_postmaster,
    "receiver + postmaster": _kill_both,
}
