"""From a picture to Prometheus' text: names, units and types by its conventions. Pure.

Every name begins with `signalkeep_`, counters end in `_total`, seconds and bytes are the only units. Labels are role,
instance and reason (and the version, on `build_info` alone): never a device, a journal or an address, so the number of
series does not grow with the fleet. What cannot be known now has no sample: an absent value is better than a wrong one.
docs/operations.md has a line for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from signalkeep import __version__
from signalkeep.monitor.health import live, passed, ready
from signalkeep.monitor.picture import Picture, RoleFacts
from signalkeep.vitals import GatewayNumbers, Histogram, IngestNumbers, RelayNumbers

ROLE = ("role", "instance")
GATEWAY_COUNTERS = (
    ("connections_opened", "connections_opened", "Connections that devices opened."),
    ("datagrams", "datagrams", "Datagrams received."),
    ("received_bytes", "bytes_received", "Bytes received from devices."),
    ("frames", "frames", "Frames handed to the journal."),
    ("frame_bytes", "frame_bytes", "Bytes of the frames handed to the journal."),
    ("acknowledged", "acknowledged", "Frames that became durable, so that their replies could leave."),
)
GATEWAY_GAUGES = (
    ("connections_open", "connections_open", "Connections open now."),
    ("held_replies", "held", "Replies that wait for the journal."),
    ("pending_bytes", "pending_bytes", "Bytes appended to the journal and not durable yet."),
)
INGEST_COUNTERS = (
    ("records", "Records that came out of frames."),
    ("stored", "Records that became signals."),
    ("duplicate", "Records that the database had already."),
    ("quarantined", "Records put into quarantine."),
    ("suppressed", "Records that were stored, or not, without being a signal of their own."),
)
RELAY_COUNTERS = (
    ("messages", "messages", "Messages that the broker has confirmed."),
    ("message_bytes", "message_bytes", "Bytes of these messages."),
    ("entries", "entries", "Journal entries in these messages."),
    ("failures", "failures", "Messages without a confirm; each is sent again."),
    ("announced_signals", "announced", "Signals published to applications."),
)
RELAY_GAUGES = (
    ("window_bytes", "window_bytes", "Sent and not yet in the database."),
    ("connected", "connected", "1 if there is a connection to the broker."),
    ("blocked", "blocked", "1 if the broker takes nothing, for an alarm of its memory or disk."),
    ("journals_driven", "driving", "Journals being sent."),
)
WORKER_COUNTERS = (
    ("messages", "messages", "Messages taken off the queues."),
    ("messages_doubled", "doubles", "Messages dropped because the database had them."),
    ("messages_beyond_a_hole", "holes", "Messages dropped because something before them was missing."),
)
WORKER_GAUGES = (
    ("messages_in_hand", "in_hand", "Messages received and not acknowledged."),
    ("broker_connected", "connected", "1 if there is a connection to the broker."),
)
SHUT_REASONS = ("disk", "journal_behind", "stopping")


def exposition(picture: Picture) -> bytes:
    """The body of /metrics, in text format 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(picture))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, picture: Picture) -> None:
        self._picture = picture

    def collect(self) -> Iterable[Metric]:
        return families(self._picture)


def families(picture: Picture) -> Iterator[Metric]:
    """Every metric, with its samples."""
    yield _gauge("build_info", "1; the version stands in the label.", [((__version__,), 1)], ("version",))
    yield _gauge("live", "1 if every process that should run runs and moves.", [((), passed(live(picture)))])
    yield _gauge("ready", "1 if devices are acknowledged.", [((), passed(ready(picture)))])
    if picture.last_backup_s is not None:
        value = picture.last_backup_s
        yield _gauge("last_backup_timestamp_seconds", "When the last backup succeeded.", [((), value)])
    yield from _roles(picture)
    yield from _gateways(picture.roles)
    yield from _journal(picture)
    yield from _relays(picture.roles)
    yield from _ingest(picture.roles)
    yield from _workers(picture.roles)
    yield from _database(picture)


