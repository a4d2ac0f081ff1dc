"""Incidents: what checks find, each once, with its history. A check says what holds now; the rest follows from that.

    observe(source, conditions)     what is new is opened, what is there is refreshed, what is gone is cleared

All in one transaction, events included: whoever is killed in between, nothing is opened, cleared or told twice, and
nothing is lost. Whom to tell is decided later, from the events (`notify`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import msgspec

from signalkeep import limits
from signalkeep.errors import CallerError
from signalkeep.kinds import KINDS, Stage
from signalkeep.store.fleet import NOTES_CHARS_MAX, check_text
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.registry import log_action

Key: TypeAlias = tuple[str, str]
"""Kind and subject: what an incident is known by while it is not cleared."""

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

# Of an incident that is there, or is there again: then nobody has taken it yet, and it may escalate anew.
REFRESH: Final = """
UPDATE incident i SET
    seen_at = $1::timestamptz, severity = c.severity, title = c.title, detail = c.detail, hits = c.hits,
    devices = c.devices,
    malfunction_at = CASE
        WHEN i.state = 'cleared' THEN CASE WHEN c.stage = 'malfunction' THEN $1::timestamptz END
        ELSE coalesce(i.malfunction_at, CASE WHEN c.stage = 'malfunction' THEN $1::timestamptz END) END,
    stage = CASE WHEN i.state <> 'cleared' AND i.stage = 'malfunction' THEN 'malfunction' ELSE c.stage END,
    reopened = i.reopened + (i.state = 'cleared')::int,
    acknowledged_at = CASE WHEN i.state <> 'cleared' THEN i.acknowledged_at END,
    acknowledged_by = CASE WHEN i.state <> 'cleared' THEN i.acknowledged_by END,
    escalated_at = CASE WHEN i.state <> 'cleared' THEN i.escalated_at END,
    reminded_at = CASE WHEN i.state <> 'cleared' THEN i.reminded_at END,
    state = CASE WHEN i.state = 'cleared' THEN 'open' ELSE i.state END, cleared_at = NULL
FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::int[])
    AS c (id, stage, severity, title, detail, hits, devices)
WHERE i.id = c.id
"""

# A snooze goes on: if it comes back before the snooze is over, people need not hear of that either.
CLEAR: Final = """
UPDATE incident SET state = 'cleared', cleared_at = $2
WHERE id = ANY($1::bigint[]) AND state <> 'cleared'
"""

ADD_EVENTS: Final = """
INSERT INTO incident_event (incident_id, at, what, who, note, routed_at)
SELECT id, $1, what, who, note, $6
FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[]) AS e (id, what, who, note)
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
    connection: Connection,
    source: str,
    conditions: Sequence[Condition],
    now: datetime,
    *,
    clear: bool = True,
    part_of: Mapping[Key, Key] = {},
) -> Observed:
    """Bring the incidents of a check to what it sees now.

    `clear=False`: what is not named is left as it is, because the check did not look at everything. `part_of`: of what
    is not named, the condition that tells of it instead; where it is open it is cleared, and nobody is told of that.
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
        gone = {row["id"] for key, row in there.items() if key not in by_key} if clear else set()
        if gone:
            await connection.execute(CLEAR, list(gone), now)
        observed.cleared = sorted(gone)
        parts = {row["id"]: part_of[key] for key, row in there.items() if key in part_of and row["id"] in gone}
        events = [
            *((incident_id, "opened") for incident_id in observed.opened),
            *((incident_id, "reopened") for incident_id in observed.reopened),
            *((incident_id, "malfunction") for incident_id in observed.worsened),
            *((incident_id, "cleared") for incident_id in observed.cleared if incident_id not in parts),
        ]
        await add_events(connection, events, now)
        if parts:
            await _tell_by_others(connection, source, parts, now)
    return observed


async def add_events(
    connection: Connection,
    events: Sequence[tuple[int, str]],
    now: datetime,
    *,
    who: str = "",
    note: str = "",
    routed_at: datetime | None = None,
) -> None:
    """Write history: (incident, what) each. In the caller's transaction. `routed_at`: nobody is to be told."""
    if events:
        ids, whats = zip(*events, strict=True)
        await connection.execute(ADD_EVENTS, now, ids, whats, [who] * len(ids), [note] * len(ids), routed_at)


async def _tell_by_others(connection: Connection, source: str, parts: Mapping[int, Key], now: datetime) -> None:
    """That incidents are cleared because another one tells of them, which has just been opened or is there."""
    there = {(row["kind"], row["subject"]): row["id"] for row in await connection.fetch(OPEN_OF, source)}
    by_other: dict[int, list[int]] = defaultdict(list)
    for incident_id, key in parts.items():
        by_other[there[key]].append(incident_id)
    for other, ids in by_other.items():
        events = [(incident_id, "cleared") for incident_id in ids]
        await add_events(connection, events, now, note=f"part of incident {other}", routed_at=now)


# Whether this was written down before.
IS_NOTED: Final = """
SELECT EXISTS (SELECT FROM incident_event e JOIN incident i ON i.id = e.incident_id WHERE i.kind = $1 AND e.note = $2)
"""

# Of an incident's last event: what is known of it, and that people were told of it already.
NOTE_LAST_EVENT: Final = """
UPDATE incident_event SET note = $2, routed_at = $3
WHERE id = (SELECT max(id) FROM incident_event WHERE incident_id = $1) RETURNING id
"""


