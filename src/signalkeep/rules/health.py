"""What ails a device now: pure judgement of its contact, its positions and what rules have found lately.

    a first hit                                     diagnostic: it is seen, nobody is told
    `hits` or `minutes` within `window_h`           malfunction: people are told; it stays one until it is over
    `good_records` and `good_minutes` without       it is over

Hits are those of findings that came in time, and what lasts: silence, no position. The same view, limits and time give
the same answer: who is killed and looks again finds the same. What was over stays over until there is a new hit; hits
from before count as long as they lie within the window, for what comes back soon was not mended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from signalkeep import limits as bounds
from signalkeep.kinds import Stage
from signalkeep.rules.clocks import in_words
from signalkeep.rules.reading import number_of
from signalkeep.rules.troubles import Trouble

TroubleLimits = Mapping[str, float]
"""Limits of a kind of trouble by name; `troubles.LIMITS` has them all."""

HOUR_S: Final = 3600.0
HIT_S: Final = 60.0  # what a hit stands for where it is not known how often the device reports
HIT_S_MAX: Final = 600.0
GNSS_RESTS: Final = frozenset({0, 3})  # off, asleep


class Found(msgspec.Struct, frozen=True):
    """What a rule has found on a day, as far as it is of now. Times in seconds since 1970."""

    trouble: Trouble
    hits: int
    begins_s: float
    last_s: float  # the latest hit
    over: bool  # good records followed
    detail: str


class LastSignal(msgspec.Struct, frozen=True):
    """What a device's latest signal says of how it is used."""

    fix: bool  # it has a position with a fix
    parked: bool = False  # the device may rest then, and mostly does
    receiver_rests: bool = False


def last_signal(fix: bool, ignition: Any, motion: Any, gnss_status: Any) -> LastSignal:
    """From the attributes as they were sent; None: not sent."""
    on, moves = _truth(ignition), _truth(motion)
    return LastSignal(fix, on is False or (on is None and moves is False), number_of(gnss_status) in GNSS_RESTS)


def _truth(value: Any) -> bool | None:
    number = float(value) if type(value) is bool else number_of(value)
    return None if number is None else number != 0


class Ailing(msgspec.Struct, frozen=True):
    """A trouble of a device as it is remembered. `cleared_s`: it is over, and remembered as long as its hits count."""

    kind: Trouble
    stage: Stage
    since_s: float
    hit_s: float
    good_since_s: float | None  # None: it lasts
    good_from: int  # records stored then
    hits: int
    bad_s: float
    detail: str
    part_of: str | None = None
    cleared_s: float | None = None


class DeviceView(msgspec.Struct, frozen=True):
    """An active device, as far as it matters here. Times in seconds since 1970."""

    device_id: int
    device_number: str
    model: str
    customer_id: int | None
    expected_interval_s: int | None
    heard_s: float | None  # None: never
    stored: int  # records
    stored_to_s: float | None  # its latest time of a record
    position_s: float | None  # its latest good position
    since_s: float  # known, or erased up to: there is nothing to say of the time before
    latitude: float | None = None
    longitude: float | None = None
    last: LastSignal | None = None  # None: was not looked up, or there is none
    found: tuple[Found, ...] = ()
    before: Mapping[Trouble, Ailing] = {}


class Lasting(msgspec.Struct, frozen=True):
    """Something that is so now, and since when."""

    since_s: float
    detail: str


def judge(view: DeviceView, limits: Mapping[Trouble, TroubleLimits], now_s: float) -> list[Ailing]:
    """What is to be remembered of a device; what is not in it ails it no longer. A kind without limits is off."""
    lasting: dict[Trouble, Lasting | None] = {
        Trouble.SILENT: silence(view, limits[Trouble.SILENT], now_s) if Trouble.SILENT in limits else None,
        Trouble.NO_FIX: blindness(view, limits[Trouble.NO_FIX], now_s) if Trouble.NO_FIX in limits else None,
    }
    kinds = {one.trouble for one in view.found} | set(view.before) | {kind for kind, one in lasting.items() if one}
    judged = []
    for kind in sorted(kinds & set(limits)):
        found = _together(view, kind, limits[kind], now_s)
        one = _one(view, kind, found, lasting.get(kind), limits[kind], now_s)
        if one is not None:
            judged.append(one)
    return judged


