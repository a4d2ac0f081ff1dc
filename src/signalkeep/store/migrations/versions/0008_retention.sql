-- Retention: months of signals go as a whole, and the ledger says how many went.

ALTER TABLE ledger ADD COLUMN expired bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN ledger.expired IS 'signals that went with their month, because the retention was over';
