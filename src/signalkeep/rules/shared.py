"""Shared faults: what many devices have since about the same time is the fault of none of them. Pure.

Looked for in the whole fleet, then in each model, then in areas: what the larger one explains is left out of the
smaller ones. A group that is there stays, and takes up who joins it soon, until few are left: so that a fleet that
comes back by and by does not become thousands of incidents on its way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from signalkeep.rules.contract import Limit
from signalkeep.rules.troubles import Trouble

FLEET: Final = "the whole fleet"
MODEL: Final = "model "
AREA_DEG: Final = 0.25  # some 28 km from south to north
NAMED_MAX: Final = 5  # devices that a group's text names
KEPT_SHARE: Final = 0.25  # a group stays as long as it has this part of the share that makes one
JOIN_TIMES: Final = 2.0  # who falls ill within so many times `within_s` after the first belongs to it

LIMITS: Final = {
    "devices": Limit(5.0, "", "at least so many", least=2.0),
    "fleet_share": Limit(0.3, "", "of the whole fleet's active devices", most=1.0),
    "share": Limit(0.5, "", "of the active devices of a model or an area", most=1.0),
    "within_s": Limit(3600.0, "s", "it began for all of them within so long", least=1.0),
}


class Member(msgspec.Struct, frozen=True):
    """A trouble of a device, with where the device belongs."""

    device_id: int
    device_number: str
    customer_id: int | None
    kind: Trouble
    since_s: float
    active: bool  # it was heard of within the last day
    places: tuple[str, ...]  # as `places_of`
    part_of: str | None = None  # subject of a group that there was


class Group(msgspec.Struct, frozen=True):
    """Devices that have the same trouble since about the same time."""

    subject: str
    kind: Trouble
    place: str
    members: Sequence[Member]
    active: int  # devices of the place that were active lately, these among them

    @property
    def since_s(self) -> float:
        return min(one.since_s for one in self.members)

    @property
    def customer_id(self) -> int | None:
        """The customer whose devices they all are. The whole fleet is ours to look after."""
        customers = {one.customer_id for one in self.members}
        return customers.pop() if len(customers) == 1 and self.place != FLEET else None

    @property
    def detail(self) -> str:
        names = sorted(one.device_number for one in self.members)
        more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
        share = 100 * len(names) / self.active
        return f"{len(names)} of {self.active} active devices ({share:.0f} %): {', '.join(names[:NAMED_MAX])}{more}"


def places_of(model: str, latitude: float | None, longitude: float | None) -> tuple[str, ...]:
    """Everything that a device may have in common with others. Two grids, so that a border divides nothing."""
    places = [FLEET]
    if model:
        places.append(f"{MODEL}{model}")
    if latitude is not None and longitude is not None:
        shifts = (0.0, AREA_DEG / 2)
        places += [area(cell(latitude, shift), cell(longitude, shift), shift) for shift in shifts]
    return tuple(places)


def cell(degrees: float, shift_deg: float) -> int:
    """Number of the cell of a grid that is shifted by so much."""
    return int((degrees + shift_deg) // AREA_DEG)


def area(cell_y: int, cell_x: int, shift_deg: float) -> str:
    """A cell by its middle."""
    middle_deg = AREA_DEG / 2 - shift_deg
    return f"around {cell_y * AREA_DEG + middle_deg:.3f}, {cell_x * AREA_DEG + middle_deg:.3f}"


def groups(members: Iterable[Member], active: Mapping[str, int], limits: Mapping[str, float]) -> list[Group]:
    """Every shared fault. `active`: devices of each place that were heard of within the last day."""
    by_kind: dict[Trouble, list[Member]] = defaultdict(list)
    for one in members:
        by_kind[one.kind].append(one)
    return [group for _, ill in sorted(by_kind.items()) for group in _of_kind(ill, active, limits)]


def _of_kind(ill: Sequence[Member], active: Mapping[str, int], limits: Mapping[str, float]) -> list[Group]:
    """Groups that there were before new ones, those of many devices before those of few."""
    of_place: dict[str, list[Member]] = defaultdict(list)
    for one in ill:
        for place in one.places:
            of_place[place].append(one)
    ordered = sorted(of_place, key=lambda place: (_width(place), -len(of_place[place]), place))
    found: list[Group] = []
    left = {one.device_id for one in ill}
    for width in sorted({_width(place) for place in ordered}):
        for kept in (True, False):
            for place in ordered:
                there = [one for one in of_place[place] if one.device_id in left] if _width(place) == width else []
                group = _group(place, there, active.get(place, 0), limits, kept=kept)
                if group is not None:
                    found.append(group)
                    left -= {one.device_id for one in group.members}
    return found


def _width(place: str) -> int:
    return 0 if place == FLEET else 1 if place.startswith(MODEL) else 2


def _group(
    place: str, there: Sequence[Member], active: int, limits: Mapping[str, float], *, kept: bool
) -> Group | None:
    """Those of a place that make a group: one that there was, or a new one."""
    if len(there) < limits["devices"]:
        return None
    kind = there[0].kind
    subject = f"{kind}: {place}"
    chosen = _still(there, subject, limits) if kept else _together(there, limits["within_s"])
    group = Group(subject, kind, place, chosen, _active(there, active))
    share = limits["fleet_share" if place == FLEET else "share"] * (KEPT_SHARE if kept else 1.0)
    return group if len(chosen) >= max(limits["devices"], share * group.active) else None


def _active(there: Sequence[Member], active: int) -> int:
    """Those that are ill for longer than a day belong to them, too."""
    return max(active + sum(not one.active for one in there), len(there))


def _still(there: Sequence[Member], subject: str, limits: Mapping[str, float]) -> list[Member]:
    """Of a group that there was: who still has it, and who has it since then, too."""
    old = [one.since_s for one in there if one.part_of == subject]
    if not old:
        return []
    last_s = min(old) + JOIN_TIMES * limits["within_s"]
    return [one for one in there if one.part_of == subject or min(old) <= one.since_s <= last_s]


def _together(there: Sequence[Member], within_s: float) -> list[Member]:
    """The most of them for whom it began within so long."""
    ordered = sorted(there, key=lambda one: (one.since_s, one.device_id))
    first = best_first = best_last = 0
    for last, one in enumerate(ordered):
        while one.since_s - ordered[first].since_s > within_s:
            first += 1
        if last - first > best_last - best_first:
            best_first, best_last = first, last
    return ordered[best_first : best_last + 1]
