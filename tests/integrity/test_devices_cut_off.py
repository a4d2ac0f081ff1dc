"""Looks at devices that are cut off, and erasures beside them: nothing is doubled, nothing is left."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from signalkeep.integrity import devices
from signalkeep.store import device_health
from signalkeep.store.erasure import erase
from signalkeep.store.postgres import Connection
from tests.integrity.ailing import Fleet, add_devices, after, find
from tests.servers import connected

pytestmark = pytest.mark.servers


class KilledError(Exception):
    """Nobody catches it but the test."""


async def everything(connection: Connection) -> list[tuple[Any, ...]]:
    return [
        tuple(row)
        for table in ("device_trouble ORDER BY device_id, kind", "incident ORDER BY id", "incident_event ORDER BY id")
        for row in await connection.fetch(f"SELECT * FROM {table}")
    ]


@pytest.mark.parametrize("place", [(device_health, "put"), (devices, "observe")])
async def test_a_look_that_is_cut_off_leaves_nothing_and_the_next_one_doubles_nothing(
    connection: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str]
) -> None:
    """Cut off when troubles are written, or when incidents are, too, and only the commit is left."""
    await add_devices(connection, ["1", "2"])
    await find(connection, "DEV-03")
    real = getattr(*place)
    async with connected(dsn) as other:

        async def killed(*arguments: Any, **options: Any) -> None:
            await real(*arguments, **options)
            other.terminate()
            raise KilledError

        with monkeypatch.context() as patch:
            patch.setattr(*place, killed)
            with pytest.raises(Exception):  # noqa: B017 - the kill, or what the driver says of a connection that is gone
                await Fleet(other).look(11)
    assert await everything(connection) == []
    fleet = Fleet(connection)
    assert await fleet.look(11) == "2 devices ail: 3 opened"
    once = await everything(connection)
    assert await Fleet(connection).look(11) == "2 devices ail: nothing new"
    assert await everything(connection) == once


async def test_an_erasure_takes_troubles_and_texts_and_what_is_still_wrong_is_found_again(
    connection: Connection, tmp_path: Path
) -> None:
    await add_devices(connection, ["1", "2"])
    await find(connection, "ID-03", hits=4, detail="37.9800, 23.7300 and 52.5000, 13.4000")
    fleet = Fleet(connection)
    assert await fleet.look(11) == "2 devices ail: 3 opened"
    incident_id = await connection.fetchval("SELECT id FROM incident WHERE kind = 'cloned'")
    await connection.execute(
        "INSERT INTO incident_event (incident_id, what, who, note, at)"
        " VALUES ($1, 'acknowledged', 'ann', 'at home', $2)",
        incident_id, after(11),
    )  # fmt: skip
    await erase(connection, "1", after(12), log=tmp_path / "log", actor="tests")
    assert await connection.fetchval("SELECT count(*) FROM device_trouble t JOIN device d ON d.id = t.device_id"
                                     " WHERE device_number = '1'") == 0  # fmt: skip
    texts = await connection.fetch(
        "SELECT detail, note FROM incident i JOIN incident_event e ON e.incident_id = i.id"
        " JOIN device d ON d.id = i.device_id WHERE device_number = '1'"
    )
    assert {tuple(row) for row in texts} == {("", "")}
    assert await connection.fetchval("SELECT detail FROM incident WHERE subject = '2'") != ""
    await fleet.look(13)
    assert sorted(await fleet.incidents()) == [
        ("cloned", "1", "malfunction", "cleared"),
        ("silent", "1", "malfunction", "open"),
        ("silent", "2", "malfunction", "open"),
    ]


async def test_an_erasure_waits_for_a_look_that_has_read_what_goes(
    connection: Connection, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_devices(connection, ["1"])
    await find(connection, "ID-03", hits=4, detail="37.9800, 23.7300 and 52.5000, 13.4000")
    go_on, real = asyncio.Event(), device_health.put

    async def put(*arguments: Any) -> None:
        await go_on.wait()
        await real(*arguments)

    monkeypatch.setattr(device_health, "put", put)
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with connected(dsn) as one, connected(dsn) as other:
        look = asyncio.create_task(Fleet(one).look(1))
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        await until(connection, held)
        erasure = asyncio.create_task(erase(other, "1", after(12), log=tmp_path / "log", actor="tests"))
        await until(connection, waiting)
        go_on.set()
        assert await look == "1 device ails: 1 opened"
        await erasure
    assert await connection.fetchval("SELECT detail FROM incident") == ""
    assert await connection.fetchval("SELECT count(*) FROM device_trouble") == 0


async def until(connection: Connection, counts: str) -> None:
    """Until a query counts something."""
    async with asyncio.timeout(60):
        while not await connection.fetchval(counts):
            await asyncio.sleep(0.01)


async def test_what_was_sent_of_it_is_emptied_and_what_waits_is_still_sent(
    connection: Connection, tmp_path: Path
) -> None:
    await add_devices(connection, ["1"])
    await find(connection, "ID-03")
    await Fleet(connection).look(1)
    for state in ("sent", "waiting"):
        await connection.execute(
            "INSERT INTO notification (id, event_id, channel, title, body, payload, state)"
            " SELECT gen_random_uuid(), id, $1, 'cloned', 'at home', '{}', $1 FROM incident_event",
            state,
        )
    await erase(connection, "1", after(12), log=tmp_path / "log", actor="tests")
    rows = await connection.fetch("SELECT state, body FROM notification ORDER BY state")
    assert [tuple(row) for row in rows] == [("sent", ""), ("waiting", "at home")]
