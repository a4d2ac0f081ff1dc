"""`devices health`: what ails devices now, for people and as JSON."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from signalkeep.clock import SystemClock
from signalkeep.integrity.devices import DeviceCheck
from signalkeep.sections.devices import DevicesSettings
from signalkeep.store import registry
from tests.cli.commands import Commands
from tests.servers import connected, run_sync

pytestmark = pytest.mark.servers


async def silent(dsn: str, number: str) -> None:
    async with connected(dsn) as connection:
        for one in (number, "well"):
            await registry.register(connection, one, actor="tests")
        await connection.execute("UPDATE device SET expected_interval_s = 60")
        await connection.execute(
            "UPDATE device_state s SET last_received_at = $1 FROM device d"
            " WHERE d.id = s.device_id AND d.device_number = $2",
            datetime.now(UTC) - timedelta(hours=2), number,
        )  # fmt: skip
        await DeviceCheck(DevicesSettings(), SystemClock()).run(connection)


def test_what_ails_devices(dsn: str, tmp_path: Path) -> None:
    commands = Commands(dsn, tmp_path)
    assert "nothing ails any device" in commands.result("devices", "health").stderr
    run_sync(silent(dsn, "4711"))
    (row,) = commands.json("devices", "health")
    assert (row["device_number"], row["kind"], row["stage"], row["hits"]) == ("4711", "silent", "malfunction", 1)
    assert row["bad_minutes"] == pytest.approx(120, abs=5)
    assert commands.json("devices", "health", "4711") == [row | {"bad_minutes": pytest.approx(120, abs=5)}]
    assert "silent" in commands("devices", "health")
    assert commands.json("devices", "health", "well") == []
    assert "nothing ails it" in commands.result("devices", "health", "well").stderr
    refused = commands.refused("devices", "health", "4712")
    assert "nobody has registered or heard of device 4712" in refused
