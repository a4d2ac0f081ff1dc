"""What FLEET rules see, hour by hour: totals that are noted once an hour, and sums of what is known of devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from signalkeep.model import CANARY_MODEL
from signalkeep.rules.fleet import Doubtful, FleetHit, FleetView, Group
from signalkeep.store import sql
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.queries import REFUSALS

HOUR: Final = timedelta(hours=1)
WEEKS: Final = 8  # of which the same hour is compared
LATE: Final = timedelta(minutes=30)  # hours that were noted so late, or are missing, say nothing of an hour
LOCK: Final = "SELECT pg_advisory_xact_lock($1)"
_LOCK: Final = 0x73_6B_66_68

# The devices of the fleet: our own signals say nothing of it.
_OF_FLEET: Final = f"d.model <> '{CANARY_MODEL}'"

NOTED: Final = "SELECT EXISTS (SELECT FROM fleet_hour WHERE hour = $1)"
BEFORE: Final = "SELECT hour, at, stored, frames, refused FROM fleet_hour WHERE hour < $1 ORDER BY hour DESC LIMIT 1"
USUAL: Final = """
SELECT signals FROM fleet_hour WHERE hour = ANY ($1::timestamptz[]) AND signals IS NOT NULL ORDER BY hour DESC
"""
TOTALS: Final = f"""
SELECT coalesce(sum(s.stored), 0)::bigint AS stored, coalesce(sum(s.frames), 0)::bigint AS frames,
       count(*) FILTER (WHERE s.last_received_at >= $1) AS active
FROM device_state s JOIN device d ON d.id = s.device_id WHERE {_OF_FLEET}
"""  # noqa: S608 - a constant condition
NOTE: Final = """
INSERT INTO fleet_hour (hour, at, stored, frames, refused, signals) VALUES ($1, $2, $3, $4, $5, $6)
"""

# Signals of today and of the seven days before, by protocol and model, with those that rules of validity or consistency
# marked, and the records in quarantine.
GROUPS: Final = f"""
WITH scored AS (
    SELECT coalesce(s.last_protocol, '') AS protocol, d.model, q.day = $1::date AS today, q.signals,
           least(q.signals, q.validity_of - q.validity_good + q.consistency_of - q.consistency_good) AS hits
    FROM quality_score q JOIN device d ON d.id = q.device_id JOIN device_state s ON s.device_id = d.id
    WHERE q.day BETWEEN $1::date - 7 AND $1::date AND {_OF_FLEET}
), kept AS (
    SELECT f.protocol, d.model, q.received_at >= $1::date AS today FROM quarantine q
    JOIN quarantine_frame f ON f.id = q.frame_id JOIN device d ON d.id = q.device_id
    WHERE q.received_at >= $1::date - 7 AND q.reason <> ALL ('{{unknown_device,retired_device,no_device_number}}')
        AND {_OF_FLEET}
), known AS (
    SELECT protocol, model, today, signals::bigint, hits::bigint, 0::bigint AS quarantined FROM scored
    UNION ALL SELECT protocol, model, today, 0, 0, 1 FROM kept
)
SELECT protocol, model,
       coalesce(sum(signals) FILTER (WHERE today), 0)::bigint AS signals,
       coalesce(sum(hits) FILTER (WHERE today), 0)::bigint AS hits,
       coalesce(sum(quarantined) FILTER (WHERE today), 0)::bigint AS quarantined,
       coalesce(sum(signals) FILTER (WHERE NOT today), 0)::bigint AS past_signals,
       coalesce(sum(hits) FILTER (WHERE NOT today), 0)::bigint AS past_hits,
       coalesce(sum(quarantined) FILTER (WHERE NOT today), 0)::bigint AS past_quarantined
FROM known GROUP BY protocol, model
"""  # noqa: S608 - a constant condition

# Devices with doubted positions in the last hour, where each last was for sure.
DOUBTFUL: Final = """
SELECT d.device_number, s.latitude, s.longitude,
       coalesce(sum(f.count) FILTER (WHERE f.kind = ANY ($2)), 0)::bigint AS count,
       bool_or(f.kind = 'DEV-02') AS jammed