def silent_after_s(view: DeviceView, limits: TroubleLimits) -> float:
    """How long a device may be silent. One that is parked may rest; one of which nothing is known gets a day."""
    if view.expected_interval_s is None:
        after_s = limits["unknown_s"]
    else:
        after_s = max(limits["after_s"], limits["intervals"] * view.expected_interval_s)
    if view.last is not None and view.last.parked:
        after_s = max(after_s, limits["parked_s"])
    return after_s


def asks_last_signal(view: DeviceView, limits: Mapping[Trouble, TroubleLimits], now_s: float) -> bool:
    """Whether the device's latest signal decides something."""
    silent, blind = limits.get(Trouble.SILENT), limits.get(Trouble.NO_FIX)
    if view.heard_s is None:
        return False
    if silent is not None and silent_after_s(view, silent) < now_s - view.heard_s <= silent["parked_s"]:
        return True
    return blind is not None and _blind_since_s(view, blind, now_s) is not None


def silence(view: DeviceView, limits: TroubleLimits, now_s: float) -> Lasting | None:
    """A device that was never heard of may not be built in yet: it is not silent."""
    if view.heard_s is None:
        return None
    after_s = silent_after_s(view, limits)
    if now_s - view.heard_s <= after_s:
        return None
    return Lasting(view.heard_s, f"nothing for longer than {in_words(after_s)}")


def blindness(view: DeviceView, limits: TroubleLimits, now_s: float) -> Lasting | None:
    """Signals come, the latest has no fix, and there was no good position for long. A receiver may rest when parked.

    It must have been heard of lately: of one that is silent nobody knows.
    """
    last = view.last
    if last is None or last.fix or last.parked or last.receiver_rests:
        return None
    since_s = _blind_since_s(view, limits, now_s)
    if since_s is None:
        return None
    return Lasting(since_s, f"reports come, but no good position for longer than {in_words(limits['after_s'])}")


def _blind_since_s(view: DeviceView, limits: TroubleLimits, now_s: float) -> float | None:
    """Since when signals have come without a good position, if that is long enough."""
    if view.heard_s is None or view.stored_to_s is None or now_s - view.heard_s > limits["after_s"]:
        return None
    since_s = view.since_s if view.position_s is None else view.position_s
    return since_s if min(view.stored_to_s, now_s) - since_s >= limits["after_s"] else None


def _together(view: DeviceView, kind: Trouble, limits: TroubleLimits, now_s: float) -> Found | None:
    """All that rules found for a kind within its window. Of a day that began before it, its share of the hits."""
    begins_s = now_s - limits.get("window_h", 24.0) * HOUR_S
    parts = [one for one in view.found if one.trouble is kind and one.last_s > begins_s]
    if not parts:
        return None
    last = max(parts, key=lambda one: one.last_s)
    return Found(
        kind,
        hits=sum(_hits_since(one, begins_s) for one in parts),
        begins_s=max(begins_s, min(one.begins_s for one in parts)),
        last_s=last.last_s,
        over=all(one.over for one in parts),
        detail=last.detail,
    )


def _hits_since(found: Found, begins_s: float) -> int:
    if found.begins_s >= begins_s or found.last_s <= found.begins_s:
        return found.hits
    return max(1, round(found.hits * (found.last_s - begins_s) / (found.last_s - found.begins_s)))


