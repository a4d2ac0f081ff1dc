"""Every planted bug is noticed: the harness can fail. `make planted` prints who noticed what, and when."""

from __future__ import annotations

import pytest

from tests.faults.planted import BUGS, look_for
from tests.faults.planted_core import Bug

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name.replace(" ", "_") for bug in BUGS])
def test_a_planted_bug_is_noticed(bug: Bug) -> None:
    result = look_for(bug, bug.first)
    assert result.after, f"nobody noticed: {bug.name}; {result.said}"
