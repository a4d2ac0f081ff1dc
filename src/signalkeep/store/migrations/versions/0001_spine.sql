-- The spine: devices, signals, quarantine, journals with their cursors, and the ledger that proves the sums.
-- Every column says what it holds, with its unit: `\d+ signal` is documentation.

CREATE TABLE device (
    id              integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_number   text NOT NULL UNIQUE CHECK (length(device_number) <= 64),
    status          text NOT NULL DEFAULT 'unknown' CHECK (status IN ('unknown', 'active', 'retired')),
    name            text NOT NULL DEFAULT '',
    model           text NOT NULL DEFAULT '',
    time_zone       text NOT NULL DEFAULT '',
    revision        integer NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    registered_at   timestamptz,
    retired_at      timestamptz
);
COMMENT ON TABLE device IS 'Every device that was ever heard of or registered. Never deleted: a device is retired.';
COMMENT ON COLUMN device.id IS 'our number for the device';
COMMENT ON COLUMN device.device_number IS 'IMEI or the unit''s own id, as text, immutable; empty: messages that name no device';
COMMENT ON COLUMN device.status IS 'unknown: has sent, nobody registered it; active; retired: history stays, new data are refused';
COMMENT ON COLUMN device.name IS 'a name for people';
COMMENT ON COLUMN device.model IS 'maker''s model, may decide how a message is read';
COMMENT ON COLUMN device.time_zone IS 'IANA zone for times that the device sends without one; empty: UTC';
COMMENT ON COLUMN device.revision IS 'grows with every change of status, model or time zone; ingest checks it before it writes';
COMMENT ON COLUMN device.created_at IS 'first heard of (UTC)';
COMMENT ON COLUMN device.registered_at IS 'when it became active (UTC)';
COMMENT ON COLUMN device.retired_at IS 'when it was retired (UTC)';

CREATE TABLE journal (
    id              integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid            uuid NOT NULL UNIQUE,
    host            text NOT NULL,
    directory       text NOT NULL,
    lanes           integer NOT NULL CHECK (lanes >= 1),
    durable_seq     bigint NOT NULL DEFAULT 0,
    kept_from_seq   bigint NOT NULL DEFAULT 1,
    opened_at       timestamptz NOT NULL DEFAULT now(),
    seen_at         timestamptz NOT NULL DEFAULT now(),
    ended_at        timestamptz,
    removed_at      timestamptz
);
COMMENT ON TABLE journal IS 'One row for each journal, that is for each start of a gateway process.';
COMMENT ON COLUMN journal.id IS 'our number for the journal';
COMMENT ON COLUMN journal.uuid IS 'the journal''s own id, also the name of its directory';
COMMENT ON COLUMN journal.host IS 'host whose disk holds it';
COMMENT ON COLUMN journal.directory IS 'where it lies on that host';
COMMENT ON COLUMN journal.lanes IS 'number of lanes; lane = hash(device_number) mod lanes';
COMMENT ON COLUMN journal.durable_seq IS 'highest sequence number known to be on stable storage; names what a vanished journal held';
COMMENT ON COLUMN journal.kept_from_seq IS 'entries from here on must still be in the journal''s files; earlier segments were unlinked on purpose';
COMMENT ON COLUMN journal.opened_at IS 'when ingest first saw it (UTC)';
COMMENT ON COLUMN journal.seen_at IS 'when ingest last saw it (UTC)';
COMMENT ON COLUMN journal.ended_at IS 'when its gateway was found to have ended (UTC)';
COMMENT ON COLUMN journal.removed_at IS 'when its files were removed because the database had everything (UTC)';

CREATE TABLE cursor (
    journal_id      integer NOT NULL REFERENCES journal,
    lane            integer NOT NULL,
    seq             bigint NOT NULL DEFAULT 0,
    frames          bigint NOT NULL DEFAULT 0,
    other_entries   bigint NOT NULL DEFAULT 0,
    lost            bigint NOT NULL DEFAULT 0,
    moved_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (journal_id, lane)
);
COMMENT ON TABLE cursor IS 'How far each lane of each journal has been ingested; moves only together with the rows, by compare-and-set.';
COMMENT ON COLUMN cursor.journal_id IS 'the journal';
COMMENT ON COLUMN cursor.lane IS 'the lane, 0 .. lanes-1';
COMMENT ON COLUMN cursor.seq IS 'every entry up to and with this sequence number has been dealt with';
COMMENT ON COLUMN cursor.frames IS 'frames ingested';
COMMENT ON COLUMN cursor.other_entries IS 'session and tally entries dealt with';
COMMENT ON COLUMN cursor.lost IS 'entries that could not be read from the journal; each range has a finding';
COMMENT ON COLUMN cursor.moved_at IS 'when the cursor last moved (UTC)';

