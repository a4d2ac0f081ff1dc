"""Applies rules to the readings of a device, one after the other, and moves what is remembered of it.

    SIGNAL rules        asked of every reading, which knows by then how far it comes behind the newest
    in order?           a reading older than the newest, without a time, or with one ahead of ours ends here: it is
                        judged by itself, and moves only what is known of arrivals (a sweep judges it again, in its
                        place)
    step                how it lies to the last good point, unless a rule doubts its position
    RECENT rules        in the order of the catalogue; one that doubts the position takes the step from those behind
    re-anchoring        a place that was called a jump is accepted when enough points in a row agree with each other
    memory              newest time, last and good point, values that rules track

A rule that raises costs nothing but its answer: it is counted under its id, with the error's name. Pure but for the
memory that it is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from signalkeep import limits
from signalkeep.model import Flag
from signalkeep.rules.contract import Dimension, Limits, Rule, Scope
from signalkeep.rules.reading import Point, Reading, Recent, Run
from signalkeep.rules.screen import Ranges, Screen

NAME_SETS_MAX: Final = 10_000  # names of attributes may be anything
DETAIL_CHARS_MAX: Final = 500
REANCHOR_POINTS: Final = 3  # in a row that agree with each other
INTERVAL_GAIN: Final = 1 / 8  # how much of a new interval goes into the usual one
INTERVAL_GROWTH_MAX: Final = 4.0  # a longer one counts as so many times the usual: a gap is not what is usual
IDLE_KMH_MAX: Final = 5.0
IDLE_GAP_S_MAX: Final = 3600.0  # units that sleep without ignition never say that it went off


class Applied(NamedTuple):
    """A rule with the limits that hold for some devices."""

    place: int
    rule: Rule
    check: Any
    limits: Limits
    lasting: bool  # it is a condition with a duration
    asks: int  # bit of its dimension, see `asked_bit`


class Hit(msgspec.Struct, frozen=True, gc=False):
    """What a rule found in a reading. `live`: it came in time and in order, so it may alarm somebody.

    `flags`: the bits of `signal.flags` that it sets.
    """

    rule: Rule
    since_s: float  # when the condition began, in device time; the reading's own time if it has no duration
    at_s: float
    detail: str
    live: bool
    flags: int


class Judged(NamedTuple):
    """Bits for `signal.flags`, the hits behind them, and in which dimensions a rule could say anything."""

    flags: int
    hits: tuple[Hit, ...]
    asked: int


def asked_bit(dimension: Dimension) -> int:
    """The bit of `Judged.asked`."""
    return 1 << list(Dimension).index(dimension)


class Asked(NamedTuple):
    """The rules that signals with certain attributes are asked, laid out for speed: check, limits, dimension, rule."""

    alone: tuple[tuple[Any, Limits, int, Applied], ...]
    recent: tuple[tuple[Any, Limits, int, Applied], ...]
    loud_alone: tuple[tuple[Any, Limits, int, Applied], ...]  # those that a screen cannot answer for
    loud_recent: tuple[tuple[Any, Limits, int, Applied], ...]
    screen: Screen
    tracked: tuple[str, ...]  # of the attributes, those that are remembered


class Profile:
    """The rules that are on for some devices, each with its limits; in the order in which they are asked."""

    __slots__ = ("_by_names", "alone", "days", "jump_kmh", "recent", "tracks")

    def __init__(self, rules: Iterable[tuple[Rule, Limits]]) -> None:
        applied = [
            Applied(place, rule, rule.check, values, rule.in_a_row > 1 or rule.for_s > 0, asked_bit(rule.dimension))
            for place, (rule, values) in enumerate(rules)
        ]
        self.alone = tuple(one for one in applied if one.rule.scope is Scope.SIGNAL)
        self.recent = tuple(one for one in applied if one.rule.scope is Scope.RECENT)
        self.days = tuple(one for one in applied if one.rule.scope is Scope.DAY)
        self.tracks = frozenset(name for one in applied for name in one.rule.tracks)
        self._by_names: dict[tuple[str, ...], Asked] = {}
        self.jump_kmh = min(
            (one.limits["speed_kmh_max"] for one in self.recent if one.rule.reanchors), default=float("inf")
        )

    def asked_of(self, attributes: Mapping[str, Any]) -> Asked:
        """The rules for signals with these attributes. Devices send few different sets of them."""
        names = tuple(attributes)
        asked = self._by_names.get(names)
        if asked is None:
            if len(self._by_names) >= NAME_SETS_MAX:
                self._by_names.clear()
            tracked = tuple(name for name in names if name in self.tracks)
            asked = self._by_names[names] = _asked(self.alone, self.recent, names, tracked)
        return asked


def _asked(
    alone: Iterable[Applied], recent: Iterable[Applied], names: tuple[str, ...], tracked: tuple[str, ...]
) -> Asked:
    there = frozenset(names)
    quiet: list[Ranges] = []

    def laid_out(rules: Iterable[Applied]) -> tuple[tuple[Any, Limits, int, Applied], ...]:
        return tuple((one.check, one.limits, one.asks, one) for one in rules)

    def loud(rules: Iterable[Applied]) -> list[Applied]:
        left = []
        for one in rules:
            if one.rule.quiet is None:
                left.append(one)
            else:
                quiet.append(one.rule.quiet(one.limits))
        return left

    alone = [one for one in alone if not one.rule.needs or one.rule.needs & there]
    recent = [one for one in recent if not one.rule.needs or one.rule.needs & there]
    loud_alone, loud_recent = loud(alone), loud(recent)
    screen = Screen(quiet, names)
    return Asked(laid_out(alone), laid_out(recent), laid_out(loud_alone), laid_out(loud_recent), screen, tracked)


def defaults(rule: Rule) -> dict[str, float]:
    """The limits of a rule where nothing else is set."""
    return {name: limit.default for name, limit in rule.limits.items()}


def storable(detail: object) -> str:
    """What a rule says, as a database takes it: a rule's text must never keep a signal out."""
    return str(detail)[:DETAIL_CHARS_MAX].encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def marks_of(rule: Rule, detail: str) -> int:
    """The bits that a hit with this text sets."""
    return rule.mask | (int(Flag.DOUBTFUL_POSITION) if rule.spoils(detail) else 0)


