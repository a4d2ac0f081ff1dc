-- The fleet: who owns which vehicle, which device was in it when, what events are called, what was erased.
-- Then the views that people query, and the role that may read everything.

CREATE TABLE customer (
    id              integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text NOT NULL UNIQUE CHECK (name <> '' AND length(name) <= 200),
    notes           text NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE customer IS 'Whom vehicles belong to. A fleet of one owner needs none.';
COMMENT ON COLUMN customer.id IS 'our number for the customer';
COMMENT ON COLUMN customer.name IS 'unique name';
COMMENT ON COLUMN customer.notes IS 'for people';
COMMENT ON COLUMN customer.created_at IS 'when it was added (UTC)';

CREATE TABLE vehicle (
    id              integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id     integer REFERENCES customer,
    name            text NOT NULL CHECK (name <> '' AND length(name) <= 200),
    plate           text NOT NULL DEFAULT '' CHECK (length(plate) <= 64),
    vin             text NOT NULL DEFAULT '' CHECK (length(vin) <= 64),
    notes           text NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL DEFAULT now(),
    retired_at      timestamptz
);
CREATE UNIQUE INDEX vehicle_name ON vehicle (coalesce(customer_id, 0), name);
CREATE UNIQUE INDEX vehicle_plate ON vehicle (coalesce(customer_id, 0), plate) WHERE plate <> '';
COMMENT ON TABLE vehicle IS 'What carries devices. Never deleted: a vehicle is retired.';
COMMENT ON COLUMN vehicle.id IS 'our number for the vehicle';
COMMENT ON COLUMN vehicle.customer_id IS 'whom it belongs to; null: nobody was named';
COMMENT ON COLUMN vehicle.name IS 'a name for people, unique for each customer; often the plate';
COMMENT ON COLUMN vehicle.plate IS 'registration plate, unique for each customer; empty: not known';
COMMENT ON COLUMN vehicle.vin IS 'vehicle identification number; empty: not known';
COMMENT ON COLUMN vehicle.notes IS 'for people';
COMMENT ON COLUMN vehicle.created_at IS 'when it was added (UTC)';
COMMENT ON COLUMN vehicle.retired_at IS 'when it went out of service (UTC); null: in service';

-- Ranges have operator classes of their own for GiST: a number as a range of one keeps the extension btree_gist out.
CREATE TABLE assignment (
    id              integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id       integer NOT NULL REFERENCES device,
    vehicle_id      integer NOT NULL REFERENCES vehicle,
    begins_at       timestamptz,
    ends_at         timestamptz,
    alongside       boolean NOT NULL DEFAULT false,
    CONSTRAINT assignment_order CHECK (begins_at < ends_at),
    CONSTRAINT assignment_device EXCLUDE USING gist (
        int4range(device_id, device_id, '[]') WITH &&, tstzrange(begins_at, ends_at) WITH &&),
    CONSTRAINT assignment_vehicle EXCLUDE USING gist (
        int4range(vehicle_id, vehicle_id, '[]') WITH &&, tstzrange(begins_at, ends_at) WITH &&) WHERE (NOT alongside)
);
CREATE INDEX assignment_of_device ON assignment (device_id, begins_at);
CREATE INDEX assignment_of_vehicle ON assignment (vehicle_id, begins_at);
COMMENT ON TABLE assignment IS 'Which device was in which vehicle, from begins_at on and before ends_at: [begins_at, ends_at).';
COMMENT ON COLUMN assignment.id IS 'our number for the assignment';
COMMENT ON COLUMN assignment.device_id IS 'the device; in one vehicle at a time';
COMMENT ON COLUMN assignment.vehicle_id IS 'the vehicle; carries one device at a time, and others alongside';
COMMENT ON COLUMN assignment.begins_at IS 'first moment (UTC), compared with device_time; null: from the beginning';
COMMENT ON COLUMN assignment.ends_at IS 'first moment after it (UTC); null: it lasts';
COMMENT ON COLUMN assignment.alongside IS 'deliberately beside the vehicle''s other device, such as an OBD unit';

CREATE TABLE event_format (
    protocol        text NOT NULL CHECK (protocol <> ''),
    code            text NOT NULL CHECK (code <> '' AND length(code) <= 64),
    name            text NOT NULL CHECK (name ~ '^[a-z][a-z0-9_]*$'),
    description     text NOT NULL DEFAULT '',
    attribute       text,
    end_name        text CHECK (end_name ~ '^[a-z][a-z0-9_]*$'),
    by_alarm        boolean NOT NULL DEFAULT false,
    PRIMARY KEY (protocol, code),
    CONSTRAINT event_format_end CHECK ((attribute IS NULL) = (end_name IS NULL))
);
COMMENT ON TABLE event_format IS 'What event codes mean, for each protocol. Users add their own.';
COMMENT ON COLUMN event_format.protocol IS 'protocol of the signal';
COMMENT ON COLUMN event_format.code IS 'signal.event_code, as text';
COMMENT ON COLUMN event_format.name IS 'the same word for every protocol, see docs/data-model.md, such as ignition_on';
COMMENT ON COLUMN event_format.description IS 'what the maker or the user calls it';
COMMENT ON COLUMN event_format.attribute IS 'attribute that is 0 or false when the event is end_name; null: the code says it all';
COMMENT ON COLUMN event_format.end_name IS 'the word for that, such as ignition_off';
COMMENT ON COLUMN event_format.by_alarm IS 'the record''s attribute alarm says it more exactly than name, where it has one';

INSERT INTO event_format (protocol, code, name, description, attribute, end_name, by_alarm) VALUES
    ('json', '7000', 'ignition_on', 'ignition on', NULL, NULL, false),
    ('json', '7001', 'hard_acceleration', 'acceleration', NULL, NULL, false),
    ('json', '7002', 'hard_braking', 'deceleration', NULL, NULL, false),
    ('json', '7003', 'ignition_off', 'ignition off', NULL, NULL, false),
    ('teltonika', '155', 'geofence_enter', 'geofence zone 1', 'io155', 'geofence_exit', false),
    ('teltonika', '156', 'geofence_enter', 'geofence zone 2', 'io156', 'geofence_exit', false),
    ('teltonika', '157', 'geofence_enter', 'geofence zone 3', 'io157', 'geofence_exit', false),
    ('teltonika', '158', 'geofence_enter', 'geofence zone 4', 'io158', 'geofence_exit', false),
    ('teltonika', '159', 'geofence_enter', 'geofence zone 5', 'io159', 'geofence_exit', false),
    ('teltonika', '175', 'geofence_enter', 'auto geofence', 'auto_geofence', 'geofence_exit', false),
    ('teltonika', '236', 'sos', 'panic button', 'panic', 'sos_end', false),
    ('teltonika', '239', 'ignition_on', 'ignition', 'ignition', 'ignition_off', false),
    ('teltonika', '240', 'motion_start', 'movement', 'motion', 'motion_stop', false),
    ('teltonika', '246', 'tow', 'towing', 'towing', 'tow_end', false),
    ('teltonika', '247', 'accident', 'crash detection', 'crash', 'accident_end', false),
    ('teltonika', '248', 'immobilizer', 'immobilizer', NULL, NULL, false),
    ('teltonika', '249', 'jamming', 'GSM jamming', 'jamming', 'jamming_end', false),
    ('teltonika', '250', 'trip_start', 'trip', 'trip', 'trip_end', false),
    ('teltonika', '251', 'idle', 'excessive idling', 'idling', 'idle_end', false),
    ('teltonika', '252', 'power_cut', 'unplug', 'unplugged', 'power_restored', false),
    ('teltonika', '253', 'harsh_driving', 'green driving', NULL, NULL, true),
    ('teltonika', '255', 'overspeed', 'over speeding', 'over_speeding', 'overspeed_end', false),
    ('teltonika', '257', 'accident', 'crash trace', NULL, NULL, false),
    ('teltonika', '318', 'jamming', 'GNSS jamming', 'gnss_jamming', 'jamming_end', false);

ALTER TABLE device
    ADD COLUMN expected_interval_s integer CHECK (expected_interval_s > 0),
    ADD COLUMN notes text NOT NULL DEFAULT '',
    ADD COLUMN erased_to timestamptz,
    ADD COLUMN erased_at timestamptz;
COMMENT ON COLUMN device.revision IS 'grows with every change of status, model, time zone or erased_to; ingest checks it before it writes';
COMMENT ON COLUMN device.expected_interval_s IS 'how often it reports while its vehicle is used, seconds; null: not known';
COMMENT ON COLUMN device.notes IS 'for people';
COMMENT ON COLUMN device.erased_to IS 'floor: what was sent or received at or before it (UTC) was erased and never comes back; null: nothing was';
COMMENT ON COLUMN device.erased_at IS 'when everything up to erased_to was gone (UTC); null: nothing to erase, or not finished';

ALTER TABLE ledger
    ADD COLUMN suppressed bigint NOT NULL DEFAULT 0,
    ADD COLUMN erased bigint NOT NULL DEFAULT 0,
    ADD COLUMN erased_quarantine bigint NOT NULL DEFAULT 0,
    ADD COLUMN erased_released bigint NOT NULL DEFAULT 0,
    ADD COLUMN erased_discarded bigint NOT NULL DEFAULT 0,
    ADD COLUMN erased_replaced bigint NOT NULL DEFAULT 0;
COMMENT ON TABLE ledger IS 'What became of the records of each journal and device: records = stored + duplicate + quarantined + suppressed; rows in signal = stored + released - erased; rows in quarantine = quarantined - erased_quarantine.';
COMMENT ON COLUMN ledger.suppressed IS 'of these, lay at or below the device''s floor (device.erased_to): neither stored nor quarantined';
COMMENT ON COLUMN ledger.erased IS 'rows of signal that were erased';
COMMENT ON COLUMN ledger.erased_quarantine IS 'rows of quarantine that were erased, in whatever state';
COMMENT ON COLUMN ledger.erased_released IS 'of these, had been released before';
COMMENT ON COLUMN ledger.erased_discarded IS 'of these, had been discarded before';
COMMENT ON COLUMN ledger.erased_replaced IS 'of these, had been replaced before';

ALTER TABLE device_state
    ADD COLUMN suppressed bigint NOT NULL DEFAULT 0,
    ADD COLUMN connected_at timestamptz,
    ADD COLUMN connected_peer text,
    ADD COLUMN disconnected_at timestamptz,
    ADD COLUMN connections bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN device_state.suppressed IS 'records at or below the floor of an erasure';
COMMENT ON COLUMN device_state.connected_at IS 'when it last identified itself on a connection (UTC)';
COMMENT ON COLUMN device_state.connected_peer IS 'network address of that connection';
COMMENT ON COLUMN device_state.disconnected_at IS 'when the latest connection to be closed while it was the latest was closed (UTC); earlier than connected_at: it is open';
COMMENT ON COLUMN device_state.connections IS 'connections on which it identified itself';

COMMENT ON TABLE quarantine IS 'Records that may not become a signal as they are, each with its raw bytes and a reason. Rows are closed, and deleted only by an erasure.';
COMMENT ON TABLE audit_log IS 'Who changed what: registry, releases, discards, erasures.';

-- Views. Their names and columns stay; docs/data-model.md says how to query them.

CREATE VIEW signal_latest AS
SELECT
    d.id AS device_id, d.device_number, d.name AS device_name, d.status, d.model,
    v.id AS vehicle_id, v.name AS vehicle_name, v.plate, c.id AS customer_id, c.name AS customer_name,
    s.device_time, s.latitude, s.longitude, s.altitude_m, s.speed_kmh, s.course_deg,
    s.last_received_at, s.last_protocol, s.last_peer,
    coalesce(s.connected_at > coalesce(s.disconnected_at, '-infinity'), false) AS connected,
    s.connected_at, s.disconnected_at, d.expected_interval_s, s.quarantine_open
FROM device d
JOIN device_state s ON s.device_id = d.id
LEFT JOIN assignment a ON a.device_id = d.id
    AND (a.begins_at IS NULL OR a.begins_at <= now()) AND (a.ends_at IS NULL OR now() < a.ends_at)
LEFT JOIN vehicle v ON v.id = a.vehicle_id
LEFT JOIN customer c ON c.id = v.customer_id
WHERE d.device_number <> '';
COMMENT ON VIEW signal_latest IS 'One row for each device: its latest good position and contact, and the vehicle that it is in now.';
COMMENT ON COLUMN signal_latest.device_id IS 'our number for the device';
COMMENT ON COLUMN signal_latest.device_number IS 'IMEI or the unit''s own id';
COMMENT ON COLUMN signal_latest.device_name IS 'its name for people';
COMMENT ON COLUMN signal_latest.status IS 'unknown, active or retired';
COMMENT ON COLUMN signal_latest.model IS 'maker''s model';
COMMENT ON COLUMN signal_latest.vehicle_id IS 'vehicle that it is in now; null: none';
COMMENT ON COLUMN signal_latest.vehicle_name IS 'that vehicle''s name';
COMMENT ON COLUMN signal_latest.plate IS 'that vehicle''s plate';
COMMENT ON COLUMN signal_latest.customer_id IS 'that vehicle''s customer';
COMMENT ON COLUMN signal_latest.customer_name IS 'that customer''s name';
COMMENT ON COLUMN signal_latest.device_time IS 'time of the latest good position (UTC)';
COMMENT ON COLUMN signal_latest.latitude IS 'degrees WGS84, north positive';
COMMENT ON COLUMN signal_latest.longitude IS 'degrees WGS84, east positive';
COMMENT ON COLUMN signal_latest.altitude_m IS 'metres above sea level';
COMMENT ON COLUMN signal_latest.speed_kmh IS 'km/h';
COMMENT ON COLUMN signal_latest.course_deg IS 'degrees, 0 = north, clockwise';
COMMENT ON COLUMN signal_latest.last_received_at IS 'last contact (UTC)';
COMMENT ON COLUMN signal_latest.last_protocol IS 'protocol of the last contact';
COMMENT ON COLUMN signal_latest.last_peer IS 'network address of the last contact';
COMMENT ON COLUMN signal_latest.connected IS 'its latest connection is not known to be closed';
COMMENT ON COLUMN signal_latest.connected_at IS 'when it last identified itself on a connection (UTC)';
COMMENT ON COLUMN signal_latest.disconnected_at IS 'when such a connection was last closed (UTC)';
COMMENT ON COLUMN signal_latest.expected_interval_s IS 'how often it should report, seconds; null: not known';
COMMENT ON COLUMN signal_latest.quarantine_open IS 'records of it that wait in quarantine';

CREATE VIEW signal_good AS
SELECT
    d.device_number, s.device_id, s.device_time, s.wire_time, s.received_at, s.latitude, s.longitude, s.altitude_m,
    s.speed_kmh, s.course_deg, s.satellites, s.event_code, s.attributes, s.protocol
FROM signal s JOIN device d ON d.id = s.device_id
WHERE s.fix_valid AND s.latitude BETWEEN -90 AND 90 AND s.longitude BETWEEN -180 AND 180 AND s.device_time IS NOT NULL;
COMMENT ON VIEW signal_good IS 'Good positions: the device had a fix, it is on the globe, and its time is known.';
COMMENT ON COLUMN signal_good.device_number IS 'IMEI or the unit''s own id';
COMMENT ON COLUMN signal_good.device_id IS 'our number for the device';
COMMENT ON COLUMN signal_good.device_time IS 'when it happened (UTC)';
COMMENT ON COLUMN signal_good.wire_time IS 'the time as sent; give a range of it, so that only its months are read';
COMMENT ON COLUMN signal_good.received_at IS 'when the gateway read it (UTC)';
COMMENT ON COLUMN signal_good.latitude IS 'degrees WGS84, north positive';
COMMENT ON COLUMN signal_good.longitude IS 'degrees WGS84, east positive';
COMMENT ON COLUMN signal_good.altitude_m IS 'metres above sea level';
COMMENT ON COLUMN signal_good.speed_kmh IS 'km/h';
COMMENT ON COLUMN signal_good.course_deg IS 'degrees, 0 = north, clockwise';
COMMENT ON COLUMN signal_good.satellites IS 'satellites used';
COMMENT ON COLUMN signal_good.event_code IS 'maker''s event number or word; null: a periodic record';
COMMENT ON COLUMN signal_good.attributes IS 'everything else, names in docs/attributes.md';
COMMENT ON COLUMN signal_good.protocol IS 'protocol of the frame';

CREATE VIEW vehicle_track AS
SELECT
    v.id AS vehicle_id, v.name AS vehicle_name, v.plate, c.id AS customer_id, c.name AS customer_name,
    s.device_number, s.device_id, s.device_time, s.wire_time, s.received_at, s.latitude, s.longitude, s.altitude_m,
    s.speed_kmh, s.course_deg, s.satellites, s.event_code, s.attributes, s.protocol
FROM vehicle v
JOIN assignment a ON a.vehicle_id = v.id
JOIN signal_good s ON s.device_id = a.device_id
    AND (a.begins_at IS NULL OR a.begins_at <= s.device_time) AND (a.ends_at IS NULL OR s.device_time < a.ends_at)
LEFT JOIN customer c ON c.id = v.customer_id;
COMMENT ON VIEW vehicle_track IS 'Where vehicles were: the good positions of the devices that were in them at the time.';
COMMENT ON COLUMN vehicle_track.vehicle_id IS 'our number for the vehicle';
COMMENT ON COLUMN vehicle_track.vehicle_name IS 'its name';
COMMENT ON COLUMN vehicle_track.plate IS 'its plate';
COMMENT ON COLUMN vehicle_track.customer_id IS 'whom it belongs to';
COMMENT ON COLUMN vehicle_track.customer_name IS 'that customer''s name';
COMMENT ON COLUMN vehicle_track.device_number IS 'the device that was in it';
COMMENT ON COLUMN vehicle_track.device_id IS 'our number for that device';
COMMENT ON COLUMN vehicle_track.device_time IS 'when it happened (UTC)';
COMMENT ON COLUMN vehicle_track.wire_time IS 'the time as sent; give a range of it, a day wider than that of device_time, so that only its months are read';
COMMENT ON COLUMN vehicle_track.received_at IS 'when the gateway read it (UTC)';
COMMENT ON COLUMN vehicle_track.latitude IS 'degrees WGS84, north positive';
COMMENT ON COLUMN vehicle_track.longitude IS 'degrees WGS84, east positive';
COMMENT ON COLUMN vehicle_track.altitude_m IS 'metres above sea level';
COMMENT ON COLUMN vehicle_track.speed_kmh IS 'km/h';
COMMENT ON COLUMN vehicle_track.course_deg IS 'degrees, 0 = north, clockwise';
COMMENT ON COLUMN vehicle_track.satellites IS 'satellites used';
COMMENT ON COLUMN vehicle_track.event_code IS 'maker''s event number or word; null: a periodic record';
COMMENT ON COLUMN vehicle_track.attributes IS 'everything else, names in docs/attributes.md';
COMMENT ON COLUMN vehicle_track.protocol IS 'protocol of the frame';

CREATE VIEW signal_event AS
SELECT
    d.device_number, s.device_id, v.id AS vehicle_id, v.name AS vehicle_name, v.plate, c.id AS customer_id,
    c.name AS customer_name, s.device_time, s.wire_time, s.received_at,
    coalesce(
        CASE
            WHEN s.attributes ->> f.attribute IN ('0', 'false') THEN f.end_name
            WHEN f.by_alarm THEN coalesce(s.attributes ->> 'alarm', f.name)
            ELSE f.name
        END,
        s.attributes ->> 'alarm') AS event,
    f.description, s.protocol, s.event_code, s.fix_valid, s.latitude, s.longitude, s.speed_kmh, s.attributes
FROM signal s
JOIN device d ON d.id = s.device_id
LEFT JOIN event_format f ON f.protocol = s.protocol AND f.code = s.event_code
LEFT JOIN assignment a ON a.device_id = s.device_id
    AND (a.begins_at IS NULL OR a.begins_at <= s.device_time) AND (a.ends_at IS NULL OR s.device_time < a.ends_at)
LEFT JOIN vehicle v ON v.id = a.vehicle_id
LEFT JOIN customer c ON c.id = v.customer_id
WHERE s.event_code IS NOT NULL OR s.attributes ? 'alarm';
COMMENT ON VIEW signal_event IS 'Records that report an event, with its name, and the vehicle that the device was in at the time.';
COMMENT ON COLUMN signal_event.device_number IS 'IMEI or the unit''s own id';
COMMENT ON COLUMN signal_event.device_id IS 'our number for the device';
COMMENT ON COLUMN signal_event.vehicle_id IS 'vehicle that it was in; null: none, or the time is not known';
COMMENT ON COLUMN signal_event.vehicle_name IS 'that vehicle''s name';
COMMENT ON COLUMN signal_event.plate IS 'that vehicle''s plate';
COMMENT ON COLUMN signal_event.customer_id IS 'that vehicle''s customer';
COMMENT ON COLUMN signal_event.customer_name IS 'that customer''s name';
COMMENT ON COLUMN signal_event.device_time IS 'when it happened (UTC); null: not known';
COMMENT ON COLUMN signal_event.wire_time IS 'the time as sent; give a range of it, so that only its months are read';
COMMENT ON COLUMN signal_event.received_at IS 'when the gateway read it (UTC)';
COMMENT ON COLUMN signal_event.event IS 'its name by event_format, else the record''s alarm word; null: a code that nobody has named';
COMMENT ON COLUMN signal_event.description IS 'what the maker or the user calls it';
COMMENT ON COLUMN signal_event.protocol IS 'protocol of the frame';
COMMENT ON COLUMN signal_event.event_code IS 'maker''s event number or word; null: only an alarm word';
COMMENT ON COLUMN signal_event.fix_valid IS 'the device says that it had a position fix';
COMMENT ON COLUMN signal_event.latitude IS 'degrees WGS84, north positive';
COMMENT ON COLUMN signal_event.longitude IS 'degrees WGS84, east positive';
COMMENT ON COLUMN signal_event.speed_kmh IS 'km/h';
COMMENT ON COLUMN signal_event.attributes IS 'everything else, names in docs/attributes.md';

-- The role belongs to the whole cluster, and other databases of it may make it at the same moment.

CREATE FUNCTION signalkeep_grant_reader() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    secret text;
BEGIN
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'signalkeep_reader') THEN
            CREATE ROLE signalkeep_reader NOLOGIN;
        END IF;
    EXCEPTION
        WHEN duplicate_object OR unique_violation THEN NULL;
        WHEN insufficient_privilege THEN
            RETURN 'the role signalkeep_reader is not there and ' || current_user || ' may not create it; as a superuser: '
                'CREATE ROLE signalkeep_reader NOLOGIN; then run signalkeep migrate';
    END;
    BEGIN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO signalkeep_reader', current_schema());
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO signalkeep_reader', current_schema());
        EXECUTE format(
            'ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO signalkeep_reader', current_schema());
        FOR secret IN
            SELECT c.relname FROM pg_catalog.pg_class c
            WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v')
              AND obj_description(c.oid, 'pg_class') LIKE '%Not for readers.%'
        LOOP
            EXECUTE format('REVOKE ALL ON %I FROM signalkeep_reader', secret);
        END LOOP;
    EXCEPTION WHEN insufficient_privilege THEN
        RETURN 'signalkeep_reader may not read everything: ' || SQLERRM
            || '; run signalkeep migrate as the owner of the tables';
    END;
    DELETE FROM finding WHERE kind = 'reader_role';
    RETURN '';
END $$;
COMMENT ON FUNCTION signalkeep_grant_reader() IS 'Makes the role signalkeep_reader and lets it read what is and will be here, but for tables whose comment says "Not for readers."; returns what to do if it may not.';

INSERT INTO finding (kind, subject, detail)
SELECT 'reader_role', 'signalkeep_reader', answer FROM signalkeep_grant_reader() AS answer WHERE answer <> '';