CREATE TABLE ledger (
    journal_id          integer NOT NULL REFERENCES journal,
    device_id           integer NOT NULL REFERENCES device,
    records             bigint NOT NULL DEFAULT 0,
    stored              bigint NOT NULL DEFAULT 0,
    duplicate           bigint NOT NULL DEFAULT 0,
    quarantined         bigint NOT NULL DEFAULT 0,
    released            bigint NOT NULL DEFAULT 0,
    released_duplicate  bigint NOT NULL DEFAULT 0,
    discarded           bigint NOT NULL DEFAULT 0,
    replaced            bigint NOT NULL DEFAULT 0,
    key_xor             bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (journal_id, device_id)
);
COMMENT ON TABLE ledger IS 'What became of the records of each journal and device: records = stored + duplicate + quarantined.';
COMMENT ON COLUMN ledger.journal_id IS 'provenance: the journal whose frames held the records';
COMMENT ON COLUMN ledger.device_id IS 'the device that sent them';
COMMENT ON COLUMN ledger.records IS 'records ingested';
COMMENT ON COLUMN ledger.stored IS 'of these, became a row in signal at ingest';
COMMENT ON COLUMN ledger.duplicate IS 'of these, were re-sends of a record that is already stored or quarantined';
COMMENT ON COLUMN ledger.quarantined IS 'of these, became a row in quarantine';
COMMENT ON COLUMN ledger.released IS 'quarantine rows that later became a row in signal';
COMMENT ON COLUMN ledger.released_duplicate IS 'quarantine rows that on release proved to be stored already';
COMMENT ON COLUMN ledger.discarded IS 'quarantine rows that a person discarded';
COMMENT ON COLUMN ledger.replaced IS 'quarantine rows whose frame a later decoder cut into other records, which were ingested in their place';
COMMENT ON COLUMN ledger.key_xor IS 'exclusive or of the digests of all signal rows of this provenance: shows a row exchanged for another';

