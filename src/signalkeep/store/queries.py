"""What commands ask the database: signals, sums, and how a stream of signals is followed.

A stream resumes by commit visibility, not by a number that grows: transactions commit in another order than they
begin. `SignalTail` gives each row that was committed after its start exactly once, whatever is open beside it and
however often the connection is lost. The one case it cannot see is a database restored to an earlier state.

Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from signalkeep import limits
from signalkeep.errors import DatabaseUnavailable, EnvironmentFault
from signalkeep.model import DeviceStatus
from signalkeep.store import registry
from signalkeep.store.postgres import Connection, Row, sqlstate

# A stored record as programs see it. The detour over text gives `real` values the digits that were sent.
_SIGNAL: Final = """
    d.device_number, s.device_time, s.wire_time, s.received_at, s.fix_valid, s.latitude, s.longitude,
    s.altitude_m::text::float8 AS altitude_m, s.speed_kmh::text::float8 AS speed_kmh,
    s.course_deg::text::float8 AS course_deg, s.satellites, s.event_code, s.attributes, s.flags, s.protocol,
    j.uuid AS journal, s.journal_id, s.seq, s.record_no, s.xid
"""

# The latest signals of one device, by time.
OF_DEVICE: Final = f"""
SELECT {_SIGNAL}
FROM signal s JOIN device d ON d.id = s.device_id JOIN journal j ON j.id = s.journal_id
WHERE s.device_id = (SELECT id FROM device WHERE device_number = $1)
  AND s.wire_time >= coalesce($2::timestamptz, '-infinity') AND s.wire_time < coalesce($3::timestamptz, 'infinity')
ORDER BY s.wire_time DESC, s.digest DESC LIMIT $4
"""  # noqa: S608 - constant columns

# The latest signals of all devices, in the order of storing: the one order of all that has an index.
OF_ALL: Final = f"""
WITH latest AS (
    SELECT * FROM signal
    WHERE wire_time >= coalesce($1::timestamptz, '-infinity') AND wire_time < coalesce($2::timestamptz, 'infinity')
    ORDER BY xid DESC, journal_id DESC, seq DESC, record_no DESC LIMIT $3
)
SELECT {_SIGNAL}
FROM latest s JOIN device d ON d.id = s.device_id JOIN journal j ON j.id = s.journal_id
ORDER BY s.xid DESC, s.journal_id DESC, s.seq DESC, s.record_no DESC
"""  # noqa: S608 - constant columns

# Which transactions are finished now.
SNAPSHOT: Final = "SELECT pg_current_snapshot()::text"

# A page of the rows that snapshot $2 shows and snapshot $1 did not, behind a place among them. What $1 did not show is
# what was open then, and what began later: two scans of the index, so that neither a transaction left open for days
# nor a long way to catch up makes a page dear.
_BEHIND_PLACE: Final = """
    xid >= $3 AND (xid, journal_id, seq, record_no) > ($3::xid8, $4::int, $5::bigint, $6::smallint)
    AND pg_visible_in_snapshot(xid, $2::text::pg_snapshot)
    AND ($7::text IS NULL OR device_id = (SELECT id FROM device WHERE device_number = $7))
    ORDER BY xid, journal_id, seq, record_no LIMIT $8
"""
_NEW_ROWS: Final = f"""
WITH late AS (
    SELECT * FROM signal
    WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot))) AND {_BEHIND_PLACE}
), new AS (
    SELECT * FROM signal WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot) AND {_BEHIND_PLACE}
)
"""  # noqa: S608 - constant conditions
COMMITTED_BETWEEN: Final = f"""
{_NEW_ROWS}
SELECT {_SIGNAL}
FROM (SELECT * FROM late UNION ALL SELECT * FROM new) s
JOIN device d ON d.id = s.device_id JOIN journal j ON j.id = s.journal_id
ORDER BY s.xid, s.journal_id, s.seq, s.record_no LIMIT $8
"""  # noqa: S608 - constant columns and conditions

# The same rows, as devices and the days (UTC) that they speak of.
DAYS_BETWEEN: Final = f"""
{_NEW_ROWS}
SELECT s.device_id, coalesce(s.device_time, s.received_at) AS at, s.xid, s.journal_id, s.seq, s.record_no
FROM (SELECT * FROM late UNION ALL SELECT * FROM new) s
ORDER BY s.xid, s.journal_id, s.seq, s.record_no LIMIT $8
"""  # noqa: S608 - constant columns and conditions
EVERYTHING: Final = "3:3:"  # a snapshot that shows nothing: whoever goes on from it is given all there is

# Sums over all devices.
SUMS: Final = """
SELECT coalesce(sum(frames), 0)::bigint AS frames, coalesce(sum(records), 0)::bigint AS records,
       coalesce(sum(stored), 0)::bigint AS stored, coalesce(sum(duplicate), 0)::bigint AS duplicate,
       coalesce(sum(quarantined), 0)::bigint AS quarantined, coalesce(sum(suppressed), 0)::bigint AS suppressed,
       coalesce(sum(quarantine_open), 0)::bigint AS quarantine_open
FROM device_state
"""

# How many devices have each status.
DEVICES: Final = "SELECT status, count(*) AS devices FROM device WHERE device_number <> '' GROUP BY status"

# What gateways refused, by reason.
REFUSALS: Final = "SELECT reason, sum(count)::bigint AS count FROM refusal GROUP BY reason ORDER BY 2 DESC, reason"

# The latest findings that are not about a device, each with the number of all.
FINDINGS: Final = """
SELECT kind, subject, detail, count, last_at, count(*) OVER () AS findings FROM finding
WHERE device_id IS NULL ORDER BY last_at DESC LIMIT $1
"""

# What rules say of yesterday and today, in numbers, and what has still to be judged.
QUALITY: Final = """
SELECT count(DISTINCT device_id) FILTER (WHERE severity <> 'info') AS devices,
       count(DISTINCT device_id) FILTER (WHERE kind LIKE 'ERR-%') AS due,
       (SELECT count(*) FROM quality_todo) AS days_waiting
