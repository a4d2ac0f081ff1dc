"""What the database knows of rules: their bits, what is remembered of devices, what hits become at ingest.

A device's memory is not kept anywhere: it is what its last few signals make of it, so that a crash, another process or
a restored database can never leave one that fits no rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from signalkeep import limits
from signalkeep.rulebook import Rulebook
from signalkeep.rules.contract import OWN_FIRST_BIT
from signalkeep.rules.judge import Hit
from signalkeep.rules.reading import Reading
from signalkeep.store.postgres import Connection, JsonText, Row
from signalkeep.store.rows import FrameRows, SignalRow

# Rules that the database has not met, or knows otherwise; one that was added takes the next free bit.
KNOWN: Final = "SELECT id, bit FROM rule"
PUT: Final = """
INSERT INTO rule (id, bit, version, title, dimension, severity, error_code)
SELECT r.id, r.bit, r.version, r.title, r.dimension, r.severity, t.code
FROM unnest($1::text[], $2::smallint[], $3::int[], $4::text[], $5::text[], $6::text[], $7::int[])
    AS r (id, bit, version, title, dimension, severity, error_code)
LEFT JOIN error_type t ON t.code = r.error_code
ON CONFLICT (id) DO UPDATE SET
    version = EXCLUDED.version, title = EXCLUDED.title, dimension = EXCLUDED.dimension, severity = EXCLUDED.severity,
    error_code = EXCLUDED.error_code
WHERE (rule.version, rule.title, rule.dimension, rule.severity, rule.error_code)
    IS DISTINCT FROM (EXCLUDED.version, EXCLUDED.title, EXCLUDED.dimension, EXCLUDED.severity, EXCLUDED.error_code)
"""
LOCK: Final = "SELECT pg_advisory_xact_lock($1)"
_LOCK: Final = 0x73_6B_72_6C  # one process at a time gives out bits

# The event codes that have a name, and the protocols that have any.
EVENT_CODES: Final = "SELECT protocol, code FROM event_format"

SIGNAL_COLUMNS: Final = """
    s.wire_time, s.digest, s.device_time, s.received_at, s.fix_valid, s.latitude, s.longitude, s.altitude_m,
    s.speed_kmh, s.course_deg, s.satellites, s.event_code, s.attributes, s.flags, s.protocol, s.journal_id, s.seq,
    s.record_no
"""

# The last signals of devices, and whose vehicle each is in now. Not far back from the last one: what is older says
# nothing of it.
LAST_SIGNALS: Final = f"""
SELECT d.device_id, c.name AS customer, s.* FROM unnest($1::int[]) AS d (device_id)
JOIN device_state t ON t.device_id = d.device_id
LEFT JOIN assignment a ON a.device_id = d.device_id
    AND (a.begins_at IS NULL OR a.begins_at <= now()) AND (a.ends_at IS NULL OR now() < a.ends_at)
LEFT JOIN vehicle v ON v.id = a.vehicle_id
LEFT JOIN customer c ON c.id = v.customer_id
LEFT JOIN LATERAL (
    SELECT {SIGNAL_COLUMNS} FROM signal s
    WHERE s.device_id = d.device_id AND s.wire_time > t.stored_to - interval '35 days' AND s.wire_time <= t.stored_to
    ORDER BY s.wire_time DESC LIMIT {limits.RECENT_ROWS}
) s ON true
ORDER BY d.device_id, s.wire_time
"""  # noqa: S608 - constant columns and numbers

# Adds what rules found in signals that have just been stored; one row for each device, rule and day.
ADD_FINDINGS: Final = """
INSERT INTO finding AS f (
    kind, subject, detail, count, device_id, day, severity, state, rule_version, begins_at, ends_at, first_sample,
    last_sample, live, live_hits, live_at)
SELECT h.kind, h.subject, h.detail, h.count, h.device_id, h.day, h.severity, 'detected', h.version, h.begins_at,
       h.ends_at, h.first_sample, h.last_sample, h.live_hits > 0, h.live_hits, h.live_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::int[], $6::date[], $7::text[], $8::int[],
            $9::timestamptz[], $10::timestamptz[], $11::jsonb[], $12::jsonb[], $13::bigint[], $14::timestamptz[])
    AS h (kind, subject, detail, count, device_id, day, severity, version, begins_at, ends_at, first_sample,
          last_sample, live_hits, live_at)
ON CONFLICT (device_id, day, kind) WHERE device_id IS NOT NULL DO UPDATE SET
    count = f.count + EXCLUDED.count, last_at = now(), rule_version = EXCLUDED.rule_version,
    state = CASE WHEN f.state = 'dismissed' THEN f.state ELSE 'detected' END,
    detail = CASE WHEN EXCLUDED.ends_at >= f.ends_at THEN EXCLUDED.detail ELSE f.detail END,
    last_sample = CASE WHEN EXCLUDED.ends_at >= f.ends_at THEN EXCLUDED.last_sample ELSE f.last_sample END,
    first_sample = CASE WHEN EXCLUDED.begins_at < f.begins_at THEN EXCLUDED.first_sample ELSE f.first_sample END,
    begins_at = least(f.begins_at, EXCLUDED.begins_at), ends_at = greatest(f.ends_at, EXCLUDED.ends_at),
    live = f.live OR EXCLUDED.live, live_hits = f.live_hits + EXCLUDED.live_hits,
    live_at = greatest(f.live_at, EXCLUDED.live_at)
