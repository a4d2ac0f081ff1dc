"""What people ask about quality: scores, findings, error types; and what they say of it: marks.

Whoever marks signals has their days judged again; nothing here touches a signal.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from signalkeep.errors import CallerError
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.registry import log_action
from signalkeep.store.sweep import add_days

DIMENSIONS: Final = ("completeness", "timeliness", "validity", "consistency", "accuracy", "uniqueness")
_SUMS: Final = ", ".join(
    f"sum(q.{name}_of)::bigint AS {name}_of, sum(q.{name}_good)::bigint AS {name}_good" for name in DIMENSIONS
)
_OVERALL: Final = (
    f"signalkeep_overall(ARRAY[{', '.join(f'sum(q.{name}_of)' for name in DIMENSIONS)}]::bigint[],"
    f" ARRAY[{', '.join(f'sum(q.{name}_good)' for name in DIMENSIONS)}]::bigint[]) AS overall"
)

# Scores of devices over days, the worst first; and the rule that hit most.
OF_DEVICES: Final = f"""
SELECT d.device_number AS name, d.model, sum(q.signals)::bigint AS signals, {_SUMS}, {_OVERALL}, worst.rule, worst.hits
FROM quality_score q JOIN device d ON d.id = q.device_id
LEFT JOIN LATERAL (
    SELECT h.key AS rule, sum(h.value::bigint)::bigint AS hits FROM quality_score p, jsonb_each_text(p.hits) h
    LEFT JOIN rule r ON r.id = h.key
    WHERE p.device_id = d.id AND p.day BETWEEN $1 AND $2 AND r.severity IS DISTINCT FROM 'info'
    GROUP BY h.key ORDER BY 2 DESC, 1 LIMIT 1) worst ON true
WHERE q.day BETWEEN $1 AND $2 AND ($3::text IS NULL OR d.device_number = $3)
GROUP BY d.id, d.device_number, d.model, worst.rule, worst.hits
ORDER BY overall NULLS LAST, d.device_number LIMIT $4
"""  # noqa: S608 - constant columns

# The same of models, vehicles, customers, or of each day.
_GROUPED: Final = {
    "model": ("quality_score q JOIN device d ON d.id = q.device_id", "coalesce(nullif(d.model, ''), '(not known)')"),
    "vehicle": ("quality_vehicle q", "q.vehicle_name"),
    "customer": ("quality_customer q", "q.customer_name"),
    "day": ("quality_score q JOIN device d ON d.id = q.device_id", "q.day::text"),
}
BY: Final = ("device", *_GROUPED)
_GROUPS: Final = """
SELECT {name} AS name, sum(q.signals)::bigint AS signals, {sums}, {overall} FROM {source}
WHERE q.day BETWEEN $1 AND $2 AND ($3::text IS NULL OR {only} = $3) GROUP BY 1 ORDER BY {order} LIMIT $4
"""

# Findings of devices, the latest first.
FINDINGS: Final = """
SELECT f.id, f.kind AS rule, d.device_number, f.day, f.count, f.severity, f.state, f.begins_at, f.ends_at, f.live,
       f.detail,
       coalesce(r.title, CASE WHEN f.kind LIKE 'ERR-%' THEN 'Limit of errors reached' ELSE '' END) AS title,
       f.rule_version, f.first_sample, f.last_sample, f.first_at, f.last_at
FROM finding f JOIN device d ON d.id = f.device_id LEFT JOIN rule r ON r.id = f.kind
WHERE ($1::text IS NULL OR d.device_number = $1) AND ($2::text IS NULL OR f.kind = $2)
  AND ($3::date IS NULL OR f.day >= $3) AND ($4::bigint IS NULL OR f.id = $4)
  AND ($5 OR f.state IN ('detected', 'confirmed'))
ORDER BY f.day DESC, CASE f.severity WHEN 'error' THEN 0 WHEN 'warning' THEN 1 ELSE 2 END, f.last_at DESC, f.id DESC
LIMIT $6
"""

# Rules and error types, whose findings are called ERR-1, ERR-2, ...
KNOWS_RULE: Final = """
SELECT EXISTS (SELECT FROM rule WHERE id = $1) OR EXISTS (SELECT FROM error_type WHERE 'ERR-' || code = $1)
"""
ADD_MARK: Final = """
INSERT INTO quality_mark (device_id, begins_at, ends_at, rule, verdict, note, marked_by)
VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id
"""
TAKE_BACK: Final = """
UPDATE quality_mark SET taken_back_at = now() WHERE id = $1 AND taken_back_at IS NULL
RETURNING device_id, begins_at, ends_at, rule, verdict
"""
MARKS: Final = """
SELECT m.id, d.device_number, m.begins_at, m.ends_at, m.verdict, coalesce(m.rule, '') AS rule, m.note, m.marked_by,
       m.marked_at, m.taken_back_at
FROM quality_mark m JOIN device d ON d.id = m.device_id
WHERE $1::text IS NULL OR d.device_number = $1 ORDER BY m.id DESC LIMIT $2
"""
MARK_DAYS_MAX: Final = 400
MARK_YEARS: Final = (1970, 2099)

ERROR_TYPES: Final = """
SELECT t.code, t.description, t.hits_max, t.window_h, t.critical,
       coalesce((SELECT string_agg(r.id, ', ' ORDER BY r.id) FROM rule r WHERE r.error_code = t.code), '') AS rules
FROM error_type t ORDER BY t.code
"""
PUT_ERROR_TYPE: Final = """
INSERT INTO error_type (code, description, hits_max, window_h, critical) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (code) DO UPDATE SET
    description = EXCLUDED.description, hits_max = EXCLUDED.hits_max, window_h = EXCLUDED.window_h,
    critical = EXCLUDED.critical
