"""Real processes under load, killed with SIGKILL; then nothing may be missing, spurious or doubled.

Fault model: F1, kill -9 of any process at any instant: see `tests.faults.kills`. The audit must be able to fail, too,
and a database that does not start keeps no device waiting. The judge is `tests.faults.checker`, which shares no code
with the product; the product's own audit must agree.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests.core import Core
from tests.faults.kills import BROKER, run_control, run_rounds
from tests.faults.victims import (
    FIRST_WITH_BROKER,
    GATEWAY,
    INGEST,
    NODE,
    RELAY,
    VICTIMS,
    VICTIMS_WITH_BROKER,
    decks,
)
from tests.servers import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

ROUNDS, SEED = 10, 1
EACH_ONCE = len(VICTIMS) * (3 * len(VICTIMS) + 1) // 2  # singly, doubled, during recovery


@pytest.fixture
def core() -> Iterator[Core]:
    with Core(unknown_devices="register") as running:
        yield running


@pytest.mark.timeout(900)
def test_killed_at_random_nothing_is_missing_spurious_or_doubled() -> None:
    outcome = run_rounds(ROUNDS, SEED)
    assert not outcome.broken, outcome.broken
    assert outcome.total.rounds == ROUNDS
    assert outcome.total.safe > 50 * ROUNDS
    assert len(outcome.total.recoveries_s) == ROUNDS, "a fresh event was stored after each"
    assert outcome.duplicates > 0, "re-sends really happened, and were suppressed"
    assert outcome.journals >= 3, "gateway and supervisor really were killed: each start of a gateway opens a journal"


@pytest.mark.timeout(900)
def test_killed_at_random_with_a_broker_in_between_nothing_is_missing_spurious_or_doubled(rabbitmq: None) -> None:
    rounds = len(FIRST_WITH_BROKER)
    outcome = run_rounds(rounds, SEED, BROKER)
    assert not outcome.broken, outcome.broken
    assert outcome.total.rounds == rounds
    assert outcome.total.kills == 2 * rounds
    assert outcome.total.safe > 50 * rounds
    assert len(outcome.total.recoveries_s) == rounds, "a fresh event was stored after each"
    assert outcome.duplicates > 0, "re-sends really happened, and were suppressed"
    assert outcome.journals == 2, "a gateway was killed once: each start opens a journal"


def test_the_control_is_found_losing_and_doubling() -> None:
    outcome = run_control(SEED)
    assert not outcome.broken, outcome.broken
    assert outcome.total.faults["missing"] > 0
    assert outcome.total.faults["doubled"] > 0


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_seed_every_victim_is_killed_singly_doubled_and_during_recovery(seed: int) -> None:
    plans = list(islice(decks(random.Random(seed)), 2 * EACH_ONCE))
    singly, once = len(VICTIMS), EACH_ONCE
    assert sorted(plan.victims for plan in plans[:singly]) == sorted((victim,) for victim in VICTIMS)
    assert all(plan.kills == 2 for plan in plans[singly:ROUNDS])
    assert {plan.again is None for plan in plans[singly:ROUNDS]} == {True, False}
    assert len({plan.kind for plan in plans[:once]}) == once, "every plan once before any comes again"
    assert sorted(plan.kind for plan in plans[once:]) == sorted(plan.kind for plan in plans[:once])


@pytest.mark.parametrize("seed", range(20))
def test_a_few_rounds_with_a_broker_strike_all_on_its_way_and_many_rounds_strike_everybody(seed: int) -> None:
    once = len(VICTIMS_WITH_BROKER) * (3 * len(VICTIMS_WITH_BROKER) + 1) // 2
    plans = list(islice(BROKER.plans(seed), once))
    few, others = plans[: len(FIRST_WITH_BROKER)], plans[len(FIRST_WITH_BROKER) :]
    assert {victim for plan in few for victim in (*plan.victims, plan.again)} == {NODE, RELAY, INGEST, GATEWAY, None}
    assert {plan.victims for plan in others[: len(VICTIMS_WITH_BROKER)]} == {(one,) for one in VICTIMS_WITH_BROKER}
    assert len({plan.kind for plan in plans}) == once, "every plan once before any comes again"


def test_a_row_deleted_or_inserted_by_hand_and_a_removed_segment_are_named(core: Core) -> None:
    """The audit can fail: it compares the ledger with the rows, not with itself."""
    events = b"".join(b'{"device_number": "78", "message_date": "2026-02-01T00:00:%02dZ"}\n' % n for n in range(20))
    core.talk("json", events, answer_bytes=20)
    core.wait_for_rows("SELECT count(*) FROM signal", 20)
    assert core.json("audit")["ok"]
    core.sql("DELETE FROM signal WHERE device_time = '2026-02-01T00:00:07Z'")
    report = core.json("audit", expect=1)
    assert any("78" in finding["subject"] and "00:00:07" in finding["detail"] for finding in report["findings"])
    core.sql(
        "INSERT INTO signal (device_id, wire_time, digest, received_at, fix_valid, attributes, protocol, journal_id, "
        "seq, record_no) SELECT device_id, '2026-02-02', 5, received_at, false, '{}', protocol, journal_id, seq, "
        "record_no FROM signal LIMIT 1"
    )
    report = core.json("audit", expect=1)
    named = " ".join(finding["detail"] for finding in report["findings"])
    assert "00:00:07" in named, "one row deleted and one inserted: the count agrees, the keys do not"
    assert "2026-02-02" in named
    core.stop()
    (segment, *_) = sorted(Path(core.data).glob("journal/*/*.seg"))
    segment.unlink()
    core.start()
    report = core.json("audit", expect=1)
    assert any(finding["check"].startswith("journal_") for finding in report["findings"]), report


def test_a_database_that_does_not_start_keeps_no_device_waiting(core: Core) -> None:
    """F3 at the worst moment: the core comes up, its database does not."""
    core.stop()
    (control,) = core.data.glob("postgres/*/global/pg_control")
    sound = control.read_bytes()
    control.write_bytes(bytes(len(sound)))
    core.start()
    assert "not ready yet" in core.log_text()
    assert core.talk("json", b'{"device_number": "79", "message_date": "2026-03-01T00:00:00Z"}', answer_bytes=1) == b"1"
    control.write_bytes(sound)
    wait_until(lambda: core.json("status", expect=None)["database"]["reachable"], 60, what="PostgreSQL is up")
    core.wait_for_rows("SELECT count(*) FROM signal", 1)
    assert core.json("audit")["ok"]
