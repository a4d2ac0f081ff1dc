-- Are the devices well, are we working, and who must know: incidents with their history, the messages that were sent
-- about them, how services are, and what ails devices.

ALTER TABLE organizer_job ADD COLUMN ran_by text NOT NULL DEFAULT '';
COMMENT ON COLUMN organizer_job.ran_by IS 'who began its last run: host and process';

CREATE TABLE incident (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source          text NOT NULL,
    kind            text NOT NULL,
    subject         text NOT NULL,
    scope           text NOT NULL CHECK (scope IN ('device', 'group', 'service', 'storage')),
    stage           text NOT NULL CHECK (stage IN ('diagnostic', 'malfunction')),
    severity        text NOT NULL CHECK (severity IN ('info', 'warning', 'error')),
    state           text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'acknowledged', 'cleared')),
    device_id       integer REFERENCES device,
    customer_id     integer REFERENCES customer,
    title           text NOT NULL,
    detail          text NOT NULL DEFAULT '',
    hits            bigint NOT NULL DEFAULT 1,
    devices         integer,
    opened_at       timestamptz NOT NULL,
    seen_at         timestamptz NOT NULL,
    malfunction_at  timestamptz,
    acknowledged_at timestamptz,
    acknowledged_by text,
    snoozed_until   timestamptz,
    escalated_at    timestamptz,
    reminded_at     timestamptz,
    cleared_at      timestamptz,
    reopened        integer NOT NULL DEFAULT 0,
    CHECK ((state = 'cleared') = (cleared_at IS NOT NULL)),
    CHECK ((stage = 'malfunction') = (malfunction_at IS NOT NULL))
);
CREATE UNIQUE INDEX incident_once ON incident (kind, subject) WHERE state <> 'cleared';
CREATE INDEX incident_of ON incident (kind, subject, cleared_at);
CREATE INDEX incident_source ON incident (source) WHERE state <> 'cleared';
CREATE INDEX incident_device ON incident (device_id) WHERE device_id IS NOT NULL;
COMMENT ON TABLE incident IS 'What is, or was, wrong with a device, a group of devices, a service or what we store. At most one of a kind and subject is not cleared.';
COMMENT ON COLUMN incident.id IS 'our number for the incident';
COMMENT ON COLUMN incident.source IS 'the check that found it and that alone clears it';
COMMENT ON COLUMN incident.kind IS 'what is wrong: silent, no_fix, service_down, ...; docs/incidents.md has them all';
COMMENT ON COLUMN incident.subject IS 'with what: a device number, a model, a service of a host';
COMMENT ON COLUMN incident.scope IS 'device: one device; group: many at once; service: of ours; storage: what we keep';
COMMENT ON COLUMN incident.stage IS 'diagnostic: seen, nobody is told yet; malfunction: often or long enough to be told';
COMMENT ON COLUMN incident.severity IS 'info, warning or error';
COMMENT ON COLUMN incident.state IS 'open; acknowledged: a person takes care of it; cleared: it is over';
COMMENT ON COLUMN incident.device_id IS 'the device, if it is about one';
COMMENT ON COLUMN incident.customer_id IS 'whom to tell: the customer whose vehicle it was in when it opened; null: nobody but admins';
COMMENT ON COLUMN incident.title IS 'what is wrong, in a few words';
COMMENT ON COLUMN incident.detail IS 'what was found last, for people';
COMMENT ON COLUMN incident.hits IS 'how often it was hit, as its check counts';
COMMENT ON COLUMN incident.devices IS 'of a group: devices that have it now; null: not of a group';
COMMENT ON COLUMN incident.opened_at IS 'since when (UTC)';
COMMENT ON COLUMN incident.seen_at IS 'when its check last found it (UTC)';
COMMENT ON COLUMN incident.malfunction_at IS 'when it became a malfunction (UTC); null: it is diagnostic';
COMMENT ON COLUMN incident.acknowledged_at IS 'when a person took it (UTC)';
COMMENT ON COLUMN incident.acknowledged_by IS 'who';
COMMENT ON COLUMN incident.snoozed_until IS 'nobody is told anything before (UTC); null: not snoozed';
COMMENT ON COLUMN incident.escalated_at IS 'when others were told because nobody took it (UTC)';
COMMENT ON COLUMN incident.reminded_at IS 'when people were last reminded of it (UTC)';
COMMENT ON COLUMN incident.cleared_at IS 'when its check found that it is over (UTC)';
COMMENT ON COLUMN incident.reopened IS 'how often it came back soon after it was cleared, and was opened again';