class Judge:
    """Judges readings. `broken` counts checks that raised, by rule; `first_errors` says how.

    `quick`: a reading that passes the screen is spared the rules that have nothing to find in it. Flags and hits are
    the same; `asked` is not filled in.
    """

    def __init__(self, *, quick: bool = False) -> None:
        self._quick = quick
        self.broken: Counter[str] = Counter()
        self.first_errors: dict[str, str] = {}

    def judge(self, reading: Reading, recent: Recent, profile: Profile) -> Judged:
        """What the profile's rules say of a reading; `recent` moves on."""
        latitude, longitude = reading.latitude, reading.longitude
        reading.on_globe = (
            latitude is not None and longitude is not None and -90 <= latitude <= 90 and -180 <= longitude <= 180
        )
        if reading.withheld_s is None:
            reading.withheld_s = recent.contact.withheld_s(reading)
        time_s, newest_s = reading.time_s, recent.newest_s
        is_late = time_s is not None and newest_s is not None and time_s < newest_s
        if is_late and not reading.behind_s:
            assert time_s is not None
            assert newest_s is not None
            reading.behind_s = newest_s - time_s
        found: list[tuple[Applied, str, float]] = []
        asked = 0
        rules = profile.asked_of(reading.attributes)
        passes = self._quick and rules.screen.passes(reading)
        for check, values, asks, one in rules.loud_alone if passes else rules.alone:
            try:
                answer = check(reading, values)
            except Exception as error:
                self.note_broken(one.rule, error)
                continue
            if answer is None:
                continue
            asked |= asks
            if answer:
                found.append((one, answer, 0.0))
        doubted = _doubted(found) if found else False
        if is_late or time_s is None or time_s > reading.received_s + limits.POSITION_FUTURE_S_MAX:
            return _judged(found, reading, asked)
        recent.same_time = time_s == newest_s
        _step(reading, recent, doubted=doubted)
        passes = passes and rules.screen.passes_on_the_way(recent)
        asked |= self._ask_recent(reading, recent, rules.loud_recent if passes else rules.recent, found)
        if not doubted and _doubted(found):
            found = _reanchored(found, reading, recent, profile)
            doubted = _doubted(found)
        if not recent.same_time:
            _remember(reading, recent, rules.tracked, doubted=doubted)
        return _judged(found, reading, asked)

    def _ask_recent(
        self,
        reading: Reading,
        recent: Recent,
        rules: Iterable[tuple[Any, Limits, int, Applied]],
        found: list[tuple[Applied, str, float]],
    ) -> int:
        """Ask the rules that look back; in which dimensions they could say anything."""
        asked = 0
        for check, values, asks, one in rules:
            try:
                answer = check(reading, recent, values)
            except Exception as error:
                self.note_broken(one.rule, error)
                continue
            if answer is None:
                continue
            asked |= asks
            since_s = 0.0
            if one.lasting:
                if recent.same_time or (answer is False and recent.runs is None):
                    continue
                answer, since_s = _run(one, answer, reading, recent)
            if answer:
                found.append((one, answer, since_s))
                if one.rule.spoils(answer):
                    recent.step_s = recent.step_m = recent.implied_kmh = None
        return asked

    def note_broken(self, rule: Rule, error: Exception) -> None:
        """The check itself broke."""
        self.broken[rule.id] += 1
        self.first_errors.setdefault(rule.id, f"{type(error).__name__}: {error}"[:200])


def _doubted(found: list[tuple[Applied, str, float]]) -> bool:
    return any(one.rule.spoils(detail) for one, detail, _ in found)


