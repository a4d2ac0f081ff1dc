"""`signalkeep run` in other shapes: several processes on the same ports, a database of its own, other policies."""

from __future__ import annotations

import json

import pytest

from tests.core import Core
from tests.servers import PostgresServer, run_sync, wait_until

pytestmark = pytest.mark.servers


def simulate(core: Core, protocol: str, devices: int = 20) -> str:
    """A short fleet with cuts; the path of its oracle."""
    oracle = str(core.directory / f"{protocol}.jsonl")
    core.run(
        *("simulate", "--protocol", protocol, "--port", str(core.ports[protocol]), "--devices", str(devices)),
        *("--rate", "200", "--duration", "3", "--cut-rate", "0.1", "--oracle", oracle),
    )
    return oracle


def test_several_gateways_share_the_ports_and_several_ingests_the_journals() -> None:
    with Core(gateway__processes="2", ingest__processes="2", unknown_devices="register") as core:
        oracle = simulate(core, "teltonika", devices=40)
        report = core.json("audit", "--oracle", oracle)
        assert report["ok"], report
        assert report["oracle"]["stored"] == 600
        live = [journal for journal in core.json("status")["journals"] if journal["live"]]
        assert len(live) == 2, "each gateway has a journal of its own"
        assert all(journal["durable_seq"] > 0 for journal in live), "the kernel spreads connections over both"


def test_run_on_a_dsn_starts_no_server_of_its_own(postgres_server: PostgresServer) -> None:
    dsn = run_sync(postgres_server.create_database(migrated=False))
    with Core(database__dsn=dsn, unknown_devices="register") as core:
        assert core.json("audit", "--oracle", simulate(core, "json"))["ok"]
        assert "postgres" not in {role["role"] for role in core.json("status")["roles"]}
        assert core.json("status")["database"]["dsn"] == dsn
        assert not (core.data / "postgres").exists()


def test_refused_devices_are_turned_away_without_an_acknowledgement() -> None:
    with Core(unknown_devices="refuse") as core:
        core.run("devices", "add", "356307042441013")
        known, unknown = b"\x00\x0f356307042441013", b"\x00\x0f356307042441021"
        wait_until(lambda: core.talk("teltonika", known, answer_bytes=1) == b"\x01", 30, what="it is welcome")
        assert core.talk("teltonika", unknown, answer_bytes=1) == b"\x00"
        event = json.dumps({"device_number": "356307042441021"}).encode()
        assert core.talk("json", event, answer_bytes=1) == b""
        core.wait_for_rows("SELECT coalesce(sum(count), 0) FROM refusal WHERE reason = 'unknown_refused'", 2)
        assert core.sql("SELECT count(*) FROM ledger") == [["0"]]


def test_unknown_devices_are_kept_only_within_the_caps() -> None:
    with Core(gateway__unknown_bytes_per_device="2048") as core:
        event = b'{"device_number": "1", "event_code": "%d"}\n'
        wait_until((core.data / "run" / "registry.json").exists, 30, what="the gateway knows who is registered")
        answers = core.talk("json", b"".join(event % n for n in range(10)), answer_bytes=10)
        assert answers == b"111", "512 bytes each at least, and as many for what is noted of the connection"
        core.wait_for_rows("SELECT count(*) FROM quarantine", 3)
        core.wait_for_rows("SELECT coalesce(sum(count), 0) FROM refusal WHERE reason = 'unknown_cap'", 1)
        assert core.json("audit")["ok"]
