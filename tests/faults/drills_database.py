"""Outage drills of PostgreSQL: it hangs, it is read-only, it is set back to an older backup.

All the while devices are acknowledged; afterwards the journals bring what is not there. What they cannot see: a server
that says that it has stored what it has not.
"""

from __future__ import annotations

import time

from tests.core import Core
from tests.faults.checker import check
from tests.faults.control_load import MUST_SHOW, Control
from tests.faults.drill import Result, ask, end, findings, hold
from tests.faults.fleet import load
from tests.faults.judgement import dsn_of, recovery_s
from tests.faults.victims import POSTMASTER, find, stopped
from tests.servers import run_sync

READ_ONLY = (
    "ALTER SYSTEM SET default_transaction_read_only = on",
    "SELECT pg_reload_conf()",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IS NOT NULL AND pid <> pg_backend_pid()",
)
WRITABLE = (
    "ALTER SYSTEM RESET default_transaction_read_only",
    "SELECT pg_reload_conf()",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IS NOT NULL AND pid <> pg_backend_pid()",
)


def postgresql_stopped(seconds: float) -> Result:
    """SIGSTOP of the postmaster and all its children: connections hang, nothing fails."""
    result = Result()
    with Core(unknown_devices="register") as core, load(core) as driving:
        dsn = dsn_of(core)
        driving.wait_for_progress()
        postmaster = find(core, POSTMASTER)
        assert postmaster is not None
        began_s = time.monotonic()
        with stopped(postmaster):
            result.told_safe_in_outage = hold(driving, seconds)
        over_s = time.monotonic()
        result.outage_s = over_s - began_s
        end(core, dsn, driving, result, over_s=over_s)
    return result


def postgresql_read_only(seconds: float) -> Result:
    """Every transaction may only read, as on a standby that was not promoted or a disk that has become full."""
    result = Result()
    with Core(unknown_devices="register") as core, load(core) as driving:
        dsn = dsn_of(core)
        driving.wait_for_progress()
        began_s = time.monotonic()
        ask(dsn, *READ_ONLY)
        (before,) = ask(dsn, "SELECT count(*) FROM signal")
        result.told_safe_in_outage = hold(driving, seconds)
        (after,) = ask(dsn, "SELECT count(*) FROM signal")
        if after[0] > before[0] + result.told_safe_in_outage / 2:
            result.broken.append("the outage was none: rows were written all the same")
        ask(dsn, *WRITABLE)
        over_s = time.monotonic()
        result.outage_s = over_s - began_s
        end(core, dsn, driving, result, over_s=over_s)
    return result


def older_backup_restored(seconds: float) -> Result:
    """A backup of a while ago takes the database's place; devices come back when the core does."""
    result = Result()
    with Core(unknown_devices="register") as core, load(core) as driving:
        dsn = dsn_of(core)
        driving.wait_for_progress()
        made = core.json("backup", str(core.directory / "backups"))
        hold(driving, seconds)  # this is what the backup does not have
        before = driving.told_safe
        began_s = time.monotonic()
        core.stop()
        core.run("restore", made["path"])
        core.start()
        over_s = time.monotonic()
        result.outage_s, result.told_safe_in_outage = over_s - began_s, driving.told_safe - before
        end(core, dsn, driving, result, over_s=over_s)
        said = findings(dsn)
        result.named = ", ".join(said)
        if set(said) != {"database_restored"}:
            result.broken.append(f"nothing is missing, but the core says: {said}")
    return result


def control_with_postgresql_stopped(seconds: float) -> Result:
    """The first drill for the control, whose operator starts it again meanwhile. `broken`: what it does not show."""
    result = Result()
    with Control() as control, control.load() as driving:
        driving.wait_for_progress()
        began_s = time.monotonic()
        with control.postgres_stopped():
            result.told_safe_in_outage = hold(driving, seconds)
            control.kill_and_start()
            driving.wait_for_progress(10)
        over_s = time.monotonic()
        result.outage_s = over_s - began_s
        result.drain_s = recovery_s(control.port, control.dsn, over_s)
        driving.end()
        recovery_s(control.port, control.dsn, over_s)  # what was before this event in its memory is stored
        verdict = run_sync(check(control.dsn, driving.oracle))
    result.told_safe, result.missing, result.doubled = verdict.safe, verdict.missing, verdict.doubled
    result.spurious = verdict.spurious
    result.broken = [f"the judge saw nothing {fault}" for fault in MUST_SHOW if not getattr(verdict, fault)]
    return result
