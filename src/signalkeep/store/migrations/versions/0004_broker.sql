-- What relays and workers on different machines tell each other, and what came of messages that were none of ours.

CREATE TABLE relay (
    journal_id  integer NOT NULL REFERENCES journal,
    lane        integer NOT NULL,
    seq         bigint NOT NULL DEFAULT 0,
    epoch       bigint NOT NULL DEFAULT 1,
    holes       bigint NOT NULL DEFAULT 0,
    hole_epoch  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (journal_id, lane)
) WITH (fillfactor = 50);
COMMENT ON TABLE relay IS 'How far each lane of each journal was handed to the broker. Nothing depends on it: the cursors say what is stored.';
COMMENT ON COLUMN relay.journal_id IS 'the journal';
COMMENT ON COLUMN relay.lane IS 'the lane, 0 .. lanes-1';
COMMENT ON COLUMN relay.seq IS 'the broker has confirmed everything up to and with this sequence number; noted about once a second';
COMMENT ON COLUMN relay.epoch IS 'grows whenever the relay goes back to the cursor because something was lost on the way';
COMMENT ON COLUMN relay.holes IS 'messages that a worker dropped because what comes before them was missing; the relay sends them again';
COMMENT ON COLUMN relay.hole_epoch IS 'the highest epoch of such a message';

CREATE TABLE decode_attempt (
    journal_id  integer NOT NULL REFERENCES journal,
    seq         bigint NOT NULL,
    attempts    integer NOT NULL DEFAULT 1,
    last_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (journal_id, seq)
);
COMMENT ON TABLE decode_attempt IS 'Frames of messages that came back from workers again and again: each is read by itself, and noted here before.';
COMMENT ON COLUMN decode_attempt.journal_id IS 'the journal';
COMMENT ON COLUMN decode_attempt.seq IS 'sequence number of the frame';
COMMENT ON COLUMN decode_attempt.attempts IS 'how often it was begun; a frame that ended several processes is quarantined unread';
COMMENT ON COLUMN decode_attempt.last_at IS 'when it was last begun (UTC)';

CREATE TABLE set_aside (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now(),
    queue   text NOT NULL,
    reason  text NOT NULL CHECK (reason IN ('foreign', 'damaged', 'unroutable', 'returned')),
    detail  text NOT NULL,
    bytes   bigint NOT NULL,
    body    bytea NOT NULL
);
COMMENT ON TABLE set_aside IS 'Messages in our queues that no worker could use. What was ours among them is sent again from its journal.';
COMMENT ON COLUMN set_aside.id IS 'our number for it';
COMMENT ON COLUMN set_aside.at IS 'when it was set aside (UTC)';
COMMENT ON COLUMN set_aside.queue IS 'the queue in which it was found';
COMMENT ON COLUMN set_aside.reason IS 'foreign: not a message of ours; damaged: its checksum or content is wrong; unroutable: no queue was bound; returned: given back too often';
COMMENT ON COLUMN set_aside.detail IS 'what exactly was wrong, and who sent it as far as it says';
COMMENT ON COLUMN set_aside.bytes IS 'its whole length, bytes';
COMMENT ON COLUMN set_aside.body IS 'its beginning, at most 64 KiB; nothing for what the journal has';

CREATE TABLE announced (
    stream    text PRIMARY KEY,
    position  jsonb NOT NULL,
    at        timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE announced IS 'How far stored signals were published to applications, in the order in which they became visible.';
COMMENT ON COLUMN announced.stream IS 'the exchange';
COMMENT ON COLUMN announced.position IS 'since: snapshot up to which all was published; until and place: how far it has come on the way to the next';
COMMENT ON COLUMN announced.at IS 'when that was noted (UTC)';
