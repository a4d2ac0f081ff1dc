"""The statements of the write path, each with a name and a sentence.

Nothing here runs anything: `store.writer`, `store.signals`, `store.state` and `store.release` do, each within the
caller's transaction.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

# Moves the cursors that still stand where the batch's ranges begin; a lane without a row here does not.
MOVE_CURSORS: Final = """
UPDATE cursor c
SET seq = m.last_seq, frames = c.frames + m.frames, other_entries = c.other_entries + m.other_entries,
    lost = c.lost + m.lost, moved_at = now()
FROM unnest($2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
    AS m (lane, after_seq, last_seq, frames, other_entries, lost)
WHERE c.journal_id = $1 AND c.lane = m.lane AND c.seq = m.after_seq
RETURNING c.lane
"""

# Locks the devices of a batch, always in the same order, so that two writers cannot wait for each other.
LOCK_DEVICES: Final = """
SELECT device_id, quarantined, stored_to FROM device_state
WHERE device_id = ANY($1::int[]) ORDER BY device_id FOR UPDATE
"""

# The registry's present revision of each device; a statement of its own, so that it sees what the lock waited for.
DEVICE_REVISIONS: Final = "SELECT id, revision FROM device WHERE id = ANY($1::int[])"

# Which of these keys stand in quarantine, in whatever state.
FIND_IN_QUARANTINE: Final = """
SELECT q.id, q.device_id, q.wire_time, q.digest, q.state, q.journal_id, q.seq, q.record_no, q.received_at
FROM quarantine q
JOIN unnest($1::int[], $2::timestamptz[], $3::bigint[]) AS k (device_id, wire_time, digest)
    USING (device_id, wire_time, digest)
"""

# Which of these keys are known at all.
FIND_KEYS: Final = """
SELECT k.device_id, k.wire_time, k.digest
FROM unnest($1::int[], $2::timestamptz[], $3::bigint[]) AS k (device_id, wire_time, digest)
WHERE EXISTS (SELECT FROM signal s WHERE (s.device_id, s.wire_time, s.digest) = (k.device_id, k.wire_time, k.digest))
   OR EXISTS (
       SELECT FROM quarantine q WHERE (q.device_id, q.wire_time, q.digest) = (k.device_id, k.wire_time, k.digest))
"""

# Stores what is new and says, for each device, how many rows, the exclusive or of their digests, and the marked ones.
INSERT_SIGNALS: Final = """
WITH stored AS (
    INSERT INTO signal (
        device_id, wire_time, digest, device_time, received_at, fix_valid, latitude, longitude, altitude_m, speed_kmh,
        course_deg, satellites, event_code, attributes, flags, protocol, journal_id, seq, record_no)
    SELECT
        device_id, wire_time, digest, device_time, received_at, fix_valid, latitude, longitude, altitude_m, speed_kmh,
        course_deg, satellites, event_code, attributes, flags, protocol, journal_id, seq, record_no
    FROM unnest(
        $1::int[], $2::timestamptz[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::boolean[], $7::float8[],
        $8::float8[], $9::real[], $10::real[], $11::real[], $12::smallint[], $13::text[], $14::jsonb[], $15::bigint[],
        $16::text[], $17::int[], $18::bigint[], $19::smallint[])
        AS r (device_id, wire_time, digest, device_time, received_at, fix_valid, latitude, longitude, altitude_m,
              speed_kmh, course_deg, satellites, event_code, attributes, flags, protocol, journal_id, seq, record_no)
    ON CONFLICT DO NOTHING
    RETURNING device_id, journal_id, digest, flags
)
SELECT device_id, journal_id, count(*) AS stored, bit_xor(digest) AS key_xor,
       array_agg(digest) FILTER (WHERE flags > 255) AS marked
FROM stored GROUP BY device_id, journal_id
"""

# Keeps the whole frame of records that go to quarantine.
KEEP_FRAMES: Final = """
INSERT INTO quarantine_frame (journal_id, seq, device_id, received_at, protocol, peer, context, raw)
SELECT $1, seq, device_id, received_at, protocol, peer, context::jsonb, raw
FROM unnest($2::bigint[], $3::int[], $4::timestamptz[], $5::text[], $6::text[], $7::text[], $8::bytea[])
    AS f (seq, device_id, received_at, protocol, peer, context, raw)
ON CONFLICT (journal_id, seq) DO UPDATE SET raw = EXCLUDED.raw
RETURNING seq, id
"""

# Quarantines records; the caller has made sure that their keys are new.
INSERT_QUARANTINE: Final = """
INSERT INTO quarantine (
    journal_id, tried_under, frame_id, seq, device_id, received_at, tried_revision, record_no, wire_time, digest,
    reason, detail, raw)
SELECT $1, $2, q.* FROM unnest(
    $3::bigint[], $4::bigint[], $5::int[], $6::timestamptz[], $7::int[], $8::smallint[], $9::timestamptz[],
    $10::bigint[], $11::text[], $12::text[], $13::bytea[]) AS q
"""

# Adds a batch's counts to the ledger lines of its journal.
ADD_TO_LEDGER: Final = """
INSERT INTO ledger AS l (journal_id, device_id, records, stored, duplicate, quarantined, suppressed, key_xor)
SELECT $1, c.*
FROM unnest($2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[]) AS c
ON CONFLICT (journal_id, device_id) DO UPDATE SET
    records = l.records + EXCLUDED.records, stored = l.stored + EXCLUDED.stored,
    duplicate = l.duplicate + EXCLUDED.duplicate, quarantined = l.quarantined + EXCLUDED.quarantined,
    suppressed = l.suppressed + EXCLUDED.suppressed, key_xor = l.key_xor # EXCLUDED.key_xor
"""

# Moves last contact and the mark of what is stored forward, and adds the counters.
ADD_TO_DEVICE_STATE: Final = """
UPDATE device_state s SET
    frames = s.frames + c.frames, records = s.records + c.records, stored = s.stored + c.stored,
    duplicate = s.duplicate + c.duplicate, quarantined = s.quarantined + c.quarantined,
    quarantine_open = s.quarantine_open + c.quarantined, suppressed = s.suppressed + c.suppressed,
    last_protocol = CASE WHEN c.received_at >= s.last_received_at IS NOT FALSE THEN c.protocol ELSE s.last_protocol END,
    last_peer = CASE WHEN c.received_at >= s.last_received_at IS NOT FALSE THEN c.peer ELSE s.last_peer END,
    last_received_at = greatest(s.last_received_at, c.received_at), stored_to = greatest(s.stored_to, c.stored_to)
FROM unnest(
    $1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::timestamptz[],
    $9::text[], $10::text[], $11::timestamptz[])
    AS c (device_id, frames, records, stored, duplicate, quarantined, suppressed, received_at, protocol, peer,
          stored_to)
WHERE s.device_id = c.device_id
"""

# Moves the latest good position forward, never back.
MOVE_POSITION: Final = """
UPDATE device_state s SET
    device_time = p.device_time, latitude = p.latitude, longitude = p.longitude, altitude_m = p.altitude_m,
    speed_kmh = p.speed_kmh, course_deg = p.course_deg
FROM unnest($1::int[], $2::timestamptz[], $3::float8[], $4::float8[], $5::real[], $6::real[], $7::real[])
    AS p (device_id, device_time, latitude, longitude, altitude_m, speed_kmh, course_deg)
WHERE s.device_id = p.device_id AND (p.device_time > s.device_time) IS NOT FALSE
"""

# Moves the mark of what is stored forward, for records that left quarantine.
MOVE_MARK: Final = """
UPDATE device_state s SET stored_to = greatest(s.stored_to, m.stored_to)
FROM unnest($1::int[], $2::timestamptz[]) AS m (device_id, stored_to) WHERE s.device_id = m.device_id
"""

# Our numbers of those of these devices that have a row.
KNOWN_DEVICES: Final = "SELECT id, device_number FROM device WHERE device_number = ANY($1::text[])"

# Counts connections and notes the latest on which a device identified itself.
NOTE_CONNECTED: Final = """
UPDATE device_state s SET
    connections = s.connections + c.connections,
    connected_peer = CASE WHEN c.at >= s.connected_at IS NOT FALSE THEN c.peer ELSE s.connected_peer END,
    connected_journal_id = CASE WHEN c.at >= s.connected_at IS NOT FALSE THEN $5 ELSE s.connected_journal_id END,
    connected_at = greatest(s.connected_at, c.at)
FROM unnest($1::int[], $2::bigint[], $3::timestamptz[], $4::text[]) AS c (device_id, connections, at, peer)
WHERE s.device_id = c.device_id
"""

# Notes that a device's latest connection was closed; the end of an earlier one says nothing about the latest.
NOTE_CLOSED: Final = """
UPDATE device_state s SET disconnected_at = greatest(s.disconnected_at, c.at)
FROM unnest($1::int[], $2::timestamptz[], $3::text[]) AS c (device_id, at, peer)
WHERE s.device_id = c.device_id AND s.connected_peer = c.peer AND s.connected_at <= c.at
"""

# Adds a tally's counts.
ADD_REFUSALS: Final = """
INSERT INTO refusal AS r (journal_id, reason, count, last_at)
SELECT $1, t.reason, t.count, now() FROM unnest($2::text[], $3::bigint[]) AS t (reason, count)
ON CONFLICT (journal_id, reason) DO UPDATE SET count = r.count + EXCLUDED.count, last_at = EXCLUDED.last_at
"""

# Notes a finding; the same one again only counts.
ADD_FINDING: Final = """
INSERT INTO finding AS f (kind, subject, detail) VALUES ($1, $2, $3)
ON CONFLICT (kind, subject) WHERE device_id IS NULL
DO UPDATE SET detail = EXCLUDED.detail, count = f.count + 1, last_at = now()
"""


_encoder = msgspec.json.Encoder()


def json_text(value: Any) -> str:
    """JSON as text, to be cast in the statement: cheaper than a codec for arrays of jsonb."""
    return _encoder.encode(value).decode()
