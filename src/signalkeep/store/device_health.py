"""What the database knows of how devices are: findings of now, contact and positions, what ailed them before.

Everything is read and written in the caller's transaction, under its lock: two who look at the same time do so one
after the other, and of one that is cut off nothing is left. Devices that are well are not even read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from signalkeep import limits
from signalkeep.kinds import Stage
from signalkeep.model import CANARY_MODEL
from signalkeep.rules.health import Ailing, DeviceView, Found, LastSignal, last_signal
from signalkeep.rules.shared import AREA_DEG, FLEET, area, places_of
from signalkeep.rules.troubles import ERROR_LIMIT, LINES, Heard, Trouble, line_of
from signalkeep.store.postgres import Connection, Row

LOCK: Final = "SELECT pg_advisory_xact_lock($1)"
_LOCK: Final = 0x73_6B_64_76  # one look at all devices at a time

# Everything that is remembered.
TROUBLES: Final = """
SELECT device_id, kind, stage, since, hit_at, good_since, good_from, hits, bad_s, detail, part_of, cleared_at
FROM device_trouble
"""

# What rules found lately, each with its latest hit that may alarm: those that came in time; of wrong clocks by arrival;
# of rules about a whole day by when they were last found so.
FINDINGS: Final = """
SELECT device_id, kind, live_hits AS hits, begins_at, live_at AS hit_at, state = 'cleared' AS over, detail
FROM finding
WHERE device_id IS NOT NULL AND day >= ($1::timestamptz AT TIME ZONE 'UTC')::date AND live_at > $1
  AND state IN ('detected', 'confirmed', 'cleared') AND (kind = ANY($2::text[]) OR starts_with(kind, $3))
UNION ALL
SELECT device_id, kind, count, (first_sample ->> 'received_at')::timestamptz,
       (last_sample ->> 'received_at')::timestamptz, state = 'cleared', detail
FROM finding
WHERE kind IN ('TIM-01', 'TIM-02', 'TIM-04', 'TIM-05') AND (last_sample ->> 'received_at')::timestamptz > $1
  AND state IN ('detected', 'confirmed', 'cleared')
UNION ALL
SELECT device_id, kind, count, day::timestamp AT TIME ZONE 'UTC',
       least(last_at, (day + 1)::timestamp AT TIME ZONE 'UTC'), state = 'cleared', detail
FROM finding
WHERE device_id IS NOT NULL AND day >= ($1::timestamptz AT TIME ZONE 'UTC')::date AND kind = ANY($4::text[])
  AND state IN ('detected', 'confirmed', 'cleared') AND least(last_at, (day + 1)::timestamp AT TIME ZONE 'UTC') > $1
"""

# Active devices that may ail: not heard of lately, without a position for long, or known for something.
_OF_FLEET: Final = f"d.status = 'active' AND d.model <> '{CANARY_MODEL}'"  # of our own canary the organizer tells
_HEARD: Final = "greatest(s.last_received_at, s.connected_at, s.disconnected_at)"
DEVICES: Final = f"""
SELECT d.id, d.device_number, d.model, v.customer_id, d.expected_interval_s, {_HEARD} AS heard_at, s.stored,
       s.stored_to, s.device_time, greatest(d.created_at, d.erased_to) AS known_since, s.latitude, s.longitude
FROM device d JOIN device_state s ON s.device_id = d.id
LEFT JOIN assignment a ON a.device_id = d.id
    AND (a.begins_at IS NULL OR a.begins_at <= $1) AND (a.ends_at IS NULL OR $1 < a.ends_at)
LEFT JOIN vehicle v ON v.id = a.vehicle_id
WHERE {_OF_FLEET} AND d.device_number <> ''
  AND ({_HEARD} < $2 OR s.stored_to - coalesce(s.device_time, d.created_at) >= $3::interval OR d.id = ANY($4::int[]))
"""  # noqa: S608 - constant columns

# What the latest signals of devices say of how they are used.
LAST_SIGNALS: Final = """
SELECT d.device_id, s.fix_valid AND s.latitude IS NOT NULL AND s.longitude IS NOT NULL AS fix,
       s.attributes -> 'ignition' AS ignition, s.attributes -> 'motion' AS motion,
       s.attributes -> 'gnss_status' AS gnss_status
