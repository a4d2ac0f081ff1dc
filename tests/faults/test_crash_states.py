"""A hundred thousand crash states of the journal. `make states STATES=...` looks at any number of others."""

from __future__ import annotations

import pytest

from tests.faults.crash_states import search

STATES = 100_000
SHARES = 2  # so that processors share them
SOMETIMES = (
    "answers looked at in the durable image",
    "entries refused for want of room",
    "journals archived and removed",
    "reads that failed once",
    "recoveries interrupted",
    "runs ended by a disk error",
    "with a tail cut",
    "with unanswered entries",
)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("share", range(SHARES))
def test_what_was_acknowledged_survives_a_crash_after_any_operation(
    share: int, capsys: pytest.CaptureFixture[str]
) -> None:
    counts, broken = search(STATES // SHARES, first=1 + share * 1_000)
    assert broken == []
    assert counts["states"] >= STATES // SHARES
    assert [what for what in SOMETIMES if not counts[what]] == [], "these never happened"
    assert counts["segments"] > 4 * counts["seeds"], "several segments in each history"
    with capsys.disabled():
        print(f"\njournal: {counts['states']:,} crash states, {counts['with a tail cut']:,} with a tail cut")
