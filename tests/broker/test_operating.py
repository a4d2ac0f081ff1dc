"""What operators see of the broker: doctor, status, settings."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from signalkeep.cli.doctor_broker import check_broker
from signalkeep.cli.settings import masked
from signalkeep.cli.status import BrokerStatus, broker_of
from signalkeep.config import Settings, load
from signalkeep.errors import SettingsError
from signalkeep.vitals import Histogram, IngestNumbers, RelayNumbers, Vitals, WorkerNumbers
from tests.rabbit import RabbitNode


def settings(tmp_path: Path, url: str, management: str = "http://127.0.0.1:1") -> Settings:
    environ = {"SIGNALKEEP_BROKER__URL": url, "SIGNALKEEP_BROKER__MANAGEMENT_URL": management}
    return load(tmp_path, environ=environ)


def test_doctor_looks_and_makes_nothing(tmp_path: Path, vhost_url: str, rabbit: RabbitNode) -> None:
    vhost = vhost_url.rpartition("/")[2]
    check = check_broker(settings(tmp_path, vhost_url, rabbit.management_url))
    assert (check.result, check.check) == ("ok", "broker")
    assert "0 of 8 queues are there" in check.found
    assert "no policy trims them" in check.found
    assert rabbit.queues(vhost) == {}
    check = check_broker(settings(tmp_path, vhost_url))
    assert check.result == "warn"
    assert "cannot be seen" in check.found
    assert "broker.management_url" in check.advice


def test_doctor_says_what_is_wrong(tmp_path: Path, vhost_url: str, rabbit: RabbitNode) -> None:
    vhost = vhost_url.rpartition("/")[2]
    rabbit.set_policy(vhost, "short", ".*", {"max-length": 5})
    check = check_broker(settings(tmp_path, vhost_url, rabbit.management_url))
    assert check.result == "fail"
    assert "'short' sets max-length" in check.found
    check = check_broker(settings(tmp_path, "amqp://u:secret@127.0.0.1:1/"))
    assert check.result == "warn"
    assert "secret" not in check.found + check.advice


def vitals(role: str, numbers: Any) -> Vitals:
    return Vitals(
        role=role, instance=0, pid=os.getpid(), version="1", started_at=datetime.now(UTC), beat_s=0.0, numbers=numbers
    )


def relay(**changes: Any) -> RelayNumbers:
    made = RelayNumbers(
        messages=1, message_bytes=2, entries=3, failures=0, went_back={}, announced=0,
        confirm_time=Histogram.of([1.0]), window_bytes=1 << 20, connected=True, blocked=False, driving=1, positions={},
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def worker(**changes: Any) -> IngestNumbers:
    made = WorkerNumbers(
        messages=1, doubles=0, holes=0, set_aside={"foreign": 2}, queues=[0, 1], in_hand=0, connected=True
    )
    return IngestNumbers(
        records={}, batches=0, batch_time=Histogram.of([1.0]), retries=0, driving=0, positions={},
        worker=msgspec.structs.replace(made, **changes),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("relays", "workers", "fault"),
    [
        ([relay()], [worker()], ""),
        ([relay(connected=False)], [worker()], "1 of 2 roles have no connection to it"),
        ([relay(blocked=True)], [worker()], "it takes nothing now, for an alarm of its memory or disk"),
        ([], [worker(connected=False)], "1 of 1 roles have no connection to it"),
    ],
)
def test_status(tmp_path: Path, relays: list[RelayNumbers], workers: list[IngestNumbers], fault: str) -> None:
    seen = [vitals("relay", one) for one in relays] + [vitals("ingest", one) for one in workers]
    status: BrokerStatus = broker_of(settings(tmp_path, "amqp://u:secret@host/"), seen)
    assert status.fault == fault
    assert status.url == "amqp://u:********@host/"
    assert status.set_aside == 2


def test_the_url_is_masked_and_its_faults_are_named(tmp_path: Path) -> None:
    assert masked(("broker", "url"), "amqp://u:secret@host/") == "amqp://u:********@host/"
    with pytest.raises(SettingsError, match="must begin with amqp") as caught:
        settings(tmp_path, "http://u:secret@host/")
    assert "secret" not in caught.value.message
    file = tmp_path / "url"
    file.write_text("amqp://u:secret@host/\n", encoding="utf-8")
    made = load(tmp_path, environ={"SIGNALKEEP_BROKER__URL_FILE": str(file)})
    assert made.broker.resolved_url() == "amqp://u:secret@host/"
    assert made.lanes == 64
    file.write_text("nonsense secret", encoding="utf-8")
    with pytest.raises(SettingsError, match="first line") as caught:
        made.broker.resolved_url()
    assert "secret" not in caught.value.message
    assert load(tmp_path, environ={}).lanes == 1