"""

# Days with hits that count for an error type.
JUDGE_AGAIN: Final = """
INSERT INTO quality_todo AS t (device_id, day)
SELECT q.device_id, q.day FROM quality_score q
WHERE EXISTS (SELECT FROM rule r WHERE r.error_code = $1 AND q.hits ? r.id)
ON CONFLICT (device_id, day) DO UPDATE SET marker = t.marker + 1
"""

# The history of errors, latest first; a range of wire_time a day wider keeps other months unread.
TRACES: Final = """
SELECT device_number, error_code, message_date, description, rule FROM error_trace
WHERE ($1::text IS NULL OR device_number = $1) AND ($2::int IS NULL OR error_code = $2)
  AND message_date >= $3 AND wire_time >= $3::timestamptz - interval '1 day'
ORDER BY message_date DESC, rule LIMIT $4
"""


async def scores(
    connection: Connection, *, by: str, only: str | None, begins: date, ends: date, limit: int
) -> list[Row]:
    """Sums and scores of [begins, ends], of devices, models, vehicles, customers, or of each day."""
    if by == "device":
        return list(await connection.fetch(OF_DEVICES, begins, ends, only, limit))
    source, name = _GROUPED[by]
    statement = _GROUPS.format(
        name=name, sums=_SUMS, overall=_OVERALL, source=source, only="d.device_number" if by == "day" else name,
        order="1 DESC" if by == "day" else "overall NULLS LAST, 1",
    )  # fmt: skip
    return list(await connection.fetch(statement, begins, ends, only, limit))


async def findings(
    connection: Connection, *, device: str | None = None, rule: str | None = None, since: date | None = None,
    finding_id: int | None = None, over_too: bool = False, limit: int = 1,
) -> list[Row]:  # fmt: skip
    """Findings of devices; those that are over (cleared, withdrawn, dismissed) only if asked for."""
    return list(await connection.fetch(FINDINGS, device, rule, since, finding_id, over_too, limit))


async def mark(
    connection: Connection, device_number: str, begins: datetime, ends: datetime, *, rule: str | None, verdict: str,
    note: str, actor: str,
) -> int:  # fmt: skip
    """Say that signals are good, or bad; returns the mark's number. The days are judged again by the next sweep.

    Raises CallerError for times that make no sense, and for a device or a rule that this database has never met.
    """
    begins, ends = begins.astimezone(UTC), ends.astimezone(UTC)
    if begins > ends:
        raise CallerError(f"{begins} is later than {ends}", hint="A mark holds from the first time to the second.")
    if not (MARK_YEARS[0] <= begins.year and ends.year <= MARK_YEARS[1]):
        raise CallerError(
            f"a mark speaks of a time from {MARK_YEARS[0]} to {MARK_YEARS[1]}", hint="Look at the years that you gave."
        )
    if ends - begins > timedelta(days=MARK_DAYS_MAX):
        raise CallerError(f"one mark speaks of at most {MARK_DAYS_MAX} days", hint="Give several.")
    device_id = await connection.fetchval("SELECT id FROM device WHERE device_number = $1", device_number)
    if device_id is None:
        raise CallerError(
            f"nobody has registered or heard of device {device_number}", hint="`signalkeep devices list` shows all."
        )
    if rule is not None and not await connection.fetchval(KNOWS_RULE, rule):
        raise CallerError(f"there is no rule {rule}", hint="`signalkeep rules list` shows them all.")
    async with connection.transaction():
        number: int = await connection.fetchval(ADD_MARK, device_id, begins, ends, rule, verdict, note, actor)
        await _judge_again(connection, device_id, begins, ends)
        said: dict[str, Any] = {"mark": number, "from": begins, "to": ends, "rule": rule, "verdict": verdict}
        await log_action(connection, actor, "quality.mark", device_number, said)
    return number


async def take_back(connection: Connection, number: int, *, actor: str) -> None:
    """A mark no longer holds. Raises CallerError if there is none."""
    async with connection.transaction():
        row = await connection.fetchrow(TAKE_BACK, number)
        if row is None:
            raise CallerError(f"there is no mark {number} that holds", hint="`signalkeep findings marks` shows all.")
        await _judge_again(connection, row["device_id"], row["begins_at"], row["ends_at"])
        await log_action(connection, actor, "quality.unmark", str(number), {})


async def _judge_again(connection: Connection, device_id: int, begins: datetime, ends: datetime) -> None:
    days = {(device_id, begins.date() + timedelta(days=n)) for n in range((ends.date() - begins.date()).days + 1)}
    await add_days(connection, days)


async def marks(connection: Connection, device: str | None, limit: int) -> list[Row]:
    """What people have said, latest first."""
    return list(await connection.fetch(MARKS, device, limit))


async def error_types(connection: Connection) -> list[Row]:
    """Error types with the rules whose hits count for them."""
    return list(await connection.fetch(ERROR_TYPES))


async def put_error_type(
    connection: Connection, code: int, description: str, *, hits_max: int, window_h: int, critical: bool, actor: str
) -> None:
    """Add an error type, or change it; the next sweep counts by it, also on days that were judged before."""
    async with connection.transaction():
        await connection.execute(PUT_ERROR_TYPE, code, description, hits_max, window_h, critical)
        await connection.execute(JUDGE_AGAIN, code)
        said = {"description": description, "hits_max": hits_max, "window_h": window_h, "critical": critical}
        await log_action(connection, actor, "error_type.set", str(code), said)


async def traces(
    connection: Connection, *, device: str | None, code: int | None, since: datetime, limit: int
) -> list[Row]:
    """The history of errors, latest first."""
    return list(await connection.fetch(TRACES, device, code, since, limit))
