"""Findings that are not about a device, beside what people were already told of each."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from signalkeep.store.postgres import Connection

# The latest, each with the incident that was last made of it; its name there is given by kinds and subjects $1 to $3:
# what the finding's kind is called as an incident, and whether its subject then begins with the finding's kind.
FINDINGS: Final = """
WITH latest AS (
    SELECT f.kind, f.subject, f.detail, f.count, f.first_at, f.last_at,
           coalesce(k.incident, CASE WHEN f.kind LIKE 'FLT-%' THEN $3 ELSE $4 END) AS incident_kind,
           CASE WHEN k.incident IS NULL THEN left(f.kind || ': ' || f.subject, 1000) ELSE left(f.subject, 1000) END
               AS incident_subject
    FROM finding f LEFT JOIN unnest($1::text[], $2::text[]) AS k (finding, incident) ON k.finding = f.kind
    WHERE f.device_id IS NULL ORDER BY f.last_at DESC LIMIT $5
)
SELECT l.incident_kind AS kind, l.incident_subject AS subject, l.detail, l.count, l.first_at, l.last_at,
       i.acknowledged_at, i.cleared_at
FROM latest l LEFT JOIN LATERAL (
    SELECT acknowledged_at, cleared_at FROM incident
    WHERE kind = l.incident_kind AND subject = l.incident_subject ORDER BY cleared_at DESC NULLS FIRST LIMIT 1
) AS i ON true
ORDER BY l.last_at, l.incident_kind, l.incident_subject
"""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A finding under its name as an incident. The last two: of the incident that was last made of it, if any."""

    kind: str
    subject: str
    detail: str
    count: int
    first_at: datetime
    last_at: datetime
    acknowledged_at: datetime | None = None
    cleared_at: datetime | None = None


async def findings(connection: Connection, names: dict[str, str], *, fleet: str, other: str, most: int) -> list[Found]:
    """The latest `most`. `names`: of kinds of findings, as incidents; what is not in it is `fleet` or `other`."""
    rows = await connection.fetch(FINDINGS, list(names), list(names.values()), fleet, other, most)
    return [Found(**dict(row)) for row in rows]
