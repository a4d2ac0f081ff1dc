"""What sweeps read and write: days that wait, a day's signals, and what became of judging it.

Judging a day is a function of its rows, so it may be done again at any time: flags, findings and score are replaced by
what they should be, never added to. `write_day` does so under the device's lock, and only if nothing came for the day
since its rows were read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Final

import msgspec

from signalkeep import limits
from signalkeep.store import sql
from signalkeep.store.postgres import Connection, JsonText, Row
from signalkeep.store.queries import DAYS_BETWEEN, EVERYTHING, SignalTail, TailPosition
from signalkeep.store.rules import SIGNAL_COLUMNS

NAME: Final = "quality"
NEXT_DAY_SHARE: Final = timedelta(hours=1)  # what comes so close to midnight may explain the next day, too

LOAD: Final = "SELECT position::text FROM sweep WHERE name = $1"
NOTE: Final = """
INSERT INTO sweep (name, position) VALUES ($1, $2::text::jsonb)
ON CONFLICT (name) DO UPDATE SET position = EXCLUDED.position, at = now()
"""

# A day whose month went: there is nothing left to judge, and what was said of it stays.
_STILL_THERE: Final = "NOT EXISTS (SELECT FROM expired_month m WHERE m.month = date_trunc('month', day)::date)"

# Days that are to be judged, or to be judged once more than is under way.
ADD_DAYS: Final = f"""
INSERT INTO quality_todo AS t (device_id, day)
SELECT device_id, day FROM unnest($1::int[], $2::date[]) AS n (device_id, day) WHERE {_STILL_THERE}
ON CONFLICT (device_id, day) DO UPDATE SET marker = t.marker + 1
"""  # noqa: S608 - constant condition

# Days that were judged by other rules, newest first. When there are none left, that is noted: to look through all days
# is for a change of rules, not for every sweep.
JUDGED_OTHERWISE: Final = f"""
SELECT device_id, day FROM quality_score WHERE rules <> $1 AND {_STILL_THERE} ORDER BY day DESC LIMIT $2
"""  # noqa: S608 - constant condition
ADD_WAITING: Final = """
INSERT INTO quality_todo (device_id, day) SELECT * FROM unnest($1::int[], $2::date[]) ON CONFLICT DO NOTHING
"""
RULES_NAME: Final = "rules"

# Old days of devices, at random: a second look at what was good once.
SAMPLE: Final = f"""
INSERT INTO quality_todo (device_id, day)
SELECT DISTINCT q.device_id, q.day
FROM (SELECT (random() * (SELECT coalesce(max(id), 0) FROM device))::int AS id FROM generate_series(1, $1)) r
CROSS JOIN LATERAL (SELECT id FROM device d WHERE d.id >= r.id ORDER BY d.id LIMIT 1) d
CROSS JOIN LATERAL (
    SELECT device_id, day FROM quality_score q WHERE q.device_id = d.id AND q.day < current_date AND {_STILL_THERE}
    ORDER BY random() LIMIT 1) q
ON CONFLICT DO NOTHING
"""  # noqa: S608 - constant condition

# Days that have waited long enough, those that wait longest first.
NEXT_DAYS: Final = """
SELECT t.device_id, t.day, t.marker, d.device_number, d.model, d.expected_interval_s, d.created_at,
       s.records, s.duplicate, s.connections, s.quarantine_open, owner.customer
FROM (SELECT * FROM quality_todo WHERE since <= now() - $1::interval ORDER BY since, device_id, day LIMIT $2) t
JOIN device d ON d.id = t.device_id
JOIN device_state s ON s.device_id = t.device_id
LEFT JOIN LATERAL (
    SELECT c.name AS customer FROM assignment a
    JOIN vehicle v ON v.id = a.vehicle_id JOIN customer c ON c.id = v.customer_id
    WHERE a.device_id = t.device_id AND (a.begins_at IS NULL OR a.begins_at < (t.day + 1)::timestamp AT TIME ZONE 'UTC')
      AND (a.ends_at IS NULL OR a.ends_at > t.day::timestamp AT TIME ZONE 'UTC')
    ORDER BY a.begins_at DESC NULLS LAST LIMIT 1) owner ON true
ORDER BY t.since, t.device_id, t.day
"""
WAITING: Final = "SELECT count(*) FROM quality_todo"

# A day's signals in the order of arrival. device_time is at most a day away from wire_time.
DAY_ROWS: Final = f"""
SELECT {SIGNAL_COLUMNS} FROM signal s
WHERE s.device_id = $1 AND s.wire_time >= $2::timestamptz - interval '1 day'
  AND s.wire_time < $2::timestamptz + interval '2 days'
  AND coalesce(s.device_time, s.received_at) >= $2
  AND coalesce(s.device_time, s.received_at) < $2::timestamptz + interval '1 day'
