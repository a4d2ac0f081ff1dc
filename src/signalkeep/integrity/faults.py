"""What is wrong with our services: from rows as they are now to incidents, one for each cause. Pure.

Which row means what, and what explains what, stands in the tables below:

    a machine that says nothing      explains every row of its own: they are old, and say nothing
    a process that is not there,     explains what gateways, ingest or relays of its machine cannot do
    hangs, or ends again and again
    a full disk, a sync that hangs   explain that sockets are not read
    broker or database away          explain that rows do not move on
    any of what gateways need        explains that the canary is not acknowledged
    broker or database away          explain that its row does not come; a process that hangs does not, since others
                                     may do its part: what comes of it is said beside it

What uses broker or database tries again only now and then, so they explain what waits for a while longer than they are
away. A fault is an incident when it was seen for a while, and it is over when all was seen to be well for a longer
while. A machine says only what it has seen: the time since its last look, such as that of a restart, does not count.
What was open for a subject stays open as it is until then, whatever may explain it later, so that one cause does not
change its name half-way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from signalkeep import limits
from signalkeep.store.incidents import Condition
from signalkeep.store.services import OURS, LastBeat, Service

PROCESS: Final = re.compile(r"[a-z]+-\d+")
ROLE_KINDS: Final = ("role_restarting", "role_hung", "service_down")  # of a process: whichever was first
GRADES: Final = {"service": ("service_degraded", "service_down"), "disk": ("disk_low", "disk_full")}
BACK: Final = timedelta(seconds=limits.SERVICE_BACK_S)
AT_ONCE: Final = {"role_restarting", "canary_lost"}  # these have waited long enough already

# Checks of a machine: the roles whose processes explain them, and the checks of the machine that do.
EXPLAINED_BY: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "gateway": ("gateway", ()),
    "journal-syncs": ("gateway", ("journal-disk",)),
    "sockets": ("gateway", ("gateway", "journal-cap", "journal-disk", "journal-syncs")),
    "ingest": ("ingest", ("broker", "database")),
    "relay": ("relay", ("broker", "database")),
}
DISKS: Final = {"journal-cap", "journal-disk"}
SHARED: Final = {"broker": ("broker_away", "the broker"), "database": ("service_degraded", "the database")}
ACKNOWLEDGING: Final = {"gateway", "sockets", "journal-syncs", *DISKS}

# What the organizer looks at itself: the first word of a row's name, and its kind. The subject is the rest.
OF_ORGANIZER: Final = {"job": "job_failing", "host": "host_silent", "watch": "watch_down"}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not well, since `since`; or was not, and is well since then."""

    kind: str
    subject: str
    well: bool
    detail: str
    since: datetime
    seen: datetime  # up to when it is known to be so
    known: bool = True  # False: whoever looks at it says nothing any more, or something else explains it


def conditions(
    services: Sequence[Service],
    beats: Sequence[LastBeat],
    already_open: Iterable[Condition],
    now: datetime,
    *,
    bad_s: float = limits.SERVICE_BAD_S,
    good_s: float = limits.SERVICE_GOOD_S,
    canary_s: float = 0.0,
) -> list[Condition]:
    """What is wrong now.

    `already_open`: what the same question gave before and is not cleared. `canary_s`: how long a canary may fly.
    """
    opened = {(one.kind, one.subject): one for one in already_open}
    found = []
    for fault in _one_each(_faults(services, beats, opened.keys(), now, timedelta(seconds=canary_s))):
        before = opened.get((fault.kind, fault.subject))
        lasted_s = (fault.seen - fault.since).total_seconds()
        if fault.known and not fault.well and (before or lasted_s >= bad_s or fault.kind in AT_ONCE):
            found.append(Condition(kind=fault.kind, subject=fault.subject, detail=fault.detail, since=fault.since))
        elif before and (not fault.known or (fault.well and lasted_s < good_s and fault.kind != "canary_lost")):
            found.append(before)
    return found


def _one_each(faults: Iterable[Fault]) -> list[Fault]:
    """Of what several rows say of one subject: what is bad, the earliest; else what has been well for the least time.

    A row that nobody writes any more counts only where no other says anything.
    """
    merged: dict[tuple[str, str], Fault] = {}
    for fault in faults:
        key = (fault.kind, fault.subject)
        other = merged.get(key)
        if other is None or (not other.known and fault.known):
            merged[key] = fault
        elif other.known and not fault.known:
            continue
        elif not other.well and not fault.well:
            detail = other.detail if fault.detail in other.detail else f"{other.detail}; {fault.detail}"
            since, seen = min(other.since, fault.since), max(other.seen, fault.seen)
            merged[key] = msgspec.structs.replace(other, detail=detail, since=since, seen=seen)
        elif other.well and (not fault.well or fault.since > other.since):
            merged[key] = fault
    return list(merged.values())