FROM finding f JOIN device d ON d.id = f.device_id JOIN device_state s ON s.device_id = d.id
WHERE f.day >= ($1::timestamptz)::date AND f.ends_at >= $1 AND f.state IN ('detected', 'confirmed', 'cleared')
  AND (f.kind = ANY ($2) OR f.kind = 'DEV-02') AND s.latitude IS NOT NULL AND s.longitude IS NOT NULL
GROUP BY d.device_number, s.latitude, s.longitude
"""
UNKNOWN: Final = """
SELECT d.device_number, s.quarantine_open FROM device d JOIN device_state s ON s.device_id = d.id
WHERE d.status = 'unknown' AND d.device_number <> '' AND s.quarantine_open > 0 AND s.last_received_at >= $1
ORDER BY s.quarantine_open DESC LIMIT 1000
"""


class Totals(msgspec.Struct, frozen=True):
    """Counters of everything, at a moment."""

    at: datetime
    stored: int
    frames: int
    refused: Mapping[str, int]
    signals: int | None  # in the hour, None: it is not known


async def begin(connection: Connection, hour: datetime) -> bool:
    """In a transaction: whether this hour has still to be looked at; nobody else does until the transaction ends."""
    await connection.execute(LOCK, _LOCK)
    return not await connection.fetchval(NOTED, hour)


async def look(
    connection: Connection, hour: datetime, now: datetime, spoiling: Sequence[str]
) -> tuple[FleetView, Totals]:
    """What there is to see of the hour that ended last. `spoiling`: rules that doubt positions."""
    before = await connection.fetchrow(BEFORE, hour)
    totals = await connection.fetchrow(TOTALS, hour)
    assert totals is not None
    refused = {row["reason"]: row["count"] for row in await connection.fetch(REFUSALS)}
    signals = _in_an_hour(before, hour, now, totals["stored"])
    since = dict(before["refused"]) if before else refused
    same_hours = [hour - timedelta(weeks=week) for week in range(1, WEEKS + 1)]
    usual = [row["signals"] for row in await connection.fetch(USUAL, same_hours)] if signals is not None else []
    view = FleetView(
        hour_s=hour.timestamp(),
        signals=signals or 0,
        usual=usual,
        groups=[Group(**dict(row)) for row in await connection.fetch(GROUPS, hour.date())],
        doubtful=[Doubtful(**dict(row)) for row in await connection.fetch(DOUBTFUL, hour, list(spoiling))],
        active_devices=totals["active"],
        refused={reason: max(0, count - since.get(reason, 0)) for reason, count in refused.items()},
        frames=max(0, totals["frames"] - (before["frames"] if before else totals["frames"])),
        unknown=[(row["device_number"], row["quarantine_open"]) for row in await connection.fetch(UNKNOWN, hour)],
    )
    return view, Totals(now, totals["stored"], totals["frames"], refused, signals)


def _in_an_hour(before: Row | None, hour: datetime, now: datetime, stored: int) -> int | None:
    """Signals stored since the hour before was noted, for a whole hour; None: that is too long ago, or not known."""
    if before is None or before["hour"] != hour - HOUR or now - (hour + HOUR) > LATE:
        return None
    elapsed_s = (now - before["at"]).total_seconds()
    gained = stored - before["stored"]
    return round(gained * 3600 / elapsed_s) if elapsed_s > 0 and gained >= 0 else None


async def note(connection: Connection, hour: datetime, totals: Totals, hits: Sequence[tuple[str, FleetHit]]) -> None:
    """Note the hour and what rules found in it, together."""
    for rule_id, hit in hits:
        await connection.execute(sql.ADD_FINDING, rule_id, hit.subject, hit.detail)
    values: tuple[Any, ...] = (totals.at, totals.stored, totals.frames, dict(totals.refused), totals.signals)
    await connection.execute(NOTE, hour, *values)