CREATE TABLE incident_event (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    incident_id     bigint NOT NULL REFERENCES incident,
    at              timestamptz NOT NULL DEFAULT now(),
    what            text NOT NULL CHECK (what IN ('opened', 'malfunction', 'reopened', 'acknowledged', 'snoozed', 'unsnoozed',
                                                  'escalated', 'reminded', 'cleared')),
    who             text NOT NULL DEFAULT '',
    note            text NOT NULL DEFAULT '',
    routed_at       timestamptz
);
CREATE INDEX incident_event_of ON incident_event (incident_id, id);
CREATE INDEX incident_event_new ON incident_event (id) WHERE routed_at IS NULL;
COMMENT ON TABLE incident_event IS 'The history of each incident. Written in the transaction that changes it.';
COMMENT ON COLUMN incident_event.id IS 'our number for the event';
COMMENT ON COLUMN incident_event.incident_id IS 'the incident';
COMMENT ON COLUMN incident_event.at IS 'when (UTC)';
COMMENT ON COLUMN incident_event.what IS 'what happened to it';
COMMENT ON COLUMN incident_event.who IS 'the person that did it; empty: a check';
COMMENT ON COLUMN incident_event.note IS 'what was found, or what the person says';
COMMENT ON COLUMN incident_event.routed_at IS 'when it was decided whom to tell of it (UTC); null: not yet';

CREATE TABLE notification (
    id              uuid PRIMARY KEY,
    event_id        bigint REFERENCES incident_event,
    channel         text NOT NULL,
    title           text NOT NULL,
    body            text NOT NULL,
    payload         jsonb NOT NULL,
    state           text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'given_up', 'in_digest')),
    digest_id       uuid REFERENCES notification,
    attempts        integer NOT NULL DEFAULT 0,
    error           text NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL DEFAULT now(),
    next_at         timestamptz NOT NULL DEFAULT now(),
    tried_at        timestamptz,
    failed_in_a_row integer NOT NULL DEFAULT 0,
    sent_at         timestamptz,
    UNIQUE (event_id, channel)
);
CREATE INDEX notification_waiting ON notification (channel, next_at) WHERE state = 'waiting';
CREATE INDEX notification_sent ON notification (channel, sent_at) WHERE state = 'sent';
CREATE INDEX notification_tried ON notification (channel, tried_at) WHERE tried_at IS NOT NULL;
CREATE INDEX notification_in_digest ON notification (digest_id) WHERE digest_id IS NOT NULL;
CREATE INDEX notification_of_none ON notification (channel, created_at) WHERE event_id IS NULL;
COMMENT ON TABLE notification IS 'The outbox: every message, to whom it goes, and what became of it. Sent at least once, always with the same id.';
COMMENT ON COLUMN notification.id IS 'goes with the message: who gets it twice knows it by that';
COMMENT ON COLUMN notification.event_id IS 'what it tells of; null: a test, or a digest of others';
COMMENT ON COLUMN notification.channel IS 'notify.channels.NAME of the settings';
COMMENT ON COLUMN notification.title IS 'its subject line';
COMMENT ON COLUMN notification.body IS 'its text';
COMMENT ON COLUMN notification.payload IS 'the same for programs, as a webhook gets it';
COMMENT ON COLUMN notification.state IS 'waiting; sent; given_up: tried too often; in_digest: told in another one, with more of its kind';
COMMENT ON COLUMN notification.digest_id IS 'the message that tells of it instead';
COMMENT ON COLUMN notification.attempts IS 'how often it was tried';
COMMENT ON COLUMN notification.error IS 'why the last try failed';
COMMENT ON COLUMN notification.created_at IS 'when it was written down (UTC)';
COMMENT ON COLUMN notification.next_at IS 'when it is tried next (UTC)';
COMMENT ON COLUMN notification.tried_at IS 'when it was last tried (UTC); null: not yet';
COMMENT ON COLUMN notification.failed_in_a_row IS 'how many tries of this channel, of whatever message, had failed in a row then';
COMMENT ON COLUMN notification.sent_at IS 'when the channel took it (UTC)';

