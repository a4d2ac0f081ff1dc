"""Following stored signals from a position that the database keeps, for whoever tells applications of them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from signalkeep.store import sql
from signalkeep.store.postgres import Connection
from signalkeep.store.queries import SignalTail, TailPosition

LOAD: Final = "SELECT position::text FROM announced WHERE stream = $1"

# The position is noted by whoever leads; the last word counts.
NOTE: Final = """
INSERT INTO announced (stream, position) VALUES ($1, $2::text::jsonb)
ON CONFLICT (stream) DO UPDATE SET position = EXCLUDED.position, at = now()
"""

# Whose a device was at a time: the vehicle that it was in, and that vehicle's customer.
OWNERS: Final = """
SELECT r.n, v.name AS vehicle, c.name AS customer
FROM unnest($1::text[], $2::timestamptz[]) WITH ORDINALITY AS r (device_number, at, n)
JOIN device d USING (device_number)
JOIN assignment a ON a.device_id = d.id
    AND (a.begins_at IS NULL OR a.begins_at <= r.at) AND (a.ends_at IS NULL OR r.at < a.ends_at)
JOIN vehicle v ON v.id = a.vehicle_id
LEFT JOIN customer c ON c.id = v.customer_id
"""


class AnnouncedTail:
    """Pages of signals in the order in which they became visible. What was given counts only when it is noted."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._tail = SignalTail()
        self._noted: TailPosition | None = None

    async def load(self, connection: Connection) -> None:
        """Go to where somebody was before us; the first time, to what is committed from now on."""
        found = await connection.fetchval(LOAD, self._stream)
        if found is None:
            await self._tail.start(connection)
            await self.note(connection)
        else:
            self._noted = msgspec.json.decode(found, type=TailPosition)
            self._tail.go_to(self._noted)

    async def next_page(self, connection: Connection) -> list[dict[str, Any]]:
        """The next signals, with `customer` and `vehicle` of their time; fewer than a page: that was all for now."""
        rows: list[dict[str, Any]] = [
            {**row, "customer": None, "vehicle": None} for row in await self._tail.next_page(connection)
        ]
        numbers = [row["device_number"] for row in rows]
        times = [row["device_time"] or row["received_at"] for row in rows]
        for owner in await connection.fetch(OWNERS, numbers, times) if rows else []:
            rows[owner["n"] - 1] |= {"customer": owner["customer"], "vehicle": owner["vehicle"]}
        return rows

    async def note(self, connection: Connection) -> None:
        """What was given so far has arrived."""
        if self._tail.position != self._noted:
            await connection.execute(NOTE, self._stream, sql.json_text(msgspec.to_builtins(self._tail.position)))
            self._noted = self._tail.position