def _step(reading: Reading, recent: Recent, *, doubted: bool) -> None:
    good = recent.good
    if good is None or doubted or not reading.on_globe or not reading.fix_valid:
        recent.step_s = recent.step_m = recent.implied_kmh = None
        return
    assert reading.time_s is not None
    recent.step_s = reading.time_s - good.time_s
    recent.step_m = good.distance_m(reading)
    recent.implied_kmh = recent.step_m / recent.step_s * 3.6 if recent.step_s > 0 else None


def _run(one: Applied, answer: str | bool, reading: Reading, recent: Recent) -> tuple[str | bool, float]:
    """A condition with a duration: the answer if it has lasted, and since when."""
    runs = recent.runs
    if not answer:
        if runs is not None and runs.pop(one.place, None) is not None and not runs:
            recent.runs = None
        return False, 0.0
    assert reading.time_s is not None
    if runs is None:
        runs = recent.runs = {}
    run = runs.get(one.place)
    if run is None:
        run = runs[one.place] = Run(0, reading.time_s)
    run.count += 1
    lasted = run.count >= one.rule.in_a_row and reading.time_s - run.since_s >= one.rule.for_s
    return answer if lasted else False, run.since_s


def _reanchored(
    found: list[tuple[Applied, str, float]], reading: Reading, recent: Recent, profile: Profile
) -> list[tuple[Applied, str, float]]:
    """A device that really is elsewhere (a ferry, a tow) is believed after a few points that agree."""
    if recent.same_time or any(one.rule.spoils(detail) and not one.rule.reanchors for one, detail, _ in found):
        return found
    assert reading.time_s is not None
    before = recent.candidate
    agrees = False
    if before is not None and reading.time_s > before.time_s:
        agrees = before.distance_m(reading) <= profile.jump_kmh / 3.6 * (reading.time_s - before.time_s)
    recent.candidates = recent.candidates + 1 if agrees else 1
    recent.candidate = _point(reading)
    if recent.candidates < REANCHOR_POINTS:
        return found
    return [item for item in found if not item[0].rule.reanchors]


def _remember(reading: Reading, recent: Recent, tracked: Iterable[str], *, doubted: bool) -> None:
    assert reading.time_s is not None
    if recent.newest_s is not None:
        _learn_interval(reading.time_s - recent.newest_s, recent)
    _note_idle(reading, reading.time_s, recent)
    recent.newest_s = reading.time_s
    if reading.on_globe and reading.fix_valid:
        recent.last = _point(reading)
        if not doubted:
            recent.good, recent.candidate, recent.candidates = recent.last, None, 0
    attributes, known = reading.attributes, recent.known
    for name in tracked:
        known[name] = (reading.time_s, attributes[name])


def _learn_interval(step_s: float, recent: Recent) -> None:
    """A step that began with the ignition off says nothing of how often a device reports on the road."""
    known = recent.known.get("ignition")
    if known is not None and not known[1]:
        return
    usual_s = recent.interval_s
    if usual_s is None:
        recent.interval_s = step_s
    else:
        recent.interval_s = usual_s + INTERVAL_GAIN * (min(step_s, INTERVAL_GROWTH_MAX * usual_s) - usual_s)


def _note_idle(reading: Reading, time_s: float, recent: Recent) -> None:
    """Since when it has stood with the ignition on. A lost fix is neither motion nor rest."""
    ignition, speed_kmh = reading.attributes.get("ignition"), reading.speed_kmh
    if ignition == 0 or (speed_kmh is not None and speed_kmh > IDLE_KMH_MAX):
        recent.idle_since_s = None
    elif ignition == 1 and reading.fix_valid:
        newest_s = recent.newest_s
        if recent.idle_since_s is None or newest_s is None or time_s - newest_s > IDLE_GAP_S_MAX:
            recent.idle_since_s = time_s


def _point(reading: Reading) -> Point:
    assert reading.time_s is not None
    assert reading.latitude is not None
    assert reading.longitude is not None
    return Point(reading.time_s, reading.latitude, reading.longitude, reading.speed_kmh)


def is_live(reading: Reading) -> bool:
    """Whether it came in time and in order. What comes late alarms nobody."""
    delay_s = 0.0 if reading.time_s is None else reading.received_s - reading.time_s
    return not reading.behind_s and -limits.POSITION_FUTURE_S_MAX <= delay_s <= limits.QUALITY_LIVE_S_MAX


def _judged(found: list[tuple[Applied, str, float]], reading: Reading, asked: int) -> Judged:
    if not found:
        return Judged(0, (), asked)
    at_s = reading.received_s if reading.time_s is None else reading.time_s
    live = is_live(reading)
    flags = 0
    hits = []
    for one, detail, since_s in found:
        marks = marks_of(one.rule, detail)
        flags |= marks
        hits.append(Hit(one.rule, since_s or at_s, at_s, storable(detail), live, marks))
    return Judged(flags, tuple(hits), asked)
