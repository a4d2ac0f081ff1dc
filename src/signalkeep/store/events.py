"""What event codes mean: one word for each, the same for every protocol. The table has the talk's name, event_format.

`WORDS` are the words that signalkeep itself uses; docs/data-model.md explains them. Users may add codes of theirs, with
these words or others.
"""

from __future__ import annotations

import re
from typing import Final

from signalkeep import limits
from signalkeep.errors import CallerError
from signalkeep.store.fleet import NOTES_CHARS_MAX, check_text
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.registry import log_action

WORDS: Final = (
    "ignition_on", "ignition_off", "motion_start", "motion_stop", "trip_start", "trip_end", "idle", "idle_end",
    "hard_acceleration", "hard_braking", "hard_cornering", "harsh_driving", "overspeed", "overspeed_end", "low_speed",
    "accident", "accident_end", "fall_down", "fatigue", "sos", "sos_end", "tow", "tow_end", "vibration", "movement",
    "geofence", "geofence_enter", "geofence_exit", "power_cut", "power_restored", "power_on", "power_off",
    "low_battery", "low_power", "jamming", "jamming_end", "gps_antenna_cut", "tampering", "removing", "door", "lock",
    "unlock", "immobilizer", "fuel_leak", "temperature", "fault", "general",
)  # fmt: skip
NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")

# Event formats, of one protocol or of all; codes that are numbers by their value.
LIST: Final = """
SELECT protocol, code, name, description, attribute, end_name, by_alarm FROM event_format
WHERE $1::text IS NULL OR protocol = $1
ORDER BY protocol, code ~ '^[0-9]+$' DESC, CASE WHEN code ~ '^[0-9]{1,18}$' THEN code::bigint END, code
"""

# Adds an event format or replaces one; what it was is forgotten.
PUT: Final = """
INSERT INTO event_format (protocol, code, name, description) VALUES ($1, $2, $3, $4)
ON CONFLICT (protocol, code) DO UPDATE SET
    name = EXCLUDED.name, description = EXCLUDED.description, attribute = NULL, end_name = NULL, by_alarm = false
"""


async def put(
    connection: Connection, protocol: str, code: str, *, name: str, description: str | None, actor: str
) -> str | None:
    """Say what a code means; returns the word that it had before. Raises CallerError for what cannot be a name."""
    if not NAME.fullmatch(name):
        raise CallerError(
            f"{name!r} is no name of an event",
            hint=f"Small letters, digits and _, such as {WORDS[0]}; docs/data-model.md lists the usual words.",
        )
    check_text("code", code, limits.EVENT_CODE_CHARS_MAX, empty=False)
    check_text("description", description, NOTES_CHARS_MAX)
    async with connection.transaction():
        before = await connection.fetchrow(
            "SELECT name, description FROM event_format WHERE protocol = $1 AND code = $2 FOR UPDATE", protocol, code
        )
        text = description if description is not None else before["description"] if before else ""
        await connection.execute(PUT, protocol, code, name, text)
        was = before["name"] if before else None
        await log_action(connection, actor, "event.add", f"{protocol} {code}", {"name": name, "was": was})
    return was


async def formats(connection: Connection, protocol: str | None) -> list[Row]:
    """All event formats, or those of a protocol."""
    return list(await connection.fetch(LIST, protocol))
