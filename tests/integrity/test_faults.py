"""From rows of services to incidents: what must last, what explains what, and no name changes half-way."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from signalkeep import limits
from signalkeep.integrity.faults import conditions, restarting_since
from signalkeep.store.incidents import Condition
from signalkeep.store.services import OURS, LastBeat, Service, State

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
LONG_S = 3600.0
CHECKS = (
    "gateway-0", "ingest-0", "gateway", "sockets", "journal-syncs", "journal-cap", "journal-disk", "ingest",
    "database", "clock", "rules", "certificate gateway.tls.certificate",
)  # fmt: skip


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def row(
    name: str, state: State = "up", why: str = "", *, for_s: float = LONG_S, host: str = "h1", at_s: float = 0.0
) -> Service:
    return Service(host=host, name=name, state=state, why=why, since=ago(for_s), at=ago(at_s))


def machine(*changed: Service, host: str = "h1") -> list[Service]:
    """One that is well, but for these rows."""
    rows = {name: row(name, host=host) for name in CHECKS} | {
        one.name: msgspec.structs.replace(one, host=host) for one in changed
    }
    return [row(f"host {host}", host=OURS), *rows.values()]


def beat(
    name: str = "gateway-0", *, pid: int | None = 7, restarted: Sequence[float] = (), host: str = "h1"
) -> LastBeat:
    role, _, instance = name.rpartition("-")
    return LastBeat(
        host=host, role=role, instance=int(instance), pid=pid, at=ago(1), restarts=len(restarted),
        restarted_at=[ago(seconds) for seconds in restarted],
    )  # fmt: skip


def found(
    rows: Sequence[Service], *beats: LastBeat, opened: Sequence[Condition] = (), **options: Any
) -> set[tuple[str, str]]:
    conds = conditions(rows, beats, opened, NOW, **options)
    keys = [(one.kind, one.subject) for one in conds]
    assert len(set(keys)) == len(keys), "each is said once"
    return set(keys)


def was(kind: str, subject: str) -> Condition:
    return Condition(kind=kind, subject=subject, detail="as it was", since=ago(500))


def test_all_is_well() -> None:
    assert found([*machine(), *machine(host="h2")], beat(), beat(host="h2")) == set()


@pytest.mark.parametrize(
    ("name", "state", "kind", "subject"),
    [
        ("gateway-0", "down", "service_down", "gateway-0 on h1"),
        ("gateway", "degraded", "service_degraded", "gateway on h1"),
        ("gateway", "down", "service_down", "gateway on h1"),
        ("sockets", "down", "service_down", "sockets on h1"),
        ("journal-syncs", "degraded", "service_degraded", "journal-syncs on h1"),
        ("ingest", "degraded", "service_degraded", "ingest on h1"),
        ("journal-cap", "degraded", "disk_low", "the journals' disk on h1"),
        ("journal-disk", "down", "disk_full", "the journals' disk on h1"),
        ("database", "degraded", "service_degraded", "the database"),
        ("broker", "degraded", "broker_away", "the broker"),
        ("clock", "degraded", "clock_offset", "the clock of h1"),
        ("rules", "degraded", "rule_broken", "rules on h1"),
        ("certificate x", "degraded", "certificate_expires", "x on h1"),
    ],
)
def test_each_row_has_its_kind(name: str, state: State, kind: str, subject: str) -> None:
    rows = machine(row(name, state, "why"))
    assert found(rows) == {(kind, subject)}
    (one,) = conditions(rows, [], [], NOW)
    assert "why" in one.detail
    assert one.since == ago(LONG_S)


@pytest.mark.parametrize(
    ("name", "state", "kind", "subject"),
    [
        ("watch x", "down", "watch_down", "x"),
        ("job x", "degraded", "job_failing", "x"),
        ("canary", "degraded", "canary_lost", "the canary"),
        ("canary", "down", "canary_lost", "the canary"),
        ("rules of sweeps", "degraded", "rule_broken", "rules of sweeps"),
    ],
)
def test_so_has_what_the_organizer_looks_at(name: str, state: State, kind: str, subject: str) -> None:
    assert found([*machine(), row(name, state, "why", host=OURS)]) == {(kind, subject)}


def test_what_audits_say_is_an_incident_of_the_audit() -> None:
    assert found([*machine(), row("audit h1", "down", "why", host=OURS)]) == set()


# How long ------------------------------------------------------------------------------------------------------------


def test_what_has_just_begun_is_no_incident_yet() -> None:
    assert found(machine(row("clock", "degraded", for_s=9))) == set()
    assert found(machine(row("clock", "degraded", for_s=10))) == {("clock_offset", "the clock of h1")}
    assert found(machine(row("clock", "degraded", for_s=10)), bad_s=11) == set()


def test_what_a_machine_saw_before_it_stopped_is_no_fault_of_the_time_since() -> None:
    """The last look of a core that stops sees gateways that are gone already."""
    stopped = machine(row("gateway-0", "down", for_s=30, at_s=25), row("gateway", "down", for_s=30, at_s=25))
    assert found(stopped, beat(pid=None)) == set()
    assert found(machine(row("gateway-0", "down", for_s=30)), beat(pid=None)) != set()


def test_what_has_just_become_well_is_still_open_as_it_was() -> None:
    opened = [was("clock_offset", "the clock of h1")]
    assert conditions(machine(row("clock", for_s=29)), [], opened, NOW) == opened
    assert found(machine(row("clock", for_s=30)), opened=opened) == set()
    assert found(machine(row("clock", for_s=30)), opened=opened, good_s=31) != set()


def test_what_comes_back_before_it_is_over_is_the_same() -> None:
    opened = [was("clock_offset", "the clock of h1")]
    assert found(machine(row("clock", "degraded", for_s=1)), opened=opened) == {("clock_offset", "the clock of h1")}


def test_what_is_not_looked_at_any_more_is_over() -> None:
    assert found(machine(), opened=[was("watch_down", "gone"), was("service_down", "gateway-7 on h1")]) == set()


# What explains what --------------------------------------------------------------------------------------------------


def frozen_gateway(for_s: float = LONG_S) -> list[Service]:
    return machine(
        row("gateway-0", "down", "it hangs", for_s=for_s),
        row("gateway", "down", for_s=for_s),
        row("sockets", "down", for_s=for_s),
        row("journal-syncs", "down", for_s=for_s),
    )


def test_a_gateway_that_hangs_is_one_incident() -> None:
    canary = row("canary", "down", "no acknowledgement", host=OURS)
    assert found([*frozen_gateway(), canary], beat()) == {("role_hung", "gateway-0 on h1")}
    assert found([*frozen_gateway(for_s=3), canary], beat()) == set(), "also before it is told"


def test_a_canary_that_met_the_frozen_gateway_is_not_told_when_it_moves_again() -> None:
    back = machine(*(row(name, for_s=5) for name in ("gateway-0", "gateway", "sockets", "journal-syncs")))
    met = row("canary", "down", "no acknowledgement", host=OURS, at_s=20)
    assert found([*back, met], beat(), canary_s=30) == set()
    later = row("canary", "down", "no acknowledgement", host=OURS, at_s=0)
    assert found([*machine(row("gateway", for_s=31)), later], beat(), canary_s=30) == {("canary_lost", "the canary")}


def test_rows_that_wait_for_broker_or_database_are_not_told_beside_them() -> None:
    lost = row("canary", "degraded", "acknowledged, but no row", host=OURS, for_s=0)
    for cause, told in (("broker", ("broker_away", "the broker")), ("database", ("service_degraded", "the database"))):
        away = machine(row(cause, "degraded"), row("ingest", "degraded"), row("relay", "degraded"))
        assert found([*away, lost], canary_s=30) == {told}
        back = machine(row(cause, for_s=15), row("ingest", "degraded"), row("relay", "degraded"))
        assert found([*back, lost], opened=[was(*told)], canary_s=30) == {told}, "they have not tried again yet"
        late = machine(row(cause, for_s=26), row("ingest", "degraded"))
        assert found([*late, lost], canary_s=30) == {("service_degraded", "ingest on h1")}
        later = machine(row(cause, for_s=56))
        assert found([*later, lost], canary_s=30) == {("canary_lost", "the canary")}
    refused = row("canary", "down", "no acknowledgement", host=OURS)
    assert ("canary_lost", "the canary") in found([*machine(row("broker", "degraded")), refused], canary_s=30)


def test_what_was_told_is_not_over_because_something_explains_it_now() -> None:
    lost = was("canary_lost", "the canary")
    away = row("canary", "down", "no acknowledgement", host=OURS, at_s=2)
    assert found([*frozen_gateway(), away], beat(), opened=[lost], canary_s=30) == {
        ("role_hung", "gateway-0 on h1"), ("canary_lost", "the canary"),
    }  # fmt: skip
    waits = machine(row("ingest", "degraded"), row("database", "degraded"))
    assert found(waits, opened=[was("service_degraded", "ingest on h1")]) == {
        ("service_degraded", "ingest on h1"), ("service_degraded", "the database"),
    }  # fmt: skip


def test_that_rows_do_not_come_is_told_beside_a_process_that_is_not_there() -> None:
    lost = row("canary", "degraded", "acknowledged, but no row", host=OURS, for_s=0)
    rows = machine(row("ingest-0", "down"), row("ingest", "degraded"))
    assert found([*rows, lost], beat("ingest-0", pid=None)) == {
        ("service_down", "ingest-0 on h1"), ("canary_lost", "the canary"),
    }  # fmt: skip
    assert found([*machine(), row("canary", host=OURS, for_s=0)], opened=[was("canary_lost", "the canary")]) == set()


def test_a_process_that_is_not_there_does_not_hang() -> None:
    rows = machine(row("gateway-0", "down"), row("gateway", "degraded"))
    assert found(rows, beat(pid=None)) == {("service_down", "gateway-0 on h1")}


def test_one_that_hung_and_is_then_killed_keeps_its_incident() -> None:
    rows = machine(row("gateway-0", "down"), row("gateway", "degraded"))
    opened = [was("role_hung", "gateway-0 on h1")]
    assert found(rows, beat(pid=None), opened=opened) == {("role_hung", "gateway-0 on h1")}
    assert found(machine(row("gateway-0", for_s=29)), beat(), opened=opened) == {("role_hung", "gateway-0 on h1")}
    assert found(machine(row("gateway-0", for_s=31)), beat(), opened=opened) == set()


def test_a_process_that_ends_again_and_again() -> None:
    often = beat(restarted=(500, 300, 10))
    rows = machine(row("gateway-0", "down", for_s=1), row("gateway", "degraded"))
    assert found(rows, often) == {("role_restarting", "gateway-0 on h1")}
    assert found(machine(), often) == {("role_restarting", "gateway-0 on h1")}
    assert found(machine(), beat("postgres-0", pid=None, restarted=(3, 2, 1))) == {
        ("role_restarting", "postgres-0 on h1")
    }
    assert found(machine(), beat(restarted=(500, 300))) == set()
    assert found(machine(), beat(restarted=(601, 300, 10))) == set()


def test_restarts_of_long_ago_do_not_count() -> None:
    assert restarting_since(beat(restarted=(limits.RESTARTS_S + 1, 9, 8)), NOW) is None
    assert restarting_since(beat(restarted=(limits.RESTARTS_S - 1, 9, 8)), NOW) == ago(limits.RESTARTS_S - 1)


@pytest.mark.parametrize("cause", ["journal-cap", "journal-disk", "journal-syncs"])
def test_sockets_that_are_not_read_for_a_reason(cause: str) -> None:
    rows = machine(row(cause, "down"), row("sockets", "down"))
    assert not any("sockets" in subject for _, subject in found(rows))
    assert len(found(rows)) == 1


@pytest.mark.parametrize("cause", ["broker", "database"])
def test_rows_that_do_not_move_for_a_reason(cause: str) -> None:
    """Also where only another machine sees the reason."""
    rows = [*machine(row("ingest", "degraded")), row(cause, "degraded", "why", host="h2"), row("host h2", host=OURS)]
    assert len(found(rows)) == 1
    assert not any("ingest" in subject for _, subject in found(rows))


def test_what_all_machines_share_is_one_incident() -> None:
    rows = [*machine(row("broker", "degraded", "a")), *machine(row("broker", "degraded", "b"), host="h2")]
    (one,) = conditions(rows, [], [], NOW)
    assert (one.kind, one.subject, one.detail) == ("broker_away", "the broker", "h1: a; h2: b")
    half = [*machine(row("broker", "degraded", "a")), *machine(row("broker"), host="h2")]
    assert found(half) == {("broker_away", "the broker")}


def silent_machine(*changed: Service) -> list[Service]:
    return [*machine(*changed)[1:], row("host h1", "down", "silent", host=OURS, for_s=20)]


def test_a_machine_that_says_nothing_is_one_incident_and_what_was_open_there_stays() -> None:
    assert found(silent_machine(row("gateway", "down"), row("clock", "degraded"))) == {("host_silent", "h1")}
    opened = [was("clock_offset", "the clock of h1")]
    assert found(silent_machine(row("clock")), opened=opened) == {
        ("host_silent", "h1"), ("clock_offset", "the clock of h1"),
    }  # fmt: skip


def test_what_a_silent_machine_said_of_the_broker_counts_no_more() -> None:
    rows = [*silent_machine(row("broker", "degraded", "away")), *machine(row("broker"), host="h2")]
    assert found(rows, opened=[was("broker_away", "the broker")]) == {("host_silent", "h1")}


@pytest.mark.parametrize(
    ("name", "subject", "mild", "bad"),
    [
        ("journal-disk", "the journals' disk on h1", "disk_low", "disk_full"),
        ("gateway", "gateway on h1", "service_degraded", "service_down"),
    ],
)
def test_what_gets_worse_is_not_over(name: str, subject: str, mild: str, bad: str) -> None:
    rows = machine(row(name, "down", for_s=20))
    assert found(rows, opened=[was(mild, subject)]) == {(mild, subject), (bad, subject)}
    assert found(rows) == {(bad, subject)}
    assert found(machine(row(name, "down", for_s=5)), opened=[was(mild, subject)]) == {(mild, subject)}
