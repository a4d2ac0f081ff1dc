"""The registry as a gateway sees it: changes arrive, many cost little, and what was seen last outlives everything."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from signalkeep import limits
from signalkeep.gateway import registry as gateway_registry
from signalkeep.gateway.policy import Caps, Policy
from signalkeep.gateway.registry import RegistryFollower
from signalkeep.model import DeviceStatus, Reason
from signalkeep.store import registry
from signalkeep.store.postgres import Connection
from tests.servers import connected, wait_until_async

DEVICES = 100_000


def policy() -> Policy:
    return Policy("refuse", Caps(1, 1, 1))


async def nowhere() -> Connection:
    raise ConnectionError("away")


def snapshot_of(path: Path) -> Path:
    return path / "run" / "registry.json"


@asynccontextmanager
async def following(made: Policy, path: Path, dsn: str) -> AsyncIterator[None]:
    async with connected(dsn) as connection:

        async def connect() -> Connection:
            return connection

        task = asyncio.create_task(RegistryFollower(made, snapshot_of(path), connect).run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.mark.servers
async def test_a_hundred_thousand_devices_are_read_kept_and_known_without_a_database(
    tmp_path: Path, dsn: str, connection: Connection
) -> None:
    await connection.execute(
        "INSERT INTO device (device_number, status, registered_at) "
        "SELECT lpad(n::text, 15, '0'), CASE WHEN n % 2 = 0 THEN 'active' ELSE 'retired' END, now() "
        "FROM generate_series(1, $1) AS n",
        DEVICES,
    )
    made = policy()
    async with following(made, tmp_path, dsn):
        await wait_until_async(lambda: made.refusal(f"{DEVICES:015}") is None, what="the registry is read")
        assert made.refusal(f"{1:015}") is Reason.RETIRED_DEVICE
        assert made.refusal("1") is Reason.UNKNOWN_REFUSED
        await wait_until_async(snapshot_of(tmp_path).exists, what="and kept")
    later = policy()
    assert RegistryFollower(later, snapshot_of(tmp_path), nowhere).load_snapshot()
    assert [later.refusal(f"{number:015}") for number in (1, 2)] == [Reason.RETIRED_DEVICE, None]


@pytest.mark.servers
async def test_what_has_not_changed_is_not_decoded_again_and_many_changes_cost_few_reads(
    tmp_path: Path, dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REGISTRY_REFRESH_S", 0.01)
    monkeypatch.setattr(limits, "REGISTRY_PAUSE_S", 0.05)
    reads, decoded = 0, 0
    read, decode = registry.snapshot, gateway_registry.decode

    async def counted_read(connection: Connection) -> list[str]:
        nonlocal reads
        reads += 1
        return await read(connection)

    def counted_decode(pages: Iterable[str | bytes]) -> dict[str, DeviceStatus]:
        nonlocal decoded
        decoded += 1
        return decode(pages)

    monkeypatch.setattr(registry, "snapshot", counted_read)
    monkeypatch.setattr(gateway_registry, "decode", counted_decode)
    made = policy()
    async with following(made, tmp_path, dsn):
        await wait_until_async(lambda: reads >= 5, what="the registry is read again and again")
        assert decoded == 1
        monkeypatch.setattr(limits, "REGISTRY_REFRESH_S", 3600.0)
        monkeypatch.setattr(limits, "REGISTRY_PAUSE_S", 0.5)
        reads = 0
        for number in range(200):
            await connection.execute("SELECT pg_notify('device_changed', '')")
            await connection.execute(
                "INSERT INTO device (device_number, status, registered_at) VALUES ($1, 'active', now())", f"d{number}"
            )
        await connection.execute("SELECT pg_notify('device_changed', '')")
        await wait_until_async(lambda: made.refusal("d199") is None, what="the last change is heard of")
        assert reads < 100


def test_a_snapshot_that_cannot_be_read_counts_as_none(tmp_path: Path) -> None:
    made = policy()
    follower = RegistryFollower(made, snapshot_of(tmp_path), nowhere)
    assert not follower.load_snapshot()
    snapshot_of(tmp_path).parent.mkdir()
    for content in (b"", b'{"1": "act', b'{"1": "sold"}', b"[]", b'{"1": "active"}\n{"2'):
        snapshot_of(tmp_path).write_bytes(content)
        assert not follower.load_snapshot()
    assert made.refusal("1") is Reason.REGISTRY_UNAVAILABLE


async def test_it_is_synced_before_it_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace

    def noted_sync(descriptor: int) -> None:
        steps.append("sync")
        sync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        steps.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    RegistryFollower(policy(), snapshot_of(tmp_path), nowhere)._keep([])
    assert steps == ["sync", "replace", "sync"]
    assert [path.name for path in snapshot_of(tmp_path).parent.iterdir()] == ["registry.json"]


def test_what_killed_processes_left_half_written_is_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    folder = snapshot_of(tmp_path).parent
    folder.mkdir()
    (folder / f"registry.json.{gone.pid}").touch()
    (folder / f"registry.json.{os.getpid()}").touch()
    RegistryFollower(policy(), snapshot_of(tmp_path), nowhere).load_snapshot()
    assert [path.name for path in folder.iterdir()] == [f"registry.json.{os.getpid()}"]
