"""The database is away, and with it the outbox: then the organizer that led last tells the admins by itself.

    <data>/run/outage.json     whether this one led last; since when the database is away; the id of the message to each
                               channel, written before it is sent; who has got it

Whoever is killed finds there what to do, and sends again with the same id. When the database is back, the incident and
its messages are written down as they were, in one transaction, and its end is told as that of any other. An organizer
that never led says nothing: another one may see the database, or nobody has used it yet.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.notify.channels import Channel
from signalkeep.notify.messages import DATABASE, database_away, iso, seen_by
from signalkeep.retry import Backoff
from signalkeep.sections.notify import NotifySettings
from signalkeep.store import incidents, outbox
from signalkeep.store.incidents import Condition
from signalkeep.store.postgres import Connection
from signalkeep.telemetry import get_logger

FILE: Final = "outage.json"

log = get_logger()


class Record(msgspec.Struct):
    """What the file remembers."""

    led: bool = False
    since: datetime | None = None
    ids: dict[str, uuid.UUID] = {}  # by channel; none before it has been away for long enough
    told: bool = False  # it has been away for long enough: it becomes an incident
    sent: dict[str, datetime] = {}


class Emergency:
    """What the organizer tells of the database. `close` when it ends."""

    def __init__(
        self, run_root: Path, settings: NotifySettings, channels: Mapping[str, Channel], *, clock: Clock, host: str
    ) -> None:
        self._path = run_root / FILE
        self._settings = settings
        self._channels = channels
        self._clock = clock
        self._host = host
        self._record = self._read()
        self._task: asyncio.Task[None] | None = None

    def leads(self, leads: bool) -> None:
        """This organizer leads from now on; False: another one does."""
        if self._record.led is not leads:
            self._record.led = leads
            self._write()

    def away(self) -> None:
        """The database could not be used just now. To be called each time."""
        if not self._record.led or self._task is not None:
            return
        if self._record.since is None:
            self._record.since = self._clock.now()
            self._write()
        self._task = asyncio.create_task(self._tell(), name="database away")

    async def back(self, connection: Connection) -> None:
        """The database can be used again: what was told is written down."""
        await self.close()
        record = self._record
        if record.since is None:
            return
        if record.told:
            await self._note(connection, record, record.since)
        self._record = Record(led=record.led)
        self._write()

    async def close(self) -> None:
        """Stop telling. A message that is being sent now counts as not sent, and is sent again with its id."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _tell(self) -> None:
        await asyncio.sleep(self._settings.database_away_s)
        record = self._record
        admins = [name for name in dict.fromkeys(self._settings.admins) if name in self._channels]
        record.ids |= {name: uuid.uuid4() for name in admins if name not in record.ids}
        record.told = True
        self._write()
        log.error("the database is away, admins are told", since=record.since, channels=admins)
        await asyncio.gather(*(self._tell_one(name) for name in admins if name not in record.sent))

    async def _tell_one(self, name: str) -> None:
        record = self._record
        assert record.since is not None, "we were told that it is away"
        message = database_away(record.since, record.ids[name], self._host)
        backoff = Backoff(limits.NOTIFY_RETRY_S_MIN, limits.NOTIFY_RETRY_S_MAX)
        while True:
            outcome = await self._channels[name].send(message)
            if not outcome.error:
                record.sent[name] = self._clock.now()
                self._write()
                return
            log.warning("nobody could be told that the database is away", channel=name, error=outcome.error)
            await asyncio.sleep(backoff.next_s())

    async def _note(self, connection: Connection, record: Record, since: datetime) -> None:
        """The incident with its true beginning and end, and its messages. Who was not reached gets both now."""
        now, note = self._clock.now(), f"away since {iso(since)}, as {self._host} saw it"
        condition = Condition(kind="database_away", subject=DATABASE, detail=seen_by(self._host), since=since)
        async with connection.transaction():
            await outbox.hold_routing(connection)
            if await incidents.is_noted(connection, condition.kind, note):
                return  # we were killed after this, before the file said so
            observed = await incidents.observe(connection, "database", [condition], since)
            (incident_id,) = (*observed.opened, *observed.reopened)
            event_id = await incidents.note_last_event(connection, incident_id, note, routed_at=now)
            messages = [
                (database_away(since, message_id, self._host), event_id, name)
                for name, message_id in record.ids.items()
            ]
            await outbox.add(connection, messages, now)
            for name, at in record.sent.items():
                await outbox.note_sent(connection, record.ids[name], at)
            await incidents.observe(connection, "database", [], now)
        log.info("the database is back", since=since, incident=incident_id)

    def _read(self) -> Record:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Record)
        except FileNotFoundError:
            return Record()
        except (OSError, msgspec.DecodeError) as error:  # to start anew is better than not to organize
            log.warning("what was known of the database cannot be read", file=str(self._path), error=str(error))
            return Record()

    def _write(self) -> None:
        """Whole or not at all. A disk that is full keeps nobody from being told."""
        temporary = self._path.with_suffix(".new")
        try:
            with temporary.open("wb") as file:
                file.write(msgspec.json.encode(self._record))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            log.warning("what is known of the database cannot be kept", file=str(self._path), error=str(error))