CREATE TABLE heartbeat (
    host            text NOT NULL,
    role            text NOT NULL,
    instance        bigint NOT NULL,
    pid             integer,
    version         text,
    started_at      timestamptz,
    at              timestamptz NOT NULL DEFAULT now(),
    beat_age_s      double precision,
    handled         bigint NOT NULL DEFAULT 0,
    handled_age_s   double precision,
    waits           boolean NOT NULL DEFAULT false,
    restarts        bigint NOT NULL DEFAULT 0,
    restarted_at    timestamptz[] NOT NULL DEFAULT '{}',
    journal         uuid,
    durable_seq     bigint,
    PRIMARY KEY (host, role, instance)
);
COMMENT ON TABLE heartbeat IS 'What each process of ours last did, as the monitor of its machine saw it.';
COMMENT ON COLUMN heartbeat.host IS 'the machine';
COMMENT ON COLUMN heartbeat.role IS 'gateway, relay, ingest, organizer, monitor, supervisor, postgres';
COMMENT ON COLUMN heartbeat.instance IS 'its number among its role';
COMMENT ON COLUMN heartbeat.pid IS 'its process id; null: it should be there and is not, or says nothing of itself (postgres)';
COMMENT ON COLUMN heartbeat.version IS 'its version of signalkeep; null: as for pid';
COMMENT ON COLUMN heartbeat.started_at IS 'when it, or the last one in its place, started (UTC); null: none was seen';
COMMENT ON COLUMN heartbeat.at IS 'when this was written (UTC)';
COMMENT ON COLUMN heartbeat.beat_age_s IS 'how long ago it had moved then, seconds; null: as for pid';
COMMENT ON COLUMN heartbeat.handled IS 'what it had handled since its start: entries, frames, runs of jobs';
COMMENT ON COLUMN heartbeat.handled_age_s IS 'how long ago it had handled the last one, seconds; null: as for pid';
COMMENT ON COLUMN heartbeat.waits IS 'something was there that it should handle';
COMMENT ON COLUMN heartbeat.restarts IS 'how often it was started again, as its supervisor counts; without one, as its monitor has seen';
COMMENT ON COLUMN heartbeat.restarted_at IS 'when that number grew (UTC), the last few times';
COMMENT ON COLUMN heartbeat.journal IS 'of a gateway: the journal that it writes, or wrote last';
COMMENT ON COLUMN heartbeat.durable_seq IS 'of a gateway: up to where that journal is on stable storage';

CREATE TABLE service (
    host            text NOT NULL,
    name            text NOT NULL,
    state           text NOT NULL CHECK (state IN ('up', 'degraded', 'down')),
    why             text NOT NULL DEFAULT '',
    took_s          double precision,
    since           timestamptz NOT NULL DEFAULT now(),
    at              timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (host, name)
);
COMMENT ON TABLE service IS 'How what we are made of, and what we depend on, was when it was last looked at.';
COMMENT ON COLUMN service.host IS 'the machine that looked; empty: the organizer did, for all';
COMMENT ON COLUMN service.name IS 'gateway-0, journal-disk, database, broker, canary, watch NAME, ...';
COMMENT ON COLUMN service.state IS 'up; degraded: devices are still acknowledged; down';
COMMENT ON COLUMN service.why IS 'what is known against it';
COMMENT ON COLUMN service.took_s IS 'how long it took to answer, seconds; null: that is not measured, or it did not';
COMMENT ON COLUMN service.since IS 'since when it has been in that state (UTC)';
COMMENT ON COLUMN service.at IS 'when it was last looked at (UTC)';

-- Of findings, what may alarm people: late data never does.
ALTER TABLE finding
    ADD COLUMN live_hits bigint NOT NULL DEFAULT 0,
    ADD COLUMN live_at timestamptz;
