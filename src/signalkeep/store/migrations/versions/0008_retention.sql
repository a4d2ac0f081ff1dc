-- Retention: months of signals go as a whole, and the ledger says how many went.

ALTER TABLE ledger ADD COLUMN expired bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN ledger.expired IS 'signals that went with their month, because the retention was over';
COMMENT ON TABLE ledger IS 'What became of the records of each journal and device: records = stored + duplicate + quarantined + suppressed; rows in signal = stored + released - erased - expired; rows in quarantine = quarantined - erased_quarantine.';

CREATE TABLE expired_month (
    month       date PRIMARY KEY CHECK (extract(day FROM month) = 1),
    signals     bigint NOT NULL,
    devices     bigint NOT NULL,
    expired_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE expired_month IS 'Months of signals that went because the retention was over. One that is made again is not among them.';
COMMENT ON COLUMN expired_month.month IS 'its first day (UTC), by wire_time';
COMMENT ON COLUMN expired_month.signals IS 'signals that went with it';
COMMENT ON COLUMN expired_month.devices IS 'devices that had sent them';
COMMENT ON COLUMN expired_month.expired_at IS 'when it went (UTC)';
