"""Shared faults: the fleet, models and areas at their limits; groups stay until few are left."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from signalkeep.rules.shared import FLEET, LIMITS, Group, Member, area, cell, groups, places_of
from signalkeep.rules.troubles import Trouble

NOW = 1_793_500_000.0
VALUES = {name: limit.default for name, limit in LIMITS.items()}
ATHENS = (37.98, 23.73)


def ill(
    count: int,
    *,
    first: int = 0,
    model: str = "",
    kind: Trouble = Trouble.SILENT,
    since_s: float = NOW,
    place: tuple[float, float] | None = None,
    customer_id: int | None = None,
    active: bool = True,
) -> list[Member]:
    places = places_of(model, *(place or (None, None)))
    return [Member(first + n, f"n{first + n:04}", customer_id, kind, since_s, active, places) for n in range(count)]


def found(members: Sequence[Member], **active: int) -> list[tuple[str, int]]:
    return [(group.subject, len(group.members)) for group in look(members, **active)]


def look(members: Sequence[Member], fleet: int = 1000, **models: int) -> list[Group]:
    cells = {place: 20 for one in members for place in one.places if place.startswith("around")}
    return groups(members, {FLEET: fleet, **{f"model {name}": n for name, n in models.items()}, **cells}, VALUES)


def kept(members: Sequence[Member], subject: str) -> list[Member]:
    return [msgspec.structs.replace(one, part_of=subject) for one in members]


@pytest.mark.parametrize(("count", "fleet", "shared"), [(5, 16, True), (4, 5, False), (5, 17, False), (30, 100, True)])
def test_the_whole_fleet(count: int, fleet: int, shared: bool) -> None:
    assert found(ill(count), fleet=fleet) == ([("silent: the whole fleet", count)] if shared else [])


@pytest.mark.parametrize(("count", "of_model", "shared"), [(5, 10, True), (4, 4, False), (5, 11, False)])
def test_a_model(count: int, of_model: int, shared: bool) -> None:
    assert found(ill(count, model="A"), A=of_model) == ([("silent: model A", count)] if shared else [])


def test_an_area_and_no_border_divides_it() -> None:
    """In the one grid the border lies between them, in the other one it does not."""
    west, east = ill(5, place=(37.9, 23.74)), ill(5, first=5, place=(37.9, 23.76))
    assert cell(23.74, 0.0) != cell(23.76, 0.0)
    assert found([*west, *east]) == [("silent: around 38.000, 23.750", 10)]


def test_an_area_is_named_by_its_middle() -> None:
    for latitude, longitude in (ATHENS, (-33.9, -70.6), (0.01, -0.01)):
        for place in places_of("", latitude, longitude)[1:]:
            middle = [float(text) for text in place.removeprefix("around ").split(", ")]
            assert abs(middle[0] - latitude) <= 0.125
            assert abs(middle[1] - longitude) <= 0.125
    assert area(0, 0, 0.0) == "around 0.125, 0.125"


def test_the_larger_explains_the_smaller() -> None:
    members = [*ill(40, model="A", place=ATHENS), *ill(5, first=50, model="B")]
    assert found(members, fleet=100, A=40, B=5) == [("silent: the whole fleet", 45)]
    assert found(members, fleet=1000, A=40, B=6) == [("silent: model A", 40), ("silent: model B", 5)]


def test_kinds_do_not_mix() -> None:
    assert found([*ill(4, model="A"), *ill(4, first=4, model="A", kind=Trouble.JAMMING)], A=8) == []


def test_only_those_for_whom_it_began_at_about_the_same_time() -> None:
    early, late = ill(4, model="A", since_s=NOW - 3601), ill(6, first=10, model="A")
    assert found([*early, *late], A=10) == [("silent: model A", 6)]
    spread = [one for n in range(10) for one in ill(1, first=n, model="A", since_s=NOW + n * 1000)]
    assert found(spread, A=10) == [], "no hour has five"


def test_a_group_stays_while_it_shrinks_and_takes_up_who_joins_soon() -> None:
    members = kept(ill(30), "silent: the whole fleet")
    assert found(members[:8], fleet=100) == [("silent: the whole fleet", 8)]
    assert found(members[:7], fleet=100) == []
    assert found(members[:4], fleet=10) == []
    joining = ill(1, first=90, since_s=NOW + 7200)
    later = ill(1, first=91, since_s=NOW + 7201)
    assert found([*members, *joining, *later], fleet=100) == [("silent: the whole fleet", 31)]


def test_a_model_that_becomes_the_whole_fleet_is_told_by_that() -> None:
    members = [*kept(ill(10, model="A"), "silent: model A"), *ill(20, first=10, model="B")]
    assert found(members, fleet=100, A=10, B=100) == [("silent: the whole fleet", 30)]


def test_those_that_are_ill_for_days_count_as_active_too() -> None:
    (group,) = look(kept(ill(30, active=False), "silent: the whole fleet"), fleet=70)
    assert group.active == 100


def test_the_words_and_the_customer() -> None:
    (group,) = look(ill(7, model="A", customer_id=3), A=10)
    assert group.detail == "7 of 10 active devices (70 %): n0000, n0001, n0002, n0003, n0004 and 2 more"
    assert (group.customer_id, group.since_s) == (3, NOW)
    (mixed,) = look([*ill(4, model="A", customer_id=3), *ill(3, first=4, model="A", customer_id=4)], A=10)
    assert mixed.customer_id is None
    (fleet,) = look(ill(7, customer_id=3), fleet=10)
    assert fleet.customer_id is None, "it is most likely us"
