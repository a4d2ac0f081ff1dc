"""Rows of services and heartbeats: written as a whole, with when a state began and when restarts were."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from signalkeep import limits
from signalkeep.store import services
from signalkeep.store.incidents import Condition, observe
from signalkeep.store.postgres import Connection
from signalkeep.store.services import OURS, Beat, Seen

pytestmark = pytest.mark.servers

JOURNAL = UUID(int=7)


async def rows(connection: Connection) -> dict[tuple[str, str], tuple[str, str]]:
    return {(one.host, one.name): (one.state, one.why) for one in await services.services(connection)}


async def since(connection: Connection, name: str) -> Any:
    return await connection.fetchval("SELECT since FROM service WHERE name = $1", name)


async def test_a_machine_writes_all_of_its_rows_and_no_other(connection: Connection) -> None:
    await services.write_host(connection, "a", [Beat(role="gateway", instance=0, pid=5)], [Seen("x"), Seen("y")])
    await services.write_host(connection, "b", [Beat(role="gateway", instance=0)], [Seen("x", "down", "why", 0.5)])
    await services.write_host(connection, "a", [Beat(role="ingest", instance=3)], [Seen("y", "degraded", "so")])
    assert await rows(connection) == {("a", "y"): ("degraded", "so"), ("b", "x"): ("down", "why")}
    assert [(one.host, one.name) for one in await services.beats(connection)] == [("a", "ingest-3"), ("b", "gateway-0")]


async def test_since_moves_with_the_state_alone(connection: Connection) -> None:
    await services.note(connection, OURS, [Seen("x", "down", "one")])
    began = await since(connection, "x")
    await services.note(connection, OURS, [Seen("x", "down", "another")])
    assert (await since(connection, "x"), (await rows(connection))["", "x"]) == (began, ("down", "another"))
    await services.note(connection, OURS, [Seen("x")])
    assert await since(connection, "x") > began


async def test_a_state_begins_anew_when_nobody_has_looked_for_a_while(connection: Connection) -> None:
    async def seen(gap_s: float) -> None:
        await services.write_host(connection, "a", [], [Seen("x", "down")], gap_s=gap_s)

    await seen(15)
    began = await since(connection, "x")
    await connection.execute("UPDATE service SET at = at - interval '20 seconds'")
    await seen(60)
    assert await since(connection, "x") == began
    await connection.execute("UPDATE service SET at = at - interval '20 seconds'")
    await seen(15)
    assert await since(connection, "x") > began


async def test_restarts_are_remembered_by_their_time(connection: Connection) -> None:
    async def seen(restarts: int) -> int:
        await services.write_host(connection, "a", [Beat(role="ingest", instance=0, restarts=restarts)], [])
        return len((await services.beats(connection))[0].restarted_at)

    assert [await seen(count) for count in (5, 5, 6, 8)] == [0, 0, 1, 3]
    assert [await seen(count) for count in (0, 1)] == [3, 4], "its supervisor was started anew"
    assert await seen(1000) == limits.RESTARTS_REMEMBERED
    times = (await services.beats(connection))[0].restarted_at
    assert times == sorted(times)


async def test_without_a_supervisor_a_later_process_is_a_restart(connection: Connection) -> None:
    """As systemd or Docker starts them; one that is seen dead in between is still the one before."""
    start = await services.time_of(connection)

    async def seen(minute: float | None) -> tuple[int, int]:
        began = None if minute is None else start + timedelta(minutes=minute)
        pid = None if minute is None else 5
        await services.write_host(connection, "a", [Beat(role="gateway", instance=0, pid=pid, started_at=began)], [])
        (one,) = await services.beats(connection)
        return one.restarts, len(one.restarted_at)

    assert [await seen(minute) for minute in (1, 1, 2, None, 2, None, 3)] == [
        (0, 0), (0, 0), (1, 1), (1, 1), (1, 1), (1, 1), (2, 2),
    ]  # fmt: skip


async def test_how_far_a_journal_was_stays_when_its_gateway_is_gone(connection: Connection) -> None:
    here = Beat(role="gateway", instance=0, pid=5, journal=JOURNAL, durable_seq=17)
    await services.write_host(connection, "a", [here], [])
    await services.write_host(connection, "a", [Beat(role="gateway", instance=0)], [])
    row = await connection.fetchrow("SELECT pid, journal, durable_seq FROM heartbeat")
    assert row is not None
    assert tuple(row) == (None, JOURNAL, 17)


async def test_what_nobody_names_goes_and_audits_stay(connection: Connection) -> None:
    await services.note(connection, OURS, [Seen("watch a"), Seen("watch b"), Seen("audit h", "down")])
    await services.write_host(connection, "h", [Beat(role="gateway", instance=0)], [Seen("x")])
    await services.keep_only(connection, ["watch b"])
    assert set(await rows(connection)) == {("", "watch b"), ("", "audit h"), ("h", "x")}


async def test_a_machine_that_is_gone_for_good_is_forgotten(connection: Connection) -> None:
    await services.write_host(connection, "h", [Beat(role="gateway", instance=0)], [Seen("x")])
    for table in ("heartbeat", "service"):
        await connection.execute(
            f"UPDATE {table} SET at = now() - $1::interval", timedelta(seconds=limits.HOST_FORGOTTEN_S - 60)
        )
    await services.keep_only(connection, [])
    assert await rows(connection) != {}
    for table in ("heartbeat", "service"):
        await connection.execute(f"UPDATE {table} SET at = at - interval '2 minutes'")
    await services.keep_only(connection, [])
    assert (await rows(connection), await services.beats(connection)) == ({}, [])


async def test_what_is_open_can_be_said_again_as_it_is(connection: Connection) -> None:
    now = await services.time_of(connection)
    seen = Condition(kind="watch_down", subject="x", detail="away", hits=3)
    await observe(connection, "services", [seen], now)
    again = await services.open_of(connection, "services")
    assert [(one.kind, one.subject, one.detail, one.hits, one.since) for one in again] == [
        ("watch_down", "x", "away", 3, now)
    ]
    assert (await observe(connection, "services", again, now)).words() == "nothing new"
    assert await services.open_of(connection, "devices") == []


async def test_the_overview_counts_what_was_looked_at_lately(connection: Connection) -> None:
    await services.write_host(connection, "old", [], [Seen("x", "down", "long ago")])
    await connection.execute("UPDATE service SET at = now() - interval '1 hour'")
    await services.write_host(connection, "h", [], [Seen("x"), Seen("y", "degraded", "slow")])
    await services.note(connection, OURS, [Seen("watch a", "down", "away")])
    await observe(
        connection,
        "services",
        [Condition(kind="watch_down", subject="a", detail="")],
        await services.time_of(connection),
    )
    found = await services.overview(connection, 5)
    assert (found.services, found.hosts, found.unwell_count, found.open, found.acknowledged) == (3, 1, 2, 1, 0)
    assert [(one.name, one.state, one.why) for one in found.unwell] == [
        ("watch a", "down", "away"), ("y", "degraded", "slow"),
    ]  # fmt: skip
