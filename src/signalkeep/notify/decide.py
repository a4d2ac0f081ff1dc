"""Who is told of what: the decisions, as functions of what is known. Pure.

    an event of an incident    -> a word for each channel that is told of it, nobody, or: not yet
    an incident, as it is now  -> whether it is to be escalated or told again

Of one change a channel hears at most once. What a channel was told of, it also hears the end of. Nobody hears of what
is diagnostic, of what is snoozed, and of each turn of what comes and goes all the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from signalkeep import limits
from signalkeep.kinds import Grade, Scope, Stage
from signalkeep.sections.notify import NotifySettings

GRADES = tuple(Grade)  # from the least on


class Word(StrEnum):
    """What a message says of its incident."""

    OPENED = "opened"
    REOPENED = "reopened"
    FLAPPING = "flapping"
    ESCALATED = "escalated"
    REMINDED = "reminded"
    CLEARED = "cleared"


TOLD_AS = {
    "opened": Word.OPENED,
    "malfunction": Word.OPENED,
    "reopened": Word.REOPENED,
    "escalated": Word.ESCALATED,
    "reminded": Word.REMINDED,
    "cleared": Word.CLEARED,
}


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """What decisions depend on, as it is now."""

    kind: str
    subject: str
    scope: Scope
    stage: Stage
    severity: Grade
    state: str
    customer: str | None = None
    malfunction_at: datetime | None = None
    snoozed_until: datetime | None = None
    escalated_at: datetime | None = None
    reminded_at: datetime | None = None

    def snoozed(self, now: datetime) -> bool:
        return self.snoozed_until is not None and self.snoozed_until > now


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to it. `reopened_lately`: within the hour before, this one included."""

    what: str
    at: datetime
    reopened_lately: int = 0
    came_back: bool = False  # of a `cleared`: it was opened again since

    @property
    def flapping(self) -> bool:
        return self.reopened_lately >= limits.FLAPPING_REOPENED


class Told(msgspec.Struct, frozen=True):
    """What a channel was told of an incident before."""

    channel: str
    word: str


class Decision(msgspec.Struct, frozen=True):
    """`hold`: it is too early to decide. Otherwise who is told, and how."""

    tell: dict[str, Word] = {}
    hold: bool = False


NOBODY = Decision()
HOLD = Decision(hold=True)


def decide(event: Event, incident: Incident, told: Sequence[Told], settings: NotifySettings, now: datetime) -> Decision:
    """Who is told of an event. `told` in order of time."""
    word = TOLD_AS.get(event.what)
    if word is None or not _matters(incident, settings):
        return NOBODY
    if word is Word.CLEARED:
        return _of_the_end(event, incident, told, now)
    if incident.snoozed(now) or incident.malfunction_at is None or incident.malfunction_at > event.at:
        return NOBODY
    if word is Word.ESCALATED:
        others = _without_itself(incident, settings.escalate_to)
        return Decision(dict.fromkeys(others, word)) if incident.state == "open" else NOBODY
    channels = audience(incident, settings)
    if word is Word.REMINDED:
        return Decision(dict.fromkeys(channels, word)) if incident.state != "cleared" else NOBODY
    if word is Word.REOPENED and event.flapping:
        known = _said_to_flap(told)
        return Decision({channel: Word.FLAPPING for channel in channels if channel not in known})
    return Decision(dict.fromkeys(channels, word))


def _of_the_end(event: Event, incident: Incident, told: Sequence[Told], now: datetime) -> Decision:
    """The end of what flaps is told when it has been quiet, that of what is snoozed after the snooze."""
    channels = owed(told)
    if not channels:
        return NOBODY
    quiet_at = event.at + timedelta(seconds=limits.REOPEN_S)
    if incident.snoozed(now) or (event.flapping and now < quiet_at):
        return NOBODY if event.came_back else HOLD
    if event.flapping and event.came_back:
        return NOBODY
    return Decision(dict.fromkeys(channels, Word.CLEARED))


def audience(incident: Incident, settings: NotifySettings) -> tuple[str, ...]:
    """The channels that are told of such an incident."""
    channels = settings.admins
    if incident.scope in {Scope.DEVICE, Scope.GROUP} and incident.customer is not None:
        channels = settings.customers.get(incident.customer, settings.admins)
    return _without_itself(incident, channels)


def _without_itself(incident: Incident, channels: Sequence[str]) -> tuple[str, ...]:
    """Each once; that a channel fails is not told over it."""
    failing = incident.subject if incident.kind == "channel_failing" else None
    return tuple(channel for channel in dict.fromkeys(channels) if channel != failing)


def owed(told: Sequence[Told]) -> tuple[str, ...]:
    """Channels that were told of an incident and not of its end."""
    last = {one.channel: one.word for one in told}
    return tuple(channel for channel, word in last.items() if word != Word.CLEARED)


def _said_to_flap(told: Sequence[Told]) -> set[str]:
    """Channels that know that it comes and goes, and have not heard since that it is over."""
    found: set[str] = set()
    for one in told:
        if one.word == Word.FLAPPING:
            found.add(one.channel)
        elif one.word == Word.CLEARED:
            found.discard(one.channel)
    return found


def due(incident: Incident, settings: NotifySettings, now: datetime) -> Word | None:
    """What has to happen to an incident because time has passed."""
    if incident.state == "cleared" or incident.malfunction_at is None or incident.snoozed(now):
        return None
    if not _matters(incident, settings):
        return None
    slept = incident.snoozed_until
    if slept is not None and (incident.reminded_at is None or incident.reminded_at < slept):
        return Word.REMINDED
    if incident.state != "open":
        return None
    since = max(incident.malfunction_at, slept or incident.malfunction_at)
    if settings.escalate_to and incident.escalated_at is None and _over(since, settings.escalate_after_s, now):
        return Word.ESCALATED
    last = max(since, incident.reminded_at or since)
    return Word.REMINDED if _over(last, settings.remind_every_s, now) else None


def _over(since: datetime, seconds: float, now: datetime) -> bool:
    return seconds > 0 and now - since >= timedelta(seconds=seconds)


def _matters(incident: Incident, settings: NotifySettings) -> bool:
    return GRADES.index(incident.severity) >= GRADES.index(settings.min_severity)
