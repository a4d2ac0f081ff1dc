"""The exposition by rule: what Prometheus reads, and no series that would grow with the fleet."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from signalkeep.monitor.metrics import exposition
from signalkeep.monitor.picture import DatabaseFacts, Picture
from tests.monitor.pictures import core, gateway_numbers, ingest_numbers, journal, picture, role

DOCS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
LABELS = {"role", "instance", "protocol", "reason", "le"}
UNITS = {"seconds", "bytes"}
NOT_UNITS = {"ms", "milliseconds", "us", "minutes", "hours", "kb", "mb", "kib", "mib", "gib", "percent", "s"}


def parsed(shown: Picture) -> list[Metric]:
    return list(text_string_to_metric_families(exposition(shown).decode()))


def values(families: Iterable[Metric]) -> dict[str, float]:
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in families
        for sample in family.samples
    }


def faults(families: Iterable[Metric]) -> list[str]:
    """What breaks the rules of names, units and labels."""
    found = []
    for family in families:
        name = family.name
        words = name.split("_")
        if not re.fullmatch(r"signalkeep(_[a-z0-9]+)+", name):
            found.append(f"{name}: not a name of ours")
        if NOT_UNITS & set(words):
            found.append(f"{name}: not a base unit")
        if UNITS & set(words) and words[-1] not in UNITS:
            found.append(f"{name}: the unit stands last")
        if family.type not in {"counter", "gauge", "histogram"}:
            found.append(f"{name}: {family.type}")
        if family.type == "histogram" and words[-1] not in UNITS:
            found.append(f"{name}: a histogram of what")
        if not family.documentation.endswith("."):
            found.append(f"{name}: says not what it is")
        for sample in family.samples:
            if family.type == "counter" and not sample.name.endswith("_total"):
                found.append(f"{sample.name}: a counter ends in _total")
            if family.type == "gauge" and sample.name.endswith(("_total", "_count", "_sum", "_bucket")):
                found.append(f"{sample.name}: looks like a counter")
            allowed = {"version"} if name == "signalkeep_build_info" else LABELS
            if not set(sample.labels) <= allowed:
                found.append(f"{sample.name}: labels {sorted(sample.labels)}")
    return found


@pytest.mark.parametrize(
    "shown",
    [
        picture(),
        picture(roles=[], journal=None, database=DatabaseFacts(), last_backup_s=None, restarts={}, supervised=False),
        picture(roles=core(gateway=role("gateway", vitals=None, lives=False, process=None))),
        picture(journal=journal(lag_entries=None, lag_max_entries=None, oldest_age_s=None)),
    ],
)
def test_names_units_types_and_labels(shown: Picture) -> None:
    assert faults(parsed(shown)) == []


def test_the_rules_can_be_broken() -> None:
    text = (
        "# HELP wait_ms A wait\n# TYPE wait_ms gauge\nwait_ms 1\n"
        '# HELP signalkeep_x Text.\n# TYPE signalkeep_x gauge\nsignalkeep_x{device="8"} 1\n'
        "# HELP signalkeep_seconds_waited Text.\n# TYPE signalkeep_seconds_waited gauge\nsignalkeep_seconds_waited 1\n"
    )
    assert len(faults(text_string_to_metric_families(text))) == 5


@pytest.mark.parametrize(
    ("sample", "value"),
    [
        ("signalkeep_build_info", 1), ("signalkeep_ready", 1), ("signalkeep_live", 1),
        ("signalkeep_role_restarts_total{postgres}", 2), ("signalkeep_role_up{ingest}", 1),
        ("signalkeep_process_resident_memory_bytes{gateway}", 50_000_000),
        ("signalkeep_process_cpu_seconds_total{gateway}", 3.5), ("signalkeep_process_open_fds{gateway}", 20),
        ("signalkeep_gateway_frames_total{gateway}", 40), ("signalkeep_gateway_connections_open{gateway}", 3),
        ("signalkeep_gateway_acknowledged_total{gateway}", 38), ("signalkeep_gateway_intake_open{gateway}", 1),
        ("signalkeep_gateway_acknowledgement_wait_seconds_count{gateway}", 38),
        ("signalkeep_gateway_acknowledgement_wait_seconds_sum{gateway}", 0.9),
        ("signalkeep_ingest_records_total{ingest}", 50), ("signalkeep_ingest_records_stored_total{ingest}", 45),
        ("signalkeep_ingest_batches_total{ingest}", 7), ("signalkeep_ingest_retries_total{ingest}", 1),
        ("signalkeep_journal_bytes", 1000), ("signalkeep_journal_segments", 3), ("signalkeep_database_up", 1),
        ("signalkeep_database_schema_current", 1), ("signalkeep_last_backup_timestamp_seconds", 1.7e9),
    ],
)  # fmt: skip
def test_values(sample: str, value: float) -> None:
    name, _, named_role = sample.rstrip("}").partition("{")
    found = [
        one.value
        for family in parsed(picture())
        for one in family.samples
        if one.name == name and one.labels.get("role", "") == named_role
    ]
    assert found == [value]


def test_reasons_are_labels_and_buckets_are_cumulative() -> None:
    found = values(parsed(picture(roles=core(gateway=role("gateway", numbers=gateway_numbers(shut=["disk"]))))))
    place = "('instance', '0')"
    assert found[f"signalkeep_gateway_refusals_total[{place}, ('reason', 'checksum'), ('role', 'gateway')]"] == 2
    assert found[f"signalkeep_gateway_intake_shut[{place}, ('reason', 'disk'), ('role', 'gateway')]"] == 1
    assert found[f"signalkeep_gateway_intake_shut[{place}, ('reason', 'stopping'), ('role', 'gateway')]"] == 0
    assert found[f"signalkeep_gateway_intake_open[{place}, ('role', 'gateway')]"] == 0
    buckets = [
        value for name, value in found.items() if name.startswith("signalkeep_gateway_ack") and "_bucket" in name
    ]
    assert buckets == [30, 37, 38]


def test_two_of_a_role_have_series_of_their_own() -> None:
    second = role("gateway", 1, gateway_numbers(frames=7))
    found = values(parsed(picture(roles=core(second=second))))
    assert found["signalkeep_gateway_frames_total[('instance', '1'), ('role', 'gateway')]"] == 7


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        ({"last_backup_s": None}, "signalkeep_last_backup"),
        ({"journal": None}, "signalkeep_journal_bytes"),
        ({"journal": journal(lag_entries=None)}, "signalkeep_journal_lag_entries"),
        ({"database": DatabaseFacts()}, "signalkeep_database_round_trip"),
        ({"database": DatabaseFacts()}, "signalkeep_database_schema"),
        ({"roles": core(gateway=role("gateway", lives=False, numbers=gateway_numbers()))}, "signalkeep_gateway"),
    ],
)
def test_what_is_not_known_has_no_sample(changes: dict[str, Any], absent: str) -> None:
    assert any(name.startswith(absent) for name in values(parsed(picture())))
    assert not any(name.startswith(absent) for name in values(parsed(picture(**changes))))


def test_the_page_for_operators_has_a_line_for_every_metric_and_no_other() -> None:
    documented = re.findall(r"^\| `(signalkeep_\w+)` \|", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    records = ingest_numbers().records | {"suppressed": 1}
    everything = picture(roles=core(ingest=role("ingest", numbers=ingest_numbers(records=records))))
    exposed = [f"{family.name}_total" if family.type == "counter" else family.name for family in parsed(everything)]
    assert documented == exposed