def _faults(
    services: Sequence[Service],
    beats: Sequence[LastBeat],
    opened: Iterable[tuple[str, str]],
    now: datetime,
    flight: timedelta,
) -> Iterable[Fault]:
    keys = set(opened)
    silent = {one.name.partition(" ")[2] for one in services if one.name.startswith("host ") and one.state != "up"}
    by_host: dict[str, dict[str, Service]] = {}
    for one in services:
        by_host.setdefault(one.host, {})[one.name] = one
    shared_bad = {one.name for one in services if one.name in SHARED and one.state != "up" and one.host not in silent}
    for host, rows in by_host.items():
        if host == OURS:
            continue
        known = host not in silent
        of_host = [beat for beat in beats if beat.host == host]
        restarting = {beat.name: at for beat in of_host if (at := restarting_since(beat, now)) is not None}
        bad = {name for name, row in rows.items() if row.state != "up"} | restarting.keys() | shared_bad
        for fault in (
            *_of_processes(host, rows, {beat.name: beat for beat in of_host}, restarting, keys, now),
            *_of_checks(host, rows, bad, keys),
        ):
            yield fault if known else msgspec.structs.replace(fault, known=False)
    heard = [one for one in services if one.host not in silent]
    refused = [now if one.state == "down" else one.since for one in heard if one.name in ACKNOWLEDGING]
    late = [now if one.state != "up" else one.since + BACK for one in heard if one.name in SHARED]
    met = {"down": max(refused, default=None), "degraded": max(late, default=None)}
    excused_to = {state: until + flight for state, until in met.items() if until is not None}
    yield from _of_organizer(by_host.get(OURS, {}), now, excused_to)


def restarting_since(beat: LastBeat, now: datetime) -> datetime | None:
    """When the restarts began that are too many in a short time; None: they are not."""
    lately = [at for at in beat.restarted_at if now - at < timedelta(seconds=limits.RESTARTS_S)]
    return min(lately) if len(lately) >= limits.RESTARTS_NAMED else None


def _of_processes(
    host: str,
    rows: Mapping[str, Service],
    beats: Mapping[str, LastBeat],
    restarting: Mapping[str, datetime],
    opened: set[tuple[str, str]],
    now: datetime,
) -> Iterable[Fault]:
    for name in sorted({name for name in rows if PROCESS.fullmatch(name)} | restarting.keys()):
        row, beat, subject = rows.get(name), beats.get(name), f"{name} on {host}"
        is_down = row is not None and row.state != "up"
        kinds = [kind for kind in ROLE_KINDS if (kind, subject) in opened]
        if not kinds and name in restarting:
            kinds = ["role_restarting"]
        elif not kinds and is_down:
            kinds = ["role_hung" if beat is not None and beat.pid is not None else "service_down"]
        for kind in kinds:
            if kind == "role_restarting" and name in restarting and beat is not None:
                detail = f"started again {len(beat.restarted_at)} times lately, {beat.restarts} times in all"
                yield Fault(kind=kind, subject=subject, well=False, detail=detail, since=restarting[name], seen=now)
            elif row is not None and (is_down or kind != "role_restarting"):
                yield Fault(kind=kind, subject=subject, well=not is_down, detail=row.why, since=row.since, seen=row.at)


def _of_checks(host: str, rows: Mapping[str, Service], bad: set[str], opened: set[tuple[str, str]]) -> Iterable[Fault]:
    """What a machine can and cannot do, but for what is explained by something else."""
    for name, row in rows.items():
        well, detail, since = row.state == "up", row.why, row.since
        if name in EXPLAINED_BY:
            role, causes = EXPLAINED_BY[name]
            explained = not well and (bad & set(causes) or any(one.startswith(f"{role}-") for one in bad))
            waits = not well and any(row.at < rows[one].since + BACK for one in SHARED.keys() & causes & rows.keys())
            for fault in _graded(GRADES["service"], f"{name} on {host}", row, opened):
                yield msgspec.structs.replace(fault, known=not (explained or waits))
        elif name in DISKS:
            yield from _graded(GRADES["disk"], f"the journals' disk on {host}", row, opened)
        elif name in SHARED:
            kind, subject = SHARED[name]
            yield Fault(kind=kind, subject=subject, well=well, detail=f"{host}: {detail}", since=since, seen=row.at)
        elif name == "clock":
            yield Fault(
                kind="clock_offset", subject=f"the clock of {host}", well=well, detail=detail, since=since, seen=row.at
            )
        elif name == "rules":
            yield Fault(
                kind="rule_broken", subject=f"rules on {host}", well=well, detail=detail, since=since, seen=row.at
            )
        elif name.startswith("certificate "):
            subject = f"{name.partition(' ')[2]} on {host}"
            yield Fault(kind="certificate_expires", subject=subject, well=well, detail=detail, since=since, seen=row.at)


def _graded(grades: tuple[str, str], subject: str, row: Service, opened: set[tuple[str, str]]) -> Iterable[Fault]:
    """What was only half bad and is worse now is not over: what is open for it stays open beside the worse."""
    mild, bad = grades
    if row.state != "down" or (mild, subject) in opened:
        yield Fault(kind=mild, subject=subject, well=row.state == "up", detail=row.why, since=row.since, seen=row.at)
    if row.state != "degraded":
        yield Fault(kind=bad, subject=subject, well=row.state == "up", detail=row.why, since=row.since, seen=row.at)


def _of_organizer(
    rows: Mapping[str, Service], now: datetime, excused_to: Mapping[str, datetime]
) -> Iterable[Fault]:  # fmt: skip
    """`excused_to`: by how a canary came back, until when what it met is known."""
    for name, row in rows.items():
        what, _, rest = name.partition(" ")
        well = row.state == "up"
        if what in OF_ORGANIZER:
            yield Fault(kind=OF_ORGANIZER[what], subject=rest, well=well, detail=row.why, since=row.since, seen=now)
        elif name == "canary":
            known = row.state not in excused_to or row.at > excused_to[row.state]
            yield Fault(
                kind="canary_lost", subject="the canary", well=well, detail=row.why, since=row.since, seen=now,
                known=known,
            )  # fmt: skip
        elif what == "rules":
            yield Fault(kind="rule_broken", subject=name, well=well, detail=row.why, since=row.since, seen=now)
