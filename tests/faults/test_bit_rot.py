"""Ten thousand damaged journals. `make rot TRIES=...` damages any number of others."""

from __future__ import annotations

import pytest

from tests.faults.bit_rot import search

TRIES = 10_000


@pytest.mark.timeout(600)
def test_a_damaged_journal_is_read_and_its_losses_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    counts, broken = search(TRIES, first=1)
    assert broken == []
    assert counts["damaged journals"] == TRIES
    assert counts["with entries named as lost"] > TRIES // 3
    with capsys.disabled():
        print(f"\njournal: {TRIES:,} damaged, {counts['with entries named as lost']:,} with entries named as lost")
