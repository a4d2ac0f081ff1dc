"""The outbox: what was decided to tell, to whom, and what became of it. Messages are rows before anybody sends them.

    unrouted -> route     events become messages, in one transaction with the note that they were routed
    waiting  -> sent      by whoever holds the channel; a message that fails waits longer each time
             -> in_digest together in one other message, when there are too many
             -> given_up  after many tries

Whoever is killed in between sends a message again, with the same id; none is lost.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from signalkeep import limits
from signalkeep.store.postgres import Connection, Row

_ROUTE: Final = 0x73_6B_72_74  # advisory lock of a transaction: one router at a time
_CHANNEL: Final = 0x73_6B_63_68  # class of the advisory locks of sessions: one sender of a channel at a time

# An incident with the names that people know it by; the vehicle that carries the device now.
_NAMED: Final = """
i.id AS incident_id, i.kind, i.subject, i.scope, i.stage, i.severity, i.state, i.title, i.detail, i.hits, i.devices,
i.opened_at, i.malfunction_at, i.snoozed_until, i.escalated_at, i.reminded_at, i.cleared_at, i.reopened,
i.acknowledged_by, d.device_number, d.model, v.name AS vehicle, v.plate, c.name AS customer
"""
_NAMES: Final = """
LEFT JOIN device d ON d.id = i.device_id
LEFT JOIN assignment a ON a.device_id = i.device_id AND tstzrange(a.begins_at, a.ends_at) @> $1::timestamptz
LEFT JOIN vehicle v ON v.id = a.vehicle_id
LEFT JOIN customer c ON c.id = i.customer_id
"""

# Events of which it was not decided yet whom to tell, with what came before and after.
UNROUTED: Final = f"""
SELECT e.id, e.what, e.at, e.note, {_NAMED},
    (SELECT count(*) FROM incident_event r WHERE r.incident_id = e.incident_id AND r.what = 'reopened'
        AND r.id <= e.id AND r.at > e.at - make_interval(secs => $4)) AS reopened_lately,
    EXISTS (SELECT FROM incident_event r WHERE r.incident_id = e.incident_id AND r.what = 'reopened' AND r.id > e.id)
        AS came_back
FROM incident_event e JOIN incident i ON i.id = e.incident_id {_NAMES}
WHERE e.routed_at IS NULL AND e.id > $2
ORDER BY e.id LIMIT $3
"""  # noqa: S608 - made of constants

# What channels were told of incidents. A message that was given up has told nobody anything.
TOLD: Final = """
SELECT e.incident_id, n.channel, n.payload->>'what' AS word
FROM notification n JOIN incident_event e ON e.id = n.event_id
WHERE e.incident_id = ANY($1::bigint[]) AND n.state <> 'given_up'
ORDER BY e.id
"""

ROUTED: Final = "UPDATE incident_event SET routed_at = $2 WHERE id = ANY($1::bigint[])"

ADD: Final = """
INSERT INTO notification (id, event_id, channel, title, body, payload, created_at, next_at)
SELECT id, event_id, channel, title, body, payload, $1, $1
FROM unnest($2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::jsonb[])
    AS m (id, event_id, channel, title, body, payload)
ON CONFLICT (event_id, channel) DO NOTHING
"""

# Malfunctions for which something may be due because time has passed: a snooze is over, or nobody has taken them for
# long. A time of null seconds: never. What a check or a person just changes is looked at the next time.
TO_LOOK_AT: Final = f"""
SELECT {_NAMED} FROM incident i {_NAMES}
WHERE i.id > $2 AND i.state <> 'cleared' AND i.stage = 'malfunction'
    AND (i.snoozed_until <= $1 AND coalesce(i.reminded_at < i.snoozed_until, true)
        OR i.state = 'open' AND (
            i.escalated_at IS NULL AND i.malfunction_at <= $1 - make_interval(secs => $3)
            OR coalesce(i.reminded_at, i.malfunction_at) <= $1 - make_interval(secs => $4)))
ORDER BY i.id LIMIT $5 FOR UPDATE OF i SKIP LOCKED
"""  # noqa: S608 - made of constants

NOTE_DUE: Final = """
UPDATE incident SET
    escalated_at = CASE WHEN $3 = 'escalated' THEN $2::timestamptz ELSE escalated_at END,
    reminded_at = CASE WHEN $3 = 'reminded' THEN $2::timestamptz ELSE reminded_at END
