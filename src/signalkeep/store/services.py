"""What monitors and the organizer see of our services: rows `heartbeat` and `service`, written over and over.

Each machine writes only its own rows, all in one transaction, so a machine's rows are always of one look. `since` moves
when a state changes, not when it is only seen again: how long something has been bad survives every restart of ours.
Bounded: what is not named any more goes, machines that nobody has heard of for days too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import msgspec

from signalkeep import limits
from signalkeep.kinds import Stage
from signalkeep.store.incidents import Condition
from signalkeep.store.postgres import Connection

State = Literal["up", "degraded", "down"]
OURS: Final = ""  # the host of rows that the organizer writes, for all machines

# What the processes of a host did. Restarts are remembered by the time at which their number grew. Where no supervisor
# of ours counts them, a process that started later than the one before is one.
WRITE_BEATS: Final = """
WITH seen AS (
    SELECT b.*, CASE WHEN b.restarts IS NOT NULL THEN greatest(0, b.restarts - h.restarts)
                     ELSE coalesce(b.started_at > h.started_at, false)::int END AS more
    FROM unnest($2::text[], $3::bigint[], $4::int[], $5::text[], $6::timestamptz[], $7::float8[], $8::bigint[],
                $9::float8[], $10::bool[], $11::bigint[], $12::uuid[], $13::bigint[])
        AS b (role, instance, pid, version, started_at, beat_age_s, handled, handled_age_s, waits, restarts, journal,
              durable_seq)
    LEFT JOIN heartbeat h ON h.host = $1 AND (h.role, h.instance) = (b.role, b.instance)
), times AS (
    SELECT seen.*, array_fill(now(), ARRAY[least(coalesce(more, 0), $14)::int]) AS lately FROM seen
)
INSERT INTO heartbeat AS h (
    host, role, instance, pid, version, started_at, at, beat_age_s, handled, handled_age_s, waits, restarts,
    restarted_at, journal, durable_seq)
SELECT $1, role, instance, pid, version, started_at, now(), beat_age_s, handled, handled_age_s, waits,
       coalesce(restarts, more, 0), lately, journal, durable_seq
FROM times
ON CONFLICT (host, role, instance) DO UPDATE SET
    pid = EXCLUDED.pid, version = EXCLUDED.version, started_at = coalesce(EXCLUDED.started_at, h.started_at),
    at = EXCLUDED.at, beat_age_s = EXCLUDED.beat_age_s, handled = EXCLUDED.handled,
    handled_age_s = EXCLUDED.handled_age_s, waits = EXCLUDED.waits,
    journal = coalesce(EXCLUDED.journal, h.journal), durable_seq = coalesce(EXCLUDED.durable_seq, h.durable_seq),
    restarts = EXCLUDED.restarts + CASE WHEN $15 THEN 0 ELSE h.restarts END,
    restarted_at = (h.restarted_at || EXCLUDED.restarted_at)[
        greatest(1, cardinality(h.restarted_at) + cardinality(EXCLUDED.restarted_at) - $14 + 1):]
"""

# Processes of a host that should not be there any more.
FORGET_BEATS: Final = """
DELETE FROM heartbeat WHERE host = $1 AND NOT EXISTS (
    SELECT FROM unnest($2::text[], $3::bigint[]) AS b (role, instance)
    WHERE (b.role, b.instance) = (heartbeat.role, heartbeat.instance))
"""

# How services are. Nobody knows how they were while nobody looked: after a gap of more than $6 a state begins anew.
WRITE_SERVICES: Final = """
INSERT INTO service AS s (host, name, state, why, took_s)
SELECT $1, name, state, why, took_s FROM unnest($2::text[], $3::text[], $4::text[], $5::float8[])
    AS n (name, state, why, took_s)
ON CONFLICT (host, name) DO UPDATE SET
    since = CASE WHEN s.state = EXCLUDED.state AND s.at >= now() - $6::interval THEN s.since ELSE now() END,
    state = EXCLUDED.state, why = EXCLUDED.why, took_s = EXCLUDED.took_s, at = now()
"""

# Services of a host that are not looked at any more. What audits said stays: it is written once in hours.
FORGET_SERVICES: Final = """
DELETE FROM service WHERE host = $1 AND name <> ALL ($2::text[]) AND NOT (host = '' AND name LIKE 'audit %')
"""

# Machines that are gone for good.
FORGET_HOSTS: Final = (
    "DELETE FROM heartbeat WHERE at < now() - $1::interval",
    "DELETE FROM service WHERE host <> '' AND at < now() - $1::interval",
)

SERVICES: Final = "SELECT host, name, state, why, since, at FROM service ORDER BY host, name"
BEATS: Final = """
SELECT host, role, instance, pid, at, restarts, restarted_at FROM heartbeat ORDER BY host, role, instance
"""

# What a check has open, as it described it last.
OPEN: Final = """
SELECT kind, subject, detail, opened_at, stage, hits FROM incident
WHERE source = $1 AND state <> 'cleared' ORDER BY kind, subject
"""

# For people: what is not as it should be, machines that say nothing any more first; and how many incidents are open.
UNWELL: Final = """
SELECT host, name, state, why, since FROM service
WHERE state <> 'up' AND at > now() - $1::interval * CASE WHEN host = '' THEN 60 ELSE 1 END
ORDER BY state = 'degraded', since, host, name LIMIT $2
"""
COUNTS: Final = """
WITH lately AS (
    SELECT host, state FROM service WHERE at > now() - $1::interval * CASE WHEN host = '' THEN 60 ELSE 1 END
)
SELECT (SELECT count(*) FROM lately) AS services,
       (SELECT count(DISTINCT host) FROM lately WHERE host <> '') AS hosts,
       (SELECT count(*) FROM lately WHERE state <> 'up') AS unwell_count,
       count(*) FILTER (WHERE state = 'open') AS open, count(*) FILTER (WHERE state = 'acknowledged') AS acknowledged
