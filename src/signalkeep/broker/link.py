"""One connection to RabbitMQ, with our topology in it; and what its errors mean to us.

The broker that we speak to must be able to keep what it confirms: what is unsafe is refused with the reason, and
tried again, since somebody may mend it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import aio_pika
from aio_pika.abc import AbstractConnection
from aiormq import exceptions as amqp

from signalkeep import __version__, limits
from signalkeep.broker import management
from signalkeep.broker.address import redact
from signalkeep.broker.topology import declare_exchanges, declare_lanes, declare_queue, queue_name
from signalkeep.errors import BrokerUnavailable, SettingsError, SignalkeepError, UnsafeBroker
from signalkeep.sections import BrokerSettings
from signalkeep.telemetry import get_logger

OLDEST = (3, 10)

for library in ("aiormq", "aio_pika"):
    logging.getLogger(library).setLevel(logging.CRITICAL)  # we say it ourselves, once and without tracebacks

log = get_logger()


class Link:
    """A connection that works, or did. `made`: the queues that were not there and had to be made."""

    def __init__(self, connection: AbstractConnection) -> None:
        self.connection = connection
        self.made: set[int] = set()

    @classmethod
    async def open(cls, settings: BrokerSettings, *, application: str, make: bool = True) -> Link:
        """Connect and see to it that everything is there as it must be. Raises BrokerUnavailable or UnsafeBroker.

        Without `make`, what is there is looked at and nothing is made.
        """
        url = settings.resolved_url()
        with explained(redact(url)):
            async with asyncio.timeout(2 * limits.BROKER_CALL_S_MAX):
                connection = await aio_pika.connect(
                    _with_heartbeat(url),
                    ssl_context=_tls(settings) if url.startswith("amqps") else None,
                    timeout=limits.BROKER_CALL_S_MAX,
                    client_properties={"connection_name": f"{application} {__version__}"},
                )
            link = cls(connection)
            try:
                async with asyncio.timeout(limits.BROKER_CALL_S_MAX * 2):
                    await link._prepare(settings, make=make)
            except BaseException:
                await link.close()
                raise
        return link

    async def _prepare(self, settings: BrokerSettings, *, make: bool) -> None:
        refuse_old(self._server())
        channel = await self.connection.channel()
        exchange = await declare_exchanges(channel) if make else None
        for queue in range(settings.queues):
            there = await self.exists(queue)
            if exchange is not None:
                await declare_lanes(channel, exchange, queue)
                self.made |= set() if there else {queue}
            elif there:
                await declare_queue(channel, queue)
        await management.refuse_trimming(settings, range(settings.queues))
        await channel.close()

    @property
    def version(self) -> str:
        """Of the server."""
        return _text(self._server().get("version"))

    def _server(self) -> dict[str, object]:
        transport = self.connection.transport
        assert transport is not None
        return dict(transport.connection.server_properties)

    async def exists(self, queue: int) -> bool:
        """Asked on a channel of its own: a no closes it."""
        return await self.depth(queue) is not None

    async def depth(self, queue: int) -> int | None:
        """Messages that wait in a queue and are with no consumer; None if there is no such queue."""
        found = await self.ask(queue)
        return None if found is None else found[0]

    async def ask(self, queue: int) -> tuple[int, int] | None:
        """Messages that wait in a queue, and its consumers; None if there is no such queue."""
        channel = await self.connection.channel()
        try:
            found = await channel.declare_queue(queue_name(queue), passive=True, timeout=limits.BROKER_CALL_S_MAX)
        except amqp.ChannelNotFoundEntity:
            return None
        finally:
            with suppress(Exception):
                await channel.close()
        return found.declaration_result.message_count or 0, found.declaration_result.consumer_count or 0

    async def make(self, queue: int) -> None:
        """Make a queue that has vanished."""
        channel = await self.connection.channel()
        await declare_lanes(channel, await declare_exchanges(channel), queue)
        await channel.close()

    async def delete(self, queue: int) -> None:
        """Delete a queue with all that is in it."""
        channel = await self.connection.channel()
        await channel.queue_delete(queue_name(queue), timeout=limits.BROKER_CALL_S_MAX)
        await channel.close()

    @property
    def is_open(self) -> bool:
        transport = self.connection.transport
        return not self.connection.is_closed and transport is not None and transport.connection.is_opened

    async def is_blocked(self) -> bool:
        """Whether the broker takes no more for now: an alarm of its memory or disk."""
        transport = self.connection.transport
        if transport is None or not self.is_open:
            return False
        asking = asyncio.ensure_future(transport.connection.ready())
        await asyncio.wait([asking], timeout=0.001)
        blocked = not asking.done()
        asking.cancel()
        return blocked

    async def close(self) -> None:
        with suppress(Exception):
            async with asyncio.timeout(limits.STOP_GRACE_S / 2):
                await self.connection.close()


def refuse_old(server: dict[str, object]) -> None:
    """Raises UnsafeBroker for a server that is not RabbitMQ 3.10 or newer."""
    product, version = _text(server.get("product")), _text(server.get("version"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if product != "RabbitMQ" or numbers < OLDEST:
        raise UnsafeBroker(
            f"the broker is {product or 'unknown'} {version}; its queues are not known to keep what they confirm",
            hint="signalkeep needs RabbitMQ 3.10 or newer.",
        )


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Turn what the library raises into our errors; none of them holds a password."""
    try:
        yield
    except SignalkeepError:
        raise
    except (amqp.AuthenticationError, amqp.ProbableAuthenticationError) as error:
        raise BrokerUnavailable(f"{place} does not accept our user or password", hint="Check broker.url.") from error
    except (amqp.ConnectionNotAllowed, amqp.ConnectionClosed) as error:
        raise BrokerUnavailable(f"{place} ended the connection: {_reason(error)}") from error
    except amqp.ChannelAccessRefused as error:
        raise UnsafeBroker(
            f"{place} does not let us work: {_reason(error)}",
            hint=r"Give the user of broker.url the rights to configure, write and read `signalkeep\..*`.",
        ) from error
    except amqp.ChannelPreconditionFailed as error:
        raise UnsafeBroker(
            f"{place} has a queue or an exchange of ours that is not as it must be: {_reason(error)}",
            hint="Delete it: a queue of another type may lose what it has confirmed. What is not in the database "
            "is sent again from the journals.",
        ) from error
    except ssl.SSLError as error:
        raise BrokerUnavailable(f"{place}: TLS: {error.reason or error}", hint="Check broker.ca_file.") from error
    except TimeoutError as error:
        raise BrokerUnavailable(f"{place} does not answer in time") from error
    except (OSError, amqp.AMQPError, RuntimeError, asyncio.InvalidStateError) as error:
        raise BrokerUnavailable(f"{place} cannot be used: {type(error).__name__} {_reason(error)}".rstrip()) from error


def _reason(error: BaseException) -> str:
    """What the broker said, without the repetition of our own words."""
    said = getattr(error, "message", None) or str(error)
    return redacted(str(said))


def redacted(text: str) -> str:
    """No URL with a password leaves in an error's text."""
    return " ".join(redact(word) if "://" in word else word for word in text.split())


def _tls(settings: BrokerSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.certificate is not None:
            context.load_cert_chain(settings.certificate, settings.key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"broker: the TLS files cannot be used: {error}") from error
    return context


def _with_heartbeat(url: str) -> str:
    return url if "heartbeat=" in url else f"{url}{'&' if '?' in url else '?'}heartbeat={limits.BROKER_HEARTBEAT_S}"
