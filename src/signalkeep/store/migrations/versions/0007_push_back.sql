-- Push-back: what is in quarantine for a reason that may pass is tried again by itself, less and less often; and what
-- journals still hold can be replayed.

ALTER TABLE quarantine
    ADD COLUMN tried_at timestamptz,
    ADD COLUMN tried_under text NOT NULL DEFAULT '',
    ADD COLUMN tried_revision integer NOT NULL DEFAULT 0,
    ADD COLUMN trying_since timestamptz;
COMMENT ON COLUMN quarantine.attempts IS 'releases tried, by people and by itself';
COMMENT ON COLUMN quarantine.tried_at IS 'when it was last judged again in vain (UTC)';
COMMENT ON COLUMN quarantine.tried_under IS 'version of signalkeep that last judged it in vain; empty: older than this column';
COMMENT ON COLUMN quarantine.tried_revision IS 'device.revision under which it was last judged in vain; 0: older than this column';
COMMENT ON COLUMN quarantine.trying_since IS 'when a try was begun that has not ended (UTC): it may have ended its process, and is tried alone from then on';

-- What push-back looks for, each time it runs, without reading what waits for a person.
CREATE INDEX quarantine_revision ON quarantine (device_id, tried_revision) WHERE state = 'open';
CREATE INDEX quarantine_version ON quarantine (tried_under) WHERE state = 'open' AND reason IN (
    'bad_format', 'bad_value', 'count_mismatch', 'unsupported', 'decoder_error', 'database_rejected');
CREATE INDEX quarantine_again ON quarantine (id) WHERE state = 'open' AND reason IN (
    'decoder_error', 'database_rejected');
CREATE INDEX quarantine_begun ON quarantine (id) WHERE state = 'open' AND trying_since IS NOT NULL;

CREATE TABLE replay (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    state           text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done')),
    since           timestamptz NOT NULL,
    until           timestamptz NOT NULL,
    device_number   text,
    journal         uuid,
    version         text NOT NULL,
    begun_by        text NOT NULL,
    begun_at        timestamptz NOT NULL DEFAULT now(),
    moved_at        timestamptz NOT NULL DEFAULT now(),
    ended_at        timestamptz,
    frames          bigint NOT NULL DEFAULT 0,
    records         bigint NOT NULL DEFAULT 0,
    same            bigint NOT NULL DEFAULT 0,
    changed         bigint NOT NULL DEFAULT 0,
    duplicate       bigint NOT NULL DEFAULT 0,
    restored        bigint NOT NULL DEFAULT 0,
    added           bigint NOT NULL DEFAULT 0,
    quarantined     bigint NOT NULL DEFAULT 0,
    suppressed      bigint NOT NULL DEFAULT 0,
    refused         bigint NOT NULL DEFAULT 0,
    released        bigint NOT NULL DEFAULT 0,
    replaced        bigint NOT NULL DEFAULT 0,
    CHECK (since < until),
    CHECK ((state = 'done') = (ended_at IS NOT NULL)),
    CHECK (records = same + changed + duplicate + restored + added + quarantined + suppressed + refused)
);
COMMENT ON TABLE replay IS 'Deliberate replays of what journals hold: who, when, what came of it. records = same + changed + duplicate + restored + added + quarantined + suppressed + refused.';
COMMENT ON COLUMN replay.id IS 'our number for the replay';
COMMENT ON COLUMN replay.state IS 'running: begun and not ended; if moved_at stands still it was cut off, and can be resumed; done';
COMMENT ON COLUMN replay.since IS 'frames received at or after this moment (UTC)';
COMMENT ON COLUMN replay.until IS 'and before this one (UTC)';
COMMENT ON COLUMN replay.device_number IS 'only of this device; null: of all';
COMMENT ON COLUMN replay.journal IS 'only from this journal; null: from all of the machine';
COMMENT ON COLUMN replay.version IS 'version of signalkeep that decoded';
COMMENT ON COLUMN replay.begun_by IS 'the operating system user that did it';
COMMENT ON COLUMN replay.begun_at IS 'when it was begun (UTC)';
COMMENT ON COLUMN replay.moved_at IS 'when it last got on (UTC)';
COMMENT ON COLUMN replay.ended_at IS 'when it was done (UTC)';
COMMENT ON COLUMN replay.frames IS 'frames decoded';
COMMENT ON COLUMN replay.records IS 'records in them';
COMMENT ON COLUMN replay.same IS 'of these, are stored as they are read now';
COMMENT ON COLUMN replay.changed IS 'of these, were stored otherwise: the row was written anew in its place';
COMMENT ON COLUMN replay.duplicate IS 'of these, are re-sends of a record that has another provenance';
COMMENT ON COLUMN replay.restored IS 'of these, were missing although the ledger had them: written again, the ledger stays as it is';
COMMENT ON COLUMN replay.added IS 'of these, were never read from their frame before: written, and booked in the ledger';
COMMENT ON COLUMN replay.quarantined IS 'of these, wait in quarantine or were discarded there';
COMMENT ON COLUMN replay.suppressed IS 'of these, lie below the floor of an erasure, or in a month that went with the retention';
COMMENT ON COLUMN replay.refused IS 'of these, were not written: the frame is cut into other records than those stored of it, or the database rejected it';
COMMENT ON COLUMN replay.released IS 'rows of quarantine that became signals on the way';
COMMENT ON COLUMN replay.replaced IS 'rows of quarantine whose frame was read anew on the way';

CREATE TABLE replay_part (
    replay_id   bigint NOT NULL REFERENCES replay,
    journal_id  integer NOT NULL REFERENCES journal,
    seq         bigint NOT NULL,
    last_seq    bigint NOT NULL,
    lost        bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (replay_id, journal_id)
);
COMMENT ON TABLE replay_part IS 'How far a replay has come in each journal; moves only together with what it wrote.';
COMMENT ON COLUMN replay_part.replay_id IS 'the replay';
COMMENT ON COLUMN replay_part.journal_id IS 'the journal';
COMMENT ON COLUMN replay_part.seq IS 'every entry up to and with this sequence number has been dealt with';
COMMENT ON COLUMN replay_part.last_seq IS 'it ends here: where the cursor stood when it was begun';
COMMENT ON COLUMN replay_part.lost IS 'entries that the files no longer have, or that cannot be read';
