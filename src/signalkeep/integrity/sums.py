"""The audit as periodic work: its sums are proved again and again, and what is off is an incident.

Each machine's audit has a row `service` of its own: when it was made last, and what it said. So an organizer that is
started often does not audit at every start, and one that takes over goes on. An audit that is clean closes what the
last one of that machine opened, and nothing else.
"""

from __future__ import annotations

from typing import Final

from signalkeep import limits
from signalkeep.integrity.audit import Audit, Report
from signalkeep.store import services
from signalkeep.store.incidents import Condition, observe
from signalkeep.store.postgres import Connection
from signalkeep.store.services import OURS, Seen

SOURCE: Final = "audit"
EARLY: Final = 0.9  # of the time between two: jobs run with some jitter


async def audit_if_due(connection: Connection, audit: Audit, host: str, every_s: float) -> str:
    """Audit unless that was done lately; what came of it, in words."""
    name, now = f"audit {host}", await services.time_of(connection)
    last = next((row for row in await services.services(connection) if (row.host, row.name) == (OURS, name)), None)
    if last is not None and 0 <= (now - last.at).total_seconds() < EARLY * every_s:
        return f"made at {last.at:%Y-%m-%d %H:%M} UTC: {last.why or 'everything adds up'}"
    report = await audit.run()
    detail = words(report)
    subject = f"sums of {host}"
    others = [one for one in await services.open_of(connection, SOURCE) if one.subject != subject]
    mine = [] if report.ok else [_condition(subject, detail, len(report.findings))]
    await observe(connection, SOURCE, [*others, *mine], await services.time_of(connection))
    await services.note(connection, OURS, [Seen(name, "up" if report.ok else "down", detail)])
    return detail or "everything adds up"


def words(report: Report) -> str:
    """The first findings, and how many there are; '' if everything adds up."""
    named = [f"{one.check}: {one.subject}: {one.detail}" for one in report.findings[: limits.AUDIT_NAMED_MAX]]
    more = len(report.findings) - len(named)
    return "\n".join([*named, f"and {more} more: signalkeep audit" if more else ""]).strip()


def _condition(subject: str, detail: str, hits: int) -> Condition:
    return Condition(kind="sums_off", subject=subject, detail=detail, hits=hits)