async def is_noted(connection: Connection, kind: str, note: str) -> bool:
    """Whether an incident of this kind has such an event."""
    found: bool = await connection.fetchval(IS_NOTED, kind, note)
    return found


async def note_last_event(connection: Connection, incident_id: int, note: str, *, routed_at: datetime) -> int:
    """Add to the last event of an incident, of which people were told already; its id. In the caller's transaction."""
    event_id: int = await connection.fetchval(NOTE_LAST_EVENT, incident_id, note, routed_at)
    return event_id


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


# What people do. Each locks its incident, so that a check that clears it meanwhile comes before or after.

OF_ID: Final = "SELECT state, stage, kind, subject, snoozed_until FROM incident WHERE id = $1 FOR UPDATE"

# Who takes it needs no word when a snooze is over.
ACKNOWLEDGE: Final = """
UPDATE incident SET state = 'acknowledged', acknowledged_at = $2, acknowledged_by = $3, snoozed_until = NULL
WHERE id = $1
"""
SNOOZE: Final = "UPDATE incident SET snoozed_until = $2 WHERE id = $1"

# Incidents with the names that people know things by, the last first.
LIST: Final = """
SELECT i.id, i.opened_at, i.scope, i.kind, i.subject, i.stage, i.severity, i.state, i.title, i.detail, i.hits,
    i.devices, i.seen_at, i.malfunction_at, i.acknowledged_at, i.acknowledged_by, i.snoozed_until, i.escalated_at,
    i.reminded_at, i.cleared_at, i.reopened, d.device_number, v.name AS vehicle, v.plate, c.name AS customer
FROM incident i
LEFT JOIN device d ON d.id = i.device_id
LEFT JOIN assignment a ON a.device_id = i.device_id AND tstzrange(a.begins_at, a.ends_at) @> now()
LEFT JOIN vehicle v ON v.id = a.vehicle_id
LEFT JOIN customer c ON c.id = i.customer_id
WHERE ($1::bigint IS NULL OR i.id = $1) AND ($2 OR i.state <> 'cleared') AND ($3::text IS NULL OR i.scope = $3)
    AND ($4::text IS NULL OR i.kind = $4) AND ($5::text IS NULL OR d.device_number = $5)
ORDER BY i.state = 'cleared', i.opened_at DESC, i.id DESC LIMIT $6
"""

HISTORY: Final = "SELECT at, what, who, note FROM incident_event WHERE incident_id = $1 ORDER BY id"


async def acknowledge(connection: Connection, incident_id: int, *, who: str, note: str, now: datetime) -> bool:
    """A person takes it: nobody else is told but of its end. False: somebody had taken it already."""
    async with connection.transaction():
        row = await _open_one(connection, incident_id)
        if row["state"] == "acknowledged":
            return False
        await connection.execute(ACKNOWLEDGE, incident_id, now, who)
        await _act(connection, incident_id, row, "acknowledged", now, who=who, note=note)
    return True


async def snooze(
    connection: Connection, incident_id: int, *, until: datetime, who: str, note: str, now: datetime
) -> None:
    """Nobody is told anything before `until`; then once, if it is still there."""
    async with connection.transaction():
        row = await _open_one(connection, incident_id)
        await connection.execute(SNOOZE, incident_id, until)
        await _act(connection, incident_id, row, "snoozed", now, who=who, note=note, until=until)


async def unsnooze(connection: Connection, incident_id: int, *, who: str, note: str, now: datetime) -> bool:
    """People are told again from now on. False: it was not snoozed."""
    async with connection.transaction():
        row = await _open_one(connection, incident_id, cleared_too=True)
        if row["snoozed_until"] is None or row["snoozed_until"] <= now:
            return False
        await connection.execute(SNOOZE, incident_id, None)
        await _act(connection, incident_id, row, "unsnoozed", now, who=who, note=note)
    return True


async def list_incidents(
    connection: Connection,
    *,
    incident_id: int | None = None,
    over_too: bool = False,
    scope: str | None = None,
    kind: str | None = None,
    device: str | None = None,
    limit: int = 1,
) -> list[Row]:
    """What is open, and with `over_too` what was."""
    return list(await connection.fetch(LIST, incident_id, over_too, scope, kind, device, limit))


async def history(connection: Connection, incident_id: int) -> list[Row]:
    """What happened to an incident, in order."""
    return list(await connection.fetch(HISTORY, incident_id))


async def _open_one(connection: Connection, incident_id: int, *, cleared_too: bool = False) -> Row:
    row: Row | None = await connection.fetchrow(OF_ID, incident_id)
    if row is None:
        raise CallerError(f"there is no incident {incident_id}", hint="`signalkeep incidents list --all`")
    if row["state"] == "cleared" and not cleared_too:
        raise CallerError(f"incident {incident_id} is over", hint=f"`signalkeep incidents show {incident_id}`")
    return row


async def _act(
    connection: Connection,
    incident_id: int,
    row: Row,
    what: str,
    now: datetime,
    *,
    who: str,
    note: str,
    until: datetime | None = None,
) -> None:
    """The history of the incident and the audit log both say what a person did."""
    check_text("note", note, NOTES_CHARS_MAX)
    await add_events(connection, [(incident_id, what)], now, who=who, note=note)
    detail = {"kind": row["kind"], "subject": row["subject"], "note": note or None,
              "until": until.isoformat() if until else None}  # fmt: skip
    await log_action(connection, who, f"incident.{what}", str(incident_id), detail)