CREATE TABLE device_state (
    device_id           integer PRIMARY KEY REFERENCES device,
    last_received_at    timestamptz,
    last_protocol       text,
    last_peer           text,
    device_time         timestamptz,
    latitude            double precision,
    longitude           double precision,
    altitude_m          real,
    speed_kmh           real,
    course_deg          real,
    frames              bigint NOT NULL DEFAULT 0,
    records             bigint NOT NULL DEFAULT 0,
    stored              bigint NOT NULL DEFAULT 0,
    duplicate           bigint NOT NULL DEFAULT 0,
    quarantined         bigint NOT NULL DEFAULT 0,
    quarantine_open     bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE device_state IS 'Latest known state and counters of each device. Its row is the lock that orders all writing for the device.';
COMMENT ON COLUMN device_state.device_id IS 'the device';
COMMENT ON COLUMN device_state.last_received_at IS 'last contact: latest received_at of any of its frames (UTC)';
COMMENT ON COLUMN device_state.last_protocol IS 'protocol of that frame';
COMMENT ON COLUMN device_state.last_peer IS 'network address of that frame';
COMMENT ON COLUMN device_state.device_time IS 'time of the latest good position (UTC); never moves back, never beyond received_at + 60 s';
COMMENT ON COLUMN device_state.latitude IS 'latest good position, degrees WGS84, north positive';
COMMENT ON COLUMN device_state.longitude IS 'latest good position, degrees WGS84, east positive';
COMMENT ON COLUMN device_state.altitude_m IS 'altitude there, metres';
COMMENT ON COLUMN device_state.speed_kmh IS 'speed there, km/h';
COMMENT ON COLUMN device_state.course_deg IS 'course there, degrees, 0 = north, clockwise';
COMMENT ON COLUMN device_state.frames IS 'frames ingested';
COMMENT ON COLUMN device_state.records IS 'records ingested';
COMMENT ON COLUMN device_state.stored IS 'records stored at ingest';
COMMENT ON COLUMN device_state.duplicate IS 'records that were re-sends';
COMMENT ON COLUMN device_state.quarantined IS 'records quarantined at ingest';
COMMENT ON COLUMN device_state.quarantine_open IS 'quarantine rows that are open now';

CREATE TABLE signal (
    device_id       integer NOT NULL REFERENCES device,
    wire_time       timestamptz NOT NULL,
    digest          bigint NOT NULL,
    device_time     timestamptz,
    received_at     timestamptz NOT NULL,
    fix_valid       boolean NOT NULL,
    latitude        double precision,
    longitude       double precision,
    altitude_m      real,
    speed_kmh       real,
    course_deg      real,
    satellites      smallint,
    event_code      text,
    attributes      jsonb NOT NULL,
    flags           integer NOT NULL DEFAULT 0,
    protocol        text NOT NULL,
    journal_id      integer NOT NULL REFERENCES journal,
    seq             bigint NOT NULL,
    record_no       smallint NOT NULL,
    xid             xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (device_id, wire_time, digest)
) PARTITION BY RANGE (wire_time);
COMMENT ON TABLE signal IS 'Every stored record, exactly once. Partitioned by month of wire_time (signal_YYYY_MM, UTC).';
COMMENT ON COLUMN signal.device_id IS 'the device that sent it';
COMMENT ON COLUMN signal.wire_time IS 'the time as sent, read as UTC, never reinterpreted; received_at where flags has bit 1';
COMMENT ON COLUMN signal.digest IS '64 bits of BLAKE2b over protocol and record bytes; with device_id and wire_time the record key';
COMMENT ON COLUMN signal.device_time IS 'our best reading of when it happened (UTC); null: the record has no usable clock';
COMMENT ON COLUMN signal.received_at IS 'when the gateway read the frame (UTC)';
COMMENT ON COLUMN signal.fix_valid IS 'the device says that it had a position fix';
COMMENT ON COLUMN signal.latitude IS 'degrees WGS84, north positive';
COMMENT ON COLUMN signal.longitude IS 'degrees WGS84, east positive';
COMMENT ON COLUMN signal.altitude_m IS 'metres above sea level';
COMMENT ON COLUMN signal.speed_kmh IS 'km/h';
COMMENT ON COLUMN signal.course_deg IS 'degrees, 0 = north, clockwise';
COMMENT ON COLUMN signal.satellites IS 'satellites used';
COMMENT ON COLUMN signal.event_code IS 'maker''s event number or word; null: a periodic record';
COMMENT ON COLUMN signal.attributes IS 'everything else by standard name with the unit last; ioN: element N of which we know no name';
COMMENT ON COLUMN signal.flags IS 'bits: 1 no usable clock (re-sends are not recognised), 2 released from quarantine by force';
COMMENT ON COLUMN signal.protocol IS 'protocol of the frame';
COMMENT ON COLUMN signal.journal_id IS 'provenance: the journal';
COMMENT ON COLUMN signal.seq IS 'provenance: the frame''s sequence number in the journal';
COMMENT ON COLUMN signal.record_no IS 'provenance: number of the record in the frame, from 0';
COMMENT ON COLUMN signal.xid IS 'transaction that wrote the row: streams resume by commit visibility';
CREATE INDEX signal_device_time ON signal (device_id, device_time DESC NULLS LAST);
CREATE INDEX signal_xid ON signal (xid);
COMMENT ON INDEX signal_xid IS 'for streams and lists in the order of storing; xid8 has no BRIN operator class';

CREATE TABLE quarantine_frame (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    journal_id      integer NOT NULL REFERENCES journal,
    seq             bigint NOT NULL,
    device_id       integer NOT NULL REFERENCES device,
    received_at     timestamptz NOT NULL,
    protocol        text NOT NULL,
    peer            text NOT NULL,
    context         jsonb NOT NULL,
    raw             bytea NOT NULL,
    UNIQUE (journal_id, seq)
);
COMMENT ON TABLE quarantine_frame IS 'The whole frame, with its envelope, of which at least one record was quarantined: it can be decoded again.';
COMMENT ON COLUMN quarantine_frame.id IS 'our number for the kept frame';
COMMENT ON COLUMN quarantine_frame.journal_id IS 'provenance: the journal';
COMMENT ON COLUMN quarantine_frame.seq IS 'provenance: the frame''s sequence number in the journal';
COMMENT ON COLUMN quarantine_frame.device_id IS 'the device that claimed to send it';
COMMENT ON COLUMN quarantine_frame.received_at IS 'when the gateway read it (UTC)';
COMMENT ON COLUMN quarantine_frame.protocol IS 'protocol it was framed by';
COMMENT ON COLUMN quarantine_frame.peer IS 'network address it came from';
COMMENT ON COLUMN quarantine_frame.context IS 'what the decoder needs from the conversation';
COMMENT ON COLUMN quarantine_frame.raw IS 'the frame as it was received';

CREATE TABLE quarantine (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    frame_id        bigint NOT NULL REFERENCES quarantine_frame,
    record_no       smallint NOT NULL,
    device_id       integer NOT NULL REFERENCES device,
    wire_time       timestamptz NOT NULL,
    digest          bigint NOT NULL,
    journal_id      integer NOT NULL REFERENCES journal,
    seq             bigint NOT NULL,
    received_at     timestamptz NOT NULL,
    reason          text NOT NULL,
    detail          text NOT NULL DEFAULT '',
    raw             bytea NOT NULL,
    state           text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'released', 'discarded', 'replaced')),
    attempts        integer NOT NULL DEFAULT 0,
    closed_at       timestamptz,
    closed_by       text,
    UNIQUE (device_id, wire_time, digest)
);
COMMENT ON TABLE quarantine IS 'Records that may not become a signal as they are, each with its raw bytes and a reason. Rows are closed, never deleted.';
COMMENT ON COLUMN quarantine.id IS 'our number for the record';
COMMENT ON COLUMN quarantine.frame_id IS 'the kept frame it came in';
COMMENT ON COLUMN quarantine.record_no IS 'number of the record in the frame, from 0';
COMMENT ON COLUMN quarantine.device_id IS 'the device that claimed to send it';
COMMENT ON COLUMN quarantine.wire_time IS 'the time as sent, or received_at where there is none that can be used';
COMMENT ON COLUMN quarantine.digest IS '64 bits of BLAKE2b over protocol and record bytes';
COMMENT ON COLUMN quarantine.journal_id IS 'provenance: the journal';
COMMENT ON COLUMN quarantine.seq IS 'provenance: the frame''s sequence number in the journal';
COMMENT ON COLUMN quarantine.received_at IS 'when the gateway read it (UTC)';
COMMENT ON COLUMN quarantine.reason IS 'why, one of the words in docs/reasons.md';
COMMENT ON COLUMN quarantine.detail IS 'what was found, for people';
COMMENT ON COLUMN quarantine.raw IS 'the record''s own bytes';
COMMENT ON COLUMN quarantine.state IS 'open; released: became a signal or proved to be one; discarded: a person said so; replaced: see ledger.replaced';
COMMENT ON COLUMN quarantine.attempts IS 'releases tried';
COMMENT ON COLUMN quarantine.closed_at IS 'when it was released or discarded (UTC)';
COMMENT ON COLUMN quarantine.closed_by IS 'who or what closed it';
CREATE INDEX quarantine_open ON quarantine (device_id, id) WHERE state = 'open';
CREATE INDEX quarantine_frame_of ON quarantine (frame_id);