ORDER BY s.received_at, s.journal_id, s.seq, s.record_no LIMIT {limits.SWEEP_DAY_ROWS_MAX}
"""  # noqa: S608 - constant columns and numbers

# The last signals before a day.
BEFORE_DAY: Final = f"""
SELECT {SIGNAL_COLUMNS} FROM signal s
WHERE s.device_id = $1 AND s.wire_time >= $2::timestamptz - interval '35 days' AND s.wire_time < $2
  AND s.device_time < $2
ORDER BY s.wire_time DESC LIMIT {limits.RECENT_ROWS}
"""  # noqa: S608 - constant columns and numbers

# Earlier scores of a device: what it usually sends, and where its counters stood.
SCORES_BEFORE: Final = """
SELECT day, signals, attributes, duplicate_to, connections_to FROM quality_score
WHERE device_id = $1 AND day <= $2 ORDER BY day DESC LIMIT 8
"""

# Attributes that signals of a protocol and model had on earlier days.
ATTRIBUTES_BEFORE: Final = """
SELECT attribute FROM attribute_seen WHERE protocol = ANY($1::text[]) AND model = $2 AND first_on < $3
"""
ADD_ATTRIBUTES: Final = """
INSERT INTO attribute_seen AS a (protocol, model, attribute, first_on)
SELECT p, m, n, $4 FROM unnest($1::text[], $2::text[], $3::text[]) AS x (p, m, n)
ON CONFLICT (protocol, model, attribute) DO UPDATE SET first_on = EXCLUDED.first_on WHERE EXCLUDED.first_on < a.first_on
"""

# What people have said that concerns a day.
MARKS: Final = """
SELECT begins_at, ends_at, rule, verdict FROM quality_mark
WHERE device_id = $1 AND taken_back_at IS NULL AND begins_at < $2::timestamptz + interval '1 day' AND ends_at >= $2
ORDER BY id
"""

# Writing a day: nothing may have come for the device since it was read.
SAME_STATE: Final = """
SELECT s.records = $2 AND s.quarantine_open = $3
       AND EXISTS (SELECT FROM quality_todo t WHERE t.device_id = $1 AND t.day = $4 AND t.marker = $5)
FROM device_state s WHERE s.device_id = $1
"""
SET_FLAGS: Final = """
UPDATE signal s SET flags = u.flags
FROM unnest($2::timestamptz[], $3::bigint[], $4::bigint[]) AS u (wire_time, digest, flags)
WHERE s.device_id = $1 AND s.wire_time = u.wire_time AND s.digest = u.digest
"""
PUT_FINDINGS: Final = """
INSERT INTO finding AS f (
    kind, subject, detail, count, device_id, day, severity, state, rule_version, begins_at, ends_at, first_sample,
    last_sample, live, live_hits, live_at)
SELECT h.kind, $3, h.detail, h.count, $1, $2, h.severity, h.state, h.version, h.begins_at, h.ends_at, h.first_sample,
       h.last_sample, h.live_hits > 0, h.live_hits, h.live_at
FROM unnest($4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[], $9::int[], $10::timestamptz[],
            $11::timestamptz[], $12::jsonb[], $13::jsonb[], $14::bigint[], $15::timestamptz[])
    AS h (kind, detail, count, severity, state, version, begins_at, ends_at, first_sample, last_sample, live_hits,
          live_at)
ON CONFLICT (device_id, day, kind) WHERE device_id IS NOT NULL DO UPDATE SET
    detail = coalesce(nullif(EXCLUDED.detail, ''), f.detail), count = EXCLUDED.count, severity = EXCLUDED.severity,
    state = EXCLUDED.state, rule_version = EXCLUDED.rule_version, begins_at = EXCLUDED.begins_at,
    ends_at = EXCLUDED.ends_at,
    first_sample = CASE WHEN EXCLUDED.detail = '' THEN f.first_sample ELSE EXCLUDED.first_sample END,
    last_sample = CASE WHEN EXCLUDED.detail = '' THEN f.last_sample ELSE EXCLUDED.last_sample END,
    live = f.live OR EXCLUDED.live, live_hits = EXCLUDED.live_hits, live_at = EXCLUDED.live_at, last_at = now()