FROM unnest($1::int[]) AS d (device_id)
JOIN device_state t ON t.device_id = d.device_id
CROSS JOIN LATERAL (
    SELECT fix_valid, latitude, longitude, attributes FROM signal s
    WHERE s.device_id = d.device_id AND s.wire_time > t.stored_to - interval '1 day' AND s.wire_time <= t.stored_to
    ORDER BY s.wire_time DESC LIMIT 1) s
"""

# Devices that were heard of lately, of each model and in each cell of two grids; cells with few are left out.
ACTIVE_OF_MODELS: Final = f"""
SELECT d.model, count(*) AS devices FROM device d JOIN device_state s ON s.device_id = d.id
WHERE {_OF_FLEET} AND {_HEARD} >= $1 GROUP BY d.model
"""  # noqa: S608 - constant columns
ACTIVE_IN_CELLS: Final = f"""
SELECT floor((s.latitude + g.shift_deg) / g.size_deg)::int AS y,
       floor((s.longitude + g.shift_deg) / g.size_deg)::int AS x, g.shift_deg, count(*) AS devices
FROM device d JOIN device_state s ON s.device_id = d.id
CROSS JOIN (VALUES ($2::float8, 0::float8), ($2, $2 / 2)) AS g (size_deg, shift_deg)
WHERE {_OF_FLEET} AND {_HEARD} >= $1 AND s.latitude IS NOT NULL AND s.longitude IS NOT NULL
GROUP BY 1, 2, 3 HAVING count(*) >= $3
"""  # noqa: S608 - constant columns

PUT: Final = """
INSERT INTO device_trouble AS t (
    device_id, kind, stage, since, hit_at, good_since, good_from, hits, bad_s, detail, part_of, cleared_at)
