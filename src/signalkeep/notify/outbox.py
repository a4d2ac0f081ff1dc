"""The jobs "notify NAME": each channel sends what waits for it, so that one that hangs delays no other.

At least once, always with the same id: a message is sent first and noted then. More than a channel may carry in an hour
comes together in a digest. The first message that fails ends a run; it waits longer each time, and is given up at last.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.notify.channels import Channel
from signalkeep.notify.messages import digest
from signalkeep.store import outbox
from signalkeep.store.postgres import Connection
from signalkeep.telemetry import get_logger

log = get_logger()


async def send_waiting(connection: Connection, channel: Channel, clock: Clock) -> str:
    """One run of a channel's job; what came of it."""
    if not await outbox.try_channel(connection, channel.name):
        return "another organizer sends there"
    count = 0
    while count < limits.NOTIFY_MESSAGES_MAX:
        full = await _is_full(connection, channel, clock.now())
        message = await outbox.next_message(connection, channel.name, clock.now(), only_digests=full)
        if message is None:
            return f"{count} sent" + (", the rest waits for a digest" if full else "")
        outcome = await channel.send(message)
        if outcome.busy:
            return outcome.error
        if outcome.error:
            await outbox.note_failed(connection, message, clock.now(), error=outcome.error, hangs=outcome.hangs)
            log.warning(
                "a message cannot be sent, it is tried again later", channel=channel.name, message=str(message.id),
                attempts=message.attempts + 1, error=outcome.error,
            )  # fmt: skip
            return f"{count} sent, then: {outcome.error}"
        await outbox.note_sent(connection, message.id, clock.now())
        count += 1
    return f"{count} sent, more wait"


async def _is_full(connection: Connection, channel: Channel, now: datetime) -> bool:
    """Whether the channel has had enough in this hour. Then what waits becomes a digest, now and then."""
    sent, digest_at = await outbox.lately(connection, channel.name, now)
    if sent < channel.settings.per_hour_max:
        return False
    if digest_at is None or now - digest_at >= timedelta(seconds=limits.NOTIFY_DIGEST_S):
        async with connection.transaction():
            rows = await outbox.to_digest(connection, channel.name)
            if rows:
                since = min(row["created_at"] for row in rows)
                one = digest([row["title"] for row in rows], since, uuid.uuid4(), now)
                await outbox.put_into_digest(connection, [row["id"] for row in rows], one, channel.name, now)
    return True