WHERE (f.detail, f.count, f.severity, f.state, f.rule_version, f.begins_at, f.ends_at, f.live OR EXCLUDED.live,
       f.live_hits, f.live_at)
    IS DISTINCT FROM (coalesce(nullif(EXCLUDED.detail, ''), f.detail), EXCLUDED.count, EXCLUDED.severity,
                      EXCLUDED.state, EXCLUDED.rule_version, EXCLUDED.begins_at, EXCLUDED.ends_at, f.live,
                      EXCLUDED.live_hits, EXCLUDED.live_at)
"""
WITHDRAW: Final = """
UPDATE finding SET state = 'withdrawn', last_at = now()
WHERE device_id = $1 AND day = $2 AND kind <> ALL($3::text[]) AND state IN ('detected', 'confirmed', 'cleared')
"""
CLEAR_EARLIER: Final = """
UPDATE finding SET state = 'cleared', last_at = now()
WHERE device_id = $1 AND day < $2 AND day >= $2 - 31 AND kind <> ALL($3::text[]) AND state = 'confirmed'
"""
PUT_SCORE: Final = """
INSERT INTO quality_score (
    device_id, day, signals, completeness_of, completeness_good, timeliness_of, timeliness_good, validity_of,
    validity_good, consistency_of, consistency_good, accuracy_of, accuracy_good, uniqueness_of, uniqueness_good,
    overall, hits, attributes, duplicate_to, connections_to, rules)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
ON CONFLICT (device_id, day) DO UPDATE SET
    signals = EXCLUDED.signals, completeness_of = EXCLUDED.completeness_of,
    completeness_good = EXCLUDED.completeness_good, timeliness_of = EXCLUDED.timeliness_of,
    timeliness_good = EXCLUDED.timeliness_good, validity_of = EXCLUDED.validity_of,
    validity_good = EXCLUDED.validity_good, consistency_of = EXCLUDED.consistency_of,
    consistency_good = EXCLUDED.consistency_good, accuracy_of = EXCLUDED.accuracy_of,
    accuracy_good = EXCLUDED.accuracy_good, uniqueness_of = EXCLUDED.uniqueness_of,
    uniqueness_good = EXCLUDED.uniqueness_good, overall = EXCLUDED.overall, hits = EXCLUDED.hits,
    attributes = EXCLUDED.attributes, duplicate_to = EXCLUDED.duplicate_to, connections_to = EXCLUDED.connections_to,
    rules = EXCLUDED.rules, judged_at = now()
"""
DROP_SCORE: Final = "DELETE FROM quality_score WHERE device_id = $1 AND day = $2"
LATER: Final = "UPDATE quality_todo SET since = now() WHERE device_id = $1 AND day = $2"
DONE: Final = "DELETE FROM quality_todo WHERE device_id = $1 AND day = $2 AND marker = $3"

# Hits of error types on the day before, for windows that reach back.
HITS_BEFORE: Final = """
SELECT error_code, message_date FROM error_trace
WHERE device_id = $1 AND wire_time >= $2::timestamptz - interval '2 days' AND wire_time < $2
  AND message_date >= $2::timestamptz - interval '1 day' AND message_date < $2
