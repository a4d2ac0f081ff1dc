"""The page about scaling: its tables are what the calculation gives, and what it computes with is in the pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from benchmarks import scaling
from benchmarks.scaling import Fleet
from signalkeep import limits
from signalkeep.store.postgres import Connection

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
PAGE: Final = (DOCS / "scaling.md").read_text(encoding="utf-8")


def test_the_table_of_fleets_is_what_the_program_prints() -> None:
    assert scaling.text([Fleet(1_000), Fleet(100_000), Fleet(1_000_000)]) in PAGE


def test_what_a_record_costs_is_what_was_measured() -> None:
    measured = (DOCS / "performance.md").read_text(encoding="utf-8")
    _, costs = measured.split("Processor time of one record", 1)
    row = next(line for line in costs.splitlines() if line.startswith("| beside a million rows, 1 a packet"))
    _, gateway, ingest, postgres, *_ = [cell.split("/") for cell in row.strip("|").split("|")[1:]] + [[]]
    used = [scaling.GATEWAY_US, scaling.INGEST_US, scaling.POSTGRES_US]
    assert [float(cell[0]) for cell in (gateway, ingest, postgres)] == used
    assert float(gateway[1]) == scaling.GATEWAY_MIB


def test_its_bytes_are_those_of_its_own_tables() -> None:
    one = next(line for line in PAGE.splitlines() if line.startswith("| 1 a packet"))
    packet, _, message, heap, indexes, log = (int(cell) for cell in one.strip("| ").split("|")[1:])
    assert (packet, message, heap, log) == (
        scaling.PACKET_BYTES, scaling.MESSAGE_BYTES, scaling.HEAP_BYTES, scaling.ROW_LOG_BYTES,
    )  # fmt: skip
    assert heap + indexes == scaling.ROW_BYTES
    assert f"mean x {scaling.ROW_BYTES} bytes" in PAGE
    rates = re.findall(r"^\| ([\d,]+) +\| ([\d,]+) +\|$", PAGE, flags=re.MULTILINE)
    numbers = tuple((int(rate.replace(",", "")), float(size.replace(",", ""))) for rate, size in rates)
    assert numbers == scaling.JOURNAL_BYTES


def test_between_what_was_measured_the_journal_takes_something_between() -> None:
    assert scaling.journal_packet_bytes(1) == scaling.journal_packet_bytes(10) == scaling.JOURNAL_BYTES[0][1]
    assert scaling.JOURNAL_BYTES[2][1] < scaling.journal_packet_bytes(300) < scaling.JOURNAL_BYTES[1][1]
    assert scaling.journal_packet_bytes(90_000) == scaling.JOURNAL_BYTES[-1][1]


@pytest.mark.parametrize("vehicles", [1, 16_001, 100_000, 500_000, 1_000_000])
def test_one_gateway_machine_may_fail(vehicles: int) -> None:
    fleet = Fleet(vehicles)
    assert fleet.gateways_each <= limits.GATEWAY_PROCESSES_MAX
    assert (fleet.gateway_machines - 1) * fleet.gateways_each * limits.CONNECTIONS_MAX >= vehicles


@pytest.mark.servers
async def test_its_query_runs(connection: Connection) -> None:
    (query,) = re.findall(r"^<!-- executed -->\n```sql\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    await connection.fetch(query)
