"""Incidents: what checks find, each once, with its history. A check says what holds now; the rest follows from that.

    observe(source, conditions)     what is new is opened, what is there is refreshed, what is gone is cleared

All in one transaction, events included: whoever is killed in between, nothing is opened, cleared or told twice, and
nothing is lost. Whom to tell is decided later, from the events (`notify`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from signalkeep import limits
from signalkeep.kinds import KINDS, Stage
from signalkeep.store.postgres import Connection, Row

_LOCK: Final = 0x73_6B_69_6E  # advisory lock of a transaction: one observation at a time

# What a check has open.
OPEN_OF: Final = "SELECT id, kind, subject, stage FROM incident WHERE source = $1 AND state <> 'cleared'"

# What was cleared so lately that it is the same incident if it comes back.
LATELY_CLEARED: Final = """
SELECT DISTINCT ON (i.kind, i.subject) i.id, i.kind, i.subject
FROM incident i JOIN unnest($1::text[], $2::text[]) AS c (kind, subject) ON (i.kind, i.subject) = (c.kind, c.subject)
WHERE i.state = 'cleared' AND i.cleared_at > $3
ORDER BY i.kind, i.subject, i.cleared_at DESC
"""

OPEN: Final = """
INSERT INTO incident (
    source, kind, subject, scope, stage, severity, device_id, customer_id, title, detail, hits, devices,
    opened_at, seen_at, malfunction_at)
SELECT $1, kind, subject, scope, stage, severity, device_id, customer_id, title, detail, hits, devices,
       since, $2::timestamptz, CASE WHEN stage = 'malfunction' THEN $2::timestamptz END
FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int[], $9::int[], $10::text[], $11::text[],
            $12::bigint[], $13::int[], $14::timestamptz[])
    AS c (kind, subject, scope, stage, severity, device_id, customer_id, title, detail, hits, devices, since)
ON CONFLICT (kind, subject) WHERE state <> 'cleared' DO NOTHING
RETURNING id
"""

# Of an incident that is there, or is there again.
REFRESH: Final = """
UPDATE incident i SET
    seen_at = $1::timestamptz, severity = c.severity, title = c.title, detail = c.detail, hits = c.hits,
    devices = c.devices,
    malfunction_at = CASE
        WHEN i.state = 'cleared' THEN CASE WHEN c.stage = 'malfunction' THEN $1::timestamptz END
        ELSE coalesce(i.malfunction_at, CASE WHEN c.stage = 'malfunction' THEN $1::timestamptz END) END,
    stage = CASE WHEN i.state <> 'cleared' AND i.stage = 'malfunction' THEN 'malfunction' ELSE c.stage END,
    reopened = i.reopened + (i.state = 'cleared')::int,
    state = CASE WHEN i.state = 'cleared' THEN 'open' ELSE i.state END, cleared_at = NULL
FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::int[])
    AS c (id, stage, severity, title, detail, hits, devices)
WHERE i.id = c.id
"""

CLEAR: Final = """
UPDATE incident SET state = 'cleared', cleared_at = $2, snoozed_until = NULL
WHERE id = ANY($1::bigint[]) AND state <> 'cleared'
"""

ADD_EVENTS: Final = """
INSERT INTO incident_event (incident_id, at, what, who, note)
SELECT id, $1, what, who, note FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[]) AS e (id, what, who, note)
"""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """Something is wrong now, as a check sees it. `kind` is one of `signalkeep.kinds`."""

    kind: str
    subject: str  # what it is wrong with, for people: a device number, "model FMB920", "gateway-0 on host7"
    detail: str
    since: datetime | None = None  # when it began; None: now
    stage: Stage = Stage.MALFUNCTION
    device_id: int | None = None
    customer_id: int | None = None
    hits: int = 1
    devices: int | None = None  # of a group


class Observed(msgspec.Struct):
    """What an observation changed: ids of incidents."""

    opened: list[int] = []
    reopened: list[int] = []
    worsened: list[int] = []  # diagnostic before, a malfunction now
    cleared: list[int] = []

    def words(self) -> str:
        """For a job's result."""
        parts = [
            f"{len(ids)} {what}"
            for what, ids in (
                ("opened", [*self.opened, *self.reopened]),
                ("worsened", self.worsened),
                ("cleared", self.cleared),
            )
            if ids
        ]
        return ", ".join(parts) or "nothing new"


