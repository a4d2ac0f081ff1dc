"""Simulated fleets in processes of their own, which drive while faults happen and note what they were told is safe.

A `Load` is two fleets, one of each protocol. They drive until they are ended; then their notes become one oracle for
the judge. What a fleet cannot see: whether what it was told is true.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.core import Core
from tests.faults.checker import sent_path
from tests.servers import wait_until

DEVICES, RATE_PER_S = 25, 150
CUT_RATE: Final = 0.05
GRACE_S: Final = 90
FIRST_NUMBERS: Final = {"teltonika": 356307040000000, "json": 866307040000000}
NUMBERS_APART: Final = 100_000  # of two loads: no device is in both


class FleetProcess:
    """`signalkeep simulate`; it drives until it is asked for its result."""

    def __init__(
        self,
        protocol: str,
        port: int,
        oracle: Path,
        *,
        environment: Mapping[str, str],
        first_number: int,
        devices: int = DEVICES,
        rate_per_s: float = RATE_PER_S,
        grace_s: float = GRACE_S,
        cut_rate: float = CUT_RATE,
    ) -> None:
        self.oracle = oracle
        self._grace_s = grace_s
        self._read_bytes = self._lines = 0
        self._told_to_stop = False
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "signalkeep", "simulate", "--protocol", protocol, "--port", str(port)),
                *("--devices", str(devices), "--rate", str(rate_per_s), "--duration", "0", "--grace", str(grace_s)),
                *("--oracle", str(oracle), "--first-number", str(first_number), "--cut-rate", str(cut_rate), "--json"),
            ],
            stdout=subprocess.PIPE,
            env=environment,
        )

    @property
    def told_safe(self) -> int:
        """Records acknowledged so far."""
        if self.oracle.exists():
            with self.oracle.open("rb") as file:
                file.seek(self._read_bytes)
                new = file.read()
            self._read_bytes += len(new)
            self._lines += new.count(b"\n")
        return self._lines

    def stop(self) -> None:
        """Make no more records; what is left is sent."""
        if not self._told_to_stop:  # a second signal could meet a process that no longer listens, and end it
            self._told_to_stop = True
            self._process.terminate()

    def result(self) -> dict[str, int]:
        """Stop, wait for the end; the fleet's own counts."""
        self.stop()
        text, _ = self._process.communicate(timeout=self._grace_s + 60)
        counts: dict[str, int] = json.loads(text)
        return counts

    def kill(self) -> None:
        """Whatever state it is in."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


class Load:
    """Fleets that drive together, and what they come to."""

    def __init__(self, fleets: Sequence[FleetProcess], oracle: Path) -> None:
        self.fleets = fleets
        self.oracle = oracle  # of all of them; there once they have ended

    @property
    def told_safe(self) -> int:
        return sum(fleet.told_safe for fleet in self.fleets)

    def wait_for_progress(self, records: int = 50, deadline_s: float = 60) -> None:
        """Until every fleet has been told of so many more safe records."""
        wait_for_progress(self.fleets, records, deadline_s)

    def end(self) -> int:
        """Let them send what is left; how many records nobody confirmed."""
        for fleet in self.fleets:
            fleet.stop()
        counts = [fleet.result() for fleet in self.fleets]
        join_oracles([fleet.oracle for fleet in self.fleets], self.oracle)
        return sum(count["generated"] - count["told_safe"] for count in counts)

    def kill(self) -> None:
        for fleet in self.fleets:
            fleet.kill()


def wait_for_progress(fleets: Sequence[FleetProcess], records: int = 50, deadline_s: float = 60) -> None:
    """Until every fleet has been told of so many more safe records."""
    wanted = [fleet.told_safe + records for fleet in fleets]

    def progressed() -> bool:
        return all(fleet.told_safe >= number for fleet, number in zip(fleets, wanted, strict=True))

    wait_until(progressed, deadline_s, what=f"each fleet is told of {records} more safe records")


def fleet_of(
    core: Core,
    protocol: str,
    first_number: int,
    *,
    name: str = "fleet",
    devices: int = DEVICES,
    rate_per_s: float = RATE_PER_S,
) -> FleetProcess:
    """One fleet against this core."""
    return FleetProcess(
        protocol,
        core.ports[protocol],
        core.directory / f"{name}-{protocol}.jsonl",
        environment=core.environment,
        first_number=first_number,
        devices=devices,
        rate_per_s=rate_per_s,
    )


@contextmanager
def load(core: Core, number: int = 0, *, devices: int = DEVICES, rate_per_s: float = RATE_PER_S) -> Iterator[Load]:
    """A fleet of each protocol against this core; loads of different numbers have no device in common."""
    fleets = [
        fleet_of(
            core,
            protocol,
            first_number + number * NUMBERS_APART,
            name=f"load-{number}",
            devices=devices,
            rate_per_s=rate_per_s,
        )
        for protocol, first_number in FIRST_NUMBERS.items()
    ]
    driving = Load(fleets, core.directory / f"load-{number}.jsonl")
    try:
        yield driving
    finally:
        driving.kill()


def join_oracles(parts: Sequence[Path], whole: Path) -> None:
    """One oracle of several; each has both of its files, and no device is in two."""
    for target, sources in (
        (whole, parts),
        (sent_path(whole), [sent_path(part) for part in parts]),
    ):
        target.write_bytes(b"".join(source.read_bytes() for source in sources))
