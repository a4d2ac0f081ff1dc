"""The page of rules says what the rules say."""

from __future__ import annotations

from tests.rules.page import PAGE, page


def test_the_page_is_that_of_the_rules() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tests.rules.page`"
