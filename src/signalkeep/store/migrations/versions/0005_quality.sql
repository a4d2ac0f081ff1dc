-- Data quality: what rules say of signals, and what people say of that. Nothing here changes or removes a value that a
-- device has sent.

-- One bit for each rule. This writes the table anew, once; gateways go on acknowledging meanwhile.
ALTER TABLE signal ALTER COLUMN flags TYPE bigint;
COMMENT ON COLUMN signal.flags IS 'bits: 1 no usable clock (re-sends are not recognised), 2 released from quarantine by force, 4 a rule doubts the position, 8 a person calls it good, 16 a person calls it bad; from bit 8 (256) on one for each rule, see table rule';

CREATE TABLE rule (
    id          text PRIMARY KEY,
    bit         smallint UNIQUE CHECK (bit BETWEEN 8 AND 62),
    version     integer NOT NULL,
    title       text NOT NULL,
    dimension   text NOT NULL,
    severity    text NOT NULL,
    error_code  integer,
    known_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE rule IS 'The rules of data quality that this database has met. `signalkeep rules explain ID` tells more.';
COMMENT ON COLUMN rule.id IS 'such as KIN-01; never used again for something else';
COMMENT ON COLUMN rule.bit IS 'its bit of signal.flags, from 0; null: it marks no signals';
COMMENT ON COLUMN rule.version IS 'grows when the same signal may get another answer; days are judged again then';
COMMENT ON COLUMN rule.title IS 'a few words';
COMMENT ON COLUMN rule.dimension IS 'completeness, timeliness, validity, consistency, accuracy or uniqueness';
COMMENT ON COLUMN rule.severity IS 'info, warning or error';
COMMENT ON COLUMN rule.error_code IS 'the error type that its hits count for; null: none';
COMMENT ON COLUMN rule.known_at IS 'when it was first met (UTC)';

CREATE TABLE error_type (
    code            integer PRIMARY KEY CHECK (code > 0),
    description     text NOT NULL CHECK (description <> ''),
    hits_max        integer NOT NULL CHECK (hits_max > 0),
    window_h        integer NOT NULL DEFAULT 24 CHECK (window_h BETWEEN 1 AND 24),
    critical        boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE error_type IS 'Kinds of errors of devices, with the number of hits from which on a device is reported for a check.';
COMMENT ON COLUMN error_type.code IS 'number of the error type';
COMMENT ON COLUMN error_type.description IS 'what people call it';
COMMENT ON COLUMN error_type.hits_max IS 'the limit: with so many hits within the window a device is reported';
COMMENT ON COLUMN error_type.window_h IS 'the window, hours';
COMMENT ON COLUMN error_type.critical IS 'whether a report is an error, or a warning';
INSERT INTO error_type (code, description, hits_max) VALUES (1, 'Broken GPS', 5), (2, 'Wrong event code', 5);
ALTER TABLE rule ADD CONSTRAINT rule_error_code FOREIGN KEY (error_code) REFERENCES error_type;

CREATE VIEW error_trace AS
SELECT
    d.device_number, t.code AS error_code, coalesce(s.device_time, s.received_at) AS message_date, t.description,
    r.id AS rule, s.device_id, s.wire_time, s.journal_id, s.seq, s.record_no
FROM signal s
JOIN rule r ON r.error_code IS NOT NULL AND r.bit IS NOT NULL AND s.flags & (1::bigint << r.bit) <> 0
JOIN error_type t ON t.code = r.error_code
JOIN device d ON d.id = s.device_id
WHERE s.flags > 255;
COMMENT ON VIEW error_trace IS 'The history of errors: a row for each signal and each rule that marked it for an error type.';
COMMENT ON COLUMN error_trace.device_number IS 'IMEI or the unit''s own id';
COMMENT ON COLUMN error_trace.error_code IS 'number of the error type';
COMMENT ON COLUMN error_trace.message_date IS 'when it happened (UTC); when it was received where the time is not known';
COMMENT ON COLUMN error_trace.description IS 'what people call it';
COMMENT ON COLUMN error_trace.rule IS 'the rule that marked it';
COMMENT ON COLUMN error_trace.device_id IS 'our number for the device';
COMMENT ON COLUMN error_trace.wire_time IS 'the time as sent; give a range of it, so that only its months are read';
COMMENT ON COLUMN error_trace.journal_id IS 'provenance: the journal';
COMMENT ON COLUMN error_trace.seq IS 'provenance: the frame''s sequence number in the journal';
COMMENT ON COLUMN error_trace.record_no IS 'provenance: number of the record in the frame, from 0';

-- Findings about devices: one for each rule and day, so that judging a day again can never double one.
ALTER TABLE finding DROP CONSTRAINT finding_kind_subject_key;
ALTER TABLE finding
    ADD COLUMN device_id integer REFERENCES device,
    ADD COLUMN day date,
    ADD COLUMN severity text,
    ADD COLUMN state text CHECK (state IN ('detected', 'confirmed', 'cleared', 'withdrawn', 'dismissed')),
    ADD COLUMN rule_version integer,
    ADD COLUMN begins_at timestamptz,
    ADD COLUMN ends_at timestamptz,
    ADD COLUMN first_sample jsonb,
    ADD COLUMN last_sample jsonb,
    ADD COLUMN live boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT finding_of_device CHECK ((device_id IS NULL) = (day IS NULL) AND (device_id IS NULL) = (state IS NULL));
CREATE UNIQUE INDEX finding_kind_subject ON finding (kind, subject) WHERE device_id IS NULL;
CREATE UNIQUE INDEX finding_device_day ON finding (device_id, day, kind) WHERE device_id IS NOT NULL;
CREATE INDEX finding_of_day ON finding (day DESC) WHERE device_id IS NOT NULL;
COMMENT ON TABLE finding IS 'What a check, a rule or a reader found wrong: a damaged journal range, a vanished journal; and of a device, each rule''s hits of a day.';
COMMENT ON COLUMN finding.kind IS 'journal_range_lost, cursor_moved_back, journal_vanished, ...; a rule such as KIN-01; ERR-1: the limit of error type 1 was reached';
COMMENT ON COLUMN finding.count IS 'how often it was found; of a rule: signals hit on that day';
COMMENT ON COLUMN finding.device_id IS 'the device, for findings of rules; null: it is about something else';
COMMENT ON COLUMN finding.day IS 'the day (UTC) on which it happened, as the device says';
COMMENT ON COLUMN finding.severity IS 'info, warning or error; null: not of a rule';
COMMENT ON COLUMN finding.state IS 'detected: at ingest; confirmed: by a sweep, in the order of device time; cleared: confirmed, and good again since; withdrawn: the whole day explains it; dismissed: a person says so';
COMMENT ON COLUMN finding.rule_version IS 'version of the rule that found it';
COMMENT ON COLUMN finding.begins_at IS 'when it began, as the device says (UTC)';
COMMENT ON COLUMN finding.ends_at IS 'the latest hit, as the device says (UTC)';
COMMENT ON COLUMN finding.first_sample IS 'the first signal that was hit: its time, position and provenance, and what was found';
COMMENT ON COLUMN finding.last_sample IS 'the latest';
COMMENT ON COLUMN finding.live IS 'at least one hit came in time and in order, so it may alarm people';

CREATE TABLE quality_score (
    device_id               integer NOT NULL REFERENCES device,
    day                     date NOT NULL,
    signals                 integer NOT NULL,
    completeness_of         integer NOT NULL,
    completeness_good       integer NOT NULL,
    timeliness_of           integer NOT NULL,
    timeliness_good         integer NOT NULL,
    validity_of             integer NOT NULL,
    validity_good           integer NOT NULL,
    consistency_of          integer NOT NULL,
    consistency_good        integer NOT NULL,
    accuracy_of             integer NOT NULL,
    accuracy_good           integer NOT NULL,
    uniqueness_of           integer NOT NULL,
    uniqueness_good         integer NOT NULL,
    overall                 real,
    hits                    jsonb NOT NULL DEFAULT '{}',
    attributes              jsonb NOT NULL DEFAULT '{}',
    duplicate_to            bigint NOT NULL,
    connections_to          bigint NOT NULL,
    rules                   bigint NOT NULL,
    judged_at               timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (device_id, day)
);
CREATE INDEX quality_score_day ON quality_score (day);
COMMENT ON TABLE quality_score IS 'What each day of each device was worth: per dimension how much was looked at and how much of it was good.';
COMMENT ON COLUMN quality_score.device_id IS 'the device';
COMMENT ON COLUMN quality_score.day IS 'the day (UTC), as the device says';
COMMENT ON COLUMN quality_score.signals IS 'signals of that day';
COMMENT ON COLUMN quality_score.completeness_of IS 'reports that were due while the vehicle was used';
COMMENT ON COLUMN quality_score.completeness_good IS 'of these, came and had what they must have';
COMMENT ON COLUMN quality_score.timeliness_of IS 'signals whose time could be looked at';
COMMENT ON COLUMN quality_score.timeliness_good IS 'of these, had a right time and came in time';
COMMENT ON COLUMN quality_score.validity_of IS 'signals whose form and ranges could be looked at';
COMMENT ON COLUMN quality_score.validity_good IS 'of these, were valid';
COMMENT ON COLUMN quality_score.consistency_of IS 'signals whose values could be compared with others';
COMMENT ON COLUMN quality_score.consistency_good IS 'of these, agreed';
COMMENT ON COLUMN quality_score.accuracy_of IS 'signals whose position could be judged';
COMMENT ON COLUMN quality_score.accuracy_good IS 'of these, were plausible';
COMMENT ON COLUMN quality_score.uniqueness_of IS 'signals and re-sends';
COMMENT ON COLUMN quality_score.uniqueness_good IS 'of these, were there once';
COMMENT ON COLUMN quality_score.overall IS '0 to 1: 0.6 of the worst dimension and 0.4 of their mean; null: too little to say';
COMMENT ON COLUMN quality_score.hits IS 'signals hit, by rule';
COMMENT ON COLUMN quality_score.attributes IS 'signals that had each attribute';
COMMENT ON COLUMN quality_score.duplicate_to IS 'device_state.duplicate when it was judged';
COMMENT ON COLUMN quality_score.connections_to IS 'device_state.connections when it was judged';
COMMENT ON COLUMN quality_score.rules IS 'fingerprint of the rules, their versions and limits; days with another one are judged again';
COMMENT ON COLUMN quality_score.judged_at IS 'when it was judged (UTC)';

CREATE TABLE quality_todo (
    device_id   integer NOT NULL REFERENCES device,
    day         date NOT NULL,
    marker      bigint NOT NULL DEFAULT 1,
    since       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (device_id, day)
);
CREATE INDEX quality_todo_since ON quality_todo (since);
COMMENT ON TABLE quality_todo IS 'Days of devices that a sweep has still to judge, because signals came, rules changed, or a person marked something.';
COMMENT ON COLUMN quality_todo.device_id IS 'the device';
COMMENT ON COLUMN quality_todo.day IS 'the day (UTC)';
COMMENT ON COLUMN quality_todo.marker IS 'grows when something more comes for the day';
COMMENT ON COLUMN quality_todo.since IS 'since when it waits (UTC)';

CREATE TABLE sweep (
    name        text PRIMARY KEY,
    position    jsonb NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE sweep IS 'How far sweeps have followed what is stored, and what the last one did.';
COMMENT ON COLUMN sweep.name IS 'which sweep';
COMMENT ON COLUMN sweep.position IS 'where it goes on';
COMMENT ON COLUMN sweep.at IS 'when that was noted (UTC)';

CREATE TABLE fleet_hour (
    hour        timestamptz PRIMARY KEY,
    at          timestamptz NOT NULL,
    stored      bigint NOT NULL,
    frames      bigint NOT NULL,
    refused     jsonb NOT NULL,
    signals     bigint
);
COMMENT ON TABLE fleet_hour IS 'Totals of the whole fleet, noted once an hour: what is usual.';
COMMENT ON COLUMN fleet_hour.hour IS 'when the hour begins (UTC)';
COMMENT ON COLUMN fleet_hour.at IS 'when it was noted (UTC)';
COMMENT ON COLUMN fleet_hour.stored IS 'records stored by then';
COMMENT ON COLUMN fleet_hour.frames IS 'frames ingested by then';
COMMENT ON COLUMN fleet_hour.refused IS 'messages refused by then, by reason';
COMMENT ON COLUMN fleet_hour.signals IS 'records stored within the hour; null: the hour before was not noted';

CREATE TABLE organizer_job (
    name            text PRIMARY KEY,
    every_s         double precision NOT NULL,
    began_at        timestamptz NOT NULL,
    ended_at        timestamptz,
    seconds         double precision NOT NULL DEFAULT 0,
    result          text NOT NULL DEFAULT '',
    runs            bigint NOT NULL DEFAULT 0,
    failures        bigint NOT NULL DEFAULT 0,
    failed_in_a_row bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE organizer_job IS 'What the organizer does again and again, and what became of it the last time.';
COMMENT ON COLUMN organizer_job.name IS 'the job';
COMMENT ON COLUMN organizer_job.every_s IS 'how often, seconds';
COMMENT ON COLUMN organizer_job.began_at IS 'when its last run began (UTC)';
COMMENT ON COLUMN organizer_job.ended_at IS 'when that ended (UTC); null: it runs, or was cut off';
COMMENT ON COLUMN organizer_job.seconds IS 'how long the last whole run took';
COMMENT ON COLUMN organizer_job.result IS 'what came of it, in words';
COMMENT ON COLUMN organizer_job.runs IS 'runs that ended';
COMMENT ON COLUMN organizer_job.failures IS 'of these, failed';
COMMENT ON COLUMN organizer_job.failed_in_a_row IS 'the latest of these, up to now';

CREATE TABLE quality_mark (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id   integer NOT NULL REFERENCES device,
    begins_at   timestamptz NOT NULL,
    ends_at     timestamptz NOT NULL,
    rule        text,
    verdict     text NOT NULL CHECK (verdict IN ('good', 'bad')),
    note        text NOT NULL DEFAULT '',
    marked_by   text NOT NULL,
    marked_at   timestamptz NOT NULL DEFAULT now(),
    taken_back_at timestamptz,
    CHECK (begins_at <= ends_at),
    CHECK (rule IS NULL OR verdict = 'good')
);
CREATE INDEX quality_mark_of ON quality_mark (device_id, begins_at) WHERE taken_back_at IS NULL;
COMMENT ON TABLE quality_mark IS 'What people say of signals. It beats what rules say, and is kept when it is taken back.';
COMMENT ON COLUMN quality_mark.id IS 'our number for the mark';
COMMENT ON COLUMN quality_mark.device_id IS 'the device';
COMMENT ON COLUMN quality_mark.begins_at IS 'first moment that it speaks of, in device time (UTC)';
COMMENT ON COLUMN quality_mark.ends_at IS 'last moment (UTC)';
COMMENT ON COLUMN quality_mark.rule IS 'the rule that is wrong here; null: all of them';
COMMENT ON COLUMN quality_mark.verdict IS 'good: rules are wrong here; bad: these signals are not to be used';
COMMENT ON COLUMN quality_mark.note IS 'why, for people';
COMMENT ON COLUMN quality_mark.marked_by IS 'the operating system user that did it';
COMMENT ON COLUMN quality_mark.marked_at IS 'when (UTC)';
COMMENT ON COLUMN quality_mark.taken_back_at IS 'when it was taken back (UTC); null: it holds';

CREATE TABLE attribute_seen (
    protocol    text NOT NULL,
    model       text NOT NULL,
    attribute   text NOT NULL,
    first_on    date NOT NULL,
    PRIMARY KEY (protocol, model, attribute)
);
COMMENT ON TABLE attribute_seen IS 'Which attributes signals of a protocol and model have ever had: a new one is worth a look.';
COMMENT ON COLUMN attribute_seen.protocol IS 'protocol of the signals';
COMMENT ON COLUMN attribute_seen.model IS 'model of their devices; empty: not known';
COMMENT ON COLUMN attribute_seen.attribute IS 'the attribute';
COMMENT ON COLUMN attribute_seen.first_on IS 'the first day that was judged with it (UTC)';

CREATE OR REPLACE VIEW signal_good AS
SELECT
    d.device_number, s.device_id, s.device_time, s.wire_time, s.received_at, s.latitude, s.longitude, s.altitude_m,
    s.speed_kmh, s.course_deg, s.satellites, s.event_code, s.attributes, s.protocol
FROM signal s JOIN device d ON d.id = s.device_id
WHERE s.fix_valid AND s.latitude BETWEEN -90 AND 90 AND s.longitude BETWEEN -180 AND 180 AND s.device_time IS NOT NULL
  AND s.flags & 20 = 0;
COMMENT ON VIEW signal_good IS 'Good positions: the device had a fix, it is on the globe, its time is known, and neither a rule nor a person doubts it.';

-- What a day was worth, from sums of what was looked at and what was good: six dimensions in the order of the columns.
CREATE FUNCTION signalkeep_overall(looked_at bigint[], good bigint[]) RETURNS real LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN count(*) > 0 THEN (0.6 * min(share) + 0.4 * avg(share))::real END
    FROM (SELECT g::float8 / n AS share FROM unnest(looked_at, good) AS u (n, g) WHERE n >= 20) AS shares
$$;
COMMENT ON FUNCTION signalkeep_overall(bigint[], bigint[]) IS 'Overall score of dimensions: 0.6 of the worst and 0.4 of the mean; those with less than 20 looked at are left out; null: all of them are.';

CREATE VIEW quality_vehicle AS
SELECT
    q.day, v.id AS vehicle_id, v.name AS vehicle_name, v.plate, c.id AS customer_id, c.name AS customer_name,
    count(*) AS devices, sum(q.signals)::bigint AS signals,
    sum(q.completeness_of)::bigint AS completeness_of, sum(q.completeness_good)::bigint AS completeness_good,
    sum(q.timeliness_of)::bigint AS timeliness_of, sum(q.timeliness_good)::bigint AS timeliness_good,
    sum(q.validity_of)::bigint AS validity_of, sum(q.validity_good)::bigint AS validity_good,
    sum(q.consistency_of)::bigint AS consistency_of, sum(q.consistency_good)::bigint AS consistency_good,
    sum(q.accuracy_of)::bigint AS accuracy_of, sum(q.accuracy_good)::bigint AS accuracy_good,
    sum(q.uniqueness_of)::bigint AS uniqueness_of, sum(q.uniqueness_good)::bigint AS uniqueness_good,
    signalkeep_overall(
        ARRAY[sum(q.completeness_of), sum(q.timeliness_of), sum(q.validity_of), sum(q.consistency_of),
              sum(q.accuracy_of), sum(q.uniqueness_of)]::bigint[],
        ARRAY[sum(q.completeness_good), sum(q.timeliness_good), sum(q.validity_good), sum(q.consistency_good),
              sum(q.accuracy_good), sum(q.uniqueness_good)]::bigint[]) AS overall
FROM quality_score q
JOIN assignment a ON a.device_id = q.device_id
    AND (a.begins_at IS NULL OR a.begins_at < (q.day + 1)::timestamp AT TIME ZONE 'UTC')
    AND (a.ends_at IS NULL OR a.ends_at > q.day::timestamp AT TIME ZONE 'UTC')
JOIN vehicle v ON v.id = a.vehicle_id
LEFT JOIN customer c ON c.id = v.customer_id
GROUP BY q.day, v.id, v.name, v.plate, c.id, c.name;
COMMENT ON VIEW quality_vehicle IS 'Scores of vehicles: those of the devices that were in them on that day. A device that changed its vehicle on a day counts for both.';
COMMENT ON COLUMN quality_vehicle.day IS 'the day (UTC)';
COMMENT ON COLUMN quality_vehicle.vehicle_id IS 'our number for the vehicle';
COMMENT ON COLUMN quality_vehicle.vehicle_name IS 'its name';
COMMENT ON COLUMN quality_vehicle.plate IS 'its plate';
COMMENT ON COLUMN quality_vehicle.customer_id IS 'whom it belongs to';
COMMENT ON COLUMN quality_vehicle.customer_name IS 'that customer''s name';
COMMENT ON COLUMN quality_vehicle.devices IS 'devices that it had on that day';
COMMENT ON COLUMN quality_vehicle.signals IS 'signals of that day';
COMMENT ON COLUMN quality_vehicle.completeness_of IS 'reports that were due while vehicles were used';
COMMENT ON COLUMN quality_vehicle.completeness_good IS 'of these, came and had what they must have';
COMMENT ON COLUMN quality_vehicle.timeliness_of IS 'signals whose time could be looked at';
COMMENT ON COLUMN quality_vehicle.timeliness_good IS 'of these, had a right time and came in time';
COMMENT ON COLUMN quality_vehicle.validity_of IS 'signals whose form and ranges could be looked at';
COMMENT ON COLUMN quality_vehicle.validity_good IS 'of these, were valid';
COMMENT ON COLUMN quality_vehicle.consistency_of IS 'signals whose values could be compared with others';
COMMENT ON COLUMN quality_vehicle.consistency_good IS 'of these, agreed';
COMMENT ON COLUMN quality_vehicle.accuracy_of IS 'signals whose position could be judged';
COMMENT ON COLUMN quality_vehicle.accuracy_good IS 'of these, were plausible';
COMMENT ON COLUMN quality_vehicle.uniqueness_of IS 'signals and re-sends';
COMMENT ON COLUMN quality_vehicle.uniqueness_good IS 'of these, were there once';
COMMENT ON COLUMN quality_vehicle.overall IS '0 to 1, by signalkeep_overall; null: too little to say';

CREATE VIEW quality_customer AS
SELECT
    day, customer_id, customer_name, count(*) AS vehicles, sum(devices)::bigint AS devices,
    sum(signals)::bigint AS signals,
    sum(completeness_of)::bigint AS completeness_of, sum(completeness_good)::bigint AS completeness_good,
    sum(timeliness_of)::bigint AS timeliness_of, sum(timeliness_good)::bigint AS timeliness_good,
    sum(validity_of)::bigint AS validity_of, sum(validity_good)::bigint AS validity_good,
    sum(consistency_of)::bigint AS consistency_of, sum(consistency_good)::bigint AS consistency_good,
    sum(accuracy_of)::bigint AS accuracy_of, sum(accuracy_good)::bigint AS accuracy_good,
    sum(uniqueness_of)::bigint AS uniqueness_of, sum(uniqueness_good)::bigint AS uniqueness_good,
    signalkeep_overall(
        ARRAY[sum(completeness_of), sum(timeliness_of), sum(validity_of), sum(consistency_of), sum(accuracy_of),
              sum(uniqueness_of)]::bigint[],
        ARRAY[sum(completeness_good), sum(timeliness_good), sum(validity_good), sum(consistency_good),
              sum(accuracy_good), sum(uniqueness_good)]::bigint[]) AS overall
FROM quality_vehicle WHERE customer_id IS NOT NULL
GROUP BY day, customer_id, customer_name;
COMMENT ON VIEW quality_customer IS 'Scores of customers: those of their vehicles.';
COMMENT ON COLUMN quality_customer.day IS 'the day (UTC)';
COMMENT ON COLUMN quality_customer.customer_id IS 'our number for the customer';
COMMENT ON COLUMN quality_customer.customer_name IS 'its name';
COMMENT ON COLUMN quality_customer.vehicles IS 'vehicles that reported on that day';
COMMENT ON COLUMN quality_customer.devices IS 'devices that they had';
COMMENT ON COLUMN quality_customer.signals IS 'signals of that day';
COMMENT ON COLUMN quality_customer.completeness_of IS 'reports that were due while vehicles were used';
COMMENT ON COLUMN quality_customer.completeness_good IS 'of these, came and had what they must have';
COMMENT ON COLUMN quality_customer.timeliness_of IS 'signals whose time could be looked at';
COMMENT ON COLUMN quality_customer.timeliness_good IS 'of these, had a right time and came in time';
COMMENT ON COLUMN quality_customer.validity_of IS 'signals whose form and ranges could be looked at';
COMMENT ON COLUMN quality_customer.validity_good IS 'of these, were valid';
COMMENT ON COLUMN quality_customer.consistency_of IS 'signals whose values could be compared with others';
COMMENT ON COLUMN quality_customer.consistency_good IS 'of these, agreed';
COMMENT ON COLUMN quality_customer.accuracy_of IS 'signals whose position could be judged';
COMMENT ON COLUMN quality_customer.accuracy_good IS 'of these, were plausible';
COMMENT ON COLUMN quality_customer.uniqueness_of IS 'signals and re-sends';
COMMENT ON COLUMN quality_customer.uniqueness_good IS 'of these, were there once';
COMMENT ON COLUMN quality_customer.overall IS '0 to 1, by signalkeep_overall; null: too little to say';
