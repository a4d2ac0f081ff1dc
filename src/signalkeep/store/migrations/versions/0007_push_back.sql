-- Push-back: what is in quarantine for a reason that may pass is tried again by itself, less and less often.

ALTER TABLE quarantine
    ADD COLUMN tried_at timestamptz,
    ADD COLUMN tried_under text NOT NULL DEFAULT '';
COMMENT ON COLUMN quarantine.tried_at IS 'when it was last judged again in vain (UTC)';
COMMENT ON COLUMN quarantine.tried_under IS 'version of signalkeep that last judged it in vain';