WHERE id = $1
"""

# Messages to channels that are no longer there.
GIVE_UP_ORPHANS: Final = """
UPDATE notification SET state = 'given_up', error = 'the settings have no such channel any more'
WHERE state = 'waiting' AND channel <> ALL($1::text[])
"""

# The message that a channel sends next. One about an incident waits for the earlier ones about it.
NEXT: Final = """
SELECT n.id, n.title, n.body, n.payload, n.attempts FROM notification n
LEFT JOIN incident_event e ON e.id = n.event_id
WHERE n.state = 'waiting' AND n.channel = $1 AND n.next_at <= $2 AND ($3 OR n.payload->>'what' = 'digest')
    AND NOT EXISTS (
        SELECT FROM notification before JOIN incident_event of ON of.id = before.event_id
        WHERE before.state = 'waiting' AND before.channel = $1 AND of.incident_id = e.incident_id AND of.id < e.id)
ORDER BY n.created_at, n.event_id LIMIT 1
"""

# How much a channel took lately, digests not counted, and when its last digest was made.
LATELY: Final = """
SELECT
    (SELECT count(*) FROM notification
     WHERE channel = $1 AND state = 'sent' AND sent_at > $2 AND payload->>'what' <> 'digest') AS sent,
    (SELECT max(created_at) FROM notification
     WHERE channel = $1 AND event_id IS NULL AND created_at > $2 AND payload->>'what' = 'digest') AS digest_at
"""

# What goes into a digest.
TO_DIGEST: Final = """
SELECT id, title, created_at FROM notification
WHERE channel = $1 AND state = 'waiting' AND payload->>'what' <> 'digest' ORDER BY created_at, event_id FOR UPDATE
"""
INTO_DIGEST: Final = "UPDATE notification SET state = 'in_digest', digest_id = $2 WHERE id = ANY($1::uuid[])"

SENT: Final = """
UPDATE notification SET
    state = 'sent', sent_at = $2, tried_at = $2, attempts = attempts + 1, failed_in_a_row = 0, error = ''
WHERE id = $1 AND state <> 'sent'
"""

# A failure is one more of the channel, whatever message it last tried; a channel that hangs has failed often enough.
FAILED: Final = """
UPDATE notification n SET
    tried_at = $2, attempts = n.attempts + 1, error = $3, next_at = $4,
    state = CASE WHEN n.attempts + 1 >= $5 THEN 'given_up' ELSE 'waiting' END,
    failed_in_a_row = greatest($6::int, 1 + coalesce(
        (SELECT last.failed_in_a_row FROM notification last
         WHERE last.channel = n.channel AND last.tried_at IS NOT NULL ORDER BY last.tried_at DESC LIMIT 1), 0))
WHERE n.id = $1 AND n.state = 'waiting'
"""

# How each channel did when it was last tried, and what waits there.
CHANNELS: Final = """
SELECT c.name, last.tried_at, coalesce(last.failed_in_a_row, 0) AS failed_in_a_row, coalesce(last.error, '') AS error,
    (SELECT count(*) FROM notification w WHERE w.channel = c.name AND w.state = 'waiting') AS waiting,
    (SELECT max(sent_at) FROM notification s WHERE s.channel = c.name AND s.state = 'sent') AS sent_at
FROM unnest($1::text[]) AS c (name)
LEFT JOIN LATERAL (
    SELECT tried_at, failed_in_a_row, error FROM notification n
    WHERE n.channel = c.name AND n.tried_at IS NOT NULL ORDER BY n.tried_at DESC LIMIT 1) last ON true
ORDER BY c.name
"""

# The last messages, or those about an incident.
LIST: Final = """
SELECT n.id, n.created_at, n.channel, n.title, n.state, n.attempts, n.error, n.sent_at, n.next_at, n.digest_id,
    e.incident_id, n.payload->>'what' AS what
FROM notification n LEFT JOIN incident_event e ON e.id = n.event_id
WHERE ($1::bigint IS NULL OR e.incident_id = $1) AND ($2::text IS NULL OR n.channel = $2)
ORDER BY n.created_at DESC, n.event_id DESC LIMIT $3
"""


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A message, before or after it is a row."""

    id: uuid.UUID
    title: str
    body: str
    payload: dict[str, Any]
    attempts: int = 0


