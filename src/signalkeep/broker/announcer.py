"""Stored signals for applications: published after their commit to the topic exchange signalkeep.signals.

In the order in which they became visible to readers, at least once: the position is noted after the broker has
confirmed, so a crash between the two publishes some again, with the same `message_id`. One process does it for all, by
an advisory lock. A signal that no application is bound for goes nowhere, which is as it should be; what is stored
before this is switched on is not published.

    routing key   <customer>.<device_number>.<event_code>, "-" for what there is none of, "_" for . * # and blanks
    message_id    <device_number>:<wire_time>:<journal>:<seq>:<record_no>, the same however often it is published
    body          JSON: the columns of the signal by their names, with `customer` and `vehicle`
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import aio_pika
import msgspec
from aio_pika.abc import AbstractExchange

from signalkeep import limits
from signalkeep.broker.address import redact
from signalkeep.broker.link import Link, explained
from signalkeep.broker.stats import RelayStats
from signalkeep.broker.topology import SIGNALS
from signalkeep.config import Settings
from signalkeep.drivers.driver import Connect
from signalkeep.errors import BrokerUnavailable, SignalkeepError
from signalkeep.retry import Backoff
from signalkeep.store import claims
from signalkeep.store.announced import AnnouncedTail
from signalkeep.store.postgres import Connection, close_when_silent
from signalkeep.telemetry import get_logger

TASK: Final = 1  # its number among those that one process does for all
INTERNAL: Final = frozenset({"journal_id", "xid"})
NOT_IN_A_WORD: Final = re.compile(r"[.*#\s]")

log = get_logger()


class Announcer:
    """`run` until told to stop; whatever fails is tried again."""

    def __init__(self, settings: Settings, *, connect: Connect, stats: RelayStats) -> None:
        self._settings = settings
        self._connect = connect
        self._stats = stats
        self._place = redact(settings.broker.resolved_url())

    async def run(self, stop: asyncio.Event) -> None:
        backoff = Backoff()
        while not stop.is_set():
            try:
                await self._session(stop, backoff)
            except Exception as error:
                if backoff.worth_a_word or not isinstance(error, SignalkeepError):
                    log.warning("signals cannot be published, trying again", error=f"{type(error).__name__}: {error}")
            with suppress(TimeoutError):
                async with asyncio.timeout(backoff.next_s()):
                    await stop.wait()

    async def _session(self, stop: asyncio.Event, backoff: Backoff) -> None:
        connection = await self._connect()
        try:
            await close_when_silent(connection, limits.CLAIM_SILENT_S)
            while not stop.is_set() and not await claims.lead(connection, TASK):
                await asyncio.sleep(limits.CLAIM_S)
            link = await Link.open(self._settings.broker, application="signalkeep announcer")
            try:
                await self._announce(connection, link, stop, backoff)
            finally:
                await link.close()
        finally:
            await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)

    async def _announce(self, connection: Connection, link: Link, stop: asyncio.Event, backoff: Backoff) -> None:
        with explained(self._place):
            channel = await link.connection.channel(publisher_confirms=True, on_return_raises=False)
            exchange = await channel.get_exchange(SIGNALS, ensure=False)
        tail = AnnouncedTail(SIGNALS)
        await tail.load(connection)
        while not stop.is_set():
            rows = await tail.next_page(connection)
            await self._publish(exchange, rows)
            await tail.note(connection)  # only now: what was not confirmed is published again
            backoff.reset()
            self._stats.announced += len(rows)
            if len(rows) < limits.ANNOUNCE_PAGE_ROWS:
                await asyncio.sleep(limits.ANNOUNCE_POLL_S)

    async def _publish(self, exchange: AbstractExchange, rows: list[dict[str, Any]]) -> None:
        """All of a page in its order, then wait for the confirms of all."""
        if not rows:
            return
        publishing = [
            asyncio.ensure_future(
                exchange.publish(
                    aio_pika.Message(
                        body_of(row),
                        message_id=message_id(row),
                        content_type="application/json",
                        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                    ),
                    routing_key(row),
                    mandatory=False,
                )
            )
            for row in rows
        ]
        try:
            with explained(self._place):
                done, pending = await asyncio.wait(publishing, timeout=limits.BROKER_PUBLISH_S_MAX)
                if pending:
                    raise BrokerUnavailable(f"{self._place} has not confirmed signals in time")
                for one in done:
                    one.result()
        finally:
            for one in publishing:
                one.cancel()


def routing_key(row: Mapping[str, Any]) -> str:
    """A word for each of customer, device and event; at most 255 bytes in all."""
    words = (row["customer"], row["device_number"], row["event_code"])
    return ".".join(_word(word) for word in words)


def _word(text: str | None) -> str:
    safe = NOT_IN_A_WORD.sub("_", text or "-")
    return safe.encode()[:80].decode("utf-8", "ignore")


def message_id(row: Mapping[str, Any]) -> str:
    return f"{row['device_number']}:{row['wire_time'].isoformat()}:{row['journal'].hex}:{row['seq']}:{row['record_no']}"


def body_of(row: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode({name: value for name, value in row.items() if name not in INTERNAL})
