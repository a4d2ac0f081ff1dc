"""Is this core alive, and does it acknowledge devices? Two questions, each answered check by check, with the reason.

*live*: every process that should be there is there and moves. What to do if not: restart the core.
*ready*: what devices send becomes durable and is acknowledged. PostgreSQL, broker or ingest away is `degraded`, not
`failed`: devices are acknowledged all the same, until the journal's cap. A machine that only has workers is ready when
one of them moves. Pure: a picture in, checks out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from signalkeep import limits
from signalkeep.limits import GIB
from signalkeep.monitor.picture import Picture, RoleFacts
from signalkeep.vitals import GatewayNumbers, IngestNumbers, RelayNumbers, WorkerNumbers

State = Literal["ok", "degraded", "failed"]
MARKS: dict[State, str] = {"ok": "+", "degraded": "~", "failed": "-"}


class Check(msgspec.Struct, frozen=True):
    """One thing that must be so. `why`: what is known against it."""

    name: str
    state: State = "ok"
    why: str = ""


def passed(checks: Sequence[Check]) -> bool:
    return all(check.state != "failed" for check in checks)


def page(name: str, checks: Sequence[Check], *, verbose: bool) -> str:
    """The answer in words, as Kubernetes' own endpoints give it."""
    if not verbose and passed(checks):
        return "ok\n"
    lines = [
        f"[{MARKS[check.state]}]{check.name} {check.state}{f': {check.why}' if check.why else ''}"
        for check in checks
        if verbose or check.state != "ok"
    ]
    degraded = ", degraded" if any(check.state == "degraded" for check in checks) else ""
    lines.append(f"{name} check passed{degraded}" if passed(checks) else f"{name} check failed")
    return "\n".join(lines) + "\n"


def live(picture: Picture) -> list[Check]:
    """A check for each process that should be there."""
    if not picture.roles:
        return [Check("roles", "failed", "nothing runs on this data directory")]
    return [
        Check(role.name, "failed" if why else "ok", why)
        for role in picture.roles
        for why in [_not_moving(role, picture)]
    ]


def ready(picture: Picture) -> list[Check]:
    """What an acknowledgement needs, in the order of its way; then what may be away for a while."""
    names = {role.role for role in picture.roles}
    if "gateway" not in names and any(_worker(role) for role in picture.roles):
        return [_workers(picture), *_broker(picture), _database(picture)]
    emptied = [_emptied(picture, "relay")] if "relay" in names else []
    if "ingest" in names or not emptied:
        emptied.append(_emptied(picture, "ingest"))
    return [
        _gateways(picture),
        _sockets(picture),
        _syncs(picture),
        *_disk(picture),
        *emptied,
        *_broker(picture),
        _database(picture),
    ]


def _not_moving(role: RoleFacts, picture: Picture) -> str:
    if role.vitals is None:
        return "it does not run" + ("; the supervisor starts it again" if picture.supervised else "")
    if not role.lives:
        return f"its process {role.vitals.pid} has ended"
    if role.beat_age_s > picture.hung_after_s:
        return f"it hangs: pid {role.vitals.pid} has not moved for {role.beat_age_s:.0f} s"
    return ""


def _moving(picture: Picture, name: str) -> Iterator[RoleFacts]:
    return (role for role in picture.roles if role.role == name and not _not_moving(role, picture))


def _gateways(picture: Picture) -> Check:
    """One that listens is enough for devices to be heard."""
    listening = [role for role in _moving(picture, "gateway") if role.listens]
    others = [role for role in picture.roles if role.role == "gateway" and role not in listening]
    named = "; ".join(f"{role.name}: {_not_moving(role, picture) or 'does not listen yet'}" for role in others)
    if listening:
        return Check("gateway", "degraded" if others else "ok", named)
    return Check("gateway", "failed", named or "no gateway runs")


def _sockets(picture: Picture) -> Check:
    shut: dict[str, list[str]] = {}
    for role in _moving(picture, "gateway"):
        if role.vitals is not None and isinstance(role.vitals.numbers, GatewayNumbers):
            shut[role.name] = role.vitals.numbers.shut
    named = "; ".join(f"{name}: {', '.join(reasons)}" for name, reasons in shut.items() if reasons)
    if not shut:
        return Check("sockets", "failed", "no gateway says that it reads them")
    state: State = "failed" if all(shut.values()) else "degraded" if named else "ok"
    return Check("sockets", state, f"not read by {named}" if named else "")


