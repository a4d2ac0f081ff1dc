"""What a simulated history is made of, what came of it, and how it says that a promise does not hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

UNITS: Final = 20
RECORDS: Final = 50  # of each unit
DRIVE_S: Final = 20.0


class Broken(Exception):
    """An invariant does not hold."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


@dataclass(frozen=True)
class Scenario:
    """What is run. Without `faults` nothing breaks but the one call that `disk_fault` or `database_fault` names.

    `disk_fault`: the how manieth disk operation that can fail so, and how: see trouble.py. `database_fault`: the how
    manieth call of the database, and how it fails: see database.py. `peculiar`: some records cannot be rows.
    `restarts`: gateway and ingest are killed once, half way. `broker`: one stands between gateway and database.
    """

    seed: int
    units: int = UNITS
    records: int = RECORDS
    faults: bool = True
    seconds: float = DRIVE_S
    disk_fault: tuple[int, str] = (0, "")
    database_fault: tuple[int, str] = (0, "")
    peculiar: bool = False
    restarts: bool = False
    broker: bool = False

    @property
    def pace(self) -> float:
        """How much of the usual time is waited before something is tried again."""
        return 1.0 if self.faults else 0.1


@dataclass
class Outcome:
    """What came of it. `sometimes`: how often each thing happened that has to happen at times."""

    seed: int
    records: int = 0
    told_safe: int = 0
    virtual_s: float = 0.0
    disk_operations: int = 0
    database_calls: int = 0
    sometimes: Counter[str] = field(default_factory=Counter)
