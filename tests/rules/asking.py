"""Rules asked one by one: their bare answer, and what the judge makes of it."""

from __future__ import annotations

from signalkeep.model import Flag
from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.contract import Answer
from signalkeep.rules.judge import Judged, defaults
from signalkeep.rules.reading import Reading
from tests.rules.support import ids_of, judge_all, profile_of


def ask(rule_id: str, reading: Reading, **limits: float) -> Answer:
    """The answer of a rule that needs the reading alone; as the judge does it, the globe is looked at first."""
    rule = BY_ID[rule_id]
    judge_all([reading], profile_of(rule_id))
    answer: Answer = rule.check(reading, defaults(rule) | limits)
    assert answer is None or answer is False or answer
    return answer


def assert_hit(judged: Judged, rule_id: str, *words: str, doubted: bool = False) -> None:
    """One hit of this rule, with its bit, and these words in its text."""
    rule = BY_ID[rule_id]
    assert ids_of(judged) == [rule_id]
    assert judged.flags == rule.mask | (Flag.DOUBTFUL_POSITION if doubted else 0)
    assert all(word in judged.hits[0].detail for word in words), judged.hits[0].detail


def hit_places(judged: list[Judged], rule_id: str) -> list[int]:
    """Which of the readings a rule marks."""
    return [place for place, one in enumerate(judged) if rule_id in ids_of(one)]
