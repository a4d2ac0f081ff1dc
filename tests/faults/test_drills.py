"""Each outage drill for a few seconds: see `tests.faults.drills`, which runs them at length.

The judge is `tests.faults.checker`, which shares no code with the product; the product's own audit must agree. The
control must be found losing and doubling, or the judge sees nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.core import Core
from tests.faults.drill import Impossible, ask
from tests.faults.drills import DRILLS, DRILLS_WITH_BROKER
from tests.faults.drills_database import control_with_postgresql_stopped
from tests.faults.judgement import dsn_of
from tests.faults.victims import GATEWAY, INGEST, POSTMASTER, SUPERVISOR, find, kill, stopped

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

SECONDS = 3
# The others, with a whole core, are for `make faults`: tests/broker has them within one process, in seconds.
SHORT_WITH_BROKER = ("RabbitMQ wiped", "two gateways, three workers, killed and added")


@pytest.mark.parametrize("name", DRILLS)
def test_nothing_is_lost_or_what_is_lost_is_named(name: str) -> None:
    try:
        result = DRILLS[name](SECONDS)
    except Impossible as reason:
        pytest.skip(f"{name}: {reason}")
    assert not result.broken, result.broken
    assert result.told_safe > 300
    assert (result.doubled, result.spurious) == (0, 0)
    assert (result.missing > 0) is (name == "journal directory removed")
    assert (result.told_safe_in_outage > 0) is (name != "disk full"), "only a full disk keeps devices waiting"
    assert bool(result.named) is (name in {"journal directory removed", "older backup restored"})


@pytest.mark.parametrize("name", SHORT_WITH_BROKER)
def test_with_a_broker_nothing_is_lost(rabbitmq: None, name: str) -> None:
    result = DRILLS_WITH_BROKER[name](SECONDS)
    assert not result.broken, result.broken
    assert result.told_safe > 300
    assert (result.missing, result.doubled, result.spurious) == (0, 0, 0)
    assert result.told_safe_in_outage > 0


def test_the_control_is_found_losing_and_doubling_in_an_outage() -> None:
    result = control_with_postgresql_stopped(SECONDS)
    assert not result.broken, result.broken
    assert result.missing > 0
    assert result.doubled > 0


def test_a_journal_that_vanished_before_it_had_ended_is_not_called_complete() -> None:
    with Core(unknown_devices="register") as core:
        dsn = dsn_of(core)
        events = [b'{"device_number": "81", "message_date": "2026-01-01T00:00:%02dZ"}\n' % second for second in (1, 2)]
        assert core.talk("json", events[0], answer_bytes=1) == b"1"
        core.wait_for_rows("SELECT count(*) FROM signal", 1)
        postmaster = find(core, POSTMASTER)
        assert postmaster is not None
        with stopped(postmaster):
            assert core.talk("json", events[1], answer_bytes=1) == b"1"
            kill(core, [SUPERVISOR, INGEST, GATEWAY])
        (row,) = ask(dsn, "SELECT directory, ended_at FROM journal")
        assert row["ended_at"] is None, "the database could know that there may be more"
        shutil.rmtree(Path(row["directory"]))
        core.start()
        assert core.sql("SELECT count(*) FROM signal") == [["1"]], "one of two acknowledged records is gone"
        page = core.json("status", expect=None)
        (finding,) = core.json("audit", expect=1)["findings"]
        assert "everything in it was ingested" not in finding["detail"]
        assert "everything acknowledged is in the database" not in page["verdict"]
