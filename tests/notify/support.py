"""Incidents and time for the tests of messages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from signalkeep.kinds import Stage
from signalkeep.notify.channels import Channel, channels_of
from signalkeep.notify.outbox import send_waiting
from signalkeep.notify.routing import notify
from signalkeep.sections.notify import NotifySettings
from signalkeep.store.incidents import Condition, observe
from signalkeep.store.outbox import try_channel
from signalkeep.store.postgres import Connection

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Hand:
    """A clock that a test moves."""

    def __init__(self, at: datetime = NOON) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    def forward(self, **span: float) -> None:
        self.at += timedelta(**span)


class World:
    """A core of which only incidents, time and messages are there."""

    def __init__(self, connection: Connection, channels: Mapping[str, Mapping[str, Any]], **settings: Any) -> None:
        self.connection = connection
        self.clock = Hand()
        self.settings = settings_of(channels, **settings)
        self.channels: dict[str, Channel] = channels_of(self.settings, self.clock)

    async def see(self, *subjects: str, stage: Stage = Stage.MALFUNCTION, **values: Any) -> None:
        """What the check of devices sees now."""
        conditions = [
            Condition(kind="silent", subject=subject, detail="nothing for 3 h", stage=stage, **values)
            for subject in subjects
        ]
        await observe(self.connection, "devices", conditions, self.clock.now())

    async def route(self) -> str:
        return await notify(self.connection, self.settings, self.clock.now())

    async def send(self, name: str = "ops") -> str:
        return await send_waiting(self.connection, self.channels[name], self.clock)

    async def turn(self, **forward: float) -> None:
        """Time passes, then every job runs once."""
        self.clock.forward(**forward)
        await self.route()
        for name in self.channels:
            await self.send(name)

    async def is_free(self, name: str) -> bool:
        """Whether the channel can be had: who is gone has let go of it."""
        return await try_channel(self.connection, name)

    async def words(self, channel: str = "ops") -> list[str]:
        """What the channel has been told, or will be, in order."""
        rows = await self.connection.fetch(
            "SELECT payload->>'what' AS what FROM notification WHERE channel = $1 ORDER BY created_at, event_id",
            channel,
        )
        return [row["what"] for row in rows]


def settings_of(channels: Mapping[str, Mapping[str, Any]], **settings: Any) -> NotifySettings:
    """With the first channel for admins, unless told otherwise."""
    admins = [next(iter(channels))] if channels else []
    return NotifySettings.model_validate({"channels": channels, "admins": admins, **settings})


def nowhere() -> dict[str, str]:
    """A channel for tests that send nothing."""
    return {"webhook": "http://127.0.0.1:9/"}
