"""What entries other than frames say: connections of devices, and refusals. Pure.

A device's state follows the *latest* connection on which it identified itself: units often come back on a new one
long before the old one is seen to be dead, and the end of the old one says nothing about the new.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from signalkeep.ingest.triage import EPOCH
from signalkeep.journal.record import Entry, SessionEntry, TallyEntry
from signalkeep.store.rows import Sessions


def sessions_in(entries: Iterable[Entry]) -> dict[str, Sessions]:
    """Of each device that is named: its new connections, the latest of them, and which were closed."""
    found: dict[str, Sessions] = {}
    for entry in entries:
        if not isinstance(entry, SessionEntry) or not entry.device_number:
            continue
        at = EPOCH + timedelta(microseconds=entry.at_us)
        if entry.kind == "identified":
            session = found.setdefault(entry.device_number, Sessions())
            session.connections += 1
            if session.connected_at is None or at >= session.connected_at:
                session.connected_at, session.peer = at, entry.peer
        elif entry.kind == "closed":
            closed = found.setdefault(entry.device_number, Sessions()).closed
            closed[entry.peer] = max(at, closed.get(entry.peer, at))
    return found


def refusals_in(entries: Iterable[Entry]) -> dict[str, int]:
    """Refusals by reason, from the tallies."""
    refusals: dict[str, int] = {}
    for entry in entries:
        if isinstance(entry, TallyEntry):
            for reason, count in entry.counts.items():
                refusals[reason] = refusals.get(reason, 0) + count
    return refusals