FROM incident WHERE state <> 'cleared' AND stage = 'malfunction'
"""


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """A process that should be there, as the monitor of its machine sees it. Without `pid` it is not."""

    role: str
    instance: int
    pid: int | None = None
    version: str | None = None
    started_at: datetime | None = None
    beat_age_s: float | None = None
    handled: int = 0
    handled_age_s: float | None = None
    waits: bool = False
    restarts: int | None = None  # None: no supervisor of ours counts them
    journal: UUID | None = None
    durable_seq: int | None = None


class Seen(msgspec.Struct, frozen=True):
    """How something is now."""

    name: str
    state: State = "up"
    why: str = ""
    took_s: float | None = None


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """The same, with how long it has been so. `at`: when it was last looked at."""

    host: str
    name: str
    state: State
    why: str = ""
    since: datetime
    at: datetime


class LastBeat(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a process."""

    host: str
    role: str
    instance: int
    pid: int | None = None
    at: datetime
    restarts: int = 0
    restarted_at: list[datetime] = []

    @property
    def name(self) -> str:
        return f"{self.role}-{self.instance}"


async def write_host(
    connection: Connection,
    host: str,
    beats: Sequence[Beat],
    seen: Sequence[Seen],
    *,
    gap_s: float = limits.HOST_SILENT_S,
) -> None:
    """All that a monitor sees of its machine, instead of what it saw before.

    `gap_s`: what was seen longer ago than this says nothing of the time between.
    """
    beats, seen = beats[: limits.BEAT_ROWS_MAX], seen[: limits.BEAT_ROWS_MAX]
    values = [
        (
            one.role, one.instance, one.pid, one.version, one.started_at, one.beat_age_s, one.handled,
            one.handled_age_s, one.waits, one.restarts, one.journal, one.durable_seq,
        )
        for one in beats
    ]  # fmt: skip
    async with connection.transaction():
        if values:
            counted = all(one.restarts is not None for one in beats)
            await connection.execute(WRITE_BEATS, host, *zip(*values, strict=True), limits.RESTARTS_REMEMBERED, counted)
        await connection.execute(FORGET_BEATS, host, [one.role for one in beats], [one.instance for one in beats])
        await note(connection, host, seen, gap_s=gap_s)
        await connection.execute(FORGET_SERVICES, host, [one.name for one in seen])


async def note(
    connection: Connection, host: str, seen: Sequence[Seen], *, gap_s: float = limits.HOST_FORGOTTEN_S
) -> None:
    """How these are; others of the host stay as they are."""
    if seen:
        values = [(one.name, one.state, one.why, one.took_s) for one in sorted(seen, key=lambda one: one.name)]
        await connection.execute(WRITE_SERVICES, host, *zip(*values, strict=True), timedelta(seconds=gap_s))


async def keep_only(connection: Connection, names: Collection[str]) -> None:
    """Of what the organizer looked at, and of machines that are gone for good, the rest goes."""
    await connection.execute(FORGET_SERVICES, OURS, list(names))
    for statement in FORGET_HOSTS:
        await connection.execute(statement, timedelta(seconds=limits.HOST_FORGOTTEN_S))


async def services(connection: Connection) -> list[Service]:
    """Every row."""
    return [Service(**dict(row)) for row in await connection.fetch(SERVICES)]


async def beats(connection: Connection) -> list[LastBeat]:
    """Every process of every machine."""
    return [LastBeat(**dict(row)) for row in await connection.fetch(BEATS)]


async def time_of(connection: Connection) -> datetime:
    """The database's clock: all times of these rows are its."""
    now: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return now


async def open_of(connection: Connection, source: str) -> list[Condition]:
    """What a check has open, to go on with as it is."""
    return [
        Condition(
            kind=row["kind"], subject=row["subject"], detail=row["detail"], since=row["opened_at"],
            stage=Stage(row["stage"]), hits=row["hits"],
        )
        for row in await connection.fetch(OPEN, source)
    ]  # fmt: skip


class Unwell(msgspec.Struct, frozen=True, kw_only=True):
    """A service that is not up. `host`: the machine that says so, empty: the organizer."""

    host: str
    name: str
    state: State
    why: str
    since: datetime


class Overview(msgspec.Struct, kw_only=True):
    """For `status`: what was looked at lately, incidents that people were told of, and the worst of the services."""

    services: int
    hosts: int
    unwell_count: int
    open: int
    acknowledged: int
    unwell: list[Unwell]


async def overview(connection: Connection, unwell_max: int) -> Overview:
    """What is not well, and how many incidents there are."""
    fresh = timedelta(seconds=limits.HOST_SILENT_S)
    counts = await connection.fetchrow(COUNTS, fresh)
    assert counts is not None
    rows = await connection.fetch(UNWELL, fresh, unwell_max)
    return Overview(**dict(counts), unwell=[Unwell(**dict(row)) for row in rows])
