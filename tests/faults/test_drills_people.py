"""The right people hear of the right thing, once: drills of `tests.faults.drills_people` on cores that look often.

Outages that have nothing to do with each other happen at the same time: then each is told by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.faults.drills_people import OUTAGES
from tests.faults.people import Told, carry_out, judge, scene

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

LOST = ("canary_lost", "the canary")
ON_TWO_CORES = (
    [("gateway hangs", "disk nearly full", "RabbitMQ stopped")],  # three at once, on one core
    [("the canary's way is cut",), ("PostgreSQL killed, and it cannot start",)],  # in turn, on the other
)


def carry_out_in_turn(rounds: Sequence[Sequence[str]]) -> list[Told]:
    """On one core."""
    outages = [[OUTAGES[name] for name in names] for names in rounds]
    with scene([one for together in outages for one in together], quick=True) as at:
        return [told for together in outages for told in carry_out(at, together)]


def test_each_outage_is_one_message_and_its_end_another_and_nothing_else_is_told(rabbitmq: None) -> None:
    """Both cores at the same time: most of it is waiting."""
    with ThreadPoolExecutor(len(ON_TWO_CORES)) as threads:
        results = [told for found in threads.map(carry_out_in_turn, ON_TWO_CORES) for told in found]
    assert len(results) == 5
    for told in results:
        assert not told.broken, told.broken
        assert told.messages == 2


def message(number: int, what: str, subject: tuple[str, str] = LOST) -> dict[str, Any]:
    return {"id": str(number), "what": what, "incident": dict(zip(("kind", "subject"), subject, strict=True))}


@pytest.mark.parametrize(
    ("heard", "broken"),
    [
        ([message(1, "opened"), message(2, "cleared")], None),
        ([message(1, "opened")], "said 0 times: cleared canary_lost the canary"),
        ([message(1, "opened"), message(1, "opened"), message(2, "cleared")], "message 1 came 2 times"),
        ([message(1, "opened"), message(3, "opened"), message(2, "cleared")], "said 2 times: opened canary_lost"),
        ([message(1, "opened"), message(3, "reopened"), message(2, "cleared")], "said without need: reopened"),
        (
            [message(1, "opened"), message(2, "cleared"), message(3, "opened", ("disk_low", "x"))],
            "said without need: opened disk_low x",
        ),
    ],
)
def test_the_judge_judges(heard: list[dict[str, Any]], broken: str | None) -> None:
    found = judge(heard, {LOST})
    assert len(found) == (broken is not None)
    assert broken is None or broken in found[0]
