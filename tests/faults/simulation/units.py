"""Virtual devices: they keep each record until they are told that it is safe, and send it again as often as it takes.

The only witness of what was promised. Shares no code with the product, not even the encoders. A unit sends on from the
oldest record that is not acknowledged, in messages of any number of records, so re-sends are grouped differently. It
hangs up now and then in the middle of everything, and is switched off and on without losing what it has.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import deque
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol

from tests.faults.checker import Key
from tests.faults.simulation.network import Cut, Wire

ANSWER_S: Final = (3.0, 12.0)  # patience
RETRY_S: Final = (0.2, 4.0)
TAKEN_AT_ONCE: Final = (1, 2, 4, 8)
REJECTED_CODES: Final = {"json": "rejected", "teltonika": "222"}  # the database will not have them: see database.py
NUL_CODE: Final = "broken\0"  # a value that cannot be text in PostgreSQL
PECULIAR_CODES: Final = {"json": NUL_CODE, "teltonika": "222"}


class Refused(Exception):
    """Nobody listens."""


class World(Protocol):
    """What units need to know."""

    async def open_wire(self, protocol: str, peer: tuple[str, int]) -> Wire:
        """Raises Refused."""
        ...

    def told_safe(self, record: Record) -> None: ...

    def first_sent(self, record: Record) -> None: ...

    def count(self, what: str, by: int = 1) -> None: ...


class Record(NamedTuple):
    """What a unit has to say about one moment. Times of a unit are unique."""

    device_number: str
    device_time: datetime
    latitude: float
    longitude: float
    speed_kmh: float
    event_code: str

    @property
    def key(self) -> Key:
        return Key(self.device_number, self.device_time)

    def as_sent(self) -> dict[str, Any]:
        return {
            "latitude": self.latitude,
            "longitude": self.longitude,
            "speed_kmh": self.speed_kmh,
            "event_code": self.event_code,
        }


class Unit:
    """One device."""

    def __init__(
        self,
        number: int,
        protocol: str,
        records: int,
        *,
        seed: int,
        begin: datetime,
        peculiar: bool = False,
        pace: float = 1.0,
    ) -> None:
        self.rng = random.Random(f"unit {seed} {number}")
        self.protocol, self.pace = protocol, pace
        self.device_number = f"{35_630_700_000_000_0 + number:015d}"
        self.peer = (f"10.0.{number // 250}.{number % 250 + 1}", 40_000 + number)
        self.unsent = deque(self._records(records, begin, peculiar=peculiar))
        self.backlog: deque[Record] = deque()  # taken, not yet told safe
        self.done = asyncio.Event()
        self.calm = False  # faults have stopped

    def _records(self, count: int, begin: datetime, *, peculiar: bool) -> list[Record]:
        at, found = begin, []
        for index in range(count):
            at += timedelta(milliseconds=self.rng.randrange(1, 3_000))
            code = self.rng.choice(("239", "240", "253"))
            if self.rng.random() < 0.002:
                code = REJECTED_CODES[self.protocol]
            elif self.protocol == "json" and self.rng.random() < 0.04:
                code = NUL_CODE
            if peculiar and index < 2:
                code = REJECTED_CODES[self.protocol] if index else PECULIAR_CODES[self.protocol]
            latitude = round(52 + index * 1e-4 + self.rng.randrange(1000) * 1e-7, 7)
            speed_kmh = float(self.rng.randrange(130))
            found.append(Record(self.device_number, at, latitude, 13.5, speed_kmh, code))
        return found

    async def drive(self, world: World, seconds: float) -> None:
        """Take records over so many seconds, and send them until all are told safe."""
        taking = asyncio.create_task(self._take(seconds))
        try:
            while not (taking.done() and not self.backlog):
                try:
                    await self._connection(world)
                except (Cut, TimeoutError, Refused):
                    world.count("unit tries again")
                    await asyncio.sleep(self.rng.uniform(*RETRY_S) * self.pace)
            self.done.set()
        finally:
            taking.cancel()

    async def _take(self, seconds: float) -> None:
        pause_s = seconds / max(1, len(self.unsent))
        while self.unsent:
            count = min(len(self.unsent), self.rng.choice(TAKEN_AT_ONCE))
            await asyncio.sleep(count * pause_s * self.rng.uniform(0.2, 1.8))
            self.backlog += [self.unsent.popleft() for _ in range(count)]

    async def _connection(self, world: World) -> None:
        wire = await world.open_wire(self.protocol, self.peer)
        try:
            if self.protocol == "teltonika":
                wire.expect(1, b"")
                wire.send(len(self.device_number).to_bytes(2) + self.device_number.encode())
                if await wire.receive(1, self.rng.uniform(*ANSWER_S)) != b"\x01":
                    raise Cut
            for _ in range(self.rng.randrange(2, 30)):
                while not self.backlog:
                    if not self.unsent:
                        return
                    await asyncio.sleep(0.3)
                await self._message(world, wire)
                if self.calm:
                    continue
                if self.rng.random() < 0.02:
                    wire.cut()
                    world.count("network cut by the device")
        finally:
            wire.close()

    async def _message(self, world: World, wire: Wire) -> None:
        """Send some of the oldest records and wait for what is said about them."""
        batch = list(self.backlog)[: self.rng.choice((1, 1, 2, 5, 12))]
        for record in batch:
            world.first_sent(record)
        if self.protocol == "json":
            await self._events(world, wire, batch)
            return
        packet = teltonika_packet(batch)
        wire.expect(4, packet)
        wire.send(packet)
        count = int.from_bytes(await wire.receive(4, self.rng.uniform(*ANSWER_S)))
        if count != len(batch):
            raise Cut
        for record in batch:
            world.told_safe(record)
            self.backlog.popleft()

    async def _events(self, world: World, wire: Wire, batch: list[Record]) -> None:
        events = [json_event(record) for record in batch]
        for event in events:
            wire.expect(1, event)
        wire.send(b"".join(event + b"\n" for event in events))
        for record in batch:
            if await wire.receive(1, self.rng.uniform(*ANSWER_S)) != b"1":
                raise Cut
            world.told_safe(record)
            self.backlog.popleft()


def json_event(record: Record) -> bytes:
    """An event as the talk's units send it."""
    return json.dumps(
        {
            "device_number": record.device_number,
            "message_date": record.device_time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "event_code": record.event_code,
            "latitude": record.latitude,
            "longitude": record.longitude,
            "speed_kmh": record.speed_kmh,
        }
    ).encode()


def teltonika_packet(records: list[Record]) -> bytes:
    """Codec 8, as the maker describes it."""
    body = bytes([8, len(records)]) + b"".join(map(_teltonika_record, records)) + bytes([len(records)])
    return bytes(4) + len(body).to_bytes(4) + body + _crc16(body).to_bytes(4)


def _teltonika_record(record: Record) -> bytes:
    at_ms = round(record.device_time.timestamp() * 1000)
    place = b"".join(round(value * 1e7).to_bytes(4, signed=True) for value in (record.longitude, record.latitude))
    moving = (34).to_bytes(2) + (90).to_bytes(2) + bytes([9]) + int(record.speed_kmh).to_bytes(2)
    code = int(record.event_code)
    return at_ms.to_bytes(8) + b"\0" + place + moving + bytes([code, 1, 1, code, 1, 0, 0, 0])


def _crc16(data: bytes) -> int:
    """CRC-16/ARC, bit by bit."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc
