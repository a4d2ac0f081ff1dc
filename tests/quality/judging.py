"""From a unit's records to what the product's own rules say of them, as a sweep over its days does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from signalkeep.rules.catalogue import RULES
from signalkeep.rules.contract import Scope
from signalkeep.rules.days import DayJudged, DeviceDay, Past, in_order, judge_day
from signalkeep.rules.judge import Judge, Profile, defaults
from signalkeep.rules.reading import Reading, Recent
from signalkeep.simulate.planting import Made, Planted
from signalkeep.simulate.receiver import EVENT_CODES
from tests.quality.score import JudgedDrive, Shot

PROTOCOL: Final = "teltonika"
MODEL: Final = "FMC130"
ARRIVES_AFTER_S: Final = 1.0
DAY_S: Final = 86_400.0
PAST_DAYS: Final = 7
CODES: Final = EVENT_CODES[PROTOCOL]
KNOWN_EVENTS: Final = {CODES.ignition_on, CODES.ignition_off, CODES.acceleration, CODES.braking, *CODES.others}

JUDGED_ALONE: Final = tuple(rule for rule in RULES if rule.scope is not Scope.FLEET)  # a fleet is another matter
DEFAULTS: Final = Profile((rule, defaults(rule)) for rule in JUDGED_ALONE)


def reading_of(made: Made) -> Reading:
    """As it arrives."""
    reading = Reading.of(made.signal, made.signal.device_time, made.leaves_at.timestamp() + ARRIVES_AFTER_S, PROTOCOL)
    if made.signal.event_code is not None:
        reading.event_known = made.signal.event_code in KNOWN_EVENTS
    return reading


def past_of(clean: Iterable[Made]) -> Past:
    """A week of such days: what the unit has always sent."""
    signals = list(clean)
    present = Counter(name for made in signals for name in made.signal.attributes)
    return Past(PAST_DAYS, PAST_DAYS * len(signals), {name: PAST_DAYS * count for name, count in present.items()})


def judged_drive(
    number: str,
    records: Sequence[Made],
    planted: Sequence[Planted],
    *,
    past: Past,
    interval_s: float | None,
    judge: Judge,
    profile: Profile = DEFAULTS,
) -> JudgedDrive:
    """Records in the order of arrival; each day that they claim to be of is judged by itself, in the order of days."""
    days: dict[float, list[Reading]] = {}
    for made in records:
        reading = reading_of(made)
        said_s = reading.received_s if reading.time_s is None else reading.time_s
        days.setdefault(said_s // DAY_S * DAY_S, []).append(reading)
    shots: list[Shot] = []
    times_s: list[float] = []
    for begins_s in sorted(days):
        day = DeviceDay(
            device_number=number, model=MODEL, begins_s=begins_s, readings=in_order(days[begins_s]),
            expected_interval_s=interval_s, past=past, model_attributes=frozenset(past.present),
        )  # fmt: skip
        shots += shots_of(judge_day(judge, profile, day, Recent(MODEL)))
        times_s += [reading.time_s for reading in day.readings if reading.time_s is not None]
    return JudgedDrive(sorted(times_s), planted, shots)


def shots_of(judged: DayJudged) -> list[Shot]:
    placed = [Shot(hit.rule.id, hit.at_s) for one in judged.judged for hit in one.hits]
    return placed + [Shot(hit.rule.id, None) for hit in judged.unplaced]
