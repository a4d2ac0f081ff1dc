"""FLEET rules, once for each whole hour: what many devices show at once is the fault of none of them.

An hour is looked at and noted in one transaction: whoever is killed in between, no finding is lost or counted twice.
"""

from __future__ import annotations

from datetime import datetime

from signalkeep.rulebook import Rulebook
from signalkeep.rules.contract import Scope
from signalkeep.store import fleet_hours
from signalkeep.store.fleet_hours import HOUR
from signalkeep.store.postgres import Connection
from signalkeep.store.rules import ensure_rules
from signalkeep.telemetry import get_logger

log = get_logger()


async def judge_fleet(connection: Connection, book: Rulebook, now: datetime) -> str:
    """Look at the last whole hour, unless that is done; what came of it, in words."""
    hour = now.replace(minute=0, second=0, microsecond=0) - HOUR
    await ensure_rules(connection, book)
    async with connection.transaction():
        if not await fleet_hours.begin(connection, hour):
            return "nothing to do"
        spoiling = [rule.id for rule in book.rules if rule.spoils_position]
        view, totals = await fleet_hours.look(connection, hour, now, spoiling)
        hits = []
        for rule in book.rules:
            limits = book.limits_of(rule, "", "")
            if rule.scope is not Scope.FLEET or limits is None:
                continue
            try:
                hits += [(rule.id, hit) for hit in rule.check(view, limits)]
            except Exception as error:
                log.exception("a rule cannot be asked: the check itself broke", rule=rule.id, error=str(error))
        await fleet_hours.note(connection, hour, totals, hits)
    return f"{hour:%Y-%m-%d %H}h: {len(hits)} findings"
