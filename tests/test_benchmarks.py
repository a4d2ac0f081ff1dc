"""What the benchmarks say beside their figures: what went through the broker, that it was left out, what was lost.

No figure is judged here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import devices, judging, rabbit_node, report, through_broker
from benchmarks.end_to_end import Run
from benchmarks.relaying import relay
from benchmarks.through_broker import Traffic
from signalkeep.vitals import Histogram, IngestNumbers, RelayNumbers, Vitals, WorkerNumbers
from tests.builders import RECEIVED
from tests.servers import run_sync


def vitals(role: str, numbers: Any) -> Vitals:
    return Vitals(role=role, instance=0, pid=1, version="0", started_at=RECEIVED, beat_s=0.0, numbers=numbers)


def worker(*, messages: int, doubles: int) -> Vitals:
    numbers = WorkerNumbers(
        messages=messages, doubles=doubles, holes=0, set_aside={}, queues=[0], in_hand=0, connected=True
    )
    ingest = IngestNumbers(
        records={}, batches=0, batch_time=Histogram.of([1]), retries=0, driving=0, positions={}, worker=numbers
    )
    return vitals("ingest", ingest)


def relaying(messages: int) -> Vitals:
    numbers = RelayNumbers(
        messages=messages, message_bytes=messages << 20, entries=messages * 50, failures=1, went_back={"hole": 2},
        announced=0, confirm_time=Histogram([1.0], [messages, 0], sum_s=messages / 10), window_bytes=0, connected=True,
        blocked=False, driving=1, positions={},
    )  # fmt: skip
    return vitals("relay", numbers)


def test_the_traffic_of_a_run_is_what_relay_and_all_workers_counted_in_it() -> None:
    before = Traffic.of([relaying(10), worker(messages=6, doubles=0), vitals("monitor", None)])
    after = Traffic.of([relaying(30), worker(messages=16, doubles=1), worker(messages=12, doubles=2)])
    during = after.since(before)
    assert (during.messages, during.entries, during.received, during.doubles) == (20, 1000, 22, 3)
    assert (during.unconfirmed, during.went_back) == (0, 0)
    rates = during.rates(2.0)
    assert rates["messages_per_s"] == rates["mib_per_s"] == 10
    assert rates["entries_per_message"] == 50
    assert rates["confirm_ms"] == pytest.approx(100)


def run(label: str, **more: Any) -> dict[str, Any]:
    used = {"gateway": {"cpu_s": 1.0, "cpu_us": 2.5, "peak_mib": 60.0}}
    made = Run(label, 1, 10, 0.0, 0, 1000, 500.0, 250.0, 700, 0, {}, used, 0.3)
    return {name: getattr(made, name) for name in made.__dataclass_fields__} | more


def test_the_page_shows_the_price_and_what_was_sent_in_vain() -> None:
    traffic = Traffic(messages=4, entries=100, doubles=3, set_aside=1)
    through = run(
        "through, 1 worker", of_direct=0.5, of_direct_by_cpu=0.8, traffic={**vars(traffic), **traffic.rates(4.0)}
    )
    through["usage"] = through["usage"] | {"relay": {"cpu_s": 1.0, "cpu_us": 4.0, "peak_mib": 80.0}}
    page = report.text(
        {
            "at": "2026-11-26T00:00:00", "command": "bench", "signalkeep": "0", "machine": {}, "stages": {},
            "broker": {"runs": [run("direct", of_direct=1.0, of_direct_by_cpu=1.0), through]},
        }
    )  # fmt: skip
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    assert ["through, 1 worker", "1,000", "500", "250", "50%", "80%", "700 / 0", "0.3"] in lines
    assert ["through, 1 worker", "1", "0", "25", "0", "0", "0 / 0 / 3 / 0 / 1"] in lines
    assert ["through, 1 worker", "", "2.5 / 60", "4.0 / 80", "", "", "", "", "", "6.5"] in lines


def test_without_rabbitmq_the_part_is_left_out_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbit_node, "SERVER", Path("/nowhere/rabbitmq-server"))
    said: list[str] = []
    found = through_broker.run(Path("/nowhere"), said.append)
    assert "NOT MEASURED: no rabbitmq-server" in said[0]
    page = report.text({"at": "", "command": "", "signalkeep": "", "machine": {}, "stages": {}, "broker": found})
    assert f"NOT MEASURED: {found['left_out']}" in page
    assert rabbit_node.INSTALL in page


def test_a_relay_alone_sends_every_entry(tmp_path: Path) -> None:
    found = relay(tmp_path, records=10, entries=500)
    assert found["entries_per_message"] > 1
    assert found["cpu_us_per_entry"] == pytest.approx(10 * found["cpu_us_per_record"])


def test_every_rule_that_is_asked_has_a_price_and_rules_find_nothing_in_the_packets() -> None:
    found = judging.rule_costs(count=50, repeats=1)
    assert found["hits"] == 0
    assert {"POS-01", "KIN-01"} <= {one["id"] for one in found["rules"]}
    assert [one["us"] for one in found["rules"]] == sorted((one["us"] for one in found["rules"]), reverse=True)
    pair = {
        "records_per_s_without": 200.0, "records_per_s_with": 150.0, "ingest_cpu_us_without": 20.0,
        "ingest_cpu_us_with": 30.0, "postgres_cpu_us_without": 10.0, "postgres_cpu_us_with": 10.0, "ratio": 0.75,
        "ratio_least": 0.7, "ratio_most": 0.8, "ratio_by_cpu": 0.77,
    }  # fmt: skip
    rules = found | {
        "ingest": {"10 a packet": pair}, "memory": judging.remember(10),
        "sweep": {"devices": 2, "days": 2, "signals": 20, "signals_per_s": 40.0, "sweep_cpu_us": 50.0},
    }  # fmt: skip
    page = report.text({"at": "", "command": "", "signalkeep": "", "machine": {}, "stages": {}, "rules": rules})
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    assert ["10 a packet", "200 / 150", "75% (70% to 80%)", "20.0 / 30.0", "10.0 / 10.0", "77%"] in lines
    assert [found["rules"][0]["id"], found["rules"][0]["scope"], f"{found['rules'][0]['us']:.2f}"] in lines
    assert "What is remembered of 10 devices" in page


@pytest.mark.servers
def test_a_look_at_devices_shows_what_it_costs_and_what_it_came_to(dsn: str) -> None:
    found = run_sync(devices.look_at_scenes(dsn, lambda _: None, 200))
    assert [one["scene"] for one in found] == [scene for scene in devices.SCENES for _ in range(2)]
    assert "shared" in found[2]["said"], "30 % fall silent at once"
    assert all(one["said"].endswith("nothing new") for one in found[1::2])
    page = report.text({"at": "", "command": "", "signalkeep": "", "machine": {}, "stages": {}, "devices": found})
    assert "## Are devices well? 200 of them" in page
    assert found[0]["said"] in page
