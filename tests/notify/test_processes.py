"""The whole way with real processes: an organizer is killed, the database goes and comes, people hear of each thing."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from signalkeep.notify.emergency import FILE
from signalkeep.store.incidents import Condition, observe
from signalkeep.store.postgres import Connection
from tests.integrity.test_organizer import Door
from tests.notify.receivers import SECRET, Silent, Webhook
from tests.servers import wait_until_async

pytestmark = pytest.mark.servers


class Organizers:
    """Real processes on one data directory, one after the other."""

    def __init__(self, dsn: str, directory: Path, **settings: object) -> None:
        self._data = directory / "data"
        self.log = directory / "log"
        self.outage = self._data / "run" / FILE
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SIGNALKEEP_")},
            "SIGNALKEEP_DATABASE__DSN": dsn,
            "SIGNALKEEP_JOURNAL__ALLOW_UNSAFE": "true",
            "SIGNALKEEP_QUALITY__ENABLED": "false",
            "SIGNALKEEP_AUDIT__EVERY_S": "0",  # nobody but the test opens or clears what an audit finds
            "SIGNALKEEP_NOTIFY": json.dumps(settings),
        }

    @contextmanager
    def one(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "signalkeep", "organizer", "--data", str(self._data)]
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait(30)


@asynccontextmanager
async def door_to(dsn: str) -> AsyncIterator[Door]:
    door = Door(dsn)
    await door.open()
    try:
        yield door
    finally:
        await door.close()


def told(hook: Webhook) -> list[tuple[str, str]]:
    """What was told of which kind of incident. That the other channel fails is told, too, at a moment of its own."""
    heard = [(one["what"], one["incident"]["kind"]) for one in hook.got]
    return [(what, kind) for what, kind in heard if kind != "channel_failing"]


async def test_the_database_goes_the_organizer_is_killed_and_both_come_back(
    dsn: str, connection: Connection, tmp_path: Path
) -> None:
    with Webhook() as hook, Silent() as silent:
        channels = {"ops": hook.settings, "slow": {**silent.settings, "timeout_s": 0.3}}
        async with door_to(dsn) as door:
            organizers = Organizers(door.dsn, tmp_path, channels=channels, admins=["ops", "slow"], database_away_s=0.5)
            found = Condition(kind="sums_off", subject="host7", detail="a row is missing")
            with organizers.one() as first:
                await observe(connection, "audit", [found], datetime.now(UTC))
                await wait_until_async(
                    lambda: connection.fetchval("SELECT true FROM notification WHERE state = 'sent'")
                )
                await wait_until_async(lambda: b'"led":true' in organizers.outage.read_bytes())
                await door.close()
                await wait_until_async(lambda: told(hook) == [("opened", "sums_off"), ("opened", "database_away")])
                await wait_until_async(lambda: b'"sent":{"ops"' in organizers.outage.read_bytes())
                first.kill()
                await asyncio.to_thread(first.wait, 30)
            await door.open()
            with organizers.one() as second:
                await wait_until_async(lambda: ("cleared", "database_away") in told(hook))
                second.terminate()
                assert await asyncio.to_thread(second.wait, 60) == 0, "a channel that hangs keeps nobody from ending"
        heard = told(hook)
        assert heard == [("opened", "sums_off"), ("opened", "database_away"), ("cleared", "database_away")]
    row = await connection.fetchrow("SELECT state, opened_at, cleared_at FROM incident WHERE kind = 'database_away'")
    assert row is not None
    assert row["state"] == "cleared"
    assert row["opened_at"] < row["cleared_at"]
    log = organizers.log.read_text()
    assert SECRET not in log
    assert "s3cr3t-path" not in log


async def test_the_first_start_without_a_database_tells_nobody(
    dsn: str, connection: Connection, tmp_path: Path
) -> None:
    with Webhook() as hook:
        door = Door(dsn)
        settings = {"ops": hook.settings}
        organizers = Organizers(door.dsn, tmp_path, channels=settings, admins=["ops"], database_away_s=0.05)
        with organizers.one():
            await wait_until_async(
                lambda: organizers.log.exists() and b"the database cannot be used" in organizers.log.read_bytes()
            )
        assert hook.got == []
