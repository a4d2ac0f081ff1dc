"""The canary: a signal of our own, sent through the gateway's port like a device's, and waited for as a row.

It is the whole way in one look: port, gateway, journal, acknowledgement, relay and broker if there are, ingest,
database. Its device is registered by itself and has a model of its own (`CANARY_MODEL`), by which rules and figures of
the fleet leave it out; its signals are rows like all, and counted in the ledger. One flight has one deadline.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import zlib
from contextlib import suppress
from datetime import datetime
from typing import Final

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.errors import CallerError, SignalkeepError
from signalkeep.integrity.services import CANARY
from signalkeep.model import CANARY_MODEL, DeviceStatus, Signal
from signalkeep.protocols.json_events import ANSWER
from signalkeep.protocols.teltonika import ACCEPTED
from signalkeep.protocols.teltonika_encoder import TeltonikaEncoder
from signalkeep.roles import running_roles
from signalkeep.store import canary as stored
from signalkeep.store.postgres import Connection
from signalkeep.store.services import Seen

NAME: Final = "signalkeep's own signals, to see that the whole way works"
ONE_RECORD: Final = (1).to_bytes(4)  # how Teltonika acknowledges it


class Canary:
    """`fly` sends one and says what became of it."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._canary = settings.services.canary
        self._clock = clock
        self.device_number = self._canary.device_number or usual_number(
            socket.gethostname() if self._canary.host in {"127.0.0.1", "::1", "localhost"} else self._canary.host,
            self._canary.protocol,
        )

    async def fly(self, connection: Connection) -> Seen:
        """`down`: it was not acknowledged; `degraded`: it was, and is no row. Raises what the database raises."""
        started_s = self._clock.monotonic()
        try:
            device_id = await self._device(connection)
        except SignalkeepError as error:
            return Seen(CANARY, "down", f"its device {self.device_number} cannot be registered: {error.message}")
        now = self._clock.now()
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        deadline_s = self._canary.deadline_s
        try:
            async with asyncio.timeout(deadline_s):
                why = await self._send(now)
        except TimeoutError:
            why = f"no acknowledgement within {deadline_s:g} s"
        except SignalkeepError as error:
            why = error.message
        except (OSError, EOFError) as error:
            said = getattr(error, "strerror", None) or str(error) or type(error).__name__
            why = f"no acknowledgement: {said}"
        if why:
            return Seen(CANARY, "down", why)
        while not await stored.arrived(connection, device_id, now):
            left_s = deadline_s - (self._clock.monotonic() - started_s)
            if left_s <= 0:
                reason = await stored.set_aside(connection, device_id, now)
                where = f"it is in quarantine: {reason}" if reason else f"no row within {deadline_s:g} s"
                return Seen(CANARY, "degraded", f"acknowledged, but {where}")
            await asyncio.sleep(min(left_s, limits.CANARY_POLL_S))
        return Seen(CANARY, took_s=self._clock.monotonic() - started_s)

    async def _device(self, connection: Connection) -> int:
        """Registered once. What a person then does with it stays."""
        device_id, status, model = await stored.find(connection, self.device_number)
        if device_id is not None and model == CANARY_MODEL and status is DeviceStatus.ACTIVE:
            return device_id
        if status is DeviceStatus.RETIRED:
            raise CallerError("a person has retired it")
        if status is DeviceStatus.ACTIVE:
            raise CallerError(f"it is a device of yours: its model is {model!r}; set services.canary.device_number")
        device_id = await stored.register(connection, self.device_number, name=NAME, model=CANARY_MODEL)
        await asyncio.sleep(4 * limits.REGISTRY_PAUSE_S)  # gateways hear of it
        return device_id

    def _port(self) -> int:
        """As the settings say; where they leave it to the gateway, as that says. Raises CallerError."""
        protocol = self._canary.protocol
        port = self._canary.port or self._settings.gateway.ports.get(protocol, -1)
        if port < 0:
            raise CallerError(f"gateway.ports has none for {protocol}")
        for state in running_roles(self._settings.run_root) if port == 0 else ():
            if state.role == "gateway" and protocol in state.ports:
                return state.ports[protocol]
        if port == 0:
            raise CallerError(f"no gateway here says on which port it speaks {protocol}")
        return port

    async def _send(self, at: datetime) -> str:
        """What is wrong with the answers; '' if nothing is."""
        context = None
        if self._canary.protocol in self._settings.gateway.tls.ports:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # there is nothing secret to tell it
        reader, writer = await asyncio.open_connection(self._canary.host, self._port(), ssl=context)
        try:
            for message, expected in messages(self._canary.protocol, self.device_number, at):
                writer.write(message)
                await writer.drain()
                answer = await reader.readexactly(len(expected))
                if answer != expected:
                    return f"no acknowledgement: the gateway answers {answer.hex()}"
        except asyncio.IncompleteReadError:
            return "no acknowledgement: the gateway has closed the connection"
        finally:
            with suppress(Exception):
                writer.transport.abort()
        return ""


def usual_number(host: str, protocol: str) -> str:
    """The device of a host's canary. No unit has an IMEI that begins with these zeros."""
    if protocol == "teltonika":
        return f"00000{zlib.crc32(host.encode()):010}"
    plain = "".join(char if char.isascii() and (char.isalnum() or char in ".-_") else "-" for char in host)
    return f"canary-{plain}"[: limits.DEVICE_NUMBER_CHARS_MAX]


def messages(protocol: str, device_number: str, at: datetime) -> list[tuple[bytes, bytes]]:
    """What a device would send, each with what acknowledges it. No position: it is nowhere."""
    if protocol == "json":
        fields = {"device_number": device_number, "message_date": at.isoformat()}
        return [(json.dumps(fields).encode("ascii") + b"\n", ANSWER)]
    encoder = TeltonikaEncoder()
    login, packet = (
        encoder.encode_login(device_number),
        encoder.encode_frame(device_number, [Signal(wire_time=at, device_time=at)]),
    )
    return [(login, ACCEPTED), (packet, ONE_RECORD)]
