"""What messages say: plain text for people, the same as values for programs. Pure.

A message names what is wrong with what, since when, what it means and what to do; the end says how long it lasted. What
comes from devices is shown on one line, and no control character of theirs reaches a mail's head or a terminal.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from signalkeep import limits
from signalkeep.kinds import KINDS, Stage
from signalkeep.notify.decide import Word
from signalkeep.store.outbox import Outgoing

HEADS: Final = {
    Word.OPENED: "{severity}",
    Word.REOPENED: "AGAIN",
    Word.FLAPPING: "COMES AND GOES",
    Word.ESCALATED: "NOBODY HAS TAKEN",
    Word.REMINDED: "STILL",
    Word.CLEARED: "OVER",
}
FIELDS: Final = (
    "kind", "subject", "scope", "stage", "severity", "state", "title", "detail", "opened_at", "cleared_at", "hits",
    "devices", "reopened", "acknowledged_by", "device_number", "model", "vehicle", "plate", "customer",
)  # fmt: skip
DATABASE: Final = "the database"  # what an outage of it is about
FLAPPING_TEXT: Final = (
    f"It was opened again {limits.FLAPPING_REOPENED} times or more within an hour. The next message comes when it has"
    f" been quiet for {limits.REOPEN_S / 60:g} min."
)


def compose(word: Word, incident: Mapping[str, Any], message_id: uuid.UUID, at: datetime) -> Outgoing:
    """A message about an incident. `at`: when that happened which it tells."""
    subject = one_line(f"{incident['title']}: {incident['subject']}")
    about = _about(incident)
    head = HEADS[word].format(severity=str(incident["severity"]).upper())
    title = _cut(f"[signalkeep] {head} {subject}{f' ({about})' if about else ''}", limits.NOTIFY_TITLE_CHARS_MAX)
    lines = [f"{head}: {subject}", *_with_what(incident)]
    if word is Word.CLEARED:
        lines += [f"It was: {one_line(incident['detail'])}", "", *_lasted(incident, at)]
    else:
        lines += [
            one_line(incident["detail"]),
            "",
            f"Since: {time_text(incident['opened_at'])}",
            *_to_do(word, incident),
        ]
    number = incident["incident_id"]
    lines += ["", f"Incident {number}: signalkeep incidents show {number}", f"Message {message_id}"]
    payload = {
        "id": str(message_id),
        "what": str(word),
        "at": iso(at),
        "incident": {"id": number, **{name: _plain(incident[name]) for name in FIELDS}},
    }
    return Outgoing(id=message_id, title=title, body=_joined(lines), payload=payload)


def digest(titles: Sequence[str], since: datetime, message_id: uuid.UUID, at: datetime) -> Outgoing:
    """One message that stands for many."""
    shown = titles[: limits.NOTIFY_DIGEST_LINES_MAX]
    more = len(titles) - len(shown)
    lines = [
        f"More messages than this channel may carry in an hour. These {len(titles)} came since {time_text(since)}:",
        "",
        *(f"- {one_line(title).removeprefix('[signalkeep] ')}" for title in shown),
        *([f"... and {more} more"] if more else []),
        "",
        "What is open now: signalkeep incidents list",
        f"Message {message_id}",
    ]
    payload = {"id": str(message_id), "what": "digest", "at": iso(at), "messages": list(shown), "more": more}
    return Outgoing(id=message_id, title=f"[signalkeep] {len(titles)} messages", body=_joined(lines), payload=payload)


def trial(channel: str, message_id: uuid.UUID, at: datetime, host: str) -> Outgoing:
    """A message that only shows that messages arrive."""
    lines = [f"This is a test of the channel {channel}, sent from {host} at {time_text(at)}.",
             "Nothing is wrong.", "", f"Message {message_id}"]  # fmt: skip
    payload = {"id": str(message_id), "what": "test", "at": iso(at)}
    return Outgoing(id=message_id, title=f"[signalkeep] test of {channel}", body=_joined(lines), payload=payload)


def database_away(since: datetime, message_id: uuid.UUID, host: str) -> Outgoing:
    """Sent without a database: the incident is written down when it is back."""
    kind = KINDS["database_away"]
    head = f"{kind.severity.upper()} {kind.title}: {DATABASE}"
    lines = [
        head.replace(" ", ": ", 1),
        seen_by(host),
        "",
        f"Since: {time_text(since)}",
        kind.meaning,
        f"What to do: {kind.what_to_do}",
        "",
        "A message follows when it is back.",
        f"Message {message_id}",
    ]
    known = {"kind": kind.name, "subject": DATABASE, "scope": kind.scope, "stage": Stage.MALFUNCTION,
             "severity": kind.severity, "state": "open", "title": kind.title, "detail": seen_by(host),
             "opened_at": iso(since), "hits": 1, "reopened": 0}  # fmt: skip
    incident = {"id": None, **{name: known.get(name) for name in FIELDS}}
    payload = {"id": str(message_id), "what": str(Word.OPENED), "at": iso(since), "incident": incident}
    return Outgoing(id=message_id, title=f"[signalkeep] {head}", body=_joined(lines), payload=payload)


def seen_by(host: str) -> str:
    """Of the database, which may be there for others."""
    return f"PostgreSQL cannot be used, as {host} sees it"


def _about(incident: Mapping[str, Any]) -> str:
    """Vehicle and customer, if they are known."""
    return ", ".join(one_line(incident[name]) for name in ("vehicle", "customer") if incident[name])


def _with_what(incident: Mapping[str, Any]) -> list[str]:
    number, model = incident["device_number"], incident["model"]
    vehicle, plate = incident["vehicle"], incident["plate"]
    found = [
        ("Device", f"{number} ({model})" if number and model else number),
        ("Vehicle", f"{vehicle} ({plate})" if vehicle and plate else vehicle),
        ("Customer", incident["customer"]),
        ("Devices", incident["devices"]),
    ]
    return [f"{name}: {one_line(value)}" for name, value in found if value]


def _to_do(word: Word, incident: Mapping[str, Any]) -> list[str]:
    number, kind = incident["incident_id"], KINDS.get(incident["kind"])
    lines = [FLAPPING_TEXT] if word is Word.FLAPPING else []
    if kind is not None:
        lines += [kind.meaning, f"What to do: {kind.what_to_do}"]
    return [
        *lines,
        "",
        f"I take care of it: signalkeep incidents ack {number}",
        f"Not now: signalkeep incidents snooze {number} --for 2h",
    ]


def _lasted(incident: Mapping[str, Any], at: datetime) -> list[str]:
    lasted = duration_text((at - incident["opened_at"]).total_seconds())
    return [f"From: {time_text(incident['opened_at'])}", f"To: {time_text(at)}", f"It lasted {lasted}."]


def duration_text(seconds: float) -> str:
    """Two units at most: 2 d 3 h, 1 h 5 min, 40 s."""
    minutes, rest_s = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest_s, "s")]
    first = next((place for place, (value, _) in enumerate(parts) if value), len(parts) - 1)
    return " ".join(f"{value} {unit}" for value, unit in parts[first : first + 2] if value) or "0 s"


def time_text(moment: datetime) -> str:
    """For people: to the second, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def iso(moment: datetime) -> str:
    """For programs."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def one_line(value: object) -> str:
    """Text from anywhere as it may stand in a message."""
    text = "".join(char if char.isprintable() else " " for char in str(value))
    return _cut(" ".join(text.split()), limits.NOTIFY_DETAIL_CHARS_MAX)


def _cut(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else f"{text[: chars_max - 3]}..."


def _joined(lines: Sequence[str]) -> str:
    """Without empty lines at the ends or two in a row."""
    kept: list[str] = []
    for line in lines:
        if line or (kept and kept[-1]):
            kept.append(line)
    return "\n".join(kept).strip() + "\n"


def _plain(value: Any) -> Any:
    return iso(value) if isinstance(value, datetime) else value