SELECT * FROM unnest($1::int[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
                     $7::bigint[], $8::bigint[], $9::float8[], $10::text[], $11::text[], $12::timestamptz[])
ON CONFLICT (device_id, kind) DO UPDATE SET
    stage = EXCLUDED.stage, since = EXCLUDED.since, hit_at = EXCLUDED.hit_at, good_since = EXCLUDED.good_since,
    good_from = EXCLUDED.good_from, hits = EXCLUDED.hits, bad_s = EXCLUDED.bad_s, detail = EXCLUDED.detail,
    part_of = EXCLUDED.part_of, cleared_at = EXCLUDED.cleared_at
"""
FORGET: Final = """
DELETE FROM device_trouble t USING unnest($1::int[], $2::text[]) AS u (device_id, kind)
WHERE t.device_id = u.device_id AND t.kind = u.kind
"""

# What ails devices now, for people. How long something has lasted follows from when it began.
AILING: Final = """
SELECT d.device_number, t.kind, t.stage, t.since, t.hit_at AS last_hit, t.good_since, t.hits,
       CASE WHEN t.good_since IS NULL THEN greatest(t.bad_s, extract(epoch FROM now() - t.since)) ELSE t.bad_s END
           ::float8 / 60 AS bad_minutes,
       t.detail, t.part_of
FROM device_trouble t JOIN device d ON d.id = t.device_id
WHERE t.cleared_at IS NULL AND ($1::text IS NULL OR d.device_number = $1)
ORDER BY t.stage DESC, t.since DESC, d.device_number, t.kind LIMIT $2
"""

Key = tuple[int, Trouble]


async def lock(connection: Connection) -> None:
    """Until the transaction ends, nobody else looks."""
    await connection.execute(LOCK, _LOCK)


async def troubles(connection: Connection) -> dict[int, dict[Trouble, Ailing]]:
    """What is remembered, by device and kind."""
    found: dict[int, dict[Trouble, Ailing]] = defaultdict(dict)
    async for row in _pages(connection, TROUBLES):
        kind = Trouble(row["kind"])
        found[row["device_id"]][kind] = Ailing(
            kind, Stage(row["stage"]), _s(row["since"]), _s(row["hit_at"]), _s_or_none(row["good_since"]),
            row["good_from"], row["hits"], row["bad_s"], row["detail"], row["part_of"], _s_or_none(row["cleared_at"]),
        )  # fmt: skip
    return dict(found)


async def findings(connection: Connection, since: datetime) -> dict[int, tuple[Found, ...]]:
    """What rules found of devices with a hit after `since` that may alarm people."""
    live = [rule for rule, line in LINES.items() if line.trouble is not None and line.heard is Heard.LIVE]
    days = [rule for rule, line in LINES.items() if line.trouble is not None and line.heard is Heard.DAY]
    found: dict[int, list[Found]] = defaultdict(list)
    async for row in _pages(connection, FINDINGS, since, live, ERROR_LIMIT, days):
        line = line_of(row["kind"])
        assert line is not None
        assert line.trouble is not None
        found[row["device_id"]].append(
            Found(
                line.trouble, row["hits"], _s(row["begins_at"]), _s(row["hit_at"]), row["over"],
                f"{row['kind']}: {row['detail']}",
            )
        )  # fmt: skip
    return {device_id: tuple(parts) for device_id, parts in found.items()}


async def devices(
    connection: Connection,
    now: datetime,
    *,
    silent_after_s: float,
    blind_after_s: float,
    before: Mapping[int, Mapping[Trouble, Ailing]],
    found: Mapping[int, tuple[Found, ...]],
) -> AsyncIterator[list[DeviceView]]:
    """Pages of active devices that may ail, without their latest signals."""
    cursor = await connection.cursor(
        DEVICES, now, now - timedelta(seconds=silent_after_s), timedelta(seconds=blind_after_s),
        list({*before, *found}),
    )  # fmt: skip
    while rows := await cursor.fetch(limits.DEVICE_PAGE_ROWS, timeout=limits.DATABASE_COMMAND_S_MAX):
        yield [_view(row, before.get(row["id"], {}), found.get(row["id"], ())) for row in rows]


async def last_signals(connection: Connection, device_ids: Sequence[int]) -> dict[int, LastSignal]:
    """Of each device that has one."""
    return {
        row["device_id"]: last_signal(row["fix"], row["ignition"], row["motion"], row["gnss_status"])
        for row in await connection.fetch(LAST_SIGNALS, list(device_ids))
    }


async def active_devices(connection: Connection, since: datetime, devices_min: int) -> dict[str, int]:
    """Devices that were heard of since then, by place as `rules.shared` names it."""
    found = {FLEET: 0}
    for row in await connection.fetch(ACTIVE_OF_MODELS, since):
        found[FLEET] += row["devices"]
        if row["model"]:
            found[places_of(row["model"], None, None)[1]] = row["devices"]
    for row in await connection.fetch(ACTIVE_IN_CELLS, since, AREA_DEG, devices_min):
        found[area(row["y"], row["x"], row["shift_deg"])] = row["devices"]
    return found


async def put(connection: Connection, ailing: Iterable[tuple[int, Ailing]], forgotten: Sequence[Key]) -> None:
    """Write what is to be remembered, and forget what is over."""
    values = [
        (
            device_id, str(one.kind), str(one.stage), _at(one.since_s), _at(one.hit_s), _at(one.good_since_s),
            one.good_from, one.hits, one.bad_s, one.detail, one.part_of, _at(one.cleared_s),
        )
        for device_id, one in ailing
    ]  # fmt: skip
    for begin in range(0, len(values), limits.TROUBLES_PAGE_ROWS):
        page = values[begin : begin + limits.TROUBLES_PAGE_ROWS]
        await connection.execute(PUT, *zip(*page, strict=True))
    if forgotten:
        await connection.execute(FORGET, [one for one, _ in forgotten], [str(kind) for _, kind in forgotten])


async def ailing(connection: Connection, device_number: str | None, limit: int) -> list[Row]:
    """What ails devices now, malfunctions first."""
    return list(await connection.fetch(AILING, device_number, limit))


async def _pages(connection: Connection, query: str, *parameters: Any) -> AsyncIterator[Row]:
    """Rows of a query by a cursor: they may be many, and others must have their turn."""
    cursor = await connection.cursor(query, *parameters)
    while rows := await cursor.fetch(limits.DEVICE_PAGE_ROWS, timeout=limits.DATABASE_COMMAND_S_MAX):
        for row in rows:
            yield row


def _view(row: Row, before: Mapping[Trouble, Ailing], found: tuple[Found, ...]) -> DeviceView:
    return DeviceView(
        row["id"], row["device_number"], row["model"], row["customer_id"], row["expected_interval_s"],
        _s_or_none(row["heard_at"]), row["stored"], _s_or_none(row["stored_to"]), _s_or_none(row["device_time"]),
        _s(row["known_since"]), row["latitude"], row["longitude"], None, found, before,
    )  # fmt: skip


def _s(at: datetime) -> float:
    return at.timestamp()


def _s_or_none(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


def _at(seconds: float | None) -> datetime | None:
    """Exact, so that what is read is what was written: a difference would be written again and again."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
