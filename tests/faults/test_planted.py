"""Every planted bug is noticed: the harness can fail. `make planted` prints who noticed what, and when."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.planted import BUGS, look_for, ready_made_server
from tests.faults.planted_core import Bug

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def _ready_made() -> Iterator[None]:
    with ready_made_server():
        yield


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name.replace(" ", "_") for bug in BUGS])
def test_a_planted_bug_is_noticed(bug: Bug) -> None:
    result = look_for(bug, bug.first)
    assert result.after, f"nobody noticed: {bug.name}; {result.said}"
