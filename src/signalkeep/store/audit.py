"""What the audit asks the database. Every answer comes from one read-only snapshot (`snapshot`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

from signalkeep.store.partitions import Month, month_of
from signalkeep.store.postgres import Connection, Row

# Every journal with its cursors: how much of it the database says it has.
JOURNALS: Final = """
SELECT j.id, j.uuid, j.host, j.directory, j.lanes, j.durable_seq, j.kept_from_seq, j.removed_at,
       j.ended_at IS NOT NULL AS ended, min(c.seq) AS seq, max(c.seq) AS highest_seq,
       array_agg(c.seq ORDER BY c.lane) AS cursors,
       sum(c.frames)::bigint AS frames, sum(c.other_entries)::bigint AS other_entries, sum(c.lost)::bigint AS lost
FROM journal j JOIN cursor c ON c.journal_id = j.id GROUP BY j.id ORDER BY j.id
"""

# The ledger's sums.
TOTALS: Final = """
SELECT coalesce(sum(records), 0)::bigint AS records, coalesce(sum(stored), 0)::bigint AS stored,
       coalesce(sum(duplicate), 0)::bigint AS duplicate, coalesce(sum(quarantined), 0)::bigint AS quarantined,
       coalesce(sum(suppressed), 0)::bigint AS suppressed, coalesce(sum(released), 0)::bigint AS released,
       coalesce(sum(released_duplicate), 0)::bigint AS released_duplicate,
       coalesce(sum(discarded), 0)::bigint AS discarded, coalesce(sum(replaced), 0)::bigint AS replaced,
       coalesce(sum(erased), 0)::bigint AS erased, coalesce(sum(erased_quarantine), 0)::bigint AS erased_quarantine,
       coalesce(sum(expired), 0)::bigint AS expired
FROM ledger
"""

# Ledger lines whose own sum is off.
UNBALANCED: Final = """
SELECT l.journal_id, d.device_number, l.records, l.stored, l.duplicate, l.quarantined, l.suppressed
FROM ledger l JOIN device d ON d.id = l.device_id
WHERE l.records <> l.stored + l.duplicate + l.quarantined + l.suppressed
"""

# Ledger lines that do not agree with the signals that are really there, by provenance.
SIGNALS_OFF: Final = """
WITH there AS (
    SELECT journal_id, device_id, count(*) AS n, bit_xor(digest) AS key_xor FROM signal GROUP BY journal_id, device_id
)
SELECT journal_id, device_id, coalesce(d.device_number, 'number ' || device_id || ' (not registered)') AS device_number,
       d.erased_to, coalesce(l.stored + l.released - l.erased - l.expired, 0) AS expected, coalesce(t.n, 0) AS found
FROM ledger l FULL JOIN there t USING (journal_id, device_id) LEFT JOIN device d ON d.id = device_id
WHERE coalesce(l.stored + l.released - l.erased - l.expired, 0) <> coalesce(t.n, 0)
   OR coalesce(l.key_xor, 0) <> coalesce(t.key_xor, 0)
ORDER BY journal_id, device_id
"""

# Ledger lines that do not agree with the quarantine rows that are really there, by provenance.
QUARANTINE_OFF: Final = """
WITH there AS (
    SELECT journal_id, device_id, count(*) AS n, count(*) FILTER (WHERE state = 'open') AS open,
           count(*) FILTER (WHERE state = 'released') AS released,
           count(*) FILTER (WHERE state = 'discarded') AS discarded,
           count(*) FILTER (WHERE state = 'replaced') AS replaced
    FROM quarantine GROUP BY journal_id, device_id
), booked AS (
    SELECT journal_id, device_id, quarantined - erased_quarantine AS n,
           released + released_duplicate - erased_released AS released, discarded - erased_discarded AS discarded,
           replaced - erased_replaced AS replaced
    FROM ledger
)
SELECT journal_id, device_id, d.device_number, d.erased_to, coalesce(l.n, 0) AS expected, coalesce(t.n, 0) AS found,
       coalesce(l.released, 0) AS released_expected, coalesce(t.released, 0) AS released,
       coalesce(l.discarded, 0) AS discarded_expected, coalesce(t.discarded, 0) AS discarded,
       coalesce(l.replaced, 0) AS replaced_expected, coalesce(t.replaced, 0) AS replaced
FROM booked l FULL JOIN there t USING (journal_id, device_id) JOIN device d ON d.id = device_id
WHERE (coalesce(l.n, 0), coalesce(l.released, 0), coalesce(l.discarded, 0), coalesce(l.replaced, 0)) <>
      (coalesce(t.n, 0), coalesce(t.released, 0), coalesce(t.discarded, 0), coalesce(t.replaced, 0))
