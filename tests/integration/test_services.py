"""Are we working: a real core whose processes are frozen and killed. Each cause is one incident, and it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from signalkeep.clock import SystemClock
from signalkeep.config import load
from signalkeep.integrity.canary import Canary, usual_number
from signalkeep.model import CANARY_MODEL
from signalkeep.roles import running_roles
from signalkeep.store import registry
from signalkeep.store.postgres import embedded_dsn
from signalkeep.store.services import Seen
from tests.builders import ask
from tests.core import Core
from tests.servers import connected, free_port, run_sync, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

HOST = socket.gethostname()
WATCHED = free_port()
WAIT_S = 90.0
OF_DEVICE = """
SELECT d.model, d.status, s.stored FROM device d JOIN device_state s ON s.device_id = d.id WHERE d.device_number = $1
"""


def written(core: Core) -> bool:
    """Also where the database is slow to come: a core says that it runs when it acknowledges devices."""
    services = core.json("status", expect=None)["services"]
    return services is not None and services["hosts"] > 0


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    with Core(
        monitor__hung_after_s="3",
        monitor__write_every_s="0.5",
        services__every_s="0.5",
        services__bad_s="1",
        services__good_s="1",
        services__canary__enabled="true",
        services__canary__every_s="1",
        services__canary__deadline_s="8",
        services__watch=json.dumps([{"name": "shop", "tcp": f"127.0.0.1:{WATCHED}", "every_s": 1, "timeout_s": 2}]),
    ) as running:
        wait_until(lambda: written(running), WAIT_S, what="the monitor writes")
        yield running


@pytest.fixture
def shop() -> Iterator[socket.socket]:
    """What is watched, as it should be."""
    with closing(socket.create_server(("127.0.0.1", WATCHED), backlog=64)) as server:
        yield server


OPENED_SINCE = """
SELECT DISTINCT i.kind, i.subject FROM incident i JOIN incident_event e ON e.incident_id = i.id
WHERE e.id > $1 AND e.what IN ('opened', 'reopened') AND i.source = 'services' AND i.state = ANY ($2::text[])
"""


def incidents(core: Core, since: int = 0, *, states: tuple[str, ...] = ("open",)) -> set[tuple[str, str]]:
    """Of services, opened or reopened after this event: what comes back soon is the same incident."""
    rows = ask(embedded_dsn(core.data), OPENED_SINCE, since, list(states))
    return {(row["kind"], row["subject"]) for row in rows}


def well(core: Core) -> int:
    """Wait until the canary has arrived and nothing is open; the number of the last event until now."""
    dsn = embedded_dsn(core.data)
    up = "SELECT count(*) FROM service WHERE name IN ('canary', 'watch shop', 'gateway', 'ingest') AND state = 'up'"
    wait_until(lambda: ask(dsn, up)[0][0] == 4 and not incidents(core), WAIT_S, what="all is well")
    last: int = ask(dsn, "SELECT coalesce(max(id), 0) FROM incident_event")[0][0]
    return last


def pid_of(core: Core, role: str) -> int:
    return next(state.pid for state in running_roles(core.data / "run") if state.role == role)


def test_a_frozen_gateway_is_one_incident_and_over_when_it_moves(core: Core, shop: socket.socket) -> None:
    """With its sockets, /readyz and a canary that nobody acknowledges, it would be four."""
    before, gateway = well(core), (("role_hung", f"gateway-0 on {HOST}"),)
    pid = pid_of(core, "gateway")
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: incidents(core, before) == set(gateway), WAIT_S, what="the gateway hangs")
        lost = "SELECT state FROM service WHERE name = 'canary'"
        wait_until(lambda: ask(embedded_dsn(core.data), lost)[0][0] == "down", WAIT_S, what="no canary is acknowledged")
        assert incidents(core, before) == set(gateway)
        said = core.run("status", expect=1)
        assert "incidents 1 open" in said
        assert f"down      gateway-0 on {HOST} since " in said
    finally:
        os.kill(pid, signal.SIGCONT)
    well(core)
    assert incidents(core, before, states=("open", "acknowledged", "cleared")) == set(gateway)


def test_a_watched_service_goes_and_comes_back(core: Core) -> None:
    with closing(socket.create_server(("127.0.0.1", WATCHED), backlog=64)):
        before = well(core)
    wait_until(lambda: incidents(core, before) == {("watch_down", "shop")}, WAIT_S, what="the shop is away")
    with closing(socket.create_server(("127.0.0.1", WATCHED), backlog=64)):
        well(core)
    assert incidents(core, before, states=("cleared",)) == {("watch_down", "shop")}


def test_a_canary_flies_the_whole_way_by_itself_and_says_nothing_of_the_fleet(core: Core) -> None:
    """Through the port that the gateway says it has. What a person decides about its device stays."""
    settings = load(
        core.data,
        environ={
            "SIGNALKEEP_GATEWAY__PORTS": '{"teltonika": 0}',
            "SIGNALKEEP_SERVICES__CANARY__PROTOCOL": "teltonika",
            "SIGNALKEEP_SERVICES__CANARY__DEADLINE_S": "60",
        },
    )
    number = usual_number(HOST, "teltonika")

    async def work() -> None:
        async with connected(embedded_dsn(core.data)) as connection:
            canary = Canary(settings, SystemClock())
            assert (await canary.fly(connection)).why == ""
            row = await connection.fetchrow(OF_DEVICE, number)
            assert row is not None
            assert (row["model"], row["status"], row["stored"]) == (CANARY_MODEL, "active", 1)
            await registry.retire(connection, number, actor="tests")
            assert "retired" in (await canary.fly(connection)).why
            row = await connection.fetchrow(OF_DEVICE, number)
            assert row is not None
            assert (row["status"], row["stored"]) == ("retired", 1)

    run_sync(work())


def test_a_canary_whose_row_does_not_come_says_so(core: Core) -> None:
    """The last here: it freezes ingest, which the core itself sees, too."""
    settings = load(
        core.data,
        environ={
            "SIGNALKEEP_GATEWAY__PORTS": '{"json": 0}',
            "SIGNALKEEP_SERVICES__CANARY__DEADLINE_S": "4",
            "SIGNALKEEP_SERVICES__CANARY__DEVICE_NUMBER": "late-canary",
        },
    )

    async def fly() -> Seen:
        async with connected(embedded_dsn(core.data)) as connection:
            return await Canary(settings, SystemClock()).fly(connection)

    assert run_sync(fly()).state == "up"
    pid = pid_of(core, "ingest")
    os.kill(pid, signal.SIGSTOP)
    try:
        seen = run_sync(fly())
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (seen.state, seen.why) == ("degraded", "acknowledged, but no row within 4 s")
