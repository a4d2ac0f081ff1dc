"""Live, ready, degraded: which fault is which, and that it is named."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from signalkeep.monitor.health import Check, live, page, passed, ready
from signalkeep.monitor.picture import DatabaseFacts, Picture
from signalkeep.vitals import Histogram, IngestNumbers, RelayNumbers, WorkerNumbers
from tests.monitor.pictures import core, gateway_numbers, ingest_numbers, journal, picture, role, vitals


def states(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks if check.state != "ok"}


def why(checks: list[Check], name: str) -> str:
    return next(check.why for check in checks if check.name == name)


def test_all_is_well() -> None:
    assert states(live(picture())) == states(ready(picture())) == {}


def test_a_process_that_should_be_there_and_is_not() -> None:
    gone = picture(roles=core(ingest=role("ingest", vitals=None, lives=False)))
    assert states(live(gone)) == {"ingest-0": "failed"}
    assert "supervisor starts it again" in why(live(gone), "ingest-0")
    assert states(ready(gone)) == {"ingest": "degraded"}, "devices are acknowledged without it"


def test_a_process_that_died() -> None:
    dead = picture(roles=core(gateway=role("gateway", numbers=gateway_numbers(), lives=False)))
    assert "4242" in why(live(dead), "gateway-0")
    assert states(ready(dead)) == {"gateway": "failed", "sockets": "failed"}


def test_a_process_that_hangs_is_not_alive() -> None:
    hung = picture(roles=core(gateway=role("gateway", numbers=gateway_numbers(), beat_age_s=16.0)))
    assert states(live(hung)) == {"gateway-0": "failed"}
    assert "pid 4242 has not moved for 16 s" in why(live(hung), "gateway-0")
    assert not passed(ready(hung))
    slow = picture(roles=core(gateway=role("gateway", numbers=gateway_numbers(), beat_age_s=14.0)))
    assert passed(live(slow))


def test_nothing_runs() -> None:
    assert not passed(live(picture(roles=[])))
    assert not passed(ready(picture(roles=[])))


@pytest.mark.parametrize(
    ("database", "said"),
    [
        (DatabaseFacts(why="cannot use PostgreSQL at x"), "cannot use PostgreSQL at x; devices are acknowledged"),
        (DatabaseFacts(up=True, schema="0000"), "its schema is 0000"),
        (DatabaseFacts(up=True), "not there yet"),
    ],
)
def test_the_database_away_is_degraded_named_and_ready(database: DatabaseFacts, said: str) -> None:
    checks = ready(picture(database=database))
    assert states(checks) == {"database": "degraded"}
    assert passed(checks)
    assert said in why(checks, "database")


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"journal": journal(free_bytes=10**7)}, "journal-disk"),
        ({"journal": journal(used_bytes=10**10)}, "journal-cap"),
        ({"journal": None, "journal_fault": "no such disk"}, "journal-disk"),
        ({"roles": core(gateway=role("gateway", numbers=gateway_numbers(shut=["disk"])))}, "sockets"),
        ({"roles": core(gateway=role("gateway", numbers=gateway_numbers(), listens=False))}, "gateway"),
        ({"roles": core(gateway=None)}, "gateway"),
    ],
)
def test_what_stops_acknowledgements_is_not_ready(changes: dict[str, Any], failing: str) -> None:
    checks = ready(picture(**changes))
    assert not passed(checks)
    assert states(checks)[failing] == "failed"
    assert why(checks, failing)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"journal": journal(free_bytes=2 * 10**8)}, {}),
        ({"journal": journal(free_bytes=2 * 10**8 - 1)}, {"journal-disk": "degraded"}),
        ({"journal": journal(used_bytes=8 * 10**9)}, {}),
        ({"journal": journal(used_bytes=8 * 10**9 + 1)}, {"journal-cap": "degraded"}),
        ({"journal": journal(used_bytes=8 * 10**9 + 1), "journal_keep_bytes": 9 * 10**9}, {}),
        ({"journal": journal(used_bytes=9 * 10**9 + 1), "journal_keep_bytes": 9 * 10**9}, {"journal-cap": "degraded"}),
    ],
)
def test_a_disk_that_is_nearly_full_is_named_before_acknowledgements_stop(
    changes: dict[str, Any], state: dict[str, str]
) -> None:
    checks = ready(picture(**changes))
    assert states(checks) == state
    assert passed(checks)
    assert all("GiB" in why(checks, name) for name in state)


def test_a_database_that_takes_no_rows_is_degraded() -> None:
    facts = DatabaseFacts(up=True, schema=picture().schema_wanted, write_fault="no room")
    checks = ready(picture(database=facts))
    assert states(checks) == {"database": "degraded"}
    assert "no room" in why(checks, "database")


def stuck(instance: int = 0) -> Any:
    waiting = vitals("gateway", instance, gateway_numbers(), waits=True)
    return role("gateway", instance, vitals=waiting, handled_age_s=20.0)


def test_a_sync_that_hangs_is_not_ready_and_idleness_is_no_fault() -> None:
    assert states(ready(picture(roles=core(gateway=stuck())))) == {"journal-syncs": "failed"}
    idle = role("gateway", numbers=gateway_numbers(), handled_age_s=10_000.0)
    assert states(ready(picture(roles=core(gateway=idle)))) == {}


def test_one_gateway_of_two_is_enough_and_the_other_is_named() -> None:
    first = role("gateway", numbers=gateway_numbers())
    for second, where in (
        (role("gateway", 1, vitals=None, lives=False), "gateway"),
        (role("gateway", 1, gateway_numbers(shut=["journal_behind"])), "sockets"),
        (stuck(1), "journal-syncs"),
    ):
        checks = ready(picture(roles=core(gateway=first, second=second)))
        assert states(checks) == {where: "degraded"}
        assert "gateway-1" in why(checks, where)


def test_ingest_that_writes_nothing_although_it_could_is_degraded() -> None:
    idle = role("ingest", numbers=ingest_numbers(), handled_age_s=100.0)
    behind: Picture = picture(roles=core(ingest=idle), journal=journal(lag_entries=5, lag_max_entries=5))
    assert states(ready(behind)) == {"ingest": "degraded"}
    away = msgspec.structs.replace(behind, database=DatabaseFacts(why="away"))
    assert states(ready(away)) == {"database": "degraded"}, "the cause is named, not its effect"


def test_pages_read_like_those_of_kubernetes() -> None:
    checks = [Check("a"), Check("b", "degraded", "why not"), Check("c", "failed", "because")]
    assert page("readyz", checks, verbose=True).splitlines() == [
        "[+]a ok", "[~]b degraded: why not", "[-]c failed: because", "readyz check failed",
    ]  # fmt: skip
    assert page("readyz", checks, verbose=False).splitlines()[:-1] == ["[~]b degraded: why not", "[-]c failed: because"]
    assert page("readyz", checks[:2], verbose=True).endswith("readyz check passed, degraded\n")
    assert page("readyz", checks[:1], verbose=True).endswith("readyz check passed\n")
    assert page("readyz", checks[:2], verbose=False) == "ok\n"


def relay_numbers(**changes: Any) -> RelayNumbers:
    made = RelayNumbers(
        messages=1, message_bytes=2, entries=3, failures=0, went_back={}, announced=0,
        confirm_time=Histogram.of([1.0]), window_bytes=0, connected=True, blocked=False, driving=1, positions={},
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def worker_numbers(**changes: Any) -> IngestNumbers:
    made = WorkerNumbers(messages=1, doubles=0, holes=0, set_aside={}, queues=[0], in_hand=0, connected=True)
    return msgspec.structs.replace(ingest_numbers(), worker=msgspec.structs.replace(made, **changes))


def gateway_host(relay: RelayNumbers) -> Picture:
    """A machine with gateways and a relay; its rows are made elsewhere."""
    return picture(roles=[role("gateway", numbers=gateway_numbers()), role("relay", numbers=relay)])


def test_a_machine_of_gateways_is_ready_without_ingest() -> None:
    assert states(ready(gateway_host(relay_numbers()))) == {}
    assert "relay" in {check.name for check in ready(gateway_host(relay_numbers()))}


@pytest.mark.parametrize(
    ("changes", "said"), [({"connected": False}, "relay-0 has no connection"), ({"blocked": True}, "alarm")]
)
def test_the_broker_away_or_blocked_is_degraded(changes: dict[str, Any], said: str) -> None:
    checks = ready(gateway_host(relay_numbers(**changes)))
    assert states(checks) == {"broker": "degraded"}
    assert passed(checks)
    assert said in why(checks, "broker")


def test_a_machine_of_workers_is_ready_when_one_moves() -> None:
    assert states(ready(picture(roles=[role("ingest", numbers=worker_numbers())]))) == {}
    away = ready(picture(roles=[role("ingest", numbers=worker_numbers(connected=False))]))
    assert states(away) == {"broker": "degraded"}
    hung = ready(picture(roles=[role("ingest", numbers=worker_numbers(), beat_age_s=100.0)]))
    assert not passed(hung)