def _gauge(
    name: str, text: str, samples: Iterable[tuple[Sequence[str], float]], labels: Sequence[str] = ()
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"signalkeep_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counter(
    name: str, text: str, samples: Iterable[tuple[Sequence[str], float]], labels: Sequence[str] = ROLE
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"signalkeep_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _histogram(name: str, text: str, samples: Iterable[tuple[Sequence[str], Histogram]]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(f"signalkeep_{name}", text, labels=ROLE)
    for values, histogram in samples:
        bounds = [*map(str, histogram.bounds_s), "+Inf"]
        family.add_metric(values, list(zip(bounds, accumulate(histogram.counts), strict=True)), histogram.sum_s)
    return family


def _labels(role: RoleFacts) -> tuple[str, str]:
    return role.role, str(role.instance)


def _roles(picture: Picture) -> Iterator[Metric]:
    roles = picture.roles
    beating = [role for role in roles if role.vitals is not None]
    yield _gauge("role_up", "1 if the process of the role is there.", [(_labels(r), r.lives) for r in roles], ROLE)
    yield _gauge(
        "role_heartbeat_age_seconds",
        "Since the role's loop last moved.",
        [(_labels(r), r.beat_age_s) for r in beating],
        ROLE,
    )
    yield _gauge(
        "role_progress_age_seconds",
        "Since the role last handled something: a durable entry, a written batch.",
        [(_labels(r), r.handled_age_s) for r in beating if r.vitals and r.vitals.numbers],
        ROLE,
    )
    restarts = [(name.rpartition("-"), count) for name, count in picture.restarts.items()]
    yield _counter(
        "role_restarts", "Starts after the first, by the supervisor.", [((r, i), n) for (r, _, i), n in restarts]
    )
    seen = [(_labels(role), role.process) for role in roles if role.process is not None]
    yield _gauge(
        "process_resident_memory_bytes", "Memory of the role.", [(labels, p.resident_bytes) for labels, p in seen], ROLE
    )
    yield _counter("process_cpu_seconds", "CPU time of the role.", [(labels, p.cpu_s) for labels, p in seen])
    files = [(labels, p.open_files) for labels, p in seen if p.open_files is not None]
    yield _gauge("process_open_fds", "File descriptors that the role has open.", files, ROLE)


def _gateways(roles: Sequence[RoleFacts]) -> Iterator[Metric]:
    known = [
        (_labels(role), role.vitals.numbers)
        for role in roles
        if role.lives and role.vitals is not None and isinstance(role.vitals.numbers, GatewayNumbers)
    ]
    for name, field, text in GATEWAY_COUNTERS:
        yield _counter(f"gateway_{name}", text, [(labels, getattr(n, field)) for labels, n in known])
    for name, field, text in GATEWAY_GAUGES:
        yield _gauge(f"gateway_{name}", text, [(labels, getattr(n, field)) for labels, n in known], ROLE)
    yield _counter(
        "gateway_refusals",
        "What was refused without an acknowledgement, by reason (docs/reasons.md).",
        [((*labels, reason), count) for labels, n in known for reason, count in sorted(n.refusals.items())],
        (*ROLE, "reason"),
    )
    yield _histogram(
        "gateway_acknowledgement_wait_seconds",
        "From reading a frame to its being durable.",
        [(labels, n.ack_wait) for labels, n in known],
    )
    yield _gauge("gateway_intake_open", "1 if sockets are read.", [(labels, not n.shut) for labels, n in known], ROLE)
    yield _gauge(
        "gateway_intake_shut",
        "1 for each reason for which sockets are not read.",
        [((*labels, why), why in n.shut) for labels, n in known for why in sorted({*SHUT_REASONS, *n.shut})],
        (*ROLE, "reason"),
    )


def _journal(picture: Picture) -> Iterator[Metric]:
    yield _gauge("journal_cap_bytes", "Above it, sockets are not read.", [((), picture.journal_cap_bytes)])
    facts = picture.journal
    if facts is None:
        return
    for name, text, value in (
        ("journal_bytes", "What the journals take on the disk.", facts.used_bytes),
        ("journal_free_bytes", "Space left on the journals' file system.", facts.free_bytes),
        ("journal_directories", "Journals on the disk; one for each start of a gateway.", facts.journals),
        ("journal_segments", "Segment files of all journals.", facts.segments),
        ("journal_durable_entries", "Entries on stable storage, over all journals on the disk.", facts.durable_entries),
        ("journal_lag_entries", "Durable and not in the database, over all journals.", facts.lag_entries),
        ("journal_lag_max_entries", "The same of the journal that is furthest behind.", facts.lag_max_entries),
        ("journal_oldest_lag_age_seconds", "Age of the oldest entry not in the database.", facts.oldest_age_s),
    ):
        if value is not None:
            yield _gauge(name, text, [((), value)])


def _ingest(roles: Sequence[RoleFacts]) -> Iterator[Metric]:
    known = [
        (_labels(role), role.vitals.numbers)
        for role in roles
        if role.lives and role.vitals is not None and isinstance(role.vitals.numbers, IngestNumbers)
    ]
    for field, text in INGEST_COUNTERS:
        name = "ingest_records" if field == "records" else f"ingest_records_{field}"
        yield _counter(name, text, [(labels, n.records[field]) for labels, n in known if field in n.records])
    yield _counter("ingest_batches", "Batches written.", [(labels, n.batches) for labels, n in known])
    yield _counter(
        "ingest_retries", "Connections after a driver's first: a write failed.", [(ls, n.retries) for ls, n in known]
    )
    yield _histogram(
        "ingest_batch_seconds", "Decoding and writing one batch.", [(labels, n.batch_time) for labels, n in known]
    )
    yield _gauge("ingest_journals_driven", "Journals being followed.", [(ls, n.driving) for ls, n in known], ROLE)
    yield _counter(
        "ingest_broken_checks",
        "Rules of quality that could not be asked because the check itself broke, by rule; no signal is lost by it.",
        [((*labels, rule), count) for labels, n in known for rule, count in sorted(n.broken_rules.items())],
        (*ROLE, "rule"),
    )


def _relays(roles: Sequence[RoleFacts]) -> Iterator[Metric]:
    known = [
        (_labels(role), role.vitals.numbers)
        for role in roles
        if role.lives and role.vitals is not None and isinstance(role.vitals.numbers, RelayNumbers)
    ]
    for name, field, text in RELAY_COUNTERS:
        yield _counter(f"relay_{name}", text, [(labels, getattr(n, field)) for labels, n in known])
    for name, field, text in RELAY_GAUGES:
        yield _gauge(f"relay_{name}", text, [(labels, getattr(n, field)) for labels, n in known], ROLE)
    yield _counter(
        "relay_went_back",
        "Times that a queue was sent again from the cursor, by the evidence of a loss.",
        [((*labels, why), count) for labels, n in known for why, count in sorted(n.went_back.items())],
        (*ROLE, "reason"),
    )
    yield _histogram(
        "relay_confirm_seconds",
        "From sending a message to its confirm.",
        [(labels, n.confirm_time) for labels, n in known],
    )


def _workers(roles: Sequence[RoleFacts]) -> Iterator[Metric]:
    known = [
        (_labels(role), role.vitals.numbers.worker)
        for role in roles
        if role.lives
        and role.vitals is not None
        and isinstance(role.vitals.numbers, IngestNumbers)
        and role.vitals.numbers.worker is not None
    ]
    for name, field, text in WORKER_COUNTERS:
        yield _counter(f"ingest_{name}", text, [(labels, getattr(n, field)) for labels, n in known])
    for name, field, text in WORKER_GAUGES:
        yield _gauge(f"ingest_{name}", text, [(labels, getattr(n, field)) for labels, n in known], ROLE)
    yield _gauge("ingest_queues", "Queues that it takes.", [(labels, len(n.queues)) for labels, n in known], ROLE)
    yield _counter(
        "ingest_messages_set_aside",
        "Messages of no use, by reason.",
        [((*labels, why), count) for labels, n in known for why, count in sorted(n.set_aside.items())],
        (*ROLE, "reason"),
    )


def _database(picture: Picture) -> Iterator[Metric]:
    database = picture.database
    yield _gauge("database_up", "1 if PostgreSQL answered the last look.", [((), database.up)])
    if database.round_trip_s is not None:
        yield _gauge("database_round_trip_seconds", "A short question and its answer.", [((), database.round_trip_s)])
    current = database.schema == picture.schema_wanted
    yield _gauge(
        "database_schema_current", "1 if the schema is this version's.", [((), current)] if database.up else []
    )
