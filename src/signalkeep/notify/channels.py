"""How a message leaves: by Apprise, or by our own webhook. Both wait in threads of their own, off the loop.

A channel sends one message at a time, in a daemon thread. One that does not come back in time is left alone, and the
channel is not used again before it has: there is never more than one such thread, and none keeps the process from
ending. What became of a message is a value. No address, password or token is in it, or in any log line.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http.client
import logging
import re
import ssl
import threading
import urllib.error
import urllib.request
from datetime import datetime
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import msgspec

from signalkeep import __version__, limits
from signalkeep.clock import Clock
from signalkeep.config import PASSWORD_MASK
from signalkeep.errors import SettingsError
from signalkeep.sections.notify import ChannelSettings, NotifySettings
from signalkeep.store.outbox import Outgoing

SIGNATURE: Final = "X-Signalkeep-Signature"
TIMESTAMP: Final = "X-Signalkeep-Timestamp"
SECRET_CHARS_MIN: Final = 3  # a shorter piece of an address is a word like any other

_said = threading.local()  # what Apprise says in this thread


class Outcome(msgspec.Struct, frozen=True):
    """`error` is empty if the channel took the message. `busy`: it was not tried, an earlier one hangs there."""

    error: str = ""
    hangs: bool = False
    busy: bool = False


class Channel:
    """One way to reach people. Of one instance for a name in a process."""

    def __init__(self, name: str, settings: ChannelSettings, clock: Clock) -> None:
        self.name = name
        self.settings = settings
        self._clock = clock
        self._thread: threading.Thread | None = None

    async def send(self, message: Outgoing) -> Outcome:
        """Try once, for `timeout_s` at most."""
        if self._thread is not None and self._thread.is_alive():
            return Outcome(error="an earlier message still hangs there", hangs=True, busy=True)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[str] = loop.create_future()

        def tell(error: str) -> None:
            if not done.done():
                done.set_result(error)

        def work() -> None:
            error = self._send(message)
            try:
                loop.call_soon_threadsafe(tell, error)
            except RuntimeError:
                return  # the loop has ended, and nobody waits for us

        self._thread = threading.Thread(target=work, name=f"notify {self.name}", daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return Outcome(error=await done)
        except TimeoutError:
            return Outcome(error=f"hangs: no answer within {self.settings.timeout_s:g} s", hangs=True)

    def _send(self, message: Outgoing) -> str:
        """In a thread. What went wrong, without anything secret."""
        address = ""
        try:
            address = self.settings.address()
            if self.settings.is_webhook:
                return _by_webhook(address, self.settings, message, self._clock.now())
            return without_secrets(_by_apprise(address, message), address)
        except SettingsError as error:
            return error.message
        except Exception as error:  # of whatever library: the message waits and is tried again
            return without_secrets(f"{type(error).__name__}: {error}", address)


def channels_of(settings: NotifySettings, clock: Clock) -> dict[str, Channel]:
    """Every channel of the settings."""
    return {name: Channel(name, channel, clock) for name, channel in settings.channels.items()}


# Webhook


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        """Not followed: what is signed and secret goes where the settings say, and nowhere else."""


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What a receiver computes, too, and compares."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def _by_webhook(address: str, settings: ChannelSettings, message: Outgoing, now: datetime) -> str:
    body = msgspec.json.encode({**message.payload, "subject": message.title, "text": message.body})
    timestamp = str(int(now.timestamp()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"signalkeep/{__version__}",
        "Idempotency-Key": str(message.id),
        TIMESTAMP: timestamp,
    }
    secret = settings.signing_key()
    if secret:
        headers[SIGNATURE] = signature(secret, timestamp, body)
    request = urllib.request.Request(address, data=body, headers=headers, method="POST")  # noqa: S310 - http or https
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(request, timeout=settings.timeout_s) as answer:
            answer.read(limits.NOTIFY_ANSWER_BYTES_MAX)
            return "" if 200 <= answer.status < 300 else f"answered with {answer.status}"
    except urllib.error.HTTPError as error:
        error.close()
        followed = ", and redirects are not followed" if 300 <= error.code < 400 else ""
        return f"answered with {error.code}{followed}"
    except urllib.error.URLError as error:
        return _plainly(error.reason)
    except (OSError, http.client.HTTPException) as error:
        return _plainly(error)


def _plainly(error: object) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__


# Apprise


class _Listener(logging.Handler):
    """Keeps what Apprise says in the thread that sends, and from everywhere else: it may quote addresses."""

    def emit(self, record: logging.LogRecord) -> None:
        lines: list[str] | None = getattr(_said, "lines", None)
        if lines is not None and record.levelno >= logging.WARNING:
            lines.append(record.getMessage())


_LISTENER: Final = _Listener()


def _by_apprise(address: str, message: Outgoing) -> str:
    import apprise

    for name in ("apprise", "urllib3", "requests"):
        logger = logging.getLogger(name)
        logger.propagate = False
        if _LISTENER not in logger.handlers:
            logger.addHandler(_LISTENER)
    _said.lines = []
    service = apprise.Apprise.instantiate(address)
    if service is None:
        return "Apprise does not understand this address"
    service.notify_format = apprise.NotifyFormat.TEXT
    # The service itself, not `Apprise.notify`: that sends in threads of its own, which would keep us from ending.
    if service.notify(title=message.title, body=message.body, notify_type=apprise.NotifyType.INFO):
        return ""
    return "; ".join(_said.lines) or "Apprise could not send it"


def without_secrets(text: str, address: str) -> str:
    """The text without any piece of an address beyond its kind and host."""
    shown = re.sub(r"(\w+://)[^\s'\"]+", rf"\1{PASSWORD_MASK}", text)
    for piece in sorted(_pieces(address), key=len, reverse=True):
        shown = shown.replace(piece, PASSWORD_MASK)
    return " ".join(shown.split())[: limits.NOTIFY_ERROR_CHARS_MAX]


def _pieces(address: str) -> set[str]:
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:
        host = ""
    rest = address.partition("://")[2]
    found = {rest, *re.split(r"[/:@?&=,;#]+", rest)}
    found |= {form(piece) for piece in tuple(found) for form in (unquote, quote)}
    return {piece for piece in found if len(piece) >= SECRET_CHARS_MIN and piece.lower() != host}
