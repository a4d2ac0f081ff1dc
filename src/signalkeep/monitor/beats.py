"""Writes what the monitor sees of its machine into the database, so that the organizer can judge all machines.

The write is the heartbeat of the database, too: a real one, whose time is noted. It has a connection of its own and
bounded waits, and whatever fails here is said in /readyz and costs the answers of the monitor nothing. Without the
database nothing is written and nothing is kept: the next look says it all.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Final
from uuid import UUID

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.errors import SignalkeepError
from signalkeep.monitor import certificates
from signalkeep.monitor.database import DatabaseWatch
from signalkeep.monitor.health import Check, live, ready
from signalkeep.monitor.health import State as Health
from signalkeep.monitor.picture import Picture, RoleFacts
from signalkeep.store import services
from signalkeep.store.postgres import Connection, connect, dsn_of
from signalkeep.store.schema import HEAD
from signalkeep.store.services import Beat, Seen, State
from signalkeep.telemetry import get_logger
from signalkeep.vitals import GatewayNumbers, IngestNumbers

STATES: Final[dict[Health, State]] = {"ok": "up", "degraded": "degraded", "failed": "down"}
GAPS: Final = 3  # so many writes missed, and nobody knows how things were meanwhile
OF_GATEWAYS: Final = {"gateway", "sockets", "journal-syncs"}

log = get_logger()


class BeatWriter:
    """`run` goes on until it is cancelled."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        database: DatabaseWatch,
        look: Callable[[], Awaitable[Picture]],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._database = database
        self._look = look
        self._host = socket.gethostname()
        self._connection: Connection | None = None
        self._took_s: float | None = None  # of the last write
        self._rules = BrokenRules(clock)
        self._certificates: list[Seen] = []
        self._certificates_s = float("-inf")

    async def run(self) -> None:
        try:
            while True:
                if self._database.facts.up and self._database.facts.schema == HEAD:
                    await self.beat()
                await asyncio.sleep(self._settings.monitor.write_every_s)
        finally:
            self._drop()

    async def beat(self) -> None:
        """Look and write, once."""
        try:
            async with asyncio.timeout(limits.PROBE_S_MAX):
                await self._write()
        except SignalkeepError as error:
            self._failed(error.message)
        except TimeoutError:
            self._failed(f"not done within {limits.PROBE_S_MAX:.0f} s")
        except Exception as error:
            self._failed(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
        else:
            self._database.write_fault = ""

    async def _write(self) -> None:
        picture = await asyncio.shield(self._look())
        await self._look_at_certificates()
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(
                dsn_of(self._settings), application="signalkeep heartbeat", settings=self._settings.database
            )
        clock = await self._compare_clocks(self._connection)
        seen = [*seen_of(picture, self._took_s), clock, *self._rules.look(picture), *self._certificates]
        started_s = self._clock.monotonic()
        await services.write_host(
            self._connection, self._host, beats_of(picture), seen, gap_s=GAPS * self._settings.monitor.write_every_s
        )
        self._took_s = self._clock.monotonic() - started_s

    async def _look_at_certificates(self) -> None:
        now_s = self._clock.monotonic()
        if now_s - self._certificates_s >= limits.CERTIFICATE_LOOK_S:
            self._certificates_s = now_s
            self._certificates = await asyncio.to_thread(certificates.look, self._settings, self._clock.now())

    async def _compare_clocks(self, connection: Connection) -> Seen:
        before_s, before = self._clock.monotonic(), self._clock.now()
        theirs = await services.time_of(connection)
        within_s = self._clock.monotonic() - before_s
        ahead_s = (before - theirs).total_seconds() + within_s / 2
        if abs(ahead_s) <= limits.CLOCK_OFFSET_S_MAX + within_s:
            return Seen("clock")
        said = f"it is {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} the database's"
        return Seen("clock", "degraded", said)

    def _failed(self, why: str) -> None:
        self._drop()
        self._took_s = None
        if not self._database.write_fault:
            log.warning("what the monitor sees cannot be written down, trying again", error=why)
        self._database.write_fault = why

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                self._connection.terminate()
            self._connection = None


class BrokenRules:
    """Rules that raise: each is named for a while after the last time, whatever process it was in."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[tuple[str, int, str], int] = {}
        self._raised_s: dict[str, float] = {}

    def look(self, picture: Picture) -> list[Seen]:
        """Nothing where nobody judges signals."""
        now_s, judges = self._clock.monotonic(), False
        counts: dict[tuple[str, int, str], int] = {}
        for role in picture.roles:
            numbers = role.vitals.numbers if role.vitals is not None else None
            if not isinstance(numbers, IngestNumbers) or role.vitals is None:
                continue
            judges = True
            for rule, count in numbers.broken_rules.items():
                key = (role.name, role.vitals.pid, rule)
                counts[key] = count
                if count > self._counts.get(key, 0):
                    self._raised_s[rule] = now_s
        self._counts = counts
        self._raised_s = {rule: at_s for rule, at_s in self._raised_s.items() if now_s - at_s < limits.RULE_BROKEN_S}
        if not judges:
            return []
        if not self._raised_s:
            return [Seen("rules")]
        return [Seen("rules", "degraded", f"raised errors instead of judging: {', '.join(sorted(self._raised_s))}")]


def seen_of(picture: Picture, write_s: float | None) -> Iterator[Seen]:
    """What /livez and /readyz say, as far as it is this machine's business."""
    roles = {role.role for role in picture.roles}
    for check in (*live(picture), *ready(picture)):
        if check.name in OF_GATEWAYS and "gateway" not in roles:
            continue
        if check.name == "ingest" and not roles & {"ingest", "gateway"}:
            continue
        yield _seen(check, picture.database.round_trip_s if check.name == "database" else None, write_s)


def _seen(check: Check, read_s: float | None, write_s: float | None) -> Seen:
    took_s = None if read_s is None or write_s is None else max(read_s, write_s)
    return Seen(check.name, STATES[check.state], check.why, took_s)


def beats_of(picture: Picture) -> list[Beat]:
    """Every process that should be there; of what has no beats of its own, restarts are known."""
    counted = picture.restarts if picture.supervised else None
    found = {role.name: _beat(role, None if counted is None else counted.get(role.name, 0)) for role in picture.roles}
    for name, restarts in picture.restarts.items():
        role, _, instance = name.rpartition("-")
        found.setdefault(name, Beat(role=role, instance=int(instance), restarts=restarts))
    return list(found.values())


def _beat(role: RoleFacts, restarts: int | None) -> Beat:
    vitals = role.vitals
    if vitals is None or not role.lives:
        return Beat(role=role.role, instance=role.instance, restarts=restarts)
    numbers = vitals.numbers if isinstance(vitals.numbers, GatewayNumbers) else None
    return Beat(
        role=role.role,
        instance=role.instance,
        pid=vitals.pid,
        version=vitals.version,
        started_at=vitals.started_at,
        beat_age_s=role.beat_age_s,
        handled=vitals.handled,
        handled_age_s=role.handled_age_s,
        waits=vitals.waits,
        restarts=restarts,
        journal=UUID(numbers.journal) if numbers else None,
        durable_seq=numbers.durable_seq if numbers else None,
    )