"""


async def ensure_rules(connection: Connection, book: Rulebook) -> None:
    """Make the database know our rules, and the rulebook the bits that it has for those that were added."""
    async with connection.transaction():
        await connection.execute(LOCK, _LOCK)
        known = {row["id"]: row["bit"] for row in await connection.fetch(KNOWN)}
        added = book.own
        free = iter(sorted(set(range(OWN_FIRST_BIT, 63)) - set(known.values())))
        bits = {rule.id: known[rule.id] if rule.id in known else next(free, None) for rule in added}
        book.with_bits({rule_id: bit for rule_id, bit in bits.items() if bit is not None})
        rows = [
            (rule.id, rule.bit, rule.version, rule.title, str(rule.dimension), str(rule.severity), rule.error_type)
            for rule in book.rules
        ]
        await connection.execute(PUT, *zip(*rows, strict=True))


async def event_codes(connection: Connection) -> frozenset[tuple[str, str]]:
    """(protocol, code) of every event that has a name."""
    return frozenset((row["protocol"], row["code"]) for row in await connection.fetch(EVENT_CODES))


async def last_signals(connection: Connection, device_ids: Sequence[int]) -> dict[int, tuple[str, list[Reading]]]:
    """Customer ('' for none) and last signals of each device, oldest first."""
    found: dict[int, tuple[str, list[Reading]]] = {}
    for row in await connection.fetch(LAST_SIGNALS, list(device_ids)):
        _, readings = found.setdefault(row["device_id"], (row["customer"] or "", []))
        if row["wire_time"] is not None:
            readings.append(reading_of(row))
    return found


def reading_of(row: Row) -> Reading:
    """From a row with SIGNAL_COLUMNS."""
    device_time = row["device_time"]
    return Reading(
        time_s=None if device_time is None else device_time.timestamp(),
        received_s=row["received_at"].timestamp(),
        wire_s=row["wire_time"].timestamp(),
        fix_valid=row["fix_valid"],
        latitude=row["latitude"],
        longitude=row["longitude"],
        altitude_m=row["altitude_m"],
        speed_kmh=row["speed_kmh"],
        course_deg=row["course_deg"],
        satellites=row["satellites"],
        event_code=row["event_code"],
        attributes=row["attributes"],
        protocol=row["protocol"],
    )


class Tally:
    """What a rule found on one day of a device."""

    __slots__ = ("begins_s", "count", "ends_s", "first", "last", "live_hits", "live_s")

    def __init__(self) -> None:
        self.count = 0
        self.live_hits = 0
        self.live_s: float | None = None  # the latest of these
        self.begins_s = float("inf")
        self.ends_s = float("-inf")
        self.first: tuple[Hit, Any] | None = None
        self.last: tuple[Hit, Any] | None = None

    def add(self, hit: Hit, signal: Any) -> None:
        """`signal`: whatever a sample is made of later."""
        self.count += 1
        if hit.live:
            self.live_hits += 1
            self.live_s = hit.at_s if self.live_s is None else max(self.live_s, hit.at_s)
        self.begins_s = min(self.begins_s, hit.since_s)
        if self.first is None or hit.at_s < self.first[0].at_s:
            self.first = (hit, signal)
        if self.last is None or hit.at_s >= self.last[0].at_s:
            self.last, self.ends_s = (hit, signal), hit.at_s

    @property
    def live_at(self) -> datetime | None:
        return None if self.live_s is None else moment(self.live_s)


def moment(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)


async def add_findings(connection: Connection, journal_id: int, stored: Iterable[tuple[FrameRows, SignalRow]]) -> None:
    """Count the hits of signals that were stored. In the caller's transaction, under the devices' locks."""
    tallies: dict[tuple[int, int, str], Tally] = {}
    numbers: dict[int, str] = {}
    for rows, row in stored:
        numbers[rows.device.id] = rows.device.device_number
        for hit in row.hits:
            key = (rows.device.id, int(hit.at_s // 86_400), hit.rule.id)
            tallies.setdefault(key, Tally()).add(hit, (rows, row))
    values = []
    for (device_id, day, rule_id), tally in sorted(tallies.items(), key=lambda item: item[0]):
        assert tally.first is not None
        assert tally.last is not None
        hit = tally.last[0]
        values.append((
            rule_id, finding_subject(numbers[device_id], day), hit.detail, tally.count, device_id,
            moment(day * 86_400).date(), str(hit.rule.severity), hit.rule.version, moment(tally.begins_s),
            moment(tally.ends_s), _sample(*tally.first, journal_id), _sample(*tally.last, journal_id),
            tally.live_hits, tally.live_at,
        ))  # fmt: skip
    if values:
        await connection.execute(ADD_FINDINGS, *zip(*values, strict=True))


def finding_subject(device_number: str, day: int) -> str:
    """What a finding of a device is about, for people. `day`: days since 1970."""
    return f"device {device_number} on {moment(day * 86_400):%Y-%m-%d}"


def _sample(hit: Hit, signal: tuple[FrameRows, SignalRow], journal_id: int) -> JsonText:
    rows, row = signal
    return JsonText(
        msgspec.json.encode({
            "detail": hit.detail, "device_time": row.device_time, "received_at": rows.received_at,
            "latitude": row.signal.latitude, "longitude": row.signal.longitude, "speed_kmh": row.signal.speed_kmh,
            "journal_id": journal_id, "seq": rows.seq, "record_no": row.record_no,
        })
    )  # fmt: skip
