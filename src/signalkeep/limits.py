"""Every bound in one place. What a user may change is a setting (`config.py`) with its default taken from here.

Sizes are bytes, times are seconds; the unit is in the name. Relations between bounds are asserted at the end.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# What devices may say
DEVICE_NUMBER_CHARS_MAX: Final = 64
FRAME_BYTES_MAX: Final = 64 * KIB
CONTEXT_BYTES_MAX: Final = 4 * KIB
REFUSED_SAMPLE_BYTES_MAX: Final = 64
ATTRIBUTES_PER_SIGNAL_MAX: Final = 512
ATTRIBUTE_NAME_CHARS_MAX: Final = 128
ATTRIBUTE_TEXT_CHARS_MAX: Final = 16 * KIB
EVENT_CODE_CHARS_MAX: Final = 64
JSON_NESTING_MAX: Final = 32  # braces and brackets within each other in one event

# Gateway
PORT_MAX: Final = 65_535
GATEWAY_PROCESSES_MAX: Final = 16
CONNECTIONS_MAX: Final = 16_000  # with some to spare below 20,000 open files, a usual limit
CONNECTIONS_PER_ADDRESS_MAX: Final = 1_000  # carriers put many devices behind one address
HANDSHAKE_S_MAX: Final = 30.0
MESSAGE_S_MAX: Final = 60.0
IDLE_S_MAX: Final = 900.0
READ_BYTES_MAX: Final = 8 * KIB  # from one connection, then others get their turn
HELD_REPLIES_PER_CONNECTION_MAX: Final = 32
HELD_BYTES_PER_CONNECTION_MAX: Final = 256 * KIB
UNREAD_BYTES_PER_CONNECTION_MAX: Final = 16 * KIB  # answers that a device does not take: above it it is not read
SEND_BUFFER_BYTES: Final = 64 * KIB  # the kernel's, per connection: answers are short
LISTEN_BACKLOG: Final = 1024
KEEPALIVE_IDLE_S: Final = 60  # of TCP: how fast a connection is missed whose other end is gone
KEEPALIVE_INTERVAL_S: Final = 20
KEEPALIVE_PROBES: Final = 4
IDENTITIES_NOTED_MAX: Final = 16  # session entries of one connection that goes on changing its identity
PROXY_HEADER_BYTES_MAX: Final = 4 * KIB
DATAGRAMS_PER_WAKE_UP_MAX: Final = 64  # then others get their turn
DATAGRAM_RECEIVE_BUFFER_BYTES: Final = 4 * MIB  # the kernel's, per port
DATAGRAMS_HELD_MAX: Final = 20_000
DATAGRAMS_HELD_PER_ADDRESS_MAX: Final = 1_000
DESCRIPTORS_SPARE: Final = 256  # beside connections: journal, database, listening sockets
STOP_GRACE_S: Final = 10.0
UNKNOWN_BYTES_PER_DEVICE_MAX: Final = 1 * MIB
UNKNOWN_BYTES_PER_ADDRESS_MAX: Final = 8 * MIB
UNKNOWN_BYTES_TOTAL_MAX: Final = 64 * MIB
REGISTRY_REFRESH_S: Final = 30.0
REGISTRY_PAGE_DEVICES: Final = 2_000  # decoded in one go
REGISTRY_PAUSE_S: Final = 0.5  # between two readings, however many changes are told

# Journal
JOURNAL_BLOCK_BYTES: Final = 4096  # batches start on these, so no write touches a block that holds acknowledged data
SEGMENT_BYTES: Final = 64 * MIB
SEGMENT_BYTES_MIN: Final = 256 * KIB
SEGMENT_FILL_BYTES: Final = 2 * MIB  # of zeros, written and synced at a time
BATCH_BYTES_MAX: Final = 8 * MIB
BATCH_ENTRIES_MAX: Final = 20_000
JOURNAL_PENDING_BYTES_MAX: Final = 32 * MIB  # appended, not yet durable: above it sockets are not read
JOURNAL_REPLAY_WINDOW_H: Final = 72
JOURNAL_KEEP_BYTES: Final = 20 * GIB  # what the database has is unlinked early above this
JOURNAL_CAP_BYTES: Final = 40 * GIB  # above this no socket is read and nothing is acknowledged
DISK_FREE_BYTES_MIN: Final = 256 * MIB
DISK_RESUME_FACTOR: Final = 0.95  # hysteresis: reading resumes below this share of the cap
JOURNAL_SHELF_BYTES: Final = 8 * MIB  # decoded and kept for readers that come to the same place
TALLY_INTERVAL_S: Final = 1.0

# Broker
LANES_MAX: Final = 1024
LANES_WITH_BROKER: Final = 64  # of a journal that is sent on; fixed when it is opened
BROKER_QUEUES: Final = 8  # each takes a group of lanes and has one worker at a time
BROKER_MESSAGE_BYTES_MAX: Final = 256 * KIB  # of entries; a single large one may exceed it
BROKER_MESSAGE_ENTRIES_MAX: Final = 5_000
BROKER_WINDOW_BYTES: Final = 8 * MIB  # per journal and queue: sent and not yet in the database
BROKER_GATHER_S: Final = 0.1  # between two messages that are not full: many small ones cost more
BROKER_PUBLISH_S_MAX: Final = 15.0  # until the broker has confirmed a message
BROKER_SILENCE_S: Final = 60.0  # a queue that confirms nothing for longer is deleted and made again
BROKER_CALL_S_MAX: Final = 15.0  # connecting, declaring, asking
BROKER_QUIET_S: Final = 15.0  # without a message; then a worker asks whether its queue still serves it
BROKER_HEARTBEAT_S: Final = 15  # of AMQP; three that are missed end a connection
BROKER_PREFETCH: Final = 32  # messages that a worker holds at a time, over all of its queues
BROKER_PREFETCH_MIN: Final = 4  # of one queue
RELAY_LOOK_S: Final = 0.25  # how often a relay asks the database for its cursors
RELAY_NOTE_S: Final = 1.0  # how often it notes how far it has sent
RELAY_IDLE_S: Final = 1.0  # lanes without entries are moved on this often
RELAY_STALL_S: Final = 10.0  # sent, not in the database, and nothing in the queue: longer means lost
RELAY_STALL_S_MAX: Final = 300.0
CANCEL_AGAIN_S: Final = 1.0  # after which a task that goes on is told once more to end
BROKER_AWAY_S: Final = 5.0  # of one worker: then it leaves its queues to those that reach the broker
CLAIM_S: Final = 1.0  # how often workers look whether queues are free or unfairly shared
CLAIM_SILENT_S: Final = 60.0  # without that look: who holds them hangs, and others take them
DELIVERIES_BEFORE_CARE: Final = 3  # a message that came back as often is read frame by frame
DECODE_ATTEMPTS_MAX: Final = 3  # a frame that ended as many processes is quarantined unread
SET_ASIDE_BYTES_MAX: Final = 64 * KIB  # kept of a message that is none of ours
SET_ASIDE_ROWS_MAX: Final = 10_000  # more are only counted
ANNOUNCE_PAGE_ROWS: Final = 500
ANNOUNCE_POLL_S: Final = 0.3

# Processes
INGEST_NICE: Final = 5  # how much lower its priority is than that of the gateway
GARBAGE_THRESHOLDS: Final = (20_000, 20, 50)  # of Python's collector: objects, then collections of the one before

# Ingest and store
INGEST_BATCH_FRAMES_MAX: Final = 10_000
INGEST_BATCH_BYTES_MAX: Final = 2 * MIB  # some 20,000 records of 100 bytes
DEVICE_CACHE_MAX: Final = 500_000  # registry entries that an ingest process remembers
UNKNOWN_MENTIONED_MAX: Final = 1_000  # unknown devices that the log names, for each connection to the database
INGEST_GATHER_S: Final = 0.2  # between two reads of a journal that do not fill a transaction: many small ones cost more
INGEST_POLL_S_MIN: Final = 0.005
INGEST_POLL_S_MAX: Final = 0.1
WRITE_TRIES_MAX: Final = 10  # of one range, while registry or partitions change under it
CURSOR_REREAD_S: Final = 60.0
LOOK_AGAIN_S: Final = 5.0  # where the database could not be asked
JOURNAL_SCAN_S: Final = 1.0
SEAL_AGAIN_S: Final = 1.0  # until a seal that could not be written is tried again
PROGRESS_NOTE_S: Final = 1.0
DRIVERS_MAX: Final = 48  # journals that one ingest process drives at a time, each over a connection of its own
RETRY_S_MIN: Final = 0.2
RETRY_S_MAX: Final = 15.0
DATABASE_CONNECT_S_MAX: Final = 10.0
TRANSACTION_SILENT_S: Final = 60.0  # of who writes rows: it hangs, and others need what it has locked
DATABASE_COMMAND_S_MAX: Final = 120.0
MIGRATION_S_MAX: Final = 24 * 3600.0  # one migration may rewrite a large table
PARTITION_LOCK_S_MAX: Final = 5.0  # writers of device and journal queue behind us while we wait
MONTH_COUNT_S_MAX: Final = 3600.0  # counting what a month holds, in nobody's way, before it is dropped
FUTURE_S_MAX: Final = 24 * 3600  # a wire time later than received_at by more than this is quarantined
POSITION_FUTURE_S_MAX: Final = 60  # device_state never moves further into the future than this
AUDIT_DRAIN_S_MAX: Final = 60.0  # how long an audit with an oracle waits for ingest
QUARANTINE_RELEASE_BATCH: Final = 500
ERASE_BATCH_ROWS: Final = 5_000  # per transaction, which holds the device's lock
IMPORT_ROWS_MAX: Final = 1_000_000  # of one file of devices
IMPORT_STATEMENT_S_MAX: Final = 3600.0
TAIL_PAGE_ROWS: Final = 500
TAIL_POLL_S: Final = 0.3
INTEGER_MAX: Final = 2**31 - 1  # of a column of type integer
BIGINT_MAX: Final = 2**63 - 1  # of a column of type bigint

# Quality
QUALITY_LIVE_S_MAX: Final = 300.0  # what arrives later than this after it happened alarms nobody
RECENT_ROWS: Final = 12  # of a device, from which its memory is made anew
EVENT_CODES_REREAD_S: Final = 60.0
SWEEP_PAGE_ROWS: Final = 20_000  # of new signals, whose days are noted in one transaction
SWEEP_DAY_ROWS_MAX: Final = 100_000  # of one device and day; what comes beyond is judged at ingest alone
SWEEP_DAYS_AT_A_TIME: Final = 50
SWEEP_SETTLE_S: Final = 120.0  # a day is judged when it has waited for so long, so that many signals are judged at once
CLEAR_AFTER_SIGNALS: Final = 10  # in a row without a hit: what was wrong is over

# Organizer
LEAD_S: Final = 2.0  # how often it looks whether it leads
LEAD_SILENT_S: Final = 30.0  # without that look: the leader hangs, and another takes over
JOB_S_MAX: Final = 3600.0  # of one run of a job
JOB_SILENT_S: Final = 900.0  # without a word to the database: the job hangs, and others may run it
JOB_JITTER_S_MAX: Final = 5.0  # before the first run of each job
JOB_AGAIN_S: Final = 5.0  # until a run is tried again that found the job running, or no database
JOB_END_S: Final = 60.0  # over what a job may take: then Celery ends the process that runs it
ABANDONED_S: Final = 2  # after which PostgreSQL notices that who asked for something has gone
JOBS_OVERDUE: Final = 3  # times as long as it should take until its next run
MONTHS_LOOK_S: Final = 3600.0  # how often months of signals are made ahead, and dropped
MONTHS_AHEAD: Final = 2  # made before they begin
FLEET_LOOK_S: Final = 300.0  # how often it looks whether an hour is over

# Devices
DEVICE_PAGE_ROWS: Final = 1_000  # judged in one go, then other jobs have their turn
TROUBLES_PAGE_ROWS: Final = 5_000  # written by one statement
ACTIVE_S: Final = 24 * 3600.0  # a device heard of within it is an active one

# Incidents
REOPEN_S: Final = 600.0  # what comes back sooner after it was cleared is the same incident

# Messages
FLAPPING_REOPENED: Final = 3  # opened again as often within the time below: said once, and then when it is quiet
FLAPPING_S: Final = 3600.0
NOTIFY_S: Final = 3.0  # how often it looks whether there is something to tell, and each channel whether something waits
NOTIFY_EVENTS_MAX: Final = 500  # routed in one transaction
NOTIFY_MESSAGES_MAX: Final = 50  # that a channel sends in one run
NOTIFY_RETRY_S_MIN: Final = 10.0
NOTIFY_RETRY_S_MAX: Final = 900.0
NOTIFY_ATTEMPTS_MAX: Final = 200  # of a message: about two days, by the waits above
NOTIFY_FAILED_IN_A_ROW: Final = 3  # tries of a channel: then it is an incident
NOTIFY_TIMEOUT_S_MAX: Final = 300.0  # that may be set for a channel
NOTIFY_PER_HOUR: Final = 30  # messages of a channel, unless it is set
NOTIFY_DIGEST_S: Final = 600.0  # from one digest to the next
NOTIFY_DIGEST_LINES_MAX: Final = 50  # messages that a digest names; it counts the rest
NOTIFY_TITLE_CHARS_MAX: Final = 120
NOTIFY_DETAIL_CHARS_MAX: Final = 4000
NOTIFY_ERROR_CHARS_MAX: Final = 300
NOTIFY_ANSWER_BYTES_MAX: Final = 16 * KIB  # that is read of a webhook's answer
SNOOZE_S_MAX: Final = 30 * 24 * 3600.0
# Are we working
BEAT_WRITE_S: Final = 5.0  # how often a monitor writes down what it sees of its machine
BEAT_ROWS_MAX: Final = 500  # of one machine
SERVICES_LOOK_S: Final = 10.0  # how often the organizer looks at what monitors wrote
SERVICE_BAD_S: Final = 10.0  # what has been bad for less is nobody's business yet
SERVICE_GOOD_S: Final = 30.0  # what has been good for less may be bad again in a moment
SERVICE_BACK_S: Final = 25.0  # after which whoever needs database or broker has tried them again
HOST_SILENT_S: Final = 60.0  # a machine whose monitor wrote nothing for longer
HOST_FORGOTTEN_S: Final = 7 * 24 * 3600.0  # and one that nobody waits for any more
RESTARTS_NAMED: Final = 3  # restarts within RESTARTS_S that are an incident
RESTARTS_S: Final = 600.0
RESTARTS_REMEMBERED: Final = 10
JOB_FAILURES_NAMED: Final = 3  # in a row
JOB_OVERDUE_S: Final = 60.0  # beyond the time that a job may take
CERTIFICATE_S_MIN: Final = 14 * 24 * 3600.0  # one that ends sooner is named
CERTIFICATE_LOOK_S: Final = 60.0
CERTIFICATE_BYTES_MAX: Final = 1 * MIB
RULE_BROKEN_S: Final = 3600.0  # a rule that raised is named for so long
DISK_NEARLY_FACTOR: Final = 2.0  # of journal.disk_free_bytes: less is nearly full
JOURNAL_NEARLY_SHARE: Final = 0.8  # of journal.cap_bytes: more is nearly full
WATCHES_MAX: Final = 50
WATCH_ANSWER_BYTES_MAX: Final = 8 * KIB
CANARY_POLL_S: Final = 0.2
STORAGE_LOOK_S: Final = 60.0
STORAGE_FINDINGS_MAX: Final = 500  # that are looked at, the latest first
STORAGE_NEW_S: Final = 2 * 3600.0  # what is found again while it lasts is over when it was not found for so long
STORAGE_TAKEN_S: Final = 24 * 3600.0  # what happened once is closed so long after a person took it
AUDIT_S: Final = 6 * 3600.0
AUDIT_JOB_S_MAX: Final = 6 * 3600.0
AUDIT_LOOK_S: Final = 300.0  # how often it is asked whether an audit is due
AUDIT_NAMED_MAX: Final = 5  # findings of an audit that its incident names
# Push-back and replay
PUSH_BACK_S_MIN: Final = 60  # before the first try; doubles with every one that fails
PUSH_BACK_S_MAX: Final = 86_400
PUSH_BACK_RUN_S: Final = 1800.0  # of one run: what is due beyond it is left to the next
REPLAY_BATCH_FRAMES: Final = 1_000  # per transaction, which holds the locks of their devices
REPLAY_NAMED_MAX: Final = 20  # frames that a replay names one by one

# Backup
BACKUP_S_MAX: Final = 48 * 3600.0  # one run of one of PostgreSQL's programs
UPGRADE_S_MAX: Final = 48 * 3600.0

# Simulator
SIMULATED_DEVICES_MAX: Final = 100_000
SIMULATED_PACKET_RECORDS_MAX: Final = 10
SIMULATED_BACKLOG_PACKET_RECORDS_MAX: Final = 20  # in a packet of a device that has a backlog; fits a datagram
SIMULATED_BACKLOG_RECORDS_MAX: Final = 10_000  # per device that sends the newest first: made and not sent
SIMULATED_LINGER_S: Final = 2.0  # a record waits no longer for others to share its packet
SIMULATED_CONNECTING_MAX: Final = 200  # connections that a fleet opens at the same time
SIMULATED_ANSWER_S_MAX: Final = 10.0
SIMULATED_DATAGRAM_ANSWER_S: Final = 3.0  # then a datagram is sent again with the same numbers
SIMULATED_DATAGRAM_TRIES_MAX: Final = 4
SIMULATED_RETRY_S_MIN: Final = 0.1
SIMULATED_RETRY_S_MAX: Final = 5.0
SIMULATED_FAULTY_RECORDS_MAX: Final = 500_000  # of a run with planted faults: made before it begins
TRACK_BYTES_MAX: Final = 64 * MIB
TRACK_POINTS_MAX: Final = 1_000_000
TRACK_SKIPPED_LINES_MAX: Final = 1_000  # of a recording that are remembered one by one; more are counted
SEND_LINE_BYTES_MAX: Final = 2 * FRAME_BYTES_MAX + 2  # hexadecimal, with its line end
SEND_ANSWER_BYTES_MAX: Final = FRAME_BYTES_MAX

# Supervisor
RESTART_S_MIN: Final = 0.2
RESTART_S_MAX: Final = 10.0
READY_S_MAX: Final = 20.0  # then `run` says which roles still wait
POSTGRES_START_S_MAX: Final = 60.0
POSTGRES_STOP_S_MAX: Final = 30.0
READER_CONNECTIONS_MAX: Final = 20  # of programs that read over the network: the rest is for the core
READER_STATEMENT_S_MAX: Final = 300
POSTGRES_LOG_BYTES_MAX: Final = 16 * MIB  # rotated at a start above this

# Watching a core
HEARTBEAT_S: Final = 1.0  # how often a role says that it moves
HUNG_S: Final = 15.0  # a role that has not said so for longer counts as hung
PROBE_S: Final = 2.0  # how often the monitor looks at journals and database
PROBE_S_MAX: Final = 5.0  # a look that takes longer has failed
HTTP_REQUEST_BYTES_MAX: Final = 8 * KIB
HTTP_REQUEST_S_MAX: Final = 5.0  # to send a request, and again to take the answer
HTTP_CONNECTIONS_MAX: Final = 32
BACKUP_AGE_S_MAX: Final = 7 * 24 * 3600  # `doctor` warns of an older one
CLOCK_OFFSET_S_MAX: Final = 2.0  # between this machine and the database; `doctor` warns above it

assert BATCH_BYTES_MAX + 2 * JOURNAL_BLOCK_BYTES <= SEGMENT_BYTES
assert FRAME_BYTES_MAX + CONTEXT_BYTES_MAX + JOURNAL_BLOCK_BYTES < SEGMENT_BYTES_MIN
assert FRAME_BYTES_MAX < BATCH_BYTES_MAX <= JOURNAL_PENDING_BYTES_MAX
assert SEGMENT_BYTES % JOURNAL_BLOCK_BYTES == 0 == SEGMENT_BYTES_MIN % JOURNAL_BLOCK_BYTES
assert JOURNAL_KEEP_BYTES <= JOURNAL_CAP_BYTES
assert FRAME_BYTES_MAX <= UNKNOWN_BYTES_PER_DEVICE_MAX <= UNKNOWN_BYTES_PER_ADDRESS_MAX <= UNKNOWN_BYTES_TOTAL_MAX
assert CONNECTIONS_PER_ADDRESS_MAX <= CONNECTIONS_MAX
assert DATAGRAMS_HELD_PER_ADDRESS_MAX <= DATAGRAMS_HELD_MAX
assert HANDSHAKE_S_MAX <= MESSAGE_S_MAX < IDLE_S_MAX
assert GATEWAY_PROCESSES_MAX < DRIVERS_MAX  # living journals leave room for those of gateways that died
assert RETRY_S_MIN < RETRY_S_MAX < CURSOR_REREAD_S
assert HEARTBEAT_S * 3 <= HUNG_S
assert RETRY_S_MAX * 1.25 < SERVICE_BACK_S  # waits have a jitter
assert BEAT_WRITE_S * 3 <= HOST_SILENT_S < HOST_FORGOTTEN_S
assert RESTARTS_NAMED <= RESTARTS_REMEMBERED
