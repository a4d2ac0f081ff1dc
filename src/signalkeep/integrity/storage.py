"""From findings about what we store to incidents, one for each.

    what happened once       a range was lost, a journal is gone: nothing can make it good, so nothing but a person can
                             close it. It is open until somebody acknowledges it, and over a day after that. Found
                             again later, it is an incident again. It is over at once if the finding itself goes.
    what passes              an archive that cannot be written, a restore, a rule of the fleet: it is found again while
                             it lasts, so it is over when it was not found for two hours.

The database has all that is needed: the job remembers nothing, and bears being cut off and done twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from signalkeep import limits
from signalkeep.kinds import STORAGE_KINDS
from signalkeep.store import services
from signalkeep.store.incidents import Condition, observe
from signalkeep.store.postgres import Connection
from signalkeep.store.storage import Found, findings

SOURCE: Final = "findings"
FLEET_RULE: Final = "fleet_rule"
OTHER: Final = "other_finding"
PASSING: Final = {"archive_failed", "cursor_moved_back", "database_restored", "erasure_repeated", FLEET_RULE}
OWN_NAMES: Final = {
    kind.name: kind.name for kind in STORAGE_KINDS if kind.source == SOURCE and kind.name not in {FLEET_RULE, OTHER}
}


async def look(connection: Connection) -> str:
    """Bring incidents to what is found; what came of it, in words."""
    now = await services.time_of(connection)
    found = await findings(connection, OWN_NAMES, fleet=FLEET_RULE, other=OTHER, most=limits.STORAGE_FINDINGS_MAX)
    now_open = conditions(found, now)
    observed = await observe(connection, SOURCE, now_open, now)
    return f"{len(found)} findings, {len(now_open)} matter: {observed.words()}"


def conditions(found: Iterable[Found], now: datetime) -> list[Condition]:
    """Those that matter now."""
    return [
        Condition(
            kind=one.kind,
            subject=one.subject,
            detail=one.detail,
            since=one.first_at if one.cleared_at is None else one.last_at,
            hits=one.count,
        )
        for one in found
        if _matters(one, now)
    ]


def _matters(one: Found, now: datetime) -> bool:
    if one.kind in PASSING:
        return (now - one.last_at).total_seconds() < limits.STORAGE_NEW_S
    if one.cleared_at is not None:
        return one.last_at > one.cleared_at
    if one.acknowledged_at is not None and one.acknowledged_at >= one.last_at:
        return (now - one.acknowledged_at).total_seconds() < limits.STORAGE_TAKEN_S
    return True
