"""A picture of a core that is well, to be broken in one place."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from signalkeep.monitor.picture import DatabaseFacts, JournalFacts, Picture, ProcessFacts, RoleFacts
from signalkeep.store.schema import HEAD
from signalkeep.vitals import GatewayNumbers, Histogram, IngestNumbers, Numbers, Vitals


def gateway_numbers(**changes: Any) -> GatewayNumbers:
    values: dict[str, Any] = {
        "connections_open": 3, "connections_opened": 9, "datagrams": 1, "bytes_received": 5000, "frames": 40,
        "frame_bytes": 4000, "acknowledged": 38, "ack_wait": Histogram([0.01, 0.1], [30, 7, 1], 0.9),
        "refusals": {"checksum": 2}, "held": 2, "pending_bytes": 100, "shut": [], "journal": "ab" * 16,
        "durable_seq": 38,
    }  # fmt: skip
    return GatewayNumbers(**(values | changes))


def ingest_numbers(**changes: Any) -> IngestNumbers:
    values: dict[str, Any] = {
        "records": {"records": 50, "stored": 45, "duplicate": 4, "quarantined": 1}, "batches": 7,
        "batch_time": Histogram([0.1, 1.0], [5, 2, 0], 1.5), "retries": 1, "driving": 1, "positions": {"ab" * 16: 38},
    }  # fmt: skip
    return IngestNumbers(**(values | changes))


def vitals(role: str, instance: int = 0, numbers: Numbers | None = None, **changes: Any) -> Vitals:
    values: dict[str, Any] = {
        "role": role, "instance": instance, "pid": 4242, "version": "1", "beat_s": 1.0, "numbers": numbers,
        "started_at": datetime(2026, 5, 1, tzinfo=UTC),
    }  # fmt: skip
    return Vitals(**(values | changes))


def role(name: str, instance: int = 0, numbers: Numbers | None = None, **changes: Any) -> RoleFacts:
    values: dict[str, Any] = {
        "vitals": vitals(name, instance, numbers), "lives": True, "listens": True, "beat_age_s": 0.5,
        "handled_age_s": 1.0, "process": ProcessFacts(50_000_000, 3.5, 20),
    }  # fmt: skip
    return RoleFacts(role=name, instance=instance, **(values | changes))


def core(**changes: Any) -> list[RoleFacts]:
    """The roles of a core; `gateway=...` and so on replaces one, None takes it away."""
    roles = {
        "gateway": role("gateway", numbers=gateway_numbers()),
        "ingest": role("ingest", numbers=ingest_numbers()),
        "monitor": role("monitor"),
        "supervisor": role("supervisor"),
    }
    return [facts for facts in (roles | changes).values() if facts is not None]


def journal(**changes: Any) -> JournalFacts:
    values: dict[str, Any] = {
        "journals": 2, "segments": 3, "used_bytes": 1000, "free_bytes": 10**12, "durable_entries": 60,
        "lag_entries": 0, "lag_max_entries": 0, "oldest_age_s": 0.0,
    }  # fmt: skip
    return JournalFacts(**(values | changes))


def picture(**changes: Any) -> Picture:
    values: dict[str, Any] = {
        "roles": core(), "restarts": {"gateway-0": 1, "postgres-0": 2}, "supervised": True, "journal": journal(),
        "journal_fault": "", "journal_cap_bytes": 10**10, "disk_free_min_bytes": 10**8,
        "database": DatabaseFacts(up=True, why="", round_trip_s=0.001, schema=HEAD, cursors={}),
        "schema_wanted": HEAD, "last_backup_s": 1.7e9, "hung_after_s": 15.0,
    }  # fmt: skip
    return Picture(**(values | changes))
