"""What is looked at when a history is over: the invariants, against plain SQL and against the product's own audit."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from signalkeep.ingest.triage import record_keys
from signalkeep.integrity.audit import Audit
from signalkeep.protocols.registry import PROTOCOLS
from signalkeep.store.postgres import connect
from tests.faults.checker import FLOORS, OPEN_QUARANTINE, SIGNALS, Floor, Key, Stored, Verdict, judge
from tests.faults.simulation.database import UNSAFE
from tests.faults.simulation.scenario import Broken
from tests.faults.simulation.units import NUL_CODE, REJECTED_CODES

if TYPE_CHECKING:
    from tests.faults.simulation.world import World


def examine(world: World) -> None:
    """Raises Broken; adds to the outcome what was counted."""
    verdict, quarantined, report = world.database.server.do(_verdict(world))
    outcome = world.outcome
    if world.loop.problems:
        raise Broken("I7", f"{len(world.loop.problems)} mistakes were only logged: {world.loop.problems[0]}")
    if not verdict.clean:
        fault = next(
            name for name in ("missing", "spurious", "corrupted", "doubled", "out_of_order") if getattr(verdict, name)
        )
        invariant = {"missing": "I1", "doubled": "I2", "out_of_order": "I4"}.get(fault, "I3")
        raise Broken(invariant, f"{fault} {getattr(verdict, fault)}: {verdict.examples[fault][:3]}")
    if verdict.safe != world.scenario.units * world.scenario.records:
        raise Broken("I6", f"{verdict.safe} records were told safe in the end")
    if verdict.stored + verdict.quarantined != verdict.safe:
        raise Broken("I1", f"{verdict.safe} acknowledged, {verdict.stored} stored, {verdict.quarantined} quarantined")
    wrongly = _wrongly_placed(world, quarantined)
    if wrongly:
        raise Broken("I9", f"{len(wrongly)} records stand where they do not belong: {wrongly[:3]}")
    if not report.ok:
        raise Broken("I10", f"the audit: {report.findings[:3]}")
    if report.totals["stored"] + report.totals["quarantined"] != verdict.safe:
        raise Broken("I10", f"the ledger says {report.totals}")
    refused = world.ask("SELECT coalesce(sum(count), 0)::int AS n FROM refusal")[0]["n"]
    if not world.killed_gateways and not outcome.sometimes["gateway started again"] and refused < world.trouble.garbage:
        raise Broken("I9", f"{world.trouble.garbage} strangers came and {refused} refusals were counted")
    lost = sum(journal.lost for journal in report.journals)
    if lost:
        raise Broken("I1", f"{lost} journal entries are called lost")
    if world.side is not None:
        world.side.examine()
    outcome.records = len(world.sent)
    outcome.told_safe = verdict.safe
    outcome.virtual_s = world.loop.time()
    outcome.disk_operations = world.trouble.disk_operations
    outcome.database_calls = world.database.calls
    for what, number in world.database.counts.items():
        outcome.sometimes[what] += number
    removed = world.ask("SELECT count(*)::int AS n FROM journal WHERE kept_from_seq > 1 OR removed_at IS NOT NULL")
    outcome.sometimes["segments deleted"] += removed[0]["n"]
    outcome.sometimes["duplicates suppressed"] += report.totals["duplicate"]
    outcome.sometimes["records quarantined"] += verdict.quarantined
    outcome.sometimes["refusals counted"] += refused


def _wrongly_placed(world: World, quarantined: set[Key]) -> list[Key]:
    """A record is in quarantine if, and only if, it cannot be a row."""
    impossible = {*REJECTED_CODES.values(), NUL_CODE}
    return [key for key, sent in world.sent.items() if (sent["event_code"] in impossible) != (key in quarantined)]


async def _verdict(world: World) -> tuple[Verdict, set[Key], Any]:
    numbers = [unit.device_number for unit in world.units]
    connection = await connect(world.database.dsn, application="checker", settings=UNSAFE)
    try:
        signals = [Stored(*row) for row in await connection.fetch(SIGNALS, numbers)]
        quarantined = [Key(*row) for row in await connection.fetch(OPEN_QUARANTINE, numbers)]
        floors = {row[0]: Floor(*row[1:]) for row in await connection.fetch(FLOORS, numbers)}
        report = await Audit(
            connection,
            fs=world.disk,
            host=socket.gethostname(),
            evidence_root=world.settings.evidence_root,
            record_keys=lambda frame: record_keys(frame, PROTOCOLS.get(frame.protocol)),
        ).run()
    finally:
        await connection.close(timeout=10)
    return judge(world.safe, world.sent, signals, quarantined, floors), set(quarantined), report
