"""Devices that ail: from findings and silence to incidents, each once, and over when it is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from signalkeep.integrity.devices import DeviceCheck
from signalkeep.sections.devices import DevicesSettings
from signalkeep.store.postgres import Connection

pytestmark = pytest.mark.servers

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Clock:
    """A time that stands until a test moves it."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


async def add_devices(connection: Connection, numbers: list[str], model: str = "", **state: Any) -> None:
    """Active devices that report every minute, each with a state."""
    values = {"last_received_at": NOW, "device_time": NOW, "stored_to": NOW, "stored": 100} | state
    await connection.execute(
        "INSERT INTO device (device_number, status, model, expected_interval_s, created_at, registered_at)"
        " SELECT n, 'active', $2, 60, $3, $3 FROM unnest($1::text[]) AS n",
        numbers, model, NOW - timedelta(days=100),
    )  # fmt: skip
    names = ", ".join(values)
    places = ", ".join(f"${n}" for n in range(2, len(values) + 2))
    await connection.execute(
        f"INSERT INTO device_state (device_id, {names}) SELECT id, {places} FROM device"
        " WHERE device_number = ANY($1::text[])",
        numbers, *values.values(),
    )  # fmt: skip


class Fleet:
    """A check with its clock and settings, over one connection."""

    def __init__(self, connection: Connection, **settings: Any) -> None:
        self.connection = connection
        self.clock = Clock()
        self.check = DeviceCheck(DevicesSettings(**settings), self.clock)

    async def look(self, minutes: float = 0) -> str:
        self.clock.at = NOW + timedelta(minutes=minutes)
        return await self.check.run(self.connection)

    async def hear(self, minutes: float, records: int = 1, number: str = "1") -> None:
        at = NOW + timedelta(minutes=minutes)
        await self.connection.execute(
            "UPDATE device_state s SET last_received_at = $2, device_time = $2, stored_to = $2, stored = stored + $3"
            " FROM device d WHERE d.id = s.device_id AND device_number = $1",
            number, at, records,
        )  # fmt: skip

    async def incidents(self) -> list[tuple[str, str, str, str]]:
        rows = await self.connection.fetch("SELECT kind, subject, stage, state FROM incident ORDER BY id")
        return [tuple(row) for row in rows]


async def test_a_silent_device_opens_one_incident_and_is_well_after_some_records_and_minutes(
    connection: Connection,
) -> None:
    await add_devices(connection, ["1"])
    fleet = Fleet(connection)
    assert await fleet.look(10) == "0 devices ail: nothing new"
    assert await fleet.look(11) == "1 devices ail: 1 opened"
    assert await fleet.look(12) == "1 devices ail: nothing new"
    assert await fleet.incidents() == [("silent", "1", "malfunction", "open")]
    assert await connection.fetchval("SELECT opened_at FROM incident") == NOW
    await fleet.hear(20)
    assert await fleet.look(20.5) == "1 devices ail: nothing new"
