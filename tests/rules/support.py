"""Readings and days as tests of rules make them."""

from __future__ import annotations

from collections.abc import Iterable
from math import cos, radians
from typing import Any, Final

from signalkeep.rules.catalogue import BY_ID, RULES
from signalkeep.rules.contract import Rule
from signalkeep.rules.days import DayJudged, DeviceDay, in_order, judge_day
from signalkeep.rules.judge import Judge, Judged, Profile, defaults
from signalkeep.rules.reading import Reading, Recent

NOON_S: Final = 1_781_956_800.0  # 2026-06-20T12:00:00Z
MIDNIGHT_S: Final = NOON_S - 12 * 3600
LATITUDE, LONGITUDE = 52.52, 13.405
DEGREE_M: Final = 111_195.0


def reading(at_s: float = 0.0, *, east_m: float = 0.0, north_m: float = 0.0, **fields: Any) -> Reading:
    """A sound reading `at_s` seconds after noon, received 2 s later, so far from a place in Berlin."""
    time_s = NOON_S + at_s
    sound: dict[str, Any] = {
        "time_s": time_s,
        "wire_s": time_s,
        "received_s": time_s + 2,
        "fix_valid": True,
        "latitude": LATITUDE + north_m / DEGREE_M,
        "longitude": LONGITUDE + east_m / (DEGREE_M * cos(radians(LATITUDE))),
        "altitude_m": 34.0,
        "speed_kmh": 0.0,
        "course_deg": 90.0,
        "satellites": 9,
        "protocol": "teltonika",
    }
    return Reading(**(sound | fields))


def profile_of(*rules: str | Rule, **limits: float) -> Profile:
    """Only these rules, with their defaults but for the limits given."""
    chosen = [BY_ID[rule] if isinstance(rule, str) else rule for rule in rules] or list(RULES)
    return Profile((rule, defaults(rule) | {n: v for n, v in limits.items() if n in rule.limits}) for rule in chosen)


def judge_all(readings: Iterable[Reading], profile: Profile, judge: Judge | None = None) -> list[Judged]:
    """One device's readings in the order in which they come."""
    judge, recent = judge or Judge(), Recent()
    judged = [judge.judge(one, recent, profile) for one in readings]
    assert not judge.broken, judge.first_errors
    return judged


def ids_of(judged: Judged) -> list[str]:
    return [hit.rule.id for hit in judged.hits]


def day_of(readings: list[Reading], **fields: Any) -> DeviceDay:
    """A device's day."""
    what: dict[str, Any] = {"device_number": "356307042441013", "model": "FMB920", "begins_s": MIDNIGHT_S}
    return DeviceDay(readings=in_order(readings), **(what | fields))


def judge_the_day(day: DeviceDay, profile: Profile) -> DayJudged:
    judge = Judge()
    judged = judge_day(judge, profile, day, Recent(day.model))
    assert not judge.broken, judge.first_errors
    return judged
