"""The quick look at ingest finds what the whole look finds, for values of every kind and around every threshold.

Streams of readings are drawn from a seed: mostly sound ones, which the screen lets pass, and among them each value that
is just within a limit, on it, just beyond it, or none at all.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from math import inf, nan
from typing import Any, Final

import msgspec
import pytest

from signalkeep.rules.catalogue import RULES
from signalkeep.rules.contract import Rule, Scope
from signalkeep.rules.judge import Judge, Judged, Profile, defaults
from signalkeep.rules.reading import Reading, Recent
from signalkeep.rules.screen import FIELDS
from tests.rules.support import NOON_S, profile_of, reading

ASKED_AT_INGEST: Final = [rule for rule in RULES if rule.scope in (Scope.SIGNAL, Scope.RECENT)]
QUIET: Final = [rule for rule in ASKED_AT_INGEST if rule.quiet is not None]
NEEDY: Final = [rule for rule in ASKED_AT_INGEST if rule.needs]
STRANGE: Final[tuple[Any, ...]] = (None, True, False, "", "7", "power_cut", [], nan, inf, -inf, 0, 1, -1, 2**40, 1e300)
SOUND: Final[dict[str, Any]] = {
    "ignition": True, "motion": True, "power_v": 14.1, "battery_v": 4.1, "battery_pct": 95, "rpm": 1800,
    "obd_speed_kmh": 36, "hdop": 0.9, "gsm_rssi": 4, "odometer_m": 80_000, "fuel_pct": 60, "coolant_c": 88,
    "gnss_status": 1, "accuracy_m": 5.0, "throttle_pct": 30, "unplugged": 0, "iccid": "8949", "fuel_l": 40,
    "jamming": 0, "gnss_jamming": 0,
}  # fmt: skip


def thresholds(rule: Rule, limits: dict[str, float]) -> Iterator[tuple[str, float]]:
    """Names of values, and where an answer may change."""
    names = set(rule.needs)
    for name, sound in (rule.quiet(limits) if rule.quiet else {}).items():
        names.add(name)
        yield from ((name, value) for value in sound)
    yield from ((name, value) for name in names for value in limits.values())


def around(value: float) -> tuple[float, ...]:
    return (value, value - 1, value + 1, value - 1e-9, value + 1e-9, round(value) if abs(value) < inf else 0)


class Stream:
    """Readings of a device whose values come near everything that some rules look at."""

    def __init__(self, rules: Iterable[Rule], seed: object) -> None:
        self._random = random.Random(f"screen {seed}")
        values: dict[str, set[float]] = {}
        for rule in rules:
            for name, value in thresholds(rule, defaults(rule)):
                values.setdefault(name, set()).update(around(value))
        self._values = {name: [*sorted(ones), *STRANGE] for name, ones in sorted(values.items())}
        self._attributes = sorted((values.keys() | {name for rule in rules for name in rule.tracks}) - set(FIELDS))

    def readings(self, count: int) -> Iterator[Reading]:
        source = self._random
        at_s = east_m = 0.0
        for _ in range(count):
            at_s += source.choice((10, 10, 10, 10, 10, 1, 30, 60, 400, 0, 0.5))
            east_m += 100
            yield self._one(at_s, east_m)

    def _one(self, at_s: float, east_m: float) -> Reading:
        source = self._random
        fields: dict[str, Any] = {"speed_kmh": 36.0}
        if source.random() < 0.3:
            name = source.choice(("speed_kmh", "satellites", "altitude_m", "course_deg"))
            fields[name] = source.choice([one for one in self._values.get(name, STRANGE) if type(one) in NUMBERS])
        if source.random() < 0.15:
            fields |= source.choice(ODD_FIELDS)
        if source.random() < 0.2:
            fields["withheld_s"] = source.choice((299.0, 300.0, 301.0, 5000.0))
        if source.random() < 0.1:
            east_m += source.choice((60, 500, 5000, 90_000))
        late_s = source.choice(LATE_S) if source.random() < 0.2 else 2.0
        if source.random() < 0.05:
            at_s -= source.choice((0.5, 1, 20, 1000))
        attributes = {name: value for name, value in SOUND.items() if source.random() < 0.9}
        while self._attributes and source.random() < 0.3:
            name = source.choice(self._attributes)
            attributes[name] = source.choice(self._values.get(name, list(STRANGE)))
        fields = {"received_s": NOON_S + at_s + late_s} | fields
        return reading(at_s, east_m=east_m, attributes=attributes, **fields)


NUMBERS: Final = (int, float, type(None))
LATE_S: Final = (-3e5, -61.0, -60.0, 0.0, 59.0, 61.0, 299.0, 300.0, 301.0, 3000.0, 2_592_000.0, 2_592_001.0, 1.3e9)
ODD_FIELDS: Final[tuple[dict[str, Any], ...]] = (
    {"time_s": None}, {"wire_s": None}, {"wire_s": 0.0}, {"wire_s": NOON_S * 1000}, {"wire_s": NOON_S / 1000},
    {"fix_valid": False}, {"latitude": None}, {"latitude": 91.0}, {"latitude": nan}, {"longitude": None},
    {"latitude": 0.01, "longitude": 0.0}, {"latitude": 0.0, "longitude": 0.0}, {"latitude": 0.00999, "longitude": 0.0},
    {"longitude": -13.405}, {"latitude": 13.405, "longitude": 52.52}, {"event_known": False, "event_code": "x"},
    {"event_known": True, "event_code": "y"},
)  # fmt: skip


def said(judged: Judged) -> tuple[int, list[tuple[object, ...]]]:
    return judged.flags, [(hit.rule.id, hit.since_s, hit.at_s, hit.detail, hit.live, hit.flags) for hit in judged.hits]


def assert_the_same(profile: Profile, readings: Iterable[Reading]) -> tuple[int, int]:
    """Both looks side by side over one sequence; how many readings the screen let pass, and how many were hit."""
    whole, quick = Judge(), Judge(quick=True)
    of_whole, of_quick = Recent(), Recent()
    passed = hit = 0
    for one in readings:
        twin = msgspec.structs.replace(one, attributes=dict(one.attributes))
        judged = whole.judge(one, of_whole, profile)
        assert said(quick.judge(twin, of_quick, profile)) == said(judged), one
        passed += profile.asked_of(one.attributes).screen.passes(one)
        hit += bool(judged.hits)
    assert not whole.broken, whole.first_errors
    return passed, hit


def stretched(rule: Rule, factor: float) -> tuple[Rule, dict[str, float]]:
    """With all limits changed, as far as they may be; but for a date, before which no reading of these would lie."""
    values = {
        name: limit.default if name == "first_s" else min(max(limit.default * factor, limit.least), limit.most)
        for name, limit in rule.limits.items()
    }
    return rule, values


@pytest.mark.parametrize("factor", [1.0, 0.5, 0.9, 1.1, 1.5])
@pytest.mark.parametrize("seed", range(3))
def test_the_quick_look_finds_what_the_whole_look_finds(factor: float, seed: int) -> None:
    profile = Profile(stretched(rule, factor) for rule in RULES)
    passed, hit = assert_the_same(profile, Stream(RULES, f"{seed} {factor}").readings(3000))
    assert passed > 100  # else nothing was tried
    assert hit > 1000


@pytest.mark.parametrize("rule", QUIET, ids=lambda rule: rule.id)
def test_a_rule_never_hits_within_its_quiet_ranges(rule: Rule) -> None:
    """Alone in a profile, the screen is its own ranges: readings that pass are not asked, and must have no hit."""
    for factor in (1.0, 0.5, 2.0):
        passed, _ = assert_the_same(Profile([stretched(rule, factor)]), Stream([rule], factor).readings(1500))
        assert passed > 20


@pytest.mark.parametrize("rule", NEEDY, ids=lambda rule: rule.id)
def test_without_what_it_needs_a_rule_has_nothing_to_say(rule: Rule) -> None:
    limits, recent, judge = defaults(rule), Recent(), Judge()
    for one in Stream(RULES, rule.id).readings(500):
        judge.judge(one, recent, profile_of())  # so that there is something to compare with
        one.attributes = {name: value for name, value in one.attributes.items() if name not in rule.needs}
        asked = (one, limits) if rule.scope is Scope.SIGNAL else (one, recent, limits)
        assert rule.check(*asked) is None
