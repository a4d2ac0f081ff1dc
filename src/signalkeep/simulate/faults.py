"""Plants faults into drives, and says where: so that whoever judges drives can be judged.

    clean records ──plant(kinds)──> records as a faulty unit sends them, and a label for each episode

Every kind has magnitudes that are plainly wrong, most of them also some that could be said either way and some that
nobody should be told of; look-alikes are ordinary days that only seem wrong. Promises: the records that were handed in
stay as they are; without kinds nothing changes; the same records, random source and kinds give the same faults; labels
agree with the records. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from signalkeep.errors import CallerError
from signalkeep.simulate import faults_place, faults_time, faults_vehicle, lookalikes
from signalkeep.simulate.planting import Journey, Kind, Made, Planted, Spot

KINDS: Final[dict[str, Kind]] = {
    kind.name: kind for kind in (*faults_place.KINDS, *faults_time.KINDS, *faults_vehicle.KINDS, *lookalikes.KINDS)
}
ALL: Final = "all"
LEVELS: Final = ((True, 0.6), (None, 0.2), (False, 0.2))  # `Planted.above`, and its share where a kind has all three


class Faulty(NamedTuple):
    """A drive with faults."""

    records: list[Made]  # in the order in which they leave
    planted: list[Planted]
    no_place: list[str]  # kinds that did not fit in


def kinds_of(text: str) -> tuple[str, ...]:
    """The kinds that a comma-separated text names. Raises CallerError for one that there is not."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if names == (ALL,):
        return tuple(KINDS)
    unknown = [name for name in names if name not in KINDS]
    if unknown or not names:
        raise CallerError(
            f"{', '.join(unknown) or 'nothing'}: no such kind of fault",
            hint=f"Name some of {', '.join(KINDS)}; or {ALL}.",
        )
    return names


def plant(records: Iterable[Made], source: random.Random, kinds: Sequence[str], *, device_number: str) -> Faulty:
    """One episode of each kind named (a kind may be named more than once), where there is a place for it."""
    journey = Journey(records)
    planted: list[Planted] = []
    no_place: list[str] = []
    for kind in sorted((KINDS[name] for name in kinds), key=lambda kind: (not kind.whole, not kind.lasts)):
        found = _put(kind, journey, source)
        if found is None:
            no_place.append(kind.name)
            continue
        spot, magnitude, above = found
        planted.append(
            Planted(
                device_number=device_number,
                kind=kind.name,
                begins_at=spot.begins_at,
                ends_at=spot.ends_at,
                happened_from=spot.happened_from,
                happened_to=spot.happened_to,
                records=spot.records,
                magnitude=round(magnitude if spot.magnitude is None else spot.magnitude, 4),
                look_alike=kind.look_alike,
                above=above,
            )
        )
    return Faulty(sorted(journey.records, key=lambda made: made.leaves_at), planted, no_place)


def _put(kind: Kind, journey: Journey, source: random.Random) -> tuple[Spot, float, bool | None] | None:
    """An episode of a level that is drawn; of another one where that does not fit."""
    if kind.whole and not journey.is_clean:
        return None
    ranges = {True: kind.above, None: kind.near, False: kind.below}
    levels = [(level, share) for level, share in LEVELS if ranges[level]]
    while levels:
        drawn = source.choices(levels, [share for _, share in levels])[0]
        levels.remove(drawn)
        magnitude = source.uniform(*source.choice(ranges[drawn[0]]))
        spot = kind.plant(journey, source, magnitude)
        if spot is not None:
            return spot, magnitude, drawn[0]
    return None
