"""Takes the picture: reads what roles wrote about themselves, asks the operating system about their processes.

Blocking: it runs in a thread. Whatever is missing, half written or gone while it is looked at leaves a gap in the
picture and nothing else.
"""

from __future__ import annotations

import psutil

from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.monitor.picture import DatabaseFacts, JournalFacts, Picture, ProcessFacts, RoleFacts
from signalkeep.roles import RoleState, running_roles
from signalkeep.store.notes import last_backup
from signalkeep.store.schema import HEAD
from signalkeep.vitals import SUFFIX, Vitals, read_all

OUTSIDE = {"postgres", "fleet"}  # what the supervisor runs and has no beats of ours


class Looker:
    """Keeps the last readable word of each role for the moment in which its file is not."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._last: dict[str, Vitals] = {}

    def vitals(self) -> dict[str, Vitals]:
        """By name, living or not."""
        run_root = self._settings.run_root
        names = {path.stem for path in run_root.glob(f"*{SUFFIX}")}
        found = {one.name: one for one in read_all(run_root)}
        self._last = {name: vitals for name, vitals in (self._last | found).items() if name in names}
        return dict(self._last)

    def picture(self, journal: JournalFacts | None, journal_fault: str, database: DatabaseFacts) -> Picture:
        vitals = self.vitals()
        states = {f"{state.role}-{state.instance}": state for state in running_roles(self._settings.run_root)}
        supervisor = states.get("supervisor-0")
        restarts: dict[str, int] = supervisor.detail.get("restarts", {}) if supervisor else {}
        wanted = {name for name in restarts if name.rpartition("-")[0] not in OUTSIDE}
        names = sorted({*wanted, "supervisor-0"} if supervisor else vitals)
        backup = last_backup(self._settings)
        return Picture(
            roles=[self._role(name, vitals.get(name), states.get(name)) for name in names],
            restarts=restarts,
            supervised=supervisor is not None,
            journal=journal,
            journal_fault=journal_fault,
            journal_cap_bytes=self._settings.journal.cap_bytes,
            disk_free_min_bytes=self._settings.journal.disk_free_bytes,
            database=database,
            schema_wanted=HEAD,
            last_backup_s=backup.at.timestamp() if backup else None,
            hung_after_s=self._settings.monitor.hung_after_s,
            journal_keep_bytes=self._settings.journal.keep_bytes,
        )

    def _role(self, name: str, vitals: Vitals | None, state: RoleState | None) -> RoleFacts:
        role, _, instance = name.rpartition("-")
        if vitals is None:
            return RoleFacts(role=role, instance=int(instance))
        now = self._clock.monotonic()
        lives = vitals.lives
        return RoleFacts(
            role=role,
            instance=int(instance),
            vitals=vitals,
            lives=lives,
            listens=state is not None and state.pid == vitals.pid,
            beat_age_s=max(0.0, now - vitals.beat_s),
            handled_age_s=max(0.0, now - vitals.handled_s),
            process=process_facts(vitals.pid) if lives else None,
        )


def process_facts(pid: int) -> ProcessFacts | None:
    """None if it has gone, or if we may not ask."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            resident = process.memory_info().rss
        try:
            files: int | None = process.num_fds()
        except psutil.AccessDenied:
            files = None
    except psutil.Error:
        return None
    return ProcessFacts(resident, times.user + times.system, files)
