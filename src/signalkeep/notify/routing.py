"""The job "notify": events of incidents become messages in the outbox, and what is due because of time becomes events.

Everything of a page of events is one transaction: who was told, and that it was decided. Killed at any moment, the job
does the rest when it runs again, and nothing twice: an event is told to a channel once.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from datetime import datetime
from typing import Any

import msgspec

from signalkeep import limits
from signalkeep.notify.decide import Event, Incident, Told, Word, decide, due
from signalkeep.notify.messages import compose
from signalkeep.sections.notify import NotifySettings
from signalkeep.store import incidents, outbox
from signalkeep.store.incidents import Condition
from signalkeep.store.outbox import Outgoing
from signalkeep.store.postgres import Connection


async def notify(connection: Connection, settings: NotifySettings, now: datetime) -> str:
    """One run of the job; what came of it."""
    await look_at_channels(connection, settings, now)
    fell_due = await let_time_pass(connection, settings, now)
    messages = await route(connection, settings, now)
    orphans = await outbox.give_up_orphans(connection, list(settings.channels))
    return f"{messages} messages, {fell_due} due" + (f", {orphans} without a channel given up" if orphans else "")


async def look_at_channels(connection: Connection, settings: NotifySettings, now: datetime) -> None:
    """A channel that fails again and again is an incident, until a message gets through."""
    failing = [
        Condition(
            kind="channel_failing",
            subject=row["name"],
            detail=f"{row['error']}; {row['waiting']} messages wait",
            hits=row["failed_in_a_row"],
        )
        for row in await outbox.channels(connection, list(settings.channels))
        if row["failed_in_a_row"] >= limits.NOTIFY_FAILED_IN_A_ROW
    ]
    await incidents.observe(connection, "notify", failing, now)


async def let_time_pass(connection: Connection, settings: NotifySettings, now: datetime) -> int:
    """Escalations, reminders and ends of snoozes, as events; how many."""
    after_id, count = 0, 0
    while settings.channels:
        async with connection.transaction():
            rows = await outbox.to_look_at(
                connection, after_id, now,
                escalate_after_s=settings.escalate_after_s if settings.escalate_to else 0.0,
                remind_every_s=settings.remind_every_s,
            )  # fmt: skip
            for row in rows:
                what = due(_incident(dict(row)), settings, now)
                if what is not None:
                    await outbox.note_due(connection, row["incident_id"], what, now)
                    await incidents.add_events(connection, [(row["incident_id"], what)], now)
                    count += 1
        if len(rows) < limits.NOTIFY_EVENTS_MAX:
            break
        after_id = rows[-1]["incident_id"]
    return count


async def route(connection: Connection, settings: NotifySettings, now: datetime) -> int:
    """Decide of every event that waits; how many messages came of it."""
    after_id, messages = 0, 0
    while True:
        async with connection.transaction():
            await outbox.hold_routing(connection)
            rows = [dict(row) for row in await outbox.unrouted(connection, after_id, now)]
            if rows:
                messages += await _route_page(connection, rows, settings, now)
        if len(rows) < limits.NOTIFY_EVENTS_MAX:
            return messages
        after_id = rows[-1]["id"]


async def _route_page(
    connection: Connection, rows: list[dict[str, Any]], settings: NotifySettings, now: datetime
) -> int:
    told: dict[int, list[Told]] = defaultdict(list)
    for before in await outbox.told(connection, list({row["incident_id"] for row in rows})):
        told[before["incident_id"]].append(Told(before["channel"], before["word"]))
    messages: list[tuple[Outgoing, int | None, str]] = []
    routed = []
    for row in rows:
        known = told[row["incident_id"]]
        event = Event(
            what=row["what"], at=row["at"], reopened_lately=row["reopened_lately"], came_back=row["came_back"]
        )
        decision = decide(event, _incident(row), known, settings, now)
        if decision.hold:
            continue
        routed.append(row["id"])
        for channel, word in decision.tell.items():
            messages.append((compose(word, _as_told(row, word), uuid.uuid4(), row["at"]), row["id"], channel))
            known.append(Told(channel, word))
    await outbox.add(connection, messages, now)
    await outbox.note_routed(connection, routed, now)
    return len(messages)


def _incident(row: dict[str, Any]) -> Incident:
    return msgspec.convert(
        {name: row[name] for name in Incident.__struct_fields__}, Incident, builtin_types=(datetime,)
    )  # fmt: skip


def _as_told(row: dict[str, Any], word: Word) -> dict[str, Any]:
    """The end of an incident that has come back meanwhile is told as it was then."""
    return {**row, "state": "cleared", "cleared_at": row["at"]} if word is Word.CLEARED else row