def _syncs(picture: Picture) -> Check:
    """Something waits for the journal and nothing has become durable for long: the disk hangs, or refuses."""
    gateways = list(_moving(picture, "gateway"))
    stuck = [
        role for role in gateways if role.vitals and role.vitals.waits and role.handled_age_s > picture.hung_after_s
    ]
    named = "; ".join(f"{role.name}: nothing became durable for {role.handled_age_s:.0f} s" for role in stuck)
    state: State = "ok" if not stuck else "failed" if len(stuck) == len(gateways) else "degraded"
    return Check("journal-syncs", state, named)


def _disk(picture: Picture) -> Iterator[Check]:
    """What is nearly full is degraded: people shall hear of it before acknowledgements stop."""
    facts = picture.journal
    if facts is None:
        yield Check("journal-disk", "failed", picture.journal_fault)
        return
    used, cap = facts.used_bytes, picture.journal_cap_bytes
    nearly = max(limits.JOURNAL_NEARLY_SHARE * cap, picture.journal_keep_bytes)
    said = f"{used / GIB:.2f} of {cap / GIB:.2f} GiB (journal.cap_bytes) are used"
    state: State = "failed" if used >= cap else "degraded" if used > nearly else "ok"
    yield Check("journal-cap", state, "" if state == "ok" else said)
    free, least = facts.free_bytes, picture.disk_free_min_bytes
    said = f"{free / GIB:.2f} GiB free, at {least / GIB:.2f} (journal.disk_free_bytes) acknowledgements stop"
    state = "failed" if free < least else "degraded" if free < limits.DISK_NEARLY_FACTOR * least else "ok"
    yield Check("journal-disk", state, "" if state == "ok" else said)


def _emptied(picture: Picture, name: str) -> Check:
    """The roles of that name, which read the journals, or a broker's queues, into the database."""
    moving = list(_moving(picture, name))
    others = [role for role in picture.roles if role.role == name and role not in moving]
    if not moving:
        named = "; ".join(f"{role.name}: {_not_moving(role, picture)}" for role in others)
        return Check(name, "degraded", named or f"no {name} runs: rows wait in the journal")
    lag = picture.journal.lag_entries if picture.journal else None
    if lag and picture.database.up and min(role.handled_age_s for role in moving) > picture.hung_after_s:
        return Check(name, "degraded", f"{lag} entries wait and nothing was done about it for long")
    named = "; ".join(f"{role.name}: {_not_moving(role, picture)}" for role in others)
    return Check(name, "degraded" if others else "ok", named)


def _workers(picture: Picture) -> Check:
    """On a machine without gateways they are what must work."""
    check = _emptied(picture, "ingest")
    return Check("ingest", "failed", check.why) if not list(_moving(picture, "ingest")) else check


def _worker(role: RoleFacts) -> WorkerNumbers | None:
    numbers = role.vitals.numbers if role.vitals is not None else None
    return numbers.worker if isinstance(numbers, IngestNumbers) else None


def _broker(picture: Picture) -> Iterator[Check]:
    """As those see it who use it; nothing where nobody does."""
    users: list[tuple[RoleFacts, bool, bool]] = []
    for role in (*_moving(picture, "relay"), *_moving(picture, "ingest")):
        numbers, worker = role.vitals.numbers if role.vitals is not None else None, _worker(role)
        if isinstance(numbers, RelayNumbers):
            users.append((role, numbers.connected, numbers.blocked))
        elif worker is not None:
            users.append((role, worker.connected, False))
    if not users:
        return
    away = [f"{role.name} has no connection" for role, connected, _ in users if not connected]
    away += [
        f"{role.name}: it takes nothing, for an alarm of its memory or disk" for role, _, blocked in users if blocked
    ]
    yield Check("broker", "degraded" if away else "ok", "; ".join(away))


def _database(picture: Picture) -> Check:
    database = picture.database
    if not database.up:
        return Check("database", "degraded", f"{database.why}; devices are acknowledged until the journal's cap")
    if database.schema != picture.schema_wanted:
        found = database.schema or "not there yet"
        return Check("database", "degraded", f"its schema is {found}, needed is {picture.schema_wanted}")
    if database.write_fault:
        return Check("database", "degraded", f"it answers, but cannot be written to: {database.write_fault}")
    return Check("database")