async def hold_routing(connection: Connection) -> None:
    """In the caller's transaction: nobody else decides whom to tell meanwhile."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _ROUTE)


async def unrouted(connection: Connection, after_id: int, now: datetime) -> list[Row]:
    """The next events, with their incidents."""
    return list(
        await connection.fetch(UNROUTED, now, after_id, limits.NOTIFY_EVENTS_MAX, limits.FLAPPING_S)
    )  # fmt: skip


async def told(connection: Connection, incident_ids: Sequence[int]) -> list[Row]:
    """What channels were told of these incidents, in order."""
    return list(await connection.fetch(TOLD, incident_ids))


async def note_routed(connection: Connection, event_ids: Sequence[int], now: datetime) -> None:
    await connection.execute(ROUTED, event_ids, now)


async def add(
    connection: Connection, messages: Sequence[tuple[Outgoing, int | None, str]], now: datetime
) -> None:  # fmt: skip
    """Messages, each with its event and its channel. An event is told to a channel once."""
    if messages:
        values = [(one.id, event_id, channel, one.title, one.body, one.payload) for one, event_id, channel in messages]
        await connection.execute(ADD, now, *zip(*values, strict=True))


async def to_look_at(
    connection: Connection, after_id: int, now: datetime, *, escalate_after_s: float, remind_every_s: float
) -> list[Row]:
    """Incidents for which something may be due, locked."""
    never_s = None
    return list(
        await connection.fetch(
            TO_LOOK_AT, now, after_id, escalate_after_s or never_s, remind_every_s or never_s, limits.NOTIFY_EVENTS_MAX
        )
    )


async def note_due(connection: Connection, incident_id: int, what: str, now: datetime) -> None:
    """That it is escalated or told again now. The event is the caller's to add."""
    await connection.execute(NOTE_DUE, incident_id, now, what)


async def give_up_orphans(connection: Connection, channels: Sequence[str]) -> int:
    """Messages to channels other than these; how many."""
    return int((await connection.execute(GIVE_UP_ORPHANS, channels)).split()[-1])


async def try_channel(connection: Connection, channel: str) -> bool:
    """Become the one that sends over a channel, as long as this connection lives; False: another one does."""
    got: bool = await connection.fetchval("SELECT pg_try_advisory_lock($1, hashtext($2))", _CHANNEL, channel)
    return got


async def next_message(connection: Connection, channel: str, now: datetime, *, only_digests: bool) -> Outgoing | None:
    """What the channel sends next."""
    row = await connection.fetchrow(NEXT, channel, now, not only_digests)
    return Outgoing(**dict(row)) if row is not None else None


async def lately(connection: Connection, channel: str, now: datetime) -> tuple[int, datetime | None]:
    """Messages that the channel took in the last hour, and when its last digest was made, if in that hour."""
    row = await connection.fetchrow(LATELY, channel, now - timedelta(hours=1))
    assert row is not None, "a SELECT without FROM gives one row"
    return row["sent"], row["digest_at"]


async def to_digest(connection: Connection, channel: str) -> list[Row]:
    """What waits there, locked; in the caller's transaction."""
    return list(await connection.fetch(TO_DIGEST, channel))


async def put_into_digest(
    connection: Connection, ids: Sequence[uuid.UUID], digest: Outgoing, channel: str, now: datetime
) -> None:
    """Let one message stand for these; in the caller's transaction."""
    await add(connection, [(digest, None, channel)], now)
    await connection.execute(INTO_DIGEST, ids, digest.id)


async def note_sent(connection: Connection, message_id: uuid.UUID, now: datetime) -> None:
    await connection.execute(SENT, message_id, now)


async def note_failed(
    connection: Connection, message: Outgoing, now: datetime, *, error: str, hangs: bool, last: bool = False
) -> None:
    """It waits longer each time. `last`: it is not tried again."""
    wait_s = min(limits.NOTIFY_RETRY_S_MIN * 2.0 ** min(message.attempts, 30), limits.NOTIFY_RETRY_S_MAX)
    await connection.execute(
        FAILED, message.id, now, error[: limits.NOTIFY_ERROR_CHARS_MAX], now + timedelta(seconds=wait_s),
        0 if last else limits.NOTIFY_ATTEMPTS_MAX, limits.NOTIFY_FAILED_IN_A_ROW if hangs else 0,
    )  # fmt: skip


async def channels(connection: Connection, names: Sequence[str]) -> list[Row]:
    """How each of these channels does."""
    return list(await connection.fetch(CHANNELS, names))


async def messages(
    connection: Connection, *, incident_id: int | None = None, channel: str | None = None, limit: int
) -> list[Row]:
    """The last messages."""
    return list(await connection.fetch(LIST, incident_id, channel, limit))