ORDER BY journal_id, device_id
"""

# Devices whose counters do not agree with the ledger.
COUNTERS_OFF: Final = """
WITH sums AS (
    SELECT device_id, sum(records) AS records, sum(stored) AS stored, sum(duplicate) AS duplicate,
           sum(quarantined) AS quarantined, sum(suppressed) AS suppressed,
           sum(quarantined - released - released_duplicate - discarded - replaced
               - (erased_quarantine - erased_released - erased_discarded - erased_replaced)) AS quarantine_open
    FROM ledger GROUP BY device_id
)
SELECT d.device_number, s.records, s.stored, s.duplicate, s.quarantined, s.suppressed, s.quarantine_open
FROM device_state s JOIN device d ON d.id = s.device_id LEFT JOIN sums l ON l.device_id = s.device_id
WHERE (s.records, s.stored, s.duplicate, s.quarantined, s.suppressed, s.quarantine_open) IS DISTINCT FROM
      (coalesce(l.records, 0), coalesce(l.stored, 0), coalesce(l.duplicate, 0), coalesce(l.quarantined, 0),
       coalesce(l.suppressed, 0), coalesce(l.quarantine_open, 0))
ORDER BY d.device_number
"""

# Records that stand in both tables at once.
IN_BOTH: Final = """
SELECT d.device_number, q.id, q.wire_time
FROM quarantine q JOIN signal s USING (device_id, wire_time, digest) JOIN device d ON d.id = device_id
WHERE q.state = 'open' ORDER BY q.id LIMIT 100
"""

# Devices of which something is there that was erased.
ERASED_THERE: Final = """
SELECT d.device_number, d.erased_to FROM device d
WHERE d.erased_at IS NOT NULL AND (
    EXISTS (SELECT FROM signal s WHERE s.device_id = d.id AND s.wire_time <= d.erased_to)
    OR EXISTS (SELECT FROM quarantine q WHERE q.device_id = d.id AND q.wire_time <= d.erased_to))
ORDER BY d.device_number
"""

# Rows of one journal and device, by key, for naming what is off.
KEYS_OF: Final = """
SELECT 'signal' AS place, wire_time, digest, seq, record_no FROM signal WHERE journal_id = $1 AND device_id = $2
UNION ALL
SELECT 'quarantine', wire_time, digest, seq, record_no FROM quarantine WHERE journal_id = $1 AND device_id = $2
"""

# Which of these keys of a device are anywhere.
KEYS_ANYWHERE: Final = """
SELECT k.wire_time, k.digest FROM unnest($2::timestamptz[], $3::bigint[]) AS k (wire_time, digest)
WHERE EXISTS (SELECT FROM signal s WHERE (s.device_id, s.wire_time, s.digest) = ($1, k.wire_time, k.digest))
   OR EXISTS (SELECT FROM quarantine q WHERE (q.device_id, q.wire_time, q.digest) = ($1, k.wire_time, k.digest))
"""

# Every stored row of these devices that was received from a moment on, as an oracle can know it.
STORED: Final = """
SELECT d.device_number, s.device_time, s.wire_time, s.latitude, s.longitude, s.speed_kmh, s.event_code
FROM signal s JOIN device d ON d.id = s.device_id WHERE d.device_number = ANY($1::text[]) AND s.received_at >= $2
"""

# Every open quarantine row of these devices, likewise.
WAITING: Final = """
SELECT d.device_number, q.wire_time
FROM quarantine q JOIN device d ON d.id = q.device_id
WHERE q.state = 'open' AND d.device_number = ANY($1::text[]) AND q.received_at >= $2
"""

# Months of signals that went because the retention was over.
EXPIRED_MONTHS: Final = "SELECT month FROM expired_month"

# Up to where these devices were erased.
FLOORS: Final = """
SELECT device_number, erased_to FROM device WHERE erased_to IS NOT NULL AND device_number = ANY($1::text[])
"""


@asynccontextmanager
async def snapshot(connection: Connection) -> AsyncIterator[None]:
    """Everything asked within sees the same moment. A month of signals that is to be dropped waits for the end: a
    dropped table is gone for earlier snapshots, too, so the lock comes before the snapshot."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute("LOCK TABLE ONLY signal IN ACCESS SHARE MODE")
        yield


async def ask(connection: Connection, statement: str, *parameters: Any) -> list[Row]:
    """The rows of one of the statements above. Whole tables are read: no time-out but the connection's end."""
    return list(await connection.fetch(statement, *parameters, timeout=AUDIT_QUERY_S_MAX))


async def expired_months(connection: Connection) -> set[Month]:
    """Months that went because the retention was over."""
    return {month_of(row["month"]) for row in await ask(connection, EXPIRED_MONTHS)}


async def keys_anywhere(
    connection: Connection, device_id: int, keys: Iterable[tuple[datetime, int]]
) -> set[tuple[datetime, int]]:
    """Which of these (wire_time, digest) of a device are stored or quarantined."""
    wanted = list(keys)
    rows = await ask(connection, KEYS_ANYWHERE, device_id, [key[0] for key in wanted], [key[1] for key in wanted])
    return {(row["wire_time"], row["digest"]) for row in rows}


AUDIT_QUERY_S_MAX: Final = 3600.0
