"""Push-back: what waits in quarantine for a reason that may have passed is released by itself.

The organizer calls `push_back` every now and then. What is due (`store.push_back`) is tried as a release tries it, in
transactions of bounded size; what fails is due again later and later, and in the end no more. Each try is noted before
it is made: should one end the process, its rows are tried one by one from then on, so that a record that cannot be
borne holds up no other. It stops when nothing is due or its time is over; whoever cuts it off loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from signalkeep import __version__, limits
from signalkeep.clock import Clock
from signalkeep.ingest.pace import Pace
from signalkeep.ingest.release import Released, Releaser
from signalkeep.protocols.contract import TrackerProtocol
from signalkeep.store import push_back as stored
from signalkeep.store import quarantine
from signalkeep.store.postgres import Connection
from signalkeep.store.release import Trying
from signalkeep.store.retention import Retention

ACTOR = "push-back"


async def push_back(
    connection: Connection,
    *,
    clock: Clock,
    protocols: Mapping[str, TrackerProtocol],
    retention: Retention,
    attempts_max: int,
    pace: Pace | None = None,
    version: str = __version__,
) -> Released:
    """Try everything that is due now, at least once and for PUSH_BACK_RUN_S at most."""
    pace = pace or Pace(None)
    ends_s = clock.monotonic() + limits.PUSH_BACK_RUN_S
    releaser = Releaser(connection, "due again", ACTOR, protocols, retention)
    rows_max = pace.piece(limits.QUARANTINE_RELEASE_BATCH)
    while rows := await stored.due(connection, clock.now(), version, attempts_max, rows_max):
        now = clock.now()
        releaser.trying = Trying(version, now, counted=True)
        begun = await stored.begin(connection, rows, now, version)
        await releaser.settle(begun, await quarantine.frames_of(connection, begun))
        await pace.wait(len(rows))
        if clock.monotonic() >= ends_s:
            break
    return releaser.result