FROM finding WHERE day >= (now() AT TIME ZONE 'UTC')::date - 1 AND state IN ('detected', 'confirmed')
"""


@contextmanager
def plain_faults(connection: Connection) -> Iterator[None]:
    """What an administrator can mend, in words: raises EnvironmentFault where the driver raises its own errors.

    Errors that speak of a wrong statement pass through: those are ours.
    """
    try:
        yield
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        code = sqlstate(error)
        text = (str(error).splitlines() or ["no answer in time"])[0]
        if code == "42501":
            raise EnvironmentFault(f"PostgreSQL: {text}", hint="Use a DSN whose user may do this.") from error
        if code[:2] in {"08", "40", "53", "55", "57", "58"} or code == "25006" or connection.is_closed():
            raise DatabaseUnavailable(f"PostgreSQL: {text}", hint="Nothing is half done; try again.") from error
        if isinstance(error, TimeoutError):
            raise DatabaseUnavailable(
                "PostgreSQL did not answer in time", hint="Try again, or ask for less."
            ) from error
        raise


async def list_signals(
    connection: Connection, *, device_number: str | None, since: datetime | None, until: datetime | None, limit: int
) -> list[Row]:
    """The latest signals: of one device by wire time, of all devices in the order of storing, newest first."""
    if device_number is not None:
        return list(await connection.fetch(OF_DEVICE, device_number, since, until, limit))
    return list(await connection.fetch(OF_ALL, since, until, limit))


class TailPosition(msgspec.Struct, frozen=True):
    """How far somebody has followed `signal`; keeps over restarts."""

    since: str  # everything that this snapshot shows has been given
    until: str | None  # what this one shows beyond it is being given
    place: tuple[int, int, int, int]  # up to here


class SignalTail:
    """Follows `signal`. The connection may be another one at every call: the position is kept here."""

    _BEGINNING: Final = (0, 0, 0, -1)

    def __init__(
        self,
        device_number: str | None = None,
        *,
        statement: str = COMMITTED_BETWEEN,
        page_rows: int = limits.TAIL_PAGE_ROWS,
    ) -> None:
        self._device_number = device_number
        self._statement = statement
        self._page_rows = page_rows
        self._since: str | None = None  # everything that this snapshot shows has been given
        self._until: str | None = None  # what this one shows beyond it is being given
        self._place: tuple[int, int, int, int] = self._BEGINNING  # up to here

    async def start(self, connection: Connection) -> None:
        """Mark the start, the first time: what is committed from here on will be given."""
        if self._since is None:
            self._since = await connection.fetchval(SNAPSHOT)

    @property
    def position(self) -> TailPosition:
        """Where the next page begins."""
        assert self._since is not None, "start it first"
        return TailPosition(self._since, self._until, self._place)

    def go_to(self, position: TailPosition) -> None:
        """Instead of `start`: on from where somebody was."""
        self._since, self._until, self._place = position.since, position.until, position.place

    async def next_page(self, connection: Connection) -> list[Row]:
        """The next rows, at most a page; fewer: that was all for now."""
        assert self._since is not None, "start it first"
        if self._until is None:
            self._until = await connection.fetchval(SNAPSHOT)
            if self._until == self._since:  # nothing has been committed
                self._until = None
                return []
        rows = await connection.fetch(
            self._statement, self._since, self._until, *self._place, self._device_number, self._page_rows
        )
        if len(rows) < self._page_rows:
            self._since, self._until, self._place = self._until, None, self._BEGINNING
        else:
            last = rows[-1]
            self._place = (last["xid"], last["journal_id"], last["seq"], last["record_no"])
        return list(rows)


async def device(connection: Connection, device_number: str) -> Row | None:
    """A device with its state, as `registry.LIST` gives it; None if it was never heard of."""
    return await connection.fetchrow(registry.LIST, None, device_number, 1)


async def devices(connection: Connection, status: DeviceStatus | None, limit: int) -> list[Row]:
    """Devices with their state, those heard of last first."""
    return list(await connection.fetch(registry.LIST, status, None, limit))


async def counts(connection: Connection) -> dict[str, Any]:
    """Sums over everything: frames, records and what became of them, devices by status, refusals by reason."""
    sums = await connection.fetchrow(SUMS)
    assert sums is not None, "an aggregate without GROUP BY gives one row"
    return {
        **dict(sums),
        "devices": {row["status"]: row["devices"] for row in await connection.fetch(DEVICES)},
        "refused": {row["reason"]: row["count"] for row in await connection.fetch(REFUSALS)},
    }


async def latest_findings(connection: Connection, limit: int) -> tuple[int, list[Row]]:
    """The number of findings that are not about a device, and the latest of them."""
    rows = await connection.fetch(FINDINGS, limit)
    return (rows[0]["findings"] if rows else 0), list(rows)


async def quality(connection: Connection) -> dict[str, int]:
    """Devices that rules find something wrong with, those that are to be checked, and days that wait to be judged."""
    row = await connection.fetchrow(QUALITY)
    assert row is not None, "an aggregate without GROUP BY gives one row"
    return dict(row)


async def server_version(connection: Connection) -> str:
    """As in "18.4"."""
    version: str = await connection.fetchval("SELECT split_part(current_setting('server_version'), ' ', 1)")
    return version