COMMENT ON COLUMN finding.live_hits IS 'of its hits, those that came in time and in order: these may alarm people';
COMMENT ON COLUMN finding.live_at IS 'the latest of these, as the device says (UTC); null: there are none';
CREATE INDEX finding_of_clocks ON finding (id) WHERE kind IN ('TIM-01', 'TIM-02', 'TIM-04', 'TIM-05');
COMMENT ON INDEX finding_of_clocks IS 'findings of wrong clocks lie on days that are not those on which they came';

CREATE TABLE device_trouble (
    device_id       integer NOT NULL REFERENCES device,
    kind            text NOT NULL,
    stage           text NOT NULL CHECK (stage IN ('diagnostic', 'malfunction')),
    since           timestamptz NOT NULL,
    hit_at          timestamptz NOT NULL,
    good_since      timestamptz,
    good_from       bigint NOT NULL,
    hits            bigint NOT NULL,
    bad_s           double precision NOT NULL,
    detail          text NOT NULL,
    part_of         text,
    cleared_at      timestamptz,
    PRIMARY KEY (device_id, kind)
);
COMMENT ON TABLE device_trouble IS 'What ails devices, and what has ailed them so lately that its hits still count. docs/devices.md says how it is judged.';
COMMENT ON COLUMN device_trouble.device_id IS 'the device';
COMMENT ON COLUMN device_trouble.kind IS 'as incident.kind';
COMMENT ON COLUMN device_trouble.stage IS 'diagnostic: seen; malfunction: often or long enough to tell people';
COMMENT ON COLUMN device_trouble.since IS 'when it began (UTC)';
COMMENT ON COLUMN device_trouble.hit_at IS 'the latest hit (UTC); of what lasts, such as silence: when it was first seen';
COMMENT ON COLUMN device_trouble.good_since IS 'since when there was no hit (UTC); null: it lasts';
COMMENT ON COLUMN device_trouble.good_from IS 'device_state.stored then: what was stored since is good';
COMMENT ON COLUMN device_trouble.hits IS 'hits within the window';
COMMENT ON COLUMN device_trouble.bad_s IS 'how long it was so within the window, seconds; of what lasts: when this was written';
COMMENT ON COLUMN device_trouble.detail IS 'what was found last, for people';
COMMENT ON COLUMN device_trouble.part_of IS 'subject of the shared fault that it is part of; null: it is the device''s own';
COMMENT ON COLUMN device_trouble.cleared_at IS 'when it was over (UTC); kept as long as its hits count, so that only a new one opens it again; null: it ails';

-- A gateway that dies closes no connection in its journal: what was connected to it is connected no longer.
ALTER TABLE device_state ADD COLUMN connected_journal_id integer REFERENCES journal;
COMMENT ON COLUMN device_state.connected_journal_id IS 'journal of the gateway that it last connected to; when that has ended, so has the connection';

CREATE OR REPLACE VIEW signal_latest AS
SELECT
    d.id AS device_id, d.device_number, d.name AS device_name, d.status, d.model,
    v.id AS vehicle_id, v.name AS vehicle_name, v.plate, c.id AS customer_id, c.name AS customer_name,
    s.device_time, s.latitude, s.longitude, s.altitude_m, s.speed_kmh, s.course_deg,
    s.last_received_at, s.last_protocol, s.last_peer,
    coalesce(s.connected_at > coalesce(s.disconnected_at, '-infinity') AND j.ended_at IS NULL, false) AS connected,
    s.connected_at, s.disconnected_at, d.expected_interval_s, s.quarantine_open
FROM device d
JOIN device_state s ON s.device_id = d.id
LEFT JOIN journal j ON j.id = s.connected_journal_id
LEFT JOIN assignment a ON a.device_id = d.id
    AND (a.begins_at IS NULL OR a.begins_at <= now()) AND (a.ends_at IS NULL OR now() < a.ends_at)
LEFT JOIN vehicle v ON v.id = a.vehicle_id
LEFT JOIN customer c ON c.id = v.customer_id
WHERE d.device_number <> '';
COMMENT ON COLUMN signal_latest.connected IS 'its latest connection is not known to be closed, and the gateway of it not to have ended';