"""
ERROR_TYPES: Final = "SELECT code, description, hits_max, window_h, critical FROM error_type"


class FoundRow(msgspec.Struct, frozen=True):
    """A finding as it is to stand in the database."""

    kind: str
    detail: str
    count: int
    severity: str
    state: str
    version: int
    begins_at: datetime
    ends_at: datetime
    first_sample: JsonText
    last_sample: JsonText
    live_hits: int
    live_at: datetime | None


class JudgedDay(msgspec.Struct):
    """Everything that judging a day came to."""

    flags: Sequence[tuple[datetime, int, int]]  # wire_time, digest, flags of the rows that change
    findings: Sequence[FoundRow]
    signals: int
    shares: Sequence[int]  # looked at and good of the six dimensions, in the order of the columns
    overall: float | None
    hits: Mapping[str, int]
    attributes: Mapping[str, int]
    seen: Iterable[tuple[str, str]]  # protocol and attribute
    duplicate_to: int
    connections_to: int
    clears_earlier: bool  # enough good signals to say that what was wrong before is over


class Follower:
    """Notes the days that new signals speak of; every signal that is committed is seen exactly once."""

    def __init__(self) -> None:
        self._tail = SignalTail(statement=DAYS_BETWEEN, page_rows=limits.SWEEP_PAGE_ROWS)

    async def load(self, connection: Connection) -> None:
        """To where the last sweep came; the first one begins with everything that is stored."""
        found = await connection.fetchval(LOAD, NAME)
        position = (
            msgspec.json.decode(found, type=TailPosition) if found else TailPosition(EVERYTHING, None, (0, 0, 0, -1))
        )
        self._tail.go_to(position)

    async def follow(self, connection: Connection) -> int:
        """A page of new signals; how many. Their days and the place reached are noted together, or not at all."""
        async with connection.transaction():
            rows = await self._tail.next_page(connection)
            days: set[tuple[int, date]] = set()
            for row in rows:
                at = row["at"]
                days.add((row["device_id"], at.date()))
                days.add((row["device_id"], (at + NEXT_DAY_SHARE).date()))
            await add_days(connection, days)
            await connection.execute(NOTE, NAME, sql.json_text(msgspec.to_builtins(self._tail.position)))
        return len(rows)


async def add_days(connection: Connection, days: Iterable[tuple[int, date]]) -> None:
    """Have days judged."""
    values = sorted(days)
    if values:
        await connection.execute(ADD_DAYS, *zip(*values, strict=True))


async def add_judged_otherwise(connection: Connection, rules: int, count: int) -> None:
    """Have days judged again that were judged by other rules than these, unless that is done with."""
    noted = await connection.fetchval(LOAD, RULES_NAME)
    if noted is not None and msgspec.json.decode(noted) == rules:
        return
    days = await connection.fetch(JUDGED_OTHERWISE, rules, count)
    if days:
        await connection.execute(ADD_WAITING, [row["device_id"] for row in days], [row["day"] for row in days])
    else:
        await connection.execute(NOTE, RULES_NAME, sql.json_text(rules))


async def next_days(connection: Connection, *, settled_s: float, count: int) -> list[Row]:
    """Days to judge, with their devices."""
    return list(await connection.fetch(NEXT_DAYS, timedelta(seconds=settled_s), count))


async def write_day(connection: Connection, waiting: Row, judged: JudgedDay, rules: int, subject: str) -> bool:
    """Replace what is said of a day. False, and nothing done: something has come for the device meanwhile."""
    device_id, day = waiting["device_id"], waiting["day"]
    async with connection.transaction():
        await connection.execute(sql.LOCK_DEVICES, [device_id])
        same = await connection.fetchval(
            SAME_STATE, device_id, waiting["records"], waiting["quarantine_open"], day, waiting["marker"]
        )
        if not same:
            return False
        if judged.flags:
            await connection.execute(SET_FLAGS, device_id, *zip(*judged.flags, strict=True))
        kinds = [found.kind for found in judged.findings]
        if judged.findings:
            values = [msgspec.structs.astuple(found) for found in judged.findings]
            await connection.execute(PUT_FINDINGS, device_id, day, subject, *zip(*values, strict=True))
        await connection.execute(WITHDRAW, device_id, day, kinds)
        if judged.clears_earlier:
            await connection.execute(CLEAR_EARLIER, device_id, day, kinds)
        if judged.signals:
            await connection.execute(
                PUT_SCORE, device_id, day, judged.signals, *judged.shares, judged.overall, judged.hits,
                judged.attributes, judged.duplicate_to, judged.connections_to, rules,
            )  # fmt: skip
            seen = [(protocol, waiting["model"], attribute) for protocol, attribute in judged.seen]
            if seen:
                await connection.execute(ADD_ATTRIBUTES, *zip(*seen, strict=True), day)
        else:
            await connection.execute(DROP_SCORE, device_id, day)
        await connection.execute(DONE, device_id, day, waiting["marker"])
    return True


async def day_rows(connection: Connection, device_id: int, begins: datetime) -> list[Row]:
    """The signals of a day, in the order of arrival."""
    return list(await connection.fetch(DAY_ROWS, device_id, begins))


async def rows_before(connection: Connection, device_id: int, begins: datetime) -> list[Row]:
    """The last signals before a day, oldest first."""
    return list(reversed(await connection.fetch(BEFORE_DAY, device_id, begins)))


async def error_hits_before(connection: Connection, device_id: int, begins: datetime) -> list[tuple[int, float]]:
    """Error type and time of the hits on the day before."""
    rows = await connection.fetch(HITS_BEFORE, device_id, begins)
    return [(row["error_code"], row["message_date"].timestamp()) for row in rows]


async def attributes_before(
    connection: Connection, protocols: Sequence[str], model: str, day: date
) -> frozenset[str] | None:
    """Attributes that such signals had before a day; None: there were none, so nothing can be new."""
    rows = await connection.fetch(ATTRIBUTES_BEFORE, list(protocols), model, day)
    return frozenset(row["attribute"] for row in rows) or None
