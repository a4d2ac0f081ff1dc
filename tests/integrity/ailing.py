"""Active devices, their findings, and a check with a clock of its own: what tests of ailing devices share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from signalkeep.integrity.devices import DeviceCheck
from signalkeep.sections.devices import DevicesSettings
from signalkeep.store.postgres import Connection

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=100)


class Clock:
    """A time that stands until a test moves it."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()


def after(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


async def add_devices(connection: Connection, numbers: Sequence[str], model: str = "", **state: Any) -> None:
    """Active devices that report every minute, each with a state."""
    values = {"last_received_at": NOW, "device_time": NOW, "stored_to": NOW, "stored": 100} | state
    await connection.execute(
        "INSERT INTO device (device_number, status, model, expected_interval_s, created_at, registered_at)"
        " SELECT n, 'active', $2, 60, $3, $3 FROM unnest($1::text[]) AS n",
        numbers, model, LONG_AGO,
    )  # fmt: skip
    names = ", ".join(values)
    places = ", ".join(f"${n}" for n in range(2, len(values) + 2))
    await connection.execute(
        f"INSERT INTO device_state (device_id, {names}) SELECT id, {places} FROM device"
        " WHERE device_number = ANY($1::text[])",
        numbers, *values.values(),
    )  # fmt: skip


async def find(connection: Connection, rule: str, hits: int = 1, minutes: float = 0, **changes: Any) -> None:
    """A finding of device 1, as ingest leaves it."""
    at = after(minutes)
    values = {
        "kind": rule, "subject": "device 1", "detail": "so it is", "count": hits, "day": at.date(), "state": "detected",
        "severity": "warning", "begins_at": at, "ends_at": at, "live": hits > 0, "live_hits": hits, "live_at": at,
        **changes,
    }  # fmt: skip
    names = ", ".join(values)
    places = ", ".join(f"${n}" for n in range(1, len(values) + 1))
    await connection.execute(
        f"INSERT INTO finding ({names}, device_id) VALUES ({places}, (SELECT id FROM device WHERE device_number = '1'))"
        " ON CONFLICT (device_id, day, kind) WHERE device_id IS NOT NULL DO UPDATE SET"
        " live_hits = EXCLUDED.live_hits, live_at = EXCLUDED.live_at, ends_at = EXCLUDED.ends_at",
        *values.values(),
    )


class Fleet:
    """A check with its clock and settings, over one connection."""

    def __init__(self, connection: Connection, **settings: Any) -> None:
        self.connection = connection
        self.clock = Clock()
        self.check = DeviceCheck(DevicesSettings(**settings), self.clock)

    async def look(self, minutes: float = 0) -> str:
        self.clock.at = after(minutes)
        return await self.check.run(self.connection)

    async def hear(self, minutes: float, records: int = 1, numbers: Sequence[str] = ("1",)) -> None:
        await self.connection.execute(
            "UPDATE device_state s SET last_received_at = $2, device_time = $2, stored_to = $2, stored = stored + $3"
            " FROM device d WHERE d.id = s.device_id AND device_number = ANY($1::text[])",
            numbers, after(minutes), records,
        )  # fmt: skip

    async def incidents(self) -> list[tuple[str, str, str, str]]:
        """Kind, subject, stage and state of each."""
        rows = await self.connection.fetch("SELECT kind, subject, stage, state FROM incident ORDER BY id")
        return [(row["kind"], row["subject"], row["stage"], row["state"]) for row in rows]

    async def told(self) -> list[tuple[str, str]]:
        """What people will be told: subject and what happened, oldest first."""
        rows = await self.connection.fetch(
            "SELECT subject, what FROM incident_event e JOIN incident i ON i.id = e.incident_id"
            " WHERE routed_at IS NULL ORDER BY e.id"
        )
        return [(row["subject"], row["what"]) for row in rows]
