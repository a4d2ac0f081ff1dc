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