async def observe(
    connection: Connection, source: str, conditions: Sequence[Condition], now: datetime, *, clear: bool = True
) -> Observed:
    """Bring the incidents of a check to what it sees now.

    `clear=False`: what is not named is left as it is, because the check did not look at everything.
    """
    by_key = {(one.kind, one.subject): one for one in conditions}
    assert all(KINDS[kind].source == source for kind, _ in by_key), "a kind belongs to one check"
    observed = Observed()
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        there = {(row["kind"], row["subject"]): row for row in await connection.fetch(OPEN_OF, source)}
        new = [key for key in by_key if key not in there]
        again = await _lately_cleared(connection, new, now)
        observed.reopened = sorted(again.values())
        observed.opened = await _open(connection, source, [by_key[key] for key in new if key not in again], now)
        worse = [key for key in there if key in by_key and _worsens(there[key], by_key[key])]
        observed.worsened = [there[key]["id"] for key in worse]
        known = {key: row["id"] for key, row in there.items() if key in by_key} | again
        await _refresh(connection, {incident_id: by_key[key] for key, incident_id in known.items()}, now)
        gone = [row["id"] for key, row in there.items() if key not in by_key] if clear else []
        if gone:
            await connection.execute(CLEAR, gone, now)
        observed.cleared = gone
        events = [
            *((incident_id, "opened") for incident_id in observed.opened),
            *((incident_id, "reopened") for incident_id in observed.reopened),
            *((incident_id, "malfunction") for incident_id in observed.worsened),
            *((incident_id, "cleared") for incident_id in observed.cleared),
        ]
        await add_events(connection, events, now)
    return observed


async def add_events(
    connection: Connection, events: Sequence[tuple[int, str]], now: datetime, *, who: str = "", note: str = ""
) -> None:
    """Write history: (incident, what) each. In the caller's transaction."""
    if events:
        ids, whats = zip(*events, strict=True)
        await connection.execute(ADD_EVENTS, now, ids, whats, [who] * len(ids), [note] * len(ids))


def _worsens(row: Row, condition: Condition) -> bool:
    return row["stage"] == Stage.DIAGNOSTIC and condition.stage is Stage.MALFUNCTION


async def _lately_cleared(
    connection: Connection, keys: Sequence[tuple[str, str]], now: datetime
) -> dict[tuple[str, str], int]:
    if not keys:
        return {}
    since = now - timedelta(seconds=limits.REOPEN_S)
    rows = await connection.fetch(LATELY_CLEARED, *zip(*keys, strict=True), since)
    return {(row["kind"], row["subject"]): row["id"] for row in rows}


async def _open(connection: Connection, source: str, conditions: Sequence[Condition], now: datetime) -> list[int]:
    if not conditions:
        return []
    values = [
        (
            one.kind, one.subject, KINDS[one.kind].scope, one.stage, KINDS[one.kind].severity, one.device_id,
            one.customer_id, KINDS[one.kind].title, one.detail, one.hits, one.devices, min(one.since or now, now),
        )
        for one in conditions
    ]  # fmt: skip
    rows = await connection.fetch(OPEN, source, now, *zip(*values, strict=True))
    return [row["id"] for row in rows]


async def _refresh(connection: Connection, by_id: dict[int, Condition], now: datetime) -> None:
    values = [
        (
            incident_id, one.stage, KINDS[one.kind].severity, KINDS[one.kind].title, one.detail, one.hits, one.devices,
        )
        for incident_id, one in by_id.items()
    ]  # fmt: skip
    if values:
        await connection.execute(REFRESH, now, *zip(*values, strict=True))