def _one(
    view: DeviceView, kind: Trouble, found: Found | None, lasting: Lasting | None, limits: TroubleLimits, now_s: float
) -> Ailing | None:
    before = view.before.get(kind)
    was_open = before is not None and before.cleared_s is None
    fresh = found is not None and (before is None or found.last_s > before.hit_s)
    if not was_open:
        if lasting is None and not fresh:
            return before if found is not None else None
        if lasting is None and before is None and found is not None and _is_old_news(found, limits, now_s):
            return None
    open_before = before if was_open else None
    good_since_s, good_from = _good(view, found if fresh else None, lasting, open_before, now_s)
    hits, bad_s = _counted(view, found, lasting, before, now_s)
    stage = _stage(open_before, hits, bad_s, limits)
    if lasting and open_before and open_before.good_since_s is None and stage is open_before.stage:
        bad_s = open_before.bad_s  # how long it lasts follows from when it began: to write it down every time is vain
    ailing = Ailing(
        kind,
        stage=stage,
        since_s=_since_s(found, lasting, before),
        hit_s=found.last_s if found else before.hit_s if before else now_s,
        good_since_s=good_since_s,
        good_from=good_from,
        hits=hits,
        bad_s=bad_s,
        detail=lasting.detail if lasting else found.detail if found else before.detail if before else "",
        part_of=open_before.part_of if open_before else None,
    )
    if _is_over(view, ailing, found, limits, now_s):
        return msgspec.structs.replace(ailing, cleared_s=now_s, part_of=None) if found is not None else None
    return ailing


def _is_old_news(found: Found, limits: TroubleLimits, now_s: float) -> bool:
    """It was over before anybody looked."""
    return found.over and now_s - found.last_s >= limits["good_minutes"] * 60


def _good(
    view: DeviceView, fresh: Found | None, lasting: Lasting | None, before: Ailing | None, now_s: float
) -> tuple[float | None, int]:
    """Since when it is good, and how many records were stored then."""
    if lasting is not None:
        return None, before.good_from if before is not None and before.good_since_s is None else view.stored
    if fresh is not None:
        return fresh.last_s, view.stored
    assert before is not None
    if before.good_since_s is None:  # it lasted until now
        return now_s, view.stored
    return before.good_since_s, before.good_from


def _since_s(found: Found | None, lasting: Lasting | None, before: Ailing | None) -> float:
    """When it began. What comes back after it was over begins anew."""
    if before is not None and before.cleared_s is None:
        return before.since_s
    begins = [
        one for one in (lasting.since_s if lasting else None, found.begins_s if found else None) if one is not None
    ]
    if before is not None and found is not None and lasting is None:
        return found.last_s
    return min(begins)


def _counted(
    view: DeviceView, found: Found | None, lasting: Lasting | None, before: Ailing | None, now_s: float
) -> tuple[int, float]:
    """Hits, and how long it was bad: each hit stands for the time between two reports."""
    if found is None and lasting is None:
        assert before is not None
        return before.hits, before.bad_s
    hits, bad_s = 0, 0.0
    if found is not None:
        stands_for_s = min(view.expected_interval_s or HIT_S, HIT_S_MAX)
        hits, bad_s = found.hits, min(found.last_s - found.begins_s, found.hits * stands_for_s)
    if lasting is not None:
        hits, bad_s = max(hits, 1), max(bad_s, now_s - lasting.since_s)
    return hits, bad_s


def _stage(before: Ailing | None, hits: int, bad_s: float, limits: TroubleLimits) -> Stage:
    if before is not None and before.stage is Stage.MALFUNCTION:
        return Stage.MALFUNCTION
    often = hits >= limits.get("hits", 1)
    long = bad_s >= limits["minutes"] * 60 if "minutes" in limits else False
    return Stage.MALFUNCTION if often or long else Stage.DIAGNOSTIC


def _is_over(view: DeviceView, ailing: Ailing, found: Found | None, limits: TroubleLimits, now_s: float) -> bool:
    if ailing.good_since_s is None or now_s - ailing.good_since_s < limits["good_minutes"] * 60:
        return False
    known_good = bounds.CLEAR_AFTER_SIGNALS if found is not None and found.over else 0
    return max(view.stored - ailing.good_from, known_good) >= limits["good_records"]
