"""What the monitor knows at one moment: values only, so that health and metrics are pure functions of it.

A field that is None could not be known then. Nothing here names a device, a customer or an address of one.
"""

from __future__ import annotations

import msgspec

from signalkeep.vitals import Vitals


class ProcessFacts(msgspec.Struct, frozen=True):
    """A process as the operating system sees it."""

    resident_bytes: int
    cpu_s: float
    open_files: int | None


class RoleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A role process that should be there, or is. Ages are seconds."""

    role: str
    instance: int
    vitals: Vitals | None = None
    lives: bool = False
    listens: bool = False  # it has said that it works
    beat_age_s: float = 0.0
    handled_age_s: float = 0.0
    process: ProcessFacts | None = None

    @property
    def name(self) -> str:
        return f"{self.role}-{self.instance}"


class JournalFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All journals on this disk. Lag: entries that are durable and not in the database."""

    journals: int
    segments: int
    used_bytes: int
    free_bytes: int
    durable_entries: int
    lag_entries: int | None
    lag_max_entries: int | None
    oldest_age_s: float | None  # of what is durable and not in the database; 0: nothing is


class DatabaseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The last look at PostgreSQL. `cursors`: up to where it has each journal, as it said when it last answered."""

    up: bool = False
    why: str = "not asked yet"
    round_trip_s: float | None = None
    schema: str | None = None
    cursors: dict[str, int] | None = None
    write_fault: str = ""  # it answers, and what the monitor writes there does not arrive


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A core at one moment."""

    roles: list[RoleFacts]
    restarts: dict[str, int]
    supervised: bool
    journal: JournalFacts | None
    journal_fault: str
    journal_cap_bytes: int
    disk_free_min_bytes: int
    database: DatabaseFacts
    schema_wanted: str
    last_backup_s: float | None  # since 1970
    hung_after_s: float
    journal_keep_bytes: int = 0  # that much of journals is kept on purpose
