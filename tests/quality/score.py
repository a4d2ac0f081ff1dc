"""How good are the alarms? Counts for each rule what was found, what was missed, and what was cried for nothing.

An episode of a kind that a rule must find counts as found if the rule hits within its time, or one record before or
after it. Recall counts episodes that are plainly wrong. Hits on successive records belong together, and false ones
within a quarter of an hour are one alarm, as a person would see it. An alarm is right within an episode that the rule
must find, if that is plainly wrong; neither where it could be said either way, or follows from another fault; else it
is false. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from signalkeep.simulate.planting import Planted
from tests.quality.explains import Explains

ONE_ALARM_S: Final = 900.0  # hits of a rule that lie closer together are one alarm


class Shot(NamedTuple):
    """A rule hit here. `at_s` in device time; None: it speaks of the whole day."""

    rule: str
    at_s: float | None


class JudgedDrive(NamedTuple):
    """One unit's day: when its readings were, what was planted in it, what the judge said."""

    times_s: Sequence[float]  # in order
    planted: Sequence[Planted]
    shots: Sequence[Shot]


class Tally(msgspec.Struct):
    """What became of a rule. Precision and recall are None where there is nothing to divide by."""

    rule: str
    episodes: int = 0  # plainly wrong, and for this rule to find
    found: int = 0
    right: int = 0  # alarms
    false: int = 0
    false_on_look_alikes: int = 0  # of the false ones
    false_below: int = 0  # of the false ones: the fault was there, but nothing to be told of
    false_hits: int = 0  # readings behind the false alarms
    missed: Counter[str] = msgspec.field(default_factory=Counter)  # episodes by kind
    false_at: Counter[str] = msgspec.field(default_factory=Counter)  # alarms by the kind they lay in; "": in none

    @property
    def recall(self) -> float | None:
        return self.found / self.episodes if self.episodes else None

    @property
    def precision(self) -> float | None:
        alarms = self.right + self.false
        return self.right / alarms if alarms else None


class _Span(NamedTuple):
    """An episode with the records next to it: where the unit says it was, and where it is missed if that is not so."""

    begins_s: float
    ends_s: float
    from_s: float
    to_s: float
    planted: Planted


def score(drives: Iterable[JudgedDrive], rules: Iterable[str], explains: Mapping[str, Explains]) -> dict[str, Tally]:
    """A tally for each rule, in their order."""
    tallies = {rule: Tally(rule) for rule in rules}
    for drive in drives:
        spans = [_span(drive.times_s, planted) for planted in drive.planted]
        by_rule: dict[str, list[Shot]] = {}
        for shot in drive.shots:
            by_rule.setdefault(shot.rule, []).append(shot)
        for rule, tally in tallies.items():
            _count(tally, by_rule.get(rule, []), drive.times_s, spans, explains)
    return tallies


def _span(times_s: Sequence[float], planted: Planted) -> _Span:
    """From the record before the episode to the one after it."""
    said = _widened(times_s, planted.begins_at.timestamp(), planted.ends_at.timestamp())
    true = _widened(times_s, planted.happened_from.timestamp(), planted.happened_to.timestamp())
    return _Span(*said, *true, planted)


def _widened(times_s: Sequence[float], begins_s: float, ends_s: float) -> tuple[float, float]:
    before, after = bisect_left(times_s, begins_s) - 1, bisect_right(times_s, ends_s)
    return times_s[before] if before >= 0 else begins_s, times_s[after] if after < len(times_s) else ends_s


def _count(
    tally: Tally, shots: list[Shot], times_s: Sequence[float], spans: list[_Span], explains: Mapping[str, Explains]
) -> None:
    rule = tally.rule
    hit_spans: set[int] = set()
    adds_up = any(rule in explains[span.planted.kind].all_day for span in spans)
    loose: dict[str, list[Shot]] = {}
    for run in _runs(shots, times_s):
        places = {place for shot in run for place, span in enumerate(spans) if _covers(span, shot)}
        kinds = [explains[spans[place].planted.kind] for place in places]
        if any(rule in kind.must for kind in kinds):
            hit_spans |= {place for place in places if rule in explains[spans[place].planted.kind].must}
        elif not any(rule in kind.may for kind in kinds) and not adds_up:
            loose.setdefault(_where(spans, places, run), []).extend(run)
    for place, span in enumerate(spans):
        planted = span.planted
        if rule not in explains[planted.kind].must:
            continue
        is_hit = place in hit_spans
        if planted.above:
            tally.episodes += 1
            tally.found += is_hit
            tally.right += is_hit
            tally.missed[planted.kind] += not is_hit
        elif planted.above is False and is_hit:
            tally.false += 1
            tally.false_below += 1
            tally.false_at[planted.kind] += 1
    look_alikes = {span.planted.kind for span in spans if span.planted.look_alike}
    for kind, ones in loose.items():
        alarms = _alarms(ones)
        tally.false += alarms
        tally.false_hits += len(ones)
        tally.false_at[kind] += alarms
        tally.false_on_look_alikes += alarms if kind in look_alikes else 0


def _runs(shots: list[Shot], times_s: Sequence[float]) -> Iterator[list[Shot]]:
    """Hits of one rule on successive records; what is said of the whole day stands alone."""
    run: list[Shot] = []
    last = 0
    for shot in sorted((shot for shot in shots if shot.at_s is not None), key=lambda shot: shot.at_s or 0.0):
        place = bisect_left(times_s, shot.at_s or 0.0)
        if run and place > last + 1:
            yield run
            run = []
        run.append(shot)
        last = place
    if run:
        yield run
    yield from ([shot] for shot in shots if shot.at_s is None)


def _covers(span: _Span, shot: Shot) -> bool:
    at_s = shot.at_s
    return at_s is None or span.begins_s <= at_s <= span.ends_s or span.from_s <= at_s <= span.to_s


def _where(spans: list[_Span], places: set[int], run: list[Shot]) -> str:
    """The kind of fault that a false alarm lies in, the shortest; what is said of the whole day lies in none."""
    if not places or run[0].at_s is None:
        return ""
    return min((spans[place] for place in places), key=lambda span: span.to_s - span.from_s).planted.kind


def _alarms(shots: list[Shot]) -> int:
    times_s = sorted(shot.at_s for shot in shots if shot.at_s is not None)
    of_day = any(shot.at_s is None for shot in shots)
    far_apart = sum(later - earlier > ONE_ALARM_S for earlier, later in pairwise(times_s))
    return of_day + (far_apart + 1 if times_s else 0)