CREATE TABLE refusal (
    journal_id      integer NOT NULL REFERENCES journal,
    reason          text NOT NULL,
    count           bigint NOT NULL DEFAULT 0,
    last_at         timestamptz NOT NULL,
    PRIMARY KEY (journal_id, reason)
);
COMMENT ON TABLE refusal IS 'What gateways refused without acknowledging it, from the tallies in their journals.';
COMMENT ON COLUMN refusal.journal_id IS 'journal of the gateway that refused';
COMMENT ON COLUMN refusal.reason IS 'why, one of the words in docs/reasons.md';
COMMENT ON COLUMN refusal.count IS 'how often';
COMMENT ON COLUMN refusal.last_at IS 'the latest tally (UTC)';

CREATE TABLE finding (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind            text NOT NULL,
    subject         text NOT NULL,
    detail          text NOT NULL,
    count           bigint NOT NULL DEFAULT 1,
    first_at        timestamptz NOT NULL DEFAULT now(),
    last_at         timestamptz NOT NULL DEFAULT now(),
    UNIQUE (kind, subject)
);
COMMENT ON TABLE finding IS 'What a check or a reader found wrong: a damaged journal range, a cursor that moved back, a vanished journal.';
COMMENT ON COLUMN finding.id IS 'our number for the finding';
COMMENT ON COLUMN finding.kind IS 'journal_range_lost, cursor_moved_back, journal_vanished, ...';
COMMENT ON COLUMN finding.subject IS 'what it is about';
COMMENT ON COLUMN finding.detail IS 'what was found, for people';
COMMENT ON COLUMN finding.count IS 'how often it was found';
COMMENT ON COLUMN finding.first_at IS 'first found (UTC)';
COMMENT ON COLUMN finding.last_at IS 'last found (UTC)';

CREATE TABLE audit_log (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at              timestamptz NOT NULL DEFAULT now(),
    actor           text NOT NULL,
    action          text NOT NULL,
    subject         text NOT NULL,
    detail          jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE audit_log IS 'Who changed what: registrations, releases, discards.';
COMMENT ON COLUMN audit_log.id IS 'our number for the entry';
COMMENT ON COLUMN audit_log.at IS 'when (UTC)';
COMMENT ON COLUMN audit_log.actor IS 'the operating system user or role that did it';
COMMENT ON COLUMN audit_log.action IS 'what was done, such as device.add or quarantine.release';
COMMENT ON COLUMN audit_log.subject IS 'to what';
COMMENT ON COLUMN audit_log.detail IS 'particulars';
